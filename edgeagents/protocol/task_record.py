"""One task as it is kept on disk: what was asked, where the ledger has it, where its contract net stands, and why.

The ledger's entry and the protocol's state lie in one record, so a crash never finds one without the other.

Source: style.md section 3 ("a state can be saved"); design.md section 4 (stream `tasks`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgeagents.errors import ConflictError, MalformedMessageError
from edgeagents.model.cooperation import CallForProposals
from edgeagents.model.task import ENDED_STATES, TaskState, TaskWanted
from edgeagents.protocol import contract_net, saved
from edgeagents.protocol.sealed_bids import Terms
from edgeagents.protocol.task_ledger import CloseTask, Entry

MOST_REASONS: Final = 64
MOST_AWARDS: Final = 16  # the newest are kept here, all are in the audit
MOST_REASON_CHARS: Final = 300  # of what agents say; what they do is kept whole


@dataclass(frozen=True, slots=True)
class AwardNote:
    """One award, for whoever asks why: all bids, the price, and who came second."""

    epoch: int
    winner: str
    price: float
    bids: Mapping[str, float]
    unix_ns: int


@dataclass(frozen=True, slots=True)
class Record:
    """One task.

    Args:
        task: its id.
        wanted: what was asked, as JSON: what a newer version adds is kept.
        giver: who gave it, by its subject; `http` for a web client.
        entry: where the ledger has it.
        net: where its contract net stands.
        accepted_unix_ns: when it was taken in, wall clock, for people.
        changed_unix_ns: when its state changed last, wall clock.
        changed_s: the same on the ledger's clock, which nobody sets: a restart goes on from the newest.
        awards: the newest, oldest first.
        ended: how, once it has.
        reason: why it ended so.
        asked: who was asked in this round without an award; none of them is until all others were.
        rounds: how often all that were there have been asked in vain.
        again_s: when the next round may begin, on the ledger's clock.
        earlier: what happened in rounds before.
    """

    task: str
    wanted: str
    giver: str
    entry: Entry
    net: contract_net.State
    accepted_unix_ns: int
    changed_unix_ns: int
    changed_s: float = 0.0
    awards: tuple[AwardNote, ...] = ()
    ended: str = ""
    reason: str = ""
    asked: frozenset[str] = frozenset()
    rounds: int = 0
    again_s: float = 0.0
    earlier: tuple[str, ...] = ()

    @property
    def net_terms(self) -> Terms:
        """On which terms it is called for.

        Raises:
            ConflictError: it is closed, so it is not called for.
        """
        match self.net:
            case contract_net.Planned(terms=terms) | contract_net.Calling(terms=terms):
                return terms
            case contract_net.Closed():
                raise ConflictError(f"task {self.task!r} is closed")
            case net:
                return net.bidding.terms

    @property
    def state(self) -> TaskState:
        """Where it stands, in one word."""
        return self.ended if self.ended in ENDED_STATES else self.entry.status  # type: ignore[return-value]


_CLASSES: Final = saved.by_name(
    [
        Record, AwardNote, Entry, Terms, CallForProposals, CloseTask, contract_net.Planned, contract_net.Calling,
        contract_net.Awarding, contract_net.Awarded, contract_net.Working, contract_net.Closed,
    ]
)  # fmt: skip


def to_bytes(record: Record) -> bytes:
    """Return a record as it is stored."""
    return saved.to_bytes(record)


def from_bytes(data: bytes) -> Record:
    """Return a stored record.

    Raises:
        MalformedMessageError: it is none, or of a newer version.
    """
    found = saved.from_bytes(data, _CLASSES, Record)
    if not isinstance(found, Record):
        raise MalformedMessageError("not a task's record")
    return found


def wanted_of(record: Record) -> TaskWanted:
    """Return what was asked."""
    return TaskWanted.model_validate_json(record.wanted)


def shown(record: Record) -> dict[str, Any]:
    """Return a record as clients see it: EdgeX's spelling, the newest reasons last."""
    wanted = {name: item for name, item in json.loads(record.wanted).items() if item not in (None, "", {})}
    return {
        "id": record.task,
        "state": record.state,
        "task": wanted | {"id": record.task},
        "giver": record.giver,
        "winner": record.entry.winner if record.state in ("awarded", "taken", *ENDED_STATES) else "",
        "epoch": record.entry.epoch,
        "reason": record.reason,
        "reasons": list(reasons_of(record)),
        "awards": [
            {"epoch": item.epoch, "winner": item.winner, "price": item.price, "bids": dict(item.bids)}
            for item in record.awards
        ],
        "acceptedUnixNs": record.accepted_unix_ns,
        "changedUnixNs": record.changed_unix_ns,
    }


def reasons_of(record: Record) -> tuple[str, ...]:
    """Return what happened so far, in words, oldest first."""
    net = record.net
    match net:
        case contract_net.Closed() | contract_net.Calling():
            found = net.reasons
        case contract_net.Planned():
            found = ()
        case _:
            found = net.bidding.reasons
    return (*record.earlier, *found)[-MOST_REASONS:]


def bounded(record: Record) -> Record:
    """Return a record whose reasons are few and short, whatever agents say and however often: it must fit a message."""
    match record.net:
        case contract_net.Planned():
            net: contract_net.State = record.net
        case contract_net.Closed() | contract_net.Calling() as held:
            net = replace(held, reasons=_few(held.reasons))
        case held:
            net = replace(held, bidding=replace(held.bidding, reasons=_few(held.bidding.reasons)))
    return replace(record, net=net, earlier=_few(record.earlier), awards=record.awards[-MOST_AWARDS:])


def _few(reasons: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:MOST_REASON_CHARS] for text in reasons[-MOST_REASONS:])
