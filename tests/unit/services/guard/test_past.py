"""Ledger and stream at odds, in either direction: each command has one outcome, and nothing is carried out twice."""

from typing import cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.model.message import Command, CommandId, LeaseRecord, Outcome
from edgeagents.settings import SiteTime
from services.guard.intake import Intake
from services.guard.past import NOTHING_LOST, Past, acknowledged, reconcile
from tests.unit.services.guard.bus import MemoryBus
from tests.unit.services.guard.rig import Rig


class Stream:
    """A command stream and the ledger beside it."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.bus = rig, MemoryBus()
        self.bus.stored_ns = rig.clocks.wall

    def sent(self, name: str, *, known: bool = True) -> Command:
        """Put a command into the stream; and, when it is known, into the ledger."""
        other = Rig.job
        command = other(self.rig, name, sequence=len(self.bus.held) + 1).command if known else self.command(name)
        self.bus.held.append(("gw.commands.valve.air", wire.encode(command), {}))
        self.bus.deliver.append(len(self.bus.held))
        return command

    def command(self, name: str) -> Command:
        """Return a command that the ledger has never seen."""
        return Command.model_validate(
            {"id": name, "device": "valve", "resource": "Setpoint", "value": "21", "incarnation": "i1", "ttl_s": 10.0,
             "epoch": {"generation": 1, "revision": 1}, "cause": {"stream": "edgex-events", "sequence": 1}}
        )  # fmt: skip

    def outcome(self, name: str, status: str = "proven") -> Outcome:
        """Return how a command ended."""
        return Outcome.model_validate(
            {"command_id": name, "device": "valve", "resource": "Setpoint", "status": status, "value": "21"}
        )

    def told(self, name: str) -> None:
        """Put an outcome into the stream."""
        self.bus.held.append(("gw.outcomes.air.valve", wire.encode(self.outcome(name)), {}))

    def ended(self, name: str) -> None:
        """Have the ledger know that a command ended, and that it was told."""
        self.rig.ledger.finish("air", self.outcome(name), 2.0)
        self.rig.ledger.told("air", CommandId(name))

    async def reconciled(self, last_sequence: int | None = None) -> Past:
        """Bring both to terms."""
        last = self.rig.ledger.number("last_sequence") if last_sequence is None else last_sequence
        bus, floor = cast(Bus, self.bus), await acknowledged(cast(Bus, self.bus))
        return await reconcile(bus, self.rig.means, last, floor, await self.bus.last_sequence("commands"))

    async def taken(self, past: Past) -> dict[str, tuple[str, str]]:
        """Take the whole stream in once more, after a restart; return what is told then."""

        async def dead_letter(*_: object) -> None:
            raise AssertionError("nothing is set aside")

        async with self.rig.lanes() as lanes:
            intake = Intake(cast(Bus, self.bus), self.rig.means, lanes, SiteTime(), dead_letter)
            await intake.run(await self.bus.last_sequence("commands"), past)
        return self.rig.told()


@pytest.fixture
def stream(rig: Rig) -> Stream:
    return Stream(rig)


async def test_a_newer_ledger_tells_again_what_the_stream_lacks(stream: Stream) -> None:
    for name in ("both", "ledger-only", "under-way"):
        stream.sent(name)
    stream.told("both")
    for name in ("both", "ledger-only"):
        stream.ended(name)
    stream.rig.ledger.saw(99)  # the stream was longer
    past = await stream.reconciled()
    assert [entry.command.id for entry in stream.rig.ledger.untold()] == ["ledger-only"]
    assert stream.rig.ledger.number("last_sequence") == 4, "else each start would find it lost again"
    assert (past.taken, past.ended) == (0, {("air", "both")})


async def test_outcomes_of_commands_that_no_stream_holds_are_not_told_again(stream: Stream) -> None:
    stream.rig.job("long-ago", sequence=50)
    stream.ended("long-ago")
    await stream.reconciled()
    assert stream.rig.ledger.untold() == []


async def test_an_older_ledger_gets_what_guards_had_acknowledged_and_carries_none_of_it_out(stream: Stream) -> None:
    stream.sent("known")
    stream.ended("known")
    stream.told("known")
    stream.sent("proven", known=False)
    stream.told("proven")
    stream.sent("nobody-knows", known=False)
    stream.bus.floor = 5
    stream.sent("waited", known=False)
    past = await stream.reconciled()
    assert (stream.bus.floor, past.taken) == (None, 5)
    told = await stream.taken(past)
    assert {name: status for name, (status, _) in told.items()} == {"nobody-knows": "uncertain", "waited": "expired"}
    assert "nobody knows whether it went out" in told["nobody-knows"][1]
    assert stream.rig.commands.log == [], "nothing goes out"
    assert stream.rig.ledger.number("last_sequence") == 6


async def test_an_older_ledger_learns_from_the_stream_how_its_open_commands_ended(stream: Stream) -> None:
    stream.sent("open")
    stream.rig.ledger.enter("air", CommandId("open"), "intent", 1.0)
    stream.told("open")
    await stream.reconciled()
    assert stream.rig.ledger.unfinished() == []
    assert stream.rig.ledger.untold() == []
    entry = stream.rig.ledger.entry("air", "open")
    assert entry is not None
    assert entry.outcome is not None
    assert entry.outcome.status == "proven"


async def test_what_cannot_be_read_stops_nothing(stream: Stream) -> None:
    stream.bus.held += [
        ("gw.commands.valve.air", b"\xff", {}), ("gw.outcomes.air.valve", b"\xff", {}),
        ("gw.commands.gw.guard", wire.encode(LeaseRecord(device="gw", resource="", generation=1)), {}),
    ]  # fmt: skip
    assert await stream.reconciled() == NOTHING_LOST


async def test_without_a_consumer_nothing_was_acknowledged(stream: Stream) -> None:
    assert await acknowledged(cast(Bus, stream.bus)) == 0
