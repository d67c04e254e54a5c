"""May this command go out? Default deny: whatever the owner did not declare and permit is refused.

Pure and run twice: by the guard, whose word counts, and by the agent beforehand, to save the trip. The gate
trusts nothing a message says about the world: it judges by its own picture of the devices and by the owner's
files. Leaves out who says yes where somebody has to: consents are `consent.py`'s, people the guard's.

Source: design.md section 3.6.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition, Permission, Sample
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.message import CauseKind, RiskClass
from edgeagents.model.site import Condition, Interlock, ResourceRule, Site
from edgeagents.model.values import Value, format_value, parse_value, same_value
from edgeagents.protocol.fitting import rule_problem, within

Key: TypeAlias = tuple[str, str]  # device, resource
MAX_QUOTED: Final = 80


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
    """What the owner's files and core-metadata say.

    Args:
        site: the owner's `site.yaml`.
        agents: by name, those that count.
        devices: by name.
        profiles: by name.
        has_unread: whether there is an agent file of which nobody knows what it says, so `agents` may not be all.
    """

    site: Site
    agents: Mapping[str, AgentDefinition]
    devices: Mapping[str, Device]
    profiles: Mapping[str, Profile]
    has_unread: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of the devices: last readings, what was set when (newest last), and what may still take effect."""

    readings: Mapping[Key, Sample] = field(default_factory=dict)
    sets: Mapping[Key, Sequence[PastSet]] = field(default_factory=dict)
    unresolved: Mapping[Key, Sequence[Value]] = field(default_factory=dict)

    def possible(self, key: Key, since_s: float) -> list[Value]:
        """Return what a resource may be at, None standing for unknown; a reading older than `since_s` is unknown.

        What was set after the last reading is possible too: nothing says yet whether it took effect. So is what was
        set without a definite answer, whatever was read since.
        """
        reading, past = self.readings.get(key), self.sets.get(key, ())
        is_fresh = reading is not None and reading.site_s >= since_s
        found: list[Value] = [reading.value if reading is not None and is_fresh else None]
        if past and (reading is None or past[-1].site_s > reading.site_s):
            found.append(past[-1].value)
        found.extend(self.unresolved.get(key, ()))
        return found


@dataclass(frozen=True, slots=True)
class Passed:
    """It may go out now, exactly as `text` says."""

    rule: ResourceRule
    value: Value
    text: str


@dataclass(frozen=True, slots=True)
class NeedsApproval:
    """All holds, but somebody has to say yes first."""

    rule: ResourceRule
    value: Value
    text: str
    risk_class: RiskClass


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not, and why: every reason found, the most basic first; `cause` for code: whose word it is."""

    reasons: tuple[str, ...]
    cause: CauseKind = "gate"


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
        text = f"agent {agent.name!r} is in mode observe: set `mode: act` in its file to let it act"
        return Refused((text,), "order")
    found = _target(proposal, rules)
    if isinstance(found, Refused):
        return found
    device, resource, rule, value, text = found
    # From here on the one canonical text: what is judged is what is set.
    proposal = replace(proposal, value=text)
    permissions = [entry for entry in agent.may if entry.resource == resource.name and entry.fits(device)]
    if not permissions:
        return Refused((f"agent {agent.name!r} has no permission for {device.name}/{resource.name}",))
    problems = _owner_limits(rule, proposal, value, picture, now_site_s)
    context = _Context(resource.properties.value_type, value, rules.site, picture, now_site_s)
    # No problem when one permission allows it, else those of the permission that comes closest.
    problems += _fewest([_permission(entry, proposal, context) for entry in permissions])
    locked = _interlocks(rules, proposal, picture, now_site_s)
    if problems or locked:
        return Refused((*problems, *locked), "interlock" if locked else "gate")
    if rule.risk_class == "A":
        return Passed(rule, value, text)
    return NeedsApproval(rule, value, text, rule.risk_class)


def _target(proposal: Proposal, rules: Rules) -> Refused | tuple[Device, DeviceResource, ResourceRule, Value, str]:
    device = rules.devices.get(proposal.device)
    if device is None:
        return Refused((f"core-metadata knows no device {proposal.device!r}",))
    profile = rules.profiles.get(device.profile_name)
    resource = profile.resource(proposal.resource) if profile else None
    if profile is None or resource is None:
        return Refused((f"profile {device.profile_name!r} has no resource {proposal.resource!r}",))
    if not resource.properties.is_writable:
        return Refused((f"{device.name}/{resource.name} is read-only",))
    rule = rules.site.rule_for(device, resource.name)
    if rule is None:
        return Refused((f"site.yaml does not declare {device.name}/{resource.name}",))
    if rule.risk_class == "D":
        return Refused((f"{device.name}/{resource.name} is class D: never by an agent",))
    problem = rule_problem(rule, device, profile)
    if problem:
        return Refused((f"site.yaml: {problem}",))
    properties = resource.properties
    try:
        text = format_value(properties.value_type, parse_value(properties.value_type, proposal.value))
        value = parse_value(properties.value_type, text)  # a Float32 is rounded: what is set counts
    except InvalidInputError as error:
        return Refused((_quoted(str(error), 2 * MAX_QUOTED),))
    if not _is_finite(value):
        return Refused((f"{_quoted(proposal.value)} is no value to set",))
    if not within(value, properties.minimum, properties.maximum):
        limits = f"{properties.minimum} to {properties.maximum}"
        return Refused((f"{_quoted(text)} is outside the profile's range {limits}",))
    return device, resource, rule, value, text


def _quoted(text: str, most: int = MAX_QUOTED) -> str:
    # An agent may propose a long text, and reasons go into outcomes, audit and logs.
    return text if len(text) <= most else f"{text[:most]}…"


def _owner_limits(
    rule: ResourceRule, proposal: Proposal, value: Value, picture: Picture, now_site_s: float
) -> list[str]:
    key = (proposal.device, proposal.resource)
    problems = []
    if not within(value, rule.minimum, rule.maximum):
        problems.append(f"{_quoted(proposal.value)} is outside the owner's range {rule.minimum} to {rule.maximum}")
    past = picture.sets.get(key, ())
    # Whoever asks for no interval is not kept back either where the last one went out while this one was on its way.
    if past and 0.0 < rule.minimum_interval > now_site_s - past[-1].site_s:
        left = rule.minimum_interval - (now_site_s - past[-1].site_s)
        problems.append(f"set {_ago(now_site_s - past[-1].site_s)}: wait {left:.0f} s more (minimum interval)")
    hold_s = rule.minimum_on if value is False else rule.minimum_off if value is True else 0.0
    since_s = _switched_s(past)
    if hold_s and past and past[-1].value is (not value) and now_site_s - since_s < hold_s:
        state = "on" if value is False else "off"
        problems.append(f"must stay {state} for {hold_s:.0f} s, was switched {_ago(now_site_s - since_s)}")
    return problems


def _ago(passed_s: float) -> str:
    return f"{abs(passed_s):.0f} s {'ago' if passed_s > -1 else 'later than now, by a clock that was set back since'}"


def _switched_s(past: Sequence[PastSet]) -> float:
    """Return when the last value was set for the first time: repeating it does not prolong how long it stays."""
    since_s = math.inf
    for entry in reversed(past):
        if entry.value is not past[-1].value:
            break
        since_s = entry.site_s
    return since_s


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
    if not within(context.value, entry.minimum, entry.maximum):
        limits = f"{entry.minimum} to {entry.maximum}"
        problems.append(f"{_quoted(proposal.value)} is outside the permitted range {limits}")
    if entry.values and not any(_is_text_of(text, context.kind, context.value) for text in entry.values):
        allowed = _quoted(", ".join(entry.values))
        problems.append(f"{_quoted(proposal.value)} is not among the permitted values {allowed}")
    oldest_s = entry.max_data_age if entry.max_data_age is not None else context.site.max_data_age
    if entry.max_step is not None:
        problems += _slew(entry.max_step, context, key, oldest_s)
    if entry.rate is not None:
        since = context.now_site_s - entry.rate.per
        used = sum(1 for item in past if item.agent == proposal.agent and item.site_s > since)
        if used >= entry.rate.count:
            problems.append(f"{used} commands in the last {entry.rate.per:.0f} s: {entry.rate.count} are permitted")
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


def _slew(max_step: float, context: _Context, key: Key, oldest_s: float) -> list[str]:
    steps = [_step(context.value, value) for value in context.picture.possible(key, context.now_site_s - oldest_s)]
    if None in steps:
        return ["the present value is not known, so the step cannot be limited"]
    # A tenth of a thousandth of slack: 21.5 - 21.4 is more than 0.1 in binary.
    too_far = [step for step in steps if step is not None and not step <= max_step * 1.0001]
    return [f"a step of {too_far[0]:g} is above the permitted {max_step:g}"] if too_far else []


def _step(value: Value, present: Value) -> float | None:
    if not isinstance(value, (int, float)) or not isinstance(present, (int, float)):
        return None
    try:
        return abs(float(value) - float(present))
    except OverflowError:  # an integer beyond any float
        return math.inf


def interlock_problems(rules: Rules, key: Key, text: str, picture: Picture, now_site_s: float) -> list[str]:
    """Return which interlocks a value would violate, whoever sets it: what nothing can outvote holds for the guard too.

    Args:
        rules: the owner's files and the device profiles.
        key: the resource to set.
        text: the value in EdgeX's canonical text.
        picture: what is known of the devices.
        now_site_s: site time now.
    """
    return _interlocks(rules, Proposal("", *key, text, now_site_s), picture, now_site_s)


def locked_options(
    rules: Rules, key: Key, options: Sequence[str], picture: Picture, now_site_s: float
) -> dict[str, str]:
    """Return which of these values of a resource the owner's interlocks forbid as things are now, and why.

    Args:
        rules: the owner's files and the device profiles.
        key: the resource.
        options: values in words; what is none of the resource is left to the gate.
        picture: what is known of the devices.
        now_site_s: site time now.
    """
    device = rules.devices.get(key[0])
    profile = rules.profiles.get(device.profile_name) if device else None
    resource = profile.resource(key[1]) if profile else None
    found: dict[str, str] = {}
    # Those that name it are looked for once: a site may have thousands, and all is judged in one go.
    locks = _locks_on(rules, key)
    if resource is None or not locks:
        return found
    kind = resource.properties.value_type
    for option in options:
        try:
            text = format_value(kind, parse_value(kind, option))
        except InvalidInputError:
            continue
        problems = _locked(locks, rules, Proposal("", *key, text, now_site_s), picture, now_site_s)
        if problems:
            found[option] = "; ".join(problems)
    return found


def _interlocks(rules: Rules, proposal: Proposal, picture: Picture, now_site_s: float) -> list[str]:
    locks = _locks_on(rules, (proposal.device, proposal.resource))
    return _locked(locks, rules, proposal, picture, now_site_s)


def _locks_on(rules: Rules, key: Key) -> tuple[Interlock, ...]:
    """Return the interlocks that name a resource."""
    return tuple(
        lock for lock in rules.site.interlocks
        if any((side.device, side.resource) == key for side in (lock.forbid, lock.during))
    )  # fmt: skip


def _locked(
    locks: Sequence[Interlock], rules: Rules, proposal: Proposal, picture: Picture, now_site_s: float
) -> list[str]:
    problems = []
    for lock in locks:
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
        return _compare(condition, kind, parse_value(kind, proposal.value))
    states = [_compare(condition, kind, value) for value in picture.possible(key, now_site_s - lock.max_age)]
    if True in states:
        return True
    return None if None in states else False


def _is_nan(value: int | float) -> bool:
    # math.isnan cannot be asked about an integer beyond any float.
    return isinstance(value, float) and math.isnan(value)


def _compare(condition: Condition, kind: str, value: Value) -> bool | None:
    if value is None:
        return None
    if condition.equals is not None:
        try:
            return same_value(value, parse_value(kind, condition.equals))
        except InvalidInputError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or _is_nan(value):
        return None
    if condition.above is not None:
        return value > condition.above
    return condition.below is not None and value < condition.below


def _say(condition: Condition) -> str:
    name = f"{condition.device}/{condition.resource}"
    if condition.equals is not None:
        return f"{name} is {condition.equals}"
    return f"{name} above {condition.above:g}" if condition.above is not None else f"{name} below {condition.below:g}"


def _is_finite(value: Value) -> bool:
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
