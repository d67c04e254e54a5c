"""How long the texts of a schema are at least is said after a bounded number of looks, or the schema is refused."""

from itertools import product
from typing import Any

import pytest

from edgeagents.errors import InvalidInputError
from edgeagents.inference import schema_length
from edgeagents.inference.schema_length import MOST_CHAIN, check_lengths


def names_of(word: str) -> list[str]:
    """Return all references to a definition, each letter of its name plain or quoted."""
    spelled = [(letter, f"%{ord(letter):02x}") for letter in word]
    return [f"#/$defs/{''.join(letters)}" for letters in product(*spelled)]


def reversed_chain(length: int, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return definitions of which each needs the one before it, the last one looked at first: a round settles one."""
    links = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at - 1}"}]} for at in range(1, length)}
    return {"$defs": {"d0": {"const": 1}, **links, **(more or {})}, "$ref": f"#/$defs/d{length - 1}"}


def looks_of(schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how often parts of a schema were looked at."""
    count = [0]

    def counted(known: schema_length._Known) -> None:
        count[0] += 1

    with monkeypatch.context() as patch:
        patch.setattr(schema_length._Known, "look", counted)
        check_lengths(schema)
    return count[0]


def test_one_part_with_a_thousand_names_is_looked_at_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = names_of("aaaaaaaaaa")
    assert len(names) == 1024
    plain = reversed_chain(60, {"aaaaaaaaaa": {"anyOf": [{"const": 1}] * 20}, "z": {"anyOf": [{"$ref": names[0]}]}})
    many = reversed_chain(60, {"aaaaaaaaaa": {"anyOf": [{"const": 1}] * 20}, "z": {"anyOf": [
        {"$ref": name} for name in names]}})  # fmt: skip
    assert looks_of(many, monkeypatch) < looks_of(plain, monkeypatch) + 5 * len(names)


def test_parts_within_parts_that_need_each_other_are_refused_after_so_many_looks() -> None:
    nested: dict[str, Any] = {"anyOf": [{}] * 2000}
    places = []
    for depth in range(25):
        nested = {"anyOf": [nested]}
        places.append("#/$defs/x" + "/anyOf/0" * depth)
    with pytest.raises(InvalidInputError, match="schema: too involved"):
        check_lengths(reversed_chain(60, {"x": nested, "y": {"anyOf": [{"$ref": place} for place in places]}}))


def test_a_large_schema_without_a_knot_is_no_trouble() -> None:
    leaves: dict[str, Any] = {"anyOf": [{}] * 15_000}
    for _ in range(28):
        leaves = {"anyOf": [leaves]}
    check_lengths(leaves)
    check_lengths({"$defs": {f"d{at}": {"const": at} for at in range(900)}, "anyOf": [
        {"$ref": f"#/$defs/d{at}"} for at in range(900)]})  # fmt: skip


def test_a_chain_of_references_is_followed_as_far_as_before() -> None:
    check_lengths(reversed_chain(MOST_CHAIN - 2))
    with pytest.raises(InvalidInputError, match="no end"):
        check_lengths(reversed_chain(MOST_CHAIN + 8))


@pytest.mark.parametrize("name", ["#/$defs/a%62", "#/$defs/ab", "#/%24defs/%61b"])
def test_a_quoted_name_names_what_the_plain_one_does(name: str) -> None:
    long = {"type": "string", "pattern": "^x{40000}$"}
    with pytest.raises(InvalidInputError, match="more than"):
        check_lengths({"$defs": {"ab": long}, "$ref": name})
    with pytest.raises(InvalidInputError, match="no end"):
        check_lengths({"$defs": {"ab": {"allOf": [{"$ref": name}]}}})
