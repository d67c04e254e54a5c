"""EdgeX's message bus by topic, over NATS or over MQTT: publish and subscribe envelopes, ask and wait for the answer.

What cannot be decoded is counted by its cause, logged once a cause, and set aside by the dead-letter hook.

Source: edgex-wire.md sections 1.3, 1.4 and 5.4.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from edgeagents import subjects
from edgeagents.adapters import telemetry
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.envelopes import PLAIN, Encoding, encode_envelope, encode_headers
from edgeagents.adapters.events import decode_message
from edgeagents.adapters.plain_events import plain_event
from edgeagents.errors import (
    InvalidInputError,
    MalformedMessageError,
    UnavailableError,
    UpstreamError,
    WithdrawnError,
)
from edgeagents.model.device import Event
from edgeagents.model.envelope import Answer, EdgexMessage, Envelope, EventMessage
from edgeagents.settings import EdgexBusType

log = logging.getLogger(__name__)

RawHandler = Callable[[str, bytes, Mapping[str, str]], Awaitable[None]]
MessageHandler = Callable[[EdgexMessage], Awaitable[None]]
EventHandler = Callable[[Event], None]
DeadLetter = Callable[[str, bytes, str, str], Awaitable[None]]
Cancel = Callable[[], Awaitable[None]]


class Transport(Protocol):
    """What carries topics: NATS (`NatsTransport`) or MQTT (`adapters/mqtt.py`)."""

    @property
    def is_connected(self) -> bool:
        """Whether the link is up now."""

    async def publish(self, topic: str, envelope: Envelope) -> None:
        """Send an envelope on a topic.

        Raises:
            UnavailableError: the link is down.
            InvalidInputError: the topic cannot be carried.
        """

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Cancel:
        """Call `handler(topic, data, headers)` for each message; return what ends it."""


class NatsTransport:
    """EdgeX topics as NATS subjects, mapped by what EdgeX itself speaks (`BusSettings.edgex_bus`)."""

    def __init__(self, bus: Bus, encoding: Encoding = PLAIN, form: str = "") -> None:
        """Use a connected bus; what is read is recognised by itself.

        Args:
            bus: whose settings say what EdgeX speaks.
            encoding: how we write.
            form: `MessageBus.Optional.Format`, which counts where our own settings name none; as in EdgeX `nats`
                unless it is `json`.
        """
        self._bus = bus
        self._encoding = encoding
        self._kind = bus.settings.edgex_bus
        self._has_headers = self._kind != "mqtt" and (bus.settings.edgex_format or form.lower()) != "json"

    @property
    def is_connected(self) -> bool:
        """Whether the link is up now."""
        return self._bus.is_connected

    async def publish(self, topic: str, envelope: Envelope) -> None:
        """Send without a reply subject: Go subscribers would answer it with `+ACK`."""
        if "+" in topic or "#" in topic:
            raise InvalidInputError(f"topic {topic!r} holds a wildcard: nothing can be published on it")
        subject = subjects.topic_to_subject(topic, self._kind)
        if self._has_headers:
            data, headers = encode_headers(envelope, self._encoding)
            await self._bus.publish(subject, data, headers)
        else:
            is_mqtt = self._kind == "mqtt"
            await self._bus.publish(subject, encode_envelope(envelope, self._encoding, is_mqtt=is_mqtt))

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Cancel:
        """Subscribe on the core, without a queue group."""

        async def deliver(message: BusMessage) -> None:
            await handler(subjects.subject_to_topic(message.subject, self._kind), message.data, message.headers)

        subscription = await self._bus.subscribe(subjects.topic_to_subject(topic_filter, self._kind), deliver)

        async def cancel() -> None:
            if not self._bus.client.is_closed:
                await subscription.unsubscribe()

        return cancel


class EdgexBus:
    """Envelopes by topic; topics are given below the base (`events/device/#`), decoded on receipt."""

    def __init__(
        self, transport: Transport, base: str = "edgex", dead_letter: DeadLetter | None = None,
        kind: EdgexBusType = "mqtt",
    ) -> None:  # fmt: skip
        """Use a transport.

        Args:
            transport: NATS or MQTT.
            base: `MessageBus.BaseTopicPrefix`.
            dead_letter: `dead_letter(topic, data, cause_kind, text)` gets what cannot be decoded.
            kind: what EdgeX speaks; says how names stand in topics (`subjects.topic_level`).
        """
        self._transport = transport
        self.base = base
        self.kind: EdgexBusType = kind
        self._dead_letter = dead_letter
        self.rejected: Counter[str] = Counter()

    async def publish(
        self,
        topic: str,
        payload: Any,
        *,
        correlation_id: str = "",
        request_id: str = "",
        error: str | None = None,
        content_type: str = "application/json",
    ) -> None:
        """Publish a payload; with `error` set, an error answer with that text.

        Raises:
            UnavailableError: the link is down.
        """
        envelope = Envelope(
            payload=payload if error is None else error,
            correlation_id=correlation_id or str(uuid.uuid4()),
            request_id=request_id,
            error_code=0 if error is None else 1,
            content_type=content_type if error is None else "text/plain",
        )
        await self._transport.publish(f"{self.base}/{topic}", envelope)

    async def subscribe(self, topic_filter: str, handler: MessageHandler, *, absolute: bool = False) -> Cancel:
        """Call `handler` with every decodable message of a filter below the base (`absolute`: as given)."""

        async def deliver(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
            message = await self.decode(topic, data, headers)
            if message is not None:
                with telemetry.carry(headers):
                    await handler(message)

        return await self._transport.subscribe(topic_filter if absolute else f"{self.base}/{topic_filter}", deliver)

    async def subscribe_events(self, topic_filter: str, handler: EventHandler, wants: Callable[[str], bool]) -> Cancel:
        """Call `handler` with the events of a filter below the base, those alone whose topic `wants` wants."""

        async def deliver(topic: str, data: bytes, headers: Mapping[str, str]) -> None:
            if not wants(topic):
                return
            event = await self.event(topic, data, headers)
            if event is not None:
                with telemetry.carry(headers):
                    handler(event)

        return await self._transport.subscribe(f"{self.base}/{topic_filter}", deliver)

    async def event(self, topic: str, data: bytes, headers: Mapping[str, str]) -> Event | None:
        """Return the event in a message; None as `decode`, or when it means something else."""
        event = plain_event(topic, data, headers, self.base)
        if event is not None:
            return event
        message = await self.decode(topic, data, headers)
        return message.event if isinstance(message, EventMessage) else None

    async def decode(self, topic: str, data: bytes, headers: Mapping[str, str]) -> EdgexMessage | None:
        """Return what a message means; None, counted and set aside, when it means nothing."""
        try:
            return decode_message(topic, data, headers, self.base)
        except MalformedMessageError as error:
            self.rejected[error.cause_kind] += 1
            if self.rejected[error.cause_kind] == 1:
                log.warning("message on %s set aside: %s (further ones of this cause are only counted)", topic, error)
            if self._dead_letter is not None:
                try:
                    await self._dead_letter(topic, data, error.cause_kind, str(error))
                except (UnavailableError, InvalidInputError) as failure:
                    log.warning("dead letter from %s could not be stored: %s", topic, failure)
            return None

    async def request(
        self,
        topic: str,
        payload: Any,
        *,
        answer_from: str,
        timeout_s: float,
        query: Mapping[str, str] | None = None,
        correlation_id: str = "",
        last_look: Callable[[], None] | None = None,
    ) -> Answer:
        """Publish a request and return the answer that carries its request id, error answers included.

        Args:
            topic: where to ask, below the base.
            payload: what to ask.
            answer_from: the service that answers on `response/<service>/<request id>`.
            timeout_s: longest wait.
            query: query parameters.
            correlation_id: a UUID; made when empty.
            last_look: called right before it is published; what it raises is raised, and nothing is sent.

        Raises:
            UnavailableError: no answer in time: EdgeX stays silent when a device service does.
            UpstreamError: an answer that cannot be decoded; it is set aside.
        """
        request_id = str(uuid.uuid4())
        answered: asyncio.Future[tuple[str, bytes, Mapping[str, str]]] = asyncio.get_running_loop().create_future()

        async def on_answer(arrived_on: str, data: bytes, headers: Mapping[str, str]) -> None:
            # An error answer carries a new correlation id: the request id alone counts.
            if not answered.done():
                answered.set_result((arrived_on, data, headers))

        cancel = await self._transport.subscribe(f"{self.base}/response/{answer_from}/{request_id}", on_answer)
        try:
            envelope = Envelope(
                payload, correlation_id or str(uuid.uuid4()), request_id, query_params=dict(query or {})
            )
            if last_look is not None:
                if not self._transport.is_connected:
                    # It would be kept, and sent once the link is back, however late that is.
                    raise WithdrawnError(f"{topic}: the link to the broker is down, nothing was sent")
                last_look()
            await self._transport.publish(f"{self.base}/{topic}", envelope)
            async with asyncio.timeout(timeout_s):
                answer = await self.decode(*await answered)
        except TimeoutError as error:
            raise UnavailableError(f"{answer_from} did not answer {topic} in {timeout_s:g} s") from error
        finally:
            await cancel()
        if not isinstance(answer, Answer):
            raise UpstreamError(f"{answer_from} answered {topic} with what is no answer: see its dead letter")
        return answer

    async def answer(self, service: str, request: Envelope, payload: Any = None, error: str | None = None) -> None:
        """Answer a request as `service`: same request id and correlation id."""
        topic = f"{self.base}/response/{service}/{request.request_id}"
        answer = Envelope(
            payload=payload if error is None else error,
            correlation_id=request.correlation_id,
            request_id=request.request_id,
            error_code=0 if error is None else 1,
            content_type="application/json" if error is None else "text/plain",
        )
        await self._transport.publish(topic, answer)
