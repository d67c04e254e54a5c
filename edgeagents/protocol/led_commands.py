"""What may be commanded for a task that an agent led, while no coordinator was there: class A, and absolute values.

Such a task is in no ledger on disk, so nobody can look up whose it is when its command is about to go out, and a leader
that was started again knows nothing of it. Hence the two bounds: nothing that somebody has to consent to, and nothing
that does harm when it is set twice. The leader and who bids look at them to save the trip; the guard's word counts.

Source: docs/decisions/0026.
"""

from collections.abc import Mapping
from typing import Final

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.message import Cause, CommandKind, RiskClass, SiteEntry
from edgeagents.model.task import led_of
from edgeagents.protocol import gate

MOST_LED_S: Final = 3_600.0  # the longest deadline of a led task: what takes longer can wait for a coordinator


def bound_problem(risk_class: RiskClass, kind: CommandKind, place: str) -> str:
    """Return why a resource may not be commanded for a led task; empty when it may. `place`: for people."""
    if risk_class != "A":
        return f"{place} is of class {risk_class}: without a coordinator agents lead class A alone"
    if kind != "absolute":
        return f"{place} is set by a {kind}: without a coordinator only what may be set twice is led"
    return ""


def told_problem(site: tuple[SiteEntry, ...], device: str, resource: str, *, is_own: bool) -> str:
    """Return the same as far as the guard has told an agent.

    Args:
        site: what the guard's welcome says of the resources that the agent may command.
        device: of the command.
        resource: of the command.
        is_own: whether the agent is to command it itself: then what it was not told of is not for it.
    """
    place = f"{device}/{resource}"
    entry = next((item for item in site if (item.device, item.resource) == (device, resource)), None)
    if entry is None:
        return f"the guard has told nothing of {place}" if is_own else ""
    return bound_problem(entry.risk_class, entry.kind, place)


def leader_of(cause: Cause) -> str:
    """Return who led the task that caused a command; empty where none did, or nobody can tell: that is refused."""
    try:
        ref = led_of(cause)
    except InvalidInputError:
        return ""
    return ref.leader if ref is not None else ""


def judged(cause: Cause, verdict: gate.Verdict, agents: Mapping[str, AgentDefinition]) -> gate.Verdict:
    """Return the gate's verdict as it counts with what caused the command: refused where a led task may not have it.

    Args:
        cause: of the command; one that is no led task leaves the verdict as it is.
        verdict: the gate's, by the owner's files as they are now.
        agents: the owner's, with the modes that count now.
    """
    try:
        ref = led_of(cause)
    except InvalidInputError as error:
        return gate.Refused((str(error),))
    if ref is None or isinstance(verdict, gate.Refused):
        return verdict
    leader = agents.get(ref.leader)
    if leader is None or not leader.leads:
        return gate.Refused((f"{ref.leader!r} may lead no tasks by the owner's files",))
    if leader.mode != "act":
        return gate.Refused((f"{ref.leader!r}, who led task {ref.task!r}, is in mode {leader.mode}",))
    rule = verdict.rule
    problem = bound_problem(rule.risk_class, rule.kind, f"what task {ref.task!r} wants")
    return gate.Refused((problem,)) if problem else verdict
