"""Hears each agent by itself, and no more of it than a little: requests for sessions and leases, one after the other.

A flood on one subject would keep the guard busy with nothing else, and push others' heartbeats out of the client's
queue. So each agent has a subscription of its own which the broker itself ends after some messages, and which is
renewed twice a second at most: what an agent sends beyond that is sent to nobody. Agents that no file declares share
one more. What is too long to be such a request is dropped before it is kept or decoded.

Renewing loses nothing and brings nothing twice: the former subscription goes on until the next look, since the broker
may have chosen whom it sends a message before it knew of the new one; it is heard until all that was on its way has
come, which the broker's answer to a flush says and no time does; and what both of them bring counts once.

Source: design.md section 3.4; NATS protocol, UNSUB with a number of messages.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage, Subscription
from edgeagents.errors import EdgeAgentsError, InvalidInputError

log = logging.getLogger(__name__)

MOST_WAITING: Final = 256  # messages of one agent: as many as a subscription and its former one may bring
MOST_PENDING_BYTES: Final = 1 << 20  # that have come and are not looked at yet
RENEW_S: Final = 0.5
MOST_LOOKS: Final = 10  # then it is renewed anyhow: what was too much for the client was not counted
MOST_BYTES: Final = 4096  # of a request: names of a device and a resource, and an incarnation
STRANGERS: Final = ""  # who no agent file declares: they share a queue
Kind: TypeAlias = Literal["sessions", "leases", "consents"]
# Of one agent, and of all strangers together, in `RENEW_S`. Usual are one sign of life, and at most a burst of leases.
MOST_HEARD: Final[Mapping[Kind, int]] = {"sessions": 32, "leases": 128, "consents": 64}
Handle: TypeAlias = Callable[[str, BusMessage], Awaitable[None]]
_Heard: TypeAlias = tuple[str, str, bytes]  # whose, where it is answered, what it says
_SUBJECT: Final[Mapping[Kind, Callable[[str, str], str]]] = {
    "sessions": subjects.session, "leases": subjects.lease, "consents": subjects.consent,
}  # fmt: skip
_ALL: Final[Mapping[Kind, Callable[[str], str]]] = {
    "sessions": subjects.sessions, "leases": subjects.leases, "consents": subjects.consents,
}  # fmt: skip


@dataclass(slots=True)
class _Ear:
    """One agent's, or all strangers', messages of one kind."""

    queue: asyncio.Queue[tuple[str, BusMessage]] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    subscription: Subscription | None = None
    former: Subscription | None = None  # until the next look; what is on its way then still comes
    number: int = 0  # of the subscription
    heard: int = 0  # since it was renewed
    own: int = 0  # of these, what is heard here alone
    looks: int = 0  # since then
    known: set[_Heard] = field(default_factory=set)  # what was brought while there are two
    known_before: set[_Heard] = field(default_factory=set)  # and before the last look
    worker: "asyncio.Task[None] | None" = None

    def is_worn(self, most: int) -> bool:
        """Say whether a subscription of at most `most` messages should be renewed."""
        return self.subscription is None or self.looks >= MOST_LOOKS or self.heard >= most // 2

    def is_second(self, message: BusMessage) -> bool:
        """Say whether the other subscription has brought a message already; note it when it has not.

        They overlap for a moment, and neither waits for the other: a request that was made again behind a later one
        would take back what that one got. Whoever asks has a reply subject of its own for each request; what nobody
        waits for an answer to is a sign of life, and two of them are as good as one.
        """
        if not message.reply or (self.former is None and not self.known_before):
            return False
        what = (message.subject, message.reply, message.data)
        if what in self.known or what in self.known_before:
            return True
        if self.former is not None:
            self.known.add(what)
        return False

    def look(self) -> None:
        """Forget what was known before the last look: a second copy comes soon, perhaps behind the broker's answer."""
        self.known, self.known_before = set(), self.known


class Reception:
    """Brings agents' requests to their handlers: in order for each agent, and none in the way of another's."""

    def __init__(
        self, bus: Bus, names: Callable[[], Collection[str]], handlers: Mapping[Kind, Handle], counts: Counter[str],
        refuse: Mapping[Kind, Handle] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """Prepare; `serve` does the rest.

        Args:
            bus: where they ask.
            names: says who may ask, now.
            handlers: for each kind of request.
            counts: learns of those `dropped` and `rejected`.
            refuse: for kinds of request that are answered even when there is no room for them.
        """
        self._bus = bus
        self._names = names
        self._handlers = handlers
        self._counts = counts
        self._refuse = refuse
        self._ears: dict[tuple[Kind, str], _Ear] = {}
        self._told: set[str] = set()
        self._is_back = False  # the link was away, and brought subscriptions without an end
        self.hears = asyncio.Event()  # what is said from now on reaches us

    async def serve(self, tasks: asyncio.TaskGroup) -> None:
        """Hear agents for ever; handlers run in `tasks`."""
        self._bus.on_reconnect(self._on_reconnect)
        while True:
            await self._look(tasks)
            self.hears.set()
            await asyncio.sleep(RENEW_S)

    def _on_reconnect(self) -> None:
        self._is_back = True

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to hear who is new, no longer hear who is gone, and let all be heard again."""
        try:
            await self._forget_former()
        except EdgeAgentsError:
            return  # nothing can be asked of the broker now
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
                await self._renew(place, ear, is_back)
            ear.looks += 1
            ear.look()

    async def _renew(self, place: tuple[Kind, str], ear: _Ear, is_back: bool) -> None:
        kind, name = place
        if ear.own >= MOST_HEARD[kind] and name not in self._told:
            self._told.add(name)
            log.warning(
                "%s sends far more %s than it should: most are not heard (told once)", name or "a stranger", kind
            )
        gateway, number = self._bus.settings.gateway, ear.number + 1
        subject = _SUBJECT[kind](gateway, name) if name else _ALL[kind](gateway)

        async def take(message: BusMessage) -> None:
            await self._take(kind, name, ear, number, message)

        ear.former, ear.number, ear.heard, ear.own, ear.looks = ear.subscription, number, 0, 0, 0
        try:
            ear.subscription = await self._bus.subscribe(
                subject, take, most=MOST_HEARD[kind], pending_bytes=MOST_PENDING_BYTES
            )
            if ear.former is not None and is_back:  # it has no end now
                await self._bus.retire(ear.former)
        except EdgeAgentsError as error:
            log.warning("%s of %s are heard later: %s", kind, name or "strangers", error)
            ear.looks = MOST_LOOKS

    async def _forget_former(self) -> None:
        """End subscriptions that were renewed; let go of them once all that came is in its queue."""
        renewed = [ear for ear in self._ears.values() if ear.former is not None]
        if not renewed:
            return
        for ear in renewed:
            if ear.former is not None and ear.former is not ear.subscription:
                await self._bus.retire(ear.former)
        await self._bus.handed_out(
            *(found for ear in renewed for found in (ear.former, ear.subscription) if found is not None)
        )
        for ear in renewed:
            former, ear.former = ear.former, None
            if former is not None and former is not ear.subscription:
                await former.unsubscribe()

    async def _end(self, place: tuple[Kind, str], ear: _Ear) -> None:
        del self._ears[place]
        if ear.worker is not None:
            ear.worker.cancel()
        if ear.subscription is not None:
            await ear.subscription.unsubscribe()

    async def _take(self, kind: Kind, heard_as: str, ear: _Ear, number: int, message: BusMessage) -> None:
        """Keep a message for its handler, if it may be a request and there is room."""
        is_of_now = number == ear.number
        ear.heard += is_of_now
        try:
            agent = subjects.sender(message.subject)
        except InvalidInputError as error:
            log.warning("set aside: %s", error)
            return
        if heard_as == STRANGERS and (kind, agent) in self._ears:
            return  # it is heard by itself
        ear.own += is_of_now
        if len(message.data) > MOST_BYTES:
            self._counts["rejected"] += 1
        elif ear.is_second(message):
            return
        elif ear.queue.full():
            self._counts["dropped"] += 1
            if kind in self._refuse:
                await self._refuse[kind](agent, message)
        else:
            ear.queue.put_nowait((agent, message))

    async def _attend(self, ear: _Ear, handle: Handle) -> None:
        while True:
            await handle(*await ear.queue.get())
