"""`/v1/models` and `/v1/chat/completions`, as any OpenAI client expects them, streaming included.

A client that goes away ends its text at the next token.

Source: OpenAI API reference; server-sent events (WHATWG HTML, section 9.2).
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakValueDictionary

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError

from edgeagents.adapters.inference_local import LocalInference, Progress, in_turn, no_time, within
from edgeagents.adapters.model_shelf import Shelf
from edgeagents.adapters.web_pages import shows, takes
from edgeagents.errors import (
    EdgeAgentsError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    meaning_of,
)
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.inference.generate import Finished, Written
from edgeagents.model.completion import Completion, CompletionRequest
from services.inference import openai_form as form
from services.inference.shown import ChatCompletion, ModelList, ModelShown, OpenAiError

CLIENT_GONE: Final = 499  # nginx's; nobody reads it


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that is about to be written."""

    request: form.ChatRequest
    engine: Engine
    prepared: Prepared
    local: LocalInference
    model: str
    id: str
    created_s: int
    budget_s: float  # from the first byte on; that of `prepared` is what is left of it

    @property
    def names(self) -> frozenset[str]:
        """Return the functions that may be called."""
        return frozenset(tool.function.name for tool in self.request.called)

    def ending(self, done: Completion, *, is_call: bool) -> str:
        """Return how a text ended, in OpenAI's words."""
        is_free = bool(self.names) and not self.request.is_tool_required and not done.text.startswith("{")
        return form.finish_reason(done, is_call=is_call, is_free=is_free)

    def log_probabilities(self, items: Sequence[Written]) -> dict[str, Any] | None:
        """Return how likely the tokens were, if that was asked for."""
        return form.log_probabilities(items, self.engine.grammars.spelled) if self.request.logprobs else None

    def body(self, kind: str, choice: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
        """Return what all answers share, with one choice."""
        choices = [{"index": 0, "logprobs": None, **choice}] if choice is not None else []
        return {
            "id": self.id, "object": kind, "created": self.created_s, "model": self.model,
            "system_fingerprint": self.engine.digest[:16], "choices": choices, **more,
        }  # fmt: skip


def add_routes(app: FastAPI, shelf: Shelf, longest_s: float) -> None:
    """Add the routes.

    Args:
        app: of the service.
        shelf: holds the model.
        longest_s: how long an answer may take where its request does not say.
    """

    preparing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by client

    failure = {"default": {"model": OpenAiError, "description": "Refused or failed."}}

    def theirs(model: type[BaseModel], description: str) -> dict[str, Any]:
        found = shows(model, description)
        return {**found, "tags": ["openai"], "responses": found["responses"] | failure}

    @app.get("/v1/models", **theirs(ModelList, "The models."))
    async def models() -> dict[str, Any]:
        """List the one model."""
        return {"object": "list", "data": [_model(shelf)]}

    @app.get("/v1/models/{name:path}", **theirs(ModelShown, "The model."))
    async def one_model(name: str) -> dict[str, Any]:
        """Tell of the model."""
        found = _model(shelf)
        _check_name(name, shelf)
        return found

    @app.post(
        "/v1/chat/completions", **theirs(ChatCompletion, "The answer; with `stream` its pieces as server-sent events."),
        **takes(form.ChatRequest, example=form.EXAMPLE),
    )  # fmt: skip
    async def chat(request: Request) -> Response:
        """Write an answer, whole or as a stream."""
        body = await request.body()
        client = f"http {request.client.host if request.client else 'unknown'}"
        began_s, turn = time.monotonic(), preparing.setdefault(client, asyncio.Lock())
        # Beside the loop, and of one client one at a time: a flood of long prompts holds up its sender alone.
        async with within(longest_s, began_s):
            wanted, asking = await in_turn(turn, _read, body, longest_s)
        engine = shelf.engine()
        _check_name(wanted.model, shelf)
        async with within(asking.budget_s, began_s):
            prepared = await in_turn(turn, _prepared, engine, wanted, asking)
        prepared = replace(prepared, budget_s=began_s + asking.budget_s - time.monotonic())
        asked = _Asked(
            wanted, engine, prepared, LocalInference(shelf.engine, client), shelf.name,
            f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), asking.budget_s,
        )  # fmt: skip
        if not wanted.stream:
            return await _while_there(request, _whole(asked))
        return await _while_there(request, _begun(asked))


def _read(body: bytes, longest_s: float) -> tuple[form.ChatRequest, CompletionRequest]:
    try:
        found = form.ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInputError(form.first_problem(error)) from error
    return found, found.wanted(longest_s)


def _prepared(engine: Engine, wanted: form.ChatRequest, asking: CompletionRequest) -> Prepared:
    return engine.prepare(
        asking, tools=[(tool.function.name, tool.function.parameters) for tool in wanted.called],
        is_tool_required=wanted.is_tool_required, top_p=wanted.least_share,
    )  # fmt: skip


def _model(shelf: Shelf) -> dict[str, Any]:
    engine = shelf.engine()
    return {
        "id": shelf.name, "object": "model", "created": 0, "owned_by": "edgeagents", "digest": engine.digest,
        "context_length": engine.model.decoder.length,
    }  # fmt: skip


def _check_name(name: str, shelf: Shelf) -> None:
    if name != shelf.name:
        raise NotFoundError(f"there is no model {name[:80]!r}: this gateway has {shelf.name!r}")


async def _while_there(request: Request, work: Any) -> Response:
    """Return an answer, unless the client goes away: then stop."""
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            found: Response = answer.result()
            return found
        return Response(status_code=CLIENT_GONE)
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _begun(asked: _Asked) -> Response:
    """Return a stream once its text has begun: a refusal until then is an answer with a status."""
    items = asked.local.written(asked.engine, asked.prepared)
    first = await anext(items)
    _check_begun(first, asked)
    return StreamingResponse(_chunks(asked, first, items), media_type="text/event-stream")


def _check_begun(item: Written | Finished, asked: _Asked) -> None:
    """Refuse what ended before a token of it was written, unless an empty text is the answer."""
    if not isinstance(item, Finished) or item.tokens or item.reason in ("stop", "length"):
        return
    if item.reason == "budget":
        raise no_time(asked.budget_s)
    raise UnavailableError(f"the language model could not answer: {item.error or item.reason}")


async def _whole(asked: _Asked) -> Response:
    progress, written = Progress(time.monotonic()), list[Written]()
    async with aclosing(asked.local.written(asked.engine, asked.prepared)) as items:
        async for item in items:
            if isinstance(item, Written):
                progress.take(item)
                written.append(item)
            else:
                _check_begun(item, asked)
                done = progress.completion(item, asked.prepared.prompt_tokens, asked.engine.digest)
                return JSONResponse(_answer(asked, done, written))
    raise UnavailableError("the language model ended without an answer")


def _answer(asked: _Asked, done: Completion, written: list[Written]) -> dict[str, Any]:
    call = form.call_of(done.text, asked.names) if not done.is_capped else None
    message: dict[str, Any] = {"role": "assistant", "content": done.text, "refusal": None}
    if call is not None:
        message |= {"content": None, "tool_calls": form.tool_calls(*call, asked.id[-24:])}
    choice: dict[str, Any] = {"message": message, "finish_reason": asked.ending(done, is_call=call is not None)}
    if call is None:
        choice["logprobs"] = asked.log_probabilities(written)
    return asked.body("chat.completion", choice, usage=form.usage(done))


async def _chunks(
    asked: _Asked, first: Written | Finished, items: AsyncGenerator[Written | Finished, None]
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a stream; a tool call comes as one piece, once it is whole."""
    progress, held, is_call = Progress(time.monotonic()), list[Written](), None
    try:
        async with aclosing(_after(first, items)) as all_items:
            yield _event(_chunk(asked, {"role": "assistant", "content": ""}))
            async for item in all_items:
                if isinstance(item, Finished):
                    done = progress.completion(item, asked.prepared.prompt_tokens, asked.engine.digest)
                    for chunk in _last(asked, done, held):
                        yield _event(chunk)
                    break
                progress.take(item)
                if is_call is None and item.text:  # the first letter says it: a later brace is text
                    is_call = bool(asked.names) and item.text.startswith("{")
                if is_call or (is_call is None and asked.names):
                    held.append(item)
                elif item.text or asked.request.logprobs:
                    yield _event(_text_chunk(asked, [*held, item]))
                    held = []
    except EdgeAgentsError as error:  # too late for a status
        yield _event(form.error_form(meaning_of(error).status, str(error)))
    yield b"data: [DONE]\n\n"


async def _after(
    first: Written | Finished, items: AsyncGenerator[Written | Finished, None]
) -> AsyncGenerator[Written | Finished, None]:
    async with aclosing(items):
        yield first
        async for item in items:
            yield item


def _last(asked: _Asked, done: Completion, held: Sequence[Written]) -> list[dict[str, Any]]:
    """Return the chunks at the end: a tool call or what was held back for one, how it ended, and the usage."""
    call = form.call_of("".join(item.text for item in held), asked.names) if held and not done.is_capped else None
    found = []
    if call is not None:
        calls = [{"index": 0, **item} for item in form.tool_calls(*call, asked.id[-24:])]
        found.append(_chunk(asked, {"tool_calls": calls}))
    elif held:
        found.append(_text_chunk(asked, held))
    found.append(_chunk(asked, {}, finish_reason=asked.ending(done, is_call=call is not None)))
    if asked.request.stream_options is not None and asked.request.stream_options.include_usage:
        found.append(asked.body("chat.completion.chunk", None, usage=form.usage(done)))
    return found


def _text_chunk(asked: _Asked, items: Sequence[Written]) -> dict[str, Any]:
    text = "".join(item.text for item in items)
    return _chunk(asked, {"content": text}, logprobs=asked.log_probabilities(items))


def _chunk(asked: _Asked, delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return asked.body("chat.completion.chunk", {"delta": delta, "finish_reason": None, **choice})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
