"""Errors at and below `/v1` in OpenAI's form: whoever refuses, the routes or what stands before them.

Source: OpenAI API reference, error codes.
"""

import json
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeagents.adapters.middleware import correlation_id
from edgeagents.adapters.rest import CORRELATION_HEADER
from edgeagents.errors import UNEXPECTED
from services.inference.openai_form import UNKNOWN_ADDRESS, error_form

ROOT: Final = "/v1"


class OpenAiErrors:
    """Rewrites EdgeX's error bodies for OpenAI's clients."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{ROOT}/"):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body, is_begun = b"", False

        async def rewritten(message: Message) -> None:
            nonlocal start, body, is_begun
            is_begun = True
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                # Without an endpoint no route was found; a route that says 404 means its model.
                is_unknown = start["status"] == 404 and scope.get("endpoint") is None
                told = error_form(start["status"], _text_of(body), UNKNOWN_ADDRESS if is_unknown else None)
                await _answer(send, start, told)

        try:
            await self._app(scope, receive, rewritten)
        except Exception:
            if not is_begun:
                start = {"type": "http.response.start", "status": 500, "headers": []}
                if correlation_id.get():
                    MutableHeaders(scope=start)[CORRELATION_HEADER] = correlation_id.get()
                await _answer(send, start, error_form(500, UNEXPECTED))
            raise  # the server logs it


async def _answer(send: Send, start: Message, told: dict[str, Any]) -> None:
    body = json.dumps(told, ensure_ascii=False).encode()
    headers = MutableHeaders(scope=start)
    headers["content-length"], headers["content-type"] = str(len(body)), "application/json"
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _text_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode(errors="replace")[:500]
