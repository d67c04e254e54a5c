"""What makes our services first-class beside any EdgeX, point by point; device points on the suite's own devices.

Point 6 (eKuiper) is in test_rules.py; point 7 (the UI) was done by hand: docs/rules.md.
"""

import asyncio
import contextlib
import copy
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport, Transport
from edgeagents.adapters.envelopes import Encoding
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.model.device import Event, Reading, make_reading
from edgeagents.model.envelope import EventMessage, Metric
from edgeagents.model.values import Value
from tests.contract import test_taf
from tests.contract.agents import AgentProcess, running_agent
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab
from tests.contract.running import HEALTH_INTERVAL, Running, app_spec, nothing_more, run
from tests.contract.target import Target
from tests.contract.waiting import Seen, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
INTERVAL_S = float(HEALTH_INTERVAL.removesuffix("s"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def agent(
    edgex: Edgex, nats_url: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AgentProcess]:
    """An agent in a process of its own."""
    folder: Path = tmp_path_factory.mktemp("acceptance")
    async with running_agent(edgex, nats_url, folder, lab.profile) as started:
        yield started


# --- 1 -------------------------------------------------------------------------------------------


async def test_1_keeper_shows_up_within_one_interval_and_halt_after_sigterm(
    edgex: Edgex, nats_url: str, lab: Lab, tmp_path: Path
) -> None:
    async with running_agent(edgex, nats_url, tmp_path, lab.profile) as started:

        async def status() -> str:
            return (await edgex.keeper.registration(started.key)).status

        async def is_up() -> bool:
            return await status() == "UP"

        await until(is_up, "keeper finds it up", timeout_s=INTERVAL_S)
        assert await started.terminate() == 0
        assert await status() == "HALT"


# --- 2 -------------------------------------------------------------------------------------------


class Gate:
    """A way to a service that is shut at first: connections are closed at once, and counted."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 0
        self._scheme = parts.scheme
        self.is_open = False
        self.attempts = 0
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Gate"]:
        """Take connections while the context is open."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"{self._scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        with contextlib.suppress(OSError):
            if self.is_open:
                there, back = await asyncio.open_connection(self._host, self._port)
                both = [asyncio.create_task(_pass_on(*way)) for way in ((reader, back), (there, writer))]
                self._tasks.update(both)
                await asyncio.wait(both)
                back.transport.abort()
        writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@pytest.mark.parametrize("order", [("keeper", "broker"), ("broker", "keeper")], ids="-then-".join)
async def test_2_boots_in_whatever_order_keeper_and_broker_come(
    edgex: Edgex, nats_url: str, order: tuple[str, str]
) -> None:
    async with AsyncExitStack() as stack:
        gates = {
            "keeper": await stack.enter_async_context(Gate(edgex.target.keeper_url).listening()),
            "broker": await stack.enter_async_context(Gate(nats_url).listening()),
        }
        behind = copy.copy(edgex)
        behind.target = replace(edgex.target, keeper_url=gates["keeper"].url)
        spec, stopping = app_spec(edgex, edgex.name("app-early")), asyncio.Event()
        life = asyncio.create_task(run(behind, gates["broker"].url, spec, nothing_more, stopping))
        try:
            # It comes to the broker only once it has its configuration.
            await until(lambda: gates["keeper"].attempts > 1, "it asks for keeper, and again")
            gates[order[0]].is_open = True
            if order[0] == "keeper":
                await until(lambda: gates["broker"].attempts > 1, "it asks for the broker, and again")
            assert not life.done()
            gates[order[1]].is_open = True

            async def is_registered() -> bool:
                known = await edgex.keeper.registrations()
                return spec.key in {item.service_id for item in known}

            await until(is_registered, "it is registered", timeout_s=10.0)
        finally:
            stopping.set()
            assert await life == 0


# --- 3 -------------------------------------------------------------------------------------------


async def test_3_log_level_in_keeper_counts_within_a_second_without_a_restart(
    edgex: Edgex, agent: AgentProcess
) -> None:
    pid, key = agent.pid, f"edgex/v4/{agent.key}/Writable"

    async def level() -> str:
        return str((await agent.ask("GET", "/config")).json()["config"]["Writable"]["LogLevel"])

    async def is_debug() -> bool:
        return await level() == "DEBUG"

    assert await level() == "INFO"
    assert "DEBUG" not in agent.log.read_text()
    await edgex.keeper.put(f"{key}/LogLevel", "DEBUG")
    try:
        await until(is_debug, "the level is DEBUG", timeout_s=1.0)
        await edgex.keeper.put(f"{key}/Word", "any")  # a change is told at that level
        await until(lambda: " DEBUG " in agent.log.read_text(), "it logs at that level", timeout_s=1.0)
    finally:
        await edgex.keeper.put(f"{key}/LogLevel", "INFO")
    assert agent.pid == pid


# --- 4 -------------------------------------------------------------------------------------------


ENCODINGS = {
    "plain": Encoding(), "base64": Encoding(base64_payload=True), "cbor": Encoding(cbor=True, events_cbor=True),
    "optimised": Encoding(optimise=True), "cbor-optimised": Encoding(cbor=True, events_cbor=True, optimise=True),
}  # fmt: skip


@asynccontextmanager
async def speaking(edgex: Edgex, encoding: Encoding, written: str) -> AsyncIterator[Transport]:
    """Connect as a device service that is set to an encoding, and to a format on NATS."""
    target = edgex.target
    if target.is_mqtt:
        async with MqttTransport(target.broker, edgex.name("speaker"), encoding=encoding) as transport:
            yield transport
        return
    settings = target.settings().model_copy(update={"edgex_format": written})
    bus = await Bus.connect(settings, "speaker")
    try:
        yield NatsTransport(bus, encoding)
        await bus.flush()
    finally:
        await bus.close()


def formats(target: Target, encoding: Encoding) -> list[str]:
    """Return how messages may be written on NATS; over MQTT there is one way."""
    if target.bus == "mqtt":
        return ["json"]
    # CBOR within EdgeX's format `json` is what nobody can read: JSON that says that it is CBOR.
    return ["nats"] if encoding.cbor else ["nats", "json"]


@pytest.mark.parametrize("name", ENCODINGS)
async def test_4_events_of_devices_are_understood_in_every_encoding(
    edgex: Edgex, lab: Lab, app: Running, name: str
) -> None:
    """On the bus that this EdgeX speaks: run the suite once for each (`make test-edgex`, `--edgex-bus`)."""
    heard = Seen()
    cancel = await app.service.edgex.subscribe(f"events/device/{lab.key}/{lab.profile}/{lab.device}/#", heard.note)
    try:
        await app.service.bus.flush()
        for written in formats(edgex.target, ENCODINGS[name]):
            event = lab_event(lab)
            topic = f"events/device/{lab.key}/{lab.profile}/{lab.device}/{event.source_name}"
            request = {"apiVersion": "v3", "requestId": "", "event": event.to_wire()}
            async with speaking(edgex, ENCODINGS[name], written) as transport:
                await EdgexBus(transport, edgex.target.base).publish(topic, request)
                message: EventMessage = await heard.first(lambda item, wanted=event.id: item.event.id == wanted)
            assert [said(reading) for reading in message.event.readings] == [said(one) for one in event.readings]
            assert (message.event.device_name, message.event.origin) == (event.device_name, event.origin)
    finally:
        await cancel()


def lab_event(lab: Lab) -> Event:
    """Return an event with a number, a text beyond ASCII, an array, an object and a null."""
    origin = time.time_ns() // 1024 * 1024  # exact as a float too
    values: tuple[tuple[str, Value], ...] = (
        ("Float32", 21.5), ("String", "Süd ☀"), ("Int8Array", [1, -2]), ("Object", {"a": [1, {"b": 2}]}),
        ("Uint8", None), ("Bool", True),
    )  # fmt: skip
    readings = tuple(
        make_reading(lab.device, lab.profile, kind, kind, value, origin, reading_id=str(uuid.uuid4()))
        for kind, value in values
    )
    return Event(
        id=str(uuid.uuid4()), device_name=lab.device, profile_name=lab.profile, source_name="State", origin=origin,
        readings=readings,
    )  # fmt: skip


def said(reading: Reading) -> tuple[Any, ...]:
    """Return what a reading says, without its id, which an optimised event leaves out."""
    return reading.device_name, reading.resource_name, reading.value_type, reading.origin, reading.decoded()


# --- 5 -------------------------------------------------------------------------------------------


async def test_5_a_switch_is_set_over_rest_and_over_the_bus_and_read_back(lab: Lab, app: Running) -> None:
    command = app.service.command
    async with lab.another() as device:
        for value, by_bus in ((False, False), (True, True), (False, True), (True, False)):
            await (command.set_by_bus if by_bus else command.set)(device, "Power", {"Power": value})
            assert lab.driver.values[device, "Power"] is value
            for read in (command.get, command.get_by_bus):
                assert (await read(device, "Power")).readings[0].decoded() is value


# --- 8 -------------------------------------------------------------------------------------------


async def test_8_edgex_own_suites_info_and_secrets_pass(edgex: Edgex, agent: AgentProcess) -> None:
    for case in (*test_taf.INFO, *test_taf.SECRETS):
        await case(edgex, agent)


# --- 9 -------------------------------------------------------------------------------------------


async def test_9_metrics_reach_the_bus_when_enabled(edgex: Edgex, agent: AgentProcess) -> None:
    telemetry = f"edgex/v4/{agent.key}/Writable/Telemetry"
    async with edgex.watch(f"telemetry/{agent.key}/#") as seen:
        await edgex.keeper.put(f"{telemetry}/Metrics/MessagesReceived", True)
        await edgex.keeper.put(f"{telemetry}/Interval", "200ms")
        try:
            first, second = await seen.some(2)
        finally:
            await edgex.keeper.put(f"{telemetry}/Metrics/MessagesReceived", False)
            await edgex.keeper.put(f"{telemetry}/Interval", "30s")
    for metric in (first, second):
        assert isinstance(metric, Metric)
        assert (metric.service, metric.name) == (agent.key, "MessagesReceived")
        assert metric.fields.keys() == {"counter-count"}
        assert metric.tags["service"] == agent.key
    assert second.timestamp_ns > first.timestamp_ns


# --- 10 ------------------------------------------------------------------------------------------


async def test_10_added_and_deleted_devices_are_known_and_forgotten(lab: Lab, app: Running) -> None:
    devices = app.service.devices
    async with lab.another() as name:
        await until(lambda: devices.device(name), "it is known", timeout_s=1.0)
        assert devices.profile_of(name) is not None
    await until(lambda: devices.device(name) is None, "it is forgotten", timeout_s=1.0)
