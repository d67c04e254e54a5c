"""Topics over the real nats-server's MQTT listener and over NATS: the same both ways, for every topic it takes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

import aiomqtt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.edgex_bus import Cancel, NatsTransport, Transport
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.errors import ConfigurationError, InvalidInputError, UnavailableError
from edgeagents.model.envelope import Envelope
from tests.nats import NatsServer, free_port, until

TOPICS = [
    "edgex/events/device/svc/p/d/r",
    "edgex/events/device/svc/p.v1/lamp.1/r",
    "edgex/.hidden/d./a..b/r",
    "edgex/../.",
    "edgex/lamp%2Eone/On%2BOff",
    "edgex/温度/Küche/π",
    "edgex/a~b/$x/=y/a*b/c>d",
    "edgex/non\u00a0breaking/wide\u3000space",
]
Arrived = asyncio.Queue[tuple[str, bytes]]


@pytest.fixture
async def mqtt(nats_server: NatsServer) -> AsyncIterator[MqttTransport]:
    """A connection to the MQTT listener."""
    async with MqttTransport(nats_server.mqtt_url, "test-mqtt") as transport:
        yield transport


async def listen(transport: Transport, topic_filter: str) -> Arrived:
    """Return a queue of what arrives on a filter."""
    arrived: Arrived = asyncio.Queue()

    async def take(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        await arrived.put((topic, data))

    await transport.subscribe(topic_filter, take)
    return arrived


async def next_of(arrived: Arrived) -> tuple[str, bytes]:
    """Return what arrives next."""
    async with asyncio.timeout(30):
        return await arrived.get()


@pytest.mark.parametrize("topic", TOPICS)
async def test_a_topic_is_the_same_over_nats_and_mqtt_in_both_directions(
    bus: Bus, mqtt: MqttTransport, topic: str
) -> None:
    nats = NatsTransport(bus)
    over_nats, over_mqtt = await listen(nats, "edgex/#"), await listen(mqtt, "edgex/#")
    await bus.flush()
    await mqtt.publish(topic, Envelope("from mqtt"))
    await nats.publish(topic, Envelope("from nats"))
    for arrived in (over_nats, over_mqtt):
        found = [await next_of(arrived), await next_of(arrived)]
        assert [one for one, _ in found] == [topic, topic]
        assert {b"from mqtt" in data for _, data in found} == {True, False}


async def test_a_filter_on_one_device_catches_it_over_both(bus: Bus, mqtt: MqttTransport) -> None:
    nats = NatsTransport(bus)
    pattern = "edgex/events/device/+/+/lamp.1/#"
    both = [await listen(nats, pattern), await listen(mqtt, pattern)]
    await bus.flush()
    for device in ("lamp", "lamp.1", "lamp/1"):
        await mqtt.publish(f"edgex/events/device/svc/p/{device}/r", Envelope(device))
    for arrived in both:
        assert (await next_of(arrived))[0] == "edgex/events/device/svc/p/lamp.1/r"
        assert arrived.empty()


levels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/+#"), min_size=1, max_size=6)
tricky = st.text(st.sampled_from(".*>~$=%a /é"), min_size=1, max_size=6).filter(lambda level: "/" not in level)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.lists(levels | tricky, min_size=1, max_size=4).map("/".join), min_size=20, max_size=20))
def test_our_mapping_is_the_server_s_for_any_topic_it_takes(nats_server: NatsServer, batch: list[str]) -> None:
    asyncio.run(compare(nats_server, batch))


async def compare(server: NatsServer, batch: list[str]) -> None:
    """Publish topics over MQTT and compare the subjects they come out on with ours."""
    carried = {f"t/{topic}" for topic in batch if _is_carried(f"t/{topic}")}
    expected = {subjects.topic_to_subject(topic) for topic in carried}
    bus = await Bus.connect(server.settings(), "compare")
    arrived: asyncio.Queue[str] = asyncio.Queue()

    async def take(message: BusMessage) -> None:
        await arrived.put(message.subject)

    await bus.subscribe("t.>", take)
    await bus.flush()
    async with aiomqtt.Client("127.0.0.1", server.mqtt_port, identifier="compare", timeout=10) as client:
        for topic in carried:
            await client.publish(topic, b"x", qos=1)
    async with asyncio.timeout(10):
        found = {await arrived.get() for _ in carried}
    await bus.close()
    assert found == expected
    assert {subjects.subject_to_topic(subject) for subject in found} == carried


def _is_carried(topic: str) -> bool:
    with contextlib.suppress(InvalidInputError):
        subjects.topic_to_subject(topic)
        return True
    return False


async def test_an_empty_level_from_mqtt_is_understood(bus: Bus, mqtt: MqttTransport) -> None:
    arrived = await listen(NatsTransport(bus), "edgex/#")
    await bus.flush()
    for topic in ("edgex//a", "edgex/a/", "edgex/a//b"):
        await mqtt.publish(topic, Envelope())
        assert (await next_of(arrived))[0] == topic


async def test_a_topic_with_a_wildcard_is_not_published(bus: Bus, mqtt: MqttTransport) -> None:
    for transport in (mqtt, NatsTransport(bus)):
        for topic in ("edgex/response/svc/+", "edgex/#", ""):
            with pytest.raises(InvalidInputError):
                await transport.publish(topic, Envelope())


async def test_a_filter_that_the_broker_refuses_is_told(mqtt: MqttTransport) -> None:
    for wrong in ("a b/#", "a/#/b"):
        with pytest.raises(InvalidInputError, match="subscribe to"):
            await listen(mqtt, wrong)
    arrived = await listen(mqtt, "a/#")
    await mqtt.publish("a/b", Envelope())
    assert (await next_of(arrived))[0] == "a/b"


async def test_a_handler_may_wait_for_another_message(mqtt: MqttTransport) -> None:
    second = await listen(mqtt, "edgex/second")
    done: asyncio.Queue[str] = asyncio.Queue()

    async def first(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        await mqtt.publish("edgex/second", Envelope())
        await done.put((await next_of(second))[0])

    await mqtt.subscribe("edgex/first", first)
    await mqtt.publish("edgex/first", Envelope())
    async with asyncio.timeout(5):
        assert await done.get() == "edgex/second"


async def test_what_a_handler_refuses_is_logged_and_the_next_message_comes(
    mqtt: MqttTransport, caplog: pytest.LogCaptureFixture
) -> None:
    seen: Arrived = asyncio.Queue()

    async def handle(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        await seen.put((topic, data))
        if topic.endswith("1"):
            raise UnavailableError("device away")

    await mqtt.subscribe("edgex/#", handle)
    for topic in ("edgex/1", "edgex/2"):
        await mqtt.publish(topic, Envelope())
    assert [(await next_of(seen))[0], (await next_of(seen))[0]] == ["edgex/1", "edgex/2"]
    assert "message on edgex/1: device away" in caplog.text


async def test_a_bug_in_a_handler_is_logged_when_it_happens(
    mqtt: MqttTransport, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        raise ZeroDivisionError("a bug")

    await mqtt.subscribe("edgex/#", broken)
    await mqtt.publish("edgex/1", Envelope())
    await until(lambda: "ZeroDivisionError: a bug" in caplog.text)


async def test_after_cancelling_nothing_comes_but_other_listeners_go_on(mqtt: MqttTransport) -> None:
    seen: list[str] = []

    async def take(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        seen.append(topic)

    cancel = await mqtt.subscribe("edgex/#", take)
    other = await listen(mqtt, "edgex/#")
    await cancel()
    await cancel()  # a repeat is harmless
    await mqtt.publish("edgex/1", Envelope())
    assert (await next_of(other))[0] == "edgex/1"
    assert seen == []


async def test_overlapping_filters_get_each_message_once(mqtt: MqttTransport) -> None:
    narrow = await listen(mqtt, "edgex/a/#")
    seen: Arrived = asyncio.Queue()

    async def take(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        await seen.put((topic, data))

    cancel = await mqtt.subscribe("edgex/#", take)
    exact = await listen(mqtt, "edgex/a/1")
    for topic in ("edgex/a/1", "edgex/a/2", "edgex/b"):
        await mqtt.publish(topic, Envelope())
    assert [(await next_of(seen))[0] for _ in range(3)] == ["edgex/a/1", "edgex/a/2", "edgex/b"]
    assert [(await next_of(narrow))[0] for _ in range(2)] == ["edgex/a/1", "edgex/a/2"]
    assert [(await next_of(exact))[0]] == ["edgex/a/1"]
    await cancel()
    for topic in ("edgex/b", "edgex/a/3", "edgex/a/1"):
        await mqtt.publish(topic, Envelope())
    assert [(await next_of(narrow))[0] for _ in range(2)] == ["edgex/a/3", "edgex/a/1"]
    assert [(await next_of(exact))[0]] == ["edgex/a/1"]
    assert (seen.empty(), narrow.empty(), exact.empty()) == (True, True, True)


async def test_a_handler_may_end_its_own_subscription(mqtt: MqttTransport) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    cancels: list[Cancel] = []

    async def once(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        await cancels[0]()
        await ended.put(topic)

    cancels.append(await mqtt.subscribe("edgex/#", once))
    await mqtt.publish("edgex/1", Envelope())
    async with asyncio.timeout(5):
        assert await ended.get() == "edgex/1"


async def test_subscriptions_survive_a_restart_of_the_broker(
    nats_server: NatsServer, mqtt: MqttTransport, caplog: pytest.LogCaptureFixture
) -> None:
    before = await listen(mqtt, "edgex/before/#")
    await asyncio.to_thread(nats_server.kill)
    await until(lambda: "trying again" in caplog.text)
    with pytest.raises(UnavailableError, match="link is down"):
        await mqtt.publish("edgex/before/1", Envelope())
    during = await listen(mqtt, "edgex/during/#")
    await asyncio.to_thread(nats_server.start)
    await until(lambda: mqtt.is_connected)
    for topic, arrived in (("edgex/before/2", before), ("edgex/during/2", during)):
        await mqtt.publish(topic, Envelope())
        assert (await next_of(arrived))[0] == topic
    assert caplog.text.count("trying again") == 1


async def test_no_broker_is_unavailable_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagents.adapters.mqtt.CONNECT_S", 0.3)
    url = f"mqtt://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"{url}: no MQTT connection in 0.3 s"):
        async with MqttTransport(url, "x"):
            pass


def test_an_address_that_is_none_is_refused_with_its_form() -> None:
    with pytest.raises(ConfigurationError, match="write mqtt://host:port"):
        MqttTransport("mqtt://host:port", "x")


async def test_leaving_is_quiet(nats_server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async with MqttTransport(nats_server.mqtt_url, "quiet") as transport:
        await listen(transport, "edgex/#")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    with pytest.raises(UnavailableError):
        await transport.publish("edgex/1", Envelope())
