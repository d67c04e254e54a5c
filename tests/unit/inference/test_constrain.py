"""Whatever a model would like to say, what it says is an answer its agent may give, or JSON of the schema."""

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError, UnavailableError
from edgeagents.inference.constrain import Grammars, Held
from edgeagents.inference.json_schema import MOST_SCHEMA_CHARS, MOST_TEXT, MOST_WHOLE
from edgeagents.inference.schema_patterns import MOST_TOGETHER
from edgeagents.model.answer import CommandAnswer, QuestionAnswer, parse_answer
from edgeagents.model.options import UNSHOWN, Options, Slot
from tests.unit.inference.rows import END, VOCAB, vocabulary

WORDS = vocabulary()
GRAMMARS = Grammars.of(WORDS, [END])
ROOM = {
    "type": "object",
    "properties": {"room": {"enum": ["a", "b"]}},
    "required": ["room"],
    "additionalProperties": False,
}


def written(held: Held, chance: np.random.Generator, most: int = 400) -> tuple[str, bool]:
    """Return what a model of random likings writes, and whether it ended by itself."""
    tokens = held.begin()
    while not held.is_over and len(tokens) < most:
        logits = chance.normal(size=VOCAB).astype(np.float32)
        held.mask(logits)
        token = int(logits.argmax())
        if token == END:
            return WORDS.decode(tokens), held.can_end
        tokens += [token, *held.accept(token)]
    return WORDS.decode(tokens), held.is_over


def spell(held: Held, text: str) -> None:
    """Have a text written, whatever a model would like."""
    left = WORDS.encode(text)
    while left:
        forced = held.accept(left.pop(0))
        assert left[: len(forced)] == forced[: len(left)]
        left = left[len(forced) :]


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
kinds = st.sampled_from(["Bool", "Float32", "Float64", "Int8", "Uint64", "String"])


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    kind = draw(kinds)
    values: dict[str, Any] = {"device": draw(names), "resource": draw(names), "kind": kind}
    if kind.startswith("Float"):
        low = draw(st.integers(-500, 500))
        values |= {"lowest": low, "highest": low + draw(st.integers(0, 1000)), "decimals": draw(st.integers(1, 3))}
    elif kind == "Int8":
        values |= {"lowest": draw(st.integers(-128, 0)), "highest": draw(st.integers(0, 127))}
    elif kind == "Uint64":
        values |= {"lowest": draw(st.integers(0, 2**63)), "highest": draw(st.integers(2**63, 2**64 - 1))}
    elif kind == "String":
        values |= {"values": tuple(draw(st.lists(names, max_size=3)))} if draw(st.booleans()) else {"most_chars": 6}
    return Slot.model_validate(values)


@settings(deadline=None, max_examples=80)
@given(st.lists(slots(), max_size=6), st.integers(0, 2**32), st.booleans())
def test_all_that_can_be_written_is_legal_whatever_devices_are_called(
    found: list[Slot], seed: int, may_ask: bool
) -> None:
    options = Options(slots=tuple(found), skills=("heating",), may_ask=may_ask, most_text=15)
    chance = np.random.default_rng(seed)
    for _ in range(4):
        text, ended = written(GRAMMARS.for_options(options), chance)
        assert ended
        parse_answer(text, options)


def test_a_profile_with_a_thousand_resources_is_held_to() -> None:
    many = tuple(
        Slot(device="d", resource=f"r{number}", kind="Int16", lowest=-number, highest=number) for number in range(1000)
    )
    options = Options(slots=many, most_text=15)
    chance = np.random.default_rng(5)
    found = [parse_answer(written(GRAMMARS.for_options(options), chance)[0], options) for _ in range(40)]
    assert len({answer.resource for answer in found if isinstance(answer, CommandAnswer)}) > 5


def test_what_follows_in_any_case_is_not_asked_for() -> None:
    options = Options(slots=(Slot(device="only", resource="On", kind="Bool"),), may_ask=False)
    held = GRAMMARS.for_options(options)
    assert WORDS.decode(held.begin()) == '{"'
    choices = WORDS.encode("d")
    assert WORDS.decode(held.accept(choices[0])) == 'evice":"only","resource":"On","value":'
    assert not held.can_end


def test_texts_hold_no_letter_that_cannot_be_shown() -> None:
    held = GRAMMARS.for_options(Options())
    start = held.begin()
    for low, high in UNSHOWN:
        for letter in {chr(low), chr(high)}:
            fresh = GRAMMARS.for_options(Options())
            assert fresh.begin() == start
            with pytest.raises(UnavailableError, match="cannot go on"):
                spell(fresh, f'ask":"{letter}')
            with pytest.raises(InvalidInputError):
                parse_answer(json.dumps({"ask": f"x{letter}"}), Options())
    assert parse_answer('{"ask":"房间 é ?"}', Options()) == QuestionAnswer("房间 é ?")


def test_a_compiled_grammar_is_kept_and_the_oldest_goes() -> None:
    grammars = Grammars.of(WORDS, [END])
    for most_text in (5, 6, 5):
        grammars.for_options(Options(most_text=most_text))
    assert (grammars.hits, grammars.misses) == (1, 2)
    small = Grammars(grammars._tokens, kept=1)
    for most_text in (5, 6, 5):
        small.for_options(Options(most_text=most_text))
    assert (small.hits, small.misses) == (0, 3)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 5, "maxLength": 2}, {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"enum": []}, {"type": "integer", "minimum": 5, "maximum": 3}, {"type": "foo"}, {"not": {}}, False, None, [],
        {"$ref": "#/$defs/x"}, {"enum": ["x" * MOST_SCHEMA_CHARS]}, {"type": "number", "minimum": float("nan")},
        {"type": "string", "minLength": "many"},
    ],
    ids=lambda schema: str(schema)[:40],
)  # fmt: skip
def test_a_schema_that_nothing_fulfils_or_that_cannot_be_held_to_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidInputError):
        GRAMMARS.for_schema(schema)


NEEDS_ITSELF = {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}
TREE = {
    "type": "object", "required": ["n"], "additionalProperties": False,
    "properties": {"n": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/b"}, {"const": 1}]}},
    "$defs": {"b": {"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 2}},
}  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "maximum": 10**300}, {"enum": [10**300]}, {"$ref": "#"}, NEEDS_ITSELF,
        {"type": "array", "items": {"const": "a" * 400}, "minItems": 3000},
        {"anyOf": [{"const": 1}, {"type": "array", "items": {"const": "a" * 400}, "minItems": 3000}]},
        {"type": "array", "items": {"type": "string", "pattern": "^(a{99}){9}$"}, "minItems": 99},
        {"type": "object", "properties": {"o": NEEDS_ITSELF | {"properties": {"n": {"$ref": "#/properties/o"}}}}},
    ],
    ids=lambda schema: str(schema)[:60],
)  # fmt: skip
def test_a_schema_that_would_hold_up_everybody_is_refused_before_a_text_is_begun(schema: Any) -> None:
    began_s = time.thread_time()
    with pytest.raises(InvalidInputError):
        GRAMMARS.for_schema(schema)
    assert time.thread_time() - began_s < 0.5


def test_a_schema_that_names_itself_and_has_a_way_out_is_held_to() -> None:
    found = {written(GRAMMARS.for_schema(TREE), np.random.default_rng(seed))[0] for seed in range(8)}
    assert '{"n":1}' in found
    assert len(found) > 1


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidInputError, match="nested"):
        GRAMMARS.for_schema(schema)


def test_json_of_a_schema_is_compact_and_bounded() -> None:
    schema = {
        "type": "object", "required": ["room", "count"], "additionalProperties": False,
        "properties": {"room": {"enum": ["a", "b"]}, "count": {"type": "integer"}},
    }  # fmt: skip
    chance = np.random.default_rng(2)
    for _ in range(20):
        text, ended = written(GRAMMARS.for_schema(schema), chance)
        assert ended
        found = json.loads(text)
        assert set(found) == {"room", "count"}
        assert json.dumps(found, separators=(",", ":")) == text


def fits(schema: Any, text: str) -> bool:
    """Return whether a text fulfils a schema, as it is held to."""
    held = GRAMMARS.for_schema(schema)
    tokens, opening = WORDS.encode(text), held.begin()
    if tokens[: len(opening)] != opening:
        return False
    rest = tokens[len(opening) :]
    return held._matcher.try_consume_tokens(rest) == len(rest) and held.can_end


@pytest.mark.parametrize("more", [[], ["null"], ["boolean", "null"]], ids=str)
def test_texts_and_whole_numbers_are_bounded_whatever_else_a_value_may_be(more: list[str]) -> None:
    def kind(name: str) -> dict[str, Any]:
        return {"type": [name, *more] if more else name}

    assert fits(kind("string"), json.dumps("x" * MOST_TEXT))
    assert not fits(kind("string"), json.dumps("x" * (MOST_TEXT + 1)))
    assert fits(kind("string") | {"maxLength": 600}, json.dumps("x" * 600))
    for number in (0, 7, -7, MOST_WHOLE, -MOST_WHOLE):
        assert fits(kind("integer"), str(number))
    for number in (MOST_WHOLE + 1, -MOST_WHOLE - 1, int("1" * 401)):
        assert not fits(kind("integer"), str(number))
    for text in ("0.5", "-3.25", "1e5"):
        assert fits(kind("number"), text)
    if more:
        assert all(fits(kind(name), "null") for name in ("string", "integer", "number"))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"minimum": -(2**63), "maximum": 2**63 - 1}, "-8999999999999999999"), ({"maximum": 2**63 - 1}, "7"),
        ({"minimum": -1e19, "maximum": 0}, "-8999999999999999999"), ({"maximum": 2**62}, "7"),
    ],
    ids=str,
)  # fmt: skip
def test_bounds_of_64_bits_are_held_to(schema: dict[str, Any], text: str) -> None:
    assert fits({"type": "integer"} | schema, text)


@pytest.mark.parametrize(
    "schema",
    [
        {"maximum": -1e19}, {"minimum": -1e19, "maximum": -1e19}, {"exclusiveMaximum": -1e25},
        {"minimum": -(2**63), "maximum": -(2**63)}, {"minimum": -(2**63), "exclusiveMaximum": -(2**63) + 3},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_would_end_the_process_are_refused(schema: dict[str, Any]) -> None:
    for kind in ("integer", "number", ["integer", "null"]):
        with pytest.raises(InvalidInputError, match="below -9000000000000000000 alone"):
            GRAMMARS.for_schema({"type": kind} | schema)


def test_what_is_said_of_a_number_elsewhere_leaves_it_as_it_is() -> None:
    for number in ("0.5", "1", "2"):
        said = {"anyOf": [{"properties": {"x": {"const": json.loads(number)}}}]}
        schema = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]} | said
        assert fits(schema | {"additionalProperties": False}, f'{{"x":{number}}}')


def test_many_patterns_of_one_text_are_refused_and_a_few_held_to() -> None:
    def patterns(count: int) -> dict[str, Any]:
        return {"allOf": [{"type": "string", "pattern": f"^.*{at}.*$"} for at in range(count)]}

    assert fits(patterns(MOST_TOGETHER), '"3 2 1 0"')
    assert not fits(patterns(MOST_TOGETHER), '"3 2 0"')
    with pytest.raises(InvalidInputError, match="patterns may hold"):
        GRAMMARS.for_schema(patterns(30))


def test_a_tool_is_called_with_arguments_of_its_own_schema() -> None:
    tools: list[tuple[str, Any]] = [
        ("heat", {**ROOM, "properties": {"room": {"$ref": "#/$defs/room"}}, "$defs": {"room": {"enum": ["x", "y"]}}}),
        ("light", ROOM), ("stop", None),
    ]  # fmt: skip
    chance, called = np.random.default_rng(4), set[str]()
    for _ in range(30):
        text, ended = written(GRAMMARS.for_tools(tools, is_required=True), chance)
        assert ended
        found = json.loads(text)
        called.add(found["name"])
        if found["name"] != "stop":
            assert found["arguments"]["room"] in (("x", "y") if found["name"] == "heat" else ("a", "b"))
    assert called == {"heat", "light", "stop"}
    free = GRAMMARS.for_tools(tools, is_required=False)
    assert not free.can_end
    free.accept(WORDS.encode("x")[0])
    assert free.can_end


@pytest.mark.parametrize(
    "parameters",
    [
        None, {}, {"type": ["object", "null"]}, {"properties": {"a": {"type": "boolean"}}},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_are_an_object_whatever_a_tool_says_of_them(parameters: Any) -> None:
    chance = np.random.default_rng(4)
    for _ in range(10):
        text, _ended = written(GRAMMARS.for_tools([("go", parameters)], is_required=True), chance)
        assert text.startswith('{"name":"go","arguments":{')


def test_a_tool_whose_arguments_are_no_object_is_refused() -> None:
    for parameters in ({"type": "array"}, {"$ref": "#/$defs/x", "$defs": {"x": {"type": "array"}}}):
        with pytest.raises(InvalidInputError, match=r"'go'.*'array'"):
            GRAMMARS.for_tools([("go", parameters)], is_required=True)


def test_the_bytes_of_a_token_are_those_it_writes() -> None:
    tokens = WORDS.encode("né 温")
    assert b"".join(GRAMMARS.spelled(token) for token in tokens) == "né 温".encode()


def test_tools_without_names_or_with_one_twice_are_refused() -> None:
    for tools in ([], [("a", None), ("a", None)]):
        with pytest.raises(InvalidInputError, match="names"):
            GRAMMARS.for_tools(tools, is_required=True)
