"""The ledger of tasks: compare-and-set, one winner at most, and nothing after its deadline."""

import math
from dataclasses import replace

import pytest

from edgeagents.protocol.saved import by_name, from_bytes, to_bytes
from edgeagents.protocol.task_ledger import (
    KEPT_S,
    MOST_TASKS,
    OWNER,
    AcceptTask,
    AwardTask,
    CancelTask,
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

AWARD = AwardTask("t", 0, "anna", 4.0)
TAKE = TakeTask("t", 1, "i-1")
OPEN = Entry("t", initiator="lead", over_s=1000.0)
AWARDED = replace(OPEN, epoch=1, status="awarded", winner="anna", until_s=5.0)
TAKEN = replace(AWARDED, status="taken", incarnation="i-1")
BOTH = (("lead", AWARD, 1.0), ("anna", TAKE, 2.0))
Asked = tuple[str, LedgerRequest, float]


def after(*requests: Asked) -> tuple[TaskLedger, LedgerAnswer]:
    """Return what becomes of a ledger that has accepted `t`."""
    ledger, answer = step(TaskLedger(), AcceptTask("t", 1000.0), 0.0, "lead")
    for sender, request, now_s in requests:
        ledger, answer = step(ledger, request, now_s, sender)
    return ledger, answer


def test_an_award_raises_the_epoch_and_the_same_again_changes_nothing() -> None:
    assert after(("lead", AWARD, 1.0))[1] == LedgerAnswer(AWARDED)
    assert after(("lead", AWARD, 1.0), ("lead", AWARD, 2.0))[1] == LedgerAnswer(AWARDED)


def test_an_award_lasts_as_long_as_it_says_on_the_ledgers_clock_alone() -> None:
    """Whoever asks may have any clock: what it says is a duration."""
    ledger, answer = after(("lead", AWARD, 900.0))
    assert answer.entry.until_s == 904.0
    assert "ended 0.001 s ago" in step(ledger, TAKE, 904.001, "anna")[1].problem
    for for_s in (math.nan, math.inf, 0.0, -1.0, 86_401.0):
        assert "no time to take" in after(("lead", replace(AWARD, for_s=for_s), 1.0))[1].problem


def test_only_the_winner_takes_it_by_its_deadline_and_as_often_as_it_asks() -> None:
    award = ("lead", AWARD, 1.0)
    assert after(award, ("anna", TAKE, 5.0))[1] == LedgerAnswer(TAKEN)
    assert after(award, ("anna", TAKE, 5.0), ("anna", TAKE, 99.0))[1] == LedgerAnswer(TAKEN)
    assert "ended 0.001 s ago" in after(award, ("anna", TAKE, 5.001))[1].problem
    assert "not awarded to 'bert'" in after(award, ("bert", TAKE, 2.0))[1].problem
    assert "epoch 0 of task 't' is over" in after(award, ("anna", TakeTask("t", 0, "i-1"), 2.0))[1].problem


def test_another_copy_of_the_winner_does_not_have_what_the_first_has_taken() -> None:
    answer = after(*BOTH, ("anna", TakeTask("t", 1, "i-2"), 2.5))[1]
    assert answer == LedgerAnswer(TAKEN, "task 't' was taken by another copy of 'anna'")


@pytest.mark.parametrize(
    ("sender", "request_", "now_s", "problem"),
    [
        ("lead", AwardTask("t", 1, "bert", 9.0), 2.0, "is awarded to 'anna' until its deadline"),
        ("lead", AwardTask("t", 0, "bert", 9.0), 6.0, "epoch 0 of task 't' is over"),
        ("mallory", AwardTask("t", 1, "mallory", 9.0), 6.0, "is led by 'lead', not by 'mallory'"),
        ("anna", ReopenTask("t", 1), 6.0, "is led by 'lead', not by 'anna'"),
        ("bert", CloseTask("t", 1, "", "failed"), 2.0, "is led by 'lead', not by 'bert'"),
        ("lead", CloseTask("t", 0, "", "failed"), 2.0, "epoch 0 of task 't' is over"),
        ("lead", CloseTask("t", 1, "", "done"), 2.0, "is anna's to end"),
        ("anna", CloseTask("t", 1, "anna", "done"), 2.0, "not 'anna''s to end"),
        ("bert", CloseTask("t", 1, "bert", "failed"), 2.0, "not 'bert''s to end"),
        ("lead", CancelTask("t"), 2.0, "'lead' does not own this gateway"),
        ("mallory", AcceptTask("t", 9.0), 2.0, "is led by 'lead', not by 'mallory'"),
    ],
)
def test_what_may_not_be_is_answered_with_its_reason(
    sender: str, request_: LedgerRequest, now_s: float, problem: str
) -> None:
    ledger, answer = after(("lead", AWARD, 1.0), (sender, request_, now_s))
    assert problem in answer.problem
    assert answer.entry == AWARDED == ledger.of("t")


def test_what_was_taken_never_goes_to_another() -> None:
    for request in (ReopenTask("t", 1), AwardTask("t", 1, "bert", 99.0)):
        assert "never goes to another" in after(*BOTH, ("lead", request, 50.0))[1].problem


def test_an_award_that_passed_by_is_reopened_or_given_anew_under_a_new_epoch() -> None:
    award, again = ("lead", AWARD, 1.0), ("lead", AwardTask("t", 1, "bert", 4.0), 5.5)
    assert after(award, ("lead", ReopenTask("t", 1), 2.0))[1].entry == replace(OPEN, epoch=2)
    assert after(award, again)[1].entry == replace(AWARDED, epoch=2, winner="bert", until_s=9.5)
    assert after(award, again, ("anna", TAKE, 5.6))[1].problem


def test_an_end_is_an_end() -> None:
    done = (*BOTH, ("anna", CloseTask("t", 1, "anna", "done"), 3.0))
    assert after(*done)[1].entry == replace(TAKEN, status="done", over_s=3.0)
    assert after(*done, ("anna", CloseTask("t", 1, "anna", "done"), 4.0))[1].problem == ""
    assert "done already" in after(*done, ("lead", CloseTask("t", 1, "", "failed"), 4.0))[1].problem
    assert "done already" in after(*done, (OWNER, CancelTask("t"), 4.0))[1].problem
    assert after(*done, ("anna", ReadTask("t"), 9.0))[1].entry.status == "done"


def test_an_initiator_ends_what_nobody_has_and_never_what_somebody_is_doing() -> None:
    assert after(("lead", CloseTask("t", 0, "", "failed"), 1.0))[1].entry.status == "failed"
    assert after(("lead", AWARD, 1.0), ("lead", CloseTask("t", 1, "", "failed"), 2.0))[1].entry.status == "failed"
    for epoch in (0, 1):  # one that is stale, and one that is not
        ledger, answer = after(*BOTH, ("lead", CloseTask("t", epoch, "", "failed"), 3.0))
        assert answer.problem
        assert step(ledger, CloseTask("t", 1, "anna", "done"), 4.0, "anna")[1].problem == ""


def test_the_owner_ends_a_task_whoever_has_it() -> None:
    assert after(*BOTH, (OWNER, CancelTask("t"), 3.0))[1].entry == replace(TAKEN, status="failed", over_s=3.0)


def test_what_was_taken_and_never_ended_has_failed_when_its_time_is_over() -> None:
    assert after(*BOTH, ("lead", ReadTask("t"), 1000.0))[1].entry.status == "taken"
    ledger, answer = after(*BOTH, ("lead", ReadTask("t"), 1000.1))
    assert answer == LedgerAnswer(replace(TAKEN, status="failed")) == LedgerAnswer(ledger.of("t"))
    assert "failed already" in after(*BOTH, ("anna", CloseTask("t", 1, "anna", "done"), 1000.1))[1].problem


@pytest.mark.parametrize(
    "request_", [AWARD, TAKE, ReopenTask("t", 0), CloseTask("t", 0, "", "failed"), CancelTask("t"), ReadTask("t")]
)
def test_a_task_that_was_never_accepted_is_nobodys(request_: LedgerRequest) -> None:
    assert step(TaskLedger(), request_, 1.0, "lead") == (
        TaskLedger(),
        LedgerAnswer(Entry("t"), "task 't' was never accepted here"),
    )


def test_a_task_is_accepted_once_for_a_time_that_is_one() -> None:
    assert after(("lead", AWARD, 1.0), ("lead", AcceptTask("t", 5.0), 2.0))[1] == LedgerAnswer(AWARDED)
    for for_s in (math.nan, math.inf, 0.0, -1.0, 1e18):
        ledger, answer = step(TaskLedger(), AcceptTask("t", for_s), 0.0, "lead")
        assert (ledger, "is no time for task 't'" in answer.problem) == (TaskLedger(), True)


def test_what_ended_long_ago_is_forgotten_and_what_is_going_on_is_not() -> None:
    ledger, _ = after(*BOTH, ("anna", CloseTask("t", 1, "anna", "done"), 3.0))
    ledger, _ = step(ledger, AcceptTask("late", 86_400.0), 4.0, "lead")
    assert set(step(ledger, AcceptTask("new", 9.0), 3.0 + KEPT_S, "lead")[0].entries) == {"t", "late", "new"}
    assert set(step(ledger, AcceptTask("new", 9.0), 3.1 + KEPT_S, "lead")[0].entries) == {"late", "new"}


def test_no_more_tasks_are_accepted_than_it_can_hold() -> None:
    full = TaskLedger({str(number): replace(OPEN, task=str(number)) for number in range(MOST_TASKS)})
    ledger, answer = step(full, AcceptTask("t", 9.0), 1.0, "lead")
    assert (ledger, answer.problem) == (full, "10000 tasks are known already: end some, or wait")


def test_a_ledger_survives_being_written_down() -> None:
    ledger, _ = after(*BOTH)
    assert from_bytes(to_bytes(ledger), by_name([TaskLedger, Entry])) == ledger
