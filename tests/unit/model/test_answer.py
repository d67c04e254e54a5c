"""Answers are read back, and what the options do not hold is refused whatever it looks like."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.model.answer import (
    Answer,
    CommandAnswer,
    NothingAnswer,
    QuestionAnswer,
    TaskAnswer,
    format_answer,
    parse_answer,
)
from edgeagents.model.answer_schema import answer_schema
from edgeagents.model.options import Options, Slot

OPTIONS = Options(
    slots=(
        Slot(device='lamp "é\\', resource="On", kind="Bool"),
        Slot(device="radiator", resource="Setpoint", kind="Float32", lowest=140, highest=230, decimals=1),
        Slot(device="radiator", resource="Setpoint", kind="Float32", lowest=300, highest=310, decimals=1),
        Slot(device="blind", resource="Position", kind="Uint8", lowest=0, highest=100),
        Slot(device="unit", resource="Mode", kind="String", values=("eco", "comfort")),
        Slot(device="unit", resource="Level", kind="Float64", values=("1.5", "2.15e+01")),
        Slot(device="sign", resource="Text", kind="String", most_chars=5),
    ),
    skills=("heating",), most_text=20,
)  # fmt: skip
LEGAL: list[Answer] = [
    CommandAnswer('lamp "é\\', "On", True), CommandAnswer("radiator", "Setpoint", 14.0),
    CommandAnswer("radiator", "Setpoint", 30.5), CommandAnswer("blind", "Position", 100),
    CommandAnswer("unit", "Mode", "eco"), CommandAnswer("unit", "Level", 21.5), CommandAnswer("sign", "Text", ""),
    TaskAnswer("heating", "by seven"), QuestionAnswer("Which 房间?"), NothingAnswer("all is well"),
]  # fmt: skip


@pytest.mark.parametrize("answer", LEGAL, ids=str)
def test_a_legal_answer_is_read_back(answer: Answer) -> None:
    assert parse_answer(format_answer(answer), OPTIONS) == answer
    spread = json.dumps(json.loads(format_answer(answer)), indent=2)
    assert parse_answer(spread, OPTIONS) == answer


def test_a_number_may_be_spelled_otherwise_but_not_be_another_kind() -> None:
    assert parse_answer('{"device":"radiator","resource":"Setpoint","value":21}', OPTIONS) == CommandAnswer(
        "radiator", "Setpoint", 21.0
    )
    found = parse_answer('{"device":"blind","resource":"Position","value":5e0}', OPTIONS)
    assert isinstance(found, CommandAnswer)
    assert type(found.value) is int


@pytest.mark.parametrize(
    "text",
    [
        "", "nothing", "[]", "{}", '{"nothing":""}', '{"nothing":"x","ask":"y"}', '{"nothing":1}',
        '{"nothing":"a\\nb"}',
        '{"nothing":"' + 21 * "x" + '"}', '{"ask":"\\u202eabc"}', '{"ask":"\\ud800"}', '{"ask":"x","ask":"y"}',
        '{"skill":"cooling","text":"x"}', '{"skill":["heating"],"text":"x"}',
        *(
            f'{{"device":"{device}","resource":"{resource}","value":{value}}}'
            for device, resource, value in (
                ("oven", "On", "true"), ("radiator", "On", "true"), ("radiator", "Setpoint", "13.9"),
                ("radiator", "Setpoint", "25"), ("radiator", "Setpoint", '"21"'), ("radiator", "Setpoint", "NaN"),
                ("radiator", "Setpoint", "1e999"), ("radiator", "Setpoint", "true"),
                ("radiator", "Setpoint", 400 * "9"), ("blind", "Position", "5.5"), ("blind", "Position", "101"),
                ("unit", "Mode", '"turbo"'), ("unit", "Level", "2"), ("sign", "Text", '"too long"'),
                ("sign", "Text", "null"),
            )
        ),
        '{"device":["radiator"],"resource":"Setpoint","value":21}', "[" * 5000, '{"ask":"x"}' + " " * 9000,
    ],
)  # fmt: skip
def test_what_is_no_answer_or_not_legal_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_answer(text, OPTIONS)


def test_a_question_is_no_answer_where_nobody_can_be_asked() -> None:
    with pytest.raises(InvalidInputError):
        parse_answer('{"ask":"x"}', Options(may_ask=False))


devices = st.sampled_from(["radiator", "blind", "unit", "sign"])
resources = st.sampled_from(["Setpoint", "Position", "Mode", "Level", "Text"])
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)


@given(
    st.one_of(
        st.text(), json_values.map(json.dumps),
        st.fixed_dictionaries({"device": devices, "resource": resources, "value": json_values}).map(json.dumps),
    )
)  # fmt: skip
def test_any_text_is_an_answer_that_is_legal_or_a_refusal(text: str) -> None:
    try:
        answer = parse_answer(text, OPTIONS)
    except InvalidInputError:
        return
    assert parse_answer(format_answer(answer), OPTIONS) == answer


def test_the_schema_for_other_servers_groups_devices_and_holds_all_slots() -> None:
    slots = tuple(Slot(device=f"lamp-{number}", resource="On", kind="Bool") for number in range(50))
    schema = answer_schema(Options(slots=slots, skills=("heating",)))
    assert len(schema["anyOf"]) == 4
    assert schema["anyOf"][-1]["properties"]["device"]["enum"] == [slot.device for slot in slots]
    numbers = answer_schema(OPTIONS)["anyOf"]
    assert {"type": "number", "minimum": 14.0, "maximum": 23.0} in [item["properties"].get("value") for item in numbers]


def test_an_answer_nested_to_the_limit_of_what_can_be_read_is_refused() -> None:
    options = Options(skills=("heating",))
    for depth in range(900, 1000):  # a text of the deepest value that can be read cannot be made
        with pytest.raises(InvalidInputError):
            parse_answer(f'{{"nothing":{"[" * depth}{"]" * depth}}}', options)
