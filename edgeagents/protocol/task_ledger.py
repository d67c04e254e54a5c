"""Whose a task is: the ledger of the gateway that accepted it, the one place where an award takes effect.

    open -> awarded -> taken -> done | failed
      ^        | (its deadline passed, or the winner gave it back)
      +--------+

Every change is a compare-and-set on the epoch, which grows with each award. Taking a task is such a change, too, and
only the winner of the newest award can make it, before that award's deadline on the ledger's own clock: so there is
one winner at most, ever, whatever the network does to the acts on the way. What was taken never goes to another.
`agent` in a request is who sent it, proven by its subject.

Source: design.md section 5 ("An award is a compare-and-set in that ledger").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["open", "awarded", "taken", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one task stands; `until_s` is when its award ends, on the ledger's clock."""

    task: str
    epoch: int = 0
    status: Status = "open"
    winner: str = ""
    until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskLedger:
    """All tasks that a gateway accepted."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def of(self, task: str) -> Entry:
        """Return where a task stands; open for one never heard of."""
        return self.entries.get(task, Entry(task))


@dataclass(frozen=True, slots=True)
class AwardTask:
    """Name a winner: `epoch` is the one the caller has seen, the award's own will be one more."""

    task: str
    epoch: int
    winner: str
    until_s: float


@dataclass(frozen=True, slots=True)
class TakeTask:
    """The winner takes it: from now on it is nobody else's."""

    task: str
    epoch: int
    agent: str


@dataclass(frozen=True, slots=True)
class ReopenTask:
    """The winner gave it back, or the caller gives up waiting for it."""

    task: str
    epoch: int


@dataclass(frozen=True, slots=True)
class CloseTask:
    """It has ended; `agent` is whose word that is, empty for the gateway's own, which holds in any epoch."""

    task: str
    epoch: int
    agent: str
    status: Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Say where it stands."""

    task: str


LedgerRequest: TypeAlias = AwardTask | TakeTask | ReopenTask | CloseTask | ReadTask


@dataclass(frozen=True, slots=True)
class LedgerAnswer:
    """What became of a request: the entry as it is now, and why it was not changed; empty when it was."""

    entry: Entry
    problem: str = ""


def step(ledger: TaskLedger, request: LedgerRequest, now_s: float) -> tuple[TaskLedger, LedgerAnswer]:
    """Return the next ledger and the answer; a repeated request gets the answer it got before."""
    entry = ledger.of(request.task)
    changed = _changed(entry, request, now_s)
    if isinstance(changed, str):
        return ledger, LedgerAnswer(entry, changed)
    if changed == entry:
        return ledger, LedgerAnswer(entry)
    return replace(ledger, entries={**ledger.entries, entry.task: changed}), LedgerAnswer(changed)


def _changed(entry: Entry, request: LedgerRequest, now_s: float) -> Entry | str:
    """Return the entry after a request, or why there is none."""
    match request:
        case ReadTask():
            return entry
        case AwardTask():
            return _awarded(entry, request, now_s)
        case CloseTask(agent="", status=status):
            return _closed(entry, "", status)
        case _ if request.epoch != entry.epoch:
            return f"epoch {request.epoch} of task {entry.task!r} is over, now it is {entry.epoch}"
        case TakeTask(agent=agent):
            return _taken(entry, agent, now_s)
        case ReopenTask():
            if entry.status in ("open", "awarded"):
                return replace(entry, epoch=entry.epoch + 1, status="open", winner="", until_s=0.0)
            return f"task {entry.task!r} is {entry.status}: it never goes to another"
        case CloseTask(agent=agent, status=status):
            return _closed(entry, agent, status)


def _awarded(entry: Entry, request: AwardTask, now_s: float) -> Entry | str:
    is_same = entry.status == "awarded" and entry.winner == request.winner and entry.epoch == request.epoch + 1
    if is_same and entry.until_s == request.until_s:
        return entry
    if request.epoch != entry.epoch:
        return f"epoch {request.epoch} of task {entry.task!r} is over, now it is {entry.epoch}"
    if entry.status == "awarded" and now_s <= entry.until_s:
        return f"task {entry.task!r} is awarded to {entry.winner!r} until its deadline"
    if entry.status not in ("open", "awarded"):
        return f"task {entry.task!r} is {entry.status}: it never goes to another"
    if not request.until_s > now_s:
        return f"the deadline of the award of {entry.task!r} has passed already"
    return Entry(entry.task, entry.epoch + 1, "awarded", request.winner, request.until_s)


def _taken(entry: Entry, agent: str, now_s: float) -> Entry | str:
    if entry.winner != agent:
        return f"task {entry.task!r} was not awarded to {agent!r}"
    if entry.status == "taken":
        return entry
    if entry.status != "awarded":
        return f"task {entry.task!r} is {entry.status}"
    if now_s > entry.until_s:
        return f"the award of {entry.task!r} to {agent!r} ended {now_s - entry.until_s:.3f} s ago"
    return replace(entry, status="taken")


def _closed(entry: Entry, agent: str, status: Literal["done", "failed"]) -> Entry | str:
    if entry.status == status:
        return entry
    if entry.status in ("done", "failed"):
        return f"task {entry.task!r} is {entry.status} already"
    if agent and (entry.winner != agent or entry.status != "taken"):
        return f"task {entry.task!r} is not {agent!r}'s to end"
    return replace(entry, status=status)
