"""EdgeX's request and answer over the real broker: over NATS, over MQTT, and across."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.errors import UnavailableError, UpstreamError
from edgeagents.model.device import Event, make_reading
from edgeagents.model.envelope import CommandRequest, EdgexMessage, EventMessage, SystemEvent, ValidateDevice
from tests.nats import NatsServer

ORIGIN = 1_764_000_000_000_000_000
EVENT = Event(
    id="e", device_name="lamp.1", profile_name="p.v1", source_name="Power", origin=ORIGIN,
    readings=(make_reading("lamp.1", "p.v1", "Power", "Bool", True, ORIGIN, reading_id="i"),),
)  # fmt: skip
REQUEST = {"apiVersion": "v3", "requestId": "", "event": EVENT.to_wire()}
PAIRS = ["nats to nats", "nats to mqtt", "mqtt to nats", "mqtt to mqtt", "nats format to nats format"]


@pytest.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest, nats_server: NatsServer) -> AsyncIterator[tuple[EdgexBus, EdgexBus]]:
    """Two parties on one broker, each over its own connection of its own kind."""
    kinds = str(request.param).split(" to ")
    async with (
        MqttTransport(nats_server.mqtt_url, "first") as first_mqtt,
        MqttTransport(nats_server.mqtt_url, "second") as second_mqtt,
    ):
        how = {"edgex_bus": "nats-core", "edgex_format": "nats"} if "nats format" in kinds else {}
        buses = [await Bus.connect(nats_server.settings(**how), name) for name in ("first", "second")]
        transports = [
            mqtt if kind == "mqtt" else NatsTransport(bus)
            for kind, mqtt, bus in zip(kinds, (first_mqtt, second_mqtt), buses, strict=True)
        ]
        first, second = (EdgexBus(transport) for transport in transports)
        yield first, second
        for bus in buses:
            await bus.close()


async def flushed(bus: EdgexBus) -> None:
    """Wait until a party's subscriptions have reached the broker."""
    transport = bus._transport
    if isinstance(transport, NatsTransport):
        await transport._bus.flush()


async def next_of(arrived: asyncio.Queue[EdgexMessage]) -> EdgexMessage:
    """Return what arrives next."""
    async with asyncio.timeout(5):
        return await arrived.get()


async def test_a_command_is_asked_and_answered(pair: tuple[EdgexBus, EdgexBus]) -> None:
    client, core = pair
    asked: list[CommandRequest] = []

    async def answer(message: EdgexMessage) -> None:
        assert isinstance(message, CommandRequest)
        asked.append(message)
        if message.is_set:
            await core.answer("core-command", message.envelope, error="lamp is locked")
        else:
            await core.answer("core-command", message.envelope, {"statusCode": 200, "event": EVENT.to_wire()})

    await core.subscribe("core/command/request/#", answer)
    await flushed(core)
    get = "core/command/request/lamp/Power/get"
    found = await client.request(get, None, answer_from="core-command", timeout_s=5, query={"ds-pushevent": "true"})
    assert (found.error, found.event) == (None, EVENT)
    set_ = "core/command/request/lamp/Power/set"
    refused = await client.request(set_, {"Power": "true"}, answer_from="core-command", timeout_s=5)
    assert refused.error == "lamp is locked"
    assert [message.settings for message in asked] == [{}, {"Power": "true"}]
    assert asked[0].envelope.query_params == {"ds-pushevent": "true"}


async def test_many_questions_at_once_get_each_its_own_answer(pair: tuple[EdgexBus, EdgexBus]) -> None:
    client, core = pair

    async def answer(message: EdgexMessage) -> None:
        assert isinstance(message, CommandRequest)
        await core.answer("core-command", message.envelope, {"asked": message.device})

    await core.subscribe("core/command/request/#", answer)
    await flushed(core)
    answers = await asyncio.gather(
        *(
            client.request(f"core/command/request/d{number}/Power/get", None, answer_from="core-command", timeout_s=10)
            for number in range(30)
        )
    )
    assert [answer.envelope.payload for answer in answers] == [{"asked": f"d{number}"} for number in range(30)]


async def test_nobody_answering_is_unavailable_in_time(pair: tuple[EdgexBus, EdgexBus]) -> None:
    client, _ = pair
    async with asyncio.timeout(5):
        with pytest.raises(UnavailableError, match="core-command did not answer"):
            await client.request("core/command/request/d/c/get", None, answer_from="core-command", timeout_s=0.2)


async def test_events_notices_and_validations_cross(pair: tuple[EdgexBus, EdgexBus]) -> None:
    one, other = pair
    arrived: asyncio.Queue[EdgexMessage] = asyncio.Queue()
    await other.subscribe("#", arrived.put)
    await flushed(other)
    # With EdgeX on NATS a dot in a name becomes a level, so that EdgeX escapes it.
    is_nats = isinstance(one._transport, NatsTransport) and one._transport._kind != "mqtt"
    profile, device = ("p%2Ev1", "lamp%2E1") if is_nats else ("p.v1", "lamp.1")
    await one.publish(f"events/device/svc/{profile}/{device}/Power", REQUEST, correlation_id="c-1")
    event = await next_of(arrived)
    assert isinstance(event, EventMessage)
    assert (event.event, event.envelope.correlation_id) == (EVENT, "c-1")
    assert event.topic == f"edgex/events/device/svc/{profile}/{device}/Power"
    body = {"type": "device", "action": "add", "source": "core-metadata", "owner": "svc", "details": {"name": "d"}}
    await one.publish("system-events/core-metadata/device/add/svc/p", body)
    assert isinstance(await next_of(arrived), SystemEvent)
    await one.publish("svc/validate/device", {"device": {"name": "d", "serviceName": "svc"}})
    assert isinstance(await next_of(arrived), ValidateDevice)


async def test_what_cannot_be_read_is_counted_and_the_next_message_comes(bus: Bus, nats_server: NatsServer) -> None:
    edgex = EdgexBus(NatsTransport(bus))
    arrived: asyncio.Queue[EdgexMessage] = asyncio.Queue()
    await edgex.subscribe("events/#", arrived.put)
    for data in (b"{bad", b"\xff", json.dumps({"payload": "oQ==", "contentType": "application/cbor"}).encode()):
        await bus.publish("edgex.events.device.svc.p.d.r", data)
    await edgex.publish("events/device/svc/p.v1/lamp.1/Power", REQUEST)
    assert isinstance(await next_of(arrived), EventMessage)
    assert edgex.rejected == {"not-json": 2, "not-cbor": 1}


async def test_an_answer_that_cannot_be_read_ends_the_wait_with_its_reason(bus: Bus) -> None:
    edgex = EdgexBus(NatsTransport(bus))

    async def answer_broken(message: EdgexMessage) -> None:
        body = {"payload": "oQ==", "contentType": "application/cbor", "requestID": message.envelope.request_id}
        await bus.publish(f"edgex.response.core-command.{message.envelope.request_id}", json.dumps(body).encode())

    await edgex.subscribe("core/command/request/#", answer_broken)
    async with asyncio.timeout(5):
        with pytest.raises(UpstreamError, match="core-command answered"):
            await edgex.request("core/command/request/d/c/get", None, answer_from="core-command", timeout_s=60)


async def test_our_messages_carry_no_reply_subject(bus: Bus) -> None:
    """Go subscribers answer every message that has one with `+ACK`."""
    replies: asyncio.Queue[str] = asyncio.Queue()

    async def take(message: BusMessage) -> None:
        await replies.put(message.reply)

    await bus.subscribe("edgex.>", take)
    edgex = EdgexBus(NatsTransport(bus))
    await edgex.publish("events/device/svc/p/d/r", REQUEST)
    with pytest.raises(UnavailableError):
        await edgex.request("core/command/request/d/c/get", None, answer_from="core-command", timeout_s=0.1)
    async with asyncio.timeout(5):
        assert [await replies.get(), await replies.get()] == ["", ""]
