"""One guard per gateway: who is there answers, who begins later is seen."""

import asyncio
from typing import cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import ConfigurationError, NobodyThereError, UnavailableError
from edgeagents.model.message import Heartbeat, LeaseRecord
from services.guard.alone import TRIES, Alone
from tests.unit.services.guard.bus import MemoryBus

STARTS = "gw.commands.gw.guard"


def start(incarnation: str, generation: int = 7) -> LeaseRecord:
    """Return the record of a guard that begins."""
    return LeaseRecord(device="gw", resource="", incarnation=incarnation, generation=generation)


class Asked(MemoryBus):
    """A broker on which requests go to the handler of their subject."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.watchers: list[object] = []

    async def request(self, subject: str, data: bytes, headers: object = None, *, timeout_s: float) -> BusMessage:
        self.asked += 1
        if subject not in self.handlers:
            raise NobodyThereError("nobody answers")
        before = len(self.answers)
        await self.handlers[subject](BusMessage(subject, data, {}, "_INBOX.x"))
        if len(self.answers) == before:
            raise UnavailableError("no answer")
        return self.answers[-1]

    def on_reconnect(self, callback: object) -> None:
        self.watchers.append(callback)


def alone(bus: Asked, name: str) -> Alone:
    """Return the watch of one guard."""
    return Alone(cast(Bus, bus), name, pause_s=0)


async def begun(bus: Asked, name: str = "first", generation: int = 7) -> Alone:
    """Return the watch of a guard that has begun."""
    found = alone(bus, name)
    await found.come()
    await found.begin(generation)
    return found


async def met(watch: Alone, bus: Asked, record: LeaseRecord, subject: str = STARTS) -> str:
    """Let a record be seen; return why the guard ends, empty when it does not."""
    await bus.handlers["gw.commands.*.guard"](BusMessage(subject, wire.encode(record), {}))
    task = asyncio.create_task(watch.watch())
    for _ in range(5):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        return ""
    return str(task.exception())


async def test_a_second_guard_does_not_start_while_one_answers_and_names_it() -> None:
    bus = Asked()
    await begun(bus)
    with pytest.raises(ConfigurationError, match=r"gateway 'gw': another guard \(incarnation first\) answers"):
        await alone(bus, "second").come()
    assert bus.asked == 1 + TRIES, "one that is just ending gets a moment"
    assert len(bus.held) == 1


async def test_one_that_ends_meanwhile_is_no_obstacle() -> None:
    bus = Asked()
    await begun(bus)
    answers = bus.handlers["gw.guard"]

    async def once(message: BusMessage) -> None:
        await answers(message)
        del bus.handlers["gw.guard"]

    bus.handlers["gw.guard"] = once
    await alone(bus, "second").come()


@pytest.mark.parametrize("silent", range(TRIES))
async def test_one_that_is_slow_to_answer_is_not_displaced(silent: int) -> None:
    bus = Asked()
    await begun(bus)
    answers = bus.handlers["gw.guard"]

    async def at_one_try(message: BusMessage) -> None:
        if bus.asked != 2 + silent:
            await answers(message)

    bus.handlers["gw.guard"] = at_one_try
    with pytest.raises(ConfigurationError, match="answers: this one does not start"):
        await alone(bus, "second").come()


async def test_one_that_hangs_is_followed() -> None:
    bus = Asked()
    await begun(bus)

    async def never(message: BusMessage) -> None:
        pass

    bus.handlers["gw.guard"] = never
    await alone(bus, "second").come()
    assert bus.asked == 1 + TRIES


async def test_of_two_that_start_at_once_one_begins() -> None:
    bus = Asked()
    first, second = alone(bus, "first"), alone(bus, "second")
    await first.come()
    del bus.handlers["gw.guard"]  # they asked before either answered
    await second.come()
    await second.begin(7)
    with pytest.raises(ConfigurationError, match=r"incarnation second\) began first"):
        await first.begin(8)
    assert len(bus.held) == 1


async def test_a_start_whose_acknowledgement_got_lost_is_known_as_our_own() -> None:
    bus = Asked()
    watch = alone(bus, "first")
    await watch.come()
    bus.plan = ["unheard"]
    with pytest.raises(UnavailableError):
        await watch.begin(7)
    await watch.begin(7)
    assert len(bus.held) == 1


async def test_it_ends_when_another_began_after_it() -> None:
    bus = Asked()
    watch = await begun(bus)
    bus.held.append((STARTS, wire.encode(start("second")), {}))
    assert "another guard (incarnation second) began after this one" in await met(watch, bus, start("second"))


async def test_a_start_that_the_stream_refused_ends_nobody() -> None:
    bus = Asked()
    watch = await begun(bus)
    assert await met(watch, bus, start("second")) == ""


async def test_it_ends_at_a_lease_record_of_a_generation_it_did_not_write() -> None:
    bus = Asked()
    watch = await begun(bus)
    own = LeaseRecord(device="valve", resource="Open", agent="air", incarnation="i1", generation=7)
    assert await met(watch, bus, own, "gw.commands.valve.guard") == ""
    for other in (6, 8):
        why = await met(watch, bus, own.model_copy(update={"generation": other}), "gw.commands.valve.guard")
        assert f"wrote lease records of generation {other} while this one is at 7" in why


async def test_the_last_word_of_one_that_it_followed_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    bus = Asked()
    bus.held.append((STARTS, wire.encode(start("hung", 6)), {}))
    watch = await begun(bus)
    late = LeaseRecord(device="valve", resource="Open", generation=6, reason="session of air ended")
    for _ in range(2):
        assert await met(watch, bus, late, "gw.commands.valve.guard") == ""
    assert caplog.text.count("still wrote a lease record of generation 6") == 1
    bus.held.append((STARTS, wire.encode(start("third", 9)), {}))
    assert "incarnation third" in await met(watch, bus, late, "gw.commands.valve.guard")


async def test_what_came_while_the_link_was_down_is_looked_up() -> None:
    bus = Asked()
    watch = await begun(bus)
    bus.held.append((STARTS, wire.encode(start("second")), {}))
    for watcher in bus.watchers:
        watcher()  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match="incarnation second"):
        await asyncio.wait_for(watch.watch(), 5)


async def test_it_answers_nobody_but_an_inbox() -> None:
    bus = Asked()
    await begun(bus)
    data = wire.encode(Heartbeat(incarnation="x"))
    await bus.handlers["gw.guard"](BusMessage("gw.guard", data, {}, "edgex.core.command.x"))
    assert bus.answers == []
