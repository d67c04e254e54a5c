"""Observation -> decision: the cheapest stage that is sure enough answers, the safe default if none is.

    rule -> policy model -> language model -> safe default

Each stage is a function of the observation and the view of the devices it is given; the safe default is to leave
everything as it is. What people say is understood before (`questions.py`) and decided on as an input of its own.

Source: design.md section 3.3.
"""

import hashlib
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from edgeagents.model.agent import PERSON, AgentDefinition, Asked, Decision, Observation, Stage
from edgeagents.model.values import Value
from edgeagents.protocol.gate import Key
from services.agent.rules import RuleBook
from services.agent.view import View
from services.agent.wishes import Wishes, is_so

SURE_ENOUGH: Final = 0.5
ANSWERING: Final[tuple[Stage, ...]] = ("phrase", "language-model")
_DECISIONS: Final = uuid.UUID("6f1d7a0e-5c0b-4b6e-9a55-2f5d5d0c9c11")


class DecisionStage(Protocol):
    """One way to decide."""

    name: Stage

    def is_awake(self, view: View, touched: Collection[Key], site_s: float) -> bool:
        """Say whether this stage may have an answer now; to be told of each resource that has a new sample."""

    def decide(self, observation: Observation, view: View) -> Decision | None:
        """Return a decision with its confidence, None when this stage has no answer."""


class RuleStage:
    """Decides by the owner's rules, in microseconds."""

    name: Stage = "rule"

    def __init__(self, agent: str, rules: RuleBook) -> None:
        """Use an agent's compiled rules."""
        self._agent = agent
        self._rules = rules
        self._wishes = Wishes(rules)

    def is_awake(self, view: View, touched: Collection[Key], site_s: float) -> bool:
        """Say whether some rule wants what is not so already."""
        return self._wishes.any(view, touched, site_s)

    def decide(self, observation: Observation, view: View) -> Decision | None:
        """Return what the rules want that is not so already; None when that is nothing."""
        fired = [item for item in self._rules.evaluate(view, observation.site_s) if not is_so(view, item)]
        if not fired:
            return None
        inputs: dict[str, Value] = {}
        for item in fired:
            inputs.update({f"{item.intent.rule}.{name}": value for name, value in item.inputs.items()})
        return Decision(
            id=decision_id(self._agent, observation),
            intents=tuple(item.intent for item in fired),
            stage=self.name,
            confidence=min(item.confidence for item in fired),
            inputs=inputs,
            # A rule on the time of day alone rests on the event that made us look.
            data_origin_ns=min(
                (item.data_origin_ns for item in fired if item.data_origin_ns), default=observation.cause.origin_ns
            ),
        )


class AnswerStage:
    """Decides on what somebody said, or a model answered: that was understood before, and is an input like a reading.

    So it needs no model, and a replay makes the same decision of the same answer.
    """

    def __init__(self, agent: str, name: Stage) -> None:
        """Decide on what the stage `name` has understood."""
        self.name = name
        self._agent = agent

    def is_awake(self, view: View, touched: Collection[Key], site_s: float) -> bool:
        """Say no: events do not wake it."""
        return False

    def decide(self, observation: Observation, view: View) -> Decision | None:
        """Return what is wanted, None when this stage was not asked or nothing is wanted."""
        asked = observation.asked
        if asked is None or asked.stage != self.name or not asked.intents:
            return None
        return Decision(
            id=decision_id(self._agent, observation),
            intents=asked.intents,
            stage=self.name,
            confidence=asked.confidence,
            inputs=asked.inputs,
            data_origin_ns=observation.cause.origin_ns,
            model_hash=asked.model_hash,
            question=question_name(asked) if asked.id else "",
        )


def stages_of(agent: AgentDefinition, rules: RuleBook) -> list[DecisionStage]:
    """Return an agent's stages, cheapest first: for the agent as it runs and for the replay of its decisions."""
    return [RuleStage(agent.name, rules), *(AnswerStage(agent.name, name) for name in ANSWERING)]


def decide(observation: Observation, view: View, stages: Sequence[DecisionStage]) -> Decision | None:
    """Return the answer of the first stage that is sure enough; None: leave everything as it is."""
    for stage in stages:
        if (observation.asked is not None) is not (stage.name in ANSWERING):
            continue  # rules are about events
        decision = stage.decide(observation, view)
        if decision is not None and decision.confidence >= SURE_ENOUGH:
            return decision
    return None


def decision_id(agent: str, observation: Observation) -> str:
    """Return the id of an agent's decision on an observation: the same message makes the same id."""
    cause, asked = observation.cause, observation.asked
    if asked is not None and asked.id:
        return str(uuid.uuid5(_DECISIONS, f"{agent}/{PERSON}/{question_name(asked)}"))
    return str(uuid.uuid5(_DECISIONS, f"{agent}/{cause.stream}/{cause.sequence}/{cause.event_id}"))


def question_name(asked: Asked) -> str:
    """Return what names a question: its id and its text, since after a restart nobody knows which text had that id."""
    return f"{asked.id}/{hashlib.sha256(asked.text.encode()).hexdigest()}"


def described(decision: Decision) -> Mapping[str, object]:
    """Return a decision as the audit keeps it."""
    return {
        "decision": decision.id,
        "stage": decision.stage,
        "confidence": decision.confidence,
        "inputs": dict(decision.inputs),
        "intents": [
            {
                "device": item.device,
                "resource": item.resource,
                "value": item.value,
                "rule": item.rule,
                "because": item.because,
            }
            for item in decision.intents
        ],
        "data_origin_ns": decision.data_origin_ns,
        "model": decision.model_hash,
    }
