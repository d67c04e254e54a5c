"""The shared streams: whom they take nothing of, what a flood is charged, how often what lies there is looked at."""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.stream_room import Lying
from edgeagents.adapters.streams import Held
from edgeagents.audit import Audit
from edgeagents.protocol.ration import FIRST_CUT_S
from edgeagents.settings import BusSettings
from services.guard import room as room_module
from services.guard.room import AGAIN_S, COMMANDS, MOST_SEEN, Room

MAX_BYTES = 100_000_000


class Broker:
    """Streams that hold what is told by hand; of what is published only so many messages are heard."""

    def __init__(self) -> None:
        self.settings = BusSettings(gateway="gw")
        self.captured: dict[str, list[list[str]]] = {"commands": [], "audit": []}
        self.last_sequence, self.size_bytes = 0, 0
        self.sampled = 0
        self.trimmed = 1  # messages that go when there is something to trim
        self.lying: list[Lying] = []
        self.handlers: list[Callable[[BusMessage], Awaitable[None]]] = []
        self.left = 0
        self.ended: list[str] = []

    async def held(self, stream: str) -> Held:
        is_it = stream == "commands"
        size = self.size_bytes if is_it else 0
        return Held(100, 1, self.last_sequence if is_it else 0, size, MAX_BYTES, 0.0, frozenset())

    async def ensure_stream(self, name: str, captured: list[str], **limits: Any) -> None:
        self.captured[name].append(captured)

    async def subscribe(self, pattern: str, handler: Any, *, most: int, pending_bytes: int) -> Any:
        async def unsubscribe() -> None:
            self.ended.append(f"dropped {pattern}")

        if pattern == "gw.commands.*.*":
            self.handlers.append(handler)
            self.left = most
        return SimpleNamespace(unsubscribe=unsubscribe, subject=pattern)

    async def retire(self, subscription: Any) -> None:
        self.ended.append(f"retired {subscription.subject}")

    async def store(self, agent: str, messages: int, size_bytes: int = 10) -> None:
        """Have an agent publish commands."""
        self.last_sequence += messages
        for _ in range(min(messages, self.left)):
            self.left -= 1
            await self.handlers[-1](BusMessage(f"gw.commands.valve.{agent}", b"x" * size_bytes))


class Looked:
    """A room that looks when it is told to."""

    def __init__(self) -> None:
        self.broker, self.names, self.now_s = Broker(), ["air", "heat"], 1000.0
        self.records: list[tuple[str, str]] = []
        audit = SimpleNamespace(append=lambda kind, agent, **body: self.records.append((kind, agent)))
        limits: dict[str, dict[str, Any]] = {"commands": {}, "audit": {}}
        self.room = Room(cast(Bus, self.broker), lambda: self.names, cast(Audit, audit), lambda: self.now_s, limits)

    async def look(self, after_s: float = 0.5) -> None:
        """Have it look at all streams."""
        self.now_s += after_s
        for shared in self.room._streams:
            await self.room._look(shared)


@pytest.fixture
async def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    """A room that has looked once."""
    found = Looked()

    async def sampled(bus: Bus, stream: str, first: int, last: int, most: int) -> list[Lying]:
        found.broker.sampled += 1
        return found.broker.lying

    async def trim(bus: Bus, stream: str, pattern: str, keep: int = 0) -> int:
        return found.broker.trimmed

    monkeypatch.setattr(room_module, "sampled", sampled)
    monkeypatch.setattr(room_module, "trim", trim)
    await found.look()
    return found


async def flood(looked: Looked) -> None:
    """Have agent air be cut."""
    for _ in range(100):
        await looked.broker.store("air", 200)
        await looked.look(0.1)
        if looked.room.cut:
            return


async def test_who_is_taken_in_while_somebody_is_cut_is_captured_too(looked: Looked) -> None:
    await flood(looked)
    assert looked.room.cut == {"commands": ["air"]}
    (captured,) = looked.broker.captured["commands"]
    assert "gw.commands.*.heat" in captured
    assert "gw.commands.*.air" not in captured
    await looked.look()
    assert len(looked.broker.captured["commands"]) == 1, "nothing is different"
    looked.names.append("night")
    await looked.look()
    assert looked.broker.captured["commands"][1:] == [sorted({*captured, "gw.commands.*.night"}, key=_place)]
    await looked.look(FIRST_CUT_S)
    assert looked.broker.captured["commands"][2:] == [["gw.commands.*.*", "gw.outcomes.*.*"]]
    assert (looked.room.cut, looked.broker.captured["audit"]) == ({}, [])


def _place(subject: str) -> tuple[bool, str]:
    return subject.startswith("gw.outcomes"), subject


async def test_a_burst_within_the_ration_that_could_not_be_seen_whole_is_charged_as_what_it_was(looked: Looked) -> None:
    await looked.broker.store("air", int(COMMANDS.burst) - 10)
    await looked.look()
    assert looked.room.cut == {}
    await looked.look(60)
    await looked.broker.store("air", int(COMMANDS.burst) + 10)
    await looked.look()
    assert looked.room.cut == {"commands": ["air"]}


async def test_what_could_be_seen_is_charged_as_it_was_seen_whatever_else_the_stream_took(looked: Looked) -> None:
    for _ in range(5):
        await looked.broker.store("air", MOST_SEEN - 1)
        looked.broker.last_sequence += 5000  # outcomes, which nobody is charged
        await looked.look(2.6)
    assert looked.room.cut == {}


async def test_it_is_renewed_at_each_look_and_what_is_on_its_way_to_the_former_one_is_seen(looked: Looked) -> None:
    former = looked.broker.handlers[-1]
    await looked.look()
    assert looked.broker.handlers[-1] is not former
    assert looked.broker.ended == ["retired gw.commands.*.*", "retired gw.audit.*.*"]
    for _ in range(int(COMMANDS.burst) + 60):
        await former(BusMessage("gw.commands.valve.air", b"x"))
    assert looked.room._streams[0].left == MOST_SEEN, "it uses nothing of the new one up"
    await looked.look()
    assert looked.room.cut == {"commands": ["air"]}
    assert looked.broker.ended.count("dropped gw.commands.*.*") == 1


async def test_what_lies_in_a_stream_is_looked_at_again_once_more_has_come_or_after_a_minute(looked: Looked) -> None:
    looked.broker.size_bytes = MAX_BYTES  # full: it grows no more
    looked.broker.lying = [
        Lying(number, f"gw.commands.valve.{name}", 100) for number, name in enumerate(("air", "heat"))
    ]
    looked.broker.lying += [Lying(9, "gw.commands.valve.guard", 900)]
    for _ in range(20):
        await looked.look()
    assert looked.broker.sampled == 1, "nobody is over its share"
    for _ in range(10):
        await looked.broker.store("air", 1, MAX_BYTES // 900)
    await looked.look()
    assert looked.broker.sampled == 2, "a hundredth has come"
    await looked.look()
    assert looked.broker.sampled == 2
    await looked.look(AGAIN_S)
    assert looked.broker.sampled == 3


async def test_while_somebody_is_over_its_share_it_is_looked_at_each_time(looked: Looked) -> None:
    looked.broker.size_bytes = MAX_BYTES
    looked.broker.lying = [Lying(1, "gw.commands.valve.air", 100)]
    for _ in range(3):
        await looked.look()
    assert looked.broker.sampled == 3
    assert ("trimmed", "air") in looked.records


async def test_what_only_looks_like_more_than_a_share_is_not_told_and_not_looked_at_each_time(looked: Looked) -> None:
    looked.broker.size_bytes, looked.broker.trimmed = MAX_BYTES, 0
    looked.broker.lying = [Lying(1, "gw.commands.valve.air", 100)]
    for _ in range(3):
        await looked.look()
    assert (looked.broker.sampled, looked.records) == (1, [])
