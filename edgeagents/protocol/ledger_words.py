"""The ledger of tasks as it is spoken to: requests and answers as messages, and back.

Source: proto/edgeagents/v1/cooperation.proto; `task_ledger.py`.
"""

from edgeagents.errors import InvalidInputError
from edgeagents.model.cooperation import LedgerAsk, LedgerTold
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol.task_ledger import (
    CloseTask,
    Entry,
    LedgerAnswer,
    LedgerRequest,
    ReadTask,
    Status,
    TakeTask,
)


def asked_of(request: LedgerRequest, reason: str) -> LedgerAsk:
    """Return what a participant asks as a message; `reason` says why its work ended so.

    Raises:
        InvalidInputError: no participant asks that.
    """
    match request:
        case TakeTask(task, epoch, incarnation):
            return LedgerAsk(verb="take", task=task, epoch=epoch, incarnation=incarnation)
        case CloseTask(task, epoch, _, status):
            return LedgerAsk(verb="close", task=task, epoch=epoch, status=status, reason=reason)
        case ReadTask(task):
            return LedgerAsk(verb="read", task=task)
        case _:
            raise InvalidInputError(f"{type(request).__name__} is nothing that a participant asks")


def request_of(asked: LedgerAsk, sender: str) -> LedgerRequest:
    """Return what an agent asks of the ledger, in the ledger's words.

    Raises:
        InvalidInputError: an agent cannot ask that.
    """
    match asked.verb, asked.status:
        case "read", _:
            return ReadTask(asked.task)
        case "take", _:
            return TakeTask(asked.task, asked.epoch, asked.incarnation)
        case "close", ("done" | "failed") as status:
            return CloseTask(asked.task, asked.epoch, sender, status)
        case _:
            raise InvalidInputError(f"{asked.verb} {asked.status}: read, take, or close as done or failed".strip())


def told_of(answer: LedgerAnswer) -> LedgerTold:
    """Return the ledger's answer as a message."""
    entry = answer.entry
    return LedgerTold(
        task=entry.task, epoch=entry.epoch, status=entry.status, winner=entry.winner,
        incarnation=entry.incarnation, problem=answer.problem[:MAX_REASON_CHARS],
    )  # fmt: skip


def answer_of(told: LedgerTold, initiator: str) -> LedgerAnswer:
    """Return what a message says of a task that `initiator` leads; a status nobody knows means that it is not ours."""
    entry = Entry(
        told.task, told.epoch, _status(told.status), told.winner, incarnation=told.incarnation, initiator=initiator
    )
    return LedgerAnswer(entry, told.problem)


def _status(text: str) -> Status:
    match text:
        case "open" | "awarded" | "taken" | "done" | "failed":
            return text
        case _:
            return "failed"
