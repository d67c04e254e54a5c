"""Common routes, EdgeX's error bodies, correlation ids, CORS and the limits of size and time."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from edgeagents.adapters.config import HIDDEN
from edgeagents.adapters.middleware import Cors, WebLimits, correlation_id, limits_of
from edgeagents.adapters.web import WebContext, make_app, secret_keys, unix_date
from edgeagents.errors import ConfigurationError, LockedError, UnavailableError
from tests.recordings import http_lines

CONFIG = {
    "Writable": {"LogLevel": "INFO", "InsecureSecrets": {"DB": {"SecretName": "db", "SecretData": {"password": "p"}}}},
    "Mine": {"Limit": 1},
}


class Body(BaseModel):
    """A body with one number."""

    number: int


class Stored(list[tuple[str, dict[str, str]]]):
    """What was stored as a secret."""

    async def __call__(self, name: str, data: dict[str, str]) -> None:
        self.append((name, data))


def client(limits: WebLimits | None = None, store: Stored | None = None) -> httpx.AsyncClient:
    app = make_app(WebContext("app-x", "4.0.0", lambda: CONFIG, store, limits or WebLimits()))

    @app.post("/number")
    async def number(body: Body) -> dict[str, Any]:
        return {"number": body.number, "correlation": correlation_id.get()}

    @app.put("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.get("/fail/{how}")
    async def fail(how: str) -> None:
        raise {"locked": LockedError("device lamp is locked"), "away": UnavailableError("keeper is away")}.get(
            how, ZeroDivisionError("secret detail")
        )

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.Event().wait()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first "
            await asyncio.sleep(0.15)  # longer than the limit of time: the answer has begun
            yield b"last"

        return StreamingResponse(chunks())

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://x")


async def test_ping_says_the_time_as_unix_writes_it() -> None:
    answer = await client().get("/api/v3/ping")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"apiVersion", "timestamp", "serviceName"}
    assert re.fullmatch(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d UTC \d{4}", answer.json()["timestamp"])
    assert answer.json()["serviceName"] == "app-x"


def test_a_single_digit_day_is_padded_with_a_blank() -> None:
    assert unix_date(datetime(2026, 11, 3, 4, 5, 6, tzinfo=UTC)) == "Tue Nov  3 04:05:06 UTC 2026"


async def test_version_holds_the_sdks_version_too() -> None:
    assert (await client().get("/api/v3/version")).json() == {
        "apiVersion": "v3", "version": "4.0.0", "serviceName": "app-x", "sdk_version": "4.0.0",
    }  # fmt: skip


@pytest.mark.recordings
@pytest.mark.parametrize("route", ["ping", "version", "config"])
async def test_common_answers_have_the_keys_of_a_real_app_service(route: str) -> None:
    recorded = next(line for line in http_lines() if line.service == "app" and line.path == f"/api/v3/{route}")
    assert set((await client().get(f"/api/v3/{route}")).json()) == set(recorded.json())


async def test_config_hides_secrets() -> None:
    body = (await client().get("/api/v3/config")).json()
    assert body["apiVersion"] == "v3"
    assert body["serviceName"] == "app-x"
    assert body["config"]["Writable"]["InsecureSecrets"]["DB"]["SecretData"] == {"password": HIDDEN}
    assert body["config"]["CustomConfiguration"] == {"Mine": {"Limit": 1}}


async def test_a_secret_is_stored() -> None:
    store = Stored()
    body = {"apiVersion": "v3", "requestId": "r1", "secretName": "mail", "secretData": [{"key": "k", "value": "v"}]}
    answer = await client(store=store).post("/api/v3/secret", json=body)
    assert (answer.status_code, answer.json()) == (201, {"apiVersion": "v3", "requestId": "r1", "statusCode": 201})
    assert store == [("mail", {"k": "v"})]


def test_a_secrets_name_is_escaped_in_its_keys() -> None:
    assert secret_keys("a/b", {"k": "v"}) == {
        "Writable/InsecureSecrets/a%2Fb/SecretName": "a/b", "Writable/InsecureSecrets/a%2Fb/SecretData/k": "v",
    }  # fmt: skip


@pytest.mark.recordings
@pytest.mark.parametrize("case", ["app secret", "app secret bad", "app secret not json"])
async def test_secret_answers_as_a_real_app_service(case: str) -> None:
    recorded = next(line for line in http_lines() if line.case == case)
    request = recorded.request if isinstance(recorded.request, str) else None
    sent = {"content": request} if request is not None else {"json": recorded.request}
    answer = await client(store=Stored()).post("/api/v3/secret", **sent)
    assert answer.status_code == recorded.status
    assert set(answer.json()) == set(recorded.json())
    assert answer.json().get("message", "").startswith(recorded.json().get("message", ""))


@pytest.mark.parametrize(
    "body",
    [
        '{"secretName": "", "secretData": [{"key": "k", "value": "v"}]}',
        '{"secretName": " ", "secretData": [{"key": "k", "value": "v"}]}',
        '{"secretName": "n", "secretData": []}',
        '{"secretName": "n"}',
        '{"secretName": "n", "secretData": [{"key": "", "value": "v"}]}',
        '{"secretName": "n", "secretData": [{"key": "k", "value": ""}]}',
        '{"secretName": "n", "secretData": [{"value": "v"}]}',
        '{"secretName": "n", "secretData": [{"key": "k"}]}',
        "",
        "[]",
        "[" * 5000,
        "\xff",
    ],
)
async def test_a_bad_secret_is_refused_without_being_stored_or_repeated(body: str) -> None:
    store = Stored()
    answer = await client(store=store).post("/api/v3/secret", content=body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("JSON decode failed")
    assert store == []


async def test_without_a_provider_secrets_are_not_allowed() -> None:
    body = {"secretName": "n", "secretData": [{"key": "k", "value": "v"}]}
    assert (await client().post("/api/v3/secret", json=body)).status_code == 405


async def test_the_callers_correlation_id_comes_back_and_reaches_the_route() -> None:
    answer = await client().post("/number", json={"number": 1}, headers={"x-correlation-id": "abc"})
    assert answer.headers["X-Correlation-ID"] == "abc"
    assert answer.json() == {"number": 1, "correlation": "abc"}


@pytest.mark.parametrize("path", ["/api/v3/ping", "/nowhere", "/fail/other", "/fail/locked"])
async def test_every_answer_has_a_correlation_id(path: str) -> None:
    answer = await client().get(path)
    assert uuid.UUID(answer.headers["X-Correlation-ID"])


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/api/v3/ping", None, 405),
        ("POST", "/number", b'{"number": "x"}', 400),
        ("POST", "/number", b"{bad", 400),
        ("POST", "/number", b"", 400),
        ("GET", "/fail/locked", None, 423),
        ("GET", "/fail/away", None, 503),
        ("GET", "/fail/other", None, 500),
    ],
)
async def test_every_error_has_edgexs_body(method: str, path: str, sent: bytes | None, status: int) -> None:
    headers = {"content-type": "application/json"} if sent is not None else {}
    answer = await client().request(method, path, content=sent, headers=headers)
    body = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert set(body) == {"apiVersion", "message", "statusCode"}
    assert (body["apiVersion"], body["statusCode"]) == ("v3", status)
    assert body["message"]


async def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    assert "secret detail" not in (await client().get("/fail/other")).text


async def test_bodies_above_the_limit_are_refused_with_or_without_a_length() -> None:
    limited = client(WebLimits(max_request_bytes=1024))

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 250

    assert (await limited.put("/length", content=b"x" * 1024)).json() == 1024
    for body in (b"x" * 1025, chunks()):
        answer = await limited.put("/length", content=body)
        assert answer.status_code == 413
        assert answer.json()["statusCode"] == 413
        assert "X-Correlation-ID" in answer.headers


async def test_a_length_that_lies_does_not_help() -> None:
    limited = client(WebLimits(max_request_bytes=1024))
    answer = await limited.put("/length", content=b"x" * 5000, headers={"content-length": "10"})
    assert answer.status_code == 413


async def test_a_body_in_chunks_below_the_limit_arrives_whole() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 250

    assert (await client(WebLimits(max_request_bytes=1024)).put("/length", content=chunks())).json() == 1000


async def test_a_route_that_takes_too_long_answers_503() -> None:
    answer = await client(WebLimits(request_timeout_s=0.05)).get("/slow")
    assert answer.status_code == 503
    assert answer.json()["statusCode"] == 503


async def test_an_answer_that_has_begun_may_take_longer() -> None:
    assert (await client(WebLimits(request_timeout_s=0.05)).get("/stream")).text == "first last"


CORS = Cors(True, "https://ui", True, "GET, PUT", "Authorization", "X-Correlation-ID", 60)


async def test_cors_is_told_on_answers_to_other_origins() -> None:
    answer = await client(WebLimits(cors=CORS)).get("/api/v3/ping", headers={"Origin": "https://ui"})
    assert answer.status_code == 200
    assert answer.headers["Vary"] == "Origin"
    assert answer.headers["Access-Control-Allow-Origin"] == "https://ui"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Expose-Headers"] == "X-Correlation-ID"
    assert "Access-Control-Allow-Methods" not in answer.headers


async def test_a_preflight_is_answered_with_what_is_allowed() -> None:
    headers = {"Origin": "https://ui", "Access-Control-Request-Method": "PUT"}
    answer = await client(WebLimits(cors=CORS)).options("/api/v3/ping", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, PUT"
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization"
    assert answer.headers["Access-Control-Max-Age"] == "60"


@pytest.mark.parametrize(
    ("cors", "headers"), [(CORS, {}), (Cors(), {"Origin": "https://ui"}), (Cors(origin="*"), {"Origin": "https://ui"})]
)
async def test_without_cors_or_an_origin_nothing_is_added(cors: Cors, headers: dict[str, str]) -> None:
    answer = await client(WebLimits(cors=cors)).get("/api/v3/ping", headers=headers)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_limits_are_read_from_the_configuration() -> None:
    tree = {
        "Service": {
            "MaxRequestSize": 2, "RequestTimeout": "1500ms",
            "CORSConfiguration": {"EnableCORS": True, "CORSAllowedOrigin": "https://ui", "CORSMaxAge": 5},
        }
    }  # fmt: skip
    limits = limits_of(tree)
    assert (limits.max_request_bytes, limits.request_timeout_s) == (2048, 1.5)
    assert limits.cors == Cors(enabled=True, origin="https://ui", max_age_s=5)
    with pytest.raises(ConfigurationError, match="RequestTimeout"):
        limits_of({"Service": {"RequestTimeout": "soon"}})
    with pytest.raises(ConfigurationError, match="MaxRequestSize"):
        limits_of({"Service": {"MaxRequestSize": -1}})


async def test_the_routes_describe_themselves() -> None:
    described = (await client().get("/openapi.json")).json()
    assert "/api/v3/secret" in described["paths"]
    assert "/number" in described["paths"]
