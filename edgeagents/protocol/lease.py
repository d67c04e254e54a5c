"""Who may command which device resource: sessions, holders, epochs. Only the guard runs this.

A lease hangs on a session: an agent's name and the random incarnation of its process, heard within the last
`SESSION_S`. The epoch of a lease is (generation, revision); the revision is the stream sequence of the record
that granted it, so it stands in order with the device's commands and only grows: what stands before the record
finishes under the old epoch, what comes after needs the new one.

Between agents the priority class decides, with hysteresis: a higher class takes a lease at once, an equal or
lower one only after the holder was quiet for the owner's `priority_hold`.

Source: design.md sections 3.4 and 5; field notes on leases by compare-and-set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from edgeagents.model.agent import PRIORITIES, Priority
from edgeagents.model.message import Epoch, LeaseRecord, LeaseReply
from edgeagents.protocol.effects import LeaseEffect, Reply, StoreLease
from edgeagents.protocol.gate import Key

SESSION_S: Final = 2.0
HEARTBEAT_S: Final = 0.5
KEPT_RECORDS: Final = 32  # per resource; far more than can be changed while one command is under way
MOST_SESSIONS: Final = 8  # of one agent at a time: names of runs cost a sender nothing, and the guard memory


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one agent."""

    agent: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a resource since which record; `session` is None when nobody does."""

    session: Session | None
    epoch: Epoch
    priority: Priority = "economy"
    used_site_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseTable:
    """All leases of a gateway: per resource the changes of holder, oldest first, and when sessions were heard.

    `heard` holds seconds of the guard's monotonic clock.
    """

    generation: int
    heard: Mapping[Session, float] = field(default_factory=dict)
    leases: Mapping[Key, tuple[Lease, ...]] = field(default_factory=dict)

    def current(self, key: Key) -> Lease | None:
        """Return the newest lease of a resource, None when there never was one."""
        changes = self.leases.get(key, ())
        return changes[-1] if changes else None

    def at(self, key: Key, sequence: int) -> Lease | None:
        """Return the lease that holds for a command of this stream sequence, None when there was none yet."""
        return next((lease for lease in reversed(self.leases.get(key, ())) if lease.epoch.revision < sequence), None)

    def problem(self, key: Key, session: Session, epoch: Epoch, sequence: int | None) -> str:
        """Return why a command of this session, epoch and place in the stream is not covered; empty when it is.

        `sequence` None: it has waited, and the lease that holds now must be the same one still.
        """
        lease = self.current(key) if sequence is None else self.at(key, sequence)
        if lease is None or lease.session is None:
            return f"nobody holds the lease of {key[0]}/{key[1]}: ask for it first"
        if lease.session != session:
            return f"the lease of {key[0]}/{key[1]} is held by {lease.session.agent} since epoch {lease.epoch}"
        if lease.epoch != epoch:
            return f"epoch {epoch} is not the lease's epoch {lease.epoch}"
        return ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A session gave a sign of life."""

    session: Session
    now_s: float


@dataclass(frozen=True, slots=True)
class Overslept:
    """The guard itself did not run: what sessions said meanwhile waits to be heard, so nobody's silence counts."""

    now_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A session wants a lease; `priority` comes from the owner's agent file, never from the message."""

    session: Session
    key: Key
    priority: Priority
    now_s: float
    site_s: float
    hold_s: float  # site seconds


@dataclass(frozen=True, slots=True)
class Released:
    """A session gives a lease back."""

    session: Session
    key: Key


@dataclass(frozen=True, slots=True)
class Revoked:
    """The guard ends whatever lease there is: somebody changed the resource by hand."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class Shifted:
    """The clock behind site time was set by so many site seconds: what was recent stays as recent as it was."""

    by_s: float


@dataclass(frozen=True, slots=True)
class Used:
    """A command went out under a lease."""

    key: Key
    site_s: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record stands in the stream at `sequence`: from a `StoreLease`, or read back at start."""

    record: LeaseRecord
    sequence: int
    priority: Priority = "economy"
    site_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes; ends the leases of sessions not heard any more."""

    now_s: float


LeaseEvent: TypeAlias = Heard | Overslept | Asked | Released | Revoked | Shifted | Used | Recorded | Tick


def step(table: LeaseTable, event: LeaseEvent) -> tuple[LeaseTable, list[LeaseEffect]]:
    """Return the next table and what must be written or answered."""
    match event:
        case Heard(session, now_s):
            return _heard(table, session, now_s), []
        case Overslept(now_s):
            return replace(table, heard=dict.fromkeys(table.heard, now_s)), []
        case Asked():
            return _asked(table, event)
        case Released(session, key):
            lease = table.current(key)
            if lease is None or lease.session != session:
                return table, [Reply(LeaseReply(granted=False, reason="not yours to give back"))]
            return table, [StoreLease(_record(table, key, None, "released")), Reply(LeaseReply(granted=False))]
        case Revoked(key, reason):
            lease = table.current(key)
            if lease is None or lease.session is None:
                return table, []
            return table, [StoreLease(_record(table, key, None, reason))]
        case Shifted(by_s):
            return _shifted(table, by_s), []
        case Used(key, site_s):
            changes = table.leases.get(key, ())
            if not changes:
                return table, []
            last = replace(changes[-1], used_site_s=max(changes[-1].used_site_s, site_s))
            return replace(table, leases={**table.leases, key: (*changes[:-1], last)}), []
        case Recorded():
            return _recorded(table, event), []
        case Tick(now_s):
            return _expire(table, now_s)


def _heard(table: LeaseTable, session: Session, now_s: float) -> LeaseTable:
    """Return the table with a session's sign of life; without it when too many of its agent are alive already."""
    if session not in table.heard:
        others = sum(known.agent == session.agent and now_s - at <= SESSION_S for known, at in table.heard.items())
        if others >= MOST_SESSIONS:
            return table
    # Events may come in any order: a late one makes nobody look older.
    return replace(table, heard={**table.heard, session: max(now_s, table.heard.get(session, now_s))})


def _asked(table: LeaseTable, event: Asked) -> tuple[LeaseTable, list[LeaseEffect]]:
    table = _heard(table, event.session, event.now_s)
    if not is_alive(table, event.session, event.now_s):
        reason = f"{MOST_SESSIONS} copies of agent {event.session.agent!r} are alive: end some"
        return table, [Reply(LeaseReply(granted=False, reason=reason, retry_after_s=SESSION_S))]
    lease = table.current(event.key)
    if lease is not None and lease.session == event.session and lease.epoch.generation == table.generation:
        return table, [Reply(LeaseReply(granted=True, epoch=lease.epoch, holder=event.session.agent))]
    held = _held_against(table, lease, event)
    if held is not None:
        return table, [Reply(held)]
    reason = "free" if lease is None or lease.session is None else f"taken over from {lease.session.agent}"
    return table, [StoreLease(_record(table, event.key, event.session, reason))]


def _held_against(table: LeaseTable, lease: Lease | None, event: Asked) -> LeaseReply | None:
    """Return the refusal, None when the lease can be had."""
    if lease is None or lease.session is None or not is_alive(table, lease.session, event.now_s):
        return None
    if lease.session == event.session:
        return None  # its own, from before the generation grew
    holder = lease.session.agent
    if holder == event.session.agent:
        reason = f"another copy of agent {holder!r} is alive and holds it"
        return LeaseReply(granted=False, holder=holder, reason=reason, retry_after_s=SESSION_S)
    if PRIORITIES.index(event.priority) > PRIORITIES.index(lease.priority):
        return None
    quiet_s = event.site_s - lease.used_site_s
    if quiet_s > event.hold_s:
        return None
    reason = f"held by {holder} ({lease.priority}), quiet for {quiet_s:.0f} of {event.hold_s:.0f} s site time"
    return LeaseReply(granted=False, holder=holder, reason=reason, retry_after_s=SESSION_S)


def _shifted(table: LeaseTable, by_s: float) -> LeaseTable:
    leases = {
        key: (*changes[:-1], replace(changes[-1], used_site_s=changes[-1].used_site_s + by_s))
        for key, changes in table.leases.items()
    }
    return replace(table, leases=leases)


def told(table: LeaseTable, key: Key, now_s: float, site_s: float) -> LeaseReply:
    """Return who holds a lease now, and for how long that one has not used it; nothing is granted by that.

    Args:
        table: all leases.
        key: the device resource.
        now_s: monotonic seconds of the guard: whose session is over holds nothing any more.
        site_s: site seconds.
    """
    lease = table.current(key)
    if lease is None or lease.session is None or not is_alive(table, lease.session, now_s):
        return LeaseReply(granted=False)
    return LeaseReply(granted=False, holder=lease.session.agent, quiet_s=max(0.0, site_s - lease.used_site_s))


def is_start(record: LeaseRecord) -> bool:
    """Say whether a record tells that a guard began, or a backup was restored, and is no change of holder."""
    return not record.resource


def next_generation(records: int, ledger: int, *, is_lost: bool, is_stream_whole: bool, wall_ms: int) -> int:
    """Return the generation in force from now on: one that was never in force before, when state was lost.

    Args:
        records: the highest that the command stream's records tell, 0: none.
        ledger: what the guard's volume tells, 0: it is new.
        is_lost: either is not what it was.
        is_stream_whole: the stream still ends where the volume last saw it, or later.
        wall_ms: wall clock; only counts where nothing that is left can tell the highest one before.

    Source: docs/decisions/0008-generations-never-come-again.md.
    """
    highest = max(records, ledger)
    if not is_lost:
        return highest
    # Each generation begins with a record, so a whole stream tells the highest. Else a time that is over tells a
    # number that nobody used: milliseconds, as no guard starts twice within one.
    return highest + 1 if is_stream_whole and records > 0 else max(highest + 1, wall_ms)


def is_alive(table: LeaseTable, session: Session, now_s: float) -> bool:
    """Say whether a session was heard lately."""
    heard_s = table.heard.get(session)
    return heard_s is not None and now_s - heard_s <= SESSION_S


def _record(table: LeaseTable, key: Key, session: Session | None, reason: str) -> LeaseRecord:
    return LeaseRecord(
        device=key[0], resource=key[1], generation=table.generation, reason=reason,
        agent=session.agent if session else "", incarnation=session.incarnation if session else "",
    )  # fmt: skip


def _recorded(table: LeaseTable, event: Recorded) -> LeaseTable:
    record = event.record
    key = (record.device, record.resource)
    epoch = Epoch(generation=record.generation, revision=event.sequence)
    changes = table.leases.get(key, ())
    if changes and not changes[-1].epoch < epoch:
        return table  # read twice, or older than what is known: epochs only grow
    session = Session(record.agent, record.incarnation) if record.agent else None
    lease = Lease(session, epoch, event.priority, event.site_s)
    return replace(table, leases={**table.leases, key: (*changes, lease)[-KEPT_RECORDS:]})


def _expire(table: LeaseTable, now_s: float) -> tuple[LeaseTable, list[LeaseEffect]]:
    ended: list[LeaseEffect] = []
    for key, changes in table.leases.items():
        session = changes[-1].session
        if session is not None and not is_alive(table, session, now_s):
            ended.append(StoreLease(_record(table, key, None, f"session of {session.agent} ended")))
    alive = {session: heard_s for session, heard_s in table.heard.items() if now_s - heard_s <= SESSION_S}
    return (replace(table, heard=alive) if len(alive) != len(table.heard) else table), ended
