"""Commands in, outcomes out: each once, whatever the broker and strangers do."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus
from edgeagents.errors import StoreError, VolumeFullError
from edgeagents.model.message import Cause, Command, CommandId, Epoch, LeaseRecord, Outcome
from edgeagents.settings import SiteTime
from services.guard.intake import Intake, Teller
from services.guard.ledger import Intent
from tests.contract.waiting import until
from tests.unit.services.guard.bus import MemoryBus
from tests.unit.services.guard.rig import SITE_S, Rig


def command(name: str = "c-1", **changes: Any) -> Command:
    """Return a command for the valve."""
    fields: dict[str, Any] = {
        "id": CommandId(name), "device": "valve", "resource": "Setpoint", "value": "21", "incarnation": "i1",
        "epoch": Epoch(generation=1, revision=1), "ttl_s": 10.0, "cause": Cause(stream="s", sequence=1),
        "data_origin_ns": int(SITE_S * 1e9),
    }  # fmt: skip
    return Command(**(fields | changes))


class Source:
    """An intake on a stream in memory, filled by hand."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.bus = rig, MemoryBus()
        self.bus.stored_ns = self.bus.broker_ns = rig.clocks.wall
        self.dead: list[tuple[str, bytes, str]] = []
        self.counts: dict[str, int] = {}
        self.seen: list[tuple[str, int]] = []

    def add(
        self, what: Command | LeaseRecord | bytes, agent: str = "air", headers: dict[str, str] | None = None
    ) -> None:
        """Put a message into the stream, to be delivered once."""
        data = what if isinstance(what, bytes) else wire.encode(what)
        self.bus.held.append((f"gw.commands.valve.{agent}", data, headers or {}))
        self.bus.deliver.append(len(self.bus.held))

    def later(self, seconds: float) -> None:
        """Have time pass for the broker."""
        assert self.bus.broker_ns is not None
        self.bus.broker_ns += int(seconds * 1e9)

    async def run(self, last_before: int = 0) -> dict[str, tuple[str, str]]:
        """Take everything in, carry it out, and return how it ended."""

        async def dead_letter(topic: str, data: bytes, cause: str, text: str) -> None:
            self.dead.append((topic, data, cause))

        async with self.rig.lanes() as lanes:
            means = self.rig.means
            means.desk.seen = lambda record, sequence: self.seen.append((record.agent, sequence))  # type: ignore[method-assign]
            intake = Intake(cast(Bus, self.bus), means, lanes, SiteTime(), dead_letter)
            await intake.run(last_before)
            self.counts = dict(intake.counts)
        return self.rig.told()


@pytest.fixture
def source(rig: Rig) -> Source:
    """A stream in which `air` holds the lease since sequence 1."""
    found = Source(rig)
    found.bus.held.append(("gw.commands.valve.guard", b"", {}))
    return found


async def test_a_command_is_written_down_carried_out_and_acknowledged(source: Source) -> None:
    source.add(command())
    assert (await source.run())["c-1"][0] == "proven"
    assert source.bus.acked == [2]
    assert source.rig.ledger.number("last_sequence") == 2
    assert source.counts == {"received": 1}


async def test_a_redelivered_command_has_one_effect_and_one_outcome(source: Source) -> None:
    source.add(command())
    source.add(command(value="30"))  # the same id, stored again
    source.bus.deliver = [2, 2, 3, 2]
    assert list(await source.run()) == ["c-1"]
    assert source.rig.commands.sets == ["c-1"]
    assert source.rig.commands.values["valve", "Setpoint"] == "2.1e+01"
    assert source.counts == {"received": 1, "duplicates": 3}
    assert source.bus.acked == [2, 2, 3, 2]


async def test_what_was_there_before_the_start_expires_whatever_the_clock_says(source: Source) -> None:
    source.add(command("old"))
    source.add(command("new"))
    told = await source.run(last_before=2)
    assert told["old"] == ("expired", "waited while the guard was not running: age unknown")
    assert source.rig.causes() == {"old": "late", "new": ""}
    assert told["new"][0] == "proven"


async def test_only_what_goes_into_its_lane_may_go_out_after_a_restart(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, float] = {}
    receive = source.rig.ledger.receive

    def keep(sent: Command, *arguments: Any) -> bool:
        kept[sent.id] = arguments[-1].deadline_s
        return receive(sent, *arguments)

    monkeypatch.setattr(source.rig.ledger, "receive", keep)
    source.add(command("away"))
    source.add(command("late", ttl_s=1))
    source.add(command("good"))
    source.later(2)
    await source.run(last_before=2)
    assert kept == {"away": 0.0, "late": 0.0, "good": 108.0}


async def test_what_came_too_late_expires(source: Source) -> None:
    source.add(command(ttl_s=10))
    source.later(11)
    assert (await source.run())["c-1"] == ("expired", "received 11.0 s after it was stored")
    assert source.rig.causes() == {"c-1": "late"}
    assert source.rig.commands.log == []


async def test_the_time_it_lay_in_the_stream_counts_towards_its_deadline(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add(command(ttl_s=10))
    source.later(9)
    enter = source.rig.ledger.enter

    def slow(*arguments: Any) -> None:
        enter(*arguments)
        source.rig.clocks.now_s += 1.1

    monkeypatch.setattr(source.rig.ledger, "enter", slow)
    assert (await source.run())["c-1"] == ("expired", "deadline passed before it could be set")


async def test_without_room_a_command_is_refused_and_told_before_it_is_acknowledged_and_one_for_safety_goes_out(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, rig = source.rig.ledger.receive, source.rig

    def full(command: Command, agent: str, sequence: int, now_s: float, is_safety: bool, until: Intent) -> bool:
        if not is_safety:
            raise VolumeFullError("the guard's volume is full")
        return receive(command, agent, sequence, now_s)

    async def all_told() -> None:
        assert [outcome.command_id for _, outcome in rig.outcomes] == ["c-1"]
        told.append(list(source.bus.acked))

    told: list[list[int]] = []
    monkeypatch.setattr(rig.ledger, "receive", full)
    monkeypatch.setattr(rig, "_all_told", all_told)
    agents = {"smoke": rig.owner.agents["heat"].model_copy(update={"priority": "safety"})}
    rig.owner = replace(rig.owner, agents=rig.owner.agents | agents)
    source.add(command())
    source.bus.held.append(("gw.commands.valve.guard", b"", {}))
    source.add(command("c-2", epoch=rig.grant("smoke", sequence=3)), "smoke")
    source.bus.deliver = [2, 2, 4]
    found = await source.run()
    assert found["c-1"] == ("refused", "the guard's volume is full")
    assert rig.causes()["c-1"] == "storage"
    assert found["c-2"][0] == "proven"
    assert told == [[]], "told first, acknowledged then; the second delivery is known"
    assert source.bus.acked == [2, 2, 4]
    assert source.counts == {"turned_away": 1, "duplicates": 1, "received": 1}
    assert rig.ledger.entry("air", "c-1") is None
    assert rig.ledger.number("last_sequence") == 4


@pytest.mark.parametrize("saw_fails", [True, False])
async def test_with_the_reserve_used_up_as_well_it_goes_on_and_takes_in_again_once_there_is_room(
    source: Source, monkeypatch: pytest.MonkeyPatch, saw_fails: bool
) -> None:
    rig, ledger = source.rig, source.rig.ledger
    (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with contextlib.suppress(VolumeFullError):
        for number in range(100):
            ledger.receive(command(f"old-{number}", because="x" * 2000), "heat", 0, 1.0)
    saw = ledger.saw

    def full(sequence: int) -> None:
        if saw_fails:
            raise VolumeFullError("database or disk is full")
        saw(sequence)

    monkeypatch.setattr(ledger, "saw", full)
    source.add(command("long", because="x" * 2000))
    source.add(command("again", because="x" * 2000))
    found = await source.run()
    assert found["long"] == ("refused", "guard ledger: database or disk is full: make room on the guard's volume")
    assert found["again"][0] == "refused"
    assert source.bus.acked == [2, 3]
    ledger._db.execute("PRAGMA max_page_count = 100000")
    monkeypatch.setattr(ledger, "saw", saw)
    rig.outcomes.clear()
    source.add(command("c-3"))
    source.bus.deliver = [4]
    assert (await source.run())["c-3"][0] != "refused"
    assert ledger.number("last_sequence") == 4


async def test_a_ledger_that_cannot_be_written_for_another_reason_ends_the_guard(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.rig.ledger._db.execute("PRAGMA query_only = 1")
    source.add(command())
    with pytest.raises(ExceptionGroup) as caught:
        await source.run()
    assert [type(error) for error in caught.value.exceptions] == [StoreError]
    assert source.bus.acked == []


@pytest.mark.parametrize("by_s", [3600, -3600])
async def test_the_guards_own_clock_makes_a_command_neither_old_nor_new(source: Source, by_s: int) -> None:
    source.add(command("late", ttl_s=10))
    source.later(11)
    source.rig.clocks.wall += by_s * 10**9
    assert (await source.run())["late"] == ("expired", "received 11.0 s after it was stored")
    other = Source(source.rig)
    other.bus.held.append(source.bus.held[0])
    other.add(command("fresh"))
    assert (await other.run())["fresh"][0] == "proven"


async def test_what_was_stored_before_the_brokers_clock_was_set_back_is_of_unknown_age(source: Source) -> None:
    source.add(command())
    source.later(-3600)
    assert (await source.run())["c-1"] == ("expired", "age unknown: a clock was set while it was on its way")
    assert source.rig.causes() == {"c-1": "late"}


async def test_a_broker_that_tells_no_time_makes_every_age_unknown(source: Source) -> None:
    source.add(command())
    source.bus.broker_ns = None
    assert (await source.run())["c-1"][0] == "expired"
    assert source.rig.commands.log == []


async def test_the_broker_is_asked_for_its_time_once_a_second_at_most(source: Source) -> None:
    for number in range(5):
        source.add(command(f"c-{number}"))
    await source.run()
    assert source.bus.asked_time == 1


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\xff\xff", "not-decodable"),
        (b"", "out-of-contract"),
        (b"\x0a\x03a\nb", "out-of-contract"),
        (b"x" * 300_000, "too-large"),
        (wire.encode(command(device="pump")), "wrong-subject"),
        (wire.encode(command()).replace(b"c-1", b"c\r\n"), "out-of-contract"),
    ],
)
async def test_what_is_no_command_is_set_aside_with_its_cause_and_the_next_one_goes_on(
    source: Source, data: bytes, cause: str
) -> None:
    source.add(data)
    source.add(command("next"))
    assert (await source.run())["next"][0] == "proven"
    assert source.dead == [("gw.commands.valve.air", data, cause)]
    (record,) = [item for item in source.rig.records if item["kind"] == "rejected"]
    assert (record["subject"], record["sequence"], record["cause"]) == ("gw.commands.valve.air", 2, cause)
    assert source.bus.acked == [2, 3]


async def test_a_flood_of_garbage_is_logged_once_a_cause(source: Source, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        source.add(b"\xff")
    await source.run()
    assert source.counts == {"rejected": 20}
    assert caplog.text.count("set aside") == 1


async def test_a_subject_that_is_no_name_of_ours_is_set_aside(source: Source) -> None:
    source.bus.held.append((r"gw.commands.\xff.air", wire.encode(command()), {}))
    source.bus.deliver.append(2)
    source.add(command("next"))
    assert list(await source.run()) == ["next"]
    assert source.dead[0][2] == "wrong-subject"


async def test_json_commands_are_commands(source: Source) -> None:
    source.add(wire.encode(command(), wire.JSON), headers={"Content-Type": wire.JSON})
    assert (await source.run())["c-1"][0] == "proven"


async def test_what_is_no_command_counts_as_taken_in_too(source: Source) -> None:
    source.add(LeaseRecord(device="valve", resource="Setpoint", agent="air", generation=1), agent="guard")
    await source.run()
    assert source.rig.ledger.number("last_sequence") == len(source.bus.held)
    source.add(b"\xff")
    await source.run()
    assert source.rig.ledger.number("last_sequence") == len(source.bus.held)


async def test_lease_records_go_to_the_desk(source: Source) -> None:
    source.add(LeaseRecord(device="valve", resource="Setpoint", agent="heat", incarnation="i", generation=1), "guard")
    assert await source.run() == {}
    assert source.seen == [("heat", 2)]


async def test_anothers_id_in_the_body_changes_nothing(source: Source) -> None:
    """Who sent it is a word of the subject: heat cannot speak as air."""
    source.add(command(incarnation="i1"), agent="heat")
    assert "held by air" in (await source.run())["c-1"][1]
    source.add(command())
    source.bus.deliver = [3]
    source.rig.outcomes.clear()
    assert (await source.run())["c-1"][0] == "proven", "heat's use of the id takes nothing from air"


# --- outcomes ------------------------------------------------------------------------------------


def outcome(name: str, device: str = "valve") -> Outcome:
    """Return an outcome."""
    return Outcome(command_id=CommandId(name), device=device, resource="Setpoint", status="proven")


async def tell(rig: Rig, bus: MemoryBus, *outcomes: Outcome) -> list[str]:
    """Tell outcomes to air; return the ids the stream holds of it, in order."""
    teller = Teller(cast(Bus, bus), "gw")
    task = asyncio.create_task(teller.run(rig.means))
    for item in outcomes:
        teller.tell("air", item)
    await teller.drain(10)
    await until(lambda: not rig.ledger.untold(), "what the ledger held is told")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return [
        wire.decode(Outcome, data, headers.get(CONTENT_TYPE, wire.PROTOBUF)).command_id
        for subject, data, headers in bus.held
        if subject.startswith("gw.outcomes.air.") and data != b"garbage"
    ]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses between tries be turns of the loop."""
    original = asyncio.sleep

    async def turn(delay: float) -> None:
        await original(0)

    monkeypatch.setattr("services.guard.intake.asyncio.sleep", turn)


@pytest.mark.parametrize(
    "plan", [[], ["lost"], ["unheard"], ["ok", "unheard", "lost"], ["unheard", "unheard"], ["lost"] * 4]
)
@pytest.mark.usefixtures("no_pauses")
async def test_each_outcome_is_told_once_and_in_order(rig: Rig, plan: list[str]) -> None:
    bus = MemoryBus()
    bus.plan = list(plan)
    assert await tell(rig, bus, outcome("c-1"), outcome("c-2"), outcome("c-3")) == ["c-1", "c-2", "c-3"]


@pytest.mark.parametrize("stored", ["c-1", "c-2", "c-3"])
@pytest.mark.usefixtures("no_pauses")
async def test_after_a_crash_what_was_not_told_is_told_and_what_was_stored_is_not_told_twice(
    rig: Rig, stored: str
) -> None:
    """Which one the guard was telling when it was killed is not for the ledger to say: they end in any order."""
    for number in (1, 2, 3):
        rig.job(f"c-{number}", sequence=number)
        rig.ledger.finish("air", outcome(f"c-{number}"), 1.0)
    bus = MemoryBus()
    bus.held.append(("gw.outcomes.air.valve", wire.encode(outcome(stored)), {}))
    others = [name for name in ("c-1", "c-2", "c-3") if name != stored]
    assert await tell(rig, bus) == [stored, *others]
    assert rig.ledger.untold() == []


@pytest.mark.usefixtures("no_pauses")
async def test_who_reads_json_is_told_in_json_once_also_after_a_crash(rig: Rig) -> None:
    bus, rig.reads = MemoryBus(), wire.JSON
    rig.job("c-1")
    rig.ledger.finish("air", outcome("c-1"), 1.0)
    bus.held.append(("gw.outcomes.air.valve", wire.encode(outcome("c-1"), wire.JSON), {CONTENT_TYPE: wire.JSON}))
    teller = Teller(cast(Bus, bus), "gw")
    task = asyncio.create_task(teller.run(rig.means))
    teller.tell("air", outcome("c-2"))
    await teller.drain(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [headers[CONTENT_TYPE] for _, _, headers in bus.held] == [wire.JSON, wire.JSON]
    assert [wire.decode(Outcome, data, wire.JSON).command_id for _, data, _ in bus.held] == ["c-1", "c-2"]


@pytest.mark.parametrize("encoding", [wire.JSON, wire.PROTOBUF])
@pytest.mark.usefixtures("no_pauses")
async def test_before_a_heartbeat_was_heard_outcomes_are_told_in_the_encoding_of_the_command(
    rig: Rig, encoding: str
) -> None:
    """A guard that was restarted settles what it finds before any agent is heard."""
    bus, rig.reads = MemoryBus(), ""
    bus.held.append(("gw.commands.valve.air", wire.encode(command(), encoding), {CONTENT_TYPE: encoding}))
    bus.held.append(("gw.commands.pump.air", wire.encode(command()), {}))
    await tell(rig, bus, outcome("c-1"), outcome("c-2", "pump"))
    told = {subject: headers[CONTENT_TYPE] for subject, _, headers in bus.held if ".outcomes." in subject}
    assert told == {"gw.outcomes.air.valve": encoding, "gw.outcomes.air.pump": wire.PROTOBUF}


@pytest.mark.usefixtures("no_pauses")
async def test_garbage_and_strangers_on_the_subject_stop_no_outcome(rig: Rig) -> None:
    bus = MemoryBus()
    bus.held.append(("gw.outcomes.air.valve", b"garbage", {}))
    assert await tell(rig, bus, outcome("c-1"), outcome("c-2", "pump"), outcome("c-3")) == ["c-1", "c-2", "c-3"]


@pytest.mark.usefixtures("no_pauses")
async def test_nobody_elses_publishing_makes_an_outcome_a_duplicate(rig: Rig) -> None:
    """Message ids span the subjects of a stream, and agents publish into it: none is used (the bus here says so)."""
    assert await tell(rig, MemoryBus(), outcome("c-1")) == ["c-1"]


@pytest.mark.usefixtures("no_pauses")
async def test_devices_somebody_made_up_are_not_remembered_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.guard.intake.KNOWN_SUBJECTS", 5)
    bus = MemoryBus()
    teller = Teller(cast(Bus, bus), "gw")
    task = asyncio.create_task(teller.run(rig.means))
    for number in range(30):
        teller.tell("air", outcome(f"c-{number}", f"device-{number}"))
    await teller.drain(10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(bus.held) == 30
    assert len(teller._sequences) <= 5
