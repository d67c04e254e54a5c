"""The ledger of tasks: compare-and-set, one winner at most, and nothing after its deadline."""

from dataclasses import replace

import pytest

from edgeagents.protocol.task_ledger import (
    AwardTask,
    CloseTask,
    Entry,
    LedgerAnswer,
    LedgerRequest,
    ReadTask,
    ReopenTask,
    TakeTask,
    TaskLedger,
    step,
)

AWARD = AwardTask("t", 0, "anna", 5.0)
AWARDED = Entry("t", 1, "awarded", "anna", 5.0)


def after(*requests: tuple[LedgerRequest, float]) -> tuple[TaskLedger, LedgerAnswer]:
    ledger, answer = TaskLedger(), LedgerAnswer(Entry(""))
    for request, now_s in requests:
        ledger, answer = step(ledger, request, now_s)
    return ledger, answer


def test_an_award_raises_the_epoch_and_the_same_again_changes_nothing() -> None:
    assert after((AWARD, 1.0))[1] == LedgerAnswer(AWARDED)
    assert after((AWARD, 1.0), (AWARD, 2.0))[1] == LedgerAnswer(AWARDED)


def test_only_the_winner_takes_it_by_its_deadline_and_as_often_as_it_asks() -> None:
    taken = replace(AWARDED, status="taken")
    assert after((AWARD, 1.0), (TakeTask("t", 1, "anna"), 5.0))[1] == LedgerAnswer(taken)
    assert after((AWARD, 1.0), (TakeTask("t", 1, "anna"), 5.0), (TakeTask("t", 1, "anna"), 99.0))[1].problem == ""
    assert "ended 0.001 s ago" in after((AWARD, 1.0), (TakeTask("t", 1, "anna"), 5.001))[1].problem
    assert "not awarded to 'bert'" in after((AWARD, 1.0), (TakeTask("t", 1, "bert"), 2.0))[1].problem
    assert "epoch 0 of task 't' is over" in after((AWARD, 1.0), (TakeTask("t", 0, "anna"), 2.0))[1].problem


@pytest.mark.parametrize(
    ("request_", "now_s", "problem"),
    [
        (AwardTask("t", 1, "bert", 9.0), 2.0, "is awarded to 'anna' until its deadline"),
        (AwardTask("t", 0, "bert", 9.0), 6.0, "epoch 0 of task 't' is over"),
        (AwardTask("t", 1, "bert", 6.0), 6.0, "has passed already"),
        (CloseTask("t", 1, "anna", "done"), 2.0, "not 'anna''s to end"),
        (CloseTask("t", 1, "bert", "failed"), 2.0, "not 'bert''s to end"),
    ],
)
def test_what_may_not_be_is_answered_with_its_reason(request_: LedgerRequest, now_s: float, problem: str) -> None:
    ledger, answer = after((AWARD, 1.0), (request_, now_s))
    assert problem in answer.problem
    assert answer.entry == AWARDED == ledger.of("t")


def test_what_was_taken_never_goes_to_another() -> None:
    before = ((AWARD, 1.0), (TakeTask("t", 1, "anna"), 2.0))
    for request in (ReopenTask("t", 1), AwardTask("t", 1, "bert", 99.0)):
        assert "never goes to another" in after(*before, (request, 50.0))[1].problem


def test_an_award_that_passed_by_is_reopened_or_given_anew_under_a_new_epoch() -> None:
    assert after((AWARD, 1.0), (ReopenTask("t", 1), 2.0))[1].entry == Entry("t", 2)
    assert after((AWARD, 1.0), (AwardTask("t", 1, "bert", 9.0), 5.5))[1].entry == Entry("t", 2, "awarded", "bert", 9.0)
    late = after((AWARD, 1.0), (AwardTask("t", 1, "bert", 9.0), 5.5), (TakeTask("t", 1, "anna"), 5.6))[1]
    assert late.problem


def test_an_end_is_an_end() -> None:
    done = ((AWARD, 1.0), (TakeTask("t", 1, "anna"), 2.0), (CloseTask("t", 1, "anna", "done"), 3.0))
    assert after(*done)[1].entry.status == "done"
    assert after(*done, (CloseTask("t", 1, "anna", "done"), 4.0))[1].problem == ""
    assert "done already" in after(*done, (CloseTask("t", 1, "", "failed"), 4.0))[1].problem
    assert after(*done, (ReadTask("t"), 9.0))[1].entry.status == "done"
    assert after((CloseTask("t", 7, "", "failed"), 1.0))[1].entry.status == "failed", "its own gateway ends any epoch"
