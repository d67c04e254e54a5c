"""Asks the agents that a class B command concerns, counts their consents, lets the command pass once they are enough.

A command that waits for a person (`approvals.py`) is put before its members at the same time, under a name that is
drawn for this one time: a consent for another command, or for an earlier one of that id, finds nothing to count for.
Each member speaks on a subject that the broker lets nobody else write. Whoever comes first decides, the agents or a
person; when its time is over the command expires. Consents are counted once more against the owner's files before the
command goes out (`actuator.py`). Nothing is kept on disk: what waited when the guard stopped expires.

Source: design.md section 3.6; FIPA SC00036J (propose: accept-proposal, reject-proposal).
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, MalformedMessageError, NotFoundError
from edgeagents.model.cooperation import VERSION, Act, CallForProposals, Param
from edgeagents.protocol.consent import Poll, poll_of, said
from edgeagents.protocol.gate import NeedsApproval
from services.guard.approvals import Approvals
from services.guard.jobs import Job
from services.guard.owner import Owner
from services.guard.reception import Reception

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
FIRST_AGAIN_S: Final = 0.5  # until who is silent is asked again; twice as long each time
LONGEST_AGAIN_S: Final = 30.0
CONSENT_S: Final = 30.0  # how long a word counts; then all are asked anew, since what they know has changed
MOST_CLOSED: Final = 256  # polls whose words are remembered: the same word, come twice or late, is nothing to tell
MOST_TOLD: Final = 256
ALONE_S: Final = 2.0  # so long agents are waited for before a person is told
MOST_VALUE_CHARS: Final = 1024  # of what agents are asked about: an act carries no more
MOST_REASON_CHARS: Final = 300
ACCEPT: Final = "accept-proposal"
REJECT: Final = "reject-proposal"


@dataclass(slots=True)
class _Asked:
    """A command that is before its members; times on the guard's monotonic clock."""

    job: Job
    verdict: NeedsApproval
    poll: Poll
    since_s: float
    until_s: float
    again_s: float
    began_s: float  # of this round
    pause_s: float = FIRST_AGAIN_S
    is_told: bool = False


async def _nowhere(job: Job) -> None:
    raise RuntimeError(f"command {job.command.id} has nowhere to go: the guard is not wired")


class Consents:
    """Commands that are before the agents they concern."""

    def __init__(
        self, bus: Bus, owner: Owner, devices: DeviceCache, audit: Audit, approvals: Approvals, now: Callable[[], float]
    ) -> None:
        """Prepare; `run` asks and hears.

        Args:
            bus: where agents are asked.
            owner: the owner's files: who is concerned.
            devices: core-metadata's.
            audit: where it is written down who said what.
            approvals: where the commands wait.
            now: monotonic seconds.
        """
        self._bus = bus
        self._owner = owner
        self._devices = devices
        self._audit = audit
        self._approvals = approvals
        self._now = now
        self._gateway = bus.settings.gateway
        self._asked: dict[str, _Asked] = {}
        self._closed: dict[str, Poll] = {}  # the newest, oldest first
        self._told: set[tuple[str, str]] = set()
        self._has_new = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.put: Callable[[Job], Awaitable[None]] = _nowhere
        self.alone: Callable[[Job, str], None] = lambda job, risk_class: None  # a person is needed
        self._reception = Reception(bus, lambda: owner.agents, {"consents": self._on_consent}, self.counts)

    @property
    def is_wanted(self) -> bool:
        """Whether `site.yaml` has a resource of class B at all."""
        return any(rule.risk_class == "B" for rule in self._owner.site.resources)

    def begin(self, job: Job, verdict: NeedsApproval) -> bool:
        """Put a waiting command before its members, and say whether there is anybody to ask."""
        if verdict.risk_class != "B" or len(verdict.text) > MOST_VALUE_CHARS:
            return False
        poll = poll_of(verdict.rule, self._owner.rules(self._devices), job.key, job.agent)
        if not poll.members or poll.quorum > len(poll.members):
            return False
        now_s = self._now()
        until_s = min(now_s + verdict.rule.approval_wait, job.deadline_s)
        self._asked[secrets.token_hex(12)] = _Asked(job, verdict, poll, now_s, until_s, now_s, now_s)
        self.counts["asked"] += 1
        self._has_new.set()
        return True

    def words(self, job: Job) -> str:
        """Return how far the consents to a command got, for people; empty when no agent was asked."""
        asked = next((item for item in self._asked.values() if item.job is job), None)
        if asked is None:
            return ""
        poll = asked.poll
        parts = [f"{name} refused: {reason}" for name, reason in poll.refused]
        parts += [f"{name} was silent" for name in poll.silent]
        return f"{len(poll.consented)} of {poll.quorum} consents: {'; '.join(parts)}"

    async def run(self) -> None:
        """Ask and hear for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reception.serve(tasks), name="consents heard")
            while True:
                self._has_new.clear()
                await self._look()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._has_new.wait()
                except TimeoutError:
                    continue

    # --- asking ------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask who has to be asked, tell a person where agents do not agree, and close what is over."""
        now_s = self._now()
        for ask, asked in list(self._asked.items()):
            if ask not in self._asked:
                continue  # carried while another one was asked for
            if not self._approvals.waits(asked.job):
                self._close(ask, "open")  # a person was quicker, its time is over, or it was paused
                continue
            if now_s - asked.since_s >= ALONE_S and not asked.is_told:
                asked.is_told = True
                self.alone(asked.job, asked.verdict.risk_class)
            if now_s - asked.began_s >= CONSENT_S:
                ask = self._anew(ask, asked, now_s)
            if now_s >= asked.again_s:
                asked.again_s = now_s + asked.pause_s
                asked.pause_s = min(2 * asked.pause_s, LONGEST_AGAIN_S)
                await self._ask(ask, asked)

    def _anew(self, ask: str, asked: _Asked, now_s: float) -> str:
        """Begin another round under another name, in which nobody has spoken yet; return the name."""
        self._remember(ask, asked.poll)
        asked.poll = poll_of(asked.verdict.rule, self._owner.rules(self._devices), asked.job.key, asked.job.agent)
        asked.began_s = asked.again_s = now_s
        asked.pause_s = FIRST_AGAIN_S
        del self._asked[ask]
        name = secrets.token_hex(12)
        self._asked[name] = asked
        self.counts["anew"] += 1
        return name

    async def _ask(self, ask: str, asked: _Asked) -> None:
        job, left_s = asked.job, asked.until_s - self._now()
        if left_s <= 0:
            return
        definition = self._owner.agents.get(job.agent)
        priority = definition.priority if definition is not None else ""
        call = CallForProposals(
            task=job.command.id, skill="consent", device=job.command.device, resource=job.command.resource,
            value=asked.verdict.text, left_s=min(left_s, 86_400.0),
            params=(Param(name="agent", value=job.agent), Param(name="priority", value=priority)),
        )  # fmt: skip
        act = Act(
            version=VERSION, performative="propose", conversation=ask, reply_by_s=call.left_s,
            reason=job.command.because, call=call,
        )  # fmt: skip
        data = wire.encode(act)
        for name in asked.poll.silent:
            try:
                subject = subjects.consent_request(self._gateway, name)
                await self._bus.publish(subject, data, wire.AS_PROTOBUF)
            except EdgeAgentsError as error:
                log.warning("agent %s is asked later: %s", name, error)

    # --- what is said ------------------------------------------------------------------------------

    async def _on_consent(self, agent: str, message: BusMessage) -> None:
        """Count what an agent says; what says nothing on what waits now is counted, and has no effect."""
        try:
            act = wire.decode(Act, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self._refuse("malformed", agent, str(error))
            return
        asked = self._asked.get(act.conversation)
        if act.performative not in (ACCEPT, REJECT):
            self._refuse("unknown", agent, f"{act.performative!r} is neither {ACCEPT} nor {REJECT}")
            return
        yes = act.performative == ACCEPT
        if asked is None or not self._approvals.waits(asked.job) or self._now() > asked.until_s:
            self._came_late(agent, act, asked.poll if asked is not None else self._closed.get(act.conversation))
            return
        before, reason = asked.poll, act.reason[:MOST_REASON_CHARS] or "no reason given"
        asked.poll, problem = said(before, agent, yes=yes, reason=reason)
        if problem:
            self._refuse(problem, agent, f"command {asked.job.command.id}: {act.performative}")
            return
        if asked.poll is before:  # twice on the way, or asked again while its answer was
            self.counts["again"] += 1
            return
        self.counts["consented" if yes else "refused"] += 1
        if asked.poll.is_carried:
            await self._carry(act.conversation, asked)

    def _came_late(self, agent: str, act: Act, poll: Poll | None) -> None:
        """Count what is said on what waits no more; a member that was slow, or is heard twice, is no offender."""
        if poll is None or said(poll, agent, yes=act.performative == ACCEPT, reason="")[1]:
            self._refuse("late", agent, f"nothing waits under {act.conversation!r}")
        else:
            self.counts["late" if agent in poll.silent else "again"] += 1

    async def _carry(self, ask: str, asked: _Asked) -> None:
        job = asked.job
        try:
            self._approvals.take(job.command.id)
        except NotFoundError:  # its time was over this moment
            self._close(ask, "open")
            return
        self._close(ask, "carried")
        await self.put(replace(job, consents=asked.poll.consented))

    def _close(self, ask: str, decision: str) -> None:
        asked = self._asked.pop(ask)
        job, poll = asked.job, asked.poll
        self._remember(ask, poll)
        self.counts[decision] += 1
        body: dict[str, Any] = {
            "command": job.command.id, "agent": job.agent, "device": job.command.device,
            "resource": job.command.resource, "value": asked.verdict.text, "decision": decision,
            "members": list(poll.members), "quorum": poll.quorum, "consented": list(poll.consented),
            "refused": dict(poll.refused), "silent": list(poll.silent),
        }  # fmt: skip
        self._audit.append("consent", **body)

    def _remember(self, ask: str, poll: Poll) -> None:
        while len(self._closed) >= MOST_CLOSED:
            del self._closed[next(iter(self._closed))]
        self._closed[ask] = poll

    def _refuse(self, cause: str, agent: str, text: str) -> None:
        self.counts[f"refused_{cause}"] += 1
        if (cause, agent) not in self._told and len(self._told) < MOST_TOLD:
            self._told.add((cause, agent))
            log.warning("consent of %s does not count, %s: %s (further ones are only counted)", agent, cause, text)
            plain = text[:500].encode("utf-8", "replace").decode()
            self._audit.append("consent-refused", agent=agent, cause=cause, text=plain)
