"""EdgeX's HTTP trigger: `POST /api/v3/trigger` feeds a service's pipeline when `Trigger.Type` is `http`.

What the body is, says `Writable/Pipeline/TargetType`: an event (AddEventRequest or bare, JSON or CBOR) or raw
bytes. Errors are plain text, as Go services answer them: 400 for what cannot be decoded, 422 for what the pipeline
cannot work with.

Source: edgex-wire.md sections 4 and 8.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

from edgeagents.adapters.envelopes import CBOR, JSON, decode_payload
from edgeagents.adapters.event_payloads import event_of
from edgeagents.adapters.middleware import correlation_id
from edgeagents.errors import EdgeAgentsError, InvalidInputError, MalformedMessageError, meaning_of
from edgeagents.model.device import Event

PATH: Final = "/api/v3/trigger"
_TEXT: Final = "text/plain; charset=utf-8"
_FUNCTION_ERROR: Final = 422


@dataclass(frozen=True, slots=True)
class Triggered:
    """What came: the body as it was sent, and the event in it; None when the pipeline asks for raw bytes."""

    body: bytes
    content_type: str
    correlation_id: str
    event: Event | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a pipeline answers its caller."""

    data: bytes
    content_type: str = JSON


Pipeline = Callable[[Triggered], Awaitable[Reply | None]]


def add_trigger(
    app: FastAPI, pipeline: Pipeline, target_type: Callable[[], str], on_invalid: Callable[[], None]
) -> None:
    """Add the route.

    Args:
        app: the service's.
        pipeline: gets what came; None is an empty answer. Its InvalidInputError is a 422.
        target_type: returns `Writable/Pipeline/TargetType` as it is now.
        on_invalid: called for each body that cannot be decoded.
    """
    schema: dict[str, Any] = {"content": {JSON: {}, CBOR: {}}, "required": True}
    plain = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "It is taken; the body is the pipeline's own, mostly empty."},
        400: {"description": "It cannot be decoded, and why.", **plain},
        422: {"description": "The pipeline cannot work with it, and why.", **plain},
    }

    @app.post(
        PATH, tags=["common"], openapi_extra={"requestBody": schema}, response_class=Response, responses=answers,
        response_model=None,
    )  # fmt: skip
    async def trigger(request: Request) -> Response:
        """Take an event, or raw data, into the pipeline; there only with `Trigger.Type` http."""
        body = await request.body()
        content_type = request.headers.get("content-type", JSON)
        try:
            event = None if target_type().lower() == "raw" else event_in(body, content_type)
        except MalformedMessageError as error:
            on_invalid()
            return Response(f"unable to decode the message: {error}", 400, media_type=_TEXT)
        try:
            reply = await pipeline(Triggered(body, content_type, correlation_id.get(), event))
        except EdgeAgentsError as error:
            status = _FUNCTION_ERROR if isinstance(error, InvalidInputError) else meaning_of(error).status
            return Response(str(error), status, media_type=_TEXT)
        return Response(status_code=200) if reply is None else Response(reply.data, 200, media_type=reply.content_type)


def event_in(body: bytes, content_type: str = JSON) -> Event:
    """Return the event that a body holds: an AddEventRequest or a bare event.

    Raises:
        MalformedMessageError: it holds none.
    """
    payload = decode_payload(body, content_type.lower())
    try:
        return event_of(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "event"
        raise MalformedMessageError(f"{where}: {first['msg']}", "wrong-shape") from error
