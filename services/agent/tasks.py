"""The agent's part in tasks: hears calls, bids, takes what it has won in the ledger, and does it by its own commands.

A thin shell around `contract_net_participant`. What is won becomes a decision with one intent and goes the agent's
ordinary way: gate, lease, guard, proof; the command lives no longer than the task, and a cancel stops it until it is
stored. Its id comes from the task, the award's epoch and when the task was accepted: an award that is done twice is one
command at the guard, a task whose name was used before is another. Nothing is kept on disk: an agent that was restarted
is another copy, and what the former one had taken is ended by the coordinator.

A conversation is remembered while a bid of ours stands or work is under way. One that comes to nothing (a refusal, a
lost award) is forgotten with its timers: the same task may be called for again, and then is heard as if it were new.

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
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, InvalidInputError, MalformedMessageError, TheirError, UnavailableError
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.cooperation import Act, Announcement, Award, CallForProposals, LedgerAsk, LedgerTold
from edgeagents.model.message import CommandId, Message, Outcome
from edgeagents.model.skill import Aim
from edgeagents.model.task import TaskRef, cause_of
from edgeagents.protocol import contract_net_participant as participant
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import Heard, Refuse, Save, Tell, Tick
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.task_ledger import CloseTask, Entry, LedgerAnswer, LedgerRequest, ReadTask, Status, TakeTask
from services.agent.bidding import Declined, Load, bid, meant
from services.agent.commands import Commander, Errand, Given

log = logging.getLogger(__name__)

ANNOUNCE_S: Final = 1.0
LEDGER_S: Final = 2.0
AGAIN_S: Final = 0.25
MOST_CONVERSATIONS: Final = 512  # further calls are not answered: the coordinator asks others
MOST_PENDING_BYTES: Final = 4 << 20
LONGEST_S: Final = 3_600.0  # a conversation whose deadline nobody told
DONE: Final = ("proven", "unproven")


@dataclass(slots=True)
class _Conversation:
    """One task we were called for; `began_unix_ns`: when that was."""

    state: participant.State
    began_unix_ns: int
    call: CallForProposals | None = None
    aim: Aim | None = None
    work: "asyncio.Task[None] | None" = None
    reason: str = ""
    abandoned: str = ""  # why what is not begun yet is left undone
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class Tasks:
    """Takes part in contract nets that the coordinator leads."""

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
        self._known: dict[str, _Conversation] = {}
        self._coordinator = b""
        self._announce_now = asyncio.Event()
        self._is_over = False  # timers may fire once more
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Hear calls and say that we are there, for ever; an agent that neither bids nor negotiates does neither."""
        if not self._agent.skills and self._agent.negotiates is None:
            return
        await self._bus.subscribe(
            subjects.act(self._gateway, self._agent.name, subjects.COORDINATOR),
            self._on_act,
            pending_bytes=MOST_PENDING_BYTES,
        )
        await self._bus.subscribe(subjects.coordinator(self._gateway), self._on_coordinator)
        try:
            await self._announce()
        finally:
            self._is_over = True

    async def _announce(self) -> None:
        """Say once a second, and at once to a new coordinator, that we are there; for ever."""
        subject = subjects.announcement(self._gateway, self._agent.name)
        while True:
            said = Announcement(
                incarnation=self._incarnation, skills=tuple(item.name for item in self._agent.skills), busy=self._busy
            )
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

    async def _on_coordinator(self, message: BusMessage) -> None:
        """Announce ourselves at once to a coordinator that began."""
        if message.data != self._coordinator:
            self._coordinator = message.data
            self._announce_now.set()

    # --- acts ------------------------------------------------------------------------------------

    async def _on_act(self, message: BusMessage) -> None:
        try:
            sender = subjects.speaker(message.subject)
            said = wire.decode(Act, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except (InvalidInputError, MalformedMessageError) as error:
            self._count("acts_rejected", str(error))
            return
        if sender != subjects.COORDINATOR:
            self._count("acts_of_strangers", f"{sender} does not lead tasks here")
            return
        conversation = self._conversation(said)
        if conversation is not None:
            await self._step(said.conversation, conversation, Heard(sender, said, time.monotonic()))

    def _conversation(self, said: Act) -> _Conversation | None:
        known = self._known.get(said.conversation)
        if known is not None or said.performative != "cfp" or said.call is None:
            return known
        if len(self._known) >= MOST_CONVERSATIONS:
            self.counts["calls_left_out"] += 1
            return None
        deadline_s = time.monotonic() + min(said.call.left_s or LONGEST_S, 86_400.0)
        setting = participant.Setting(
            self._agent.name, subjects.COORDINATOR, said.conversation, deadline_s, self._incarnation
        )
        known = self._known[said.conversation] = _Conversation(participant.Listening(setting), time.time_ns())
        self._timer(said.conversation, known, deadline_s - time.monotonic())
        self.counts["calls"] += 1
        return known

    async def _step(self, task: str, item: _Conversation, event: participant.Event) -> None:
        """Carry one event's effects out, in order; what takes long goes on by itself."""
        events = [event]
        while events:
            item.state, effects = participant.step(item.state, events.pop(0))
            for effect in effects:
                following = await self._carry_out(task, item, effect)
                if following is not None:
                    events.append(following)
        if isinstance(item.state, (participant.Ended, participant.Listening)):
            self._forget(task, item)

    def _forget(self, task: str, item: _Conversation) -> None:
        """Drop a conversation, and all that would wake it; by now another of the same task may have begun."""
        if self._known.get(task) is item:
            del self._known[task]
        for timer in item.timers:
            timer.cancel()
        item.timers.clear()
        if item.work is not None and item.work is not asyncio.current_task():
            item.work.cancel()

    async def _carry_out(self, task: str, item: _Conversation, effect: participant.Effect) -> participant.Event | None:
        match effect:
            case Tell(to, said):
                await self._send(subjects.act(self._gateway, to, self._agent.name), said)
            case participant.Estimate(call):
                return self._estimate(item, call)
            case AskLedger(request):
                self._group.create_task(self._ask(task, item, request), name=f"ledger {task}")
            case participant.Perform(award):
                if item.work is None:  # repeated after the ledger was read again: it is under way
                    item.work = self._group.create_task(self._perform(task, item, award), name=f"task {task}")
            case participant.Abandon(reason):
                item.abandoned = item.abandoned or reason
            case StartTimer(after_s):
                self._timer(task, item, after_s)
            case Refuse(_, cause, text):
                self._count(f"acts_{cause}", text)
            case Save():
                pass  # another run of us is another copy: it would not go on as this one
        return None

    def _timer(self, task: str, item: _Conversation, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        item.timers = [timer for timer in item.timers if timer.when() > loop.time()]  # the others have fired
        item.timers.append(loop.call_later(max(0.0, after_s), self._tick, task, item))

    def _tick(self, task: str, item: _Conversation) -> None:
        if self._known.get(task) is item and not self._is_over:
            self._group.create_task(self._step(task, item, Tick(time.monotonic())), name=f"tick {task}")

    def _count(self, word: str, text: str) -> None:
        self.counts[word] += 1
        if self.counts[word] == 1:
            log.warning("%s: %s (further ones are only counted)", word, text)

    # --- bids ------------------------------------------------------------------------------------

    def _estimate(self, item: _Conversation, call: CallForProposals) -> participant.Estimated:
        aim = meant(self._agent, call)
        offer = bid(self._agent, call, self._load(), None if isinstance(aim, Declined) else self._problem(call, aim))
        if isinstance(offer, Declined):
            self.counts[f"declined_{offer.cause}"] += 1
            return participant.Estimated(None, time.monotonic(), offer.text)
        item.call, item.aim = call, offer.aim
        self.counts["bids"] += 1
        return participant.Estimated(offer.cost, time.monotonic())

    def _problem(self, call: CallForProposals, aim: Aim) -> Declined | None:
        try:
            return self._commander.problem(self._intent(call, aim), self._site_now())
        except InvalidInputError as error:
            return Declined("not-possible", str(error))

    def _intent(self, call: CallForProposals, aim: Aim) -> Intent:
        value = self._commander.value_of(aim.device, aim.resource, aim.value)
        return Intent(aim.device, aim.resource, value, f"task {call.task}: {call.skill}", f"task {call.task}")

    def _load(self) -> Load:
        under_way = [
            item.call for item in self._known.values()
            if item.call is not None and isinstance(item.state, (participant.Taking, participant.Performing))
        ]  # fmt: skip
        skills = [self._agent.skill(call.skill) for call in under_way]
        tasks_s = sum(skill.cost_s for skill in skills if skill is not None)
        return Load(tasks_s, len(under_way), len(self._commander.pending), self._commander.link_s)

    # --- what is won -----------------------------------------------------------------------------

    async def _ask(self, task: str, item: _Conversation, request: LedgerRequest) -> None:
        """Put a request to the ledger; without an answer the protocol asks again."""
        asked = _asked(request, item.reason)
        try:
            answer = await self._bus.request(
                subjects.task_ledger(self._gateway, self._agent.name),
                wire.encode(asked),
                wire.AS_PROTOBUF,
                timeout_s=LEDGER_S,
            )
            told = wire.decode(LedgerTold, answer.data)
        except TheirError as error:
            self._count("ledger_silent", str(error))
            return
        entry = Entry(
            told.task, told.epoch, _status(told.status), told.winner, incarnation=told.incarnation,
            initiator=subjects.COORDINATOR,
        )  # fmt: skip
        await self._step(task, item, LedgerSaid(LedgerAnswer(entry, told.problem), time.monotonic()))

    async def _perform(self, task: str, item: _Conversation, award: Award) -> None:
        """Do what was won by one command of our own, and report how it ended."""
        self.counts["won"] += 1
        try:
            outcome = await self._commanded(task, item, award)
        except EdgeAgentsError as error:
            outcome = str(error)
        is_done = isinstance(outcome, Outcome) and outcome.status in DONE
        item.reason = (f"{outcome.status}: {outcome.reason}".rstrip(": ") if isinstance(outcome, Outcome) else outcome)[
            :2_000
        ]
        self.counts["tasks_done" if is_done else "tasks_failed"] += 1
        now_s = time.monotonic()
        await self._step(task, item, participant.Performed("done" if is_done else "failed", now_s))

    async def _commanded(self, task: str, item: _Conversation, award: Award) -> Outcome | str:
        """Return the outcome of the task's command, or why there was none."""
        call, aim = item.call, item.aim
        if call is None or aim is None:
            return "an award of something we did not bid for"
        # Epochs of a name that is used again begin anew: without the time it would be the former task's command.
        accepted_unix_ns = call.accepted_unix_ns or item.began_unix_ns
        cause = cause_of(TaskRef(task, accepted_unix_ns, award.epoch))
        intent, site_s = self._intent(call, aim), self._site_now()
        decision = Decision(f"task-{task}-{award.epoch}"[:128], (intent,), "rule", 1.0, {}, time.time_ns())
        while _is_wanted(item):
            errand = Errand(_deadline_s(item) - time.monotonic(), lambda: _is_wanted(item))
            given = await self._commander.give(decision, cause, site_s, errand)
            if not given:  # the same is under way already: what comes of that is not ours to report
                await asyncio.sleep(AGAIN_S)
                continue
            self._written_down(task, award, intent, given[0])
            if given[0].held_back:
                return item.abandoned or given[0].held_back
            return await self._commander.awaited(CommandId(given[0].command_id))
        return item.abandoned or "its time was over before it could be commanded"

    def _written_down(self, task: str, award: Award, intent: Intent, given: Given) -> None:
        self._audit.append(
            "task-work", task=task, epoch=award.epoch, agent=self._agent.name, device=intent.device,
            resource=intent.resource, value=intent.value, command=given.command_id, held_back=given.held_back,
        )  # fmt: skip

    async def _send(self, subject: str, message: Message) -> None:
        try:
            await self._bus.publish(subject, wire.encode(message), wire.AS_PROTOBUF)
        except UnavailableError as error:
            self._count("acts_lost", str(error))


def _is_wanted(item: _Conversation) -> bool:
    """Say whether a task is still ours to do: nobody cancelled it, and its time is not over."""
    return isinstance(item.state, participant.Performing) and not item.abandoned


def _deadline_s(item: _Conversation) -> float:
    """Return when a task is over for us, monotonic seconds; what has ended is over already."""
    return -math.inf if isinstance(item.state, participant.Ended) else item.state.setting.deadline_s


def _asked(request: LedgerRequest, reason: str) -> LedgerAsk:
    match request:
        case TakeTask(task, epoch, incarnation):
            return LedgerAsk(verb="take", task=task, epoch=epoch, incarnation=incarnation)
        case CloseTask(task, epoch, _, status):
            return LedgerAsk(verb="close", task=task, epoch=epoch, status=status, reason=reason)
        case ReadTask(task):
            return LedgerAsk(verb="read", task=task)
        case _:
            raise InvalidInputError(f"{type(request).__name__} is nothing that a participant asks")


def _status(text: str) -> Status:
    """Return the ledger's word; another one, or none, means that nothing is ours there."""
    match text:
        case "open" | "awarded" | "taken" | "done" | "failed":
            return text
        case _:
            return "failed"
