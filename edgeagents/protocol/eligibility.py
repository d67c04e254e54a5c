"""Who could do a task at all, by the owner's files and the profiles of devices: checked before anybody is asked.

An agent announces its skills, but its owner's file decides. What changes by the moment (mode, load, interlocks, rates)
is the agent's own part, and in the end the guard's. Pure.

Source: design.md section 5 ("feasibility is checked before award").
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Profile
from edgeagents.model.skill import Aim, Skill, aim_of
from edgeagents.model.task import TaskWanted
from edgeagents.model.values import Value, parse_value, same_value
from edgeagents.protocol.fitting import within
from edgeagents.protocol.roster import Run


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of agents and devices now."""

    agents: Mapping[str, AgentDefinition]
    devices: Mapping[str, Device]
    profiles: Mapping[str, Profile]


@dataclass(frozen=True, slots=True)
class _Target:
    """What a command is for: looked up once for all agents that would give the same one."""

    problem: str  # why nobody could give it; empty: somebody could, and the rest is known
    device: Device | None = None
    kind: str = ""
    value: Value = None


def able(wanted: TaskWanted, site: Site) -> list[str]:
    """Return the agents that could do a task, by name.

    Raises:
        InvalidInputError: none could, and why.
    """
    skilled = {
        name: (agent, skill) for name, agent in sorted(site.agents.items())
        if (skill := agent.skill(wanted.skill)) is not None
    }  # fmt: skip
    if not skilled:
        known = sorted({skill.name for agent in site.agents.values() for skill in agent.skills})
        there = ", ".join(known) or "none"
        raise InvalidInputError(
            f"no agent has skill {wanted.skill!r}: write it into an agent's `skills`; there are {there}"
        )
    targets: dict[Aim, _Target] = {}
    problems = {name: _problem(agent, skill, wanted, site, targets) for name, (agent, skill) in skilled.items()}
    found = [name for name, problem in problems.items() if not problem]
    if not found:
        raise InvalidInputError("; ".join(dict.fromkeys(problems.values()))[:1500])
    return found


def unknown_devices(wanted: TaskWanted, site: Site) -> list[str]:
    """Return the devices that a task is about by an agent's skill, and that are not known with their profile."""
    found: dict[str, None] = {}
    for agent in site.agents.values():
        skill = agent.skill(wanted.skill)
        if skill is None:
            continue
        with contextlib.suppress(InvalidInputError):
            name = aim_of(skill, wanted.device_name, wanted.resource_name, wanted.value, wanted.params).device
            device = site.devices.get(name)
            if device is None or device.profile_name not in site.profiles:
                found[name] = None
    return list(found)


def _problem(agent: AgentDefinition, skill: Skill, wanted: TaskWanted, site: Site, targets: dict[Aim, _Target]) -> str:
    """Return why an agent could not do a task whatever happens; empty when it could."""
    try:
        aim = aim_of(skill, wanted.device_name, wanted.resource_name, wanted.value, wanted.params)
    except InvalidInputError as error:
        return str(error)
    target = targets.get(aim)
    if target is None:
        target = targets[aim] = _target(aim, site)
    return target.problem or _not_permitted(agent, aim, target)


def device_problem(aim: Aim, site: Site) -> str:
    """Return why nobody could give a command, by devices and profiles; empty when somebody could."""
    return _target(aim, site).problem


def permission_problem(agent: AgentDefinition, aim: Aim, site: Site) -> str:
    """Return why an agent could not give a command, by devices, profiles and its owner's file; empty when it could."""
    target = _target(aim, site)
    return target.problem or _not_permitted(agent, aim, target)


def _target(aim: Aim, site: Site) -> _Target:
    device = site.devices.get(aim.device)
    if device is None:
        return _Target(f"core-metadata knows no device {aim.device!r}")
    profile = site.profiles.get(device.profile_name)
    resource = profile.resource(aim.resource) if profile else None
    if resource is None:
        return _Target(f"device {aim.device!r} has no resource {aim.resource!r}")
    kind = resource.properties.value_type
    if not resource.properties.is_writable:
        return _Target(f"{aim.device}/{aim.resource} is read-only")
    try:
        value = parse_value(kind, aim.value)
    except InvalidInputError as error:
        return _Target(f"{aim.device}/{aim.resource}: {str(error)[:200]}")
    limits = (resource.properties.minimum, resource.properties.maximum)
    problem = _range_problem(value, *limits, f"the profile's range of {aim.device}/{aim.resource}")
    return _Target(problem, device, kind, value)


def _not_permitted(agent: AgentDefinition, aim: Aim, target: _Target) -> str:
    device, problem = target.device, ""
    for entry in agent.may:
        if entry.resource != aim.resource or device is None or not entry.fits(device):
            continue
        told = _range_problem(target.value, entry.minimum, entry.maximum, f"what {agent.name!r} may set")
        if not told and entry.values and not any(_is(target.kind, item, target.value) for item in entry.values):
            told = f"{aim.value[:40]} is none of the values that {agent.name!r} may set"
        if not told:
            return ""
        problem = problem or told
    return problem or f"agent {agent.name!r} has no permission for {aim.device}/{aim.resource}"


def _is(kind: str, text: str, value: Value) -> bool:
    try:
        return same_value(parse_value(kind, text), value)
    except InvalidInputError:
        return False


def _range_problem(value: Value, minimum: float | None, maximum: float | None, what: str) -> str:
    if within(value, minimum, maximum):
        return ""
    return f"{format(value)[:40]} is outside {what}, {minimum} to {maximum}"


def invited(able_names: list[str], alive: Mapping[str, Run], most: int, task: str = "") -> tuple[str, ...]:
    """Return whom to ask: of those who could, the ones that are there, the least busy first, so many at most.

    Among the equally busy the task's name draws lots, always the same ones: not every task goes to the same few.
    """
    there = [alive[name] for name in able_names if name in alive]
    there.sort(key=lambda run: (run.busy, crc32(f"{task}/{run.agent}".encode())))
    return tuple(run.agent for run in sorted(there[:most], key=lambda run: (run.busy, run.agent)))
