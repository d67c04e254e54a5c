"""A standby: how long it waits, and what is no silence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from edgeagents.adapters.bus import Bus, BusMessage, Handler
from services.coordinator import standby as standby_module
from services.coordinator.standby import SILENT_S, Standby
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
