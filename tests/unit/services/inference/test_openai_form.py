"""What a client asks for is understood or refused, never quietly changed."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from edgeagents.errors import InvalidInputError
from edgeagents.model.completion import Completion
from services.inference.openai_form import ChatRequest, call_of, error_form, finish_reason, first_problem

TOOL = {"type": "function", "function": {"name": "heat", "parameters": {"type": "object"}}}


def asked(**changes: Any) -> ChatRequest:
    values = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | changes
    return ChatRequest.model_validate_json(json.dumps(values))


def test_usual_values_are_openais() -> None:
    wanted = asked().wanted(30.0)
    assert (wanted.temperature, wanted.budget_s, wanted.stop, wanted.constant) == (1.0, 30.0, (), 0)
    wanted = asked(temperature=0, max_tokens=5, stop="end", budget_s=2, seed=-1).wanted(30.0)
    assert (wanted.temperature, wanted.most_tokens, wanted.stop, wanted.budget_s) == (0.0, 5, ("end",), 2.0)
    assert wanted.seed is not None
    assert wanted.seed >= 0


def test_messages_of_all_kinds_become_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "heat", "arguments": '{"a":1}'}}
    wanted = asked(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": " kind"}]},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "done"},
        ]
    ).wanted(30.0)  # fmt: skip
    assert [(message.role, message.content) for message in wanted.messages] == [
        ("system", "be kind"), ("assistant", '{"name":"heat","arguments":{"a":1}}'), ("tool", "done"),
    ]  # fmt: skip
    assert wanted.constant == 1


def test_tools_are_told_of_and_chosen_as_asked() -> None:
    assert "heat" in asked(tools=[TOOL]).wanted(1.0).messages[0].content
    assert not asked(tools=[TOOL], tool_choice="none").called
    named = asked(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "heat"}})
    assert named.is_tool_required
    assert len(named.called) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [TOOL], "response_format": {"type": "json_object"}}, {"tool_choice": "required"},
        {"response_format": {"type": "json_schema"}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "cool"}}},
        {"stop": ["x"] * 17},
    ],
    ids=str,
)  # fmt: skip
def test_what_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        asked(**changes).wanted(30.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 2}, {"top_logprobs": 5}, {"frequency_penalty": 1.0}, {"temperature": 3}, {"messages": []},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "king", "content": "x"}]}, {"max_tokens": 0}, {"tools": [{"type": "web_search"}]},
        {"n": 10**20}, {"top_p": -0.1}, {"logit_bias": {"50256": -100}}, {"functions": [{"name": "heat"}]},
        {"function_call": "auto"}, {"modalities": ["text", "audio"]}, {"audio": {"voice": "x", "format": "wav"}},
        {"web_search_options": {}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_supported_and_would_change_the_answer_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked(**changes)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [([{"type": "image_url", "image_url": {"url": "x"}}], "'image_url'"),
     ([{"type": "text", "text": "x"}, {"type": "input_audio"}], "'input_audio'"), ([{"text": "x"}], "None")],
    ids=str,
)  # fmt: skip
def test_who_sends_a_part_that_is_no_text_is_told_so(parts: list[dict[str, Any]], kind: str) -> None:
    with pytest.raises(ValidationError) as raised:
        asked(messages=[{"role": "user", "content": parts}])
    told = first_problem(raised.value)
    assert told == f"messages.0.content: only parts of type text are understood, not {kind}"


def test_what_asks_for_nothing_is_not_refused() -> None:
    empty = {"logit_bias": {}, "functions": [], "function_call": "none", "modalities": ["text"], "audio": None, "n": 1}
    assert asked(**empty).wanted(30.0) == asked().wanted(30.0)
    assert (asked().least_share, asked(top_p=0.5).least_share) == (1.0, 0.5)
    assert 0 < asked(top_p=0).least_share < 1e-6


def test_an_answer_that_was_cut_off_says_length_whatever_it_holds() -> None:
    assert finish_reason(Completion(text="{}")) == "stop"
    assert finish_reason(Completion(text="{}"), is_call=True) == "tool_calls"
    assert finish_reason(Completion(text="{", is_capped=True), is_call=True) == "length"
    assert finish_reason(Completion(ending="budget")) == "length"
    assert finish_reason(Completion(text="so", is_capped=True), is_free=True) == "stop"
    assert finish_reason(Completion(text="so", is_capped=True, ending="length"), is_free=True) == "length"


def test_a_call_is_read_and_anything_else_is_text() -> None:
    assert call_of('{"name":"heat","arguments":{"a": 1}}', {"heat"}) == ("heat", '{"a":1}')
    for text in ("heat", "[]", '{"name":"heat"}', "[" * 100_000, '{"name":"cool","arguments":{}}', '{"name":[]}'):
        assert call_of(text, {"heat"}) is None
    assert call_of('{"name":"heat","arguments":{"a": 1}}', ()) is None


@pytest.mark.parametrize(
    "arguments",
    ['{"x":1e999}', '{"x":-1e400,"y":[1E309]}', '{"x":0.1000000000000000055511151231257827}', f'{{"x":{"1" * 5000}}}',
     '{"x":"a  \\" b\\\\"}', '{"x":"\\ud800"}', '{"x":"}"}', "{}"],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_arguments_are_what_was_written(arguments: str) -> None:
    assert call_of(f'{{"name":"heat","arguments":{arguments}}}', {"heat"}) == ("heat", arguments)
    spaced = arguments.replace("{", "{ ", 1).replace(":", " :\n", 1)
    assert call_of(f'{{"name":"heat","arguments":{spaced} }}', {"heat"}) == ("heat", arguments)
    json.loads(arguments.replace("1" * 5000, "1"), parse_constant=pytest.fail)


def test_arguments_that_cannot_be_json_are_no_call_in_whatever_order() -> None:
    assert call_of('{"arguments": {"a": 1.50}, "name": "heat"}', {"heat"}) == ("heat", '{"a":1.5}')
    assert call_of('{"name":"heat","arguments":{"a":1},"more":2}', {"heat"}) == ("heat", '{"a":1}')
    assert call_of('{"name":"heat","arguments":{},"arguments":{"a":2}}', {"heat"}) == ("heat", '{"a":2}')
    for text in ('{"name":"heat","arguments":{"x":Infinity}}', '{"name":"heat","arguments":{"x":NaN}}',
                 '{"arguments":{"x":1e999},"name":"heat"}', '{"name":1,"arguments":{}}'):  # fmt: skip
        assert call_of(text, {"heat"}) is None


def test_errors_have_the_types_that_clients_look_for() -> None:
    assert error_form(429, "x")["error"]["type"] == "rate_limit_error"
    assert error_form(404, "x")["error"]["code"] == "model_not_found"
    assert error_form(404, "x", "unknown_url")["error"]["code"] == "unknown_url"
    assert error_form(503, "x")["error"]["type"] == "server_error"
