"""What a lane does with a command: gate, intent, SET, proof, and what is found out after a crash.

The decisions are `protocol/gate.py` and `protocol/actuation.py`; here they get their clock, ledger and core-command.

Source: design.md sections 3.5 to 3.8.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgeagents.adapters import telemetry
from edgeagents.errors import (
    DeviceSilentError,
    EdgeAgentsError,
    InvalidInputError,
    StoreError,
    UpstreamError,
    WithdrawnError,
)
from edgeagents.model.message import CauseKind, Command, Outcome, OutcomeStatus
from edgeagents.model.values import Value, parse_value
from edgeagents.protocol import actuation, effects, gate, led_commands
from edgeagents.protocol.consent import holds
from edgeagents.runner import drive
from services.guard.jobs import Job, Means, Objection, end, finish, printable
from services.guard.ledger import Entry, Intent
from services.guard.surprises import Surprises, read_back, text_of

log = logging.getLogger(__name__)

STOPPED: Final = "the guard was stopped while it was set"
_SET_AGAIN: Final = uuid.UUID("5a0c6a3e-2d1f-4b53-9d9b-0d8f6a8f7d52")
# So long counts what the ledger of tasks said; an answer that took nearly as long is asked for once more.
AWARD_S: Final = 3.0
MOST_AWARD_LOOKS: Final = 2
Done = Callable[[str], None]


@dataclass(slots=True)
class _UnderWay:
    """The command a device is busy with, and what came of its SET so far."""

    job: Job
    wanted: Value
    was_sent: bool = False
    may_come: int = 0  # SETs of it without a definite answer: each may still take effect
    past: gate.PastSet | None = None  # its own SET, as rates and minimum times count it
    before: Value = None  # what its proof showed when it was begun
    shown: Value = None  # what was read last
    is_told: bool = False
    award_s: float = 0.0  # when the ledger of tasks was read, monotonic


class Actuator:
    """Carries commands out on the devices of one lane, one at a time; each device has a state of its own."""

    def __init__(self, means: Means, wake: Callable[[str, float], None], done: Done) -> None:
        """Begin with idle devices.

        Args:
            means: all it works with.
            wake: come back to a device in quarantine after so many seconds.
            done: told the agent of each command done with.
        """
        self._means = means
        self._wake = wake
        self._done = done
        self._states: dict[str, actuation.State] = {}
        self._under_way: dict[str, _UnderWay] = {}
        self._newest: Counter[gate.Key] = Counter()  # the place in the stream of the last one begun
        self.surprises = Surprises(means)

    def is_quarantined(self, device: str) -> bool:
        """Say whether nobody knows what a SET did, or will do, to a device."""
        return isinstance(self._states.get(device), actuation.Quarantined)

    # --- a command ---------------------------------------------------------------------------------

    async def handle(self, job: Job) -> None:
        """Take a command from the gate to its outcome, or into quarantine."""
        means = self._means
        if means.overrides.is_doubted(job.key) and await self.surprises.check(job.key):
            text = f"{job.key[0]}/{job.key[1]} is being changed by somebody just now"
            await self.end(job, "refused", text, "override")
            return
        if means.clocks.now() > job.deadline_s:
            await self.end(job, "expired", "deadline passed while it waited for its turn", "late")
            return
        if job.sequence < self._newest[job.key]:
            # Redelivered late, or approved late: what came after it has been carried out.
            await self.end(job, "expired", "a later command for it was carried out before", "late")
            return
        objection = self._order_problem(job) or self._lease_problem(job)
        if objection is not None:
            await self.end(job, "refused", objection.text, objection.cause)
            return
        began_ns = time.perf_counter_ns()
        with telemetry.span("gate") as span:
            verdict = self._judge(job)
            span.note({"verdict": type(verdict).__name__})
        means.gate_time.since(began_ns)
        match verdict:
            case gate.Refused(reasons, cause):
                await self.end(job, "refused", "; ".join(reasons), cause)
            case gate.NeedsApproval() if not self._is_let_pass(job, verdict):
                await self._park(job, verdict)
            case gate.Passed(rule, value, text) | gate.NeedsApproval(rule, value, text):
                proof_key = (job.command.device, rule.proof.resource) if rule.proof else job.key
                before = means.picture.view.readings.get(proof_key)
                work = actuation.Work(
                    job.command.model_copy(update={"value": text}),
                    value, rule.kind, rule.proof, job.deadline_s, job.sequence, job.approver,
                    before.value if before is not None else None, rule.quarantine,
                )  # fmt: skip
                self._newest[job.key] = job.sequence
                await self._begin(_UnderWay(job, value, before=work.before), actuation.Begin(work))

    async def end(self, job: Job, status: OutcomeStatus, reason: str, cause: CauseKind) -> None:
        """End a command that is not carried out."""
        await end(self._means, job, status, reason, cause)
        self._done(job.agent)

    def _judge(self, job: Job) -> gate.Verdict:
        means = self._means
        proposal = gate.Proposal(job.agent, *job.key, job.command.value, job.data_site_s)
        rules = means.owner.rules(means.devices)
        verdict = gate.judge(proposal, rules, means.picture.view, means.clocks.site())
        return led_commands.judged(job.command.cause, verdict, rules.agents)

    def _is_let_pass(self, job: Job, verdict: gate.NeedsApproval) -> bool:
        """Say whether a person did, or enough of the agents that it concerns by the owner's files as they are now."""
        means = self._means
        rules = means.owner.rules(means.devices)
        return bool(job.approver) or holds(job.consents, verdict.rule, rules, job.key, job.agent)

    async def _park(self, job: Job, verdict: gate.NeedsApproval) -> None:
        means = self._means
        problem = await means.task_problem(job)  # nobody is to be asked for what is nobody's
        if problem:
            await self.end(job, "refused", problem, "task")
            return
        await means.on_disk(means.ledger.enter, job.agent, job.command.id, "waiting", means.clocks.wall_ns() / 1e9)
        problem = means.park(job, verdict)
        if problem:
            paused = means.orders.problem(job.agent, job.command.device, job.sequence)
            await end(means, job, "refused", problem, "order" if paused else "room")
        self._done(job.agent)

    def _problem(self, job: Job) -> Objection | None:
        """Return why a command may not go out now; looked at again right before it does."""
        problem = self._order_problem(job) or self._lease_problem(job)
        if problem is not None:
            return problem
        verdict = self._judge(job)
        return Objection(verdict.cause, "; ".join(verdict.reasons)) if isinstance(verdict, gate.Refused) else None

    def _order_problem(self, job: Job) -> Objection | None:
        """Return what the owner said or did that keeps agents away from a resource."""
        device = job.command.device
        ordered = self._means.orders.problem(job.agent, device, job.sequence)
        if ordered:
            return Objection("order", ordered)
        leader = led_commands.leader_of(job.command.cause)
        ordered = self._means.orders.problem(leader, device, job.sequence) if leader else ""
        if ordered:  # who is paused has nobody act for it either
            return Objection("order", f"{leader}, who led it, is {ordered}")
        return _objection("override", self._means.overrides.problem(job.key))

    def _lease_problem(self, job: Job) -> Objection | None:
        table = self._means.desk.table
        at = None if job.has_waited else job.sequence
        return _objection("lease", table.problem(job.key, job.session, job.command.epoch, at))

    # --- after a crash -----------------------------------------------------------------------------

    async def recover(self, entry: Entry) -> None:
        """Find out by reading how a command ended whose intent was on disk when the guard stopped."""
        means, command, job = self._means, entry.command, recovered(entry)
        profile = means.devices.profile_of(command.device)
        resource = profile.resource(command.resource) if profile else None
        rule = means.overrides.rule_of(job.key)
        problem = f"{STOPPED}, and nothing tells its effect" if resource is None or rule is None else ""
        wanted: Value = None
        try:
            wanted = parse_value(resource.properties.value_type, command.value) if resource is not None else None
        except InvalidInputError as error:
            problem = f"{STOPPED}: {error}"
        if problem or rule is None:
            await means.on_disk(means.ledger.release, command.device)
            if entry.outcome is None:
                await end(means, job, "uncertain", problem)
            self._done(job.agent)
            return
        if entry.outcome is None:
            # It may have gone out, so rates and minimum times count it, from now on.
            past = gate.PastSet(job.agent, wanted, means.clocks.site())
            means.picture.went_out(job.key, past)
            await means.on_disk(means.ledger.went_out, *job.key, job.agent, command.value, past.site_s)
        else:
            past = None
        wait_s = rule.quarantine if entry.blocked or rule.proof is None else rule.proof.wait
        work = actuation.Work(
            command, wanted, rule.kind, rule.proof, entry.intent.deadline_s, entry.sequence, entry.approver,
            self._before(job, entry), rule.quarantine,
        )  # fmt: skip
        event = actuation.Recovered(work, STOPPED, means.clocks.now() + wait_s, is_told=entry.outcome is not None)
        self._newest[job.key] = max(self._newest[job.key], entry.sequence)
        under_way = _UnderWay(job, wanted, was_sent=True, may_come=1, past=past, before=work.before)
        await self._begin(under_way, event)
        if entry.outcome is not None:
            self._done(job.agent)

    def _before(self, job: Job, entry: Entry) -> Value:
        rule, profile = self._means.overrides.rule_of(job.key), self._means.devices.profile_of(job.command.device)
        proof = rule.proof if rule is not None else None
        resource = profile.resource(proof.resource) if profile is not None and proof is not None else None
        if resource is None or entry.intent.before is None:
            return None
        try:
            return parse_value(resource.properties.value_type, entry.intent.before)
        except InvalidInputError:
            return None

    # --- carrying out ------------------------------------------------------------------------------

    async def _begin(self, under_way: _UnderWay, event: actuation.Event) -> None:
        device = under_way.job.command.device
        self._under_way[device] = under_way
        self._means.overrides.sending(under_way.job.key)
        await self._drive(device, event)

    async def wake(self, device: str) -> None:
        """Look at a device in quarantine again."""
        if self.is_quarantined(device):
            await self._drive(device, actuation.Tick(self._means.clocks.now()))

    async def _drive(self, device: str, event: actuation.Event) -> None:
        async def carry_out(effect: effects.ActuationEffect) -> actuation.Event | None:
            return await self._carry_out(effect, self._under_way[device])

        state = self._states.get(device, actuation.Idle())
        self._states[device] = await drive(state, event, actuation.step, carry_out)
        if isinstance(self._states[device], actuation.Idle):
            del self._states[device]
            ended = self._under_way.pop(device)
            if not ended.is_told:
                self._means.overrides.void(ended.job.key)  # it was told before the guard was started again
            late = self._means.overrides.late_values().get(ended.job.key, [])
            self._means.picture.doubt(ended.job.key, late)

    async def _carry_out(self, effect: effects.ActuationEffect, under_way: _UnderWay) -> actuation.Event | None:
        means, job = self._means, under_way.job
        match effect:
            case effects.StoreIntent():
                return await self._store_intent(under_way)
            case effects.Set(command, wanted):
                return await self._set(command, wanted, under_way)
            case effects.Read(device, resource):
                event = await read_back(means, device, resource)
                under_way.shown = event.value if isinstance(event, actuation.ReadDone) else under_way.shown
                return event
            case effects.StartTimer(after_s):
                await asyncio.sleep(after_s)
                return actuation.Tick(means.clocks.now())
            case effects.WakeLater(after_s):
                self._wake(job.command.device, after_s)
            case effects.Block(device, reason):
                reason = printable(reason)
                log.error("device %s is in quarantine: %s", device, reason)
                late = means.overrides.late_values().get(job.key, [])
                means.picture.doubt(job.key, [*late, under_way.wanted])
                await means.on_disk(means.ledger.block, device, reason, job.agent, job.command.id)
                means.audit.append("quarantine", device=device, reason=reason, command=job.command.id)
            case effects.Release(device):
                await self._release(device, under_way)
            case effects.Finish(outcome, settles):
                under_way.may_come -= settles
                await self._finish(outcome, under_way)
        return None

    async def _store_intent(self, under_way: _UnderWay) -> actuation.Event:
        means, job = self._means, under_way.job
        rule = means.overrides.rule_of(job.key)
        proof_key = (job.command.device, rule.proof.resource) if rule is not None and rule.proof else job.key
        sample = means.picture.view.readings.get(proof_key)
        before = text_of(means, proof_key, sample.value if sample else None)
        intent = Intent(job.approver, before, job.deadline_s, job.data_site_s)
        try:
            await means.on_disk(
                means.ledger.enter, job.agent, job.command.id, "intent", means.clocks.wall_ns() / 1e9, intent
            )
        except StoreError as error:
            return actuation.IntentLost(str(error))
        problem = self._problem_but(under_way)
        for _ in range(MOST_AWARD_LOOKS):
            if problem is not None:
                break
            under_way.award_s = means.clocks.now()
            problem = _objection("task", await means.task_problem(job))
            if means.clocks.now() - under_way.award_s < AWARD_S - 0.5:
                break  # else it came so late that it would hardly count: the disk may be quick again
        if problem is None:
            return actuation.IntentStored(means.clocks.now())
        return actuation.IntentStored(means.clocks.now(), problem.text, problem.cause)

    async def _set(self, command: Command, wanted: Value, under_way: _UnderWay) -> actuation.Event:
        means, job = self._means, under_way.job
        if under_way.past is not None:
            means.picture.took_back(job.key, under_way.past)
        past = under_way.past = gate.PastSet(job.agent, wanted, means.clocks.site())
        # Before the first wait: whoever judges meanwhile, for another device, sees that it may be so.
        means.picture.went_out(job.key, past)
        is_repeated, under_way.was_sent = under_way.was_sent, True
        correlation_id = str(uuid.uuid5(_SET_AGAIN, command.id)) if is_repeated else command.id
        if is_repeated:
            means.audit.append("set-again", command=command.id, correlation=correlation_id, agent=job.agent)
        stopped: list[actuation.SetStopped] = []

        def last_look() -> None:
            # The process may have been stopped since the intent was stored, or for the connection's sake.
            if means.clocks.now() > job.deadline_s:
                stopped.append(actuation.SetStopped("expired", "deadline passed before it could be sent", "late"))
            elif problem := self._problem_but(under_way) or self._award_problem(under_way):
                stopped.append(actuation.SetStopped("refused", problem.text, problem.cause))
            if stopped:
                raise WithdrawnError(stopped[0].text)

        event: actuation.Event | None
        try:
            with telemetry.span("set"):
                await means.command.set(
                    command.device, command.resource, {command.resource: command.value},
                    correlation_id=correlation_id, last_look=last_look,
                )  # fmt: skip
            event = None
        except DeviceSilentError as error:
            under_way.may_come += 1
            event = actuation.SetSilent(str(error), means.clocks.now())
        except EdgeAgentsError as error:
            means.picture.took_back(job.key, past)
            # A service that failed may have set it all the same.
            under_way.may_come += isinstance(error, UpstreamError)
            under_way.was_sent = is_repeated or isinstance(error, UpstreamError)
            return stopped[0] if stopped else actuation.SetRefused(str(error))
        # Also when nobody answered: it may have taken effect, and rates must count it.
        means.desk.used(job.key)
        await means.on_disk(means.ledger.went_out, *job.key, job.agent, command.value, past.site_s)
        # The time to show it begins now: a slow disk takes none of it away.
        return event or actuation.SetDone(means.clocks.now())

    def _award_problem(self, under_way: _UnderWay) -> Objection | None:
        """Return why what the ledger of tasks said counts no more: it was a while ago."""
        age_s = self._means.clocks.now() - under_way.award_s
        is_old = under_way.job.is_of_task and age_s > AWARD_S
        text = f"whose task it is was looked up {age_s:.1f} s ago, which may not be so any more"
        return Objection("task", text) if is_old else None

    def _problem_but(self, under_way: _UnderWay) -> Objection | None:
        """Return why a command may not go out, its own SET not counted."""
        job, past, picture = under_way.job, under_way.past, self._means.picture
        if past is None:
            return self._problem(job)
        picture.took_back(job.key, past)
        try:
            return self._problem(job)
        finally:
            picture.went_out(job.key, past)

    async def _release(self, device: str, under_way: _UnderWay) -> None:
        means = self._means
        await means.on_disk(means.ledger.release, device)
        means.audit.append("released", device=device, command=under_way.job.command.id)

    async def _finish(self, outcome: Outcome, under_way: _UnderWay) -> None:
        means, job, overrides = self._means, under_way.job, self._means.overrides
        under_way.is_told = True
        is_done = outcome.status in ("proven", "unproven")
        # All but the last one leave what follows under way. What was answered and does not show may come late, too.
        for _ in range(under_way.may_come if is_done else under_way.may_come - 1):
            await overrides.doubtful(job.key, under_way.wanted, None)
            overrides.sending(job.key)
        if is_done:
            is_certain = self._proves_itself(job, outcome)
            await overrides.done(job.key, under_way.shown if is_certain else under_way.wanted, is_certain=is_certain)
        elif under_way.was_sent:
            shown = self._shown(job, under_way)
            is_ours = overrides.is_expected(job.key, shown, (under_way.before, under_way.wanted))
            await overrides.doubtful(job.key, under_way.wanted, shown if is_ours else None)
            if not is_ours:
                overrides.seen(job.key, shown)  # neither what was nor what we wanted: somebody else may have set it
        else:
            overrides.void(job.key)
        means.picture.doubt(job.key, overrides.late_values().get(job.key, []))
        await finish(means, job, outcome)
        self._done(job.agent)

    def _proves_itself(self, job: Job, outcome: Outcome) -> bool:
        return outcome.status == "proven" and self._is_own_proof(job)

    def _shown(self, job: Job, under_way: _UnderWay) -> Value:
        return under_way.shown if self._is_own_proof(job) else None

    def _is_own_proof(self, job: Job) -> bool:
        """Say whether what is set is also what is read back."""
        rule = self._means.overrides.rule_of(job.key)
        return rule is not None and rule.proof is not None and rule.proof.resource == job.command.resource


def _objection(cause: CauseKind, problem: str) -> Objection | None:
    return Objection(cause, problem) if problem else None


def recovered(entry: Entry) -> Job:
    """Return a command of the ledger as a job; nobody looks at its deadline but to set it again."""
    intent = entry.intent
    return Job(entry.command, entry.agent, entry.sequence, intent.deadline_s, intent.data_site_s, intent.approver)
