"""Finds wishes of different agents that cannot both hold, before any of them is carried out.

Three kinds: the same resource wanted at two values at one time; resources that are coupled, by the owner's interlocks
or by tags in their profiles; two bodies in one place at one time. What is so already (an open window) takes part as a
wish of nobody. Wishes of one agent are its own affair: its newest counts, and the guard's gate has the last word.

Tags of a device resource in a profile, with labels `prefix:name` of devices that say what belongs together:

    exclusive: zone                          at most one of those with the same label `zone:…` is active
    effect: heat, against: vent, within: room   active together with an effect `vent` of the same `room:…`: a conflict
    active: {above: 18}                      when it counts as active; else when it is true, or above 0

Source: design.md section 5; style.md section 2.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.site import Condition, Site
from edgeagents.model.values import Value, same_value

Kind: TypeAlias = Literal["resource", "coupling", "space"]
Box: TypeAlias = tuple[tuple[float, float], ...]
"""From where to where along each axis, in metres."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an agent wants to hold from `from_s` until `until_s` (site seconds, the end left out).

    Args:
        id: names it in what is found.
        agent: who wants it; empty: nobody, it is so.
        device: of the resource; empty when only a place is wanted.
        resource: name of the device resource.
        value: what it shall be.
        where: the room a body takes up meanwhile; None: no matter where.
        space: which place the axes belong to; boxes of two spaces never meet.
        tolerance: within which two values of the resource are one.
    """

    id: str
    agent: str
    device: str
    resource: str
    value: Value
    from_s: float
    until_s: float
    where: Box | None = None
    space: str = ""
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Coupling:
    """Of these conditions at most one may hold at a time."""

    name: str
    members: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two wishes that cannot both hold, and why."""

    kind: Kind
    first: str
    second: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """All conflicts, and the wishes that could not be looked at, each with its reason."""

    conflicts: tuple[Conflict, ...]
    refused: tuple[tuple[str, str], ...] = ()

    def groups(self) -> list[tuple[str, ...]]:
        """Return the wishes that hang together by conflicts: each group is one for the ladder to settle."""
        root: dict[str, str] = {}

        def top(name: str) -> str:
            while root.setdefault(name, name) != name:
                root[name] = root[root[name]]
                name = root[name]
            return name

        for conflict in self.conflicts:
            root[top(conflict.first)] = top(conflict.second)
        members: dict[str, list[str]] = defaultdict(list)
        for name in sorted(root):
            members[top(name)].append(name)
        return sorted(tuple(names) for names in members.values())


def find_conflicts(wishes: Sequence[Wish], couplings: Sequence[Coupling] = (), clearance_s: float = 0.0) -> Found:
    """Return which wishes cannot both hold.

    Args:
        wishes: of all agents; each id once.
        couplings: of resources, from `couplings_of`.
        clearance_s: how long a place stays empty between two bodies.
    """
    refused, sound = [], []
    seen: set[str] = set()
    for wish in wishes:
        problem = f"a second wish {wish.id!r}" if wish.id in seen else _problem(wish)
        seen.add(wish.id)
        if problem:
            refused.append((wish.id, problem))
        else:
            sound.append(wish)
    found = [*_same_resource(sound), *_coupled(sound, couplings), *_same_place(sound, clearance_s)]
    once = {(item.kind, item.first, item.second, item.reason): item for item in found}
    return Found(
        tuple(sorted(once.values(), key=lambda item: (item.first, item.second, item.kind, item.reason))), tuple(refused)
    )


def _problem(wish: Wish) -> str:
    """Return why a wish cannot be looked at; empty when it can."""
    edges = [edge for axis in wish.where or () for edge in axis]
    if not all(math.isfinite(number) for number in (wish.from_s, wish.until_s, *edges)):
        return "its times and places must be numbers"
    if not wish.from_s < wish.until_s:
        return f"it ends at {wish.until_s:g} s, before it begins at {wish.from_s:g} s"
    if any(low > high for low, high in wish.where or ()):
        return "its place ends before it begins"
    if isinstance(wish.value, float) and math.isnan(wish.value):
        return "its value is no number"
    if wish.where is None and not (wish.device and wish.resource):
        return "it names neither a device resource nor a place"
    return ""


def _meeting(wishes: Iterable[Wish], clearance_s: float = 0.0) -> Iterator[tuple[Wish, Wish]]:
    """Yield each pair of wishes of different agents that hold at one time, by a sweep along time."""
    ending: list[tuple[float, int, Wish]] = []
    for number, wish in enumerate(sorted(wishes, key=lambda item: (item.from_s, item.id))):
        while ending and ending[0][0] <= wish.from_s:
            heappop(ending)
        for _, _, other in ending:
            if other.agent != wish.agent:
                yield (other, wish) if other.id < wish.id else (wish, other)
        heappush(ending, (wish.until_s + clearance_s, number, wish))


def _by(wishes: Iterable[Wish], key: Any) -> Iterator[list[Wish]]:
    groups: dict[Hashable, list[Wish]] = defaultdict(list)
    for wish in wishes:
        groups[key(wish)].append(wish)
    yield from groups.values()


def _same_resource(wishes: Iterable[Wish]) -> Iterator[Conflict]:
    of_resources = (wish for wish in wishes if wish.device)
    for group in _by(of_resources, lambda wish: (wish.device, wish.resource)):
        for one, other in _meeting(group):
            if not same_value(one.value, other.value, max(one.tolerance, other.tolerance)):
                text = (
                    f"{one.device}/{one.resource}: {_who(one)} {_text(one.value)}, {_who(other)} {_text(other.value)}"
                )
                yield Conflict("resource", one.id, other.id, text)


def _coupled(wishes: Sequence[Wish], couplings: Sequence[Coupling]) -> Iterator[Conflict]:
    by_key: dict[tuple[str, str], list[Wish]] = defaultdict(list)
    for wish in wishes:
        by_key[wish.device, wish.resource].append(wish)
    for coupling in couplings:
        holding: dict[str, tuple[Wish, set[int]]] = {}
        for place, member in enumerate(coupling.members):
            for wish in by_key.get((member.device, member.resource), ()):
                if meets(member, wish.value):
                    holding.setdefault(wish.id, (wish, set()))[1].add(place)
        for one, other in _meeting(wish for wish, _ in holding.values()):
            if len(holding[one.id][1] | holding[other.id][1]) > 1 and _differ(one, other):
                text = f"{coupling.name}: {_what(one)} while {_what(other)}"
                yield Conflict("coupling", one.id, other.id, text)


def _differ(one: Wish, other: Wish) -> bool:
    return (one.device, one.resource) != (other.device, other.resource)


def _same_place(wishes: Iterable[Wish], clearance_s: float) -> Iterator[Conflict]:
    bodies = (wish for wish in wishes if wish.where is not None)
    for group in _by(bodies, lambda wish: wish.space):
        for one, other in _meeting(group, clearance_s):
            if _overlap(one.where or (), other.where or ()):
                who = " and ".join(wish.agent or "a body" for wish in (one, other))
                text = f"{who} in one place of {one.space or 'the site'} at one time"
                yield Conflict("space", one.id, other.id, text)


def _overlap(one: Box, other: Box) -> bool:
    """Say whether two boxes share more than an edge; an axis that only one has does not part them."""
    return all(low < top and bottom < high for (low, high), (bottom, top) in zip(one, other, strict=False))


def _who(wish: Wish) -> str:
    return f"{wish.agent} wants" if wish.agent else "it is"


def _what(wish: Wish) -> str:
    return f"{wish.device}/{wish.resource} = {_text(wish.value)} ({wish.agent or 'as it is'})"


def _text(value: Value) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value).lower() if isinstance(value, bool) else str(value)


def meets(condition: Condition, value: Value) -> bool:
    """Say whether a value is such as a condition describes; what cannot be compared is not."""
    if condition.equals is not None:
        return _text(value) == condition.equals or _number(condition.equals) == _number(value) is not None
    number = _number(value)
    if number is None or isinstance(value, bool):
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


# --- what is coupled -------------------------------------------------------------------------------


def couplings_of(site: Site, devices: Mapping[str, Device], profiles: Mapping[str, Profile]) -> list[Coupling]:
    """Return what the owner's interlocks and the profiles' tags couple.

    Raises:
        InvalidInputError: a tag that cannot be understood; profile and resource are named.
    """
    found = [Coupling(f"interlock {lock.name!r}", (lock.forbid, lock.during)) for lock in site.interlocks]
    tagged = [
        (device, resource)
        for device in devices.values()
        if device.profile_name in profiles
        for resource in profiles[device.profile_name].device_resources
        if resource.tags
    ]
    return [*found, *_exclusive(tagged), *_against(tagged)]


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
    try:
        # What stands there is a dict of the owner's; anything else is caught with its words.
        return Condition(**{"device": device.name, "resource": resource.name, **given})
    except (ValidationError, TypeError) as error:
        text = f"tag 'active' of resource {resource.name!r}: write {{above: …}}, {{below: …}} or {{equals: …}}"
        raise InvalidInputError(text) from error
