"""A writer's chain on its way to the stream: a stream that stutters breaks nothing, and nothing is lost silently."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents import audit as audit_module
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.audit import Audit, link, verify
from edgeagents.errors import ConflictError, UnavailableError
from edgeagents.model.message import AuditRecord
from edgeagents.settings import BusSettings


class StutteringBus:
    """A stream in memory; `plan` says what each store is: ok, lost (not stored), unheard (stored, no answer)."""

    def __init__(self, plan: list[str]) -> None:
        self.settings = BusSettings(gateway="gw")
        self.plan = plan
        self.held: list[tuple[str, bytes]] = []

    async def store(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, expected_last: int
    ) -> int:
        what = self.plan.pop(0) if self.plan else "ok"
        if what == "lost":
            raise UnavailableError("no answer")
        last = max((index for index, (at, _) in enumerate(self.held, 1) if at == subject), default=0)
        if last != expected_last:
            raise ConflictError("wrong last sequence")
        self.held.append((subject, data))
        if what == "unheard":
            raise UnavailableError("no answer")
        return len(self.held)

    async def read(
        self, stream: str, patterns: list[str], *, name: str, last_per_subject: bool
    ) -> AsyncIterator[StoredMessage]:
        assert (stream, name, last_per_subject) == ("audit", "audit-guard", True)
        if self.plan and self.plan[0] == "cannot read":
            self.plan.pop(0)
            raise UnavailableError("no answer")
        newest = {
            subject: StoredMessage(subject, data, {}, stream, index, 0)
            for index, (subject, data) in enumerate(self.held, 1)
            if subject == patterns[0] or (patterns[0].endswith("*") and subject.startswith(patterns[0][:-1]))
        }
        for message in newest.values():
            yield message

    def records(self) -> list[AuditRecord]:
        """Return what is held of the guard."""
        return [wire.decode(AuditRecord, data) for _, data in self.held]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses between tries be turns of the loop."""
    original = asyncio.sleep

    async def turn(delay: float) -> None:
        await original(0)

    monkeypatch.setattr("edgeagents.audit.asyncio.sleep", turn)


@contextlib.asynccontextmanager
async def running(bus: StutteringBus, incarnation: str = "i1") -> AsyncIterator[Audit]:
    """Yield a running audit; all that was appended inside is stored at the end of the block."""
    clock: Callable[[], int] = iter(range(1, 1_000_000)).__next__
    audit = Audit(cast(Bus, bus), "guard", incarnation, clock)
    task = asyncio.create_task(audit.run())
    yield audit
    await audit.drain()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@given(plan=st.lists(st.sampled_from(["ok", "lost", "unheard", "cannot read"]), max_size=30))
def test_lost_requests_and_acknowledgements_leave_the_chain_whole(plan: list[str]) -> None:
    async def scenario() -> None:
        bus = StutteringBus(list(plan))
        async with running(bus) as audit:
            for number in range(8):
                audit.append("command", n=number)
        assert verify(bus.records()) == []
        assert [json.loads(record.body)["n"] for record in bus.records()] == list(range(8))

    asyncio.run(scenario())


async def test_what_is_lost_with_an_orderly_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(cast(Bus, StutteringBus(["lost"] * 1_000_000)), "guard", "i1")
    task = asyncio.create_task(audit.run())
    for _ in range(3):
        audit.append("command")
    await audit.drain(0.1)
    task.cancel()
    assert "audit of guard: one record and 2 behind it are not stored in 0.1 s" in caplog.text


async def test_the_next_incarnation_names_the_head_of_the_one_before() -> None:
    bus = StutteringBus([])
    for incarnation in ("i1", "i2", "i3"):
        async with running(bus, incarnation) as audit:
            audit.append("started")
            audit.append("command")
    assert verify(bus.records()) == []
    assert [record.number for record in bus.records()] == [0, 1] * 3


async def test_somebody_elses_message_in_the_chain_stops_nothing_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    bus = StutteringBus([])
    async with running(bus) as audit:
        audit.append("first")
        await audit.drain()
        bus.held.append(("gw.audit.guard.i1", b"\xff garbage"))
        audit.append("second")
    records = [wire.decode(AuditRecord, data) for _, data in bus.held if data != b"\xff garbage"]
    assert [record.kind for record in records] == ["first", "second"]
    assert "holds something else at the end of gw.audit.guard.i1" in caplog.text


async def test_a_predecessor_that_cannot_be_read_is_passed_over() -> None:
    bus = StutteringBus([])
    async with running(bus, "i1") as audit:
        audit.append("whole")
    bus.held.append(("gw.audit.guard.i0", b"\xff"))
    async with running(bus, "i2") as audit:
        audit.append("next")
    last = wire.decode(AuditRecord, bus.held[-1][1])
    assert last.previous == wire.decode(AuditRecord, bus.held[0][1]).digest


async def test_a_body_beyond_its_limit_is_kept_as_its_hash() -> None:
    bus = StutteringBus([])
    async with running(bus) as audit:
        audit.append("decision", inputs="x" * 70_000)
    (record,) = bus.records()
    assert json.loads(record.body)["too_large"] > 70_000
    assert verify([record]) == []


async def test_a_body_is_measured_in_bytes() -> None:
    bus = StutteringBus([])
    async with running(bus) as audit:
        audit.append("decision", inputs="\U0001f600" * 20_000)
    (record,) = bus.records()
    assert json.loads(record.body)["too_large"] > 80_000


async def test_what_a_full_queue_drops_is_counted_and_the_chain_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "QUEUE_LENGTH", 3)
    bus = StutteringBus([])
    audit = Audit(cast(Bus, bus), "guard", "i1")
    for number in range(5):
        audit.append("command", n=number)
    assert audit.dropped == 2
    assert caplog.text.count("dropping new ones") == 1
    task = asyncio.create_task(audit.run())
    await audit.drain()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    bodies = [(record.kind, json.loads(record.body)) for record in bus.records()]
    assert ("dropped", {"records": 2}) in bodies
    assert len(bodies) == 4
    assert verify(bus.records()) == []


def body_of(**fields: Any) -> dict[str, Any]:
    """Return the body a record keeps of some fields."""
    found: dict[str, Any] = json.loads(link(None, "w", "i", "k", fields, 0).body)
    return found


def test_what_json_cannot_hold_is_kept_as_text() -> None:
    assert body_of(a={1, 2}.__class__, b=b"x") == {"a": "<class 'set'>", "b": "b'x'"}
