"""What surrounds every route: correlation ids, CORS, the limits of size and time. Plain ASGI.

Source: edgex-wire.md section 4; Go's http.TimeoutHandler and EdgeX's CORS for the answers.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeagents.adapters import telemetry
from edgeagents.adapters.config import duration_s, lookup
from edgeagents.adapters.rest import CORRELATION_HEADER
from edgeagents.errors import ConfigurationError

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")
_WITH_BODY: Final = ("POST", "PUT", "PATCH")
_NOT_TRACED: Final = ("/api/v3/ping", "/metrics")


@dataclass(frozen=True, slots=True)
class Cors:
    """`Service/CORSConfiguration`."""

    enabled: bool = False
    origin: str = ""
    credentials: bool = False
    methods: str = ""
    headers: str = ""
    expose: str = ""
    max_age_s: int = 3600


@dataclass(frozen=True, slots=True)
class WebLimits:
    """What `Service` says about requests; 0 means no limit."""

    max_request_bytes: int = 0
    request_timeout_s: float = 0.0
    cors: Cors = field(default_factory=Cors)


def limits_of(config: Mapping[str, Any]) -> WebLimits:
    """Return the limits that a configuration tree sets.

    Raises:
        ConfigurationError: `Service/RequestTimeout` is no duration, or a size is below 0.
    """
    cors = lookup(config, "Service/CORSConfiguration", {})
    kilobytes = lookup(config, "Service/MaxRequestSize", 0)
    if kilobytes < 0:
        raise ConfigurationError(f"configuration Service/MaxRequestSize: {kilobytes}: kilobytes, 0 for no limit")
    try:
        timeout_s = duration_s(lookup(config, "Service/RequestTimeout", ""))
    except ConfigurationError as error:
        raise ConfigurationError(f"configuration Service/RequestTimeout: {error}") from error
    return WebLimits(
        max_request_bytes=kilobytes * 1024,
        request_timeout_s=timeout_s,
        cors=Cors(
            enabled=cors.get("EnableCORS", False),
            origin=cors.get("CORSAllowedOrigin", ""),
            credentials=cors.get("CORSAllowCredentials", False),
            methods=cors.get("CORSAllowedMethods", ""),
            headers=cors.get("CORSAllowedHeaders", ""),
            expose=cors.get("CORSExposeHeaders", ""),
            max_age_s=cors.get("CORSMaxAge", 3600),
        ),
    )


def error_body(status: int, message: str, request_id: str = "") -> dict[str, Any]:
    """Return EdgeX's error body."""
    body: dict[str, Any] = {"apiVersion": "v3"}
    if request_id:
        body["requestId"] = request_id
    return body | {"message": message, "statusCode": status}


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps(error_body(status, message), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class CorrelationMiddleware:
    """Gives each request a correlation id, the caller's own if there is one, and continues its trace."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        own = headers.get(CORRELATION_HEADER, "").strip() or str(uuid.uuid4())
        correlation_id.set(own)
        span = _span_of(scope, headers, own)

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[CORRELATION_HEADER] = own
                span.note({"http.response.status_code": message["status"]})
            await send(message)

        with span:
            await self._app(scope, receive, with_id)
            route = getattr(scope.get("route"), "path", "")
            if route:
                span.rename(f"{scope['method']} {route}")


def _span_of(scope: Scope, headers: Headers, correlation: str) -> telemetry.Span:
    """Return the span of a request, which continues its caller's trace; keeper's health checks begin none."""
    method, path = scope["method"], scope["path"]
    if path in _NOT_TRACED:
        return telemetry.carry(headers)
    about = {"http.request.method": method, "url.path": path, "edgex.correlation_id": correlation}
    return telemetry.span(method, about, kind="server", parent=headers)


class CorsMiddleware:
    """Answers browsers of other origins as EdgeX does: one configured origin, told on every answer."""

    def __init__(self, app: ASGIApp, cors: Cors) -> None:
        """Wrap `app`."""
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        headers = Headers(scope=scope) if scope["type"] == "http" else None
        if not self._cors.enabled or headers is None or "origin" not in headers:
            await self._app(scope, receive, send)
            return
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        extra = self._headers(preflight)
        if preflight:
            start = [(name.lower().encode(), value.encode()) for name, value in extra.items()]
            await send({"type": "http.response.start", "status": 200, "headers": [*start, (b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in extra.items():
                    answer[name] = value
            await send(message)

        await self._app(scope, receive, with_cors)

    def _headers(self, preflight: bool) -> dict[str, str]:
        cors = self._cors
        headers = {"Vary": "Origin", "Access-Control-Allow-Origin": cors.origin}
        if cors.credentials:
            headers["Access-Control-Allow-Credentials"] = "true"
        if not preflight:
            return headers | ({"Access-Control-Expose-Headers": cors.expose} if cors.expose else {})
        return headers | {
            "Access-Control-Allow-Methods": cors.methods,
            "Access-Control-Allow-Headers": cors.headers,
            "Access-Control-Max-Age": str(cors.max_age_s),
        }


class SizeMiddleware:
    """Refuses bodies above a size with 413, whether or not they told their length."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        """Wrap `app`; 0: no limit."""
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if not self._max_bytes or scope["type"] != "http" or scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        if told.isdigit() and int(told) > self._max_bytes:
            await self._refuse(send)
            return
        # At most max_bytes are held here; the route reads them from memory.
        messages: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
            if size > self._max_bytes:
                await self._refuse(send)
                return
        messages.reverse()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _refuse(self, send: Send) -> None:
        await _answer(send, 413, f"request size exceed Service.MaxRequestSize({self._max_bytes // 1024} KB)")


class TimeoutMiddleware:
    """Answers 503 when a route has not begun to answer in time, and cancels it; a begun answer may take longer."""

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        """Wrap `app`; 0: no limit."""
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if not self._timeout_s or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if not begun:
                begun = True
                deadline.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                await self._app(scope, receive, watched)
        except TimeoutError:
            if begun or not deadline.expired():
                raise
            await _answer(
                send, 503, f"HTTP request timeout: no answer in Service.RequestTimeout ({self._timeout_s:g} s)"
            )
