"""One queue, one closed union of inputs, one loop: all that an agent reacts to passes here, one at a time.

Every input is a stored message; it is acknowledged once everything that follows from it is stored too.

Source: design.md section 3.
"""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from edgeagents.adapters import telemetry
from edgeagents.adapters.bus import StoredMessage
from edgeagents.adapters.metrics import Timer
from edgeagents.audit import Audit
from edgeagents.journal import Journal
from edgeagents.model.agent import RULE_DEVICE, AgentDefinition, Observation, Sample
from edgeagents.model.device import Event
from edgeagents.model.message import Cause, Outcome
from edgeagents.model.values import Value
from services.agent.commands import Commander, Given
from services.agent.decision import DecisionStage, decide
from services.agent.perception import Twin
from services.agent.pipeline import Pipeline
from services.agent.record import decision_body
from services.agent.view import SeenView

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EventInput:
    """A device event, or a rule's event from the bus; `topic` is below the base."""

    message: StoredMessage
    event: Event
    topic: str = ""


@dataclass(frozen=True, slots=True)
class RuleInput:
    """The result of a rule, one object, that came by HTTP."""

    message: StoredMessage
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OutcomeInput:
    """How a command of this agent ended."""

    message: StoredMessage
    outcome: Outcome


Input: TypeAlias = EventInput | RuleInput | OutcomeInput


class AgentLoop:
    """Handles inputs one after the other."""

    def __init__(
        self,
        agent: AgentDefinition,
        twin: Twin,
        stages: list[DecisionStage],
        commander: Commander,
        audit: Audit,
        journal: Journal,
        site_now: Callable[[], float],
    ) -> None:
        """Wire the parts; `site_now` returns site seconds."""
        self._agent = agent
        self._twin = twin
        self._stages = stages
        self._commander = commander
        self._audit = audit
        self._journal = journal
        self._site_now = site_now
        self._held: tuple[object, ...] = ()
        self.deciding = True
        self.pipeline = Pipeline()
        self.counts: Counter[str] = Counter()
        self.processing_time = Timer()

    async def handle(self, item: Input) -> None:
        """Do all that follows from one input, then acknowledge it."""
        name, began_ns = "outcome" if isinstance(item, OutcomeInput) else "decide", time.perf_counter_ns()
        with telemetry.span(name, {"agent": self._agent.name}, kind="consumer", parent=item.message.headers):
            await self._handle(item)
        if not isinstance(item, OutcomeInput):
            self.processing_time.since(began_ns)

    async def _handle(self, item: Input) -> None:
        match item:
            case EventInput(message, event, topic):
                self.counts["events"] += 1
                cause = Cause(
                    stream=message.stream, sequence=message.sequence, event_id=event.id[:256], origin_ns=event.origin
                )
                kept = self.pipeline.run(event, topic)
                if kept is None:
                    self.counts["filtered"] += 1
                else:
                    await self._consider(self._twin.observe(kept, cause, self._site_now()))
                # Written before the acknowledgement: an event may be seen twice, never not at all.
                self._journal.write("consumed", id=event.id, stream=message.stream, sequence=message.sequence)
            case RuleInput(message, result):
                self.counts["rule_results"] += 1
                await self._consider(self._rule_observation(message, result))
            case OutcomeInput(_, outcome):
                self._commander.ended(outcome)
        self._commander.forget_overdue()
        await item.message.ack()

    async def _consider(self, observation: Observation | None) -> None:
        if observation is None or not self.deciding:
            return
        stages = [stage for stage in self._stages if stage.name in self.pipeline.stages]
        seen = SeenView(self._twin)
        decision = decide(observation, seen, stages)
        if decision is None:
            self.counts["nothing_to_do"] += 1
            return
        self.counts["decisions"] += 1
        telemetry.note({"decision": decision.id, "stage": decision.stage})
        given = await self._commander.give(decision, observation.cause, observation.site_s)
        if not given:
            self.counts["under_way"] += 1
            return
        if self._is_known(given):
            self.counts["held_back_again"] += 1
            return
        names = [stage.name for stage in stages]
        body = decision_body(self._agent.name, self._commander.mode, observation, decision, given, names, seen)
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
        return Observation(cause, RULE_DEVICE, changed, site_s) if changed else None


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
