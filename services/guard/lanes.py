"""One runner per device: takes its commands in order from the gate to the proof.

The decisions are `protocol/gate.py` and `protocol/actuation.py`; here they get their clock, ledger and core-command.
Devices that share an interlock will share a lane; `lane_of` is the place where that is decided.

Source: design.md sections 3.5 to 3.8.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex import CommandClient
from edgeagents.audit import Audit
from edgeagents.errors import DeviceSilentError, EdgeAgentsError, InvalidInputError, StoreError
from edgeagents.model.message import Command, Outcome, OutcomeStatus
from edgeagents.model.values import Value, format_value, parse_value
from edgeagents.protocol import actuation, effects, gate, lease
from edgeagents.runner import drive
from services.guard.desk import LeaseDesk
from services.guard.ledger import Entry, Ledger
from services.guard.owner import Owner
from services.guard.picture import LivePicture

log = logging.getLogger(__name__)
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
    """

    command: Command
    agent: str
    sequence: int
    deadline_s: float
    data_site_s: float
    approver: str = ""

    @property
    def session(self) -> lease.Session:
        """The session that sent it."""
        return lease.Session(self.agent, self.command.incarnation)

    @property
    def key(self) -> gate.Key:
        """The device resource it is for."""
        return self.command.device, self.command.resource


class Clocks(Protocol):
    """The three clocks of the guard: monotonic and site seconds, wall nanoseconds."""

    def now(self) -> float: ...
    def site(self) -> float: ...
    def wall_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Means:
    """All that lanes work with."""

    ledger: Ledger
    executor: ThreadPoolExecutor
    owner: Owner
    devices: DeviceCache
    picture: LivePicture
    desk: LeaseDesk
    command: CommandClient
    audit: Audit
    clocks: Clocks
    tell: Callable[[str, Outcome], None]
    park: Callable[[Job, gate.NeedsApproval], None]

    async def on_disk(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a ledger call in its thread and return what it returns once it is on disk."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, lambda: function(*arguments))


class Lanes:
    """All lanes of a gateway, made when first needed."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        """Start with the devices that the ledger says are blocked."""
        self._means = means
        self._tasks = tasks
        self._lanes: dict[str, Lane] = {}
        self._blocked = means.ledger.blocked()

    def put(self, job: Job) -> None:
        """Queue a command in its device's lane."""
        self.lane_of(job.command.device).queue.put_nowait(job)

    def lane_of(self, device: str) -> "Lane":
        """Return the lane that a device's commands run in."""
        lane = self._lanes.get(device)
        if lane is None:
            reason = self._blocked.get(device)
            lane = self._lanes[device] = Lane(self._means, actuation.Blocked(reason) if reason else actuation.Idle())
            self._tasks.create_task(lane.run(), name=f"lane {device}")
        return lane

    @property
    def waiting(self) -> int:
        """How many commands wait or are under way."""
        return sum(lane.queue.qsize() + lane.is_busy for lane in self._lanes.values())

    @property
    def blocked(self) -> dict[str, str]:
        """Blocked devices and why."""
        return self._means.ledger.blocked()


class Lane:
    """One device's commands, one after the other."""

    def __init__(self, means: Means, state: actuation.State) -> None:
        """Begin in a state: `Idle`, or `Blocked` from before."""
        self._means = means
        self._state = state
        self.queue: asyncio.Queue[Job | Entry] = asyncio.Queue()
        self.is_busy = False

    async def run(self) -> None:
        """Carry commands out for ever."""
        while True:
            item = await self.queue.get()
            self.is_busy = True
            try:
                await (self._handle(item) if isinstance(item, Job) else self._recover(item))
            except StoreError as error:
                # No disk, no actuation. The command keeps its place in the ledger and is reported after a restart.
                log.error("%s", error)
            except EdgeAgentsError as error:
                log.error("command for %s: %s", item.command.device, error)
                if isinstance(item, Job):
                    await self.end(item, "failed", str(error))
            self.is_busy = False

    async def _handle(self, job: Job) -> None:
        means = self._means
        if means.clocks.now() > job.deadline_s:
            await self.end(job, "expired", "deadline passed while it waited for its turn")
            return
        problem = self._lease_problem(job)
        if problem:
            await self.end(job, "refused", problem)
            return
        proposal = gate.Proposal(job.agent, *job.key, job.command.value, job.data_site_s)
        verdict = gate.judge(
            proposal, means.owner.rules(means.devices), means.picture.view(*job.key), means.clocks.site()
        )
        match verdict:
            case gate.Refused(reasons):
                await self.end(job, "refused", "; ".join(reasons))
            case gate.NeedsApproval() if not job.approver:
                await means.on_disk(
                    means.ledger.enter, job.agent, job.command.id, "waiting", means.clocks.wall_ns() / 1e9
                )
                means.park(job, verdict)
            case gate.Passed(rule, value) | gate.NeedsApproval(rule, value):
                text = format_value(self._kind(job.key), value)
                work = actuation.Work(
                    job.command.model_copy(update={"value": text}),
                    value, rule.kind, rule.proof, job.deadline_s, job.sequence, job.approver,
                )  # fmt: skip
                await self._actuate(job, actuation.Begin(work))

    async def _actuate(self, job: Job, event: actuation.Event) -> None:
        async def carry_out(effect: effects.ActuationEffect) -> actuation.Event | None:
            return await self._carry_out(effect, job)

        self._state = await drive(self._state, event, actuation.step, carry_out)

    async def _recover(self, entry: Entry) -> None:
        """Find out by reading how a command ended whose intent was on disk when the guard stopped."""
        means, command = self._means, entry.command
        job = Job(command, entry.agent, entry.sequence, means.clocks.now(), 0.0)
        device = means.devices.device(command.device)
        rule = means.owner.site.rule_for(device, command.resource) if device else None
        if device is None or rule is None or rule.proof is None:
            await self.end(job, "uncertain", "the guard was stopped while it was set, and nothing tells its effect")
            return
        try:
            wanted = self._parse(job.key, command.value)
        except InvalidInputError as error:
            await self.end(job, "uncertain", f"the guard was stopped while it was set: {error}")
            return
        work = actuation.Work(command, wanted, rule.kind, rule.proof, job.deadline_s, entry.sequence)
        if isinstance(self._state, actuation.Idle):
            self._state = actuation.Proving(work, means.clocks.now() + rule.proof.wait)
            await self._actuate(job, actuation.Tick())
        else:
            await self.end(job, "uncertain", "the guard was stopped while it was set, and the device is blocked")

    def _lease_problem(self, job: Job) -> str:
        table = self._means.desk.table
        if not job.approver:
            return table.problem(job.key, job.session, job.command.epoch, job.sequence)
        # A human took their time: the lease must be the same one still.
        held = table.current(job.key)
        return table.problem(job.key, job.session, job.command.epoch, held.epoch.revision + 1 if held else 0)

    async def _carry_out(self, effect: effects.ActuationEffect, job: Job) -> actuation.Event | None:
        means = self._means
        match effect:
            case effects.StoreIntent():
                try:
                    await means.on_disk(
                        means.ledger.enter, job.agent, job.command.id, "intent", means.clocks.wall_ns() / 1e9
                    )
                except StoreError as error:
                    return actuation.IntentLost(str(error))
                return actuation.IntentStored(means.clocks.now(), self._lease_problem(job))
            case effects.Set(command):
                return await self._set(command, job)
            case effects.Read(device, resource):
                return await self._read(device, resource)
            case effects.StartTimer(after_s):
                await asyncio.sleep(after_s)
                return actuation.Tick()
            case effects.Block(device, reason):
                log.error("device %s is blocked: %s", device, reason)
                await means.on_disk(means.ledger.block, device, reason)
                means.audit.append("blocked", device=device, reason=reason)
            case effects.Finish(outcome):
                await self._finish(job, outcome)
        return None

    async def _set(self, command: Command, job: Job) -> actuation.Event:
        means = self._means
        event: actuation.Event
        try:
            await means.command.set(
                command.device, command.resource, {command.resource: command.value}, correlation_id=command.id
            )
            event = actuation.SetDone(means.clocks.now())
        except DeviceSilentError as error:
            event = actuation.SetSilent(str(error))
        except EdgeAgentsError as error:
            return actuation.SetRefused(str(error))
        # Also when nobody answered: it may have taken effect, and rates must count it.
        site_s = means.clocks.site()
        value = self._parse(job.key, command.value)
        means.picture.went_out(job.key, gate.PastSet(job.agent, value, site_s))
        means.desk.used(job.key)
        await means.on_disk(means.ledger.went_out, *job.key, job.agent, command.value, site_s)
        return event

    async def _read(self, device: str, resource: str) -> actuation.Event:
        means = self._means
        try:
            event = await means.command.get(device, resource)
            reading = event.reading(resource) if event is not None else None
            if event is None or reading is None:
                return actuation.ReadFailed(f"the answer holds no {resource}", means.clocks.now())
            means.picture.see(event)
            value: Value = reading.decoded()
            text = reading.value if isinstance(reading.value, str) else str(value)
            return actuation.ReadDone(value, text, means.clocks.now())
        except EdgeAgentsError as error:
            return actuation.ReadFailed(str(error), means.clocks.now())

    def _parse(self, key: gate.Key, text: str) -> Value:
        return parse_value(self._kind(key), text)

    def _kind(self, key: gate.Key) -> str:
        profile = self._means.devices.profile_of(key[0])
        resource = profile.resource(key[1]) if profile else None
        if resource is None:
            raise InvalidInputError(f"core-metadata knows no {key[0]}/{key[1]} any more")
        return resource.properties.value_type

    async def end(self, job: Job, status: OutcomeStatus, reason: str) -> None:
        command = job.command
        outcome = Outcome(
            command_id=command.id, device=command.device, resource=command.resource, status=status, reason=reason,
            value=command.value, epoch=command.epoch, sequence=job.sequence, approver=job.approver,
        )  # fmt: skip
        await self._finish(job, outcome)

    async def end_unknown(self, entry: Entry) -> None:
        """End a command that had not gone out when the guard stopped: nobody knows how long ago that was."""
        job = Job(entry.command, entry.agent, entry.sequence, 0.0, 0.0)
        await self.end(job, "expired", "waited while the guard was restarted: age unknown")

    async def _finish(self, job: Job, outcome: Outcome) -> None:
        means = self._means
        outcome = outcome.model_copy(update={"finished_unix_ns": means.clocks.wall_ns()})
        await means.on_disk(means.ledger.finish, job.agent, outcome, means.clocks.wall_ns() / 1e9)
        means.tell(job.agent, outcome)
        means.audit.append(
            "command", agent=job.agent, because=job.command.because, decision=job.command.decision_id,
            cause=job.command.cause.model_dump(), **outcome.model_dump(),
        )  # fmt: skip


def approved(job: Job, approver: str, now_s: float, now_site_s: float) -> Job:
    """Return a parked job as it goes on after a human said yes: they looked at the site as it is now."""
    return replace(job, approver=approver, deadline_s=now_s + job.command.ttl_s, data_site_s=now_site_s)
