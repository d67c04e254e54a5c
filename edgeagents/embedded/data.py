"""core-data: keeps the events of the bus and those posted to it, which it publishes on.

Events of the bus wait in a bounded queue and are written in batches on the database's thread: the next batch gathers
while one is written, so a commit serves more events the more there are. When the queue is full the subscription
waits, and nats-py buffers for it.

Unlike the real one it publishes a posted event only when it takes it.

Source: edgex-wire.md sections 1.3 and 5.2; recordings of EdgeX 4.0.2.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from edgeagents.adapters.event_payloads import restored
from edgeagents.adapters.events import decode_message
from edgeagents.adapters.metrics import Metrics
from edgeagents.embedded.contracts import Item
from edgeagents.embedded.event_contract import EVENT, check_event
from edgeagents.embedded.event_store import EventStore, Selection
from edgeagents.embedded.http import MAX_EVENT_KB, StatusError
from edgeagents.embedded.link import Link
from edgeagents.embedded.storage import Row
from edgeagents.embedded.validation import read
from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError, StoreError
from edgeagents.model.envelope import EventMessage

log = logging.getLogger(__name__)

KEY: Final = "core-data"
_TOPIC: Final = "events/device/#"
_QUEUE_EVENTS: Final = 20_000
_BATCH_EVENTS: Final = 500
_YIELD_EVERY: Final = 16
_EXPIRE_EVERY_S: Final = 60.0

Waiting = tuple[Row, "asyncio.Future[None] | None"]


class Data:
    """What core-data knows and does."""

    def __init__(
        self, store: EventStore, link: Link, writable: Callable[[str], Any] = lambda path: None,
        max_event_kb: int = MAX_EVENT_KB,
    ) -> None:  # fmt: skip
        """Keep events in `store`, hear and tell of them over `link`.

        Args:
            store: where events are kept.
            link: the bus.
            writable: gives what stands below `Writable` now.
            max_event_kb: largest event that may be posted, in kilobytes; 0: any.
        """
        self.store = store
        self.max_event_kb = max_event_kb
        self.metrics = Metrics()
        self._events_persisted = self.metrics.counter("EventsPersisted")
        self._readings_persisted = self.metrics.counter("ReadingsPersisted")
        self._link = link
        self._writable = writable
        self._group: asyncio.TaskGroup | None = None
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue(_QUEUE_EVENTS)
        self._heard = 0
        self.rejected: Counter[str] = Counter()

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Keep events from now on, before the link connects; return the tasks to cancel at the end."""
        self._link.on(_TOPIC, self._on_event)
        self._group = group
        return [
            group.create_task(self._write(), name="event writer"),
            group.create_task(self._expire(), name="event expiry"),
        ]

    async def post(self, item: Item, service: str, levels: tuple[str, str, str], correlation: str) -> str:
        """Keep an event that came by HTTP and publish it on; return its id.

        Args:
            item: the request.
            service: the device service that the path names.
            levels: profile, device and source that the path names.
            correlation: the request's correlation id.

        Raises:
            InvalidInputError: the event is not of those, or a value is none of its type.
            StoreError: it could not be stored.
        """
        event = check_event(item.row)
        _check_levels(event, levels)
        if self._persists():
            kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            await self._queue.put((event, kept))
            await kept
        payload = {"apiVersion": "v3", "requestId": item.request_id, "event": {"apiVersion": "v3"} | item.row}
        await self._link.publish("/".join(("events/core", service, *levels)), payload, correlation)
        return str(event["id"])

    async def event(self, event_id: str) -> Row:
        """Return one event.

        Raises:
            NotFoundError: there is none of that id.
            StatusError: there are several: EdgeX stores an event as often as it comes, and then cannot tell.
        """
        found = await self.store.events(Selection(id=event_id), 0, 2)
        if not found:
            raise NotFoundError(f"no event with id '{event_id}' found")
        if len(found) > 1:
            raise StatusError(500, "failed to scan row to event model")
        return found[0]

    async def delete_event(self, event_id: str) -> None:
        """Remove one event; raises as `event`."""
        await self.event(event_id)
        await self.store.delete(Selection(id=event_id))

    def delete_later(self, which: Selection) -> None:
        """Remove events in the background; a failure is logged."""
        if self._group is None:
            raise RuntimeError("Data.start comes first")
        self._group.create_task(self._delete(which), name="event removal")

    async def _delete(self, which: Selection) -> None:
        try:
            log.debug("%d events removed", await self.store.delete(which))
        except StoreError as error:
            log.error("events are not removed: %s", error)

    async def flush(self) -> None:
        """Write what still waits; after the writer has ended."""
        waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        if waiting:
            await self._store(waiting)

    # --- the bus -----------------------------------------------------------------------------

    async def _on_event(self, topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        if not self._persists():
            return  # three other services share this process
        try:
            event = self._decoded(topic, data, headers)
        except (MalformedMessageError, InvalidInputError) as error:
            cause = error.cause_kind if isinstance(error, MalformedMessageError) else "out-of-contract"
            self.rejected[cause] += 1
            if self.rejected[cause] == 1:
                log.warning("event on %s is not kept: %s (further ones of this cause are only counted)", topic, error)
            return
        await self._queue.put((event, None))
        self._heard += 1
        if self._heard % _YIELD_EVERY == 0:
            await asyncio.sleep(0)  # nats-py delivers a whole burst in one go, and three other services wait

    def _decoded(self, topic: str, data: bytes, headers: Mapping[str, str]) -> Row:
        message = decode_message(topic, data, headers, self._link.base)
        if not isinstance(message, EventMessage):
            raise InvalidInputError("no event topic")
        payload = message.envelope.payload
        row, wrong = read(EVENT.shape, restored(payload.get("event", payload)), "Event")
        if wrong:
            raise InvalidInputError("; ".join(wrong))
        levels = [unquote(level) for level in topic.split("/")[-3:]]
        event = check_event(row)
        _check_levels(event, (levels[0], levels[1], levels[2]))
        return event

    def _persists(self) -> bool:
        return self._writable("PersistData") is not False

    # --- writing -----------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            waiting = [await self._queue.get()]
            while len(waiting) < _BATCH_EVENTS and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            await self._store(waiting)

    async def _store(self, waiting: list[Waiting]) -> None:
        try:
            await self.store.add([event for event, _ in waiting])
        except StoreError as error:
            log.error("%d events are lost: %s", len(waiting), error)
            for _, kept in waiting:
                if kept is not None and not kept.done():
                    kept.set_exception(error)
            return
        log.debug("%d events stored", len(waiting))
        self._events_persisted.add(len(waiting))
        self._readings_persisted.add(sum(len(event["readings"]) for event, _ in waiting))
        for _, kept in waiting:
            if kept is not None and not kept.done():
                kept.set_result(None)

    async def _expire(self) -> None:
        while True:
            try:
                await self.store.expire()
            except StoreError as error:
                log.warning("old events are not removed: %s", error)
            await asyncio.sleep(_EXPIRE_EVERY_S)


def _check_levels(event: Row, levels: tuple[str, str, str]) -> None:
    for key, level in zip(("profileName", "deviceName", "sourceName"), levels, strict=True):
        if event[key] != level:
            raise InvalidInputError(f"event's {key} {event[key]} mismatches {level}")
