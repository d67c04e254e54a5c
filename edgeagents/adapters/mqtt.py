"""EdgeX topics over MQTT 3.1.1: for an EdgeX with a broker of its own (`mqtt_bridge.py`), and for tests.

Each subscription has its own queue and task, as with NATS: a handler may ask and wait for the answer.

Source: edgex-wire.md sections 1.5 and 1.7; aiomqtt 2.x.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiomqtt

from edgeagents.adapters.edgex_bus import Cancel, RawHandler
from edgeagents.adapters.envelopes import PLAIN, Encoding, encode_envelope
from edgeagents.errors import ConfigurationError, EdgeAgentsError, InvalidInputError, UnavailableError
from edgeagents.model.envelope import Envelope

log = logging.getLogger(__name__)

CONNECT_S: Final = 6.0
FIRST_RETRY_S: Final = 0.25
LONGEST_RETRY_S: Final = 8.0
PENDING: Final = 65_536  # as many waiting messages a subscription as with NATS; further ones are dropped
_ENCRYPTED: Final = ("mqtts", "ssl", "tls", "tcps")
_SCHEMES: Final = ("mqtt", "tcp", *_ENCRYPTED)
_REFUSED: Final = 128  # a subscription's return code from here on means no


@dataclass(eq=False, slots=True)
class _Subscription:
    topic_filter: str
    handler: RawHandler
    waiting: asyncio.Queue[tuple[str, bytes]]
    is_over: bool = False

    async def run(self) -> None:
        """Hand over what arrives, one after the other."""
        headers: Mapping[str, str] = {}
        while not self.is_over:
            topic, payload = await self.waiting.get()
            try:
                await self.handler(topic, payload, headers)
            except EdgeAgentsError as error:
                log.warning("message on %s: %s", topic, error)


class MqttTransport:
    """One MQTT connection; an async context manager. Resubscribes after a reconnect."""

    def __init__(
        self, url: str, client_id: str, *, user: str | None = None, password: str | None = None,
        tls: ssl.SSLContext | None = None, qos: int = 0, encoding: Encoding = PLAIN, pending: int = PENDING,
    ) -> None:  # fmt: skip
        """Prepare a connection; nothing connects yet.

        Args:
            url: `mqtt://host:port`, or `mqtts://host:port` for TLS.
            client_id: unique for each connection to the broker.
            user: with `password`, where the broker asks for them.
            password: see `user`.
            tls: what to trust, and the client's certificate where the broker asks for one; with `mqtts` and None
                the system's authorities are trusted.
            qos: of what is published and subscribed.
            encoding: how we write.
            pending: how many messages of one subscription may wait; further ones are dropped and counted.

        Raises:
            ConfigurationError: this is no such address.
        """
        host, port, is_encrypted = _parts(url)
        self._url = url
        self._encoding = encoding
        self._pending = pending
        self.dropped = 0
        self._options: dict[str, Any] = {
            "hostname": host, "port": port or (8883 if tls or is_encrypted else 1883), "identifier": client_id,
            "username": user, "password": password, "timeout": 5,
            "tls_context": tls or (ssl.create_default_context() if is_encrypted else None),
            # Without it a QoS 1 round trip takes 44 ms instead of 0.3.
            "socket_options": [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        }  # fmt: skip
        self._qos = qos
        self._subscriptions: dict[_Subscription, asyncio.Task[None]] = {}
        self._client: aiomqtt.Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._was_up = False
        self._why = ""
        self._asked: set[str] = set()
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> "MqttTransport":
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._up.wait()
        except TimeoutError as error:
            await self.__aexit__()
            text = f"{self._url}: no MQTT connection in {CONNECT_S:g} s: {self._why or 'no answer'}: is the broker up?"
            raise UnavailableError(text) from error
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [*self._subscriptions.values(), *([self._task] if self._task is not None else [])]
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            # More than once: the wait_for in aiomqtt may lose a cancellation (see `streams.finished`).
            _, pending = await asyncio.wait(pending, timeout=1)

    async def _run(self) -> None:
        told, pause_s = False, FIRST_RETRY_S
        while True:
            try:
                await self._session()
            except (aiomqtt.MqttError, ValueError, OSError) as error:
                self._why = str(error) or type(error).__name__
                if not told or self._was_up:
                    log.warning("%s: %s: trying again", self._url, self._why)
                if self._was_up:
                    pause_s = FIRST_RETRY_S
                told, self._was_up = True, False
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_RETRY_S, pause_s * 2)

    async def _session(self) -> None:
        try:
            async with aiomqtt.Client(**self._options) as client:
                self._client = client
                self._asked.clear()
                await self._ask(client)
                self._up.set()
                if self._why:
                    log.warning("%s: link is back", self._url)
                self._was_up, self._why = True, ""
                async for message in client.messages:
                    self._deliver(message)
        finally:
            self._client = None
            self._up.clear()

    def _deliver(self, message: aiomqtt.Message) -> None:
        payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
        for subscription in self._subscriptions:
            if message.topic.matches(subscription.topic_filter):
                try:
                    subscription.waiting.put_nowait((str(message.topic), payload))
                except asyncio.QueueFull:
                    self.dropped += 1
                    if self.dropped == 1:
                        text = "%s: %s is too slow: a message is dropped (further ones are only counted)"
                        log.warning(text, self._url, subscription.topic_filter)

    @property
    def is_connected(self) -> bool:
        """Whether the link is up and everything subscribed."""
        return self._up.is_set()

    async def publish(self, topic: str, envelope: Envelope) -> None:
        """Send an envelope.

        Raises:
            UnavailableError: the link is down.
            InvalidInputError: MQTT cannot carry this topic, or JSON this payload.
        """
        client = self._client
        if client is None:
            raise UnavailableError(f"{self._url}: MQTT link is down")
        try:
            await client.publish(topic, encode_envelope(envelope, self._encoding), qos=self._qos)
        except aiomqtt.MqttError as error:
            raise UnavailableError(f"{self._url}: publish on {topic}: {error}") from error
        except ValueError as error:
            raise InvalidInputError(f"topic {topic!r}: {error}") from error

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Cancel:
        """Subscribe, again after each reconnect, until cancelled.

        Raises:
            UnavailableError: the link broke meanwhile.
            InvalidInputError: the broker refuses this filter.
        """
        subscription = _Subscription(topic_filter, handler, asyncio.Queue(self._pending))
        task = self._subscriptions[subscription] = asyncio.create_task(subscription.run())
        task.add_done_callback(_tell)

        async def cancel() -> None:
            subscription.is_over = True
            if self._subscriptions.pop(subscription, None) is None:
                return
            if task is not asyncio.current_task():
                task.cancel()
            if self._client is not None:
                with contextlib.suppress(aiomqtt.MqttError, ValueError):
                    await self._ask(self._client)

        if self._client is not None:
            try:
                await self._ask(self._client)
            except (aiomqtt.MqttError, ValueError) as error:
                await cancel()
                kind = UnavailableError if isinstance(error, aiomqtt.MqttError) else InvalidInputError
                raise kind(f"{self._url}: subscribe to {topic_filter!r}: {error}") from error
        return cancel

    async def _ask(self, client: aiomqtt.Client) -> None:
        """Ask the broker for the widest of our filters: it sends a message once for each filter that fits."""
        async with self._asking:
            filters = {subscription.topic_filter for subscription in self._subscriptions}
            widest = {one for one in filters if not any(one != other and _covers(other, one) for other in filters)}
            for topic_filter in widest - self._asked:
                codes = await client.subscribe(topic_filter, qos=self._qos)
                if any(getattr(code, "value", code) >= _REFUSED for code in codes):
                    raise ValueError("the broker refuses it")
                self._asked.add(topic_filter)
            for topic_filter in self._asked - widest:
                self._asked.remove(topic_filter)
                await client.unsubscribe(topic_filter)


def _parts(url: str) -> tuple[str, int | None, bool]:
    """Return host, port and whether TLS is asked for."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError
        return parts.hostname, parts.port, parts.scheme in _ENCRYPTED
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no address of a broker: write mqtt://host:port") from error


def _covers(wide: str, narrow: str) -> bool:
    wides, narrows = wide.split("/"), narrow.split("/")
    for one, other in zip(wides, narrows, strict=False):
        if one == "#":
            return True
        if other == "#" or one not in ("+", other):
            return False
    return len(wides) == len(narrows) or wides[len(narrows) :] == ["#"]


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a handler of MQTT messages failed, its subscription has ended", exc_info=error)
