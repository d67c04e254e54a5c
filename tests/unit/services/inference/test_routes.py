"""A stream says what the whole answer says: text is text, and a tool call comes whole."""

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request

from edgeagents.adapters.inference_local import LocalInference
from edgeagents.errors import TooManyAttemptsError, UnavailableError
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.inference.generate import Finished, Reason, Written
from services.inference import routes
from services.inference.openai_form import ChatRequest

TOOL = {"type": "function", "function": {"name": "heat", "parameters": {"type": "object"}}}


GRAMMARS = SimpleNamespace(spelled=lambda token: bytes([token]))


def asked_of(local: Any = None, **changes: Any) -> routes._Asked:
    """Return a request for a stream that may call a tool; tokens are bytes."""
    values = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, "tools": [TOOL]} | changes
    engine = cast(Engine, SimpleNamespace(digest="d" * 64, grammars=GRAMMARS))
    return routes._Asked(
        ChatRequest.model_validate(values), engine, Prepared((), 3, 1.0), cast(LocalInference, local), "m",
        "chatcmpl-" + "0" * 24, 0, 1.0,
    )  # fmt: skip


async def events_of(asked: routes._Asked, *items: Written | Finished) -> list[Any]:
    """Return the choices of a stream's events."""

    async def others() -> AsyncGenerator[Written | Finished, None]:
        for item in items[1:]:
            yield item

    found = [event async for event in routes._chunks(asked, items[0], others())]
    assert found.pop() == b"data: [DONE]\n\n"
    return [json.loads(event[6:])["choices"][0] for event in found]


async def streamed(*parts: str, is_capped: bool = False, **changes: Any) -> tuple[str, list[str], str]:
    """Return text, called functions and how it ended, of a stream of a text in parts."""
    items = [Written("r", part, 1, -1.0) for part in parts]
    ended = Finished("r", "stop", "".join(parts), (1,) * len(parts), 0, is_capped=is_capped)
    text, called, ending = "", list[str](), ""
    for choice in await events_of(asked_of(**changes), *items, ended):
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


async def test_a_text_beside_tools_that_met_a_stop_word_is_whole_and_half_a_call_is_not() -> None:
    assert await streamed("It is", " warm", is_capped=True, stop=["!"]) == ("It is warm", [], "stop")
    assert await streamed(CALL[0], is_capped=True, stop=["!"]) == (CALL[0], [], "length")


@pytest.mark.parametrize("tools", [[], [TOOL]])
async def test_a_stream_tells_each_token_once_also_those_that_show_nothing_yet(tools: list[Any]) -> None:
    spelled = "né!".encode()
    shown = ("", "n", "", "é", "")  # the first and the last were held back: they may have become a stop word
    items = [Written("r", text, token, -1.0) for text, token in zip(shown, (spelled[0], *spelled), strict=True)]
    ended = Finished("r", "stop", "né!", tuple(spelled), 0)
    asked = asked_of(tools=tools, logprobs=True)
    choices = await events_of(asked, *items, Written("r", "!", -1, 0.0, is_forced=True), ended)
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "né!"
    told = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert [entry["bytes"] for entry in told] == [[byte] for byte in (spelled[0], *spelled)]
    assert {entry["logprob"] for entry in told} == {-1.0}


class Played:
    """Writes what it is given, or nothing for ever."""

    def __init__(self, *items: Written | Finished) -> None:
        self.items = items
        self.is_asked, self.is_closed = asyncio.Event(), False

    async def written(self, engine: Engine, prepared: Prepared) -> AsyncGenerator[Written | Finished, None]:
        self.is_asked.set()
        try:
            for item in self.items:
                yield item
            await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def test_who_leaves_before_the_first_token_waits_no_more() -> None:
    played = Played()

    async def receive() -> dict[str, str]:
        await played.is_asked.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(5):
        answer = await routes._while_there(Request({"type": "http"}, receive), routes._begun(asked_of(played)))
    assert (answer.status_code, played.is_closed) == (routes.CLIENT_GONE, True)


@pytest.mark.parametrize("answer", [routes._begun, routes._whole])
@pytest.mark.parametrize(
    ("reason", "error"),
    [("budget", TooManyAttemptsError), ("cancelled", UnavailableError), ("failed", UnavailableError)],
)
async def test_a_text_that_was_never_begun_is_no_answer(reason: Reason, error: type[Exception], answer: Any) -> None:
    with pytest.raises(error):
        await answer(asked_of(Played(Finished("r", reason, "", (), 0))))


@pytest.mark.parametrize("answer", [routes._begun, routes._whole])
async def test_an_empty_text_is_an_answer(answer: Any) -> None:
    assert (await answer(asked_of(Played(Finished("r", "stop", "", (), 0))))).status_code == 200
