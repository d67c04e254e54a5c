"""What every service's FastAPI app shares: EdgeX's common routes, its error bodies, correlation ids and limits.

Source: edgex-wire.md section 4; recordings of EdgeX 4.0.2.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote_plus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError, field_validator
from starlette.exceptions import HTTPException

from edgeagents.adapters.auth import AuthMiddleware, Check
from edgeagents.adapters.config import shown
from edgeagents.adapters.middleware import (
    CorrelationMiddleware,
    CorsMiddleware,
    SizeMiddleware,
    TimeoutMiddleware,
    WebLimits,
    correlation_id,
    error_body,
)
from edgeagents.adapters.rest import CORRELATION_HEADER
from edgeagents.adapters.web_pages import ERRORS, Config, Ping, Stored, Version, shows, takes
from edgeagents.errors import UNEXPECTED, EdgeAgentsError, NotAllowedError, TooManyAttemptsError, meaning_of
from edgeagents.model.device import EdgexModel

SDK_VERSION: Final = "4.0.0"  # the EdgeX release whose contract is kept
StoreSecret = Callable[[str, dict[str, str]], Awaitable[None]]


class SecretItem(EdgexModel):
    """One key of a secret."""

    key: str
    value: str

    @field_validator("key", "value")
    @classmethod
    def _not_empty(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        return text


class SecretRequest(EdgexModel):
    """`POST /api/v3/secret`."""

    request_id: str = ""
    secret_name: str
    secret_data: tuple[SecretItem, ...]

    @field_validator("secret_name")
    @classmethod
    def _named(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        return text

    @field_validator("secret_data")
    @classmethod
    def _some(cls, items: tuple[SecretItem, ...]) -> tuple[SecretItem, ...]:
        if not items:
            raise ValueError("must hold at least one key")
        return items


@dataclass(frozen=True)
class WebContext:
    """What the common routes tell of."""

    key: str
    version: str
    config: Callable[[], Mapping[str, Any]]
    store_secret: StoreSecret | None  # None: there is nowhere to store one
    limits: WebLimits = field(default_factory=WebLimits)
    check: Check | None = None  # of the Authorization header; None: everyone may call


def make_app(context: WebContext) -> FastAPI:
    """Return an app with the common routes, EdgeX's errors and the limits in force; the caller adds routes."""
    app = FastAPI(title=context.key, version=context.version, docs_url=None, redoc_url=None, responses=ERRORS)
    _add_common_routes(app, context)
    _add_error_bodies(app)
    # The last one added is the outermost.
    app.add_middleware(SizeMiddleware, max_bytes=context.limits.max_request_bytes)
    if context.check is not None:
        app.add_middleware(AuthMiddleware, check=context.check)
    app.add_middleware(TimeoutMiddleware, timeout_s=context.limits.request_timeout_s)
    app.add_middleware(CorsMiddleware, cors=context.limits.cors)
    app.add_middleware(CorrelationMiddleware)
    return app


def unix_date(now: datetime) -> str:
    """Return a time as EdgeX's ping writes it: `Mon Nov 24 10:00:00 UTC 2026`."""
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    utc = now.astimezone(UTC)
    return f"{days[utc.weekday()]} {months[utc.month - 1]} {utc.day:2d} {utc:%H:%M:%S} UTC {utc.year}"


def secret_keys(name: str, data: Mapping[str, str]) -> dict[str, str]:
    """Return the configuration leaves, by path, that hold an insecure secret."""
    root = f"Writable/InsecureSecrets/{quote_plus(name)}"
    return {f"{root}/SecretName": name} | {f"{root}/SecretData/{key}": value for key, value in data.items()}


def _add_common_routes(app: FastAPI, context: WebContext) -> None:
    @app.get("/api/v3/ping", tags=["common"], **shows(Ping, "It is up."))
    async def ping() -> dict[str, Any]:
        """Say that the service is up."""
        return {"apiVersion": "v3", "timestamp": unix_date(datetime.now(UTC)), "serviceName": context.key}

    @app.get("/api/v3/version", tags=["common"], **shows(Version, "The versions."))
    async def version() -> dict[str, Any]:
        """Return the versions of the service and of the EdgeX contract it keeps."""
        return {
            "apiVersion": "v3", "version": context.version, "serviceName": context.key, "sdk_version": SDK_VERSION,
        }  # fmt: skip

    @app.get("/api/v3/config", tags=["common"], **shows(Config, "The configuration."))
    async def config() -> dict[str, Any]:
        """Return the whole configuration, secrets hidden."""
        return {"apiVersion": "v3", "config": shown(context.config()), "serviceName": context.key}

    @app.post("/api/v3/secret", tags=["common"], **takes(SecretRequest), **shows(Stored, "It is stored.", 201))
    async def secret(request: Request) -> JSONResponse:
        """Store a secret."""
        if context.store_secret is None:
            raise NotAllowedError("secrets cannot be stored without a configuration provider: start with -cp")
        try:
            wanted = SecretRequest.model_validate_json(await request.body())
        except ValidationError as error:
            # The reason alone: the body may hold a secret.
            return JSONResponse(error_body(400, f"JSON decode failed: {_first(error.errors())}"), 400)
        await context.store_secret(wanted.secret_name.strip(), {item.key: item.value for item in wanted.secret_data})
        told = {"requestId": wanted.request_id} if wanted.request_id else {}
        return JSONResponse({"apiVersion": "v3", **told, "statusCode": 201}, 201)


def _add_error_bodies(app: FastAPI) -> None:
    @app.exception_handler(EdgeAgentsError)
    async def ours(request: Request, error: EdgeAgentsError) -> JSONResponse:
        wait_s = error.retry_after_s if isinstance(error, TooManyAttemptsError) else None
        headers = {"Retry-After": str(math.ceil(wait_s))} if wait_s is not None else None
        return _body(meaning_of(error).status, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _body(400, _first(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path}: {error.detail}"
        return _body(error.status_code, text, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # Answered outside the correlation middleware; the server logs the error itself.
        headers = {CORRELATION_HEADER: correlation_id.get()} if correlation_id.get() else {}
        return _body(500, UNEXPECTED, headers)


def _body(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error_body(status, message), status, headers=headers)


def _first(errors: Any) -> str:
    """Return what is wrong first, without the value: it may be a secret."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"
