"""Finds wishes of different agents that cannot both hold, before any of them is carried out.

Three kinds: the same resource wanted at two values at one time; resources that are coupled, by the owner's interlocks
or by tags in their profiles (`couplings.py`); two bodies in one place at one time. What is so already (an open window)
takes part as a wish of nobody. Wishes of one agent are its own affair: its newest counts, and the guard's gate has the
last word. Values are compared as the gate does, by the type of their resource (`kinds_of`).

Source: design.md section 5; style.md section 2.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any, Final, Literal, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.values import Value, check_value, format_value, parse_value, same_value
from edgeagents.protocol.couplings import Coupling, Kinds, as_text, meets
from edgeagents.protocol.limits import is_number

Kind: TypeAlias = Literal["resource", "coupling", "space"]
Box: TypeAlias = tuple[tuple[float, float], ...]
"""From where to where along each axis, in metres; the lower edge belongs to it, the upper one does not."""
MOST_LISTED: Final = 10_000  # conflicts; of those beyond only such as bring wishes together that did not before


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
        tolerance: within which it takes two values of the resource for one; of two wishes the smaller one counts, so
            that nobody hides a conflict from the other.
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


Pair: TypeAlias = tuple[Kind, Wish, Wish, str]
"""A conflict that was found, without its words; the text names the coupling or the space."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two wishes that cannot both hold, and why."""

    kind: Kind
    first: str
    second: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """All conflicts, and the wishes that could not be looked at, each with its reason.

    `unlisted` more were found where there are very many: of wishes that hang together by those that are listed.
    """

    conflicts: tuple[Conflict, ...]
    refused: tuple[tuple[str, str], ...] = ()
    unlisted: int = 0

    def groups(self) -> list[tuple[str, ...]]:
        """Return the wishes that hang together by conflicts: each group is one for the ladder to settle."""
        groups = _Groups()
        for conflict in self.conflicts:
            groups.join(conflict.first, conflict.second)
        members: dict[str, list[str]] = defaultdict(list)
        for name in sorted(groups.root):
            members[groups.top(name)].append(name)
        return sorted(tuple(names) for names in members.values())


class _Groups:
    """Which names hang together (union-find)."""

    def __init__(self) -> None:
        self.root: dict[str, str] = {}

    def top(self, name: str) -> str:
        """Return the name that stands for a name's group."""
        root = self.root
        while root.setdefault(name, name) != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    def join(self, one: str, other: str) -> bool:
        """Bring two together, and say whether they were not before."""
        first, second = self.top(one), self.top(other)
        self.root[first] = second
        return first != second


def find_conflicts(
    wishes: Sequence[Wish],
    couplings: Sequence[Coupling] = (),
    clearance_s: float = 0.0,
    kinds: Kinds | None = None,
) -> Found:
    """Return which wishes cannot both hold.

    Args:
        wishes: of all agents; each id once.
        couplings: of resources, from `couplings_of`.
        clearance_s: how long a place stays empty between two bodies.
        kinds: of the resources, from `kinds_of`; values of others are compared as they are.

    Raises:
        InvalidInputError: the clearance is no number of 0 or more.
    """
    if not (is_number(clearance_s) and clearance_s >= 0):
        raise InvalidInputError(f"a clearance is a number of seconds, 0 or more, not {clearance_s!r:.40}")
    refused, sound = [], []
    seen: set[str] = set()
    for wish in wishes:
        problem = f"a second wish {wish.id!r}" if wish.id in seen else _problem(wish)
        seen.add(wish.id)
        kind = (kinds or {}).get((wish.device, wish.resource), "")
        try:
            typed = replace(wish, value=_typed(wish.value, kind)) if kind and not problem else wish
        except InvalidInputError as error:
            problem = f"its value: {error}"
        if problem:
            refused.append((wish.id, problem))
        else:
            sound.append(typed)
    pairs = itertools.chain(
        _same_resource(sound), _coupled(sound, couplings, kinds or {}), _same_place(sound, clearance_s)
    )
    conflicts, unlisted = _listed(pairs)
    return Found(conflicts, tuple(refused), unlisted)


def _listed(pairs: Iterable[Pair]) -> tuple[tuple[Conflict, ...], int]:
    """Return conflicts in order, and how many more there are: a flood of them is counted, its groups are kept."""
    once: set[tuple[Kind, str, str, str]] = set()
    conflicts: list[Conflict] = []
    groups, unlisted = _Groups(), 0
    for kind, one, other, name in pairs:
        key = (kind, one.id, other.id, name)
        if key in once:
            continue
        is_new = groups.join(one.id, other.id)
        if len(conflicts) >= MOST_LISTED and not is_new:
            unlisted += 1
            continue
        once.add(key)
        conflicts.append(Conflict(kind, one.id, other.id, _reason(kind, one, other, name)))
    return tuple(sorted(conflicts, key=lambda item: (item.first, item.second, item.kind, item.reason))), unlisted


def _reason(kind: Kind, one: Wish, other: Wish, name: str) -> str:
    match kind:
        case "resource":
            return (
                f"{one.device}/{one.resource}: {_who(one)} {as_text(one.value)}, {_who(other)} {as_text(other.value)}"
            )
        case "coupling":
            return f"{name}: {_what(one)} while {_what(other)}"
        case "space":
            who = " and ".join(wish.agent or "a body" for wish in (one, other))
            return f"{who} in one place of {name or 'the site'} at one time"


def _problem(wish: Wish) -> str:
    """Return why a wish cannot be looked at; empty when it can."""
    edges = [edge for axis in wish.where or () for edge in axis]
    if not all(map(is_number, (wish.from_s, wish.until_s, *edges))):
        return "its times and places must be numbers"
    if not wish.from_s < wish.until_s:
        return f"it ends at {wish.until_s:g} s, before it begins at {wish.from_s:g} s"
    if any(low > high for low, high in wish.where or ()):
        return "its place ends before it begins"
    if not (is_number(wish.tolerance) and wish.tolerance >= 0):
        return f"its tolerance is a number of 0 or more, not {wish.tolerance!r:.40}"
    if isinstance(wish.value, float) and math.isnan(wish.value):
        return "its value is no number"
    if wish.where is None and not (wish.device and wish.resource):
        return "it names neither a device resource nor a place"
    return ""


def _typed(value: Value, kind: str) -> Value:
    """Return a value as its resource would hold it: a text stands for what it says, a Float32 is rounded.

    Raises:
        InvalidInputError: it is no value of that type.
    """
    if kind in ("Binary", "Object", "ObjectArray"):
        check_value(kind, value)
        return value
    is_text = isinstance(value, str) and kind != "String"
    found = parse_value(kind, str(value) if is_text else format_value(kind, value))
    if isinstance(found, float) and math.isnan(found):
        raise InvalidInputError("it is no number")
    return found


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


def _same_resource(wishes: Iterable[Wish]) -> Iterator[Pair]:
    of_resources = (wish for wish in wishes if wish.device)
    for group in _by(of_resources, lambda wish: (wish.device, wish.resource)):
        for one, other in _meeting(group):
            if not same_value(one.value, other.value, min(one.tolerance, other.tolerance)):
                yield "resource", one, other, ""


def _coupled(wishes: Sequence[Wish], couplings: Sequence[Coupling], kinds: Kinds) -> Iterator[Pair]:
    by_key: dict[tuple[str, str], list[Wish]] = defaultdict(list)
    for wish in wishes:
        by_key[wish.device, wish.resource].append(wish)
    for coupling in couplings:
        holding: dict[str, tuple[Wish, set[int]]] = {}
        for place, member in enumerate(coupling.members):
            key = (member.device, member.resource)
            for wish in by_key.get(key, ()):
                if meets(member, wish.value, kinds.get(key, "")):
                    holding.setdefault(wish.id, (wish, set()))[1].add(place)
        for one, other in _meeting(wish for wish, _ in holding.values()):
            if len(holding[one.id][1] | holding[other.id][1]) > 1 and _differ(one, other):
                yield "coupling", one, other, coupling.name


def _differ(one: Wish, other: Wish) -> bool:
    return (one.device, one.resource) != (other.device, other.resource)


def _same_place(wishes: Iterable[Wish], clearance_s: float) -> Iterator[Pair]:
    bodies = (wish for wish in wishes if wish.where is not None)
    for group in _by(bodies, lambda wish: wish.space):
        for one, other in _meeting(group, clearance_s):
            if _overlap(one.where or (), other.where or ()):
                yield "space", one, other, one.space


def _overlap(one: Box, other: Box) -> bool:
    """Say whether two boxes share more than an edge; an axis that only one has does not part them.

    Where both begin they share a place, be it a point: a body without extent is somewhere, too.
    """
    return all(
        low == bottom or (low < top and bottom < high) for (low, high), (bottom, top) in zip(one, other, strict=False)
    )


def _who(wish: Wish) -> str:
    return f"{wish.agent} wants" if wish.agent else "it is"


def _what(wish: Wish) -> str:
    return f"{wish.device}/{wish.resource} = {as_text(wish.value)} ({wish.agent or 'as it is'})"
