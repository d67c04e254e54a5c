"""May this command go out? Default deny: whatever the owner did not declare and permit is refused.

Pure and run twice: by the guard, whose word counts, and by the agent beforehand, to save the trip. The gate
trusts nothing a message says about the world: it judges by its own picture of the devices and by the owner's
files. Leaves out consents of other agents (class B needs a human for now) and unresolved intents.

Source: design.md section 3.6.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition, Permission, Sample
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.message import RiskClass
from edgeagents.model.site import Condition, Interlock, ResourceRule, Site
from edgeagents.model.values import Value, format_value, parse_value, same_value

Key: TypeAlias = tuple[str, str]  # device, resource


@dataclass(frozen=True, slots=True)
class PastSet:
    """A command that was carried out."""

    agent: str
    value: Value
    site_s: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an agent wants, as the gate sees it.

    Args:
        agent: the sender, by its subject.
        device: name of the device.
        resource: name of the device resource.
        value: as EdgeX writes it.
        data_site_s: site time of the oldest reading the decision rests on.
    """

    agent: str
    device: str
    resource: str
    value: str
    data_site_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner's files and core-metadata say."""

    site: Site
    agents: Mapping[str, AgentDefinition]
    devices: Mapping[str, Device]
    profiles: Mapping[str, Profile]


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of the devices: last readings, and what was set when (newest last)."""

    readings: Mapping[Key, Sample] = field(default_factory=dict)
    sets: Mapping[Key, tuple[PastSet, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passed:
    """It may go out now."""

    rule: ResourceRule
    value: Value


@dataclass(frozen=True, slots=True)
class NeedsApproval:
    """All holds, but somebody has to say yes first."""

    rule: ResourceRule
    value: Value
    risk_class: RiskClass


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not, and why: every reason found, the most basic first."""

    reasons: tuple[str, ...]


Verdict: TypeAlias = Passed | NeedsApproval | Refused


def judge(proposal: Proposal, rules: Rules, picture: Picture, now_site_s: float) -> Verdict:
    """Return whether a command may go out.

    Args:
        proposal: what an agent wants.
        rules: the owner's files and the device profiles.
        picture: what is known of the devices.
        now_site_s: site time now.
    """
    agent = rules.agents.get(proposal.agent)
    if agent is None:
        return Refused((f"no agent file declares {proposal.agent!r}",))
    if agent.mode != "act":
        return Refused((f"agent {agent.name!r} is in mode observe: set `mode: act` in its file to let it act",))
    found = _target(proposal, rules)
    if isinstance(found, Refused):
        return found
    device, resource, rule, value = found
    kind = resource.properties.value_type
    # From here on the one canonical text: what is judged is what is set.
    proposal = replace(proposal, value=format_value(kind, value))
    permissions = [entry for entry in agent.may if entry.resource == resource.name and entry.fits(device)]
    if not permissions:
        return Refused((f"agent {agent.name!r} has no permission for {device.name}/{resource.name}",))
    problems = _owner_limits(rule, proposal, value, picture, now_site_s)
    context = _Context(kind, value, rules.site, picture, now_site_s)
    # No problem when one permission allows it, else those of the permission that comes closest.
    problems += _fewest([_permission(entry, proposal, context) for entry in permissions])
    problems += _interlocks(rules, proposal, picture, now_site_s)
    if problems:
        return Refused(tuple(problems))
    if rule.risk_class == "A":
        return Passed(rule, value)
    return NeedsApproval(rule, value, rule.risk_class)


def _target(proposal: Proposal, rules: Rules) -> Refused | tuple[Device, DeviceResource, ResourceRule, Value]:
    device = rules.devices.get(proposal.device)
    if device is None:
        return Refused((f"core-metadata knows no device {proposal.device!r}",))
    profile = rules.profiles.get(device.profile_name)
    resource = profile.resource(proposal.resource) if profile else None
    if resource is None:
        return Refused((f"profile {device.profile_name!r} has no resource {proposal.resource!r}",))
    if not resource.properties.is_writable:
        return Refused((f"{device.name}/{resource.name} is read-only",))
    rule = rules.site.rule_for(device, resource.name)
    if rule is None:
        return Refused((f"site.yaml does not declare {device.name}/{resource.name}",))
    if rule.risk_class == "D":
        return Refused((f"{device.name}/{resource.name} is class D: never by an agent",))
    try:
        value = parse_value(resource.properties.value_type, proposal.value)
    except InvalidInputError as error:
        return Refused((str(error),))
    if not _is_finite(value):
        return Refused((f"{proposal.value} is no value to set",))
    properties = resource.properties
    if not _within(value, properties.minimum, properties.maximum):
        limits = f"{properties.minimum} to {properties.maximum}"
        return Refused((f"{proposal.value} is outside the profile's range {limits}",))
    return device, resource, rule, value


def _owner_limits(
    rule: ResourceRule, proposal: Proposal, value: Value, picture: Picture, now_site_s: float
) -> list[str]:
    key = (proposal.device, proposal.resource)
    problems = []
    if not _within(value, rule.minimum, rule.maximum):
        problems.append(f"{proposal.value} is outside the owner's range {rule.minimum} to {rule.maximum}")
    past = picture.sets.get(key, ())
    if past and now_site_s - past[-1].site_s < rule.minimum_interval:
        left = rule.minimum_interval - (now_site_s - past[-1].site_s)
        problems.append(f"set {now_site_s - past[-1].site_s:.0f} s ago: wait {left:.0f} s more (minimum interval)")
    hold_s = rule.minimum_on if value is False else rule.minimum_off if value is True else 0.0
    changes = [entry for entry in past if isinstance(entry.value, bool)]
    if hold_s and changes and changes[-1].value is not value and now_site_s - changes[-1].site_s < hold_s:
        state = "on" if value is False else "off"
        problems.append(
            f"must stay {state} for {hold_s:.0f} s, was switched {now_site_s - changes[-1].site_s:.0f} s ago"
        )
    return problems


@dataclass(frozen=True, slots=True)
class _Context:
    """What a permission is judged with."""

    kind: str
    value: Value
    site: Site
    picture: Picture
    now_site_s: float


def _permission(entry: Permission, proposal: Proposal, context: _Context) -> list[str]:
    key = (proposal.device, proposal.resource)
    past = context.picture.sets.get(key, ())
    problems = []
    if not _within(context.value, entry.minimum, entry.maximum):
        problems.append(f"{proposal.value} is outside the permitted range {entry.minimum} to {entry.maximum}")
    if entry.values and not any(_is_text_of(text, context.kind, context.value) for text in entry.values):
        problems.append(f"{proposal.value} is not among the permitted values {', '.join(entry.values)}")
    if entry.max_step is not None:
        problems += _slew(entry.max_step, context.value, context.picture.readings.get(key))
    if entry.rate is not None:
        since = context.now_site_s - entry.rate.per
        used = sum(1 for item in past if item.agent == proposal.agent and item.site_s > since)
        if used >= entry.rate.count:
            problems.append(f"{used} commands in the last {entry.rate.per:.0f} s: {entry.rate.count} are permitted")
    oldest_s = entry.max_data_age if entry.max_data_age is not None else context.site.max_data_age
    age_s = context.now_site_s - proposal.data_site_s
    if not age_s <= oldest_s:
        problems.append(f"decided on data {age_s:.0f} s old: at most {oldest_s:.0f} s")
    return problems


def _fewest(lists: list[list[str]]) -> list[str]:
    return min(lists, key=len)


def _is_text_of(text: str, kind: str, value: Value) -> bool:
    try:
        return same_value(parse_value(kind, text), value)
    except InvalidInputError:
        return False


def _slew(max_step: float, value: Value, current: Sample | None) -> list[str]:
    if current is None or not isinstance(current.value, (int, float)) or not isinstance(value, (int, float)):
        return ["the present value is not known, so the step cannot be limited"]
    step = abs(float(value) - float(current.value))
    # A tenth of a thousandth of slack: 21.5 - 21.4 is more than 0.1 in binary.
    return [f"a step of {step:g} is above the permitted {max_step:g}"] if not step <= max_step * 1.0001 else []


def _interlocks(rules: Rules, proposal: Proposal, picture: Picture, now_site_s: float) -> list[str]:
    problems = []
    for lock in rules.site.interlocks:
        sides = [(lock.forbid.device, lock.forbid.resource), (lock.during.device, lock.during.resource)]
        if (proposal.device, proposal.resource) not in sides:
            continue
        states = [_holds(side, lock, rules, proposal, picture, now_site_s) for side in (lock.forbid, lock.during)]
        # What is not known counts in the unsafe direction.
        if all(state is not False for state in states):
            unknown = " (not known for sure)" if None in states else ""
            problems.append(f"interlock {lock.name!r}: {_say(lock.forbid)} while {_say(lock.during)}{unknown}")
    return problems


def _holds(
    condition: Condition, lock: Interlock, rules: Rules, proposal: Proposal, picture: Picture, now_site_s: float
) -> bool | None:
    """Return whether a condition would hold after the command; None when that cannot be known."""
    key = (condition.device, condition.resource)
    device = rules.devices.get(condition.device)
    profile = rules.profiles.get(device.profile_name) if device else None
    resource = profile.resource(condition.resource) if profile else None
    if resource is None:
        return None
    kind = resource.properties.value_type
    if key == (proposal.device, proposal.resource):
        value = parse_value(kind, proposal.value)
    else:
        sample = picture.readings.get(key)
        if sample is None or sample.value is None or not now_site_s - sample.site_s <= lock.max_age:
            return None
        value = sample.value
    return _compare(condition, kind, value)


def _compare(condition: Condition, kind: str, value: Value) -> bool | None:
    if condition.equals is not None:
        try:
            return same_value(value, parse_value(kind, condition.equals))
        except InvalidInputError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    if condition.above is not None:
        return value > condition.above
    return condition.below is not None and value < condition.below


def _say(condition: Condition) -> str:
    name = f"{condition.device}/{condition.resource}"
    if condition.equals is not None:
        return f"{name} is {condition.equals}"
    return f"{name} above {condition.above:g}" if condition.above is not None else f"{name} below {condition.below:g}"


def _within(value: Value, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Written so that NaN is inside nothing.
    return (low is None or value >= low) and (high is None or value <= high)


def _is_finite(value: Value) -> bool:
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def file_problems(agent: AgentDefinition, devices: Mapping[str, Device], profiles: Mapping[str, Profile]) -> list[str]:
    """Return what in an agent's permissions cannot work with the profiles, each with field and remedy.

    A permission for a device that does not exist (yet) is no problem: it applies once the device is there.
    """
    problems = []
    for index, entry in enumerate(agent.may):
        for device in devices.values():
            profile = profiles.get(device.profile_name)
            if profile is None or not entry.fits(device):
                continue
            resource = profile.resource(entry.resource)
            problem = _resource_problem(entry, device, resource)
            if problem:
                problems.append(f"may[{index}]: {problem}")
                break
    return problems


def _resource_problem(entry: Permission, device: Device, resource: DeviceResource | None) -> str:
    name = f"{device.name}/{entry.resource}"
    if resource is None:
        return f"resource: profile {device.profile_name!r} of {device.name!r} has no {entry.resource!r}"
    properties = resource.properties
    if not properties.is_writable:
        return f"resource: {name} is read-only"
    for field_name, value in (("minimum", entry.minimum), ("maximum", entry.maximum)):
        if value is not None and not _within(value, properties.minimum, properties.maximum):
            limits = f"{properties.minimum} to {properties.maximum}"
            return f"{field_name}: {value:g} is outside the profile's range {limits} of {name}: narrow it"
    for value_text in entry.values:
        try:
            parse_value(properties.value_type, value_text)
        except InvalidInputError as error:
            return f"values: {error}"
    return ""
