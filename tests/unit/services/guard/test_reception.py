"""Each agent is heard by itself, and no more of it than a little."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from services.guard import reception as reception_module
from services.guard.reception import MOST_BYTES, MOST_HEARD, Reception
from tests.contract.waiting import until
from tests.unit.services.guard.bus import MemoryBus


class Heard:
    """A reception that serves two agents, and what it brought to the handlers."""

    def __init__(self) -> None:
        self.bus, self.names, self.counts = MemoryBus(), ["air", "heat"], Counter[str]()
        self.seen: list[tuple[str, str]] = []
        self.reception = Reception(
            cast(Bus, self.bus), lambda: self.names,
            {"sessions": self.taker("sessions"), "leases": self.taker("leases")}, self.counts,
        )  # fmt: skip

    def taker(self, kind: str) -> reception_module.Handle:
        async def take(agent: str, message: BusMessage) -> None:
            self.seen.append((kind, agent))

        return take

    async def send(self, subject: str, data: bytes = b"x") -> None:
        handler = self.bus.handler(subject)
        assert handler is not None
        await handler(BusMessage(subject, data))


@pytest.fixture
async def heard(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Heard]:
    monkeypatch.setattr(reception_module, "RENEW_S", 0.01)
    found = Heard()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(found.reception.serve(tasks))
        await found.bus.subscribed.wait()
        await until(lambda: "gw.leases.heat" in found.bus.handlers, "all are heard")
        yield found
        found.names.clear()
        await until(lambda: "gw.leases.heat" not in found.bus.handlers, "none is heard any more")
        serving.cancel()
        for task in tasks._tasks:  # type: ignore[attr-defined]
            task.cancel()


async def test_each_agent_has_a_subscription_that_the_broker_ends(heard: Heard) -> None:
    for subject in ("gw.sessions.air", "gw.leases.air", "gw.sessions.heat", "gw.sessions.*", "gw.leases.*"):
        assert heard.bus.budgets[subject] == MOST_HEARD["leases" if "leases" in subject else "sessions"]


async def test_it_is_renewed_before_what_is_usual_meets_its_end(heard: Heard) -> None:
    first = heard.bus.handlers["gw.sessions.air"]
    for _ in range(MOST_HEARD["sessions"] // 2):
        await heard.send("gw.sessions.air")
    await until(lambda: heard.bus.handlers["gw.sessions.air"] is not first, "a new one")
    quiet = heard.bus.handlers["gw.sessions.heat"]
    await asyncio.sleep(0.05)
    assert heard.bus.handlers["gw.sessions.heat"] is quiet, "one that is hardly used is left alone"


async def test_a_link_that_comes_back_has_them_end_again(heard: Heard) -> None:
    first = dict(heard.bus.handlers)
    for tell in heard.bus.watchers:
        tell()
    await until(lambda: all(heard.bus.handlers[name] is not first[name] for name in first), "all are new")


async def test_strangers_share_one_and_who_is_known_is_not_heard_twice(heard: Heard) -> None:
    await heard.send("gw.sessions.evil")
    await heard.bus.handlers["gw.sessions.*"](BusMessage("gw.sessions.air", b"x"))
    await heard.send("gw.leases.air")
    await until(lambda: len(heard.seen) == 2, "two")
    assert sorted(heard.seen) == [("leases", "air"), ("sessions", "evil")]


@pytest.mark.parametrize(("size", "is_heard"), [(MOST_BYTES, True), (MOST_BYTES + 1, False), (8 << 20, False)])
async def test_what_is_too_long_is_counted_and_not_kept(heard: Heard, size: int, is_heard: bool) -> None:
    await heard.send("gw.sessions.air", b"x" * size)
    await heard.send("gw.sessions.heat")
    await until(lambda: ("sessions", "heat") in heard.seen, "the one after it")
    assert (("sessions", "air") in heard.seen) is is_heard
    assert heard.counts["rejected"] == (not is_heard)


async def test_who_is_new_is_heard_and_who_is_gone_is_a_stranger(heard: Heard) -> None:
    heard.names[:] = ["heat", "night"]
    await until(lambda: "gw.sessions.night" in heard.bus.handlers, "the new one is heard")
    await until(lambda: "gw.sessions.air" not in heard.bus.handlers, "the old one is heard by itself no more")
    await heard.send("gw.sessions.air")
    await until(lambda: ("sessions", "air") in heard.seen, "but as a stranger")
