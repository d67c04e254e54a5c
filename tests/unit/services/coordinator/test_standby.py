"""A standby: how long it waits, and what is no silence."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from edgeagents.adapters.bus import Bus, BusMessage, Handler
from edgeagents.errors import StoreError, UnavailableError
from services.coordinator import standby as standby_module
from services.coordinator.standby import RIVAL_S, SILENT_S, Rivals, Standby
from tests.contract.waiting import until


class Waiting:
    """A standby with a clock and a broker by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.settings = SimpleNamespace(gateway="gw")
        self.is_connected = True
        self.handler: Handler | None = None
        self.has_ended = False
        self.looks = 0
        self.standby = Standby(cast(Bus, self), self.now)

    def now(self) -> float:
        self.looks += 1
        return self.now_s

    async def subscribe(self, subject: str, handler: Handler) -> "Waiting":
        assert subject == "gw.coordinator"
        self.handler = handler
        return self

    async def unsubscribe(self) -> None:
        self.has_ended = True

    async def pass_s(self, seconds: float) -> None:
        """Have time pass, a little at a time, and the standby look each time."""
        for _ in range(round(seconds / 0.1)):
            self.now_s += 0.1
            await self.looked()

    async def looked(self) -> None:
        """Wait until the standby has looked at the clock again, or has ended."""
        before = self.looks
        await until(lambda: self.looks >= before + 3 or self.has_ended, "the standby looks")

    async def beat(self) -> None:
        """Have another coordinator say that it is there."""
        assert self.handler is not None
        await self.handler(BusMessage("gw.coordinator", b"other"))


@asynccontextmanager
async def waiting() -> AsyncIterator[tuple[Waiting, "asyncio.Task[None]"]]:
    """Yield a standby that waits."""
    found = Waiting()
    task = asyncio.create_task(found.standby.until_needed())
    await until(lambda: found.handler is not None, "it hears")
    yield found, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it look as often as the loop lets it."""
    monkeypatch.setattr(standby_module, "LOOK_S", 0.001)


async def test_where_nobody_leads_it_begins_after_a_moment() -> None:
    async with waiting() as (found, task):
        await found.pass_s(SILENT_S + 0.2)
        await until(task.done, "it leads")
        assert found.has_ended


async def test_it_waits_as_long_as_another_is_heard_and_takes_over_once_it_is_not() -> None:
    async with waiting() as (found, task):
        for _ in range(10):
            await found.pass_s(0.5)
            await found.beat()
        assert not task.done()
        await found.pass_s(SILENT_S - 0.3)
        assert not task.done()
        await found.pass_s(0.5)
        await until(task.done, "it takes over")


async def test_a_link_that_is_down_is_no_silence() -> None:
    async with waiting() as (found, task):
        await found.beat()
        found.is_connected = False
        await found.pass_s(10.0)
        assert not task.done()
        found.is_connected = True
        await found.pass_s(SILENT_S + 0.2)
        await until(task.done, "it takes over")


async def test_who_was_held_up_itself_listens_anew() -> None:
    async with waiting() as (found, task):
        await found.beat()
        await found.looked()
        found.now_s += 60.0
        await found.looked()
        assert not task.done()
        await found.pass_s(SILENT_S + 0.2)
        await until(task.done, "it takes over")


class Leading:
    """Who leads, with a broker by hand on which another one may be heard."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(gateway="gw")
        self.now_s = 100.0
        self.handler: Handler | None = None
        self.behind: bool | Exception | None = False
        self.judged = 0
        self.rivals = Rivals(cast(Bus, self), "m-run", self.is_behind, lambda: self.now_s)

    async def subscribe(self, subject: str, handler: Handler) -> None:
        assert subject == "gw.coordinator"
        self.handler = handler

    async def is_behind(self) -> bool | None:
        self.judged += 1
        if isinstance(self.behind, Exception):
            raise self.behind
        return self.behind

    async def beats(self, name: str, seconds: float) -> None:
        """Have a run be heard twice a second for so long; each beat is judged before the next comes."""
        for _ in range(round(seconds / 0.5) + 1):
            await until(lambda: self.handler is not None, "it listens")
            assert self.handler is not None
            before = self.judged
            await self.handler(BusMessage("gw.coordinator", name.encode()))
            if name != "m-run":
                with contextlib.suppress(AssertionError):  # it has ended
                    await until(lambda: self.judged > before, "it is judged", timeout_s=0.5)  # noqa: B023
            self.now_s += 0.5


@asynccontextmanager
async def leading() -> AsyncIterator[tuple[Leading, "asyncio.Task[None]"]]:
    """Yield a leader that listens."""
    found = Leading()
    task = asyncio.create_task(found.rivals.run())
    yield found, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_leader_that_hears_itself_alone_goes_on() -> None:
    async with leading() as (found, task):
        await found.beats("m-run", 10.0)
        assert not task.done()
        assert found.judged == 0


async def test_a_leader_that_is_behind_the_stream_ends_with_the_first_word_of_another() -> None:
    async with leading() as (found, task):
        found.behind = True
        await found.beats("z-run", 0.0)
        await until(task.done, "it ends")
        with pytest.raises(StoreError, match="second coordinator"):
            task.result()


@pytest.mark.parametrize(("rival", "ends"), [("a-run", True), ("z-run", False)])
async def test_of_two_that_are_at_the_end_of_the_stream_the_smaller_name_stays(rival: str, ends: bool) -> None:
    async with leading() as (found, task):
        await found.beats(rival, RIVAL_S - 0.5)
        assert not task.done(), "it may be one that has just woken, and ends itself"
        await found.beats(rival, 1.0)
        if ends:
            await until(task.done, "it ends")
            with pytest.raises(StoreError, match=r"a second coordinator \(a-run\) leads, too"):
                task.result()
        assert task.done() is ends


@pytest.mark.parametrize("unknown", [None, UnavailableError("no answer")])
async def test_what_cannot_be_said_of_the_stream_ends_nobody(unknown: Exception | None) -> None:
    async with leading() as (found, task):
        found.behind = unknown
        await found.beats("a-run", 6.0)
        assert not task.done()
        found.behind = False
        await found.beats("a-run", 0.5)
        await until(task.done, "it ends once it can be said")


async def test_a_rival_that_was_silent_is_heard_anew() -> None:
    async with leading() as (found, task):
        await found.beats("a-run", 1.0)
        found.now_s += 30.0
        await found.beats("a-run", 1.0)
        assert not task.done()
