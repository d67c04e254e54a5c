"""How agents ask a language model: the gateway's shared one over NATS, or any OpenAI-compatible server over HTTP.

`LanguageClient` is all an agent knows; `adapters/inference_local.py` is the third way: a model in the agent's process.
Whoever answers, `model/answer.py` reads the text again: a server without grammars may say anything.

Source: OpenAI API reference, chat completions; `services/inference`.
"""

import asyncio
import json
import math
import time
from typing import Any, Final, Protocol

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.errors import (
    InvalidInputError,
    TheirError,
    TooLargeError,
    TooManyAttemptsError,
    UnavailableError,
    UpstreamError,
    error_for_status,
)
from edgeagents.model.answer import parse_answer
from edgeagents.model.answer_schema import answer_schema
from edgeagents.model.completion import MOST_REQUEST_BYTES, Completion, CompletionFailure, CompletionRequest

GRACE_S: Final = 3.0  # an answer that was cut off at its budget still has to arrive
MOST_ANSWER_BYTES: Final = 4 << 20
MOST_WAIT_S: Final = 3600.0  # that a server may ask for


class LanguageClient(Protocol):
    """Whoever writes texts for an agent."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Return what was written, within `request.budget_s`; a capped text is marked (`is_capped`).

        Raises:
            UnavailableError: no model is there (yet), or nobody answers in time.
            TooManyAttemptsError: it is busy; `retry_after_s` says when to ask again.
            InvalidInputError: the request cannot be fulfilled: such a schema, such messages.
            TooLargeError: the prompt is too long.
            UpstreamError: whoever answers does not keep to the contract.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class NatsInference:
    """Asks the gateway's inference service in an agent's own name."""

    def __init__(self, bus: Bus, agent: str) -> None:
        """Prepare; the bus is its owner's to close."""
        self._bus, self._subject = bus, subjects.inference(bus.settings.gateway, agent)

    async def complete(self, request: CompletionRequest) -> Completion:
        """Return what was written; see `LanguageClient`."""
        body = request.model_dump_json(exclude_defaults=True).encode()
        most = min(int(self._bus.server_info.get("max_payload", 1 << 20)), MOST_REQUEST_BYTES)
        if len(body) > most:
            raise TooLargeError(f"a request of {len(body)} bytes: {most} are read: shorten it")
        answer = await self._bus.request(self._subject, body, timeout_s=request.budget_s + GRACE_S)
        try:
            found: dict[str, Any] = json.loads(answer.data)
            if "status" in found:
                raise _failure(CompletionFailure.model_validate(found))
            return Completion.model_validate(found)
        except (ValueError, TypeError, RecursionError) as error:
            raise UpstreamError(f"{self._subject}: not an answer: {str(error)[:200]}") from error

    async def close(self) -> None:
        """Do nothing: the bus is its owner's."""


def _failure(told: CompletionFailure) -> TheirError:
    if told.status == 429:
        return TooManyAttemptsError(told.error, _wait_s(told.retry_after_s or 1.0))
    return error_for_status(told.status, told.error)


class _Token(BaseModel):
    model_config = ConfigDict(extra="ignore")

    logprob: float = Field(allow_inf_nan=False)


class _LogProbabilities(BaseModel):
    content: tuple[_Token, ...] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _LogProbabilities | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(BaseModel):
    model: str = ""
    choices: tuple[_Choice, ...] = Field(min_length=1)
    usage: _Usage | None = None


class HttpInference:
    """Asks any OpenAI-compatible server; its answers are checked, since it may know no grammars."""

    def __init__(
        self, http: httpx.AsyncClient, base_url: str, model: str, key: SecretStr | None = None, *,
        unknown_confidence: float = 0.0,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            http: its owner's to close.
            base_url: such as http://192.168.1.5:8080/v1.
            model: the server's name for it.
            key: sent as a bearer token.
            unknown_confidence: taken where the server does not tell how likely its tokens were, 0 to 1.
        """
        self._http, self._url, self._model, self._key = http, f"{base_url.rstrip('/')}/chat/completions", model, key
        self._unknown = unknown_confidence

    async def complete(self, request: CompletionRequest) -> Completion:
        """Return what was written; see `LanguageClient`. Another server cannot compare answers (`scored`)."""
        if request.scored:
            raise InvalidInputError(f"{self._url}: only the gateway's own model can compare answers")
        began_s = time.monotonic()
        body = await self._post(self._body(request), request.budget_s)
        try:
            found = _Answer.model_validate_json(body)
            return self._completion(request, found, time.monotonic() - began_s)
        except ValidationError as error:
            raise UpstreamError(f"{self._url}: not a chat completion: {error.errors()[0]['msg']}") from error
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise UpstreamError(f"{self._url}: a chat completion that says nothing: {str(error)[:200]}") from error

    async def close(self) -> None:
        """Do nothing: the HTTP client is its owner's."""

    def _body(self, request: CompletionRequest) -> dict[str, Any]:
        schema = answer_schema(request.options) if request.options is not None else request.json_schema
        body: dict[str, Any] = {
            "model": self._model, "messages": [message.model_dump() for message in request.messages],
            "max_tokens": request.most_tokens, "temperature": request.temperature, "logprobs": True,
        }  # fmt: skip
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if schema is not None:
            named = {"name": "answer", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    async def _post(self, body: dict[str, Any], budget_s: float) -> bytes:
        headers = {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key is not None else {}
        parts, size = list[bytes](), 0
        try:
            async with (
                asyncio.timeout(budget_s + GRACE_S),  # httpx's is of each read: a server that drips would have no end
                self._http.stream("POST", self._url, json=body, headers=headers, timeout=budget_s) as answer,
            ):
                async for part in answer.aiter_bytes():
                    size += len(part)
                    if size > MOST_ANSWER_BYTES:
                        raise UpstreamError(f"{self._url}: an answer of more than {MOST_ANSWER_BYTES >> 20} MiB")
                    parts.append(part)
        except TimeoutError as error:
            raise UnavailableError(f"{self._url}: no whole answer within {budget_s + GRACE_S:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"{self._url}: {error or type(error).__name__}: is that server up?") from error
        whole = b"".join(parts)
        if answer.status_code != 200:
            raise _refusal(self._url, answer, whole)
        return whole

    def _completion(self, request: CompletionRequest, found: _Answer, took_s: float) -> Completion:
        choice = found.choices[0]
        text, usage = choice.message.content or "", found.usage or _Usage()
        tokens = choice.logprobs.content if choice.logprobs is not None else None
        chances = [token.logprob for token in tokens or ()]
        known = bool(chances)
        return Completion(
            text=text, ending="length" if choice.finish_reason == "length" else "stop",
            is_capped=_is_capped(request, text, choice.finish_reason),
            log_probability=math.fsum(chances) if known else math.log(max(self._unknown, 1e-9)),
            free_tokens=len(chances) if known else 1, tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens, model=found.model, first_token_s=took_s, total_s=took_s,
        )  # fmt: skip


def _is_capped(request: CompletionRequest, text: str, finish_reason: str | None) -> bool:
    """Return whether a text is not what it was to be: cut off, or said by a server that knows no grammar."""
    if request.options is None and request.json_schema is None:
        return False
    if finish_reason == "length":
        return True
    try:
        if request.options is not None:
            parse_answer(text, request.options)
        else:
            json.loads(text)
    except (InvalidInputError, ValueError, RecursionError):
        return True
    return False


def _refusal(url: str, answer: httpx.Response, body: bytes) -> TheirError:
    try:
        text = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body[:200].decode(errors="replace")
    text = f"{url}: {answer.status_code}: {text[:500]}"
    if answer.status_code == 429:
        wait = answer.headers.get("retry-after", "")
        return TooManyAttemptsError(text, _wait_s(float(wait)) if wait.isascii() and wait.isdecimal() else 1.0)
    return error_for_status(answer.status_code, text)


def _wait_s(told_s: float) -> float:
    """Return how long to wait when told so; nobody's word makes an agent wait for ever."""
    return min(max(told_s, 0.0), MOST_WAIT_S) if math.isfinite(told_s) else MOST_WAIT_S
