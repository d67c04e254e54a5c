"""Whose a task is: the ledger of the gateway that accepted it, the one place where an award takes effect.

    open -> awarded -> taken -> done | failed
      ^        | (its deadline passed, or the winner gave it back)
      +--------+

Every change is a compare-and-set on the epoch, which grows with each award. Taking a task is such a change, too, and
only the winner of the newest award can make it, before that award's deadline on the ledger's own clock: so there is
one winner at most, ever, whatever the network does to the acts on the way. What was taken never goes to another, and
is ended by its winner's word, by the owner, or when the time that the task was accepted for is over.

All times are durations on the way here, and the ledger's own clock within: nobody else's clock counts. Who asks is
proven by the subject of the request. Leaves out on purpose: what a task is about.

Source: design.md section 5 ("An award is a compare-and-set in that ledger").
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from edgeagents.protocol.conversation import is_duration

Status: TypeAlias = Literal["open", "awarded", "taken", "done", "failed"]
ENDED: Final = ("done", "failed")
OWNER: Final = ""  # the gateway's own hand; no agent's subject has an empty name
MOST_TASKS: Final = 10_000
KEPT_S: Final = 86_400.0  # how long the end of a task is remembered: longer than any act about it may live


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one task stands.

    Args:
        task: its name.
        epoch: grows with each award, and when one is taken back.
        status: where it stands.
        winner: whose it is, or was.
        until_s: when its award ends, on the ledger's clock.
        incarnation: which copy of the winner has taken it.
        initiator: who may award it.
        over_s: when it has failed unless it has ended before; of one that has ended: when it did.
    """

    task: str
    epoch: int = 0
    status: Status = "open"
    winner: str = ""
    until_s: float = 0.0
    incarnation: str = ""
    initiator: str = ""
    over_s: float = math.inf


@dataclass(frozen=True, slots=True)
class TaskLedger:
    """All tasks that a gateway accepted."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def of(self, task: str) -> Entry:
        """Return where a task stands; open for one never heard of."""
        return self.entries.get(task, Entry(task))


@dataclass(frozen=True, slots=True)
class AcceptTask:
    """Take a task in: whoever asks leads it; `for_s` later it has failed, whatever became of all others."""

    task: str
    for_s: float


@dataclass(frozen=True, slots=True)
class AwardTask:
    """Name a winner: `epoch` is the one the caller has seen, the award's own will be one more; it lasts `for_s`."""

    task: str
    epoch: int
    winner: str
    for_s: float


@dataclass(frozen=True, slots=True)
class TakeTask:
    """The winner takes it: from now on it is nobody else's, nor another copy's of the same agent."""

    task: str
    epoch: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class ReopenTask:
    """The winner gave it back, or the caller gives up waiting for it."""

    task: str
    epoch: int


@dataclass(frozen=True, slots=True)
class CloseTask:
    """It has ended; `agent`: as its winner's word; empty: as its initiator's, which counts until somebody has it."""

    task: str
    epoch: int
    agent: str
    status: Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class CancelTask:
    """The owner ends it, whoever has it."""

    task: str


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Say where it stands."""

    task: str


LedgerRequest: TypeAlias = AcceptTask | AwardTask | TakeTask | ReopenTask | CloseTask | CancelTask | ReadTask


@dataclass(frozen=True, slots=True)
class LedgerAnswer:
    """What became of a request: the entry as it is now, and why it was not changed; empty when it was."""

    entry: Entry
    problem: str = ""


def step(ledger: TaskLedger, request: LedgerRequest, now_s: float, sender: str) -> tuple[TaskLedger, LedgerAnswer]:
    """Return the next ledger and the answer; a repeated request gets the answer it got before.

    Args:
        ledger: as it is.
        request: what is asked.
        now_s: the ledger's clock.
        sender: who asks, proven by its subject; `OWNER` for the gateway itself.
    """
    if isinstance(request, AcceptTask) and request.task not in ledger.entries:
        return _accepted(_pruned(ledger, now_s), request, now_s, sender)
    if request.task not in ledger.entries:
        return ledger, LedgerAnswer(Entry(request.task), f"task {request.task!r} was never accepted here")
    before = ledger.entries[request.task]
    entry = _aged(before, now_s)
    changed = _changed(entry, request, now_s, sender)
    after, problem = (entry, changed) if isinstance(changed, str) else (changed, "")
    if after.status in ENDED and before.status not in ENDED:
        after = replace(after, over_s=min(now_s, before.over_s))
    if after != before:
        ledger = replace(ledger, entries={**ledger.entries, after.task: after})
    return ledger, LedgerAnswer(after, problem)


def _pruned(ledger: TaskLedger, now_s: float) -> TaskLedger:
    """Return the ledger without what ended so long ago that nobody asks any more."""
    kept = {task: entry for task, entry in ledger.entries.items() if now_s <= entry.over_s + KEPT_S}
    return ledger if len(kept) == len(ledger.entries) else replace(ledger, entries=kept)


def _aged(entry: Entry, now_s: float) -> Entry:
    """Return an entry as time has made it: failed, once its time is over."""
    return replace(entry, status="failed") if entry.status not in ENDED and now_s > entry.over_s else entry


def _accepted(ledger: TaskLedger, request: AcceptTask, now_s: float, sender: str) -> tuple[TaskLedger, LedgerAnswer]:
    entry = Entry(request.task, initiator=sender, over_s=now_s + request.for_s if is_duration(request.for_s) else 0.0)
    if not is_duration(request.for_s):
        return ledger, LedgerAnswer(entry, f"{request.for_s} is no time for task {request.task!r}")
    if len(ledger.entries) >= MOST_TASKS:
        return ledger, LedgerAnswer(entry, f"{MOST_TASKS} tasks are known already: end some, or wait")
    return replace(ledger, entries={**ledger.entries, entry.task: entry}), LedgerAnswer(entry)


def _changed(entry: Entry, request: LedgerRequest, now_s: float, sender: str) -> Entry | str:
    """Return the entry after a request, or why there is none."""
    match request:
        case ReadTask():
            return entry
        case AcceptTask() | AwardTask() | ReopenTask() | CloseTask(agent="") if sender != entry.initiator:
            return f"task {entry.task!r} is led by {entry.initiator!r}, not by {sender!r}"
        case AcceptTask():
            return entry
        case CancelTask():
            return _ended(entry, "failed") if sender == OWNER else f"{sender!r} does not own this gateway"
        case AwardTask():
            return _awarded(entry, request, now_s)
        case _ if request.epoch != entry.epoch:
            return f"epoch {request.epoch} of task {entry.task!r} is over, now it is {entry.epoch}"
        case TakeTask(incarnation=incarnation):
            return _taken(entry, sender, incarnation, now_s)
        case ReopenTask():
            if entry.status in ("open", "awarded"):
                return replace(entry, epoch=entry.epoch + 1, status="open", winner="", until_s=0.0)
            return f"task {entry.task!r} is {entry.status}: it never goes to another"
        case CloseTask(agent=agent, status=status):
            return _closed(entry, agent, status, sender)


def _awarded(entry: Entry, request: AwardTask, now_s: float) -> Entry | str:
    if entry.status == "awarded" and entry.winner == request.winner and entry.epoch == request.epoch + 1:
        return entry  # repeated: it lasts as long as it did
    if request.epoch != entry.epoch:
        return f"epoch {request.epoch} of task {entry.task!r} is over, now it is {entry.epoch}"
    if entry.status == "awarded" and now_s <= entry.until_s:
        return f"task {entry.task!r} is awarded to {entry.winner!r} until its deadline"
    if entry.status not in ("open", "awarded"):
        return f"task {entry.task!r} is {entry.status}: it never goes to another"
    if not is_duration(request.for_s):
        return f"{request.for_s} is no time to take {entry.task!r} in"
    until_s = now_s + request.for_s
    return replace(entry, epoch=entry.epoch + 1, status="awarded", winner=request.winner, until_s=until_s)


def _taken(entry: Entry, agent: str, incarnation: str, now_s: float) -> Entry | str:
    if entry.winner != agent:
        return f"task {entry.task!r} was not awarded to {agent!r}"
    if entry.status == "taken" and entry.incarnation != incarnation:
        return f"task {entry.task!r} was taken by another copy of {agent!r}"
    if entry.status == "taken":
        return entry
    if entry.status != "awarded":
        return f"task {entry.task!r} is {entry.status}"
    if now_s > entry.until_s:
        return f"the award of {entry.task!r} to {agent!r} ended {now_s - entry.until_s:.3f} s ago"
    return replace(entry, status="taken", incarnation=incarnation)


def _closed(entry: Entry, agent: str, status: Literal["done", "failed"], sender: str) -> Entry | str:
    if agent and (agent != sender or entry.winner != agent or entry.status not in ("taken", *ENDED)):
        return f"task {entry.task!r} is not {sender!r}'s to end"
    if not agent and (entry.status == "taken" or status == "done"):
        return f"task {entry.task!r} is {entry.winner or 'nobody'}'s to end"
    return _ended(entry, status)


def _ended(entry: Entry, status: Literal["done", "failed"]) -> Entry | str:
    if entry.status != status and entry.status in ENDED:
        return f"task {entry.task!r} is {entry.status} already"
    return replace(entry, status=status)
