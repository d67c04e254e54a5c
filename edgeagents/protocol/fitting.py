"""Do the owner's files fit the device profiles? Each problem in words, with field and remedy.

What a device that does not exist (yet) would make of an entry is no problem: the entry applies once it is there.

Source: design.md sections 3.6 and 3.8.
"""

import itertools
from collections.abc import Iterable, Mapping

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import RULE_DEVICE, AgentDefinition, Permission, Selector
from edgeagents.model.device import Device, DeviceResource, Profile, ResourceProperties
from edgeagents.model.site import Condition, Proof, ResourceRule, Site
from edgeagents.model.values import Value, is_numeric, parse_value


def file_problems(agent: AgentDefinition, devices: Mapping[str, Device], profiles: Mapping[str, Profile]) -> list[str]:
    """Return what in an agent's permissions cannot work with the devices there are."""
    problems = []
    for index, entry in enumerate(agent.may):
        found = (
            _permission_problem(entry, device, profiles[device.profile_name])
            for device in devices.values()
            if entry.fits(device) and device.profile_name in profiles
        )
        problems += [f"may[{index}]: {text}" for text in _first(found)]
    return problems


def site_problems(site: Site, devices: Mapping[str, Device], profiles: Mapping[str, Profile]) -> list[str]:
    """Return what in `site.yaml` cannot work with the devices there are."""
    problems = []
    for index, rule in enumerate(site.resources):
        found = (
            rule_problem(rule, device, profiles[device.profile_name])
            for device in devices.values()
            if rule.fits(device) and device.profile_name in profiles
        )
        problems += [f"resources[{index}]: {text}" for text in _first(found)]
    for index, lock in enumerate(site.interlocks):
        for word, condition in (("forbid", lock.forbid), ("during", lock.during)):
            device = devices.get(condition.device)
            profile = profiles.get(device.profile_name) if device else None
            text = _condition_problem(condition, profile) if profile else ""
            problems += [f"interlocks[{index}].{word}: {text}"] if text else []
    return problems


def absences(agent: AgentDefinition, devices: Mapping[str, Device]) -> list[str]:
    """Return what an agent's file names and core-metadata does not know (yet), each once; it waits for that."""
    found = [_absence(watch, devices) for watch in agent.watches if not watch.topic]
    found += [_absence(entry, devices) for entry in agent.may]
    found += [_absence(Selector(device=name), devices) for name in sorted(_named(agent))]
    return list(dict.fromkeys(text for text in found if text))


def site_absences(site: Site, devices: Mapping[str, Device]) -> list[str]:
    """Return what `site.yaml` names and core-metadata does not know (yet), each once."""
    found = [_absence(rule, devices) for rule in site.resources]
    found += [
        _absence(Selector(device=condition.device), devices)
        for lock in site.interlocks
        for condition in (lock.forbid, lock.during)
    ]
    return list(dict.fromkeys(text for text in found if text))


def undeclared(agent: AgentDefinition, site: Site, devices: Mapping[str, Device]) -> list[str]:
    """Return which of an agent's permissions come to nothing, as `site.yaml` forbids what they allow."""
    found = []
    for index, entry in enumerate(agent.may):
        for device in devices.values():
            rule = site.rule_for(device, entry.resource) if entry.fits(device) else None
            name = f"may[{index}]: {device.name}/{entry.resource}"
            if entry.fits(device) and rule is None:
                found.append(f"{name} is not declared in site.yaml")
            elif rule is not None and rule.risk_class == "D":
                found.append(f"{name} is of risk class D in site.yaml: never commanded by agents")
    return found


def _named(agent: AgentDefinition) -> set[str]:
    """Return every device that a rule names, `{words}` of its `for_each` filled in, and that should be in metadata."""
    read: set[str] = set()
    commanded: set[str] = set()
    for rule in agent.rules:
        readings = [reading if isinstance(reading, str) else reading.of for reading in rule.given.values()]
        names = {reading.partition("/")[0] for reading in readings}
        for values in itertools.product(*rule.for_each.values()):
            words = dict(zip(rule.for_each, values, strict=True))
            read |= {_filled(name, words) for name in names}
            commanded.add(_filled(rule.set.device, words))
    return commanded | {name for name in read if _is_device(name, agent)}


def _is_device(name: str, agent: AgentDefinition) -> bool:
    """Say whether what a rule reads is a device's, as far as can be told: a rule engine makes up names of its own."""
    if name == RULE_DEVICE:
        return False
    if not any(watch.topic for watch in agent.watches):
        return True
    return any(watch.device and Selector(device=watch.device).fits(Device(name=name)) for watch in agent.watches)


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        text = text.replace(f"{{{name}}}", word)
    return text


def _absence(selector: Selector, devices: Mapping[str, Device]) -> str:
    if any(selector.fits(device) for device in devices.values()):
        return ""
    parts = [("device", selector.device), ("profile", selector.profile), ("label", selector.label)]
    words = " and ".join(f"{word} {value!r}" for word, value in parts if value)
    return words if selector.device and words.count("'") == 2 else f"any device of {words}"


def rule_problem(rule: ResourceRule, device: Device, profile: Profile) -> str:
    """Return why an entry of `site.yaml` cannot work with a device it fits; empty when it can."""
    resource = profile.resource(rule.resource)
    if resource is None:
        return f"resource: profile {profile.name!r} of {device.name!r} has no {rule.resource!r}"
    found = _range_problem(rule.minimum, rule.maximum, resource.properties, f"{device.name}/{rule.resource}")
    if not found and rule.proof is not None:
        return _proof_problem(rule.proof, device, profile.resource(rule.proof.resource))
    return found


def _permission_problem(entry: Permission, device: Device, profile: Profile) -> str:
    name, resource = f"{device.name}/{entry.resource}", profile.resource(entry.resource)
    if resource is None:
        return f"resource: profile {profile.name!r} of {device.name!r} has no {entry.resource!r}"
    properties = resource.properties
    if not properties.is_writable:
        return f"resource: {name} is read-only"
    for value_text in entry.values:
        try:
            value = parse_value(properties.value_type, value_text)
        except InvalidInputError as error:
            return f"values: {error}"
        if not within(value, properties.minimum, properties.maximum):
            return f"values: {value_text} is outside the profile's range {_limits(properties)} of {name}: remove it"
    return _range_problem(entry.minimum, entry.maximum, properties, name)


def _proof_problem(proof: Proof, device: Device, resource: DeviceResource | None) -> str:
    if resource is None:
        return f"proof.resource: profile {device.profile_name!r} of {device.name!r} has no {proof.resource!r}"
    if not resource.properties.is_readable:
        return f"proof.resource: {device.name}/{resource.name} cannot be read: name another one, or remove the proof"
    return ""


def _range_problem(low: float | None, high: float | None, properties: ResourceProperties, name: str) -> str:
    for word, value in (("minimum", low), ("maximum", high)):
        if value is not None and not is_numeric(properties.value_type):
            return f"{word}: {name} is a {properties.value_type}, no number: remove it"
        if value is not None and not within(value, properties.minimum, properties.maximum):
            return f"{word}: {value:g} is outside the profile's range {_limits(properties)} of {name}: narrow it"
    return ""


def _condition_problem(condition: Condition, profile: Profile) -> str:
    name, resource = f"{condition.device}/{condition.resource}", profile.resource(condition.resource)
    if resource is None:
        return f"resource: profile {profile.name!r} of {condition.device!r} has no {condition.resource!r}"
    kind = resource.properties.value_type
    if condition.equals is None:
        word = "below" if condition.above is None else "above"
        return "" if is_numeric(kind) else f"{word}: {name} is a {kind}, no number: use equals"
    try:
        parse_value(kind, condition.equals)
    except InvalidInputError as error:
        return f"equals: {error}"
    return ""


def _limits(properties: ResourceProperties) -> str:
    return f"{properties.minimum} to {properties.maximum}"


def _first(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text][:1]


def within(value: Value, low: float | None, high: float | None) -> bool:
    """Say whether a value is within limits, of which either may be absent; without any, all values are."""
    if low is None and high is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    # Written so that NaN is inside nothing.
    return (low is None or value >= low) and (high is None or value <= high)
