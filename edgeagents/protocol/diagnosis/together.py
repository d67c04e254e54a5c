"""What agents share: the coordinator of tasks and the language model. A gateway may have neither, and is sound.

Source: docs/tasks.md, docs/inference.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.finding import Finding, failed, ok, warning
from edgeagents.protocol.diagnosis.broker import BrokerFacts

TASKS: Final = "coordinator"
MODEL: Final = "language model"


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """What one of them shows of itself.

    Args:
        url: where it was asked.
        problem: why it does not tell; empty when it does.
        state: what it tells.
        is_known: whether keeper has it in its registry, so this gateway has one; None: keeper does not tell.
    """

    url: str
    problem: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)
    is_known: bool | None = False

    @property
    def is_none(self) -> bool:
        """Say whether this gateway has no such service."""
        return bool(self.problem) and self.is_known is False


def coordinator_findings(facts: SharedFacts, agents: Mapping[str, AgentDefinition]) -> list[Finding]:
    """Return how the coordinator stands; `agents`: those that have a file."""
    if facts.is_none:
        return [ok(TASKS, "this gateway has none: no tasks can be given, agents work by their rules")]
    if facts.is_known is None:
        return [_untold(TASKS)]
    if facts.problem:
        remedy = "start it and see its log, or correct --coordinator (EDGEAGENTS_COORDINATOR_URL): tasks wait for it"
        return [failed(TASKS, facts.problem, remedy)]
    state = facts.state
    if not state.get("isServing"):
        remedy = "it reads the stream `tasks`, which the guard makes, and core-metadata: its log says for what it waits"
        return [failed(TASKS, f"{facts.url}: takes no task yet", remedy)]
    heard = state.get("agents", 0)
    able = sorted(name for name, agent in agents.items() if agent.skills)
    if agents and not able:
        return [ok(TASKS, f"{facts.url}: serves, and no agent file has `skills`: nobody bids for tasks")]
    if able and not heard:
        remedy = "are agents up, and on its broker? Their logs and `edgeagents agents` say so; until then tasks wait"
        return [warning(TASKS, f"{facts.url}: hears no agent", remedy)]
    return [ok(TASKS, f"{facts.url}: {state.get('open', 0)} tasks under way, {heard} agents heard")]


def model_findings(facts: SharedFacts, agents: Mapping[str, AgentDefinition]) -> list[Finding]:
    """Return how the shared language model stands; `agents`: those that have a file."""
    asking = sorted(name for name, agent in agents.items() if agent.thinks and agent.thinks.by == "gateway")
    without = f": {', '.join(asking)} would ask it, and goes on without" if asking else ""
    if facts.is_none and asking:
        remedy = "start it (docs/inference.md; if it runs, see its log for what it waits for), or take `thinks` out"
        return [warning(MODEL, f"not registered in keeper{without}", remedy)]
    if facts.is_none:
        return [ok(MODEL, "this gateway has none")]
    if facts.is_known is None:
        return [_untold(MODEL)]
    if facts.problem:
        remedy = "start it and see its log, or correct --inference (EDGEAGENTS_INFERENCE_URL): agents go on with rules"
        return [failed(MODEL, facts.problem, remedy)]
    state = facts.state
    if not state.get("ready"):
        remedy = (
            "`make model` makes the default one; containers read MODELS_DIR and MODEL_NAME of `.env`, other services "
            "EDGEAGENTS_INFERENCE_MODEL. It is looked for again every ten seconds, and a load takes some"
        )
        return [warning(MODEL, f"{facts.url}: {state.get('why') or 'no model'}", remedy)]
    words = f"{state.get('model')} ({str(state.get('digest', ''))[:12]}), {state.get('waiting', 0)} questions wait"
    return [ok(MODEL, f"{facts.url}: {words}")]


def _untold(check: str) -> Finding:
    remedy = "repair what is said of keeper first; if there is to be one, see its log"
    return warning(check, "does not answer, and keeper does not tell whether this gateway has one", remedy)


def tasks_stream_findings(facts: BrokerFacts, name: str) -> list[Finding]:
    """Return what is amiss with the stream of tasks, where the broker told of its streams; nothing when it is well."""
    if facts.account is None or name in facts.streams:
        return []
    remedy = "the guard makes it when it starts, and its log says why it could not: nats-server must be 2.12 or newer"
    return [warning("stream of tasks", f"{name} is not there: no tasks can be given", remedy)]
