"""Whether a task's command may go out: what the ledger says, and nothing else."""

from dataclasses import replace

import pytest

from edgeagents.errors import MalformedMessageError
from edgeagents.model.cooperation import CallForProposals
from edgeagents.model.task import TaskRef
from edgeagents.protocol import contract_net, saved
from edgeagents.protocol.sealed_bids import Terms
from edgeagents.protocol.task_award import Standing, award_problem, standing_of

REF = TaskRef("warm", 77, 2)
TAKEN = Standing("warm", 2, "taken", "ada", "run-1", 77)


def test_the_award_that_stands_lets_its_winners_command_pass() -> None:
    assert award_problem(TAKEN, REF, "ada", "run-1") == ""


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (None, "knows no task 'warm'"),
        (replace(TAKEN, accepted_unix_ns=78), "another one of that name"),
        (replace(TAKEN, task="cool"), "another one of that name"),
        (replace(TAKEN, status="done"), "has ended: done"),
        (replace(TAKEN, status="failed"), "has ended: failed"),
        (replace(TAKEN, epoch=3), "award 2 of task 'warm' is over"),
        (replace(TAKEN, epoch=1), "award 2 of task 'warm' is over"),
        (replace(TAKEN, status="awarded"), "nobody has taken it"),
        (replace(TAKEN, status="open", winner=""), "nobody has taken it"),
        (replace(TAKEN, winner="bob"), "is 'bob''s, not 'ada''s"),
        (replace(TAKEN, incarnation="run-2"), "another run of 'ada'"),
    ],
)
def test_any_other_state_of_the_ledger_refuses_it_with_its_reason(standing: Standing | None, words: str) -> None:
    assert words in award_problem(standing, REF, "ada", "run-1")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff", b'{"state": []}', b'{"state": {"entry": 3, "accepted_unix_ns": 1}}',
        b'{"state": {"accepted_unix_ns": true, "entry": {"task": "t", "epoch": 1, "status": "open", "winner": "",'
        b' "incarnation": ""}}}',
        b'{"state": {"accepted_unix_ns": 1, "entry": {"task": "t", "epoch": "1", "status": "open", "winner": "",'
        b' "incarnation": ""}}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_bytes_that_are_no_record_are_said_to_be_none(data: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="not a task's record"):
        standing_of(data)


def test_a_state_of_another_kind_is_no_record() -> None:
    terms = Terms(CallForProposals(task="t", skill="set"), (), 1.0, 1.0, 2.0, 1e9)
    with pytest.raises(MalformedMessageError, match="not a task's record"):
        standing_of(saved.to_bytes(contract_net.Planned(terms)))
