"""Who may call a service: asks a check about the `Authorization` header of each request, and refuses.

What checks tokens stands in `jwt_auth.py`, and is loaded in secure mode alone: cryptography is dear to import.

Source: edgex-wire.md section 4, "Secure mode".
"""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeagents.adapters.middleware import error_body
from edgeagents.errors import EdgeAgentsError, TheirError, meaning_of

OPEN_PATH: Final = "/api/v3/ping"

Check = Callable[[str], Awaitable[None]]


class AuthMiddleware:
    """Lets a request pass when its token does; ping is open to all, since keeper asks it without one."""

    def __init__(self, app: ASGIApp, check: Check) -> None:
        """Wrap `app`."""
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] == OPEN_PATH:
            await self._app(scope, receive, send)
            return
        try:
            await self._check(Headers(scope=scope).get("authorization", ""))
        except TheirError as error:
            await _refuse(send, error)
            return
        await self._app(scope, receive, send)


async def _refuse(send: Send, error: EdgeAgentsError) -> None:
    status = meaning_of(error).status
    body = json.dumps(error_body(status, str(error)), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
