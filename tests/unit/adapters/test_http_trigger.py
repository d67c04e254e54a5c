"""`POST /api/v3/trigger`: what goes in, what comes back, and which status each failure has."""

import json
from typing import Any

import cbor2
import httpx
import pytest
from fastapi import FastAPI

from edgeagents.adapters.http_trigger import Pipeline, Reply, Triggered, add_trigger
from edgeagents.adapters.middleware import WebLimits
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import InvalidInputError, UnavailableError

EVENT: dict[str, Any] = {
    "apiVersion": "v3", "id": "0b7e9a90-3f0a-4c7e-9d0e-0a4ee34a7b01", "deviceName": "lamp-1", "profileName": "lamp",
    "sourceName": "Power", "origin": 1764000000000000000,
    "readings": [{"origin": 1764000000000000000, "deviceName": "lamp-1", "resourceName": "Power",
                  "profileName": "lamp", "valueType": "Bool", "value": "true"}],
}  # fmt: skip
REQUEST = {"apiVersion": "v3", "requestId": "", "event": EVENT}


class Kept:
    """A pipeline that keeps what it gets, and answers or fails as it is told."""

    def __init__(self, reply: Reply | None = None, failure: Exception | None = None) -> None:
        self.came: list[Triggered] = []
        self.invalid = 0
        self.target_type = "event"
        self._reply = reply
        self._failure = failure

    async def __call__(self, came: Triggered) -> Reply | None:
        self.came.append(came)
        if self._failure is not None:
            raise self._failure
        return self._reply

    def count_invalid(self) -> None:
        self.invalid += 1


def app_of(pipeline: Kept, limits: WebLimits | None = None) -> FastAPI:
    """Return a service's app with the trigger."""
    app = make_app(WebContext("app-x", "4.0.0", dict, None, limits=limits or WebLimits()))
    checked: Pipeline = pipeline
    add_trigger(app, checked, lambda: pipeline.target_type, pipeline.count_invalid)
    return app


async def post(app: FastAPI, body: bytes, content_type: str | None = "application/json") -> httpx.Response:
    """Post a body."""
    headers = {"Content-Type": content_type} if content_type else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post("/api/v3/trigger", content=body, headers=headers | {"X-Correlation-ID": "c-1"})


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(REQUEST).encode(), "application/json"),
        (json.dumps(EVENT).encode(), "application/json; charset=UTF-8"),
        (json.dumps(EVENT).encode(), "Application/JSON"),
        (json.dumps(REQUEST).encode(), None),
        (cbor2.dumps(REQUEST), "application/cbor"),
    ],
)
async def test_an_event_reaches_the_pipeline_however_it_is_written(body: bytes, content_type: str | None) -> None:
    pipeline = Kept()
    answer = await post(app_of(pipeline), body, content_type)
    assert (answer.status_code, answer.content) == (200, b"")
    came = pipeline.came[0]
    assert came.event is not None
    assert (came.event.device_name, came.event.readings[0].value, came.correlation_id) == ("lamp-1", "true", "c-1")
    assert (came.body, answer.headers["X-Correlation-ID"]) == (body, "c-1")


async def test_response_data_comes_back_with_its_content_type() -> None:
    answer = await post(app_of(Kept(Reply(b"<Event/>", "application/xml"))), json.dumps(EVENT).encode())
    assert (answer.status_code, answer.content) == (200, b"<Event/>")
    assert answer.headers["Content-Type"] == "application/xml"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"not json", "application/json"),
        (b"[1, 2]", "application/json"),
        (b'{"event": {"deviceName": "d"}}', "application/json"),
        (b"\xff\xff", "application/cbor"),
        (b"[" * 100_000, "application/json"),
        (json.dumps(EVENT).encode(), "application/xml"),
        (json.dumps(EVENT).encode(), "text/plain"),
    ],
)
async def test_what_cannot_be_decoded_is_400_in_plain_text_and_counted(body: bytes, content_type: str) -> None:
    pipeline = Kept()
    answer = await post(app_of(pipeline), body, content_type)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("unable to decode")
    assert (pipeline.came, pipeline.invalid) == ([], 1)


async def test_raw_bytes_are_not_decoded_and_a_pipeline_that_needs_an_event_says_422() -> None:
    pipeline = Kept(failure=InvalidInputError("type received is not an Event"))
    pipeline.target_type = "Raw"
    answer = await post(app_of(pipeline), b"\x00raw", "application/octet-stream")
    assert (answer.status_code, answer.text) == (422, "type received is not an Event")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert (pipeline.came[0].event, pipeline.came[0].body, pipeline.invalid) == (None, b"\x00raw", 0)


async def test_a_broker_that_is_away_is_503_in_plain_text() -> None:
    answer = await post(app_of(Kept(failure=UnavailableError("no stream"))), json.dumps(EVENT).encode())
    assert (answer.status_code, answer.text) == (503, "no stream")


async def test_the_size_limit_holds_here_too() -> None:
    pipeline = Kept()
    answer = await post(app_of(pipeline, WebLimits(max_request_bytes=1024)), b" " * 1025)
    assert (answer.status_code, pipeline.came) == (413, [])
