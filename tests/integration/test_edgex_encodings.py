"""Every encoding on every bus, over the real nats-server: told apart by itself, names intact, bombs set aside."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.device_commands import event_to_wire
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport, Transport
from edgeagents.adapters.envelopes import Encoding
from edgeagents.adapters.event_publisher import event_topic
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Event, make_reading
from edgeagents.model.envelope import CommandRequest, EdgexMessage, Envelope, EventMessage
from edgeagents.settings import EdgexBusType
from services.guard.streams import ensure_streams
from tests.nats import NatsServer

ORIGIN = 1_764_000_000_000_000_000
ENCODINGS = {
    "plain": Encoding(),
    "base64": Encoding(base64_payload=True),
    "cbor": Encoding(cbor=True),
    "events in cbor": Encoding(events_cbor=True),
    "optimised": Encoding(optimise=True),
    "all at once": Encoding(True, True, True, True),
}
NAMES = ["lamp", "lamp.1", "a..b", ".x.", "100%", "a%2Eb", "Küche/Ölofen", "温度 1", "a+b#c", "$SYS*>", "~=_-"]
BUSES: list[tuple[EdgexBusType, str]] = [
    ("mqtt", "json"), ("nats-core", "json"), ("nats-core", "nats"), ("nats-jetstream", "nats"),
]  # fmt: skip


def event(name: str, kind: str = "Bool", value: Any = True) -> Event:
    """Return an event of a device, profile and resource of one name."""
    reading = make_reading(name, name, name, kind, value, ORIGIN, reading_id="", media_type="x" * (kind == "Binary"))
    return Event(id="e", device_name=name, profile_name=name, source_name=name, origin=ORIGIN, readings=(reading,))


async def next_of(arrived: "asyncio.Queue[EdgexMessage]") -> EdgexMessage:
    """Return what arrives next."""
    async with asyncio.timeout(5):
        return await arrived.get()


@contextlib.asynccontextmanager
async def connected(server: NatsServer, kind: EdgexBusType, form: str) -> AsyncIterator[Bus]:
    """A connection whose EdgeX speaks this."""
    bus = await Bus.connect(server.settings(edgex_bus=kind, edgex_format=form), "test")
    try:
        yield bus
    finally:
        await bus.close()


async def listening(edgex: EdgexBus, topic: str) -> "asyncio.Queue[EdgexMessage]":
    """Return a queue of what arrives on a filter."""
    arrived: asyncio.Queue[EdgexMessage] = asyncio.Queue()
    await edgex.subscribe(topic, arrived.put)
    return arrived


@pytest.mark.parametrize(("kind", "form"), BUSES)
async def test_every_encoding_arrives_with_its_names(nats_server: NatsServer, kind: EdgexBusType, form: str) -> None:
    async with connected(nats_server, kind, form) as bus:
        reader = EdgexBus(NatsTransport(bus), kind=kind)  # what is read needs no setting
        arrived = await listening(reader, "events/device/#")
        await bus.flush()
        for encoding in ENCODINGS.values():
            writer = EdgexBus(NatsTransport(bus, encoding), kind=kind)
            for name in NAMES:
                await check_arrives(writer, arrived, event(name))
            await check_arrives(writer, arrived, event("cam", "Binary", bytes(range(256))))
            await check_arrives(writer, arrived, event("cam", "Object", {"a": [1, None, {"ü": 0.5}]}))
        assert reader.rejected == {}


async def check_arrives(writer: EdgexBus, arrived: "asyncio.Queue[EdgexMessage]", one: Event) -> None:
    """Publish an event as a device service does and compare it with what arrives."""
    await writer.publish(event_topic("svc", one, writer.kind), {"event": event_to_wire(one)}, correlation_id="c")
    message = await next_of(arrived)
    assert isinstance(message, EventMessage)
    assert message.event == one
    assert message.envelope.correlation_id == "c"


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
async def test_over_mqtt_every_encoding_reaches_both_sides(
    nats_server: NatsServer, bus: Bus, encoding: Encoding
) -> None:
    async with MqttTransport(nats_server.mqtt_url, "edgex", encoding=encoding) as mqtt:
        transports: list[Transport] = [mqtt, NatsTransport(bus, encoding)]
        queues = [await listening(EdgexBus(transport), "events/device/#") for transport in transports]
        await bus.flush()
        for transport in transports:
            for name in NAMES:
                await EdgexBus(transport).publish(
                    event_topic("svc", event(name)), {"event": event_to_wire(event(name))}
                )
                for arrived in queues:
                    message = await next_of(arrived)
                    assert isinstance(message, EventMessage)
                    assert message.event == event(name)


@pytest.mark.parametrize(("kind", "form"), BUSES)
async def test_a_command_reaches_a_device_of_any_name(nats_server: NatsServer, kind: EdgexBusType, form: str) -> None:
    async with connected(nats_server, kind, form) as bus:
        edgex = EdgexBus(NatsTransport(bus, Encoding(cbor=True)), kind=kind)
        arrived = await listening(edgex, "core/command/request/#")
        await bus.flush()
        for name in NAMES:
            level = subjects.topic_level(name, kind)
            await edgex.publish(f"core/command/request/{level}/{level}/set", {name: "true"})
            message = await next_of(arrived)
            assert isinstance(message, CommandRequest)
            assert (message.device, message.command, message.settings) == (name, name, {name: "true"})


# --- bombs ---------------------------------------------------------------------------------------

BOMBS = {
    "too-deep": b"\xa1gpayload" + b"\x81" * 100_000,
    "not-cbor": b"\xbb" + struct.pack(">Q", 2**62),
    "cbor-tag": b"\xa1gpayload\xd8\x1c\x81\xd8\x1d\x00",
    "duplicate-key": b"\xa2gpayload\xf6gpayload\xf6",
    "trailing-bytes": b"\xa1gpayload\xf6\x00",
    "too-many-items": b"\xa1gpayload\x9a\x00\x04\x00\x00" + b"\x80" * 0x40000,
    "not-json": b'{"payload":',
}


async def test_bombs_are_counted_by_cause_and_the_stream_goes_on(bus: Bus) -> None:
    aside: list[str] = []

    async def keep(topic: str, data: bytes, cause: str, text: str) -> None:
        aside.append(cause)

    edgex = EdgexBus(NatsTransport(bus), dead_letter=keep)
    arrived = await listening(edgex, "events/#")
    for bomb in BOMBS.values():
        await bus.publish("edgex.events.device.svc.p.d.r", bomb)
        await bus.publish("edgex.events.device.svc.p.d.r", bomb, {"Content-Type": "application/cbor"})
    await edgex.publish("events/device/svc/lamp/lamp/lamp", {"event": event_to_wire(event("lamp"))})
    assert isinstance(await next_of(arrived), EventMessage)
    assert set(edgex.rejected) == set(aside) == set(BOMBS)
    assert edgex.rejected.total() == len(aside) == 2 * len(BOMBS)


async def test_a_topic_beyond_the_limit_hurts_nobody(nats_server: NatsServer, bus: Bus) -> None:
    edgex = EdgexBus(NatsTransport(bus))
    arrived = await listening(edgex, "events/#")
    await bus.flush()
    with pytest.raises(InvalidInputError, match="is longer than"):
        await edgex.publish(f"events/device/{'x' * 4000}/p/d/r", {})
    async with MqttTransport(nats_server.mqtt_url, "long") as mqtt:
        for size in (3_000, 3_600, 5_000, 40_000, 65_000):
            await mqtt.publish(
                f"edgex/events/device/{'x' * size}/p/d/r", Envelope({"event": event_to_wire(event("lamp"))})
            )
        await mqtt.publish("edgex/events/device/svc/lamp/lamp/lamp", Envelope({"event": event_to_wire(event("lamp"))}))
    assert isinstance(await next_of(arrived), EventMessage)
    assert bus.is_connected


# --- JetStream as EdgeX's bus --------------------------------------------------------------------


async def held(bus: Bus, stream: str) -> list[str]:
    """Return the subjects a stream holds."""
    return [message.subject async for message in bus.read(stream, [], name="look")]


async def until_held(bus: Bus, wanted: list[str]) -> None:
    """Wait until the events stream holds just these subjects."""
    async with asyncio.timeout(30):
        while sorted(await held(bus, subjects.EVENTS_STREAM)) != wanted:  # noqa: ASYNC110 (a stream tells nobody)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_edgex_first", [True, False])
async def test_where_edgex_has_a_stream_ours_is_fed_from_it(nats_server: NatsServer, is_edgex_first: bool) -> None:
    async with connected(nats_server, "nats-jetstream", "nats") as bus:
        if is_edgex_first:
            await bus.ensure_stream("edgex", ["edgex.>"], max_bytes=4711_000)
        await ensure_streams(bus, "edgex")
        await ensure_streams(bus, "edgex")  # a guard that starts again
        edgex = EdgexBus(NatsTransport(bus), kind="nats-jetstream")
        one = event("lamp.1")
        await edgex.publish(event_topic("svc", one, "nats-jetstream"), {"event": event_to_wire(one)})
        await bus.store("edgex.rules.agents", b"{}")  # as EdgeX itself does there
        await edgex.publish("system-events/core-metadata/device/add/svc/p", {})
        wanted = ["edgex.events.device.svc.lamp%2E1.lamp%2E1.lamp%2E1", "edgex.rules.agents"]
        await until_held(bus, wanted)
        async with asyncio.timeout(30):
            while len(await held(bus, "edgex")) < 3:  # noqa: ASYNC110 (the last one was published: nobody tells)
                await asyncio.sleep(0.02)
        assert len(await held(bus, "edgex")) == 3
        limit = (await bus.js.stream_info("edgex")).config.max_bytes
        assert limit == (4711_000 if is_edgex_first else 1 << 30)


async def test_a_gateway_that_moves_to_jetstream_keeps_its_events(nats_server: NatsServer) -> None:
    async with connected(nats_server, "nats-core", "nats") as bus:
        await ensure_streams(bus, "edgex")
        await bus.store("edgex.events.device.svc.p.d.before", b"{}")
    async with connected(nats_server, "nats-jetstream", "nats") as bus:
        await ensure_streams(bus, "edgex")
        await bus.publish("edgex.events.device.svc.p.d.then", b"{}")
        await until_held(bus, ["edgex.events.device.svc.p.d.before", "edgex.events.device.svc.p.d.then"])
