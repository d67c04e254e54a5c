"""A whole gateway told to a collector: one trace from event to proof; metrics and events by EdgeX's own doors."""

import asyncio
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from edgeagents.adapters import otel, telemetry
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.otel import TelemetrySettings
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from tests.collector import Collector, Received, collecting
from tests.nats import NatsServer, until

ROOT = Path(__file__).resolve().parents[2]
HOPS = [  # (service, span) from the event to the outcome that its agent hears of
    ("device-world-home", "event"),
    ("app-agent-comfort", "decide"),
    ("app-guard", "lease"),
    ("app-guard", "command"),
    ("app-guard", "gate"),
    ("app-guard", "set"),
    ("app-guard", "PUT core-command"),
    ("core", "PUT"),
    ("device-world-home", "PUT /api/v3/device/name/{device}/{command}"),
    ("device-world-home", "driver write"),
    ("app-guard", "read back"),
    ("device-world-home", "GET /api/v3/device/name/{device}/{command}"),
    ("app-guard", "outcome"),
    ("app-agent-comfort", "outcome"),
]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Collect what the gateway's processes send."""
    with collecting() as running:
        monkeypatch.setenv("EDGEAGENTS_OTEL_ENDPOINT", running.url)
        monkeypatch.setenv("EDGEAGENTS_OTEL_METRICS_INTERVAL_S", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield running


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A home that runs with an agent for comfort, energy and air each."""
    running = Gateway(Plan(tmp_path, ROOT / "edgex-profiles" / "home", 60.0, WINTER_MORNING_S))
    running.start()
    try:
        await running.ready()
        yield running
    finally:
        await running.stop()


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0) -> None:
    """Wait until something holds."""
    give_up_s = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < give_up_s, f"never came true: {what}"
        await asyncio.sleep(0.05)


def is_whole(trace: list[Received]) -> bool:
    """Say whether every hop of a trace was recorded, and each follows from another of the same trace."""
    ids = {span.id for span in trace}
    has_parents = all(not span.parent or span.parent in ids for span in trace)
    return has_parents and {(span.service, span.name) for span in trace} >= set(HOPS)


@pytest.mark.timeout(120)
async def test_one_trace_follows_an_event_to_its_proof(collector: Collector, gateway: Gateway) -> None:
    await until(lambda: any(is_whole(trace) for trace in collector.traces().values()), 45)
    trace = next(trace for trace in collector.traces().values() if is_whole(trace))
    roots = [span for span in trace if not span.parent]
    assert [(span.service, span.name) for span in roots] == [HOPS[0]]
    assert [span.failed for span in trace if span.failed] == []
    outcome = next(span for span in trace if (span.service, span.name) == ("app-guard", "outcome"))
    assert outcome.attributes["status"] == "proven"
    # EdgeX's correlation id, the command's own, stands beside: it is the same at every hop that knows it.
    command = next(span for span in trace if span.name == "command")
    writes = [span for span in trace if span.name.startswith("PUT ") and span.service == "device-world-home"]
    assert command.attributes["edgex.correlation_id"] in {span.attributes["edgex.correlation_id"] for span in writes}
    await until(lambda: ("app-guard", "edgeagents.guard_gate_time") in collector.metrics, 10)


@pytest.mark.timeout(120)
async def test_metrics_reach_edgexs_bus_once_keeper_says_so_and_events_come_by_http(gateway: Gateway) -> None:
    bus = await gateway.connect()
    try:
        await _metrics_on_the_bus(gateway, bus)
    finally:
        await bus.close()
    await _events_by_http(gateway)


async def _metrics_on_the_bus(gateway: Gateway, bus: Bus) -> None:
    wanted = {
        "app-guard": "GuardLeaseGrants", "device-world-home": "ReadingsSent",
        "app-agent-comfort": "PipelineMessageProcessingTime",
    }  # fmt: skip
    seen: dict[str, dict[str, Any]] = {}

    async def on_metric(message: BusMessage) -> None:
        seen[message.subject] = json.loads(message.data)["payload"]

    await bus.subscribe("edgex.telemetry.>", on_metric)
    for service, metric in wanted.items():
        await _configure(gateway, f"{service}/Writable/Telemetry/Interval", "200ms")
        await _configure(gateway, f"{service}/Writable/Telemetry/Metrics/{metric}", "true")
    subjects = {f"edgex.telemetry.{service}.{metric}" for service, metric in wanted.items()}
    await until(lambda: subjects <= seen.keys(), 10)
    assert seen.keys() == subjects, "what is not switched on is not told"
    body = seen["edgex.telemetry.app-agent-comfort.PipelineMessageProcessingTime"]
    assert body["tags"] == [
        {"name": "service", "value": "app-agent-comfort"}, {"name": "pipeline", "value": "default-pipeline"},
    ]  # fmt: skip
    assert body["fields"][0]["name"] == "timer-count"
    assert body["fields"][0]["value"] > 0
    await _configure(gateway, "app-guard/Writable/Telemetry/Interval", "0s")
    config = f"{gateway.url('guard')}/api/v3/config"

    async def is_off() -> bool:
        told = (await gateway.http.get(config)).json()["config"]["Writable"]["Telemetry"]["Interval"]
        return bool(told == "0s")

    await eventually(is_off, "the new interval")
    before = seen["edgex.telemetry.app-guard.GuardLeaseGrants"]["timestamp"]
    other = seen["edgex.telemetry.device-world-home.ReadingsSent"]["timestamp"]
    await until(lambda: seen["edgex.telemetry.device-world-home.ReadingsSent"]["timestamp"] > other + 1e9, 10)
    assert seen["edgex.telemetry.app-guard.GuardLeaseGrants"]["timestamp"] - before < 1e9


async def _configure(gateway: Gateway, path: str, value: str) -> None:
    answer = await gateway.http.put(f"{gateway.url('keeper')}/api/v3/kvs/key/edgex/v4/{path}", json={"value": value})
    assert answer.status_code == 200, answer.text


async def _events_by_http(gateway: Gateway) -> None:
    """An agent restarted with `Trigger.Type` `http` decides on what is posted, and hears nothing of the bus."""
    bus_url = (await gateway.agent_urls())["air"]
    assert (await gateway.http.post(f"{bus_url}/api/v3/trigger", json={})).status_code == 404
    await _configure(gateway, "app-agent-air/Trigger/Type", "http")
    before = gateway.supervisor.pid("agent-air")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until(lambda: gateway.supervisor.pid("agent-air") not in (None, before), 20)

    async def post(event: dict[str, Any]) -> httpx.Response | None:
        try:
            url = (await gateway.agent_urls())["air"]
            return await gateway.http.post(f"{url}/api/v3/trigger", json={"apiVersion": "v3", "event": event})
        except (httpx.HTTPError, KeyError):
            return None

    answers: list[httpx.Response] = []
    posted = 0

    async def is_taken() -> bool:
        nonlocal posted
        posted += 1  # what is not answered in time may be taken in nevertheless
        answer = await post(_stuffy())
        answers.extend([answer] if answer is not None and answer.status_code == 200 else [])
        return bool(answers)

    await eventually(is_taken, "the restarted agent's trigger")
    assert answers[0].content == b""
    url = (await gateway.agent_urls())["air"]
    undecodable = await gateway.http.post(f"{url}/api/v3/trigger", content=b"{}")
    assert (undecodable.status_code, undecodable.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    unwatched = await post(_stuffy() | {"deviceName": "meter", "profileName": "Energy-Meter"})
    assert unwatched is not None
    assert (unwatched.status_code, unwatched.content) == (200, b"")

    async def has_decided() -> bool:
        counts = (await gateway.http.get(f"{url}/api/v3/agent")).json()["counts"]
        return bool(counts.get("decisions", 0) + counts.get("under_way", 0))

    await eventually(has_decided, "a decision on the posted event")
    taken = (await gateway.http.get(f"{url}/api/v3/agent")).json()["counts"]["events"]
    assert len(answers) <= taken <= posted
    await _configure(gateway, "app-agent-air/Writable/Pipeline/TargetType", "raw")

    async def is_refused() -> bool:
        answer = await post(_stuffy())
        return answer is not None and answer.status_code == 422 and "TargetType is raw" in answer.text

    await eventually(is_refused, "422 with TargetType raw")


def _stuffy() -> dict[str, Any]:
    now = time.time_ns()
    about = {"origin": now, "deviceName": "sensor-office", "profileName": "Room-Sensor"}
    readings = [
        {"id": str(uuid.uuid4()), **about, "resourceName": name, "valueType": kind, "value": value}
        for name, kind, value in (("CO2", "Float32", "2.1e+03"), ("Presence", "Bool", "true"))
    ]
    return {
        "apiVersion": "v3", "id": str(uuid.uuid4()), "deviceName": "sensor-office", "profileName": "Room-Sensor",
        "sourceName": "CO2", "origin": now, "readings": readings,
    }  # fmt: skip


async def test_nats_messages_carry_the_trace_they_are_sent_in(bus: Bus, nats_server: NatsServer) -> None:
    exporter = InMemorySpanExporter()
    running = otel.set_up(TelemetrySettings(), "test", spans=exporter)
    received: asyncio.Queue[BusMessage] = asyncio.Queue()

    async def on_message(message: BusMessage) -> None:
        await received.put(message)
        await bus.respond(message, b"")

    try:
        await bus.subscribe("hop.*", on_message)
        await bus.ensure_stream("kept", ["kept.*"])
        with telemetry.span("work") as span:
            await bus.publish("hop.plain", b"", {"Content-Type": "text/plain"})
            await bus.request("hop.asked", b"", timeout_s=5)
            await bus.store("kept.one", b"")
        await bus.publish("hop.outside", b"")
        async with asyncio.timeout(5):
            plain, asked, outside = [await received.get() for _ in range(3)]
        kept = await bus.last("kept", "kept.one")
    finally:
        running.close()
    own = span.headers["traceparent"]
    assert dict(plain.headers) == {"Content-Type": "text/plain", "traceparent": own}
    assert asked.headers["traceparent"] == own
    assert kept is not None
    assert kept.headers["traceparent"] == own
    assert "traceparent" not in outside.headers


async def test_an_mqtt_client_gets_the_bytes_alone_of_a_message_with_a_trace(bus: Bus, nats_server: NatsServer) -> None:
    address = {"hostname": "127.0.0.1", "port": nats_server.mqtt_port}
    async with aiomqtt.Client(**address, identifier="reader") as reader:
        await reader.subscribe("edgex/#", qos=0)
        with telemetry.carry({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}):
            await bus.publish("edgex.events.device.s", b"{}")
        async with asyncio.timeout(5):
            message = await anext(aiter(reader.messages))
    assert (str(message.topic), message.payload) == ("edgex/events/device/s", b"{}")
