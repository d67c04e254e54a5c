"""A stream says what the whole answer says: text is text, and a tool call comes whole."""

import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.adapters.inference_local import LocalInference
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.inference.generate import Finished, Written
from services.inference import routes
from services.inference.openai_form import ChatRequest

TOOL = {"type": "function", "function": {"name": "heat", "parameters": {"type": "object"}}}


async def streamed(*parts: str, **changes: Any) -> tuple[str, list[str], str]:
    """Return text, called functions and how it ended, of a stream of a text in parts."""
    values = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, "tools": [TOOL]} | changes
    asked = routes._Asked(
        ChatRequest.model_validate(values), cast(Engine, SimpleNamespace(digest="d" * 64)), Prepared((), 3, 1.0),
        cast(LocalInference, None), "m", "chatcmpl-" + "0" * 24, 0,
    )  # fmt: skip

    async def items() -> AsyncGenerator[Written | Finished, None]:
        for part in parts[1:]:
            yield Written("r", part, 1, -1.0)
        yield Finished("r", "stop", "".join(parts), (1,) * len(parts), 0)

    text, called, ending = "", list[str](), ""
    async for event in routes._chunks(asked, Written("r", parts[0], 1, -1.0), items()):
        if event != b"data: [DONE]\n\n":
            choice = json.loads(event[6:])["choices"][0]
            text += choice["delta"].get("content") or ""
            called += [call["function"]["name"] for call in choice["delta"].get("tool_calls", ())]
            ending = choice["finish_reason"] or ending
    return text, called, ending


CALL = ('{"name":"heat",', '"arguments":{}}')


async def test_a_text_that_quotes_a_call_stays_text() -> None:
    assert await streamed("You", " said ", *CALL) == ("You said " + "".join(CALL), [], "stop")


@pytest.mark.parametrize("before", [(), ("", "")])
async def test_a_call_comes_as_a_call(before: tuple[str, ...]) -> None:
    assert await streamed(*before, *CALL) == ("", ["heat"], "tool_calls")


async def test_a_call_of_what_may_not_be_called_is_text() -> None:
    other = '{"name":"unlock","arguments":{}}'
    assert await streamed(other) == (other, [], "stop")
    assert await streamed(*CALL, tool_choice="none") == ("".join(CALL), [], "stop")
