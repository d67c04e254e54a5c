"""EdgeX topics over MQTT 3.1.1: for tests against an EdgeX whose broker is MQTT only, and for the later bridge.

Source: edgex-wire.md section 1.5; aiomqtt 2.x.
"""

import asyncio
import contextlib
import logging
from typing import Any
from urllib.parse import urlsplit

import aiomqtt

from edgeagents.adapters.edgex_bus import Cancel, RawHandler
from edgeagents.adapters.events import encode_envelope
from edgeagents.errors import UnavailableError
from edgeagents.model.envelope import Envelope

log = logging.getLogger(__name__)


class MqttTransport:
    """One MQTT connection; an async context manager. Resubscribes after a reconnect."""

    def __init__(
        self, url: str, client_id: str, *, user: str | None = None, password: str | None = None, qos: int = 0
    ) -> None:
        """Prepare a connection to `mqtt://host:port`; nothing connects yet."""
        parts = urlsplit(url)
        self._url = url
        self._options: dict[str, Any] = {
            "hostname": parts.hostname or "127.0.0.1", "port": parts.port or 1883, "identifier": client_id,
            "username": user, "password": password, "timeout": 5,
        }  # fmt: skip
        self._qos = qos
        self._filters: dict[str, list[RawHandler]] = {}
        self._client: aiomqtt.Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def __aenter__(self) -> "MqttTransport":
        self._task = asyncio.create_task(self._run())
        try:
            await asyncio.wait_for(self._up.wait(), 6)
        except TimeoutError as error:
            await self.__aexit__()
            raise UnavailableError(f"{self._url}: no MQTT connection in 6 s: is the broker up?") from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        told = False
        while True:
            try:
                async with aiomqtt.Client(**self._options) as client:
                    self._client = client
                    for topic_filter in self._filters:
                        await client.subscribe(topic_filter, qos=self._qos)
                    self._up.set()
                    told = False
                    async for message in client.messages:
                        await self._deliver(message)
            except aiomqtt.MqttError as error:
                if not told:
                    log.warning("%s: %s: trying again", self._url, error)
                    told = True
                await asyncio.sleep(0.5)
            finally:
                self._client = None
                self._up.clear()

    async def _deliver(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        for topic_filter, handlers in list(self._filters.items()):
            if message.topic.matches(topic_filter):
                for handler in list(handlers):
                    await handler(str(message.topic), payload, {})

    async def publish(self, topic: str, envelope: Envelope) -> None:
        """Send an envelope.

        Raises:
            UnavailableError: the link is down.
        """
        client = self._client
        if client is None:
            raise UnavailableError(f"{self._url}: MQTT link is down")
        try:
            await client.publish(topic, encode_envelope(envelope), qos=self._qos)
        except aiomqtt.MqttError as error:
            raise UnavailableError(f"{self._url}: publish on {topic}: {error}") from error

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Cancel:
        """Subscribe; also after each reconnect, until cancelled."""
        handlers = self._filters.setdefault(topic_filter, [])
        handlers.append(handler)
        if len(handlers) == 1 and self._client is not None:
            try:
                await self._client.subscribe(topic_filter, qos=self._qos)
            except aiomqtt.MqttError as error:
                raise UnavailableError(f"{self._url}: subscribe to {topic_filter}: {error}") from error

        async def cancel() -> None:
            handlers.remove(handler)
            if not handlers and self._filters.get(topic_filter) is handlers:
                del self._filters[topic_filter]
                if self._client is not None:
                    with contextlib.suppress(aiomqtt.MqttError):
                        await self._client.unsubscribe(topic_filter)

        return cancel
