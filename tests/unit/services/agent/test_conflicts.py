"""The agent's part in conflicts: what it asks, says and obeys, and what has no effect on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.files import load_agent
from edgeagents.audit import Audit
from edgeagents.errors import UnavailableError
from edgeagents.model.agent import AgentDefinition, Decision, Intent, Sample
from edgeagents.model.cooperation import Act, Ballot, Dispute, DisputeTold, Offer, Settlement
from edgeagents.model.message import Cause, CommandId, LeaseReply, Outcome
from edgeagents.model.site import Condition
from edgeagents.model.values import Value
from edgeagents.protocol.conversation import act
from edgeagents.protocol.couplings import Coupling
from services.agent.agreements import BACK_S
from services.agent.bargaining import load_bargaining
from services.agent.commands import Commander, Given
from services.agent.conflicts import PEACE_S, Conflicts
from services.agent.giving import AGREED
from services.agent.perception import Twin
from services.agent.rules import RuleBook
from tests.contract.waiting import until
from tests.unit.services.agent.test_bargaining import HOME, VALVE, Picture, files

HELD = LeaseReply(granted=False, holder="thrifty", reason="held by thrifty")
WISH = Intent(*VALVE, 20.0, "it is cold", "warm")
NAME = "conflict-1"
PAUSED = "paused by ann: window cleaning"
ASKED = Dispute(
    device="valve", resource="Setpoint", wanted="20", options=("18", "19", "20"), others=("warm", "thrifty")
)
SETTLED = Settlement(device="valve", resource="Setpoint", value="19", winner="warm", rung="nash", stands_s=60.0)


class FakeBus:
    """A coordinator that answers `told`, or nobody."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(gateway="gw")
        self.said: list[Act] = []
        self.asked: list[Dispute] = []
        self.told: DisputeTold | None = DisputeTold(conversation=NAME, ends_s=0.01)

    async def subscribe(self, subject: str, handler: Any, *, pending_bytes: int) -> None:
        assert subject == "gw.acts.warm.coordinator"

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        assert subject == "gw.acts.coordinator.warm"
        self.said.append(wire.decode(Act, data))

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        assert subject == "gw.conflicts.warm"
        asked = wire.decode(Dispute, data)
        assert abs(time.time_ns() - asked.sent_unix_ns) < 60e9, "what is old is not settled"
        self.asked.append(asked.model_copy(update={"sent_unix_ns": 0}))
        if self.told is None:
            raise UnavailableError("nobody answers")
        return BusMessage("", wire.encode(self.told))


class FakeCommander:
    """Holds the lease or not, and notes what it is to do."""

    def __init__(self) -> None:
        self.order = ""  # of the owner's: why it may command nothing
        self.session = self.leases = self  # it plays them as well
        self.mode = "act"
        self.is_free = True
        self.quiet: float | None = None
        self.released: list[tuple[str, str]] = []
        self.taken: list[tuple[str, str]] = []
        self.given: list[Intent] = []
        self.refusals = 0

    def barred(self, device: str) -> str:
        return self.order

    def quiet_s(self, key: tuple[str, str], site_s: float) -> float | None:
        return self.quiet

    async def release(self, key: tuple[str, str]) -> None:
        self.released.append(key)

    async def hold(self, key: tuple[str, str]) -> bool:
        self.taken.append(key)
        return self.is_free

    def value_of(self, device: str, resource: str, text: str) -> float:
        return float(text)

    async def give(self, decision: Decision, cause: Cause, site_s: float) -> list[Given]:
        self.given.append(decision.intents[0])
        if self.refusals > 0:
            self.refusals -= 1
            return [Given(decision.intents[0], held_back="held by thrifty")]
        return [Given(decision.intents[0], command_id="c")]


class Group:
    """What is under way."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def create_task(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]


class Rig:
    """An agent that wants 20 while it is below that, with a mediator that tests play."""

    def __init__(self, folder: Path) -> None:
        agent, path = files(folder)
        rule = {"name": "warm", "given": {"t": "sensor/Temperature"}, "when": "t < 20.0",
                "set": {"device": "valve", "resource": "Setpoint", "value": 20.0}}  # fmt: skip
        ruled = AgentDefinition.model_validate({**agent.model_dump(exclude={"negotiates"}), "rules": [rule]})
        bargaining = load_bargaining(agent, path)
        assert bargaining is not None
        self.bus, self.commander, self.group = FakeBus(), FakeCommander(), Group()
        self.picture = Picture(Temperature=19.0)
        self.notes: list[tuple[str, dict[str, Any]]] = []
        audit = SimpleNamespace(append=lambda kind, **body: self.notes.append((kind, body)))
        self.conflicts = Conflicts(
            cast(Bus, self.bus), ruled, cast(Commander, self.commander), cast(Twin, self.picture),
            RuleBook(ruled, "warm.yaml"), bargaining, cast(Audit, audit), lambda: 1_000.0,
            cast(asyncio.TaskGroup, self.group),
        )  # fmt: skip

    async def hear(self, said: Act) -> None:
        """Bring an act of the mediator to the agent."""
        await self.conflicts._on_act(
            BusMessage(subjects.act("gw", "warm", "coordinator"), wire.encode(said), wire.AS_PROTOBUF)
        )

    async def asked(self) -> None:
        """Have the mediator ask what the options are worth."""
        await self.hear(act("cfp", NAME, dispute=ASKED, reply_by_s=0.5))

    async def settled(self, name: str = NAME, **changes: object) -> None:
        """Tell how the conflict ended."""
        await self.hear(act("inform", name, settlement=SETTLED.model_copy(update=changes)))

    def set_present(self, value: float) -> None:
        """Have the valve show a value."""
        self.picture.values[VALVE] = Sample(value, 1, 1_000.0)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path)
    await found.conflicts.run()
    yield found
    for task in found.group.tasks:
        task.cancel()
    await asyncio.gather(*found.group.tasks, return_exceptions=True)


async def test_a_wish_whose_lease_another_holds_is_brought_before_the_coordinator_once(rig: Rig) -> None:
    rig.set_present(18.0)
    rig.conflicts.held(WISH, HELD)
    rig.conflicts.held(WISH, HELD)

    async def is_over() -> bool:
        return rig.group.tasks[0].done()

    await until(is_over, "it was asked")
    rig.conflicts.held(WISH, HELD)  # a moment ago
    assert rig.bus.asked == [
        Dispute(device="valve", resource="Setpoint", wanted="20", options=("18", "20", "19"), others=("thrifty",),
                because="it is cold")
    ]  # fmt: skip


@pytest.mark.parametrize("holder", ["", "warm"])
async def test_what_no_other_agent_holds_is_no_conflict(rig: Rig, holder: str) -> None:
    rig.conflicts.held(WISH, HELD.model_copy(update={"holder": holder}))
    rig.conflicts.held(Intent("lamp", "Switch", True, "", ""), HELD)
    assert not rig.group.tasks


async def test_without_a_coordinator_everything_goes_on_as_if_nobody_had_asked(rig: Rig) -> None:
    rig.bus.told = None
    rig.conflicts.held(WISH, HELD)
    await asyncio.gather(*rig.group.tasks)
    assert rig.conflicts.counts["not_settled"] == 1
    assert rig.conflicts.standing(WISH, False) is WISH


async def test_it_says_what_options_are_worth_and_how_it_stands(rig: Rig) -> None:
    rig.commander.quiet = 12.0
    rig.set_present(20.0)
    await rig.asked()
    said = rig.bus.said[-1]
    assert said.performative == "inform"
    assert said.appraisal is not None
    assert (said.appraisal.way, said.appraisal.holds, said.appraisal.quiet_s) == ("20", True, 12.0)
    worths = {item.option: round(item.utility, 3) for item in said.appraisal.worths}
    assert worths == {"18": 0.35, "19": 0.4, "20": 0.45}


async def test_who_wants_nothing_gives_way_and_the_lease_back(rig: Rig) -> None:
    rig.picture.values[("sensor", "Temperature")] = Sample(21.0, 1, 1_000.0)
    await rig.asked()
    await asyncio.gather(*rig.group.tasks)
    assert rig.bus.said[-1].performative == "refuse"
    assert rig.commander.released == [VALVE]


async def test_what_it_cannot_compute_is_a_failure_with_its_reason(rig: Rig) -> None:
    await rig.hear(act("cfp", NAME, dispute=ASKED.model_copy(update={"options": ("auto", "20")}), reply_by_s=0.5))
    assert rig.bus.said[-1].performative == "failure"
    assert "warmth" in rig.bus.said[-1].reason


async def test_it_votes_by_what_options_are_worth_and_leaves_a_table_of_offers(rig: Rig) -> None:
    await rig.asked()
    await rig.hear(act("cfp", NAME, ballot=Ballot(ranking=("18", "19", "20"))))
    assert rig.bus.said[-1].ballot == Ballot(ranking=("20", "19", "18"), approved=("20", "19", "18"))
    await rig.hear(act("propose", NAME, offer=Offer(outcome="18")))
    assert rig.bus.said[-1].performative == "refuse"


async def test_an_agent_that_does_not_decide_gives_nothing_that_was_agreed_until_it_decides_again(rig: Rig) -> None:
    rig.conflicts.giving.is_deciding = False
    await rig.asked()
    await rig.settled()
    await asyncio.sleep(0.3)
    assert rig.commander.given == []
    rig.conflicts.giving.is_deciding = True
    await asyncio.gather(*rig.group.tasks)
    assert [intent.value for intent in rig.commander.given] == [19.0]


async def test_the_winner_gives_the_agreed_value_as_soon_as_the_other_has_let_go(rig: Rig) -> None:
    rig.commander.refusals = 1
    await rig.asked()
    await rig.settled()
    await asyncio.gather(*rig.group.tasks)
    assert [intent.value for intent in rig.commander.given] == [19.0, 19.0]
    assert rig.conflicts.counts["given"] == 1
    instead = rig.conflicts.standing(WISH, False)
    assert isinstance(instead, Intent)
    assert instead.value == 19.0
    rig.set_present(19.0)
    assert rig.conflicts.standing(WISH, False) == f"agreed in {NAME}"
    assert ("settlement", "gives it") in [(kind, body.get("part")) for kind, body in rig.notes]


async def test_a_task_is_not_done_with_another_value_than_it_asked_for(rig: Rig) -> None:
    await rig.asked()
    await rig.settled()
    assert rig.conflicts.standing(WISH, True) == f"agreed in {NAME}"


async def test_who_lost_gives_its_lease_back_and_stands_back(rig: Rig) -> None:
    await rig.asked()
    await rig.settled(winner="thrifty", value="18")
    await asyncio.gather(*rig.group.tasks)
    assert rig.commander.released == [VALVE]
    assert not rig.commander.given
    assert rig.conflicts.standing(WISH, False) == f"stands back: {NAME} gave it to thrifty"


@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    [
        ("conflict-9", {}, "not-party"),
        (NAME, {"winner": "mallory"}, "unknown-winner"),
        (NAME, {"value": "30"}, "unknown-option"),
        (NAME, {"device": "lamp"}, "other-resource"),
    ],
)
async def test_a_settlement_that_is_not_ours_changes_nothing_and_is_audited(
    rig: Rig, name: str, changes: dict[str, str], cause: str
) -> None:
    await rig.asked()
    await rig.settled(name, **changes)
    assert rig.conflicts.standing(WISH, False) is WISH
    assert not rig.commander.given
    assert not rig.commander.released
    assert rig.conflicts.counts[f"settlements_{cause}"] == 1
    assert rig.notes[0][0] == "settlement-refused"


async def test_a_settlement_told_again_is_of_no_conflict_any_more(rig: Rig) -> None:
    await rig.asked()
    await rig.settled()
    await rig.settled(winner="thrifty", value="18")
    assert not rig.commander.released
    assert rig.conflicts.counts["settlements_not-party"] == 1


async def test_a_settlement_after_our_own_deadline_has_no_effect(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.asked()
    monkeypatch.setattr("services.agent.conflicts.SETTLES_S", 0.0)
    later_s = rig.conflicts._parts[NAME].until_s + 0.001
    monkeypatch.setattr("services.agent.conflicts.time", SimpleNamespace(monotonic=lambda: later_s))
    await rig.settled()
    assert rig.conflicts.counts["settlements_late"] == 1
    assert rig.conflicts.standing(WISH, False) is WISH


async def test_bytes_that_are_no_act_are_counted(rig: Rig) -> None:
    await rig.conflicts._on_act(BusMessage("gw.acts.warm.coordinator", b"\xff\xff", wire.AS_PROTOBUF))
    assert rig.conflicts.counts["acts_rejected"] == 1


async def test_before_it_departs_from_what_was_agreed_it_asks_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.asked()
    await rig.settled(stands_s=0.001)
    await asyncio.sleep(0.01)
    assert rig.conflicts.standing(WISH, False) == f"asks anew before it departs from {NAME}"
    assert rig.conflicts.standing(WISH, False) == f"asks anew before it departs from {NAME}"
    await asyncio.gather(*rig.group.tasks)
    assert [item.others for item in rig.bus.asked] == [("thrifty",)]
    assert rig.conflicts.standing(WISH, False) is WISH  # nobody settled it: it is bound no longer


LAMP = Intent("lamp", "Switch", True, "it is dark", "light")
COUPLED = Coupling("light against heat", (
    Condition(device="lamp", resource="Switch", equals="true"),
    Condition(device="valve", resource="Setpoint", above=19.5),
))  # fmt: skip


async def test_a_wish_waits_for_a_coupled_resource_to_be_settled_and_stands_back_if_that_is_lost(rig: Rig) -> None:
    rig.conflicts.couple([COUPLED], {})
    rig.set_present(20.0)
    assert rig.conflicts.standing(LAMP, False) == "waits until it is settled: light against heat"
    await asyncio.sleep(0)
    assert [(item.device, item.wanted, item.others) for item in rig.bus.asked] == [("valve", "18", ())]
    await rig.asked()
    await rig.settled(winner="thrifty", value="20")
    assert rig.conflicts.standing(LAMP, False) == f"stands back: light against heat, by {NAME}"
    rig.set_present(19.0)
    assert rig.conflicts.standing(LAMP, False) is LAMP


async def test_where_nobody_settles_a_coupling_the_guards_interlocks_decide_as_ever(rig: Rig) -> None:
    rig.conflicts.couple([COUPLED], {})
    rig.set_present(20.0)
    rig.bus.told = DisputeTold(problem="nobody who is there negotiates about it")
    assert isinstance(rig.conflicts.standing(LAMP, False), str)
    await asyncio.gather(*rig.group.tasks)
    assert rig.conflicts.standing(LAMP, False) is LAMP


@pytest.fixture(params=["for all", "for this alone"])
def settled_only(tmp_path: Path, request: pytest.FixtureRequest) -> Rig:
    """Return an agent whose file lets it command the valve only as it was settled."""
    found = Rig(tmp_path)
    agent, _ = files(tmp_path)
    assert agent.negotiates is not None
    if request.param == "for all":
        terms = agent.negotiates.model_copy(update={"only_settled": True})
    else:
        over = tuple(item.model_copy(update={"only_settled": True}) for item in agent.negotiates.over)
        terms = agent.negotiates.model_copy(update={"over": over})
    found.conflicts._agent = found.conflicts._agent.model_copy(update={"negotiates": terms})
    return found


async def test_one_that_commands_only_what_is_settled_asks_first_and_waits(settled_only: Rig) -> None:
    rig = settled_only
    rig.bus.told = None  # nobody settles anything here
    for _ in range(3):
        assert rig.conflicts.standing(WISH, False) == "waits until it is settled: it commands this only so"
    await asyncio.gather(*rig.group.tasks)
    assert [asked.others for asked in rig.bus.asked] == [()]
    assert isinstance(rig.conflicts.standing(WISH, False), str)
    assert len(rig.group.tasks) == 1, "it asks again after a while only"


async def test_one_that_commands_only_what_is_settled_does_while_that_stands_and_what_it_was_given_as_a_task(
    settled_only: Rig,
) -> None:
    rig = settled_only
    assert rig.conflicts.standing(WISH, True) == WISH
    await rig.asked()
    await rig.settled(value="20")
    await asyncio.gather(*rig.group.tasks)
    assert rig.conflicts.standing(WISH, False) == WISH
    agreements = rig.conflicts.giving.agreements
    agreements[VALVE] = replace(agreements[VALVE], until_s=0.0)
    assert isinstance(rig.conflicts.standing(WISH, False), str)
    agreed = replace(WISH, rule=AGREED)
    assert rig.conflicts.standing(agreed, False) == agreed, "what nobody else wants anything of stands for no time"
    await asyncio.gather(*rig.group.tasks)


async def test_who_may_command_nothing_gives_way_and_asks_for_nothing(rig: Rig) -> None:
    await rig.asked()
    await rig.settled(stands_s=0.001)
    rig.commander.order = PAUSED
    await asyncio.sleep(0.01)
    assert rig.conflicts.standing(WISH, False) == PAUSED, "held back until the guard tells us that it is over"
    rig.commander.session.mode = "observe"
    assert rig.conflicts.standing(WISH, False) is WISH, "the commander says so itself, and what it would have done"
    await rig.asked()
    assert (rig.bus.said[-1].performative, rig.bus.said[-1].reason) == ("refuse", PAUSED)
    assert not rig.bus.asked


async def test_the_winner_takes_the_lease_though_the_value_is_so_already(rig: Rig) -> None:
    rig.set_present(19.0)
    rig.commander.is_free = False
    await rig.asked()
    await rig.settled()

    async def has_tried() -> bool:
        return len(rig.commander.taken) > 1

    await until(has_tried, "it asks again until the other has let go")
    rig.commander.is_free = True
    await asyncio.gather(*rig.group.tasks)
    assert not rig.commander.given


async def test_after_a_moment_a_loser_asks_the_guard_as_ever_and_files_nothing_while_the_outcome_stands(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.asked()
    await rig.settled(winner="thrifty", value="18")
    now_s = time.monotonic() + BACK_S
    monkeypatch.setattr("services.agent.conflicts.time", SimpleNamespace(monotonic=lambda: now_s))
    assert rig.conflicts.standing(WISH, False) is WISH  # who won may be dead: then the lease is free
    rig.conflicts.held(WISH, HELD)
    assert not rig.bus.asked


@pytest.mark.parametrize("answer", ["refuse", "failure"])
async def test_who_gave_way_or_could_not_say_hears_the_outcome_as_news(rig: Rig, answer: str) -> None:
    if answer == "refuse":
        rig.picture.values[("sensor", "Temperature")] = Sample(21.0, 1, 1_000.0)
    else:
        del rig.picture.values[("sensor", "Temperature")]
        rig.conflicts._claims[VALVE] = "20"
    await rig.asked()
    assert rig.bus.said[-1].performative == answer
    rig.commander.released.clear()
    await rig.settled(winner="thrifty", value="18")
    assert rig.conflicts.standing(WISH, False) is WISH
    assert rig.conflicts.counts["settled_by_others"] == 1
    assert not rig.notes


async def test_silent_rules_leave_what_we_hold_as_it_is_until_it_was_quiet_for_long(rig: Rig) -> None:
    rig.picture.values[("sensor", "Temperature")] = Sample(21.0, 1, 1_000.0)
    rig.set_present(19.0)
    rig.commander.quiet = PEACE_S
    await rig.asked()
    assert rig.bus.said[-1].appraisal is not None
    assert rig.bus.said[-1].appraisal.way == "19"
    rig.commander.quiet = PEACE_S + 1.0
    await rig.asked()
    assert rig.bus.said[-1].performative == "refuse"


def refused(value: str, reason: str, cause: str = "gate", status: Any = "refused") -> Outcome:
    return Outcome(command_id=CommandId("c"), device=VALVE[0], resource=VALVE[1], status=status, value=value,
                   reason=reason, cause_kind=cause)  # fmt: skip


@pytest.mark.parametrize("cause", ["interlock", "gate", "device", ""])
async def test_what_the_guard_refuses_binds_nobody_and_is_worth_nothing_for_a_while(rig: Rig, cause: str) -> None:
    await rig.asked()
    await rig.settled()
    rig.conflicts.giving.ended(refused("1.8e+01", "another value"))
    bound = rig.conflicts.standing(WISH, False)
    assert isinstance(bound, Intent)
    assert bound.value == 19.0
    rig.conflicts.giving.ended(refused("1.9e+01", "interlock 'please'", cause))
    assert rig.conflicts.standing(WISH, False) is WISH
    await rig.asked()
    assert rig.bus.said[-1].appraisal is not None
    worths = {item.option: round(item.utility, 3) for item in rig.bus.said[-1].appraisal.worths}
    assert worths == {"18": 0.35, "19": 0.0, "20": 0.45}


@pytest.mark.parametrize("cause", ["lease", "order", "override", "late", "a word of a newer guard"])
async def test_what_is_refused_for_another_cause_says_nothing_of_the_value(rig: Rig, cause: str) -> None:
    await rig.asked()
    await rig.settled()
    rig.conflicts.giving.ended(refused("1.9e+01", "the words do not count", cause))
    assert rig.conflicts.standing(WISH, False) is WISH, "it binds nobody all the same"
    await rig.asked()
    assert rig.bus.said[-1].appraisal is not None
    assert {item.option: round(item.utility, 3) for item in rig.bus.said[-1].appraisal.worths}["19"] == 0.4


@pytest.mark.parametrize(("reason", "worth"), [("interlock 'please'", 0.0), ("the lease is another's", 0.4)])
async def test_what_a_guard_of_a_former_version_refuses_for_the_lease_says_nothing_of_the_value(
    rig: Rig, reason: str, worth: float
) -> None:
    await rig.asked()
    await rig.settled()
    rig.conflicts.giving.ended(refused("1.9e+01", reason, cause=""))
    await rig.asked()
    assert rig.bus.said[-1].appraisal is not None
    assert {item.option: round(item.utility, 3) for item in rig.bus.said[-1].appraisal.worths}["19"] == worth


async def test_a_task_neither_waits_for_a_settlement_nor_asks_for_one(rig: Rig) -> None:
    rig.conflicts.couple([COUPLED], {})
    rig.set_present(20.0)
    assert rig.conflicts.standing(LAMP, True) is LAMP
    await rig.asked()
    await rig.settled(stands_s=0.001)
    await asyncio.sleep(0.01)
    assert rig.conflicts.standing(WISH, True) is WISH
    assert not rig.bus.asked


async def test_the_command_of_an_outcome_is_in_the_audit(rig: Rig) -> None:
    await rig.asked()
    await rig.settled()
    await asyncio.gather(*rig.group.tasks)
    given = [body for kind, body in rig.notes if kind == "settlement-given"]
    assert [(body["conflict"], body["command"], body["value"]) for body in given] == [(NAME, "c", "19")]


async def test_the_agent_looks_again_once_a_question_came_to_nothing(rig: Rig) -> None:
    stored = asyncio.Event()

    async def store() -> None:
        stored.set()

    looking = asyncio.create_task(rig.conflicts.giving.keep_looking(store))
    rig.bus.told = None
    rig.conflicts.held(WISH, HELD)
    async with asyncio.timeout(5):
        await stored.wait()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_the_agent_looks_again_once_an_outcome_is_over(rig: Rig) -> None:
    stored = asyncio.Event()

    async def store() -> None:
        stored.set()

    looking = asyncio.create_task(rig.conflicts.giving.keep_looking(store))
    await rig.asked()
    await rig.settled(stands_s=0.01)
    async with asyncio.timeout(5):
        await stored.wait()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_the_shipped_air_does_not_give_way_in_stale_air(tmp_path: Path) -> None:
    """Between fresh and stale its rules are silent on purpose: the unit stays as it is."""
    path = HOME / "agents" / "air.yaml"
    agent = load_agent(path)
    bargaining = load_bargaining(agent, path)
    assert bargaining is not None
    rig = Rig(tmp_path)
    rules = RuleBook(agent, "air.yaml")
    values: dict[tuple[str, str], Value] = {("ventilation", "Level"): 2}
    for room in ("living", "bedroom", "kitchen", "office"):
        values |= {(f"sensor-{room}", "CO2"): 1_000.0, (f"sensor-{room}", "Presence"): True}
    rig.picture.values = {key: Sample(value, 1, 1_000.0) for key, value in values.items()}
    assert rules.evaluate(rig.picture, 1_000.0) == []
    rig.conflicts._agent, rig.conflicts._rules, rig.conflicts._bargaining = agent, rules, bargaining
    rig.commander.quiet = 30.0
    asked = Dispute(device="ventilation", resource="Level", wanted="1", options=("2", "1"), others=("energy", "air"))
    said = rig.conflicts._answer(NAME, ("ventilation", "Level"), asked)
    assert said.appraisal is not None
    assert said.appraisal.way == "2"
    assert said.appraisal.worths[0].utility > said.appraisal.worths[1].utility


async def test_who_is_paused_while_it_bargains_says_so_and_hears_the_outcome_as_news(rig: Rig) -> None:
    await rig.asked()
    rig.commander.order = PAUSED
    rig.conflicts.obey()
    rig.conflicts.obey()
    await asyncio.gather(*rig.group.tasks)
    assert [(said.performative, said.conversation, said.reason) for said in rig.bus.said[1:]] == [
        ("cancel", NAME, PAUSED)
    ]  # fmt: skip
    await rig.settled()
    assert (rig.conflicts.giving.agreements, rig.commander.given) == ({}, [])


@pytest.mark.parametrize("winner", ["warm", "thrifty"])
async def test_who_is_paused_while_an_outcome_stands_says_so_once_and_keeps_it_until_it_is_told(
    rig: Rig, winner: str
) -> None:
    await rig.asked()
    await rig.settled(winner=winner)
    rig.conflicts.obey()  # orders of others change nothing
    assert rig.conflicts.giving.agreements
    rig.commander.order = PAUSED
    rig.conflicts.obey()
    rig.conflicts.obey()
    await asyncio.sleep(0)
    assert [said.performative for said in rig.bus.said] == ["inform", "cancel"]
    assert rig.conflicts.giving.agreements, "else it would be free by its own word, and the others bound"
    assert ("settlement-left", {"conflict": NAME, "reason": PAUSED}) in rig.notes
    await rig.hear(act("cancel", NAME, reason="warm takes no part any more: paused by ann"))
    assert not rig.conflicts.giving.agreements


async def test_who_is_paused_again_while_an_outcome_stands_says_so_again(rig: Rig) -> None:
    await rig.asked()
    await rig.settled()
    for order in (PAUSED, "", PAUSED):
        rig.commander.order = order
        rig.conflicts.obey()
    await asyncio.sleep(0)
    assert [said.performative for said in rig.bus.said] == ["inform", "cancel", "cancel"]


@pytest.mark.parametrize(("is_told", "most"), [(False, 3), (True, 1)])
async def test_that_it_is_out_is_said_a_few_times_until_the_coordinator_answers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_told: bool, most: int
) -> None:
    monkeypatch.setattr("services.agent.conflicts.LEAVE_AGAIN_S", 0.01)
    await rig.asked()
    await rig.settled()
    rig.commander.order = PAUSED
    rig.conflicts.obey()
    if is_told:
        await rig.hear(act("cancel", NAME, reason="warm takes no part any more"))
    await until(lambda: len(rig.bus.said) == 1 + most, "it was said")
    await asyncio.sleep(0.05)
    assert [said.performative for said in rig.bus.said] == ["inform", *["cancel"] * most]


@pytest.mark.parametrize("winner", ["warm", "thrifty"])
async def test_what_another_has_left_binds_nobody_and_may_be_asked_about_at_once(rig: Rig, winner: str) -> None:
    await rig.asked()
    await rig.settled(winner=winner)
    await rig.hear(act("cancel", "conflict-9", reason="another one"))
    assert rig.conflicts.standing(WISH, False) is not WISH
    await rig.hear(act("cancel", NAME, reason="thrifty takes no part any more: paused by ann"))
    assert rig.conflicts.standing(WISH, False) is WISH
    assert rig.conflicts.giving.has_news.is_set(), "it looks again at what it wants"
    rig.conflicts.held(WISH, HELD)
    await asyncio.sleep(0)
    assert len(rig.bus.asked) == 1
    assert [body["reason"] for kind, body in rig.notes if kind == "settlement-released"] == [
        "thrifty takes no part any more: paused by ann"
    ]  # fmt: skip
