"""Commands of one device are stored in the order of their turns; another device's do not wait for them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.errors import UnavailableError
from edgeagents.model.message import Cause, Command, CommandId, Epoch
from edgeagents.settings import BusSettings
from services.agent.outbox import Outbox


class Broker:
    """A stream in memory; storing on a subject waits while that is held up."""

    settings = BusSettings(gateway="gw")

    def __init__(self) -> None:
        self.held: list[tuple[str, bytes]] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.expected: list[int] = []
        self.lost_answers = 0
        self.looks: list[str] = []

    async def store(self, subject: str, data: bytes, headers: Any = None, *, expected_last: int) -> int:
        """Store behind the subject's last message."""
        if subject in self.gates:
            await self.gates[subject].wait()
        self.expected.append(expected_last)
        self.held.append((subject, data))
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnavailableError("no acknowledgement")
        return len(self.held)

    async def read(self, stream: str, patterns: list[str], **options: Any) -> AsyncIterator[StoredMessage]:
        """Yield the newest message of each subject."""
        self.looks.append(patterns[0])
        newest = {subject: (number, data) for number, (subject, data) in enumerate(self.held, 1)}
        for subject, (number, data) in newest.items():
            if patterns[0] in (subject, "gw.commands.*.a"):
                yield StoredMessage(subject, data, {}, stream, number, 0)


def command(device: str, name: str) -> Command:
    """Return a command."""
    return Command(
        id=CommandId(name), device=device, resource="S", value="1", incarnation="i",
        epoch=Epoch(generation=1, revision=1), ttl_s=10.0, cause=Cause(stream="edgex-events", sequence=1, origin_ns=1),
        decision_id="d",
    )  # fmt: skip


def names(broker: Broker) -> list[str]:
    """Return the ids of what is stored, in order."""
    return [wire.decode(Command, data).id for _, data in broker.held]


async def sent(outbox: Outbox, turn: Any, item: Command) -> None:
    """Store a command in its turn."""
    async with turn:
        await outbox.store(item, time.monotonic())


@pytest.fixture
async def broker() -> Broker:
    return Broker()


@pytest.fixture
async def outbox(broker: Broker) -> Outbox:
    found = Outbox(cast(Bus, broker), "a")
    await found.prepare()
    return found


async def test_a_device_keeps_its_order_and_holds_no_other_device_up(broker: Broker, outbox: Outbox) -> None:
    gate = broker.gates["gw.commands.lamp.a"] = asyncio.Event()
    orders = [command("lamp", "1"), command("lamp", "2"), command("fan", "3"), command("lamp", "4")]
    turns = [outbox.turn(item.device) for item in orders]
    # Whoever happens to run first: the turns count.
    tasks = [asyncio.create_task(sent(outbox, *pair)) for pair in reversed(list(zip(turns, orders, strict=True)))]
    await tasks[1]
    assert names(broker) == ["3"]
    gate.set()
    await asyncio.gather(*tasks)
    assert names(broker) == ["3", "1", "2", "4"]
    assert broker.expected == [0, 0, 2, 3]
    assert outbox._ends == {}


async def test_a_turn_that_was_given_up_lets_the_next_go_on(broker: Broker, outbox: Outbox) -> None:
    gate = broker.gates["gw.commands.lamp.a"] = asyncio.Event()
    first, second = outbox.turn("lamp"), outbox.turn("lamp")
    task = asyncio.create_task(sent(outbox, first, command("lamp", "1")))
    await asyncio.sleep(0)
    task.cancel()
    gate.set()
    await sent(outbox, second, command("lamp", "2"))
    assert names(broker) == ["2"]


async def test_an_answer_that_got_lost_is_looked_up_for_that_subject_alone(
    broker: Broker, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.outbox.AGAIN_S", 0.0)
    broker.lost_answers = 1
    await sent(outbox, outbox.turn("lamp"), command("lamp", "1"))
    await sent(outbox, outbox.turn("fan"), command("fan", "2"))
    assert names(broker) == ["1", "2"]
    assert broker.looks == ["gw.commands.*.a", "gw.commands.lamp.a"]


async def test_a_turn_given_up_while_it_waits_lets_nobody_overtake(broker: Broker, outbox: Outbox) -> None:
    gate = broker.gates["gw.commands.lamp.a"] = asyncio.Event()
    tasks = [
        asyncio.create_task(sent(outbox, outbox.turn("lamp"), command("lamp", name))) for name in ("1", "2", "3")
    ]  # fmt: skip
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    del broker.gates["gw.commands.lamp.a"]
    for _ in range(5):
        await asyncio.sleep(0)
    assert names(broker) == []  # the first holds the turn still
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert names(broker) == ["1", "3"]
    assert outbox._ends == {}


async def test_what_passed_since_the_decision_is_taken_off_the_time_to_live(broker: Broker, outbox: Outbox) -> None:
    await outbox.store(command("lamp", "1"), time.monotonic() - 4.0)
    assert wire.decode(Command, broker.held[0][1]).ttl_s == pytest.approx(6.0, abs=0.5)
    with pytest.raises(UnavailableError, match="command for lamp not stored in time: its time is over"):
        await outbox.store(command("lamp", "2"), time.monotonic() - 10.0)
    assert names(broker) == ["1"]


async def test_a_wait_to_look_at_what_is_stored_ends_with_the_commands_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*args: Any, **options: Any) -> AsyncIterator[StoredMessage]:
        await asyncio.sleep(60.0)
        yield StoredMessage("", b"", {}, "commands", 1, 0)

    answering = broker.read
    monkeypatch.setattr(broker, "read", read)
    outbox = Outbox(cast(Bus, broker), "a")
    decided_s = time.monotonic() - 9.95
    async with asyncio.timeout(5):
        for found in await asyncio.gather(
            *(outbox.store(command(device, "1"), decided_s) for device in ("lamp", "fan")), return_exceptions=True
        ):
            assert isinstance(found, UnavailableError)
            assert "not stored in time: nobody says what is stored" in str(found)
    monkeypatch.setattr(broker, "read", answering)
    await outbox.store(command("lamp", "2"), time.monotonic())
    assert names(broker) == ["2"]
