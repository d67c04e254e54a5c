"""How many patterns of a JSON schema must hold at once: what would take a compiler minutes is refused before it begins.

Where patterns are joined (through `allOf`, through a reference or a choice with something beside it, or pattern and
format of one text) it is computed whether any text fulfils all of them. That takes twice as long for each pattern more,
and is done anew for each way to combine choices. Nothing else bounds it: two dozen patterns, a kilobyte of schema, took
all memory of the machine.

Texts are told apart by the name of the property they are nearest to, wherever it stands: so there may be fewer of them
than is counted here, never more.

Source: JSON Schema 2020-12 as llguidance supports it, which asks of each joined text whether it is empty.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.inference.schema_length import list_at, part_at, parts_of

MOST_TOGETHER: Final = 4  # patterns of one text
MOST_JOINED: Final = 500  # texts with more than one pattern, each way to combine choices counted
MOST_STEPS: Final = 100_000  # of all `multipleOf` together: each costs as many states as it is large
MOST_LOOKS: Final = 200_000  # at parts and their texts, all rounds together: a second
_CHILDREN: Final = frozenset(
    ("properties", "patternProperties", "additionalProperties", "items", "additionalItems", "prefixItems")
)
_ROUNDS: Final = 12
_MANY: Final = MOST_JOINED + 1
_ITSELF, _ITEMS, _OTHER = "", "[]", "*"  # whose texts: of the part, of its items, of any property; of others ".name"


@dataclass(frozen=True, slots=True)
class _Count:
    """Of some texts: how many patterns hold for one of them at once, and in how many ways."""

    together: int = 0
    ways: int = 0

    def capped(self) -> "_Count":
        """Return it with what is too much in any case made equal: so that counting ends."""
        return _Count(min(self.together, MOST_TOGETHER + 1), min(self.ways, _MANY))


_Texts: TypeAlias = dict[str, _Count]


@dataclass(slots=True)
class _Known:
    """What is known of the parts of one schema.

    Args:
        parts: what each reference names, by its text.
        texts: those of each of these parts, by its identity.
        settled: those of all parts, once `texts` changes no more.
        looks: how much was looked at so far.
        joined: texts with several patterns.
    """

    parts: Mapping[str, Any]
    texts: dict[int, _Texts] = field(default_factory=dict)
    settled: dict[int, _Texts] | None = None
    looks: int = 0
    joined: int = 0

    def look(self, much: int = 1) -> None:
        """Count looks.

        Raises:
            InvalidInputError: there were more than `MOST_LOOKS`.
        """
        self.looks += much
        if self.looks > MOST_LOOKS:
            raise InvalidInputError("schema: too involved: fewer references, or parts that need fewer of each other")


def check_patterns(schema: Mapping[str, Any]) -> None:
    """Look at a schema and all its parts.

    Raises:
        InvalidInputError: more than `MOST_TOGETHER` patterns must hold at once for a text, more than `MOST_JOINED`
            texts have several, its `multipleOf` are too large, or it cannot be said with `MOST_LOOKS`.
    """
    parts = list(parts_of(schema))
    if sum(_steps(part.get("multipleOf")) for part in parts) > MOST_STEPS:
        raise InvalidInputError(f"a JSON schema whose multipleOf are more than {MOST_STEPS} together")
    if not any(_own(part) for part in parts) or not any(_joins(part) for part in parts):
        return
    known = _Known({part["$ref"]: part_at(schema, part["$ref"]) for part in parts if isinstance(part.get("$ref"), str)})
    _settle(known)
    known.settled = {}
    for part in parts:
        for text, counts in _joined(_branches(part, known), known).items():
            if sum(count.together for count in counts) > MOST_TOGETHER:
                name = text[1:] or "one text"
                raise InvalidInputError(f"schema: more than {MOST_TOGETHER} patterns may hold for {name!r:.60} at once")
            known.joined += _ways(counts)
        if known.joined > MOST_JOINED:
            raise InvalidInputError(f"a JSON schema with more than {MOST_JOINED} texts that have several patterns")


def _settle(known: _Known) -> None:
    """Count the texts of what references name, to and fro until it changes no more; what goes on growing is much."""
    named = {id(part): part for part in known.parts.values() if isinstance(part, Mapping)}
    order = list(named.items())
    for number in range(_ROUNDS):
        is_changed = False
        for name, part in order:
            found = _texts(part, known)
            changed = {text for text, count in found.items() if known.texts.get(name, {}).get(text) != count}
            if changed and number > _ROUNDS // 2:
                found |= {text: _Count(MOST_TOGETHER + 1, _MANY) for text in changed}
            known.texts[name] = found
            is_changed |= bool(changed)
        if not is_changed:
            return
        order.reverse()
    raise InvalidInputError("schema: too involved: fewer references, or parts that need fewer of each other")


def _texts(schema: Any, known: _Known) -> _Texts:
    """Return the texts of a part, by what is known of references so far."""
    if known.settled is not None and id(schema) in known.settled:
        return known.settled[id(schema)]
    found: _Texts = {}
    for text, counts in _joined(_branches(schema, known), known, least=1).items():
        ways = _ways(counts) if len(counts) > 1 else counts[0].ways
        found[text] = _Count(sum(count.together for count in counts), ways).capped()
    if known.settled is not None and isinstance(schema, Mapping):
        known.settled[id(schema)] = found
    return found


def _branches(schema: Any, known: _Known) -> list[_Texts]:
    """Return the texts of all that must hold at once for a part."""
    known.look()
    if not isinstance(schema, Mapping):
        return []
    own, children = _own(schema), _most(_children(schema, known))
    found = [{_ITSELF: _Count(1, 1)} for _ in range(own)]
    if children:
        found.append(children)
    if isinstance(place := schema.get("$ref"), str):
        found.append(known.texts.get(id(known.parts.get(place)), {}))
    found += [_texts(item, known) for item in list_at(schema, "allOf")]
    found += [_sum(_texts(item, known) for item in list_at(schema, name)) for name in ("anyOf", "oneOf")]
    known.look(sum(len(texts) for texts in found))
    return found


def _joins(schema: Mapping[str, Any]) -> bool:
    """Return whether several things that a part says might hold for one text."""
    said = sum(name in schema for name in ("$ref", "anyOf", "oneOf"))
    children = not _CHILDREN.isdisjoint(schema)
    return said + len(list_at(schema, "allOf")) + _own(schema) + children > 1


def _own(schema: Mapping[str, Any]) -> int:
    return sum(isinstance(schema.get(name), str) for name in ("pattern", "format"))


def _children(schema: Mapping[str, Any], known: _Known) -> Iterator[_Texts]:
    """Yield the texts of what is within a part, under the names that they have from there."""
    for group in ("properties", "patternProperties"):
        if isinstance(children := schema.get(group), Mapping):
            for name, child in children.items():
                yield _named(_texts(child, known), f".{name}" if group == "properties" else _OTHER)
    yield _named(_texts(schema.get("additionalProperties"), known), _OTHER)
    for child in (schema.get("items"), schema.get("additionalItems"), *list_at(schema, "prefixItems")):
        yield _named(_texts(child, known), _ITEMS)


def _named(texts: _Texts, name: str) -> _Texts:
    if _ITSELF not in texts:
        return texts
    rest = {text: count for text, count in texts.items() if text != _ITSELF}
    return _most([rest, {name: texts[_ITSELF]}])


def _most(several: Iterable[_Texts]) -> _Texts:
    """Return the texts of parts that are beside each other."""
    found: _Texts = {}
    for texts in several:
        for text, count in texts.items():
            old = found.get(text, _Count())
            found[text] = _Count(max(old.together, count.together), max(old.ways, count.ways))
    return found


def _sum(several: Iterable[_Texts]) -> _Texts:
    """Return the texts of parts of which one is chosen."""
    found: _Texts = {}
    for texts in several:
        for text, count in texts.items():
            old = found.get(text, _Count())
            found[text] = _Count(max(old.together, count.together), old.ways + count.ways).capped()
    return found


def _joined(branches: list[_Texts], known: _Known, least: int = 2) -> dict[str, list[_Count]]:
    """Return, of each text that has patterns in at least so many branches, what each of these says of it."""
    names = {text for texts in branches for text in texts}
    known.look(len(names) * len(branches))
    found = {}
    for name in names:
        other = _OTHER if name not in (_ITSELF, _ITEMS) else name
        counts = [texts.get(name) or texts.get(other) for texts in branches]
        if len(said := [count for count in counts if count is not None]) >= least:
            found[name] = said
    return found


def _ways(counts: list[_Count]) -> int:
    found = 1
    for count in counts:
        found = min(_MANY, found * max(1, count.ways))
    return found


def _steps(multiple: Any) -> int:
    """Return how many states tell the multiples of a number: its digits, without the zeros at the end, as a number."""
    if isinstance(multiple, bool) or not isinstance(multiple, (int, float)) or not multiple:
        return 0
    found = abs(int(Fraction(repr(multiple)) * 10**12))
    while found and found % 10 == 0:
        found //= 10
    return min(found, MOST_STEPS + 1)
