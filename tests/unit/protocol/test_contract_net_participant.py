"""The participant: what it bids for, what it takes, how it reports, and what it does not listen to."""

import math
from typing import Any

import pytest

from edgeagents.model.cooperation import Act, Award, CallForProposals
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.contract_net_participant import (
    Abandon,
    Bidding,
    Ended,
    Estimate,
    Estimated,
    Estimating,
    Listening,
    Perform,
    Performed,
    Performing,
    Reporting,
    Setting,
    Taking,
    step,
)
from edgeagents.protocol.conversation import MOST_ACTS, Heard, Recovered, Refuse, Tell, Tick, act
from edgeagents.protocol.task_ledger import CloseTask, Entry, LedgerAnswer, ReadTask, TakeTask
from tests.society import Party
from tests.unit.protocol.test_contract_net_property import CLASSES, TASK, net

SETTING = Setting("anna", "lead", TASK, 20.0, "i-1")
CALL = CallForProposals(task=TASK, skill="carry")
AWARD = Award(task=TASK, epoch=1, price=3.0)
TAKING = Taking(SETTING, AWARD, 1.0)
REPORTING = Reporting(SETTING, AWARD, "done", 2.0)


def cfp(epoch: int = 0, reply_by_s: float = 1.0) -> Act:
    return act("cfp", TASK, call=CALL.model_copy(update={"epoch": epoch}), reply_by_s=reply_by_s)


def said(status: Any, epoch: int = 1, incarnation: str = "i-1", problem: str = "", winner: str = "anna") -> LedgerSaid:
    return LedgerSaid(LedgerAnswer(Entry(TASK, epoch, status, winner, incarnation=incarnation), problem), 1.5)


def asked(effects: list[Any]) -> list[Any]:
    return [effect.request for effect in effects if isinstance(effect, AskLedger)]


@pytest.mark.parametrize("deadline_s", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("event", [Recovered(0.0), Tick(1e18), Heard("lead", cfp(), 0.0)])
def test_a_deadline_that_never_comes_is_an_end_at_once(deadline_s: float, event: Any) -> None:
    state, _ = step(Listening(Setting("anna", "lead", TASK, deadline_s, "i-1")), event)
    assert state == Ended("not-mine", (f"our deadline is {deadline_s}: no time",))


@pytest.mark.parametrize("cost", [math.nan, math.inf, -1.0, 2e9])
def test_what_is_no_cost_is_a_refusal_with_its_reason(cost: float) -> None:
    state, effects = step(Estimating(SETTING, CALL, 1.0), Estimated(cost, 0.5))
    assert state == Listening(SETTING)
    (tell,) = effects
    assert isinstance(tell, Tell)
    assert (tell.act.performative, tell.act.reason) == ("refuse", f"what it would cost came to {cost}: no cost")


def test_a_reason_that_is_too_long_is_cut() -> None:
    _, effects = step(Estimating(SETTING, CALL, 1.0), Estimated(None, 0.5, "x" * 9999))
    assert [len(effect.act.reason) for effect in effects if isinstance(effect, Tell)] == [2000]


def test_a_call_that_is_repeated_is_estimated_once_and_has_its_new_time() -> None:
    state, effects = step(Listening(SETTING), Heard("lead", cfp(), 0.0))
    assert Estimate(CALL) in effects
    state, effects = step(state, Heard("lead", cfp(), 0.8))
    assert not any(isinstance(effect, Estimate) for effect in effects)
    assert isinstance(state, Estimating)
    assert state.until_s == 1.8


def test_a_flood_of_calls_starts_no_more_than_so_many_estimates() -> None:
    state: Any = Listening(SETTING)
    estimates, refused = 0, 0
    for number in range(2 * MOST_ACTS):
        state, effects = step(state, Heard("lead", cfp(number), 0.0))
        estimates += sum(isinstance(effect, Estimate) for effect in effects)
        refused += sum(isinstance(effect, Refuse) and effect.cause == "too-many" for effect in effects)
    assert (estimates, refused) == (MOST_ACTS, MOST_ACTS)
    state, _ = step(state, Tick(5.0))
    assert step(state, Heard("lead", cfp(9999), 6.0))[1] == [
        Refuse("lead", "too-many", "more than 256 acts of 'lead' in 't-1'")
    ], "it stays counted in whatever state follows"


def test_a_stranger_is_not_answered() -> None:
    shout = cfp().model_copy(update={"performative": "shout"})
    after, effects = step(Listening(SETTING), Heard("mallory", shout, 0.0))
    assert after == Listening(SETTING)
    assert [type(effect) for effect in effects] == [Refuse]


# --- taking ----------------------------------------------------------------------------------------


def test_an_award_is_taken_under_our_own_incarnation_until_the_ledger_answers() -> None:
    state, effects = step(Bidding(SETTING, CALL, 2.0), Heard("lead", act("accept-proposal", TASK, award=AWARD), 1.0))
    assert asked(effects) == [TakeTask(TASK, 1, "i-1")]
    assert step(state, Tick(1.2)) == (state, []), "timers of what was before ask nothing"
    assert asked(step(state, Tick(1.5))[1]) == [TakeTask(TASK, 1, "i-1")]
    state, effects = step(state, said("taken"))
    assert isinstance(state, Performing)
    assert Perform(AWARD) in effects


def test_an_answer_from_before_the_award_does_not_lose_it() -> None:
    assert step(TAKING, said("open", epoch=0, problem="epoch 1 is over")) == (TAKING, [])
    doubtful = Performing(SETTING, AWARD, is_sure=False)
    for old in (said("open", epoch=0), said("awarded", incarnation="")):
        assert step(doubtful, old) == (doubtful, [])
    assert step(TAKING, said("open", epoch=2, problem="epoch 1 is over"))[0] == Listening(SETTING)


def test_of_two_copies_of_one_agent_one_performs() -> None:
    society = net({"anna": 1.0})
    original = society.parties["anna"]
    copy = Party("anna", Listening(Setting("anna", "lead", TASK, 20.0, "anna-2")), step, CLASSES, original.answers)
    for _ in range(100):
        if not society.network:
            break
        packet = society.network[0]
        society.deliver(0)
        if packet.to == "anna":
            event: Any = (
                Heard(packet.sender, packet.content, 0.0)
                if isinstance(packet.content, Act)
                else LedgerSaid(packet.content, 0.0)
            )
            society.feed(copy, event)
    performed = [[type(did) for did in party.done].count(Perform) for party in (original, copy)]
    assert sorted(performed) == [0, 1]


def test_one_that_is_restored_from_its_own_state_goes_on_as_itself() -> None:
    state, effects = step(Performing(SETTING, AWARD), Recovered(1.0))
    assert asked(effects) == [ReadTask(TASK)]
    state, effects = step(state, said("taken"))
    assert effects == [Perform(AWARD)]
    doubtful, _ = step(Performing(SETTING, AWARD), Recovered(1.0))
    assert step(doubtful, said("taken", incarnation="i-2"))[0] == Ended(
        "not-mine", ("the ledger says taken, and not by us",)
    )


# --- a cancel --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [Listening(SETTING), Estimating(SETTING, CALL, 1.0), Bidding(SETTING, CALL, 2.0), TAKING]
)
def test_a_cancel_ends_what_was_not_begun_and_an_answer_from_before_it_begins_nothing(state: Any) -> None:
    state, _ = step(state, Heard("lead", act("cancel", TASK, reason="not now"), 0.5))
    assert state == Ended("not-mine", ("not now",))
    assert step(state, said("taken")) == (state, [])


def test_work_that_is_cancelled_is_to_be_abandoned_and_reported_however_it_ended() -> None:
    state, effects = step(Performing(SETTING, AWARD), Heard("lead", act("cancel", TASK), 1.0))
    assert isinstance(state, Performing)
    assert effects == [Abandon("lead said cancel")]
    state, effects = step(state, Performed("failed", 1.1))
    assert asked(effects) == [CloseTask(TASK, 1, "anna", "failed")]
    state, _ = step(state, said("failed", problem="failed already"))
    assert isinstance(state, Ended)


def test_one_that_was_restarted_does_not_begin_again_what_was_cancelled() -> None:
    doubtful, _ = step(Performing(SETTING, AWARD), Recovered(1.0))
    state, _ = step(doubtful, Heard("lead", act("cancel", TASK, reason="not now"), 1.1))
    assert state == Ended("failed", ("not now",))
    assert step(state, said("taken")) == (state, [])


def test_only_the_initiator_cancels_and_work_that_has_ended_is_not_undone() -> None:
    performing = Performing(SETTING, AWARD)
    assert step(performing, Heard("mallory", act("cancel", TASK), 1.0))[0] == performing
    state, effects = step(REPORTING, Heard("lead", act("cancel", TASK), 1.0))
    assert isinstance(state, Reporting)
    assert [effect.cause for effect in effects if isinstance(effect, Refuse)] == ["out-of-turn"]


# --- reporting -------------------------------------------------------------------------------------


def test_the_end_of_the_work_is_told_until_the_ledger_has_it() -> None:
    state, effects = step(Performing(SETTING, AWARD), Performed("done", 1.5))
    assert asked(effects) == [CloseTask(TASK, 1, "anna", "done")]
    assert step(state, said("taken")) == (state, [])
    for event in (Tick(2.0), Recovered(1.6)):
        assert asked(step(state, event)[1]) == [CloseTask(TASK, 1, "anna", "done")]
    ended, effects = step(state, said("done"))
    assert ended == Ended("done", ("the work is done", "the ledger has it done"), 3.0)
    assert [effect.act.report.status for effect in effects if isinstance(effect, Tell)] == ["done"]


def test_whoever_comes_too_late_with_its_work_says_what_the_ledger_says() -> None:
    ended, effects = step(REPORTING, said("failed", problem="failed already"))
    assert ended == Ended("failed", ("the work is done", "the ledger has it failed"))
    assert [effect.act.performative for effect in effects if isinstance(effect, Tell)] == ["failure"]


def test_a_ledger_that_never_answers_keeps_nobody_beyond_its_deadline() -> None:
    ended, effects = step(REPORTING, Tick(20.0))
    assert ended == Ended("done", ("the work is done", "our deadline passed before the ledger had that"))
    assert asked(effects) == [CloseTask(TASK, 1, "anna", "done")]
    ended, effects = step(Performing(SETTING, AWARD), Tick(20.0))
    assert isinstance(ended, Ended)
    assert (ended.status, asked(effects)) == ("failed", [CloseTask(TASK, 1, "anna", "failed")])
