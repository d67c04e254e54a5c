"""A command on its way through the guard, what the guard works with, and how a command ends.

Source: design.md sections 3.5 to 3.8.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from edgeagents.adapters import telemetry
from edgeagents.adapters.command_route import Commands
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.metrics import Timer
from edgeagents.audit import Audit
from edgeagents.model.message import MAX_REASON_CHARS, MAX_VALUE_CHARS, CauseKind, Command, Outcome, OutcomeStatus
from edgeagents.model.task import TASK_CAUSES
from edgeagents.protocol import gate, lease
from services.guard.desk import LeaseDesk
from services.guard.ledger import Ledger
from services.guard.orders import Orders
from services.guard.overrides import Overrides
from services.guard.owner import Owner
from services.guard.picture import LivePicture

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """A command on its way through a lane.

    Args:
        command: as it came.
        agent: its sender, by its subject.
        sequence: its place in the stream.
        deadline_s: on the monotonic clock, from receipt.
        data_site_s: site time of the oldest reading it rests on.
        approver: the human who let it pass; empty: nobody had to, or nobody has yet.
        consents: the agents whose consent let it pass.
        trace: headers of the trace it belongs to.
    """

    command: Command
    agent: str
    sequence: int
    deadline_s: float
    data_site_s: float
    approver: str = ""
    consents: tuple[str, ...] = ()
    trace: Mapping[str, str] = field(default_factory=dict)

    @property
    def session(self) -> lease.Session:
        """The session that sent it."""
        return lease.Session(self.agent, self.command.incarnation)

    @property
    def key(self) -> gate.Key:
        """The device resource it is for."""
        return self.command.device, self.command.resource

    @property
    def is_of_task(self) -> bool:
        """Whether a task caused it."""
        return self.command.cause.stream.startswith(TASK_CAUSES)

    @property
    def has_waited(self) -> bool:
        """Whether somebody took their time to let it pass."""
        return bool(self.approver or self.consents)


class Clocks(Protocol):
    """The three clocks of the guard: monotonic and site seconds, wall nanoseconds."""

    def now(self) -> float: ...
    def site(self) -> float: ...
    def wall_ns(self) -> int: ...


async def _no_ledger(job: Job) -> str:
    """Return why a task's command goes nowhere: nobody reads a ledger here."""
    return "no ledger of tasks is read here, so nobody knows whose it is" if job.is_of_task else ""


@dataclass(frozen=True, slots=True)
class Means:
    """All that lanes work with."""

    ledger: Ledger
    executor: Executor
    owner: Owner
    devices: DeviceCache
    picture: LivePicture
    desk: LeaseDesk
    command: Commands
    audit: Audit
    clocks: Clocks
    tell: Callable[[str, Outcome], None]
    all_told: Callable[[], Awaitable[None]]
    park: Callable[[Job, gate.NeedsApproval], str]
    orders: Orders
    overrides: Overrides
    gate_time: Timer = field(default_factory=Timer)
    task_problem: Callable[[Job], Awaitable[str]] = _no_ledger

    async def on_disk(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a ledger call in its thread and return what it returns once it is on disk."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, lambda: function(*arguments))


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a command may not go out: in a word for code, and in words for people."""

    cause: CauseKind
    text: str


async def end(means: Means, job: Job, status: OutcomeStatus, reason: str, cause: CauseKind = "") -> None:
    """Write down, and tell, how a command ended that was not carried out; `cause` is for code."""
    command = job.command
    outcome = Outcome(
        command_id=command.id, device=command.device, resource=command.resource, status=status, reason=reason,
        value=command.value, epoch=command.epoch, sequence=job.sequence, approver=job.approver,
        cause_kind=cause,
    )  # fmt: skip
    await finish(means, job, outcome)


async def finish(means: Means, job: Job, outcome: Outcome) -> None:
    """Write an outcome down, then tell its agent.

    Raises:
        StoreError: the ledger cannot be written; nothing is told then.
    """
    # Texts of devices and services may be long; an outcome has to fit into a message.
    bounds = {
        "reason": printable(outcome.reason[:MAX_REASON_CHARS]),
        "read_back": printable(outcome.read_back[:MAX_VALUE_CHARS]) if outcome.read_back is not None else None,
    }
    outcome = outcome.model_copy(update={**bounds, "finished_unix_ns": means.clocks.wall_ns()})
    await means.on_disk(means.ledger.finish, job.agent, outcome, means.clocks.wall_ns() / 1e9)
    trace = telemetry.carried() or job.trace  # some end before they get to their lane
    with telemetry.span("outcome", {"status": outcome.status}, kind="producer", parent=trace):
        means.tell(job.agent, outcome)
    means.audit.append(
        "command", agent=job.agent, because=job.command.because, decision=job.command.decision_id,
        cause=job.command.cause.model_dump(), **({"consents": list(job.consents)} if job.consents else {}),
        **outcome.model_dump(),
    )  # fmt: skip


def printable(text: str) -> str:
    """Return a text that can be written down: what devices answer may hold half a character."""
    return text.encode("utf-8", "replace").decode()


def approved(job: Job, approver: str, now_site_s: float) -> Job:
    """Return a parked job as it goes on after a human said yes: they looked at the site as it is now."""
    return replace(job, approver=approver, data_site_s=now_site_s)
