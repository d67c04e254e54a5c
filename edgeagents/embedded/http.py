"""What the four apps of the embedded core share: EdgeX's answers and error bodies, correlation ids, paging, limits.

Routing sees the path as it came, still percent-escaped, and `param` unescapes one level: a device name may hold a
slash. Correlation ids and the size limit are those of all our services (`adapters/middleware.py`).

Source: edgex-wire.md section 4; recordings of EdgeX 4.0.2.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeagents.adapters.middleware import CorrelationMiddleware, CorsMiddleware, SizeMiddleware, WebLimits
from edgeagents.adapters.web import unix_date
from edgeagents.embedded.validation import load_json
from edgeagents.errors import (
    EdgeAgentsError,
    InvalidInputError,
    RangeError,
    TheirError,
    UnauthorisedError,
    meaning_of,
)

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]
Guard = Callable[[Mapping[bytes, bytes]], bool]

API: Final = "/api/v3"
VERSION: Final = "4.0.2"
JSON: Final = "application/json"
MAX_EVENT_KB: Final = 25_000  # core-data's MaxEventSize
MAX_BODY_BYTES: Final = 1024 * MAX_EVENT_KB  # of any request, unless Service/MaxRequestSize says else
MAX_RESULTS: Final = 1024
DEFAULT_LIMIT: Final = 20
_MAX_INT32: Final = 2**31 - 1
_OPEN_PATHS: Final = (f"{API}/ping", f"{API}/version")


class StatusError(TheirError):
    """An answer of a status that the error tree has no word for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UndecodableError(StatusError):
    """A body that is no JSON, or not of the outer shape: EdgeX 4.0 calls that a server error."""

    def __init__(self, text: str) -> None:
        super().__init__(500, text)


# --- answers -------------------------------------------------------------------------------------


def write_json(body: Any, status: int = 200) -> Response:
    """Return a JSON answer, ended by a line break as Go ends it."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n"
    return Response(content.encode(), status, media_type=JSON)


def answer(status: int = 200, *, request_id: str = "", message: str = "", **parts: Any) -> dict[str, Any]:
    """Return the body that every EdgeX answer begins with, and `parts`."""
    body: dict[str, Any] = {"apiVersion": "v3"}
    if request_id:
        body["requestId"] = request_id
    if message:
        body["message"] = message
    return body | {"statusCode": status} | parts


def ok(status: int = 200, **parts: Any) -> Response:
    """Return an answer without an error."""
    return write_json(answer(status, **parts), status)


def empty(status: int) -> Response:
    """Return an answer without a body; EdgeX names a content type all the same."""
    return Response(b"", status, headers={"Content-Type": JSON})


def status_of(error: EdgeAgentsError) -> int:
    """Return the HTTP status of an error."""
    return error.status if isinstance(error, StatusError) else meaning_of(error).status


def failure(error: EdgeAgentsError, request_id: str = "") -> dict[str, Any]:
    """Return the error body of one error: a whole answer, or one item of several."""
    return answer(status_of(error), request_id=request_id, message=str(error))


# --- requests ------------------------------------------------------------------------------------


def param(request: Request, name: str) -> str:
    """Return a part of the path, unescaped."""
    return unquote(str(request.path_params[name]))


async def read_json(request: Request) -> Any:
    """Return the decoded body.

    Raises:
        UndecodableError: it is no JSON.
    """
    body = await request.body()
    try:
        return load_json(body)
    except (ValueError, RecursionError) as error:
        raise UndecodableError(f"request body is not JSON: {str(error)[:200]}") from error


def flag(request: Request, name: str) -> bool:
    """Return a query parameter that is true or false; false when absent.

    Raises:
        InvalidInputError: it is neither.
    """
    text = request.query_params.get(name, "")
    if text.lower() not in ("", "true", "false"):
        raise InvalidInputError(f"failed to parse querystring {name}'s value {text} into bool")
    return text.lower() == "true"


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Return a query parameter that is an integer within bounds.

    Raises:
        InvalidInputError: it is not.
    """
    text = request.query_params.get(name, "")
    if not text:
        return default
    digits = text.strip()
    if len(digits) > 20 or not digits.isascii() or not digits.removeprefix("-").removeprefix("+").isdigit():
        raise InvalidInputError(
            f"failed to parse querystring {name}'s value {text} into integer. "
            f'Error:strconv.Atoi: parsing "{digits}": invalid syntax'
        )
    value = int(digits)
    if not low <= value <= high:
        raise InvalidInputError(f"querystring {name}'s value {value} is out of min {low} ~ max {high} range.")
    return value


def path_number(request: Request, name: str) -> int:
    """Return a part of the path that is a number of 0 or more.

    Raises:
        InvalidInputError: it is not.
    """
    text = param(request, name)
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 19):
        raise InvalidInputError(
            f"failed to parse path param {name}'s value {text} into integer. "
            f'Error:strconv.ParseInt: parsing "{text}": invalid syntax'
        )
    if not 0 <= int(text) < 2**63:
        raise InvalidInputError(f"path param {name}'s value {text} is out of min 0 ~ max {2**63 - 1} range.")
    return int(text)


def paging(request: Request, least_offset: int = 0) -> tuple[int, int]:
    """Return offset and limit of a list request; a limit of -1 asks for as many as there may be.

    Raises:
        InvalidInputError: one is no number or out of range.
    """
    most = request.app.state.max_results
    offset = number(request, "offset", 0, least_offset, _MAX_INT32)
    limit = number(request, "limit", min(DEFAULT_LIMIT, most), -1, most)
    return offset, most if limit == -1 else limit


def check_range(total: int, offset: int, limit: int) -> bool:
    """Say whether there is anything to list.

    Raises:
        RangeError: the offset lies beyond the end.
    """
    if limit == 0 or total == 0:
        return False
    if offset > total:
        raise RangeError(f"query objects bounds out of range. length:{total} offset:{offset}")
    return True


def page(items: Sequence[T], offset: int, limit: int) -> list[T]:
    """Return the part of a list that was asked for.

    Raises:
        RangeError: the offset lies beyond the end.
    """
    return list(items[offset : offset + limit]) if check_range(len(items), offset, limit) else []


# --- the app -------------------------------------------------------------------------------------


def make_app(key: str, config: Callable[[], dict[str, Any]], max_results: int = MAX_RESULTS) -> FastAPI:
    """Return an app with the common routes of a core service.

    Args:
        key: the service key.
        config: gives its configuration as it is now.
        max_results: longest list of one answer (`Service/MaxResultCount`).
    """
    app = FastAPI(title=key, openapi_url=None)
    app.state.max_results = max(1, max_results)

    async def ping(request: Request) -> Response:
        now = datetime.now(UTC)
        return write_json({"apiVersion": "v3", "timestamp": unix_date(now), "serviceName": key})

    async def version(request: Request) -> Response:
        return write_json({"apiVersion": "v3", "version": VERSION, "serviceName": key})

    async def configuration(request: Request) -> Response:
        return write_json({"apiVersion": "v3", "config": config(), "serviceName": key})

    routes(app, ("GET", "/ping", ping), ("GET", "/version", version), ("GET", "/config", configuration))
    app.add_exception_handler(EdgeAgentsError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)
    return app


def routes(app: FastAPI, *table: tuple[str, str, Handler]) -> None:
    """Add routes below `/api/v3`: method, path, handler."""
    for method, path, handler in table:
        app.add_api_route(API + path, handler, methods=[method], response_model=None)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EdgeAgentsError)
    return write_json(failure(error), status_of(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return write_json(answer(error.status_code, message=str(error.detail)), error.status_code)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return empty(400)  # nobody reads it: the caller went away within its request


async def _on_bug(request: Request, error: Exception) -> Response:
    return write_json(answer(500, message=f"internal error: {type(error).__name__}"), 500)


class EscapedPaths:
    """Lets an app route by the path as it came, so that an escaped slash stays within its name."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        raw = scope.get("raw_path", b"") if scope["type"] == "http" else b""
        await self._app(dict(scope) | {"path": raw.decode("latin-1")} if raw else scope, receive, send)


class Tokens:
    """Lets pass what `allowed(headers)` allows, and ping and version; 401 for the rest."""

    def __init__(self, app: ASGIApp, allowed: Guard) -> None:
        """Wrap `app`, which routes by the same path that is looked at here."""
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS or self._allowed(dict(scope["headers"])):
            await self._app(scope, receive, send)
            return
        refused = UnauthorisedError(f"Request to '{scope['path']}' UNAUTHORIZED")
        await write_json(failure(refused), status_of(refused))(scope, receive, send)


def wrap(app: FastAPI, limits: WebLimits | None = None, allowed: Guard | None = None) -> ASGIApp:
    """Return an app behind correlation ids, CORS, the size limit and, when `allowed` is given, tokens."""
    limits = limits or WebLimits()
    inner: ASGIApp = SizeMiddleware(app, limits.max_request_bytes or MAX_BODY_BYTES)
    if allowed is not None:
        inner = Tokens(inner, allowed)
    # A browser asks beforehand without a token.
    return CorrelationMiddleware(CorsMiddleware(EscapedPaths(inner), limits.cors))
