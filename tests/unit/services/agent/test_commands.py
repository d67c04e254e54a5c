"""From wishes to stored commands: leases, ids that a redelivery repeats, and what is held back and why."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage, Handler, StoredMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.errors import ConflictError, InvalidInputError, UnavailableError
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.device import Device, Profile
from edgeagents.model.message import (
    Cause,
    Command,
    CommandId,
    Epoch,
    Heartbeat,
    LeaseReply,
    LeaseRequest,
    Outcome,
    OutcomeStatus,
    Paused,
    SessionWelcome,
    SiteEntry,
)
from edgeagents.model.values import Value
from edgeagents.settings import BusSettings, SiteTime
from services.agent import commands as commands_module
from services.agent.bidding import Declined
from services.agent.command_ids import asked_command_id, command_id
from services.agent.commands import Commander, Errand, Given
from services.agent.perception import Twin
from services.agent.session import MOST_SILENT_S
from tests.contract.waiting import until

NOW_S = 1000.0
CAUSE = Cause(stream="edgex-events", sequence=5, event_id="e", origin_ns=int(NOW_S * 1e9))
KEY = ("valve", "Setpoint")
SUBJECT = "gw.commands.valve.a"
PROFILE = Profile.model_validate({
    "name": "Valve",
    "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float32", "readWrite": "RW", "minimum": 5, "maximum": 30}},
        {"name": "Level", "properties": {"valueType": "Uint8", "readWrite": "RW"}},
        {"name": "Note", "properties": {"valueType": "String", "readWrite": "RW"}},
    ],
})  # fmt: skip


class FakeBus:
    """A guard that answers, and a stream; `plan` says what happens to each store: ok, lost or unheard."""

    def __init__(self) -> None:
        self.settings, self.is_connected = BusSettings(gateway="gw"), True
        self.leases: list[LeaseRequest] = []
        self.beats: list[Heartbeat] = []
        self.reply = LeaseReply(granted=True, epoch=Epoch(generation=1, revision=3))
        self.welcome: SessionWelcome | None = SessionWelcome(generation=1, mode="act", site=tuple(map(entry, "ABC")))
        self.held: list[tuple[str, bytes]] = []
        self.plan: list[str] = []
        self.looks: list[str] = []
        self.handlers: dict[str, Handler] = {}

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        if subject == "gw.leases.a":
            self.leases.append(wire.decode(LeaseRequest, data))
            return BusMessage("", wire.encode(self.reply))
        assert subject == "gw.sessions.a"
        self.beats.append(wire.decode(Heartbeat, data))
        if self.welcome is None:
            raise UnavailableError("nobody answers")
        return BusMessage("", wire.encode(self.welcome))

    async def subscribe(self, subject: str, handler: Handler) -> None:
        self.handlers[subject] = handler

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.beats.append(wire.decode(Heartbeat, data))

    async def store(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, expected_last: int
    ) -> int:
        what = self.plan.pop(0) if self.plan else "ok"
        if what == "lost":
            raise UnavailableError("no acknowledgement")
        last = max((index for index, (at, _) in enumerate(self.held, 1) if at == subject), default=0)
        if last != expected_last:
            raise ConflictError(f"wrong last sequence: {last}")
        self.held.append((subject, data))
        if what == "unheard":
            raise UnavailableError("no acknowledgement")
        return len(self.held)

    async def read(
        self, stream: str, patterns: list[str], *, name: str, last_per_subject: bool
    ) -> AsyncIterator[StoredMessage]:
        assert (stream, name, last_per_subject) == ("commands", "agent-a_last", True)
        self.looks.append(patterns[0])
        newest = {at: (index, data) for index, (at, data) in enumerate(self.held, 1) if fits(patterns[0], at)}
        for at, (index, data) in newest.items():
            yield StoredMessage(at, data, {}, stream, index, 0)

    @property
    def commands(self) -> list[Command]:
        """What is held, decoded."""
        return [wire.decode(Command, data) for _, data in self.held]


def fits(pattern: str, subject: str) -> bool:
    return all(want in ("*", have) for want, have in zip(pattern.split("."), subject.split("."), strict=True))


def entry(risk_class: str) -> SiteEntry:
    """Return what the guard tells on a resource: Setpoint is class A, Level B, Note C."""
    resource = {"A": "Setpoint", "B": "Level", "C": "Note"}[risk_class]
    return SiteEntry(
        device="valve", resource=resource, risk_class=cast(Any, risk_class), kind="absolute", approval_wait_s=600.0
    )


def agent(**changes: Any) -> AgentDefinition:
    """Return an agent that may command all of the valve."""
    may = [{"profile": "Valve", "resource": name} for name in ("Setpoint", "Level", "Note")]
    fields: dict[str, Any] = {"name": "a", "mode": "act", "watches": [{"profile": "Valve"}], "may": may, "ttl": 10}
    return AgentDefinition.model_validate(fields | changes)


def devices() -> DeviceCache:
    """Return what core-metadata knows: one valve."""
    known = {"valve": Device(name="valve", profile_name="Valve")}
    return cast(DeviceCache, SimpleNamespace(
        devices_by_name=known, profiles_by_name={"Valve": PROFILE},
        profile_of=lambda name: PROFILE if name in known else None,
    ))  # fmt: skip


class Rig:
    """A commander with a session, its clock and its bus."""

    def __init__(self, definition: AgentDefinition | None = None, bus: "FakeBus | None" = None) -> None:
        self.bus = bus or FakeBus()
        self.twin = Twin(SiteTime(), {KEY}, 3600)
        self.commander = Commander(
            cast(Bus, self.bus), definition or agent(), devices(), self.twin, SiteTime(), "incarnation-1"
        )
        self.commander.session.welcome = self.bus.welcome
        self.events = 0

    async def want(self, value: Value, resource: str = "Setpoint", **changes: Any) -> Given:
        """Return what becomes of one wish after one more event; one that is under way gives `under way`."""
        cause = CAUSE.model_copy(update={"sequence": CAUSE.sequence + self.events})
        self.events += 1
        intent = Intent("valve", resource, value, changes.pop("because", "cold"), "rule")
        fields: dict[str, Any] = {
            "id": "d-1", "intents": (intent,), "stage": "rule", "confidence": 1.0, "inputs": {},
            "data_origin_ns": int(NOW_S * 1e9),
        }  # fmt: skip
        given = await self.commander.give(Decision(**(fields | changes)), cause, NOW_S)
        return given[0] if given else Given(intent, held_back="under way")

    def end(self, command: Command, status: OutcomeStatus, reason: str = "") -> None:
        """Tell the commander how a command ended."""
        self.commander.ended(
            Outcome(
                command_id=command.id, device=command.device, resource=command.resource, status=status, reason=reason,
                value=command.value, finished_unix_ns=int(NOW_S * 1e9),
            )
        )  # fmt: skip


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose pauses are turns of the loop."""
    original = asyncio.sleep

    async def turn(delay: float) -> None:
        await original(0)

    monkeypatch.setattr("services.agent.commands.asyncio.sleep", turn)
    return Rig()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the commander: its one entry."""
    now = [0.0]
    monkeypatch.setattr(commands_module.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    return now


async def test_a_wish_becomes_a_command_under_the_lease(rig: Rig) -> None:
    rig.twin.set_value(KEY, 18.5, 1, NOW_S)
    given = await rig.want(21)
    (command,) = rig.bus.commands
    assert given.command_id == command.id == command_id("a", 1, CAUSE, 0)
    assert (command.value, command.epoch) == ("2.1e+01", rig.bus.reply.epoch)
    assert command.ttl_s == pytest.approx(10.0, abs=1.0)
    assert (command.incarnation, command.decision_id, command.because) == ("incarnation-1", "d-1", "cold")
    assert (command.cause, command.data_origin_ns) == (CAUSE, int(NOW_S * 1e9))
    assert command.decided_on == "1.85e+01"
    assert rig.bus.held[0][0] == SUBJECT
    assert list(rig.commander.pending) == [command.id]
    (asked,) = rig.bus.leases
    assert (asked.incarnation, asked.device, asked.resource) == ("incarnation-1", "valve", "Setpoint")


@pytest.mark.parametrize(("resource", "value", "ttl_s"), [("Setpoint", 21, 10), ("Level", 3, 610), ("Note", "x", 610)])
async def test_what_a_human_decides_on_may_wait_for_them(rig: Rig, resource: str, value: Value, ttl_s: float) -> None:
    await rig.want(value, resource)
    assert rig.bus.commands[0].ttl_s == pytest.approx(ttl_s, abs=1.0)


async def test_no_command_waits_longer_than_the_contract_allows() -> None:
    rig = Rig(agent(ttl="1h"))
    entries = tuple(item.model_copy(update={"approval_wait_s": 86_400.0}) for item in map(entry, "ABC"))
    rig.commander.session.welcome = SessionWelcome(generation=1, mode="act", site=entries)
    await rig.want("x", "Note")
    assert rig.bus.commands[0].ttl_s == pytest.approx(86_400.0, abs=1.0)


def test_an_id_says_agent_generation_cause_and_place_and_nothing_else() -> None:
    base = command_id("a", 1, CAUSE, 0)
    assert command_id("a", 1, CAUSE.model_copy(update={"event_id": "other", "origin_ns": 1}), 0) == base
    others = {
        command_id("b", 1, CAUSE, 0), command_id("a", 2, CAUSE, 0), command_id("a", 1, CAUSE, 1),
        command_id("a", 1, CAUSE.model_copy(update={"sequence": 6}), 0),
        command_id("a", 1, CAUSE.model_copy(update={"stream": "triggers"}), 0),
    }  # fmt: skip
    assert len(others | {base}) == 6


def test_an_id_of_what_a_person_asked_for_hangs_on_the_question_and_the_resource() -> None:
    base = asked_command_id("a", 1, "q/digest", "valve", "Setpoint")
    others = {
        asked_command_id("b", 1, "q/digest", "valve", "Setpoint"),
        asked_command_id("a", 2, "q/digest", "valve", "Setpoint"),
        asked_command_id("a", 1, "q/other", "valve", "Setpoint"),
        asked_command_id("a", 1, "q/digest", "valve", "Level"), asked_command_id("a", 1, "q/digest", "v", "Setpoint"),
        command_id("a", 1, CAUSE, 0),
    }  # fmt: skip
    assert len(others | {base}) == 7


async def test_a_question_understood_again_after_a_crash_gives_no_command_the_id_of_another(rig: Rig) -> None:
    """All of it was wanted; the first part is proven and no wish any more when the question is understood again."""
    setpoint, level = Intent("valve", "Setpoint", 21, "", "off"), Intent("valve", "Level", 3, "", "off")
    fields: dict[str, Any] = {
        "id": "d-1", "stage": "phrase", "confidence": 1.0, "inputs": {}, "data_origin_ns": 1, "question": "q/digest",
    }  # fmt: skip
    first = await rig.commander.give(Decision(intents=(setpoint, level), **fields), CAUSE, NOW_S)
    later = CAUSE.model_copy(update={"sequence": 99})
    (again,) = await Rig(bus=rig.bus).commander.give(Decision(intents=(level,), **fields), later, NOW_S)
    assert [item.command_id for item in first] == [item.id for item in rig.bus.commands]
    assert again.command_id == first[1].command_id
    assert (again.text, first[0].text) == ("3", "2.1e+01")
    assert len({command.id for command in rig.bus.commands}) == 2


@pytest.mark.parametrize(
    ("value", "resource", "why"),
    [
        (31.0, "Setpoint", "outside the profile's range"),
        ("warm", "Setpoint", "'warm' is no Float32"),
        (True, "Setpoint", "True is no Float32"),
        (float("nan"), "Setpoint", "NaN is no value to set"),
        (10**400, "Setpoint", "beyond the range of Float32"),
        (2.5, "Level", "2.5 is no Uint8"),
        (1e300, "Level", "is no Uint8"),
        ("x" * 20_000, "Note", "20000 characters: 16384 fit into a command"),
        (1, "Gone", "core-metadata knows no valve/Gone (yet)"),
    ],
)
async def test_what_cannot_be_is_held_back_before_it_costs_a_lease(
    rig: Rig, value: Value, resource: str, why: str
) -> None:
    given = await rig.want(value, resource)
    assert why in given.held_back
    assert (rig.bus.leases, rig.bus.held) == ([], [])


async def test_odd_surroundings_of_a_decision_stop_nothing(rig: Rig) -> None:
    rig.twin.set_value(KEY, {"not": "of its type"}, 1, NOW_S)
    await rig.want(21, because="x" * 5000, data_origin_ns=-5)
    await rig.want(3.0, "Level")
    first, second = rig.bus.commands
    assert (len(first.because), first.decided_on, first.data_origin_ns, second.value) == (2000, None, 0, "3")


async def test_the_owners_age_limit_is_left_to_the_guard(rig: Rig) -> None:
    assert (await rig.want(21, data_origin_ns=1)).command_id


async def test_without_session_or_in_observe_mode_nothing_is_asked_or_sent(rig: Rig) -> None:
    rig.commander.session.welcome = None
    assert (await rig.want(21)).held_back == "no session with the guard"
    rig.commander.session.welcome = SessionWelcome(generation=1, mode="observe")
    assert (await rig.want(21)).held_back == "mode observe"
    assert rig.bus.leases == []


@pytest.mark.parametrize(("written", "told"), [("observe", "act"), ("act", "observe"), ("act", "act")])
async def test_the_guards_word_on_the_mode_counts_whatever_the_file_says(
    written: str, told: Literal["observe", "act"]
) -> None:
    rig = Rig(agent(mode=written))
    rig.commander.session.welcome = SessionWelcome(generation=1, mode=told, site=tuple(map(entry, "ABC")))
    given = await rig.want(21)
    assert (bool(given.command_id), given.held_back) == ((True, "") if told == "act" else (False, "mode observe"))
    assert (rig.commander.session.mode, len(rig.bus.held)) == (told, int(told == "act"))


async def test_called_by_the_guard_it_learns_its_new_mode_before_the_next_time_it_would_ask(
    rig: Rig, clock: list[float]
) -> None:
    async with session(rig), asyncio.timeout(5):
        await until(lambda: len(rig.bus.beats) >= 1, "it has asked once")
        rig.bus.welcome = SessionWelcome(generation=1, mode="observe")
        await until(lambda: len(rig.bus.beats) >= 3, "it beats on, the clock stands still")
        assert rig.commander.session.mode == "act"
        await rig.bus.handlers["_INBOX.agent-a.called"](BusMessage("_INBOX.agent-a.called", b"act!", {}))
        await until(lambda: rig.commander.session.mode == "observe", "it has asked again")


async def test_what_the_guard_never_told_of_is_held_back(rig: Rig) -> None:
    rig.commander.session.welcome = SessionWelcome(generation=1, mode="act")
    assert "site.yaml does not declare valve/Setpoint" in (await rig.want(21)).held_back


async def test_a_refused_lease_holds_the_wish_back_with_the_guards_reason(rig: Rig) -> None:
    rig.bus.reply = LeaseReply(granted=False, holder="b", reason="held by b")
    assert (await rig.want(21)).held_back == "held by b"
    rig.bus.reply = LeaseReply(granted=True)
    refused = await rig.want(21)
    assert (refused.held_back, refused.is_lost) == ("no lease", False)
    assert rig.bus.held == []


async def test_a_lease_is_asked_for_once(rig: Rig) -> None:
    await rig.want(21)
    await rig.want(22)
    assert len(rig.bus.leases) == 1
    assert len(rig.bus.held) == 2


async def test_the_same_wish_is_not_sent_again_while_it_is_under_way(rig: Rig) -> None:
    await rig.want(21)
    assert (await rig.want(21.0)).held_back == "under way"
    assert len(rig.bus.held) == 1
    rig.end(rig.bus.commands[0], "proven")
    assert (await rig.want(21)).command_id


@pytest.mark.parametrize("plan", [["lost"], ["unheard"], ["lost", "unheard"], ["unheard", "lost"], ["lost"] * 3])
async def test_a_lost_acknowledgement_stores_a_command_exactly_once(rig: Rig, plan: list[str]) -> None:
    await rig.want(20)
    rig.bus.plan = list(plan)
    given = await rig.want(21)
    assert [command.value for command in rig.bus.commands] == ["2e+01", "2.1e+01"]
    assert given.command_id == rig.bus.commands[1].id


async def test_a_redelivered_event_after_a_restart_stores_no_second_command(rig: Rig) -> None:
    await rig.want(21)
    again = Rig(bus=rig.bus)
    given = await again.want(21)  # its first event too: the very same
    assert given.command_id == rig.bus.commands[0].id
    assert len(rig.bus.held) == 1
    assert rig.bus.looks == ["gw.commands.*.a", "gw.commands.*.a"]


async def test_the_first_command_need_not_look_when_that_was_done_before(rig: Rig) -> None:
    await rig.commander.prepare()
    await rig.want(21)
    assert rig.bus.looks == ["gw.commands.*.a"]
    assert len(rig.bus.held) == 1


async def test_another_copy_that_stored_in_between_is_stepped_behind(rig: Rig) -> None:
    await rig.want(20)
    rig.bus.held.append((SUBJECT, wire.encode(rig.bus.commands[0].model_copy(update={"id": "of-the-copy"}))))
    await rig.want(21)
    assert [command.value for command in rig.bus.commands] == ["2e+01", "2e+01", "2.1e+01"]


async def test_garbage_on_its_subject_does_not_stop_an_agent(rig: Rig) -> None:
    rig.bus.held.append((SUBJECT, b'{"stream":"commands","seq":4}'))
    assert (await rig.want(21)).command_id
    assert len(rig.bus.held) == 2


async def test_a_command_that_cannot_be_stored_in_time_is_given_up(rig: Rig, clock: list[float]) -> None:
    class Tired(list[str]):
        def pop(self, index: Any = -1) -> str:
            clock[0] += 3.0
            return "lost"

    rig.bus.plan = Tired(["lost"])
    given = await rig.want(21)
    assert "not stored in time" in given.held_back
    assert given.is_lost
    assert rig.commander.pending == {}
    rig.bus.plan = []
    assert (await rig.want(21)).command_id


async def test_after_a_refusal_the_same_wish_waits_longer_each_time(rig: Rig, clock: list[float]) -> None:
    for pause_s in (5.0, 10.0, 20.0):
        await rig.want(21)
        rig.end(rig.bus.commands[-1], "refused", "interlock")
        clock[0] += pause_s - 0.1
        assert (await rig.want(21)).held_back == "held back after a refusal"
        clock[0] += 0.2
    await rig.want(21)
    rig.end(rig.bus.commands[-1], "proven")
    assert (await rig.want(21)).command_id


async def test_a_refusal_holds_back_that_wish_alone_and_makes_it_ask_for_the_lease_again(rig: Rig) -> None:
    await rig.want(21)
    rig.end(rig.bus.commands[-1], "refused", "epoch")
    assert (await rig.want(22)).command_id
    assert (await rig.want(21)).held_back == "held back after a refusal"
    assert len(rig.bus.leases) == 2


async def test_what_was_held_back_long_ago_is_forgotten(rig: Rig, clock: list[float]) -> None:
    for number in range(20):
        await rig.want(10 + number / 10)
        rig.end(rig.bus.commands[-1], "failed")
    assert len(rig.commander._memory.held_back) == 20
    clock[0] = 400.0
    rig.commander.forget_overdue()
    assert rig.commander._memory.held_back == {}


async def test_a_proven_value_is_known_at_once_and_counts_for_rates(clock: list[float]) -> None:
    may = [{"profile": "Valve", "resource": "Setpoint", "rate": {"count": 1, "per": "1h"}}]
    rig = Rig(agent(may=may))
    await rig.want(21)
    rig.end(rig.bus.commands[0], "proven")
    latest = rig.twin.latest(KEY)
    assert latest is not None
    assert latest.value == 21.0
    assert "1 commands in the last 3600 s: 1 are permitted" in (await rig.want(22)).held_back


async def test_an_outcome_that_never_comes_is_not_waited_for_for_ever(rig: Rig, clock: list[float]) -> None:
    await rig.want(21)
    clock[0] = 69.0
    rig.commander.forget_overdue()
    assert len(rig.commander.pending) == 1
    clock[0] = 71.0
    rig.commander.forget_overdue()
    assert rig.commander.pending == {}
    assert rig.commander.counts["without_outcome"] == 1


async def test_outcomes_of_others_and_of_unknown_devices_stop_nothing(rig: Rig) -> None:
    for status in ("proven", "failed"):
        rig.commander.ended(Outcome(command_id="x", device="gone", resource="y", status=cast(Any, status), value="1"))
    rig.commander.ended(Outcome(command_id="x", device="valve", resource="Setpoint", status="proven", value="warm"))
    assert rig.commander.counts == {"proven": 2, "failed": 1}


@contextlib.asynccontextmanager
async def session(rig: Rig) -> AsyncIterator[None]:
    """Keep the session inside the block."""
    task = asyncio.create_task(rig.commander.session.keep())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_session_is_kept_and_a_new_generation_forgets_leases(rig: Rig, clock: list[float]) -> None:
    rig.commander.session.welcome = None
    async with session(rig), asyncio.timeout(5):
        await rig.commander.session.welcomed.wait()
        await rig.want(21)
        assert rig.commander.leases.epochs
        rig.bus.welcome = SessionWelcome(generation=2, mode="act", site=tuple(map(entry, "ABC")))
        clock[0] += 6.0
        await until(lambda: not rig.commander.leases.epochs, "it has forgotten")
    assert rig.commander.session.welcome == rig.bus.welcome
    assert {beat.incarnation for beat in rig.bus.beats} == {"incarnation-1"}


async def test_after_a_silence_of_ours_a_lease_is_asked_for_again(rig: Rig, clock: list[float]) -> None:
    async with session(rig), asyncio.timeout(5):
        await until(lambda: rig.bus.beats, "the guard has heard us")
        await rig.want(21)
        assert len(rig.bus.leases) == 1
        clock[0] += MOST_SILENT_S + 0.1  # we were stopped, and this comes before the next heartbeat
        rig.end(rig.bus.commands[-1], "proven")
        await rig.want(22)
        assert len(rig.bus.leases) == 2
        assert rig.commander.quiet_s(KEY, NOW_S) is not None, "as far as we know it is ours"
        await until(lambda: not rig.commander.session.has_lapsed, "the heartbeat after it")
        await rig.want(23)
        assert len(rig.bus.leases) == 3, "none is surely ours since"
        await rig.want(24)
        assert len(rig.bus.leases) == 3


async def test_what_another_holds_after_a_silence_is_not_ours(rig: Rig, clock: list[float]) -> None:
    async with session(rig), asyncio.timeout(5):
        await until(lambda: rig.bus.beats, "the guard has heard us")
        await rig.want(21)
        rig.end(rig.bus.commands[-1], "proven")
        clock[0] += MOST_SILENT_S + 0.1
        granted, rig.bus.reply = rig.bus.reply, LeaseReply(granted=False, holder="b", reason="held by b")
        assert (await rig.want(22)).held_back == "held by b"
        assert not rig.commander.leases.epochs
        rig.bus.reply = granted
        await rig.want(23)
        assert (len(rig.bus.leases), len(rig.bus.held)) == (3, 2)


async def test_an_answer_to_an_earlier_question_is_no_silence(rig: Rig, clock: list[float]) -> None:
    talk = rig.commander.session
    for said_s in (0.0, 0.5, 1.0, 0.2, 1.5):  # the fourth was asked at 0.2 and answered now
        talk._spoke(said_s)
    await rig.want(21)
    assert not talk.has_lapsed
    talk._spoke(2.0)
    assert not rig.commander.leases.is_doubted(KEY)
    talk._spoke(2.1 + MOST_SILENT_S)
    assert rig.commander.leases.is_doubted(KEY)


def lose_the_broker(rig: Rig, clock: list[float], reply: LeaseReply) -> None:
    """Have the next command lost on its way, for so long that the session lapses; then the guard replies otherwise."""
    rig.commander.session._spoke(clock[0])
    rig.bus.plan = ["lost"]
    original = rig.bus.store

    async def store(*args: Any, **options: Any) -> int:
        if rig.bus.plan:
            clock[0] += MOST_SILENT_S + 0.1
            rig.bus.reply = reply
        return await original(*args, **options)

    rig.bus.store = store  # type: ignore[method-assign]


async def test_a_command_that_waited_for_the_broker_goes_under_the_lease_there_is_by_then(
    rig: Rig, clock: list[float]
) -> None:
    lose_the_broker(rig, clock, LeaseReply(granted=True, epoch=Epoch(generation=1, revision=9)))
    assert (await rig.want(21)).command_id
    assert [command.epoch.revision for command in rig.bus.commands] == [9]
    assert len(rig.bus.leases) == 2


async def test_a_command_that_waited_for_the_broker_is_left_undone_where_another_has_the_lease(
    rig: Rig, clock: list[float]
) -> None:
    lose_the_broker(rig, clock, LeaseReply(granted=False, holder="b", reason="held by b"))
    given = await rig.want(21)
    assert (given.command_id, given.held_back, given.is_lost) == ("", "held by b", True)
    assert (rig.bus.held, dict(rig.commander.pending)) == ([], {})


async def test_heartbeats_that_wait_for_the_link_are_no_sign_of_life(rig: Rig, clock: list[float]) -> None:
    async with session(rig), asyncio.timeout(20):
        await until(lambda: rig.bus.beats, "the guard has heard us")
        await rig.want(21)
        rig.bus.is_connected = False
        for _ in range(4):
            clock[0] += 0.4
            count = len(rig.bus.beats)
            await until(lambda count=count: len(rig.bus.beats) > count, "a heartbeat")  # type: ignore[misc]
        assert rig.commander.session.has_lapsed
        rig.bus.is_connected = True
        await until(lambda: not rig.commander.session.has_lapsed, "the guard hears us again")
        assert rig.commander.leases.is_doubted(KEY)


async def test_a_session_that_is_back_is_told(rig: Rig, clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with session(rig), asyncio.timeout(20):
        await until(lambda: rig.bus.beats, "the guard has heard us")
        told, rig.bus.welcome = rig.bus.welcome, None
        clock[0] += 6.0
        await until(lambda: "has no session" in caplog.text, "it is away")
        rig.bus.welcome = told
        clock[0] += 6.0
        await until(lambda: caplog.text.count("has a session") == 1, "it is back")  # it had one from the start


async def test_a_guard_that_refuses_or_is_away_is_told_once(
    rig: Rig, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    rig.commander.session.welcome = rig.bus.welcome = None
    async with session(rig), asyncio.timeout(5):
        await until(lambda: len(rig.bus.beats) >= 5, "it keeps asking")
        rig.bus.welcome = SessionWelcome(generation=1, refused="no agent file declares 'a'")
        await until(lambda: len(rig.bus.beats) >= 10, "it goes on asking")
    assert caplog.text.count("has no session") == 1
    assert caplog.text.count("the guard refuses agent a: no agent file declares 'a'") == 1
    assert not rig.commander.session.welcomed.is_set()


async def test_the_same_wish_is_under_way_before_its_command_is_stored(rig: Rig) -> None:
    first = rig.want(21)
    second = rig.want(21)
    answers = await asyncio.gather(first, second)
    assert [item.held_back for item in answers] == ["", "under way"]
    assert [command.value for command in rig.bus.commands] == ["2.1e+01"]


async def test_commands_of_one_device_are_stored_in_the_order_they_were_decided(rig: Rig) -> None:
    await asyncio.gather(*(rig.want(value) for value in (20, 21, 22, 23)))
    assert [command.value for command in rig.bus.commands] == ["2e+01", "2.1e+01", "2.2e+01", "2.3e+01"]


async def test_a_wait_for_its_turn_is_no_longer_than_a_command_lives(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.commander._agent = agent(ttl=0.05)
    stored, original = asyncio.Event(), rig.bus.store

    async def store(*args: Any, **options: Any) -> int:
        await stored.wait()
        return await original(*args, **options)

    monkeypatch.setattr(rig.bus, "store", store)
    human = asyncio.create_task(rig.want(3, "Level"))  # may wait for 600 s
    await asyncio.sleep(0)
    late = await rig.want(21)
    assert (late.held_back, late.is_lost) == ("neither its turn nor a lease came in time", True)
    assert [item.command.resource for item in rig.commander.pending.values()] == ["Level"]
    stored.set()
    assert (await human).command_id
    assert (await rig.want(21)).command_id


async def test_time_spent_on_a_lease_counts(rig: Rig, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    original = rig.bus.request

    async def request(*args: Any, **options: Any) -> BusMessage:
        clock[0] += 7.0
        return await original(*args, **options)

    monkeypatch.setattr(rig.bus, "request", request)
    given = await rig.want(21)
    assert [(command.id, command.ttl_s) for command in rig.bus.commands] == [(given.command_id, 3.0)]
    rig.end(rig.bus.commands[0], "refused", "epoch")
    rig.commander._agent = agent(ttl=5)
    assert "not stored in time" in (await rig.want(22)).held_back
    assert (len(rig.bus.held), rig.commander.pending) == (1, {})


async def test_one_decisions_commands_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(agent(may=[{"device": "*", "resource": "Setpoint"}]))
    known = {name: Device(name=name, profile_name="Valve") for name in ("x", "y")}
    rig.commander._devices = cast(DeviceCache, SimpleNamespace(
        devices_by_name=known, profiles_by_name={"Valve": PROFILE}, profile_of=lambda name: PROFILE,
    ))  # fmt: skip
    rig.commander.session.welcome = SessionWelcome(
        generation=1, mode="act", site=tuple(entry("A").model_copy(update={"device": name}) for name in known)
    )
    stored, original = asyncio.Event(), rig.bus.store

    async def store(subject: str, *args: Any, **options: Any) -> int:
        if ".x." in subject:
            await stored.wait()
        return await original(subject, *args, **options)

    monkeypatch.setattr(rig.bus, "store", store)
    intents = tuple(Intent(name, "Setpoint", 21, "cold", "rule") for name in ("x", "gone", "y"))
    decision = Decision(
        id="d-1", intents=intents, stage="rule", confidence=1.0, inputs={}, data_origin_ns=int(NOW_S * 1e9)
    )  # fmt: skip
    giving = asyncio.ensure_future(rig.commander.give(decision, CAUSE, NOW_S))
    await until(lambda: [command.device for command in rig.bus.commands] == ["y"], "y does not wait for x")
    stored.set()
    given = await giving
    assert [item.intent for item in given] == list(intents)
    assert [item.command_id for item in given] == [command_id("a", 1, CAUSE, 0), "", command_id("a", 1, CAUSE, 2)]


async def test_a_few_leases_are_asked_for_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most, original = 0, 0, rig.bus.request

    async def request(*args: Any, **options: Any) -> BusMessage:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return await original(*args, **options)

    monkeypatch.setattr(rig.bus, "request", request)
    replies = await asyncio.gather(
        *(rig.commander.leases.take((f"valve-{number}", "Setpoint")) for number in range(100))
    )
    assert all(reply.granted for reply in replies)
    assert (most, len(rig.bus.leases)) == (32, 100)


# --- errands: commands for what can be over before they are -----------------------------------------


def wish(value: Value = 21, resource: str = "Setpoint") -> Decision:
    return Decision("d-1", (Intent("valve", resource, value, "task", "task"),), "rule", 1.0, {}, 0)


async def test_a_command_lives_no_longer_than_what_it_is_for(rig: Rig) -> None:
    (given,) = await rig.commander.give(wish("x", "Note"), CAUSE, NOW_S, Errand(30.0, lambda: True))
    (command,) = rig.bus.commands
    assert given.command_id == command.id
    assert 0 < command.ttl_s <= 30.0, "a human may let it act for ten minutes, the task's time is over long before"


async def test_what_is_over_already_is_not_commanded(rig: Rig) -> None:
    (given,) = await rig.commander.give(wish(), CAUSE, NOW_S, Errand(0.0, lambda: True))
    assert given == Given(given.intent, held_back="the time of what it is for is over")
    assert (rig.bus.held, dict(rig.commander.pending)) == ([], {})


async def test_what_nobody_wants_any_more_is_left_undone_until_it_is_stored(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, is_wanted = rig.bus.request, True

    async def request(*args: Any, **options: Any) -> BusMessage:
        nonlocal is_wanted
        is_wanted = False  # cancelled while the lease is asked for
        return await original(*args, **options)

    monkeypatch.setattr(rig.bus, "request", request)
    (given,) = await rig.commander.give(wish(), CAUSE, NOW_S, Errand(30.0, lambda: is_wanted))
    assert given.held_back == "what it was for is over: left undone"
    assert (rig.bus.held, dict(rig.commander.pending), rig.commander._awaited) == ([], {}, {})


async def test_how_an_errands_command_ended_is_told_also_when_its_outcome_is_quicker_than_the_broker(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = rig.bus.store

    async def store(*args: Any, **options: Any) -> int:
        sequence = await original(*args, **options)
        rig.end(rig.bus.commands[-1], "proven")
        return sequence

    monkeypatch.setattr(rig.bus, "store", store)
    (given,) = await rig.commander.give(wish(), CAUSE, NOW_S, Errand(30.0, lambda: True))
    outcome = await asyncio.wait_for(rig.commander.awaited(CommandId(given.command_id)), 1.0)
    assert (outcome.command_id, outcome.status) == (given.command_id, "proven")
    assert rig.commander._awaited == {}
    with pytest.raises(InvalidInputError, match="given for no errand"):
        await rig.commander.awaited(CommandId(given.command_id))


async def test_the_outcome_that_is_awaited_is_that_of_the_session_it_was_given_in(rig: Rig) -> None:
    """The guard was reset between deciding and giving: the command's id holds the newer generation."""
    assert rig.bus.welcome is not None
    rig.commander.session.welcome = rig.bus.welcome.model_copy(update={"generation": 2})
    (given,) = await rig.commander.give(wish(), CAUSE, NOW_S, Errand(30.0, lambda: True))
    assert given.command_id == command_id("a", 2, CAUSE, 0)
    waiting = asyncio.ensure_future(rig.commander.awaited(CommandId(given.command_id)))
    await asyncio.sleep(0)
    rig.end(rig.bus.commands[0], "expired")
    assert (await asyncio.wait_for(waiting, 1.0)).status == "expired"


async def test_whoever_stops_waiting_leaves_nothing_behind(rig: Rig) -> None:
    (given,) = await rig.commander.give(wish(), CAUSE, NOW_S, Errand(30.0, lambda: True))
    waiting = asyncio.ensure_future(rig.commander.awaited(CommandId(given.command_id)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert rig.commander._awaited == {}
    assert list(rig.commander.pending) == [given.command_id], "it is stored: its outcome comes"


@pytest.mark.parametrize(("place", "left"), [("request", 0), ("store", 1)])
async def test_of_what_is_broken_off_before_it_is_stored_nothing_is_awaited(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, place: str, left: int
) -> None:
    reached = asyncio.Event()

    async def hangs(*args: Any, **options: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(rig.bus, place, hangs)
    giving = asyncio.ensure_future(rig.commander.give(wish(), CAUSE, NOW_S, Errand(30.0, lambda: True)))
    await reached.wait()
    giving.cancel()
    await asyncio.wait((giving,))
    assert (len(rig.commander.pending), rig.commander._awaited) == (left, {})


@pytest.mark.parametrize(
    ("changes", "value", "cause", "text"),
    [
        ({"mode": "observe"}, 21, "observe", "mode observe"),
        ({"paused": (Paused(reason="paused by ann"),)}, 21, "paused", "paused by ann"),
        ({}, 31, "not-possible", "30"),
        ({}, "warm", "not-possible", "warm"),
    ],
)
def test_a_problem_is_what_would_hold_a_command_back_now(
    rig: Rig, changes: dict[str, Any], value: Value, cause: str, text: str
) -> None:
    assert rig.commander.problem(wish(21).intents[0], NOW_S) is None
    assert rig.commander.session.welcome is not None
    rig.commander.session.welcome = rig.commander.session.welcome.model_copy(update=changes)
    found = rig.commander.problem(wish(value).intents[0], NOW_S)
    assert found is not None
    assert (found.cause, text in found.text) == (cause, True)


def test_without_a_session_everything_is_a_problem(rig: Rig) -> None:
    rig.commander.session.welcome = None
    assert rig.commander.problem(wish().intents[0], NOW_S) == Declined("no-session", "no session with the guard")


async def test_a_wish_whose_lease_another_holds_is_told_of_with_who_holds_it(rig: Rig) -> None:
    told: list[tuple[Value, str]] = []
    rig.commander.on_held = lambda intent, reply: told.append((intent.value, reply.holder))
    rig.bus.reply = LeaseReply(granted=False, holder="b", reason="held by b")
    assert (await rig.want(21.0)).held_back == "held by b"
    assert told == [(21.0, "b")]


async def test_a_lease_that_is_given_back_is_not_held_and_is_asked_for_anew(rig: Rig) -> None:
    await rig.want(21.0)
    assert rig.commander.quiet_s(KEY, NOW_S) == commands_module.NEVER_S  # held, and nothing proven yet
    rig.end(rig.bus.commands[0], "proven")
    assert rig.commander.quiet_s(KEY, NOW_S + 5.0) == 5.0
    await rig.commander.leases.release(KEY)
    assert rig.commander.quiet_s(KEY, NOW_S) is None
    await rig.want(22.0)
    assert [request.release for request in rig.bus.leases] == [False, True, False]


async def test_what_was_settled_with_others_is_commanded_instead_or_left_undone(rig: Rig) -> None:
    rig.commander.standing = lambda intent, is_errand: Intent(*KEY, 19.0, "agreed", intent.rule)
    await rig.want(21.0)
    assert [(command.value, command.because) for command in rig.bus.commands] == [("1.9e+01", "agreed")]
    rig.commander.standing = lambda intent, is_errand: "stands back"
    assert (await rig.want(22.0)).held_back == "stands back"


async def test_what_a_person_asked_for_is_commanded_as_it_was_asked(rig: Rig) -> None:
    rig.commander.standing = lambda intent, is_errand: "stands back"
    await rig.want(21.0, question="q/1")
    assert [command.value for command in rig.bus.commands] == ["2.1e+01"]


@pytest.mark.parametrize("later", ["stands back", Intent(*KEY, 19.0, "agreed", "rule")])
async def test_an_order_that_waited_for_its_turn_is_left_undone_when_it_was_settled_meanwhile(
    rig: Rig, later: Intent | str
) -> None:
    """Else it would take the lease back that was given to another."""
    asked: list[Intent] = []

    def standing(intent: Intent, is_errand: bool) -> Intent | str:
        asked.append(intent)
        return intent if len(asked) == 1 else later

    rig.commander.standing = standing
    given = await rig.want(21.0)
    assert given.held_back in ("stands back", "it was settled otherwise meanwhile")
    assert (rig.bus.leases, rig.bus.commands, len(rig.commander.pending)) == ([], [], 0)


async def test_a_lease_can_be_taken_without_a_command(rig: Rig) -> None:
    assert await rig.commander.leases.hold(KEY)
    assert rig.commander.quiet_s(KEY, NOW_S) is not None
    await rig.commander.leases.release(KEY)
    rig.bus.reply = LeaseReply(granted=False, holder="b", reason="held by b")
    assert not await rig.commander.leases.hold(KEY)


async def test_how_a_command_ended_is_told_to_whoever_settles_conflicts(rig: Rig) -> None:
    told: list[str] = []
    rig.commander.on_ended = lambda outcome: told.append(outcome.status)
    await rig.want(21.0)
    rig.end(rig.bus.commands[0], "refused", "interlock")
    assert told == ["refused"]


async def test_a_lease_given_back_while_it_was_asked_for_is_given_back_again(rig: Rig) -> None:
    """It is another's to have by then; the wish is looked at again."""
    ask = rig.bus.request

    async def request(
        subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        answer = await ask(subject, data, headers, timeout_s=timeout_s)
        if len(rig.bus.leases) == 1:
            await rig.commander.leases.release(KEY)
        return answer

    rig.bus.request = request  # type: ignore[method-assign]
    given = await rig.want(21.0)
    assert (given.held_back, given.is_lost) == ("its lease was given back meanwhile", True)
    assert [item.release for item in rig.bus.leases] == [False, True, True]
    assert rig.bus.commands == []


async def test_what_the_owner_paused_is_known_by_device_and_a_change_of_it_is_told(rig: Rig) -> None:
    told: list[str] = []
    rig.commander.session.on_orders = lambda: told.append(rig.commander.session.barred("valve"))
    plain = rig.bus.welcome
    assert plain is not None
    rig.commander.session.welcome = None
    assert rig.commander.session.barred("valve") == "it observes: it commands nothing"
    elsewhere = Paused(device="pump", reason="paused by ann: leak")
    for paused in ((), (elsewhere,), (elsewhere,), (elsewhere, Paused(reason="paused by bob")), ()):
        rig.commander.session.take(plain.model_copy(update={"paused": paused}), "")
    assert told == ["", "", "paused by bob", ""]
    rig.commander.session.take(plain.model_copy(update={"mode": "observe"}), "")
    rig.commander.session.take(SessionWelcome(generation=1, refused="no file"), "")
    assert told[4:] == ["it observes: it commands nothing"] * 2


async def test_a_pause_of_one_device_bars_from_that_one_alone(rig: Rig) -> None:
    paused = (Paused(device="valve", reason="paused by ann"),)
    assert rig.bus.welcome is not None
    rig.commander.session.take(rig.bus.welcome.model_copy(update={"paused": paused}), "")
    assert (rig.commander.session.barred("valve"), rig.commander.session.barred("pump")) == ("paused by ann", "")
