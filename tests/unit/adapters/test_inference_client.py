"""Any OpenAI-compatible server is asked for what is wanted, and what it says is checked."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from edgeagents.adapters import inference_client
from edgeagents.adapters.inference_client import HttpInference
from edgeagents.errors import (
    InvalidInputError,
    NotFoundError,
    TooManyAttemptsError,
    UnavailableError,
    UpstreamError,
)
from edgeagents.model.completion import ChatMessage, Completion, CompletionRequest
from edgeagents.model.options import Options, Slot

OPTIONS = Options(slots=(Slot(device="lamp", resource="On", kind="Bool"),))
LEGAL = '{"device":"lamp","resource":"On","value":true}'
Answer = Callable[[httpx.Request], httpx.Response]


def said(text: str | None, finish: str = "stop", logprobs: Any = None) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
        "logprobs": logprobs,
    }
    return {"model": "their-model", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}


async def complete(answer: Answer, unknown_confidence: float = 0.0, **changes: Any) -> Completion:
    values = {"messages": (ChatMessage(role="user", content="on"),), "options": OPTIONS} | changes
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = HttpInference(
            http, "http://there/v1/", "m", SecretStr("k"), unknown_confidence=unknown_confidence
        )  # fmt: skip
        return await client.complete(CompletionRequest(**values))


async def test_it_is_asked_for_a_schema_of_the_options_and_told_who_asks() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=said(LEGAL, logprobs={"content": [{"logprob": -0.5}, {"logprob": -1.5}]}))

    done = await complete(answer, seed=3, stop=("x",))
    body = json.loads(asked[0].content)
    assert str(asked[0].url) == "http://there/v1/chat/completions"
    assert asked[0].headers["authorization"] == "Bearer k"
    assert body["response_format"]["json_schema"]["schema"]["anyOf"]
    assert (body["seed"], body["stop"], body["model"]) == (3, ["x"], "m")
    assert (done.text, done.is_capped, done.model, done.tokens) == (LEGAL, False, "their-model", 3)
    assert done.confidence == pytest.approx(math.exp(-1.0))


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ('{"device":"oven","resource":"On","value":true}', "stop"),
        ("I turned it on!", "stop"),
        (None, "stop"),
        (LEGAL, "length"),
    ],
)
async def test_what_is_not_legal_is_marked(text: str | None, finish: str) -> None:
    done = await complete(lambda request: httpx.Response(200, json=said(text, finish)))
    assert done.is_capped
    assert done.confidence == 0.0


async def test_a_server_that_tells_no_probabilities_is_trusted_as_its_owner_says() -> None:
    done = await complete(lambda request: httpx.Response(200, json=said(LEGAL)), unknown_confidence=0.7)
    assert done.confidence == pytest.approx(0.7)
    assert (await complete(lambda request: httpx.Response(200, json=said(LEGAL)))).confidence < 0.001


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInputError),
        (404, NotFoundError),
        (429, TooManyAttemptsError),
        (500, UpstreamError),
        (503, UnavailableError),
    ],
)
async def test_a_refusal_keeps_its_meaning(status: int, error: type[Exception]) -> None:
    body = {"error": {"message": "because of reasons"}}
    with pytest.raises(error, match="because of reasons"):
        await complete(lambda request: httpx.Response(status, json=body))


async def test_when_to_come_again_is_told() -> None:
    with pytest.raises(TooManyAttemptsError) as caught:
        await complete(lambda request: httpx.Response(429, content=b"busy", headers={"retry-after": "7"}))
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b'{"choices":[]}', b"\xff\xfe", b"x" * (5 << 20)])
async def test_what_is_no_completion_is_an_error_of_the_server(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        await complete(lambda request: httpx.Response(200, content=body))


async def test_a_server_that_is_away_or_cannot_compare_is_said_so() -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnavailableError, match="is that server up"):
        await complete(away)
    with pytest.raises(InvalidInputError, match="compare"):
        await complete(away, scored=("a",))


async def test_a_schema_of_the_callers_own_is_passed_on_and_the_answer_must_be_json() -> None:
    schema = {"type": "object"}
    done = await complete(lambda request: httpx.Response(200, json=said("{}")), options=None, json_schema=schema)
    assert not done.is_capped
    done = await complete(lambda request: httpx.Response(200, json=said("no")), options=None, json_schema=schema)
    assert done.is_capped
    done = await complete(lambda request: httpx.Response(200, json=said("no")), options=None)
    assert not done.is_capped


@pytest.mark.parametrize(
    ("told", "wait_s"), [(b"\xb2", 1.0), (b"9" * 400, 3600.0), (b"Wed, 21 Oct", 1.0), (b"-5", 1.0), (b"99999", 3600.0)]
)
async def test_no_servers_word_makes_an_agent_wait_for_ever(told: bytes, wait_s: float) -> None:
    with pytest.raises(TooManyAttemptsError) as caught:
        await complete(lambda request: httpx.Response(429, headers=[(b"retry-after", told)]))
    assert caught.value.retry_after_s == wait_s


async def test_probabilities_beyond_all_numbers_are_an_error_of_the_server() -> None:
    chances = {"content": [{"logprob": -1.7e308}, {"logprob": -1.7e308}]}
    with pytest.raises(UpstreamError, match="says nothing"):
        await complete(lambda request: httpx.Response(200, json=said(LEGAL, logprobs=chances)))


async def test_a_server_that_sends_a_letter_now_and_then_does_not_hold_an_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference_client, "GRACE_S", 0.0)

    async def letters() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0)

    with pytest.raises(UnavailableError, match="no whole answer"):
        await complete(lambda request: httpx.Response(200, content=letters()), budget_s=0.05)
