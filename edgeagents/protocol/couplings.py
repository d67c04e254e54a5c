"""What is coupled: conditions of which at most one may hold, by the owner's interlocks and by tags in profiles.

Tags of a device resource in a profile, with labels `prefix:name` of devices that say what belongs together:

    exclusive: zone                          at most one of those with the same label `zone:…` is active
    effect: heat, against: vent, within: room   active together with an effect `vent` of the same `room:…`: a conflict
    active: {above: 18}                      when it counts as active; else when it is true, or above 0

A tag that would couple nothing for want of another, or of any profile with the effect it is against, is refused.

Conditions are compared as the guard's gate does, by the value type of their resource.

Source: design.md section 5.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.site import Condition, Site
from edgeagents.model.values import Value, parse_value, same_value

Kinds: TypeAlias = Mapping[tuple[str, str], str]
"""The value type of each resource, by device and name."""


@dataclass(frozen=True, slots=True)
class Coupling:
    """Of these conditions at most one may hold at a time."""

    name: str
    members: tuple[Condition, ...]


def couplings_of(site: Site, devices: Mapping[str, Device], profiles: Mapping[str, Profile]) -> list[Coupling]:
    """Return what the owner's interlocks and the profiles' tags couple.

    Raises:
        InvalidInputError: a tag that cannot be understood or would couple nothing, or a condition that is no value of
            its resource; the resource is named.
    """
    kinds = kinds_of(devices, profiles)
    found = [
        Coupling(f"interlock {lock.name!r}", (_checked(lock.forbid, kinds), _checked(lock.during, kinds)))
        for lock in site.interlocks
    ]
    tagged = [
        (device, resource)
        for device in devices.values()
        if device.profile_name in profiles
        for resource in profiles[device.profile_name].device_resources
        if resource.tags
    ]
    resources = [resource for profile in profiles.values() for resource in profile.device_resources]
    effects = {effect for resource in resources for effect in _texts(resource, "effect")}
    for resource in resources:
        _check_against(resource, effects)
    return [*found, *_exclusive(tagged), *_against(tagged)]


def kinds_of(devices: Mapping[str, Device], profiles: Mapping[str, Profile]) -> dict[tuple[str, str], str]:
    """Return the value type of each resource of these devices."""
    return {
        (device.name, resource.name): resource.properties.value_type
        for device in devices.values()
        if device.profile_name in profiles
        for resource in profiles[device.profile_name].device_resources
    }


def _checked(condition: Condition, kinds: Kinds) -> Condition:
    kind = kinds.get((condition.device, condition.resource), "")
    if kind and condition.equals is not None:
        try:
            parse_value(kind, condition.equals)
        except InvalidInputError as error:
            raise InvalidInputError(f"{condition.device}/{condition.resource} equals: {error}") from error
    return condition


def _check_against(resource: DeviceResource, effects: Collection[str]) -> None:
    """Refuse tags that would couple nothing, silently: a misspelt effect, or one tag without its other."""
    against, within = _texts(resource, "against"), _texts(resource, "within")
    if bool(against) != bool(within):
        missing = "within" if against else "against"
        raise InvalidInputError(f"tags of resource {resource.name!r}: 'against' and 'within' need {missing!r}, too")
    unknown = [effect for effect in against if effect not in effects]
    if unknown:
        known = ", ".join(sorted(effects)) or "none"
        text = f"tag 'against' of resource {resource.name!r}: no profile has the effect {unknown[0]!r}, known: {known}"
        raise InvalidInputError(text)


def _labels(device: Device, prefix: str) -> list[str]:
    return [label for label in device.labels if label.startswith(f"{prefix}:")]


def _exclusive(tagged: Sequence[tuple[Device, DeviceResource]]) -> Iterator[Coupling]:
    groups: dict[str, list[Condition]] = defaultdict(list)
    for device, resource in tagged:
        for prefix in _texts(resource, "exclusive"):
            for label in _labels(device, prefix):
                groups[label].append(_active(device, resource))
    for label, members in sorted(groups.items()):
        if len(members) > 1:
            yield Coupling(f"one at a time in {label}", tuple(members))


def _against(tagged: Sequence[tuple[Device, DeviceResource]]) -> Iterator[Coupling]:
    effects: dict[tuple[str, str], list[tuple[Device, DeviceResource]]] = defaultdict(list)
    for device, resource in tagged:
        for effect in _texts(resource, "effect"):
            for label in device.labels:
                effects[effect, label].append((device, resource))
    for device, resource in tagged:
        own = "/".join(_texts(resource, "effect")) or resource.name
        for effect in _texts(resource, "against"):
            for prefix in _texts(resource, "within"):
                for label in _labels(device, prefix):
                    for other, its in effects.get((effect, label), ()):
                        members = (_active(device, resource), _active(other, its))
                        yield Coupling(f"{own} against {effect} in {label}", members)


def _texts(resource: DeviceResource, tag: str) -> list[str]:
    value = (resource.tags or {}).get(tag)
    if value is None:
        return []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise InvalidInputError(f"tag {tag!r} of resource {resource.name!r}: write a word or a list of words")
    return texts


def _active(device: Device, resource: DeviceResource) -> Condition:
    given = (resource.tags or {}).get("active")
    if given is None:
        given = {"equals": True} if resource.properties.value_type == "Bool" else {"above": 0}
    key = (device.name, resource.name)
    try:
        # What stands there is a dict of the owner's; anything else is caught with its words.
        condition = Condition(**{"device": device.name, "resource": resource.name, **given})
        return _checked(condition, {key: resource.properties.value_type})
    except (ValidationError, TypeError) as error:
        text = f"tag 'active' of resource {resource.name!r}: write {{above: …}}, {{below: …}} or {{equals: …}}"
        raise InvalidInputError(text) from error


# --- when a condition holds ------------------------------------------------------------------------


def as_text(value: Value) -> str:
    """Return a value in words."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value).lower() if isinstance(value, bool) else str(value)


def meets(condition: Condition, value: Value, kind: str = "") -> bool:
    """Say whether a value is such as a condition describes; what cannot be compared is not.

    Args:
        condition: the owner's.
        value: of the resource it is about.
        kind: that resource's value type; empty: not known, numbers are compared as such and all else as text.
    """
    kind = "Bool" if isinstance(value, bool) else kind
    if condition.equals is not None and kind:
        try:
            return same_value(value, parse_value(kind, condition.equals))
        except InvalidInputError:
            return False
    if condition.equals is not None:
        return as_text(value) == condition.equals or _number(condition.equals) == _number(value) is not None
    number = _number(value)
    if number is None:
        return False
    if condition.above is not None:
        return number > condition.above
    return condition.below is not None and number < condition.below


def _number(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
