"""The embedded core's one connection to the broker: made as soon as the broker is there, then kept for ever.

What is published before the first connection is dropped and counted, as an EdgeX service's QoS 0 messages would be;
once connected, nats-py buffers over a broken link. Handlers get undecoded messages: core-command passes on payloads
that it does not understand.

Source: edgex-wire.md section 1.
"""

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.adapters.envelopes import JSON, Encoding, decode_envelope
from edgeagents.embedded.validation import load_json
from edgeagents.errors import InvalidInputError, MalformedMessageError, UnavailableError
from edgeagents.model.envelope import Answer, Envelope
from edgeagents.settings import BusSettings

log = logging.getLogger(__name__)

RawHandler = Callable[[str, bytes, Mapping[str, str]], Awaitable[None]]
_RETRY_S = 0.25
_CLOSED_POLL_S = 1.0


class Link:
    """EdgeX topics over NATS for the four services of this process."""

    def __init__(self, settings: BusSettings, name: str = "core") -> None:
        """Prepare; `run` connects."""
        self.settings = settings
        self.base = settings.edgex_base
        self.dropped = 0
        self._name = name
        self._bus: Bus | None = None
        self._edgex: EdgexBus | None = None
        self._transport: NatsTransport | None = None
        self._handlers: list[tuple[str, RawHandler]] = []
        self.tried = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the link is up now."""
        return self._bus is not None and self._bus.is_connected

    def on(self, topic_filter: str, handler: RawHandler) -> None:
        """Call `handler(topic, data, headers)` for every message of a filter below the base; before `run`."""
        self._handlers.append((f"{self.base}/{topic_filter}", handler))

    async def run(self) -> None:
        """Connect, subscribe, and connect anew should the connection end for good; ends when cancelled."""
        told = False
        while True:
            try:
                bus = await Bus.connect(self.settings, self._name)
            except UnavailableError as error:
                self.tried.set()
                if not told:
                    log.warning("%s; the core serves HTTP meanwhile and keeps trying", error)
                    told = True
                await asyncio.sleep(_RETRY_S)
                continue
            if told:
                log.warning("nats %s: link is up", self.settings.nats_url)
            told = False
            await self._attend(bus)

    async def _attend(self, bus: Bus) -> None:
        transport = NatsTransport(bus, Encoding.from_environ(os.environ))
        try:
            for topic_filter, handler in self._handlers:
                await transport.subscribe(topic_filter, handler)
            self._bus, self._transport, self._edgex = bus, transport, EdgexBus(transport, self.base)
            self.tried.set()
            while not bus.client.is_closed:  # noqa: ASYNC110 (a Bus has no word for the end of its connection)
                await asyncio.sleep(_CLOSED_POLL_S)
        except UnavailableError as error:
            log.warning("%s", error)
        finally:
            self._bus = self._transport = self._edgex = None
            with contextlib.suppress(UnavailableError):
                await bus.close()

    async def publish(self, topic: str, payload: Any, correlation_id: str = "", *, absolute: bool = False) -> None:
        """Publish a notice below the base (`absolute`: as given); one that cannot be sent is logged and counted."""
        envelope = Envelope(payload, correlation_id or str(uuid.uuid4()))
        await self.send(topic if absolute else f"{self.base}/{topic}", envelope)

    async def send(self, topic: str, envelope: Envelope) -> None:
        """Publish an envelope on a whole topic; one that cannot be sent is logged and counted."""
        try:
            if self._transport is None:
                raise UnavailableError("no connection to the broker yet")
            await self._transport.publish(topic, envelope)
        except (UnavailableError, InvalidInputError) as error:
            self.dropped += 1
            log.warning("message on %s dropped: %s", topic, error)

    async def ask(self, topic: str, payload: Any, *, answer_from: str, timeout_s: float) -> Answer:
        """Publish a request below the base and return the answer, error answers included.

        Raises:
            UnavailableError: no broker, or no answer in time.
            InvalidInputError: the topic cannot be carried.
        """
        if self._edgex is None:
            raise UnavailableError("no connection to the broker")
        return await self._edgex.request(topic, payload, answer_from=answer_from, timeout_s=timeout_s)

    async def relay(self, request: Envelope, topic: str, answer_topic: str, timeout_s: float) -> Envelope:
        """Pass a request on to `topic` and return the first message on `answer_topic`, its payload as it came.

        Raises:
            UnavailableError: no broker, or no answer in time.
            InvalidInputError: the topic cannot be carried.
        """
        if self._transport is None:
            raise UnavailableError("no connection to the broker")
        answered: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()

        async def on_answer(came_on: str, data: bytes, headers: Mapping[str, str]) -> None:
            with contextlib.suppress(MalformedMessageError):
                answer = raw_envelope(data, headers)
                if not answered.done():
                    answered.set_result(answer)

        cancel = await self._transport.subscribe(answer_topic, on_answer)
        try:
            await self._transport.publish(topic, request)
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError as error:
            raise UnavailableError(f"no answer on {answer_topic} in {timeout_s:g} s") from error
        finally:
            await cancel()

    async def flush(self) -> None:
        """Send what is buffered, for at most a second."""
        if self._bus is not None:
            with contextlib.suppress(UnavailableError):
                await self._bus.flush(1.0)


def raw_envelope(data: bytes, headers: Mapping[str, str]) -> Envelope:
    """Return an envelope whose payload is left as it is where the envelope is JSON, base64 and CBOR included.

    Raises:
        MalformedMessageError: these bytes are no envelope.
    """
    if (headers and "Content-Type" in headers) or not data.lstrip().startswith(b"{"):  # metadata in headers, or CBOR
        whole = decode_envelope(data, headers)
        # Written anew it is JSON, unless its event must be CBOR: then that is said again.
        return whole if isinstance(whole.payload, str) else replace(whole, content_type=JSON)
    try:
        body = load_json(data)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError(f"envelope is not JSON: {str(error)[:200]}", "not-json") from error
    if not isinstance(body, dict):
        raise MalformedMessageError("an envelope is an object", "not-an-envelope")
    query = body.get("queryParams")
    code = body.get("errorCode")
    return Envelope(
        payload=body.get("payload"),
        correlation_id=_text(body.get("correlationID")),
        request_id=_text(body.get("requestID")),
        error_code=code if isinstance(code, int) and not isinstance(code, bool) else 0,
        content_type=_text(body.get("contentType")) or JSON,
        received_topic=_text(body.get("receivedTopic")),
        query_params={str(key): str(value) for key, value in query.items()} if isinstance(query, dict) else {},
    )


def error_envelope(request_id: str, text: str) -> Envelope:
    """Return an error answer; like EdgeX's own it carries a new correlation id."""
    return Envelope(text, str(uuid.uuid4()), request_id, 1, "text/plain")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
