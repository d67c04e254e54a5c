"""EdgeX on a broker of its own: what it says there arrives in our streams; a second nats-server plays that broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.adapters.mqtt_bridge import MqttBridge
from edgeagents.errors import ConfigurationError
from edgeagents.model.envelope import EdgexMessage, Envelope, EventMessage, SystemEvent
from services.guard.streams import ensure_streams
from tests.integration.test_edgex_bus import EVENT, REQUEST
from tests.nats import NatsServer, until

TOPIC = "edgex/events/device/svc/p.v1/lamp.1/Power"
NOTICE = {
    "apiVersion": "v3", "type": "device", "action": "add", "source": "core-metadata", "owner": "svc", "details": {},
    "timestamp": 1,
}  # fmt: skip


@pytest.fixture
async def foreign(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A second broker, that EdgeX speaks to."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


class Site:
    """A bridge that runs, and an EdgeX service on the foreign broker."""

    def __init__(self, bus: Bus, bridge: MqttBridge, edgex: MqttTransport) -> None:
        self.bus, self.bridge, self.edgex = bus, bridge, edgex

    async def stored(self) -> list[str]:
        """Return the subjects that the events stream holds."""
        return [message.subject async for message in self.bus.read(subjects.EVENTS_STREAM, [], name="look")]


@pytest.fixture
async def site(bus: Bus, foreign: NatsServer) -> AsyncIterator[Site]:
    """Both brokers bridged."""
    await ensure_streams(bus, "edgex")
    bridge = MqttBridge(bus, lambda: MqttTransport(foreign.mqtt_url, "bridge", qos=1, pending=100))
    async with MqttTransport(foreign.mqtt_url, "edgex", qos=1) as edgex, running(bridge):
        yield Site(bus, bridge, edgex)


@contextlib.asynccontextmanager
async def running(bridge: MqttBridge) -> AsyncIterator[None]:
    """Run a bridge inside the block, from when it carries."""
    task = asyncio.create_task(bridge.run())
    await asyncio.wait({task, asyncio.create_task(bridge.carries.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_events_are_stored_and_notices_arrive_as_they_were_sent(site: Site) -> None:
    edgex = EdgexBus(NatsTransport(site.bus))
    arrived: asyncio.Queue[EdgexMessage] = asyncio.Queue()
    for topic in ("events/device/#", "system-events/#", "rules/agents"):
        await edgex.subscribe(topic, arrived.put)
    await edgex.subscribe("edgex/configs/#", arrived.put, absolute=True)
    await site.bus.flush()
    theirs = EdgexBus(site.edgex)
    await theirs.publish("events/device/svc/p.v1/lamp.1/Power", REQUEST, correlation_id="c-1")
    await theirs.publish("rules/agents", EVENT.to_wire())
    await theirs.publish("system-events/core-metadata/device/add/svc/p", NOTICE)
    await site.edgex.publish("edgex/configs/edgex/v4/app-x/Writable/LogLevel", Envelope({"key": "k", "value": "v"}))
    await theirs.publish("core/command/request/d/c/get", None)  # not ours to carry
    async with asyncio.timeout(30):
        found = [await arrived.get() for _ in range(4)]
    events = [message for message in found if isinstance(message, EventMessage)]
    assert [message.event for message in events] == [EVENT, EVENT]
    assert "c-1" in {message.envelope.correlation_id for message in events}
    assert sum(isinstance(message, SystemEvent) for message in found) == 1
    # What arrived came over core NATS: the stream acknowledges it later, and each of the two in its own time.
    await until(lambda: site.bridge.counts["stored"] == 2 and site.bridge.counts["passed-on"] == 2, 30)
    assert set(await site.stored()) == {"edgex.events.device.svc.p//v1.lamp//1.Power", "edgex.rules.agents"}
    assert (site.bridge.counts, site.bridge.gaps) == ({"stored": 2, "passed-on": 2}, 0)


async def test_what_comes_while_nats_is_away_waits_in_order_and_is_stored_once(
    site: Site, nats_server: NatsServer
) -> None:
    nats_server.kill()
    await until(lambda: not site.bus.is_connected)
    for number in range(50):
        await site.edgex.publish(f"edgex/events/device/svc/p/d/r{number}", Envelope(number))
    await asyncio.to_thread(nats_server.start)
    await until(lambda: site.bridge.counts["stored"] == 50)
    assert await site.stored() == [f"edgex.events.device.svc.p.d.r{number}" for number in range(50)]
    assert site.bridge.gaps == 0


async def test_what_is_too_much_to_wait_is_counted_as_a_gap(
    site: Site, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    nats_server.kill()
    await until(lambda: not site.bus.is_connected)
    for number in range(150):
        await site.edgex.publish(f"edgex/events/device/svc/p/d/r{number}", Envelope(number))
    await until(lambda: site.bridge.gaps + 101 >= 150)  # 100 wait, one is under way
    await asyncio.to_thread(nats_server.start)
    await until(lambda: site.bridge.counts["stored"] + site.bridge.gaps == 150)
    assert site.bridge.counts["stored"] in (100, 101)
    assert caplog.text.count("is dropped") == 1


async def test_a_topic_that_nats_cannot_carry_is_counted_and_the_next_comes(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for topic in (f"edgex/events/device/{'x' * 3600}/p/d/r", "edgex/events/device//p/d/r", TOPIC):
        await site.edgex.publish(topic, Envelope())
    await until(lambda: site.bridge.counts["stored"] == 1)
    assert site.bridge.gaps == 2
    assert caplog.text.count("is lost") == 1
    assert site.bus.is_connected


async def test_the_foreign_broker_may_go_and_come_back(site: Site, foreign: NatsServer) -> None:
    foreign.kill()
    await until(lambda: not site.edgex.is_connected)
    await asyncio.to_thread(foreign.start)
    await until(lambda: site.edgex.is_connected)

    async def arrives() -> None:
        while not site.bridge.counts["stored"]:  # QoS 1 keeps nothing for a bridge that is not back yet
            await site.edgex.publish(TOPIC, Envelope())
            await asyncio.sleep(0.05)

    async with asyncio.timeout(10):
        await arrives()


async def test_a_foreign_broker_that_is_not_up_yet_is_waited_for(
    bus: Bus, foreign: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    foreign.kill()
    bridge = MqttBridge(bus, lambda: MqttTransport(foreign.mqtt_url, "bridge"))
    with monkeypatch.context() as patched:  # for the refusals alone: what is to succeed has its time
        patched.setattr("edgeagents.adapters.mqtt.CONNECT_S", 0.2)
        task = asyncio.create_task(bridge.run())
        await until(lambda: "EdgeX's own broker" in caplog.text, 30)
    await asyncio.to_thread(foreign.start)
    async with asyncio.timeout(60):
        await bridge.carries.wait()
    task.cancel()
    await asyncio.wait({task})


async def test_our_own_broker_is_refused_before_anything_goes_round(bus: Bus, nats_server: NatsServer) -> None:
    heard: list[str] = []

    async def hear(message: BusMessage) -> None:
        heard.append(message.subject)

    await bus.subscribe("edgex.>", hear)
    bridge = MqttBridge(bus, lambda: MqttTransport(nats_server.mqtt_url, "bridge"))
    async with asyncio.timeout(5):
        with pytest.raises(ConfigurationError, match="EDGEAGENTS_MQTT_URL names this gateway's own nats-server"):
            await bridge.run()
    assert heard == []


@pytest.mark.parametrize("kind", ["nats-core", "nats-jetstream"])
async def test_an_edgex_that_speaks_nats_has_no_broker_to_bridge(nats_server: NatsServer, kind: Any) -> None:
    bus = await Bus.connect(nats_server.settings(edgex_bus=kind), "test")
    never: Callable[[], MqttTransport] = lambda: pytest.fail("opened")  # noqa: E731
    with pytest.raises(ConfigurationError, match=f"EDGEAGENTS_EDGEX_BUS is {kind}"):
        MqttBridge(bus, never)
    await bus.close()
