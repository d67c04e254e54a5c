"""One queue, one closed union of inputs, one loop: all that an agent reacts to passes here, one at a time.

Every input is a stored message; it is acknowledged once everything that follows from it is stored too, and once all
before it are acknowledged: so what a restart finds acknowledged has no gaps. Inputs are decided on in their order;
while the commands of one wait for their lease or for the broker, the next are decided on already.

Source: design.md section 3.
"""

import asyncio
import json
import logging
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from edgeagents.adapters import telemetry
from edgeagents.adapters.bus import StoredMessage
from edgeagents.adapters.metrics import Timer
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, TheirError
from edgeagents.journal import Journal
from edgeagents.model.agent import PERSON, RULE_DEVICE, AgentDefinition, Asked, Decision, Observation, Sample, Stage
from edgeagents.model.device import Event
from edgeagents.model.message import Cause, Outcome
from edgeagents.model.values import Value
from services.agent.answers import Answers, Meant
from services.agent.commands import Commander, Given
from services.agent.decision import DecisionStage, decide
from services.agent.perception import Twin
from services.agent.phrases import Phrase
from services.agent.pipeline import Pipeline
from services.agent.questions import FAILED_ON_IT, SWITCHED_OFF, Conversation, Question
from services.agent.record import decision_body
from services.agent.thinking import Thought
from services.agent.view import SeenView

log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 5.0
KNOWN_FINISHED: Final = 4096  # more than the consumers let be under way


@dataclass(frozen=True, slots=True)
class EventInput:
    """A device event, or a rule's event from the bus; `topic` is below the base."""

    message: StoredMessage
    event: Event
    topic: str = ""


@dataclass(frozen=True, slots=True)
class RuleInput:
    """The result of a rule, one object, that came by HTTP; an empty one says: look again."""

    message: StoredMessage
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OutcomeInput:
    """How a command of this agent ended."""

    message: StoredMessage
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class AskInput:
    """What somebody said, and what it says by templates; None: no template fits."""

    message: StoredMessage
    question: Question
    phrase: Phrase | None


@dataclass(frozen=True, slots=True)
class ThoughtInput:
    """What a language model answered, or why it did not."""

    message: StoredMessage
    thought: Thought


Input: TypeAlias = EventInput | RuleInput | OutcomeInput | AskInput | ThoughtInput
_Place: TypeAlias = tuple[str, int, int]  # stream, sequence, and when stored: a broker made anew counts from 1 again


@dataclass(slots=True)
class _Unfinished:
    """An input that is not acknowledged yet."""

    message: StoredMessage
    is_done: bool = False


class AgentLoop:
    """Decides on inputs one after the other."""

    def __init__(
        self,
        agent: AgentDefinition,
        twin: Twin,
        stages: list[DecisionStage],
        commander: Commander,
        audit: Audit,
        journal: Journal,
        site_now: Callable[[], float],
        answers: Answers | None = None,
    ) -> None:
        """Wire the parts; `site_now` returns site seconds; `answers` is there for an agent that people talk to."""
        self._agent = agent
        self._twin = twin
        self._stages = stages
        self._commander = commander
        self._audit = audit
        self._journal = journal
        self._site_now = site_now
        self._answers = answers
        self._unfinished: OrderedDict[_Place, _Unfinished] = OrderedDict()  # as many as consumers let be under way
        self._finished: OrderedDict[_Place, None] = OrderedDict()  # acknowledged last, oldest first
        self._held: tuple[object, ...] = ()
        self._has_lost = asyncio.Event()  # a wish that nobody judged: it is to be looked at again
        self.deciding = True
        self.pipeline = Pipeline()
        self.counts: Counter[str] = Counter()
        self.processing_time = Timer()

    async def run(self, queue: "asyncio.Queue[Input]") -> None:
        """Handle inputs for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                item = await queue.get()
                if await self._is_repeated(item.message):
                    continue
                unfinished = self._unfinished[_place(item.message)] = _Unfinished(item.message)
                rest = self._begin(item)
                if rest is None:
                    await self._done(unfinished)
                else:
                    tasks.create_task(self._finish(rest, unfinished), name="decided")
                    await asyncio.sleep(0)  # what is to be sent is on its way before the next is looked at

    async def look_again(self, store: Callable[[], Awaitable[object]]) -> None:
        """Have what is wanted looked at again after a command got lost, also when no event brings news; for ever.

        Args:
            store: stores an empty rule result for this agent: an input as any other, with a place of its own.
        """
        while True:
            await self._has_lost.wait()
            await asyncio.sleep(LOOK_AGAIN_S)
            self._has_lost.clear()
            try:
                await store()
            except TheirError:
                self._has_lost.set()  # then after a while

    async def handle(self, item: Input) -> None:
        """Do all that follows from one input, then acknowledge it."""
        rest = self._begin(item)
        if rest is not None:
            await rest
        await item.message.ack()

    async def _finish(self, rest: Awaitable[None], unfinished: "_Unfinished") -> None:
        await rest
        await self._done(unfinished)

    async def _is_repeated(self, message: StoredMessage) -> bool:
        """Say whether an input came before, as one that is not acknowledged for long comes again."""
        place = _place(message)
        if place in self._finished:
            await message.ack()
            return True
        known = self._unfinished.get(place)
        if known is None:
            return False
        known.message = message.receipt()  # acknowledged for both
        return True

    async def _done(self, unfinished: "_Unfinished") -> None:
        """Note that an input is done with; acknowledge what is, up to the first that is not."""
        unfinished.is_done = True
        if next(iter(self._unfinished.values())) is not unfinished:
            unfinished.message = unfinished.message.receipt()
            return
        while self._unfinished and next(iter(self._unfinished.values())).is_done:
            place, first = self._unfinished.popitem(last=False)
            self._finished[place] = None
            if len(self._finished) > KNOWN_FINISHED:
                self._finished.popitem(last=False)
            await first.message.ack()

    def _begin(self, item: Input) -> Awaitable[None] | None:
        """Decide on an input; return what is left to be waited for, None when that is nothing."""
        if telemetry.is_on():
            return self._recorded(item)
        began_ns = time.perf_counter_ns()
        with telemetry.carry(item.message.headers):
            rest = self._react(item)
        if rest is not None:
            return self._carried(item, rest, began_ns)
        self._took(item, began_ns)
        return None

    async def _recorded(self, item: Input) -> None:
        """Do all that follows from an input within a span."""
        name, began_ns = "outcome" if isinstance(item, OutcomeInput) else "decide", time.perf_counter_ns()
        with telemetry.span(name, {"agent": self._agent.name}, kind="consumer", parent=item.message.headers):
            rest = self._react(item)
            if rest is not None:
                await rest
        self._took(item, began_ns)

    async def _carried(self, item: Input, rest: Awaitable[None], began_ns: int) -> None:
        with telemetry.carry(item.message.headers):
            await rest
        self._took(item, began_ns)

    def _took(self, item: Input, began_ns: int) -> None:
        if not isinstance(item, OutcomeInput):
            self.processing_time.since(began_ns)

    def _react(self, item: Input) -> Awaitable[None] | None:
        self._commander.forget_overdue()
        match item:
            case EventInput():
                rest = self._perceive(item)
                if rest is not None:
                    return self._consumed_after(rest, item)
                self._consumed(item)
            case RuleInput(message, result):
                self.counts["rule_results"] += 1
                return self._consider(self._rule_observation(message, result))
            case AskInput():
                return self._asked(item)
            case ThoughtInput():
                return self._thought(item)
            case OutcomeInput(_, outcome):
                self._commander.ended(outcome)
                if self._answers is not None:
                    self._answers.ended(outcome)
        return None

    def _asked(self, item: AskInput) -> Awaitable[None] | None:
        """Decide on what somebody said; None when that wants no command."""
        self.counts["questions"] += 1
        question, message = item.question, item.message
        rest = self._tried(
            question.id, message, lambda answers: answers.consider(question, item.phrase, message.time_ns)
        )  # fmt: skip
        if rest is None:
            self._audit.append("question", id=question.id, text=question.text, phrase=_action(item.phrase))
        return rest

    def _thought(self, item: ThoughtInput) -> Awaitable[None] | None:
        """Decide on what a model answered; None when that wants no command."""
        self.counts["thoughts"] += 1
        thought, message = item.thought, item.message
        rest = self._tried(thought.question, message, lambda answers: answers.think_over(thought, message.time_ns))
        if rest is None:
            self._audit.append("thought", **thought.model_dump())
        return rest

    def _tried(
        self, question: str, message: StoredMessage, meaning: Callable[[Answers], Meant | None]
    ) -> Awaitable[None] | None:
        """Decide on what somebody means; one thing said that nobody foresaw ends with an answer, not with the agent."""
        answers = self._answers
        if answers is None:
            return None
        if not self.deciding or not self.pipeline.stages:
            answers.give_up(question, SWITCHED_OFF)
            return None
        try:
            found = meaning(answers)
            return None if found is None else self._answer(answers, *found, message)
        except Exception as error:
            self.counts["not_worked_out"] += 1
            log.exception("agent %s: question %r came to nothing", self._agent.name, question)
            answers.give_up(question, str(error) if isinstance(error, EdgeAgentsError) else FAILED_ON_IT)
            return None

    def _answer(
        self, answers: Answers, conversation: Conversation | None, asked: Asked, message: StoredMessage
    ) -> Awaitable[None] | None:
        cause = Cause(stream=message.stream, sequence=message.sequence, origin_ns=message.time_ns)
        observation = Observation(cause, PERSON, {}, self._site_now(), asked)
        stages = [stage for stage in self._stages if stage.name == asked.stage]
        seen = SeenView(self._twin)
        decision = decide(observation, seen, stages)
        if decision is None:
            if conversation is not None:
                answers.unsure(conversation, asked)
            return None
        self.counts["decisions"] += 1
        telemetry.note({"decision": decision.id, "stage": decision.stage})
        awaited = [found for item in decision.intents if (found := self._commander.under_way(item)) is not None]
        given = self._commander.give(decision, cause, observation.site_s)
        rest = self._write_answer_down(given, observation, decision, [stage.name for stage in stages], seen)
        return _answered(rest, answers, conversation, asked, awaited)

    async def _write_answer_down(
        self, giving: Awaitable[list[Given]], observation: Observation, decision: Decision, names: list[Stage],
        seen: SeenView,
    ) -> list[Given]:  # fmt: skip
        given = await giving
        body = decision_body(self._agent.name, self._commander.session.mode, observation, decision, given, names, seen)
        self._audit.append("decision", **body)
        return given

    def _perceive(self, item: EventInput) -> Awaitable[None] | None:
        self.counts["events"] += 1
        message, event = item.message, item.event
        kept = self.pipeline.run(event, item.topic)
        if kept is None:
            self.counts["filtered"] += 1
            return None
        cause = Cause(stream=message.stream, sequence=message.sequence, event_id=event.id[:256], origin_ns=event.origin)
        return self._consider(self._twin.observe(kept, cause, self._site_now()))

    def _consumed(self, item: EventInput) -> None:
        # Written before the acknowledgement: an event may be seen twice, never not at all.
        self._journal.write(
            "consumed", id=item.event.id, stream=item.message.stream, sequence=item.message.sequence
        )  # fmt: skip

    async def _consumed_after(self, rest: Awaitable[None], item: EventInput) -> None:
        await rest
        self._consumed(item)

    def _consider(self, observation: Observation | None) -> Awaitable[None] | None:
        """Decide, and have what was decided sent; None when nothing is to be done."""
        if observation is None or not self.deciding:
            return None
        touched = self._twin.take_touched()
        # All are told, also those that the pipeline leaves out now.
        awake = {stage.name for stage in self._stages if stage.is_awake(self._twin, touched, observation.site_s)}
        if awake.isdisjoint(self.pipeline.stages):
            self._silent(observation)
            return None
        stages = [stage for stage in self._stages if stage.name in self.pipeline.stages]
        seen = SeenView(self._twin)
        decision = decide(observation, seen, stages)
        if decision is None:
            self._silent(observation)
            return None
        self.counts["decisions"] += 1
        telemetry.note({"decision": decision.id, "stage": decision.stage})
        given = self._commander.give(decision, observation.cause, observation.site_s)
        return self._write_down(given, observation, decision, [stage.name for stage in stages], seen)

    def _silent(self, observation: Observation) -> None:
        """Count that the rules want nothing; a model may be asked, beside the loop, where the owner says so."""
        self.counts["nothing_to_do"] += 1
        if self._answers is None:
            return
        try:
            self._answers.look(observation)
        except Exception:  # nothing that rules do depends on it
            self.counts["not_worked_out"] += 1
            log.exception("agent %s: no model can be asked about news", self._agent.name)

    async def _write_down(
        self, giving: Awaitable[list[Given]], observation: Observation, decision: Decision, names: list[Stage],
        seen: SeenView,
    ) -> None:  # fmt: skip
        given = await giving
        if any(item.is_lost for item in given):
            self._has_lost.set()
        if not given:
            self.counts["under_way"] += 1
            return
        if self._is_known(given):
            self.counts["held_back_again"] += 1
            return
        body = decision_body(self._agent.name, self._commander.session.mode, observation, decision, given, names, seen)
        self._audit.append("decision", **body)

    def _is_known(self, given: list[Given]) -> bool:
        """Say whether all wishes are held back, and for the same reasons as in the decision before."""
        # Without the figures in them: "set 40 s ago" and "set 45 s ago" are one reason.
        held = tuple(
            (item.intent.device, item.intent.resource, item.intent.value, re.sub(r"\d", "", item.held_back))
            for item in given
        )
        known = held == self._held and not any(item.command_id for item in given)
        self._held = held
        return known

    def _rule_observation(self, message: StoredMessage, result: Mapping[str, Any]) -> Observation | None:
        site_s = self._site_now()
        changed: dict[str, Sample] = {}
        for name, value in result.items():
            if isinstance(value, (bool, int, float, str)) and self._twin.matters((RULE_DEVICE, name)):
                known: Value = value
                self._twin.set_value((RULE_DEVICE, name), known, message.time_ns, site_s)
                changed[name] = Sample(known, message.time_ns, site_s)
        cause = Cause(stream=message.stream, sequence=message.sequence, origin_ns=message.time_ns)
        return Observation(cause, RULE_DEVICE, changed, site_s) if changed or not result else None


def _action(phrase: Phrase | None) -> str:
    return "" if phrase is None else f"{phrase.action} {phrase.quantity}".strip()


async def _answered(
    rest: Awaitable[list[Given]], answers: Answers, conversation: Conversation | None, asked: Asked,
    awaited: list[Given],
) -> None:  # fmt: skip
    """Tell what became of each wish; of one that was under way already, what becomes of that."""
    given = [*await rest, *awaited]
    if conversation is not None:
        answers.given(conversation, asked, given)


def _place(message: StoredMessage) -> _Place:
    return message.stream, message.sequence, message.time_ns


def rule_results(data: bytes) -> list[dict[str, Any]]:
    """Return the objects in what a rule engine sent: one object, or an array of them.

    Raises:
        ValueError: it is neither.
    """
    try:
        body = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    items = body if isinstance(body, list) else [body]
    if not items or not all(isinstance(item, dict) for item in items):
        raise ValueError("a rule result is one JSON object, or an array of objects")
    return items
