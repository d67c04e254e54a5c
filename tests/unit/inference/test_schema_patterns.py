"""How many patterns hold at once for a text is said before anything is compiled, and more than a few are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.inference import schema_patterns
from edgeagents.inference.json_schema import schema_grammar, tools_grammar
from edgeagents.inference.schema_patterns import MOST_JOINED, MOST_STEPS, MOST_TOGETHER, check_patterns

MANY = "patterns may hold for|too involved"


def text(number: int = 0, **more: Any) -> dict[str, Any]:
    """Return a text with a pattern of its own; two dozen of them at once took all memory."""
    return {"type": "string", "pattern": f"^.*a.{{{number}}}b.*$", **more}


def held(**properties: Any) -> dict[str, Any]:
    """Return an object that needs all of these properties."""
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def within_all(count: int) -> dict[str, Any]:
    return held(x={"allOf": [text(at) for at in range(count)]})


def in_a_chain(count: int) -> dict[str, Any]:
    links = {f"d{at}": text(at) | {"$ref": f"#/$defs/d{at + 1}"} for at in range(count - 1)}
    return {"$defs": {**links, f"d{count - 1}": text(count - 1)}, "$ref": "#/$defs/d0"}


def in_a_mixed_chain(count: int) -> dict[str, Any]:
    """Return a chain of references in an order in which no round settles it at once."""
    order = [(at * 3) % count for at in range(count)]
    assert len(set(order)) == count
    links = {f"d{at}": {"allOf": [text(at), {"$ref": f"#/$defs/d{at + 1}"}]} for at in order if at < count - 1}
    return {"$defs": {**links, f"d{count - 1}": text(count - 1)}, "$ref": "#/$defs/d0"}


def in_properties(count: int) -> dict[str, Any]:
    return {"allOf": [held(x=text(at)) for at in range(count)]}


def beside_other_properties(count: int) -> dict[str, Any]:
    others = [{"type": "object", "additionalProperties": text(at)} for at in range(1, count)]
    return {"allOf": [held(x=text()), *others]}


def in_items(count: int) -> dict[str, Any]:
    half = [{"type": "array", "minItems": 1, "items": text(at)} for at in range(count // 2)]
    return {"allOf": [*half, *({"type": "array", "prefixItems": [text(at)]} for at in range(count - count // 2))]}


def in_choices(count: int) -> dict[str, Any]:
    return {"allOf": [{"anyOf": [{"type": "null"}, text(at)]} for at in range(count)]}


def beside_choices(count: int) -> dict[str, Any]:
    found = text()
    for at in range(1, count):
        found = text(at, anyOf=[found, {"const": "x"}])
    return found


def in_formats(count: int) -> dict[str, Any]:
    return {"allOf": [{"type": "string", "format": "uri", "pattern": "a"}] * (count // 2) + [text()] * (count % 2)}


SHAPES = [within_all, in_a_chain, in_a_mixed_chain, in_properties, beside_other_properties, in_items, in_choices,
          beside_choices, in_formats]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_few_patterns_may_hold_for_a_text_and_more_are_refused_before_anything_is_compiled(shape: Any) -> None:
    check_patterns(shape(MOST_TOGETHER))
    for count in (MOST_TOGETHER + 1, 25):
        whole = shape(count)
        tool = held(x={name: part for name, part in whole.items() if name != "$defs"})
        tool |= {"$defs": whole.get("$defs", {})}
        with pytest.raises(InvalidInputError, match=MANY):
            check_patterns(whole)
        with pytest.raises(InvalidInputError, match=MANY):
            schema_grammar(whole)
        with pytest.raises(InvalidInputError, match=MANY):
            tools_grammar([("go", tool)], is_required=True)


def test_patterns_of_different_texts_are_not_added_up() -> None:
    many = {"allOf": [{"type": "object", "properties": {f"p{at}_{of}": text(at) for of in range(20)}}
                      for at in range(10)]}  # fmt: skip
    check_patterns(many)
    check_patterns(held(**{f"p{at}": text(at, format="uri") for at in range(300)}))
    check_patterns({"anyOf": [text(at) for at in range(900)]})
    kinds = [{"$ref": f"#/$defs/d{at}"} for at in range(25)]
    of_any = [{f"a{at}": {"anyOf": kinds}} | {f"{letter}{at}": text() for letter in "bcdef"} for at in range(25)]
    check_patterns({"$defs": {f"d{at}": held(**properties) for at, properties in enumerate(of_any)}})
    check_patterns({"allOf": [held(x={"enum": [f"v{at}" for at in range(60)]}) for _ in range(30)]})


def test_a_schema_that_names_itself_is_no_trouble() -> None:
    tree = held(x=text(format="uri"), n={"anyOf": [{"$ref": "#"}, {"type": "null"}]})
    check_patterns(tree)
    lists = {"anyOf": [text(), *({"type": "array", "minItems": at, "items": {"$ref": "#"}} for at in range(3))]}
    check_patterns(lists)
    for itself in ({"$ref": "#/$defs/a"}, {"allOf": [{"$ref": "#/$defs/a"}, text()]}):
        with pytest.raises(InvalidInputError):
            schema_grammar({"$defs": {"a": text(1, allOf=[itself])}, "$ref": "#/$defs/a"})


@pytest.mark.parametrize("depth", [2, 3])
def test_choices_that_are_combined_count_each_way(depth: int) -> None:
    few, many = (5, 30) if depth == 2 else (5, 9)
    for count in (few, many):
        at_once = {"allOf": [{"anyOf": [text(at * 100 + of) for of in range(count)]} for at in range(depth)]}
        objects = {"allOf": [{"anyOf": [held(x=text(at * 100 + of)) for of in range(count)]} for at in range(depth)]}
        named = {"$defs": {f"d{at}": {"anyOf": [text(at * 100 + of) for of in range(count)]} for at in range(depth)},
                 "allOf": [{"$ref": f"#/$defs/d{at}"} for at in range(depth)]}  # fmt: skip
        for schema in (at_once, objects, named):
            if count**depth <= MOST_JOINED:
                check_patterns(schema)
            else:
                with pytest.raises(InvalidInputError, match="several patterns"):
                    check_patterns(schema)


def test_choices_of_choices_are_counted_without_being_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 40} for at in range(6)}
    schema = {"$defs": {**wide, "d6": text()}, "$ref": "#/$defs/d0", **text(1)}
    monkeypatch.setattr(schema_patterns, "MOST_LOOKS", 20_000)
    with pytest.raises(InvalidInputError, match="several patterns"):
        check_patterns(schema)


def test_what_would_take_long_to_count_is_refused() -> None:
    nested: dict[str, Any] = {"anyOf": [text()] * 900}
    places = []
    for depth in range(50):
        nested = {"anyOf": [nested]}
        places.append({"$ref": "#/$defs/x" + "/anyOf/0" * depth})
    with pytest.raises(InvalidInputError, match="too involved"):
        check_patterns({"$defs": {"x": nested, "y": {"anyOf": places}}, **text(format="uri")})


@pytest.mark.parametrize("multiple", [0.01, 0.5, 1000000, 86400, 1e-9, 2.5, 99999])
def test_what_has_few_digits_may_be_multiplied(multiple: float) -> None:
    check_patterns(held(x={"type": "number", "multipleOf": multiple}))


def test_multiples_that_cost_many_states_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="multipleOf"):
        check_patterns(held(x={"type": "integer", "multipleOf": MOST_STEPS + 3}))
    with pytest.raises(InvalidInputError, match="multipleOf"):
        check_patterns(held(**{f"p{at}": {"type": "integer", "multipleOf": 9973 - at} for at in range(20)}))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["allOf", "anyOf", "oneOf", "$ref", "properties", "items", "prefixItems", "pattern", "format",
                         "additionalProperties", "patternProperties", "multipleOf", "x"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["allOf", "anyOf", "$ref", "properties", "items", "pattern"]), values))
def test_whatever_stands_in_a_schema_it_is_counted_or_refused(schema: dict[str, Any]) -> None:
    try:
        check_patterns(schema)
    except InvalidInputError:
        return
