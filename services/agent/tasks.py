"""The agent's part in tasks: hears calls, bids, takes what it has won in the ledger, and does it by its own commands.

A thin shell around `contract_net_participant`. What is won becomes a decision with one intent and goes the agent's
ordinary way: gate, lease, guard, proof; the command lives no longer than the task, and a cancel stops it until it is
stored. Its id comes from the task, the award's epoch and when the task was accepted: an award that is done twice is one
command at the guard, a task whose name was used before is another. Nothing is kept on disk: an agent that was restarted
is another copy, and what the former one had taken is ended by the coordinator.

A conversation is remembered while a bid of ours stands or work is under way. One that comes to nothing (a refusal, a
lost award) is forgotten with its timers: the same task may be called for again, and then is heard as if it were new.

While no coordinator is there, agents whose owner lets them may lead: `initiators.py` says what is different then. Their
conversations are other ones than the coordinator's of the same name, and take none of its places (`places.py`). What is
not taken is let go once who leads it says nothing more; it may come back, and give the same name to another task.

Source: design.md section 5; docs/tasks.md.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.timers import call_after
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, InvalidInputError, MalformedMessageError, TheirError, UnavailableError
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.cooperation import Act, Announcement, Award, CallForProposals, LedgerTold
from edgeagents.model.message import CommandId, Outcome
from edgeagents.model.skill import Aim
from edgeagents.protocol import contract_net_participant as participant
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import Heard, Refuse, Save, Tell, Tick, act
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.ledger_words import answer_of, asked_of
from edgeagents.protocol.task_ledger import LedgerRequest
from services.agent.bidding import Declined, Load, bid, meant
from services.agent.commands import Commander, Errand, Given
from services.agent.initiators import Coordinator, Initiator, Peer
from services.agent.places import QUIET_S, makes_busier, room_problem
from services.agent.presence import CoordinatorWatch

log = logging.getLogger(__name__)

ANNOUNCE_S: Final = 1.0
AGAIN_S: Final = 0.25
MOST_PENDING_BYTES: Final = 4 << 20
LONGEST_S: Final = 3_600.0  # a conversation whose deadline nobody told
DONE: Final = ("proven", "unproven")
NOT_TAKEN: Final = (participant.Listening, participant.Estimating, participant.Bidding, participant.Taking)


@dataclass(slots=True)
class _Conversation:
    """One task we were called for, and by whom; `began_unix_ns`: when that was."""

    task: str
    initiator: Initiator
    state: participant.State
    began_unix_ns: int
    heard_s: float  # when its initiator last said something of it, monotonic
    call: CallForProposals | None = None
    aim: Aim | None = None
    work: "asyncio.Task[None] | None" = None
    reason: str = ""
    abandoned: str = ""  # why what is not begun yet is left undone
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class Tasks:
    """Takes part in contract nets that the coordinator leads, or an agent while none is there."""

    def __init__(
        self, bus: Bus, agent: AgentDefinition, commander: Commander, audit: Audit, incarnation: str,
        site_now: Callable[[], float], group: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        """Prepare; `run` takes part. `site_now` returns site seconds, `group` holds what is under way."""
        self._bus = bus
        self._agent = agent
        self._commander = commander
        self._audit = audit
        self._incarnation = incarnation
        self._site_now = site_now
        self._group = group
        self._gateway = bus.settings.gateway
        self._known: dict[tuple[str, str], _Conversation] = {}  # by initiator and task
        self._coordinator = Coordinator(bus, agent.name)
        self.watch = CoordinatorWatch(bus)
        self._announce_now = asyncio.Event()
        self._is_over = False  # timers may fire once more
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Hear calls and say that we are there, for ever; who neither bids, negotiates nor leads does neither."""
        if not self._agent.skills and self._agent.negotiates is None and not self._agent.leads:
            return
        await self._bus.subscribe(
            subjects.act(self._gateway, self._agent.name, subjects.COORDINATOR),
            self._on_act,
            pending_bytes=MOST_PENDING_BYTES,
        )
        if self._agent.skills:
            await self._hear_peers()
        self.watch.on_new = self._announce_now.set
        self._group.create_task(self.watch.run(), name="coordinator watch")
        try:
            await self._announce()
        finally:
            self._is_over = True

    async def _hear_peers(self) -> None:
        """Hear what agents that lead say to us."""
        acts = subjects.peer(self._gateway, "peer-acts", self._agent.name, None)
        told = subjects.peer(self._gateway, "peer-ledger-told", self._agent.name, None)
        await self._bus.subscribe(acts, self._on_peer_act, pending_bytes=MOST_PENDING_BYTES)
        await self._bus.subscribe(told, self._on_told, pending_bytes=MOST_PENDING_BYTES)

    async def _announce(self) -> None:
        """Say once a second, and at once to a new coordinator, that we are there; for ever."""
        subject = subjects.announcement(self._gateway, self._agent.name)
        while True:
            said = Announcement(
                incarnation=self._incarnation, skills=tuple(item.name for item in self._agent.skills), busy=self._busy,
                hears_peers=bool(self._agent.skills),
            )  # fmt: skip
            try:
                await self._bus.publish(subject, wire.encode(said), wire.AS_PROTOBUF)
            except UnavailableError as error:
                log.debug("not announced: %s", error)
            self._announce_now.clear()
            try:
                async with asyncio.timeout(ANNOUNCE_S):
                    await self._announce_now.wait()
            except TimeoutError:
                continue

    @property
    def _busy(self) -> int:
        return sum(isinstance(item.state, participant.Performing) for item in self._known.values())

    # --- acts ------------------------------------------------------------------------------------

    async def _on_act(self, message: BusMessage) -> None:
        try:
            sender = subjects.speaker(message.subject)
        except InvalidInputError as error:
            self._count("acts_rejected", str(error))
            return
        if sender != subjects.COORDINATOR:
            self._count("acts_of_strangers", f"{sender} does not lead tasks here")
            return
        await self._hear(self._coordinator, message)

    async def _on_peer_act(self, message: BusMessage) -> None:
        """Hear an agent that leads; that it may is the broker's permission, and looked at again by the guard."""
        leader = self._peer(message)
        if leader is not None:
            await self._hear(leader, message)

    def _peer(self, message: BusMessage) -> Peer | None:
        try:
            _, leader = subjects.parse_peer(message.subject)
        except InvalidInputError as error:
            self._count("acts_rejected", str(error))
            return None
        if leader == subjects.COORDINATOR:  # what it says comes on subjects that it alone writes
            self._count("acts_of_strangers", "somebody calls itself coordinator among agents")
            return None
        return Peer(self._bus, self._agent.name, leader, self.watch, self._commander)

    async def _hear(self, initiator: Initiator, message: BusMessage) -> None:
        try:
            said = wire.decode(Act, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self._count("acts_rejected", str(error))
            return
        refusal = self._refusal(initiator, said)
        if refusal:
            await self._tell(initiator, act("refuse", said.conversation, reason=refusal))
            return
        item = self._conversation(initiator, said)
        if item is not None:
            item.heard_s = time.monotonic()
            await self._step(item, Heard(initiator.name, said, time.monotonic()))

    async def _on_told(self, message: BusMessage) -> None:
        """Take in what an agent that leads has in its ledger, which we asked."""
        leader = self._peer(message)
        if leader is None:
            return
        try:
            told = wire.decode(LedgerTold, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self._count("acts_rejected", str(error))
            return
        item = self._known.get((leader.name, told.task))
        if item is not None:
            item.heard_s = time.monotonic()
            await self._step(item, LedgerSaid(answer_of(told, item.initiator.name), item.heard_s))

    def _refusal(self, initiator: Initiator, said: Act) -> str:
        """Return why a call is not even looked at, for who is told so: silence would cost it the time for bids."""
        if said.performative != "cfp" or said.call is None:
            return ""
        known = self._known.get((initiator.name, said.conversation))
        if known is not None:
            is_busy = participant.called_again(known.state, said.call) == "busy"
            return f"a former task {said.conversation!r} is under way here: call again" if is_busy else ""
        problem = "" if initiator is self._coordinator else self._room_problem(initiator)
        self.counts["calls_left_out"] += bool(problem)
        return problem

    def _room_problem(self, initiator: Initiator) -> str:
        return room_problem(initiator.name, (leader for leader, _ in self._known))

    def _conversation(self, initiator: Initiator, said: Act) -> _Conversation | None:
        key = (initiator.name, said.conversation)
        known = self._known.get(key)
        if said.performative != "cfp" or said.call is None:
            return known
        if known is not None:
            if participant.called_again(known.state, said.call) == "same":
                return known
            self.counts["calls_anew"] += 1
            self._forget(known)
            # What is on its way to it must not do a task whose place another one has.
            known.state = participant.Ended("not-mine", ("another task of this name was called for",))
        if self._room_problem(initiator):
            self.counts["calls_left_out"] += 1
            return None
        deadline_s = time.monotonic() + min(said.call.left_s or LONGEST_S, initiator.longest_s)
        setting = participant.Setting(
            self._agent.name, initiator.name, said.conversation, deadline_s, self._incarnation,
            said.call.accepted_unix_ns,
        )  # fmt: skip
        now_s = time.monotonic()
        known = _Conversation(said.conversation, initiator, participant.Listening(setting), time.time_ns(), now_s)
        self._known[key] = known
        self._timer(known, deadline_s - now_s)
        if initiator is not self._coordinator:
            self._look_for(known)
        self.counts["calls"] += 1
        return known

    def _look_for(self, item: _Conversation) -> None:
        """Let go, and look again later, what an agent leads that says nothing more of it; what was taken is done."""
        if not self._is_known(item) or not isinstance(item.state, NOT_TAKEN):
            return
        left_s = item.heard_s + QUIET_S - time.monotonic()
        if left_s > 0:
            item.timers.append(call_after(left_s, self._look_for, item))
            return
        self._count("leaders_silent", f"{item.initiator.name} says nothing more of task {item.task!r}: let go")
        self._forget(item)
        item.state = participant.Ended("not-mine", ("who led it fell silent",))

    async def _step(self, item: _Conversation, event: participant.Event) -> None:
        """Carry one event's effects out, in order; what takes long goes on by itself."""
        events = [event]
        while events:
            item.state, effects = participant.step(item.state, events.pop(0))
            for effect in effects:
                following = await self._carry_out(item, effect)
                if following is not None:
                    events.append(following)
        if isinstance(item.state, (participant.Ended, participant.Listening)):
            self._forget(item)

    def _is_known(self, item: _Conversation) -> bool:
        return self._known.get((item.initiator.name, item.task)) is item

    def _forget(self, item: _Conversation) -> None:
        """Drop a conversation, and all that would wake it; by now another of the same task may have begun."""
        if self._is_known(item):
            del self._known[item.initiator.name, item.task]
        for timer in item.timers:
            timer.cancel()
        item.timers.clear()
        if item.work is not None and item.work is not asyncio.current_task():
            item.work.cancel()

    async def _carry_out(self, item: _Conversation, effect: participant.Effect) -> participant.Event | None:
        match effect:
            case Tell(_, said):
                await self._tell(item.initiator, said)
            case participant.Estimate(call):
                return self._estimate(item, call)
            case AskLedger(request):
                self._group.create_task(self._ask(item, request), name=f"ledger {item.task}")
            case participant.Perform(award):
                if item.work is None:  # repeated after the ledger was read again: it is under way
                    item.work = self._group.create_task(self._perform(item, award), name=f"task {item.task}")
            case participant.Abandon(reason):
                item.abandoned = item.abandoned or reason
            case StartTimer(after_s):
                self._timer(item, after_s)
            case Refuse(_, cause, text):
                self._count(f"acts_{cause}", text)
            case Save():
                pass  # another run of us is another copy: it would not go on as this one
        return None

    def _timer(self, item: _Conversation, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        item.timers = [timer for timer in item.timers if timer.when() > loop.time()]  # the others have fired
        item.timers.append(call_after(after_s, self._tick, item))

    def _tick(self, item: _Conversation) -> None:
        if self._is_known(item) and not self._is_over:
            self._group.create_task(self._step(item, Tick(time.monotonic())), name=f"tick {item.task}")

    def _count(self, word: str, text: str) -> None:
        self.counts[word] += 1
        if self.counts[word] == 1:
            log.warning("%s: %s (further ones are only counted)", word, text)

    # --- bids ------------------------------------------------------------------------------------

    def _estimate(self, item: _Conversation, call: CallForProposals) -> participant.Estimated:
        aim = meant(self._agent, call)
        problem = None if isinstance(aim, Declined) else self._problem(item.initiator, call, aim)
        offer = bid(self._agent, call, self._load(item.initiator.name), problem)
        if isinstance(offer, Declined):
            self.counts[f"declined_{offer.cause}"] += 1
            return participant.Estimated(None, time.monotonic(), offer.text)
        item.call, item.aim = call, offer.aim
        self.counts["bids"] += 1
        return participant.Estimated(offer.cost, time.monotonic())

    def _problem(self, initiator: Initiator, call: CallForProposals, aim: Aim) -> Declined | None:
        objection = initiator.objection(aim)
        if objection:
            return Declined("not-possible", objection)
        try:
            return self._commander.problem(self._intent(call, aim), self._site_now())
        except InvalidInputError as error:
            return Declined("not-possible", str(error))

    def _intent(self, call: CallForProposals, aim: Aim) -> Intent:
        value = self._commander.value_of(aim.device, aim.resource, aim.value)
        return Intent(aim.device, aim.resource, value, f"task {call.task}: {call.skill}", f"task {call.task}")

    def _load(self, who_asks: str) -> Load:
        under_way = [
            item.call for item in self._known.values()
            if item.call is not None and makes_busier(item.state, item.initiator.name, who_asks)
        ]  # fmt: skip
        skills = [self._agent.skill(call.skill) for call in under_way]
        tasks_s = sum(skill.cost_s for skill in skills if skill is not None)
        return Load(tasks_s, len(under_way), len(self._commander.pending), self._commander.session.link_s)

    # --- what is won -----------------------------------------------------------------------------

    async def _ask(self, item: _Conversation, request: LedgerRequest) -> None:
        """Put a request to the ledger; without an answer the protocol asks again."""
        try:
            told = await item.initiator.ask(asked_of(request, item.reason))
        except TheirError as error:
            self._count("ledger_silent", str(error))
            return
        if told is not None:
            await self._step(item, LedgerSaid(answer_of(told, item.initiator.name), time.monotonic()))

    async def _perform(self, item: _Conversation, award: Award) -> None:
        """Do what was won by one command of our own, and report how it ended."""
        self.counts["won"] += 1
        try:
            outcome = await self._commanded(item, award)
        except EdgeAgentsError as error:
            outcome = str(error)
        is_done = isinstance(outcome, Outcome) and outcome.status in DONE
        item.reason = (f"{outcome.status}: {outcome.reason}".rstrip(": ") if isinstance(outcome, Outcome) else outcome)[
            :2_000
        ]
        self.counts["tasks_done" if is_done else "tasks_failed"] += 1
        now_s = time.monotonic()
        await self._step(item, participant.Performed("done" if is_done else "failed", now_s))

    async def _commanded(self, item: _Conversation, award: Award) -> Outcome | str:
        """Return the outcome of the task's command, or why there was none."""
        call, aim = item.call, item.aim
        if call is None or aim is None:
            return "an award of something we did not bid for"
        # Epochs of a name that is used again begin anew: without the time it would be the former task's command.
        accepted_unix_ns = call.accepted_unix_ns or item.began_unix_ns
        cause = item.initiator.cause(item.task, accepted_unix_ns, award.epoch)
        intent, site_s = self._intent(call, aim), self._site_now()
        decision = Decision(f"task-{item.task}-{award.epoch}"[:128], (intent,), "rule", 1.0, {}, time.time_ns())
        while _is_wanted(item):
            errand = Errand(_deadline_s(item) - time.monotonic(), lambda: _is_wanted(item))
            given = await self._commander.give(decision, cause, site_s, errand)
            if not given:  # the same is under way already: what comes of that is not ours to report
                await asyncio.sleep(AGAIN_S)
                continue
            self._written_down(item, award, intent, given[0])
            if given[0].held_back:
                return item.abandoned or given[0].held_back
            return await self._commander.awaited(CommandId(given[0].command_id))
        return item.abandoned or "its time was over before it could be commanded"

    def _written_down(self, item: _Conversation, award: Award, intent: Intent, given: Given) -> None:
        leader = {} if item.initiator is self._coordinator else {"leader": item.initiator.name}
        self._audit.append(
            "task-work", task=item.task, epoch=award.epoch, agent=self._agent.name, device=intent.device,
            resource=intent.resource, value=intent.value, command=given.command_id, held_back=given.held_back, **leader,
        )  # fmt: skip

    async def _tell(self, initiator: Initiator, said: Act) -> None:
        try:
            await initiator.tell(said)
        except UnavailableError as error:
            self._count("acts_lost", str(error))


def _is_wanted(item: _Conversation) -> bool:
    """Say whether a task is still ours to do: nobody cancelled it, and its time is not over."""
    return isinstance(item.state, participant.Performing) and not item.abandoned


def _deadline_s(item: _Conversation) -> float:
    """Return when a task is over for us, monotonic seconds; what has ended is over already."""
    return -math.inf if isinstance(item.state, participant.Ended) else item.state.setting.deadline_s
