"""May a command that a task caused go out? Only for the award that stands in the ledger now, by who has taken it.

The ledger is the gateway's stream `tasks`; the guard reads one record of it and believes nothing that the command says
beyond which award it means. A task that ended, an award that was taken back, another agent's, another run's, another
task of the same name: each is refused. Pure; reads no more of a record than the ledger's entry.

Source: design.md section 5 ("An award is a compare-and-set in that ledger and the guard checks its epoch").
"""

import json
from dataclasses import dataclass
from typing import Any

from edgeagents.errors import MalformedMessageError
from edgeagents.model.task import TaskRef
from edgeagents.protocol.task_ledger import ENDED


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the ledger has a task: what of its record a fence needs."""

    task: str
    epoch: int
    status: str
    winner: str
    incarnation: str
    accepted_unix_ns: int


def standing_of(data: bytes) -> Standing:
    """Return where a stored record of a task has it.

    Raises:
        MalformedMessageError: it is no such record, or of a newer form.
    """
    try:
        state = json.loads(data)["state"]
        entry = state["entry"]
        return Standing(
            _text(entry["task"]), _number(entry["epoch"]), _text(entry["status"]), _text(entry["winner"]),
            _text(entry["incarnation"]), _number(state["accepted_unix_ns"]),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedMessageError(f"not a task's record: {type(error).__name__}: {error}") from error


def award_problem(standing: Standing | None, ref: TaskRef, agent: str, incarnation: str) -> str:
    """Return why a command may not go out for a task; empty when its award stands.

    Args:
        standing: where the ledger has the task; None: it knows none of that name.
        ref: the award that the command names.
        agent: who sent it, by its subject.
        incarnation: which run of it.
    """
    if standing is None:
        return f"the ledger knows no task {ref.task!r}: it was never taken in here, or ended long ago"
    if (standing.task, standing.accepted_unix_ns) != (ref.task, ref.accepted_unix_ns):
        return f"task {ref.task!r} of the ledger is another one of that name"
    if standing.status in ENDED:
        return f"task {ref.task!r} has ended: {standing.status}"
    if standing.epoch != ref.epoch:
        return f"award {ref.epoch} of task {ref.task!r} is over: the ledger is at {standing.epoch}"
    if standing.status != "taken":
        return f"task {ref.task!r} is {standing.status}: nobody has taken it"
    if standing.winner != agent:
        return f"task {ref.task!r} is {standing.winner!r}'s, not {agent!r}'s"
    if standing.incarnation != incarnation:
        return f"task {ref.task!r} was taken by another run of {agent!r}"
    return ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    return value
