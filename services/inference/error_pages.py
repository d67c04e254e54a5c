"""Errors below `/v1` in OpenAI's form: whoever refuses, the routes or what stands before them.

Source: OpenAI API reference, error codes.
"""

import json
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.inference.openai_form import error_form

BELOW: Final = "/v1/"


class OpenAiErrors:
    """Rewrites EdgeX's error bodies for OpenAI's clients."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(BELOW):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def rewritten(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                told = json.dumps(error_form(start["status"], _text_of(body)), ensure_ascii=False).encode()
                headers = MutableHeaders(scope=start)
                headers["content-length"], headers["content-type"] = str(len(told)), "application/json"
                await send(start)
                await send({"type": "http.response.body", "body": told})

        await self._app(scope, receive, rewritten)


def _text_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode(errors="replace")[:500]
