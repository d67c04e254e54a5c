"""Hears each agent by itself, and no more of it than a little: requests for sessions and leases, one after the other.

A flood on one subject would keep the guard busy with nothing else, and push others' heartbeats out of the client's
queue. So each agent has a subscription of its own which the broker itself ends after some messages, and which is
renewed twice a second at most: what an agent sends beyond that is sent to nobody. Agents that no file declares share
one more. What is too long to be such a request is dropped before it is kept or decoded.

Source: design.md section 3.4; NATS protocol, UNSUB with a number of messages.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import EdgeAgentsError, InvalidInputError

log = logging.getLogger(__name__)

MOST_WAITING: Final = 64  # messages of one agent
MOST_PENDING_BYTES: Final = 1 << 20  # that have come and are not looked at yet
RENEW_S: Final = 0.5
MOST_LOOKS: Final = 10  # then it is renewed anyhow: what was too much for the client was not counted
MOST_BYTES: Final = 4096  # of a request: names of a device and a resource, and an incarnation
STRANGERS: Final = ""  # who no agent file declares: they share a queue
Kind: TypeAlias = Literal["sessions", "leases"]
# Of one agent, and of all strangers together, in `RENEW_S`. Usual are one sign of life, and at most a burst of leases.
MOST_HEARD: Final[Mapping[Kind, int]] = {"sessions": 32, "leases": 128}
Handle: TypeAlias = Callable[[str, BusMessage], Awaitable[None]]
_SUBJECT: Final[Mapping[Kind, Callable[[str, str], str]]] = {"sessions": subjects.session, "leases": subjects.lease}
_ALL: Final[Mapping[Kind, Callable[[str], str]]] = {"sessions": subjects.sessions, "leases": subjects.leases}


class _Subscribed(Protocol):
    async def unsubscribe(self) -> None: ...


@dataclass(slots=True)
class _Ear:
    """One agent's, or all strangers', messages of one kind."""

    queue: asyncio.Queue[tuple[str, BusMessage]] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    subscription: _Subscribed | None = None
    heard: int = 0  # since it was renewed
    looks: int = 0  # since then
    worker: "asyncio.Task[None] | None" = None

    def is_worn(self, most: int) -> bool:
        """Say whether a subscription of at most `most` messages should be renewed."""
        return self.subscription is None or self.looks >= MOST_LOOKS or self.heard >= most // 2


class Reception:
    """Brings agents' requests to their handlers: in order for each agent, and none in the way of another's."""

    def __init__(
        self, bus: Bus, names: Callable[[], Collection[str]], handlers: Mapping[Kind, Handle], counts: Counter[str]
    ) -> None:
        """Prepare; `serve` does the rest.

        Args:
            bus: where they ask.
            names: says who may ask, now.
            handlers: for each kind of request.
            counts: learns of those `dropped` and `rejected`.
        """
        self._bus = bus
        self._names = names
        self._handlers = handlers
        self._counts = counts
        self._ears: dict[tuple[Kind, str], _Ear] = {}
        self._told: set[str] = set()
        self._is_back = False  # the link was away, and brought subscriptions without an end

    async def serve(self, tasks: asyncio.TaskGroup) -> None:
        """Hear agents for ever; handlers run in `tasks`."""
        self._bus.on_reconnect(self._on_reconnect)
        while True:
            await self._look(tasks)
            await asyncio.sleep(RENEW_S)

    def _on_reconnect(self) -> None:
        self._is_back = True

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to hear who is new, no longer hear who is gone, and let all be heard again."""
        names, is_back = {STRANGERS, *self._names()}, self._is_back
        self._is_back = False
        for kind, handle in self._handlers.items():
            for name in names:
                if (kind, name) not in self._ears:
                    ear = self._ears[kind, name] = _Ear()
                    ear.worker = tasks.create_task(self._attend(ear, handle), name=f"{kind} {name}")
        for place, ear in list(self._ears.items()):
            if place[1] not in names:
                await self._end(place, ear)
            elif is_back or ear.is_worn(MOST_HEARD[place[0]]):
                await self._renew(place, ear)
            ear.looks += 1

    async def _renew(self, place: tuple[Kind, str], ear: _Ear) -> None:
        kind, name = place
        if ear.heard >= MOST_HEARD[kind] and name not in self._told:
            self._told.add(name)
            log.warning(
                "%s sends far more %s than it should: most are not heard (told once)", name or "a stranger", kind
            )
        gateway, former = self._bus.settings.gateway, ear.subscription
        subject = _SUBJECT[kind](gateway, name) if name else _ALL[kind](gateway)

        async def take(message: BusMessage) -> None:
            self._take(kind, name, ear, message)

        try:
            ear.heard, ear.looks, ear.subscription = (
                0,
                0,
                await self._bus.subscribe(subject, take, most=MOST_HEARD[kind], pending_bytes=MOST_PENDING_BYTES),
            )
            if former is not None:
                await former.unsubscribe()
        except EdgeAgentsError as error:
            log.warning("%s of %s are heard later: %s", kind, name or "strangers", error)

    async def _end(self, place: tuple[Kind, str], ear: _Ear) -> None:
        del self._ears[place]
        if ear.worker is not None:
            ear.worker.cancel()
        if ear.subscription is not None:
            await ear.subscription.unsubscribe()

    def _take(self, kind: Kind, heard_as: str, ear: _Ear, message: BusMessage) -> None:
        """Keep a message for its handler, if it may be a request and there is room."""
        ear.heard += 1
        try:
            agent = subjects.sender(message.subject)
        except InvalidInputError as error:
            log.warning("set aside: %s", error)
            return
        if heard_as == STRANGERS and (kind, agent) in self._ears:
            return  # it is heard by itself
        if len(message.data) > MOST_BYTES:
            self._counts["rejected"] += 1
        elif ear.queue.full():
            self._counts["dropped"] += 1
        else:
            ear.queue.put_nowait((agent, message))

    async def _attend(self, ear: _Ear, handle: Handle) -> None:
        while True:
            await handle(*await ear.queue.get())
