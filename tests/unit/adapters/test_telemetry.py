"""Each hop of a trace, recorded in memory: what comes in is continued, what goes out carries it, off means off."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from edgeagents.adapters import otel, telemetry
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.event_publisher import EventPublisher, Outgoing
from edgeagents.adapters.metrics import Metrics
from edgeagents.adapters.middleware import CorrelationMiddleware
from edgeagents.adapters.otel import TelemetrySettings
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import InvalidInputError, NotFoundError
from edgeagents.model.device import Event, Reading
from edgeagents.model.envelope import EdgexMessage
from tests.unit.adapters.device_fakes import MemoryTransport

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
INCOMING = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Record every span of this process in memory."""
    exporter = InMemorySpanExporter()
    running = otel.set_up(TelemetrySettings(), "test", version="1", spans=exporter)
    yield exporter
    running.close()


def ended(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    """Return the one span of a name."""
    found = [span for span in exporter.get_finished_spans() if span.name == name]
    assert len(found) == 1, [span.name for span in exporter.get_finished_spans()]
    return found[0]


def trace_id(span: ReadableSpan) -> str:
    """Return a span's trace as headers write it."""
    return f"{span.context.trace_id:032x}"


def parent_id(span: ReadableSpan) -> str:
    """Return the span a span follows from, empty for a root."""
    return f"{span.parent.span_id:016x}" if span.parent else ""


def client_of(app: Any) -> httpx.AsyncClient:
    """Return a client of an app in this process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def core_that_keeps(seen: list[httpx.Request], status: int = 200) -> Rest:
    """Return a client of a service in memory that keeps the requests it gets."""

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, json={"message": "no"})

    return Rest("core-command", FixedAddress("http://core"), httpx.AsyncClient(transport=httpx.MockTransport(answer)))


# --- one hop each --------------------------------------------------------------------------------


async def test_a_request_continues_its_callers_trace_and_is_named_by_its_route(spans: InMemorySpanExporter) -> None:
    app = make_app(WebContext("app-x", "4.0.0", dict, None))

    @app.get("/api/v3/thing/{name}")
    async def thing(name: str) -> dict[str, str]:
        return {"carried": telemetry.carried()["traceparent"]}

    async with client_of(app) as client:
        answer = await client.get("/api/v3/thing/lamp", headers=INCOMING | {"X-Correlation-ID": "c-1"})
    span = ended(spans, "GET /api/v3/thing/{name}")
    assert (trace_id(span), parent_id(span), span.kind) == (TRACE, CALLER, SpanKind.SERVER)
    assert span.context.trace_state.to_header() == "vendor=1"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET", "url.path": "/api/v3/thing/lamp", "http.response.status_code": 200,
        "edgex.correlation_id": "c-1",
    }  # fmt: skip
    assert answer.json()["carried"] == f"00-{TRACE}-{span.context.span_id:016x}-01"


async def test_keepers_health_checks_are_not_traced(spans: InMemorySpanExporter) -> None:
    async with client_of(make_app(WebContext("app-x", "4.0.0", dict, None))) as client:
        assert (await client.get("/api/v3/ping")).status_code == 200
    assert spans.get_finished_spans() == ()


async def test_a_request_to_a_service_carries_the_trace_beside_the_correlation_id(spans: InMemorySpanExporter) -> None:
    seen: list[httpx.Request] = []
    with telemetry.span("command", parent=INCOMING):
        await core_that_keeps(seen).call("PUT", "/api/v3/device/name/lamp/Power", body={}, correlation_id="c-1")
    call = ended(spans, "PUT core-command")
    assert seen[0].headers["traceparent"] == f"00-{TRACE}-{call.context.span_id:016x}-01"
    assert seen[0].headers["X-Correlation-ID"] == "c-1"
    assert parent_id(call) == f"{ended(spans, 'command').context.span_id:016x}"


async def test_a_refused_request_ends_its_span_with_the_status(spans: InMemorySpanExporter) -> None:
    with pytest.raises(NotFoundError):
        await core_that_keeps([], 404).call("GET", "/x")
    assert (ended(spans, "GET core-command").attributes or {})["http.response.status_code"] == 404


async def test_a_bus_message_carries_its_trace_into_its_handler() -> None:
    transport, seen = MemoryTransport(), asyncio.Queue[str]()
    edgex = EdgexBus(transport)

    async def handler(message: EdgexMessage) -> None:
        await seen.put(telemetry.carried().get("traceparent", ""))

    await edgex.subscribe("events/#", handler)
    event = {"apiVersion": "v3", "id": "i", "deviceName": "d", "profileName": "p", "sourceName": "r", "origin": 1,
             "readings": [{"origin": 1, "deviceName": "d", "resourceName": "r", "profileName": "p",
                           "valueType": "Bool", "value": "true"}]}  # fmt: skip
    data = json.dumps({"payload": {"event": event}, "contentType": "application/json"}).encode()
    _, deliver = transport.filters[-1]
    await deliver("edgex/events/device/s/p/d/r", data, INCOMING)
    await deliver("edgex/events/device/s/p/d/r", data, {})
    assert (seen.get_nowait(), seen.get_nowait()) == (INCOMING["traceparent"], "")


class KeepingSink:
    """Keeps what goes out, and the trace it went with; refuses what it is told to."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.carried: list[str] = []
        self._refusal = refusal

    def subject(self, topic: str) -> str:
        return topic

    async def send(self, item: Outgoing) -> int:
        if self._refusal is not None:
            raise self._refusal
        self.carried.append(telemetry.carried().get("traceparent", ""))
        return 1


def an_event() -> Event:
    """Return an event with two readings."""
    reading = Reading(device_name="d", resource_name="r", profile_name="p", value_type="Bool", value="true", origin=1)
    return Event(id="e-1", device_name="d", profile_name="p", source_name="r", origin=1, readings=(reading, reading))


async def test_an_event_begins_a_trace_of_its_own_linked_to_what_caused_it(spans: InMemorySpanExporter) -> None:
    sink = KeepingSink()
    publisher = EventPublisher("device-x", sink)
    with telemetry.span("driver write", parent=INCOMING):
        publisher.offer(an_event())
    running = asyncio.create_task(publisher.run())
    assert await publisher.drain(5)
    running.cancel()
    span = ended(spans, "event")
    assert trace_id(span) != TRACE
    assert (span.parent, span.kind) == (None, SpanKind.PRODUCER)
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE]
    assert sink.carried == [f"00-{trace_id(span)}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"]
    assert (publisher.published, publisher.readings) == (1, 2)


async def test_an_event_that_cannot_be_sent_ends_its_span_with_the_reason(spans: InMemorySpanExporter) -> None:
    publisher = EventPublisher("device-x", KeepingSink(InvalidInputError("no subject can carry it")))
    publisher.offer(an_event())
    running = asyncio.create_task(publisher.run())
    await publisher.drain(5)
    running.cancel()
    status = ended(spans, "event").status
    assert (status.status_code, status.description) == (StatusCode.ERROR, "no subject can carry it")


async def test_an_error_marks_its_span_and_a_cancellation_does_not(spans: InMemorySpanExporter) -> None:
    with pytest.raises(NotFoundError), telemetry.span("fails"):
        raise NotFoundError("no device lamp")
    with pytest.raises(asyncio.CancelledError), telemetry.span("cancelled"):
        raise asyncio.CancelledError
    assert ended(spans, "fails").status.description == "no device lamp"
    assert ended(spans, "cancelled").status.status_code is StatusCode.UNSET


# --- off -----------------------------------------------------------------------------------------


async def test_without_a_collector_an_incoming_trace_is_passed_on_unchanged() -> None:
    seen: list[httpx.Request] = []
    rest, app = core_that_keeps(seen), FastAPI()

    @app.get("/relay")
    async def relay() -> None:
        await asyncio.create_task(rest.call("GET", "/next"))

    async with client_of(CorrelationMiddleware(app)) as client:
        await client.get("/relay", headers=INCOMING)
        await client.get("/relay")
    assert [request.headers.get("traceparent") for request in seen] == [INCOMING["traceparent"], None]
    assert seen[0].headers["tracestate"] == "vendor=1"


def test_without_a_collector_nothing_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "EDGEAGENTS_OTEL_")):
            monkeypatch.delenv(name)
    running = otel.set_up(TelemetrySettings(), "test")
    assert (telemetry.is_on(), running.meter, running.scrape) == (False, None, None)
    assert telemetry.inject({"a": "b"}) == {"a": "b"}
    assert telemetry.inject() is None
    running.close()


def test_after_its_end_nothing_is_recorded_any_more() -> None:
    exporter = InMemorySpanExporter()
    otel.set_up(TelemetrySettings(), "test", spans=exporter).close()
    with telemetry.span("late"):
        pass
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    "text",
    [
        "", "00", f"00-{TRACE}-{CALLER}", f"ff-{TRACE}-{CALLER}-01", f"00-{'0' * 32}-{CALLER}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{CALLER}-01", f"00-{TRACE}-{CALLER}-01-more",
        f"00-{TRACE}-{CALLER}-01\n",
    ],
)  # fmt: skip
def test_a_traceparent_that_is_none_begins_a_new_trace(text: str, spans: InMemorySpanExporter) -> None:
    with telemetry.span("work", parent={"traceparent": text}):
        pass
    assert ended(spans, "work").parent is None


def test_a_newer_version_of_the_header_is_understood() -> None:
    assert telemetry.trace_of({"traceparent": f"01-{TRACE}-{CALLER}-01-more"})


@pytest.mark.parametrize("state", ["a" * 513, "vendor=\x00", "vendor=é"])
def test_a_hostile_tracestate_is_left_out(state: str) -> None:
    assert telemetry.trace_of(INCOMING | {"tracestate": state}) == {"traceparent": INCOMING["traceparent"]}


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_headers_make_a_trace_or_none(parent: str, state: str) -> None:
    found = telemetry.trace_of({"traceparent": parent, "tracestate": state})
    assert set(found) <= {"traceparent", "tracestate"}


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["collector:4318", "ftp://collector", "http://", "grpc"])
def test_an_address_that_is_none_is_refused_by_name(address: str) -> None:
    with pytest.raises(ValidationError, match="no address of a collector"):
        TelemetrySettings(endpoint=address)


def test_the_standard_variables_count_and_the_standard_switch_wins() -> None:
    off, own = TelemetrySettings(), TelemetrySettings(endpoint="http://c:4318/")
    assert own.endpoint == "http://c:4318"
    assert own.sends("TRACES", {})
    assert not off.sends("TRACES", {})
    assert off.sends("METRICS", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"})
    assert off.sends("TRACES", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"})
    assert not off.sends("METRICS", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"})
    assert not own.sends("TRACES", {"OTEL_SDK_DISABLED": "True"})


async def test_prometheus_fetches_the_metrics_when_the_owner_says_so() -> None:
    metrics, app = Metrics(), make_app(WebContext("app-x", "4.0.0", dict, None))
    metrics.counter("MessagesReceived").add(3)
    running = otel.set_up(TelemetrySettings(prometheus=True), "app-x")
    otel.follow(metrics, app)
    metrics.timer("GuardGateTime").update(2_000_000)
    metrics.gauge("Level", {"room": "bath"}).set(1.5)
    try:
        async with client_of(app) as client:
            text = (await client.get("/metrics")).text
    finally:
        running.close()
    lines = text.splitlines()
    assert next(line for line in lines if line.startswith("edgeagents_messages_received_total")).endswith(" 3.0")
    assert "edgeagents_guard_gate_time_seconds_sum" in text
    assert any(line.startswith("edgeagents_level{") and 'room="bath"' in line for line in lines)


async def test_there_is_no_metrics_route_unless_it_was_asked_for() -> None:
    app = make_app(WebContext("app-x", "4.0.0", dict, None))
    otel.follow(Metrics(), app)
    async with client_of(app) as client:
        assert (await client.get("/metrics")).status_code == 404
