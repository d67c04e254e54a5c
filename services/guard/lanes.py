"""One runner per device: takes its commands in order from the gate to the proof.

The decisions are `protocol/gate.py` and `protocol/actuation.py`; here they get their clock, ledger and core-command.
Devices that share an interlock will share a lane; `lane_of` is the place where that is decided.

Source: design.md sections 3.5 to 3.8.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from edgeagents.adapters import telemetry
from edgeagents.errors import DeviceSilentError, EdgeAgentsError, InvalidInputError, StoreError
from edgeagents.model.message import Command
from edgeagents.model.values import Value, parse_value
from edgeagents.protocol import actuation, effects, gate
from edgeagents.runner import drive
from services.guard.jobs import Job, Means, end, finish
from services.guard.ledger import Entry

log = logging.getLogger(__name__)


MOST_UNDER_WAY: Final = 256  # commands of one agent
STOPPED: Final = "the guard was stopped while it was set"


class Lanes:
    """All lanes of a gateway, made when first needed."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        """Start with the devices that the ledger says are blocked."""
        self._means = means
        self._tasks = tasks
        self._lanes: dict[str, Lane] = {}
        self._running: list[asyncio.Task[None]] = []
        self._blocked = means.ledger.blocked()
        self._under_way: Counter[str] = Counter()

    async def put(self, item: Job | Entry) -> None:
        """Queue a command in its device's lane; one that cannot be queued ends here."""
        device, problem = item.command.device, ""
        if self._means.devices.device(device) is None:
            problem = f"core-metadata knows no device {device!r}"  # and no lane for every name somebody makes up
        elif self._under_way[item.agent] >= MOST_UNDER_WAY:
            problem = f"{MOST_UNDER_WAY} commands of agent {item.agent!r} are under way already"
        if not problem:
            self._under_way[item.agent] += 1
            self._lane_of(device).queue.put_nowait(item)
        elif isinstance(item, Job):
            await end(self._means, item, "refused", problem)
        else:
            await end(self._means, _recovered(item), "uncertain", f"{STOPPED}: {problem}")

    def _lane_of(self, device: str) -> "Lane":
        lane = self._lanes.get(device)
        if lane is None:
            reason = self._blocked.get(device)
            state = actuation.Blocked(reason) if reason else actuation.Idle()
            lane = self._lanes[device] = Lane(self._means, state, self._done)
            self._running.append(self._tasks.create_task(lane.run(), name=f"lane {device}"))
        return lane

    def _done(self, agent: str) -> None:
        self._under_way[agent] -= 1

    async def stop(self, grace_s: float) -> None:
        """Wait until all that is queued is done, for at most `grace_s`, then end all lanes where they are."""
        if not all(task.done() for task in self._running):
            joined = [asyncio.ensure_future(lane.queue.join()) for lane in self._lanes.values()]
            await asyncio.wait(joined, timeout=grace_s)
            for task in (*joined, *self._running):
                task.cancel()
            await asyncio.gather(*joined, *self._running, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many commands wait or are under way."""
        return self._under_way.total()

    @property
    def blocked(self) -> dict[str, str]:
        """Blocked devices and why."""
        return self._means.ledger.blocked()


class Lane:
    """One device's commands, one after the other."""

    def __init__(self, means: Means, state: actuation.State, done: Callable[[str], None]) -> None:
        """Begin in a state: `Idle`, or `Blocked` from before; `done` is told the agent of each item done with."""
        self._means = means
        self._state = state
        self._done = done
        self._newest: Counter[str] = Counter()  # per resource: the place in the stream of the last one begun
        self.queue: asyncio.Queue[Job | Entry] = asyncio.Queue()

    async def run(self) -> None:
        """Carry commands out for ever; without a ledger the guard ends, and finds out afterwards what it did."""
        while True:
            item = await self.queue.get()
            await (self._traced(item) if isinstance(item, Job) else self._recover(item))
            self._done(item.agent)
            self.queue.task_done()

    async def _traced(self, job: Job) -> None:
        about = {"edgex.device": job.command.device, "edgex.correlation_id": job.command.id, "agent": job.agent}
        with telemetry.span("command", about, kind="consumer", parent=job.trace):
            await self._handle(job)

    async def _handle(self, job: Job) -> None:
        means = self._means
        if means.clocks.now() > job.deadline_s:
            await end(means, job, "expired", "deadline passed while it waited for its turn")
            return
        if job.sequence < self._newest[job.command.resource]:
            # Redelivered late, or approved late: what came after it has been carried out.
            await end(means, job, "expired", "a later command for it was carried out before")
            return
        problem = self._ordered(job) or self._lease_problem(job)
        if problem:
            await end(means, job, "refused", problem)
            return
        began_ns = time.perf_counter_ns()
        with telemetry.span("gate") as span:
            verdict = self._judge(job)
            span.note({"verdict": type(verdict).__name__})
        means.gate_time.since(began_ns)
        match verdict:
            case gate.Refused(reasons):
                await end(means, job, "refused", "; ".join(reasons))
            case gate.NeedsApproval() if not job.approver:
                await self._park(job, verdict)
            case gate.Passed(rule, value, text) | gate.NeedsApproval(rule, value, text):
                work = actuation.Work(
                    job.command.model_copy(update={"value": text}),
                    value, rule.kind, rule.proof, job.deadline_s, job.sequence, job.approver,
                )  # fmt: skip
                self._newest[job.command.resource] = job.sequence
                await self._actuate(job, actuation.Begin(work))

    def _judge(self, job: Job) -> gate.Verdict:
        means = self._means
        proposal = gate.Proposal(job.agent, *job.key, job.command.value, job.data_site_s)
        return gate.judge(proposal, means.owner.rules(means.devices), means.picture.view, means.clocks.site())

    async def _park(self, job: Job, verdict: gate.NeedsApproval) -> None:
        means = self._means
        await means.on_disk(means.ledger.enter, job.agent, job.command.id, "waiting", means.clocks.wall_ns() / 1e9)
        problem = means.park(job, verdict)
        if problem:
            await end(means, job, "refused", problem)

    async def _actuate(self, job: Job, event: actuation.Event) -> None:
        async def carry_out(effect: effects.ActuationEffect) -> actuation.Event | None:
            return await self._carry_out(effect, job)

        self._state = await drive(self._state, event, actuation.step, carry_out)

    async def _recover(self, entry: Entry) -> None:
        """Find out by reading how a command ended whose intent was on disk when the guard stopped."""
        means, command, job = self._means, entry.command, _recovered(entry)
        device, profile = means.devices.device(command.device), means.devices.profile_of(command.device)
        resource = profile.resource(command.resource) if profile else None
        rule = means.owner.site.rule_for(device, command.resource) if device else None
        if resource is None or rule is None or rule.proof is None:
            await end(means, job, "uncertain", f"{STOPPED}, and nothing tells its effect")
            return
        try:
            wanted = parse_value(resource.properties.value_type, command.value)
        except InvalidInputError as error:
            await end(means, job, "uncertain", f"{STOPPED}: {error}")
            return
        # It may have gone out, so rates and minimum times count it, from now on.
        past = gate.PastSet(job.agent, wanted, means.clocks.site())
        means.picture.went_out(job.key, past)
        await means.on_disk(means.ledger.went_out, *job.key, job.agent, command.value, past.site_s)
        if not isinstance(self._state, actuation.Idle):
            await end(means, job, "uncertain", f"{STOPPED}, and the device is blocked")
            return
        work = actuation.Work(
            command, wanted, rule.kind, rule.proof, means.clocks.now(), entry.sequence, entry.approver
        )  # fmt: skip
        self._state = actuation.Proving(work, means.clocks.now() + rule.proof.wait)
        await self._actuate(job, actuation.Tick())

    def _problem(self, job: Job) -> str:
        """Return why a command may not go out now; looked at again right before it does."""
        problem = self._ordered(job) or self._lease_problem(job)
        if problem:
            return problem
        verdict = self._judge(job)
        return "; ".join(verdict.reasons) if isinstance(verdict, gate.Refused) else ""

    def _ordered(self, job: Job) -> str:
        return self._means.orders.problem(job.agent, job.command.device, job.sequence)

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
                now_s = means.clocks.wall_ns() / 1e9
                try:
                    await means.on_disk(means.ledger.enter, job.agent, job.command.id, "intent", now_s, job.approver)
                except StoreError as error:
                    return actuation.IntentLost(str(error))
                return actuation.IntentStored(means.clocks.now(), self._problem(job))
            case effects.Set(command, wanted):
                return await self._set(command, wanted, job)
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
                await finish(means, job, outcome)
        return None

    async def _set(self, command: Command, wanted: Value, job: Job) -> actuation.Event:
        means = self._means
        past = gate.PastSet(job.agent, wanted, means.clocks.site())
        # Before the first wait: whoever judges meanwhile, for another device, sees that it may be so.
        means.picture.went_out(job.key, past)
        event: actuation.Event
        try:
            with telemetry.span("set"):
                await means.command.set(
                    command.device, command.resource, {command.resource: command.value}, correlation_id=command.id
                )
            event = actuation.SetDone(means.clocks.now())
        except DeviceSilentError as error:
            event = actuation.SetSilent(str(error))
        except EdgeAgentsError as error:
            means.picture.took_back(job.key, past)
            return actuation.SetRefused(str(error))
        # Also when nobody answered: it may have taken effect, and rates must count it.
        means.desk.used(job.key)
        await means.on_disk(means.ledger.went_out, *job.key, job.agent, command.value, past.site_s)
        return event

    async def _read(self, device: str, resource: str) -> actuation.Event:
        means = self._means
        try:
            with telemetry.span("read back"):
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


def _recovered(entry: Entry) -> Job:
    return Job(entry.command, entry.agent, entry.sequence, 0.0, 0.0, entry.approver)
