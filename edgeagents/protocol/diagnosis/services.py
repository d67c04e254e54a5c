"""Guard and agents: up, in session, in which mode, once each; what is blocked, paused or left alone.

Source: design.md sections 3.4 and 3.8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeagents.model.finding import Finding, failed, ok, skipped, warning
from edgeagents.protocol.diagnosis.shapes import items, mapping, strings


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """What the guard shows of itself (`GET /api/v3/guard`); `problem` where it does not."""

    url: str
    problem: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What one agent shows of itself (`GET /api/v3/agent`).

    Args:
        name: as its file says.
        url: as keeper has it; empty: it is not registered.
        problem: why it does not tell.
        state: what it tells.
        instances: how many answer by its name on the broker; None: not asked.
    """

    name: str
    url: str = ""
    problem: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)
    instances: int | None = None


def guard_findings(facts: GuardFacts) -> list[Finding]:
    """Return how the guard stands."""
    if facts.problem:
        remedy = (
            "start the guard and see its log; or correct --guard (EDGEAGENTS_GUARD_URL): no agent commands without it"
        )
        return [failed("guard", facts.problem, remedy)]
    state = facts.state
    found = [ok("guard", f"{facts.url}: generation {state.get('generation')}, {state.get('waiting', 0)} commands wait")]
    if state.get("volumeFull"):
        found.append(
            failed(
                "guard", "its volume is full: only safety commands are taken", "make room on it: it goes on by itself"
            )
        )
    for name, why in mapping(state.get("blocked")).items():
        remedy = "see whether it answers at all; it takes commands again once two reads agree"
        found.append(warning("guard", f"device {name} takes no command: {why}", remedy))
    for item in items(state.get("paused")):
        what = "everything" if item.get("scope") == "all" else f"{item.get('scope')} {item.get('name')}"
        found.append(
            warning("guard", f"paused: {what}, by {item.get('by')}", "resume it when it is time: `edgeagents resume`")
        )
    remedy = "the guard sees it some seconds later: until then this agent may command nothing"
    found += [failed("guard", str(text), remedy) for text in mapping(state.get("doubledAgents")).values()]
    remedy = "correct the file: until then what it said before counts, and nothing where the guard never could read it"
    found += [failed("guard", str(text), remedy) for text in mapping(state.get("wrongFiles")).values()]
    for stream, names in mapping(state.get("notTaken")).items():
        remedy = "see what makes it write so much; it is taken again after a while: docs/operations.md"
        found.append(warning("guard", f"stream {stream} takes nothing of {', '.join(strings(names))}: a flood", remedy))
    overrides = len(items(state.get("overrides")))
    if overrides:
        found.append(ok("guard", f"{overrides} resources were set by hand and are left alone: `edgeagents orders`"))
    return found


def agent_findings(agents: Sequence[AgentFacts], guard: GuardFacts) -> list[Finding]:
    """Return how each agent stands."""
    sessions = strings(guard.state.get("sessions"))
    found = [finding for facts in agents for finding in _agent(facts, sessions, is_guard_up=not guard.problem)]
    return found or [skipped("agents", "no agent file names one")]


def _agent(facts: AgentFacts, sessions: Sequence[str], *, is_guard_up: bool) -> list[Finding]:
    check = f"agent {facts.name}"
    if not facts.url:
        return [failed(check, "not registered in keeper", "start it; if it runs, see its log for what it waits for")]
    if facts.problem:
        return [failed(check, facts.problem, "see its log")]
    found = []
    mode, waits = str(facts.state.get("mode", "")), strings(facts.state.get("waitsFor"))
    if is_guard_up and (facts.name not in sessions or mode == "no session"):
        remedy = "see its log, and the guard's: a wrong file, wrong credentials, or another --gateway than the guard's"
        found.append(failed(check, "has no session with the guard", remedy))
    if sessions.count(facts.name) > 1 or (facts.instances or 0) > 1:
        number = max(sessions.count(facts.name), facts.instances or 0)
        found.append(failed(check, f"runs {number} times", "end all but one: one process for each agent"))
    if facts.instances == 0:
        remedy = "is it on another broker, or do its NATS permissions lack $SRV?"
        found.append(warning(check, "does not answer by its name on the broker", remedy))
    if waits:
        found.append(warning(check, f"waits for {', '.join(waits)}", "add it in EdgeX, or correct its file"))
    return found or [ok(check, f"mode {mode}, {_counts(facts.state)}")]


def _counts(state: Mapping[str, Any]) -> str:
    decisions = mapping(state.get("counts")).get("decisions", 0)
    return f"{decisions} decisions, {mapping(state.get('commands')).get('published', 0)} commands"
