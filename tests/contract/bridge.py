"""EdgeX's topics between an MQTT broker and a nats-server: for our services, which speak NATS, beside an MQTT EdgeX.

A message that the bridge itself put on one side is not taken back from there: nats-server does not echo, and what
MQTT echoes is recognised.
"""

import asyncio
import secrets
import socket
from collections import Counter
from urllib.parse import urlsplit

import aiomqtt
from nats.aio.client import Client
from nats.aio.msg import Msg

from edgeagents import subjects

START_S = 10.0


class Bridge:
    """An async context manager; carries both ways while it is open."""

    def __init__(self, mqtt_url: str, nats_url: str, base: str) -> None:
        """Carry everything below `base`, and keeper's notices of changed configuration."""
        self._mqtt_url = mqtt_url
        self._nats_url = nats_url
        self._filters = {f"{base}/#", "edgex/configs/#"} if base != "edgex" else {f"{base}/#"}
        self._echoes: Counter[tuple[str, bytes]] = Counter()
        self._nats = Client()
        self._mqtt: aiomqtt.Client | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Bridge":
        await self._nats.connect(self._nats_url, no_echo=True)
        self._task = asyncio.create_task(self._run())
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait({self._task, up}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()
        assert self._up.is_set(), f"no connection to {self._mqtt_url} in {START_S:g} s"
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._nats.close()

    async def _run(self) -> None:
        parts = urlsplit(self._mqtt_url)
        async with aiomqtt.Client(
            parts.hostname or "127.0.0.1", parts.port or 1883, identifier=f"bridge-{secrets.token_hex(4)}", timeout=5,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        ) as client:  # fmt: skip
            self._mqtt = client
            for topic_filter in self._filters:
                await client.subscribe(topic_filter)
                await self._nats.subscribe(subjects.topic_to_subject(topic_filter), cb=self._to_mqtt)
            await self._nats.flush()
            self._up.set()
            async for message in client.messages:
                await self._to_nats(str(message.topic), bytes(message.payload))

    async def _to_nats(self, topic: str, payload: bytes) -> None:
        if self._echoes[topic, payload]:
            self._echoes[topic, payload] -= 1
            return
        await self._nats.publish(subjects.topic_to_subject(topic), payload)

    async def _to_mqtt(self, message: Msg) -> None:
        topic = subjects.subject_to_topic(message.subject)
        assert self._mqtt is not None
        self._echoes[topic, message.data] += 1
        await self._mqtt.publish(topic, message.data)
