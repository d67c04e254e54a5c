"""Call for proposals -> bid or refusal with its cause, by code: what doing it takes, what waits before it, the link.

A bid is the seconds until it would be done, as far as anybody can tell: the skill's own time, what is under way, and
how long the guard takes to answer. Pure; whether the command itself would pass is the gate's word, brought along.

Source: design.md section 5 ("bids are computed by code"); style.md section 2.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import CallForProposals
from edgeagents.model.skill import Aim, aim_of

RefusalCause: TypeAlias = Literal["no-skill", "no-session", "observe", "paused", "busy", "too-late", "not-possible"]
MOST_TASKS: Final = 64  # under way at once
PENDING_S: Final = 0.2  # what one command that is under way adds: the guard settles some five a second, one by one


@dataclass(frozen=True, slots=True)
class Load:
    """What keeps the agent busy now.

    Args:
        tasks_s: time that tasks under way take together, seconds.
        tasks: how many these are.
        pending: commands whose outcome is awaited.
        link_s: how long the guard took to answer last, seconds.
    """

    tasks_s: float = 0.0
    tasks: int = 0
    pending: int = 0
    link_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Offer:
    """What doing it costs, seconds until it is done, and the command by which it is."""

    cost: float
    aim: Aim


@dataclass(frozen=True, slots=True)
class Declined:
    """Why it is not done; `cause` to be counted by, `text` for people."""

    cause: RefusalCause
    text: str


def meant(agent: AgentDefinition, call: CallForProposals) -> Aim | Declined:
    """Return the command that a call asks for, by the skill that the agent's owner wrote down."""
    skill = agent.skill(call.skill)
    if skill is None:
        return Declined("no-skill", f"{agent.name} has no skill {call.skill!r}")
    try:
        return aim_of(skill, call.device, call.resource, call.value, {item.name: item.value for item in call.params})
    except InvalidInputError as error:
        return Declined("not-possible", str(error))


def bid(agent: AgentDefinition, call: CallForProposals, load: Load, problem: Declined | None) -> Offer | Declined:
    """Return what an agent offers for a task.

    Args:
        agent: as its owner wrote it down.
        call: what is asked.
        load: what keeps it busy.
        problem: why its command would not go out now, by session, owner's order, gate; None: it would.
    """
    aim = meant(agent, call)
    if isinstance(aim, Declined):
        return aim
    if problem is not None:
        return problem
    if load.tasks >= MOST_TASKS:
        return Declined("busy", f"{load.tasks} tasks are under way")
    skill = agent.skill(call.skill)
    cost = (skill.cost_s if skill is not None else 0.0) + load.tasks_s + load.pending * PENDING_S + load.link_s
    if call.left_s and cost > call.left_s:
        return Declined("too-late", f"it would take {cost:.1f} s, {call.left_s:.1f} s are left")
    return Offer(round(cost, 6), aim)
