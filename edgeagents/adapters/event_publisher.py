"""Device events onto the bus, in order, until each is held: the caller never waits.

An event counts once the stream `edgex-events` acknowledged it; until then it is sent again under the same
message id, which the stream drops if it holds it already. The backlog is bounded: when it is full the oldest
event that is not on its way gives place, is counted as a gap and said once.
A JetStream publish carries a reply subject, which an EdgeX service built with NATS would answer; so this way is
only for an EdgeX that speaks MQTT. Elsewhere events are published plainly, at most once (`TopicSink`).

Source: design.md section 4; edgex-wire.md sections 1.4 and 1.6.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from edgeagents import subjects
from edgeagents.adapters import telemetry
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.device_commands import event_to_wire
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.envelopes import PLAIN, Encoding, encode_envelope
from edgeagents.errors import TheirError, UnavailableError
from edgeagents.journal import Journal
from edgeagents.model.device import Event
from edgeagents.model.envelope import Envelope
from edgeagents.settings import EdgexBusType

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
_STORE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way: where it goes and what is sent, the same at every attempt."""

    event_id: str
    topic: str
    payload: dict[str, Any]
    correlation_id: str
    origin_ns: int
    readings: int = 1
    span: telemetry.Span = field(default_factory=telemetry.Span)  # from the event to its place in the stream


class EventSink(Protocol):
    """Where events go."""

    def subject(self, topic: str) -> str:
        """Return the subject a topic below the base is published on.

        Raises:
            InvalidInputError: no subject can carry it.
        """

    async def send(self, item: Outgoing) -> int | None:
        """Send once; return the stream sequence where there is one.

        Raises:
            UnavailableError: it may or may not have arrived; send it again.
            TheirError: it can never be sent: too large, or no subject can carry it.
        """


class StreamSink:
    """Into the stream that captures device events."""

    def __init__(self, bus: Bus, base: str = "edgex", encoding: Encoding = PLAIN) -> None:
        """Use a connected bus."""
        self._bus = bus
        self._base = base
        self._encoding = encoding

    def subject(self, topic: str) -> str:
        """Return the subject of a topic."""
        return subjects.topic_to_subject(f"{self._base}/{topic}", self._bus.settings.edgex_bus)

    async def send(self, item: Outgoing) -> int | None:
        """Store once; see `EventSink`."""
        if not self._bus.is_connected:
            raise UnavailableError("the link to nats is down")
        data = encode_envelope(Envelope(item.payload, item.correlation_id), self._encoding)
        return await self._bus.store(
            self.subject(item.topic), data, message_id=item.event_id, timeout_s=_STORE_TIMEOUT_S
        )


class TopicSink:
    """Plainly on the topic, for a bus without that stream."""

    def __init__(self, bus: Bus, edgex: EdgexBus) -> None:
        """Use EdgeX's bus over a connected one."""
        self._bus = bus
        self._edgex = edgex

    def subject(self, topic: str) -> str:
        """Return the subject of a topic."""
        return subjects.topic_to_subject(f"{self._edgex.base}/{topic}", self._bus.settings.edgex_bus)

    async def send(self, item: Outgoing) -> int | None:
        """Publish once; see `EventSink`."""
        if not self._bus.is_connected:
            raise UnavailableError("the link to nats is down")
        await self._edgex.publish(item.topic, item.payload, correlation_id=item.correlation_id)
        return None


class EventPublisher:
    """A bounded queue of events and the one task that empties it."""

    def __init__(
        self, service: str, sink: EventSink, journal: Journal | None = None, *, backlog: int = 10_000,
        bus: EdgexBusType = "mqtt",
    ) -> None:  # fmt: skip
        """Publish as the device service `service` on what EdgeX speaks (`bus`); `run` does the work."""
        self._service = service
        self._bus: EdgexBusType = bus
        self._sink = sink
        self._journal = journal or Journal()
        self._limit = backlog
        self._queue: deque[Outgoing] = deque()
        self._sending: Outgoing | None = None
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._told_full = self._told_down = False
        self.published = 0
        self.readings = 0  # in the events that were published
        self.resent = 0
        self.gaps = 0

    @property
    def waiting(self) -> int:
        """How many events are not yet acknowledged."""
        return len(self._queue) + (self._sending is not None)

    def offer(self, event: Event, correlation_id: str = "") -> None:
        """Queue an event; returns at once."""
        if len(self._queue) >= self._limit:
            self._lose(self._queue.popleft(), "backlog full")
        correlation_id = correlation_id or str(uuid.uuid4())
        payload = {"apiVersion": "v3", "requestId": str(uuid.uuid4()), "event": event_to_wire(event)}
        topic = event_topic(self._service, event, self._bus)
        about = {"edgex.event": event.id, "edgex.device": event.device_name, "edgex.source": event.source_name}
        span = telemetry.span("event", about, kind="producer", is_root=True)
        self._queue.append(Outgoing(event.id, topic, payload, correlation_id, event.origin, len(event.readings), span))
        self._empty.clear()
        self._more.set()

    async def run(self) -> None:
        """Send what is queued, one after the other, for ever."""
        while True:
            await self._more.wait()
            while self._queue:
                self._sending = self._queue.popleft()
                await self._deliver(self._sending)
                self._sending = None
            self._more.clear()
            self._empty.set()
            self._told_full = False

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all is acknowledged, for at most `timeout_s`; say whether it is."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _deliver(self, item: Outgoing) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            published_ns = time.time_ns()
            try:
                with telemetry.carry(item.span.headers):
                    sequence = await self._sink.send(item)
            except UnavailableError as error:
                self._say_down(error)
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                self.resent += 1
                continue
            except TheirError as error:
                self._lose(item, str(error))
                return
            self._say_up()
            item.span.end()
            self.published += 1
            self.readings += item.readings
            self._journal.write(
                "event", id=item.event_id, stream_seq=sequence, subject=self._sink.subject(item.topic),
                origin_ns=item.origin_ns, published_ns=published_ns,
            )  # fmt: skip
            return

    def _lose(self, item: Outgoing, reason: str) -> None:
        self.gaps += 1
        item.span.end(reason)
        self._journal.write("gap", id=item.event_id, topic=item.topic, origin_ns=item.origin_ns, reason=reason)
        if not self._told_full:
            self._told_full = True
            log.warning("event %s on %s is lost: %s (further ones are only counted)", item.event_id, item.topic, reason)

    def _say_down(self, error: UnavailableError) -> None:
        if not self._told_down:
            self._told_down = True
            log.warning("events wait: %s", error)

    def _say_up(self) -> None:
        if self._told_down:
            self._told_down = False
            log.warning("events flow again, %d waited", len(self._queue) + 1)


def event_topic(service: str, event: Event, bus: EdgexBusType = "mqtt") -> str:
    """Return the topic of an event below the base; what a level cannot hold is percent-encoded."""
    levels = (service, event.profile_name, event.device_name, event.source_name)
    return "/".join(("events", "device", *(subjects.topic_level(name, bus) for name in levels)))
