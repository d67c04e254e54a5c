"""The agent's part in tasks: what is remembered, what is commanded and for how long, and what a cancel still stops."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.audit import Audit
from edgeagents.errors import UnavailableError
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.cooperation import Act, Award, CallForProposals, LedgerAsk, LedgerTold
from edgeagents.model.message import (
    Cause,
    CommandId,
    Outcome,
    OutcomeStatus,
    RiskClass,
    SessionWelcome,
    SiteEntry,
)
from edgeagents.model.skill import Skill
from edgeagents.model.task import LedRef, led_of
from edgeagents.protocol.conversation import act
from services.agent.bidding import Declined
from services.agent.command_ids import command_id
from services.agent.commands import Commander, Errand, Given
from services.agent.places import MOST_CONVERSATIONS, MOST_OF_ONE
from services.agent.presence import CoordinatorWatch
from services.agent.tasks import Tasks
from tests.contract.waiting import until

ADA = AgentDefinition.model_validate({
    "name": "ada", "watches": [{"device": "valve"}], "skills": [{"name": "set", "cost_s": 2}],
})  # fmt: skip


class FakeBus:
    """A coordinator's ledger that gives a task to whoever takes it; `told` is what the agent said."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(gateway="gw")
        self.told: list[Act] = []
        self.asked: list[LedgerAsk] = []
        self.asked_of_peers: list[LedgerAsk] = []
        self.status = "taken"
        self.problem = ""

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        if subject == subjects.peer("gw", "peer-ledger", "lea", "ada"):
            self.asked_of_peers.append(wire.decode(LedgerAsk, data))
            return
        assert subject in (
            subjects.act("gw", subjects.COORDINATOR, "ada"), subjects.peer("gw", "peer-answers", "lea", "ada")
        )  # fmt: skip
        self.told.append(wire.decode(Act, data))

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        asked = wire.decode(LedgerAsk, data)
        self.asked.append(asked)
        status = asked.status if asked.verb == "close" else self.status
        told = LedgerTold(
            task=asked.task, epoch=asked.epoch, status=status, winner="ada", incarnation="run-1", problem=self.problem
        )
        return BusMessage("", wire.encode(told))

    @property
    def words(self) -> list[str]:
        """The performatives that the agent said."""
        return [said.performative for said in self.told]


class FakeCommander:
    """Gives what it is asked for; `lease` is what each command waits for before it is stored, `ending` how it ends."""

    def __init__(self) -> None:
        self.pending: dict[str, Any] = {}
        self.session = self  # it plays its session as well
        self.link_s = 0.0
        self.trouble = ""
        self.welcome: SessionWelcome | None = SessionWelcome(generation=1, mode="act", site=(
            SiteEntry(device="valve", resource="Setpoint", risk_class="A", kind="absolute"),
        ))  # fmt: skip
        self.lease, self.ending = asyncio.Event(), asyncio.Event()
        self.lease.set()
        self.ending.set()
        self.status: OutcomeStatus = "proven"
        self.given: list[tuple[Cause, Errand]] = []
        self.values: list[Any] = []
        self.stored: list[str] = []
        self.is_under_way = False

    def problem(self, intent: Intent, site_s: float) -> Declined | None:
        return Declined("not-possible", self.trouble) if self.trouble else None

    def value_of(self, device: str, resource: str, text: str) -> float:
        return float(text)

    async def give(self, decision: Decision, cause: Cause, site_s: float, errand: Errand) -> list[Given]:
        self.given.append((cause, errand))
        self.values.append(decision.intents[0].value)
        if self.is_under_way:
            return []
        await self.lease.wait()
        if not errand.is_wanted():
            return [Given(decision.intents[0], held_back="what it was for is over: left undone")]
        name = command_id("ada", 1, cause, 0)
        self.stored.append(name)
        return [Given(decision.intents[0], command_id=name)]

    async def awaited(self, name: CommandId) -> Outcome:
        await self.ending.wait()
        return Outcome(
            command_id=name, device="valve", resource="Setpoint", status=self.status, value="21", finished_unix_ns=1
        )


class Group:
    """What is under way; its errors are the test's."""

    def __init__(self) -> None:
        self.under_way: list[asyncio.Task[None]] = []

    def create_task(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        self.under_way.append(asyncio.create_task(work, name=name))
        return self.under_way[-1]


class Rig:
    """An agent that hears a coordinator."""

    def __init__(self, agent: AgentDefinition = ADA) -> None:
        self.group = Group()
        self.bus, self.commander = FakeBus(), FakeCommander()
        self.notes: list[dict[str, Any]] = []
        audit = SimpleNamespace(append=lambda kind, **fields: self.notes.append(fields))
        self.tasks = Tasks(
            cast(Bus, self.bus), agent, cast(Commander, self.commander), cast(Audit, audit), "run-1", lambda: 0.0,
            cast(asyncio.TaskGroup, self.group),
        )  # fmt: skip

    async def hear(self, said: Act, sender: str = subjects.COORDINATOR) -> None:
        """Bring an act to the agent."""
        await self.tasks._on_act(BusMessage(subjects.act("gw", "ada", sender), wire.encode(said), wire.AS_PROTOBUF))

    async def call(
        self, task: str = "t", left_s: float = 60.0, accepted_unix_ns: int = 0, epoch: int = 0, value: str = "21"
    ) -> None:
        """Call for a task."""
        call = CallForProposals(
            task=task, skill="set", device="valve", resource="Setpoint", value=value, left_s=left_s, epoch=epoch,
            accepted_unix_ns=accepted_unix_ns,
        )  # fmt: skip
        await self.hear(act("cfp", task, call=call, reply_by_s=1.0))

    async def award(self, task: str = "t", epoch: int = 1) -> None:
        """Name the agent as the winner."""
        await self.hear(act("accept-proposal", task, award=Award(task=task, epoch=epoch)))

    async def ends(self) -> str:
        """Return how the ledger was told that the only task ended, once nothing is remembered of it."""
        await until(lambda: not self.tasks._known, "the task has ended")
        return self.bus.asked[-1].status


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A rig whose work ends with the test."""
    found = Rig()
    yield found
    for item in list(found.tasks._known.values()):
        found.tasks._forget(item)
    ends = await asyncio.gather(*found.group.under_way, return_exceptions=True)
    assert [end for end in ends if isinstance(end, Exception)] == []


async def test_what_is_won_is_commanded_and_reported(rig: Rig) -> None:
    await rig.call()
    await rig.award()
    assert await rig.ends() == "done"
    assert [asked.verb for asked in rig.bus.asked] == ["take", "close"]
    assert rig.bus.words == ["propose", "inform", "inform"]
    assert [note["command"] for note in rig.notes] == rig.commander.stored


@pytest.mark.parametrize("status", ["refused", "expired", "uncertain"])
async def test_a_command_that_was_not_proven_is_a_failed_task_with_its_reason(rig: Rig, status: OutcomeStatus) -> None:
    rig.commander.status = status
    await rig.call()
    await rig.award()
    assert await rig.ends() == "failed"
    assert rig.bus.asked[-1].reason == status


# --- what is remembered ----------------------------------------------------------------------------


async def test_who_declines_is_asked_again_however_often_it_has_declined(rig: Rig) -> None:
    rig.commander.trouble = "mode observe"
    for number in range(MOST_CONVERSATIONS + 1):
        await rig.call(f"t-{number}", left_s=86_400.0)
    assert rig.bus.words == ["refuse"] * (MOST_CONVERSATIONS + 1)
    assert (rig.tasks._known, rig.tasks.counts["calls_left_out"]) == ({}, 0)
    rig.commander.trouble = ""
    await rig.call("t-0")
    assert rig.bus.words[-1] == "propose"


async def test_what_comes_to_nothing_leaves_no_timer_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    original = loop.call_later

    def call_later(delay: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(original(delay, callback, *args, **options))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    rig.commander.trouble = "mode observe"
    await rig.call("declined")
    rig.commander.trouble = ""
    await rig.call("cancelled")
    await rig.hear(act("cancel", "cancelled"))
    assert timers
    assert all(timer.cancelled() for timer in timers)


async def test_so_many_bids_stand_at_once_and_one_that_ends_makes_room(rig: Rig) -> None:
    for number in range(MOST_CONVERSATIONS + 1):
        await rig.call(f"t-{number}")
    assert rig.tasks.counts["calls_left_out"] == 1
    await rig.hear(act("reject-proposal", "t-0"))
    await rig.call("late")
    assert rig.bus.words == ["propose"] * (MOST_CONVERSATIONS + 1)


async def test_a_lost_award_is_forgotten_and_the_task_is_bid_for_again(rig: Rig) -> None:
    await rig.call()
    rig.bus.status, rig.bus.problem = "open", "the award ended 0.1 s ago"
    await rig.award()
    await until(lambda: not rig.tasks._known, "the award was lost")
    await rig.call(epoch=2)
    assert rig.bus.words == ["propose", "propose"]
    assert rig.commander.given == []


async def test_an_answer_of_the_ledger_to_what_is_forgotten_does_not_touch_the_next_of_that_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, original = asyncio.Event(), rig.bus.request

    async def request(*args: Any, **options: Any) -> BusMessage:
        await answer.wait()
        return await original(*args, **options)

    monkeypatch.setattr(rig.bus, "request", request)
    await rig.call()
    await rig.award()
    await rig.hear(act("cancel", "t"))
    await rig.call()
    answer.set()
    await until(lambda: rig.bus.asked, "the ledger has answered")
    await asyncio.sleep(0)
    assert list(rig.tasks._known) == [("coordinator", "t")]
    assert rig.commander.given == []


async def test_only_the_coordinator_calls(rig: Rig) -> None:
    call = CallForProposals(task="t", skill="set", device="valve", resource="Setpoint", value="21", left_s=60.0)
    await rig.hear(act("cfp", "t", call=call, reply_by_s=1.0), sender="mallory")
    assert (rig.bus.told, rig.tasks._known, rig.tasks.counts["acts_of_strangers"]) == ([], {}, 1)


async def test_a_ledger_that_is_silent_is_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    original, is_silent = rig.bus.request, True

    async def request(*args: Any, **options: Any) -> BusMessage:
        nonlocal is_silent
        if is_silent:
            is_silent = False
            raise UnavailableError("no answer")
        return await original(*args, **options)

    monkeypatch.setattr(rig.bus, "request", request)
    await rig.call()
    await rig.award()
    assert await rig.ends() == "done"
    assert rig.tasks.counts["ledger_silent"] == 1


# --- what is commanded -----------------------------------------------------------------------------


async def test_a_command_gets_the_time_that_is_left_to_the_task(rig: Rig) -> None:
    await rig.call(left_s=30.0)
    await rig.award()
    await rig.ends()
    ((_, errand),) = rig.commander.given
    assert 0 < errand.left_s <= 30.0


async def test_a_task_whose_name_was_used_before_is_another_command(rig: Rig) -> None:
    for accepted_unix_ns in (1, 2):
        await rig.call(accepted_unix_ns=accepted_unix_ns)
        await rig.award()
        await rig.ends()
    assert len(set(rig.commander.stored)) == 2
    assert {cause.event_id for cause, _ in rig.commander.given} == {"t"}


async def test_so_it_is_where_nobody_tells_when_it_was_accepted(rig: Rig) -> None:
    for _ in range(2):
        await rig.call()
        await rig.award()
        await rig.ends()
    assert len(set(rig.commander.stored)) == 2


async def test_the_same_task_under_the_same_award_is_the_same_command_in_every_run() -> None:
    stored: list[str] = []
    for _ in range(2):
        rig = Rig()
        await rig.call(accepted_unix_ns=7)
        await rig.award()
        await rig.ends()
        stored += rig.commander.stored
    assert stored[0] == stored[1]


# --- a cancel --------------------------------------------------------------------------------------


async def test_a_cancel_before_the_command_is_stored_leaves_it_undone(rig: Rig) -> None:
    rig.commander.lease.clear()
    await rig.call()
    await rig.award()
    await until(lambda: rig.commander.given, "a lease is asked for")
    await rig.hear(act("cancel", "t", reason="the owner thought better of it"))
    rig.commander.lease.set()
    assert await rig.ends() == "failed"
    assert rig.commander.stored == []
    assert rig.bus.asked[-1].reason == "the owner thought better of it"


async def test_a_cancel_ends_waiting_for_another_command_of_the_same_value(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.tasks.AGAIN_S", 0.0)
    rig.commander.is_under_way = True
    await rig.call()
    await rig.award()
    await until(lambda: len(rig.commander.given) > 1, "it is tried again")
    await rig.hear(act("cancel", "t"))
    assert await rig.ends() == "failed"
    assert rig.commander.stored == []


async def test_a_command_that_is_stored_is_followed_to_its_outcome_in_spite_of_a_cancel(rig: Rig) -> None:
    rig.commander.ending.clear()
    await rig.call()
    await rig.award()
    await until(lambda: rig.commander.stored, "it is stored")
    await rig.hear(act("cancel", "t"))
    rig.commander.ending.set()
    assert await rig.ends() == "done"


# --- while no coordinator is there: another agent leads ----------------------------------------------


class Led(Rig):
    """The same agent, called by another one, `lea`; whether a coordinator is there is set by the test."""

    def __init__(self) -> None:
        super().__init__(ADA.model_copy(update={"skills": (Skill(name="set", cost_s=0.0),)}))
        self.presence = SimpleNamespace(problem="")
        self.tasks.watch = cast(CoordinatorWatch, self.presence)

    async def hear(self, said: Act, sender: str = "lea") -> None:
        """Bring an act of who leads to the agent."""
        subject = subjects.peer("gw", "peer-acts", "ada", sender)
        await self.tasks._on_peer_act(BusMessage(subject, wire.encode(said), wire.AS_PROTOBUF))

    async def ledger_says(self, status: str, task: str = "t", epoch: int = 1, problem: str = "") -> None:
        """Bring what the one that leads has in its memory."""
        told = LedgerTold(
            task=task, epoch=epoch, status=status, winner="ada", incarnation="run-1", problem=problem
        )  # fmt: skip
        subject = subjects.peer("gw", "peer-ledger-told", "ada", "lea")
        await self.tasks._on_told(BusMessage(subject, wire.encode(told), wire.AS_PROTOBUF))

    async def verb(self, word: str) -> LedgerAsk:
        """Return what the agent asks of the ledger, once it asks that."""
        await until(lambda: any(asked.verb == word for asked in self.bus.asked_of_peers), f"it asks to {word}")
        return [asked for asked in self.bus.asked_of_peers if asked.verb == word][-1]


@pytest.fixture
async def led() -> AsyncIterator[Led]:
    """An agent that hears another one lead; its work ends with the test."""
    found = Led()
    yield found
    for item in list(found.tasks._known.values()):
        found.tasks._forget(item)
    ends = await asyncio.gather(*found.group.under_way, return_exceptions=True)
    assert [end for end in ends if isinstance(end, Exception)] == []


async def test_what_is_won_of_a_peer_is_commanded_once_its_ledger_says_so_and_names_it_as_the_cause(led: Led) -> None:
    await led.call(accepted_unix_ns=7)
    await led.award()
    assert (await led.verb("take")).incarnation == "run-1"
    assert led.commander.given == []
    await led.ledger_says("taken")
    assert (await led.verb("close")).status == "done"
    await led.ledger_says("done")
    assert led.tasks._known == {}
    assert led.bus.words == ["propose", "inform", "inform"]
    ((cause, errand),) = led.commander.given
    assert led_of(cause) == LedRef("lea", "t", 7, 1)
    assert errand.left_s <= 60.0
    assert led.notes[0]["leader"] == "lea"
    assert led.bus.asked == []


async def test_while_a_coordinator_is_there_nothing_is_bid_for_a_peer(led: Led) -> None:
    led.presence.problem = "app-coordinator is there: give it to it"
    await led.call()
    assert (led.bus.words, led.bus.told[0].reason) == (["refuse"], led.presence.problem)
    assert led.tasks._known == {}


async def test_an_award_that_comes_after_the_coordinator_is_back_is_done_all_the_same(led: Led) -> None:
    await led.call()
    led.presence.problem = "app-coordinator is there: give it to it"
    await led.award()
    await led.verb("take")
    await led.ledger_says("taken")
    assert (await led.verb("close")).status == "done"


@pytest.mark.parametrize(("risk_class", "kind"), [("B", "absolute"), ("C", "absolute"), ("A", "step"), ("A", "toggle")])
async def test_what_needs_a_yes_or_may_not_be_set_twice_is_not_bid_for(
    led: Led, risk_class: RiskClass, kind: Any
) -> None:
    entry = SiteEntry(device="valve", resource="Setpoint", risk_class=risk_class, kind=kind)
    led.commander.session.welcome = SessionWelcome(generation=1, mode="act", site=(entry,))
    await led.call()
    assert led.bus.words == ["refuse"]
    assert "without a coordinator" in led.bus.told[0].reason


async def test_a_leader_that_dies_before_the_award_is_taken_has_nothing_done(
    led: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeagents.protocol.contract_net_participant.ASK_AGAIN_S", 0.01)
    await led.call(left_s=0.2)
    await led.award()
    await until(lambda: len(led.bus.asked_of_peers) > 1, "it asks again")
    await until(lambda: not led.tasks._known, "its time is over")
    assert led.commander.given == []


async def test_a_leader_that_dies_after_it_was_taken_leaves_it_done_once_and_the_agent_free(led: Led) -> None:
    await led.call(left_s=0.5)
    await led.award()
    await led.verb("take")
    await led.ledger_says("taken")
    await until(lambda: not led.tasks._known, "its time is over")
    assert len(led.commander.stored) == 1
    assert led.notes[0]["command"] == led.commander.stored[0]


async def test_an_answer_that_says_the_award_is_over_has_nothing_done(led: Led) -> None:
    await led.call()
    await led.award()
    await led.verb("take")
    await led.ledger_says("open", epoch=2, problem="epoch 1 is over")
    assert (led.tasks._known, led.commander.given) == ({}, [])


async def test_peers_take_no_place_of_the_coordinators_and_no_part_in_its_conversations(led: Led) -> None:
    for number in range(MOST_OF_ONE + 1):
        await led.call(f"t-{number}")
    assert led.tasks.counts["calls_left_out"] == 1
    assert (led.bus.words[-1], "no room" in led.bus.told[-1].reason) == ("refuse", True)
    call = CallForProposals(task="t-0", skill="set", device="valve", resource="Setpoint", value="21", left_s=60.0)
    await Rig.hear(led, act("cfp", "t-0", call=call, reply_by_s=1.0))
    assert ("coordinator", "t-0") in led.tasks._known
    await led.hear(act("cancel", "t-0"))
    assert ("coordinator", "t-0") in led.tasks._known
    assert ("lea", "t-0") not in led.tasks._known


async def test_nobody_among_agents_is_the_coordinator_and_bad_bytes_are_counted(led: Led) -> None:
    await led.hear(act("cancel", "t"), sender="coordinator")
    assert led.tasks.counts["acts_of_strangers"] == 1
    for handler, subject in (
        (led.tasks._on_peer_act, "gw.peer-acts.ada.lea"), (led.tasks._on_peer_act, "gw.peer-acts.ada.=YQ"),
        (led.tasks._on_told, "gw.peer-ledger-told.ada.lea"), (led.tasks._on_told, "gw.peer-ledger-told.ada.=YQ"),
    ):  # fmt: skip
        await handler(BusMessage(subject, b"\xff\xff", wire.AS_PROTOBUF))
    assert led.tasks.counts["acts_rejected"] == 4
    assert led.bus.told == []


async def test_a_leader_that_was_started_again_and_gives_the_name_to_another_task_gets_that_one_done(led: Led) -> None:
    await led.call(accepted_unix_ns=7, value="21")
    await led.call(accepted_unix_ns=9_000, value="25")
    await led.award()
    await led.verb("take")
    await led.ledger_says("taken")
    assert (await led.verb("close")).status == "done"
    assert led.commander.values == [25.0]
    assert [led_of(cause) for cause, _ in led.commander.given] == [LedRef("lea", "t", 9_000, 1)]


async def test_so_it_is_where_the_former_one_was_awarded_and_never_taken(led: Led) -> None:
    await led.call(accepted_unix_ns=7, value="21")
    await led.award()
    await led.call(accepted_unix_ns=9_000, value="25")
    assert led.bus.words == ["propose", "propose"]
    await led.ledger_says("taken")  # to what the former award had asked
    assert led.commander.given == []


async def test_what_was_taken_is_finished_before_another_task_gets_its_name(led: Led) -> None:
    led.commander.ending.clear()
    await led.call(accepted_unix_ns=7)
    await led.award()
    await led.ledger_says("taken")
    await led.call(accepted_unix_ns=9_000, value="25")
    assert led.bus.words == ["propose", "inform", "refuse"]
    assert "a former task 't' is under way here" in led.bus.told[-1].reason
    led.commander.ending.set()
    assert (await led.verb("close")).status == "done"
    assert led.commander.values == [21.0]


@pytest.mark.parametrize("is_awarded", [False, True])
async def test_what_a_leader_says_nothing_more_of_is_let_go_long_before_its_deadline(
    led: Led, monkeypatch: pytest.MonkeyPatch, is_awarded: bool
) -> None:
    monkeypatch.setattr("services.agent.tasks.QUIET_S", 0.05)
    await led.call(left_s=3_600.0)
    if is_awarded:
        await led.award()
    await until(lambda: not led.tasks._known, "it is let go")
    await led.ledger_says("taken")
    assert (led.commander.given, led.tasks.counts["leaders_silent"]) == ([], 1)


async def test_awards_of_a_leader_that_fell_silent_keep_us_from_no_call_of_the_coordinators(led: Led) -> None:
    for number in range(MOST_OF_ONE):
        await led.call(f"t-{number}", left_s=3_600.0)
        await led.award(f"t-{number}")
    call = CallForProposals(task="t", skill="set", device="valve", resource="Setpoint", value="21", left_s=60.0)
    await Rig.hear(led, act("cfp", "t", call=call, reply_by_s=1.0))
    bid = led.bus.told[-1].bid
    assert bid is not None
    assert bid.cost == 0.0
