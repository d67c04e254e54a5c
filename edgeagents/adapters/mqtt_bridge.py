"""EdgeX's own MQTT broker -> our NATS, where a site keeps it: events stored, notices passed on, one way.

Events and rule results go into the stream `edgex-events`, in the order they came, each sent until the stream holds
it. System events and configuration notices are passed on as they are. Commands stay REST: nothing is sent back.
What waits while NATS is away is bounded; what is lost is counted and said once. What the foreign broker's services
publish while our link to it is down is lost too: their QoS is 0.

Source: design.md section 4; edgex-wire.md sections 1.3 and 1.5.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.errors import ConfigurationError, TheirError, UnavailableError
from edgeagents.model.envelope import Envelope
from edgeagents.settings import PREFIX

log = logging.getLogger(__name__)

STORED: Final = ("events/device/#", "rules/agents")
PASSED_ON: Final = ("system-events/#",)
CONFIGS: Final = "edgex/configs/#"  # fixed in every EdgeX client, not <base>
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_STORE_TIMEOUT_S: Final = 5.0
_PROBE_S: Final = 1.0


class MqttSettings(BaseSettings):
    """EdgeX's own MQTT broker; user, password and certificates stand in EdgeX's `MessageBus` and its secret."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}MQTT_", frozen=True)

    url: str = Field("", description="mqtt://host:port or mqtts://host:port; empty: EdgeX speaks to our own broker")
    pending: int = Field(10_000, ge=1, le=1_000_000, description="how many messages may wait while NATS is away")


class MqttBridge:
    """Carries topics from one MQTT broker into NATS until it is cancelled."""

    def __init__(self, bus: Bus, open_transport: Callable[[], MqttTransport], base: str = "edgex") -> None:
        """Use a connected bus; `open_transport` makes the connection to the foreign broker, anew when it failed.

        Raises:
            ConfigurationError: EdgeX is said to speak NATS.
        """
        if bus.settings.edgex_bus != "mqtt":
            text = f"{PREFIX}MQTT_URL names EdgeX's MQTT broker, but {PREFIX}EDGEX_BUS is {bus.settings.edgex_bus}"
            raise ConfigurationError(f"{text}: unset one of the two")
        self._bus = bus
        self._open = open_transport
        self._base = base
        self._transport: MqttTransport | None = None
        self._dropped_before = 0
        self.carries = asyncio.Event()
        self.counts: Counter[str] = Counter()  # stored, passed-on, gaps

    @property
    def gaps(self) -> int:
        """How many messages were lost since the start."""
        dropped = self._transport.dropped if self._transport is not None else 0
        return self.counts["gaps"] + self._dropped_before + dropped

    async def run(self) -> None:
        """Connect, however long it takes, and carry for ever.

        Raises:
            ConfigurationError: the foreign broker is our own one.
        """
        pause_s, told = 1.0, False
        while True:
            transport = self._open()
            try:
                async with transport:
                    self._transport = transport
                    await self._carry(transport)
            except UnavailableError as error:
                if not told:
                    log.warning("EdgeX's own broker: %s: trying again", error)
                    told = True
            self._dropped_before += transport.dropped
            self._transport = None
            await asyncio.sleep(pause_s)
            pause_s = min(30.0, pause_s * 2)

    async def _carry(self, transport: MqttTransport) -> None:
        await self._refuse_own_broker(transport)
        for topic in STORED:
            await transport.subscribe(f"{self._base}/{topic}", self._store)
        for topic in PASSED_ON:
            await transport.subscribe(f"{self._base}/{topic}", self._pass_on)
        await transport.subscribe(CONFIGS, self._pass_on)
        self.carries.set()
        log.info("EdgeX's own broker is bridged")
        await asyncio.Event().wait()

    async def _refuse_own_broker(self, transport: MqttTransport) -> None:
        """Refuse a broker whose messages arrive on our NATS anyway: each would go round for ever."""
        topic = f"edgeagents/bridge-probe/{uuid.uuid4()}"
        heard = asyncio.Event()

        async def hear(_: object) -> None:
            heard.set()

        subscription = await self._bus.subscribe(subjects.topic_to_subject(topic), hear)
        try:
            await self._bus.flush()
            await transport.publish(topic, Envelope())
            async with asyncio.timeout(_PROBE_S):
                await heard.wait()
        except TimeoutError:
            return
        finally:
            if not self._bus.client.is_closed:
                await subscription.unsubscribe()
        text = f"{PREFIX}MQTT_URL names this gateway's own nats-server, whose events arrive without a bridge"
        raise ConfigurationError(f"{text}: unset it, or name EdgeX's own broker")

    async def _store(self, topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        message_id, pause_s = uuid.uuid4().hex, _FIRST_PAUSE_S  # the same at each attempt: stored once
        while True:
            try:
                if not self._bus.is_connected:
                    raise UnavailableError("the link to nats is down")
                subject = subjects.topic_to_subject(topic)
                await self._bus.store(subject, data, message_id=message_id, timeout_s=_STORE_TIMEOUT_S)
            except UnavailableError:
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                continue
            except TheirError as error:
                self._lose(topic, error)
                return
            self.counts["stored"] += 1
            return

    async def _pass_on(self, topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        try:
            await self._bus.publish(subjects.topic_to_subject(topic), data)
        except TheirError as error:
            self._lose(topic, error)
            return
        self.counts["passed-on"] += 1

    def _lose(self, topic: str, error: TheirError) -> None:
        self.counts["gaps"] += 1
        if self.counts["gaps"] == 1:
            log.warning("message on %s is lost: %s (further ones are only counted)", topic[:200], error)
