"""The leases that an agent holds, as far as it knows: asked for at the guard, given back so that others can have them.

Source: design.md section 3.4.
"""

import asyncio
import logging
from collections import Counter
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.errors import TheirError
from edgeagents.model.message import Epoch, LeaseReply, LeaseRequest
from edgeagents.protocol.gate import Key
from services.agent.session import REQUEST_S, GuardSession

log = logging.getLogger(__name__)

MOST_REQUESTS: Final = 32  # at once: the guard hears some 250 a second, and each is to be answered in time


class Leases:
    """One for each run of an agent; `epochs` are those of the leases that it holds, as far as it knows."""

    def __init__(self, bus: Bus, session: GuardSession, agent: str, incarnation: str) -> None:
        """Begin with none; those of a session that has lapsed are asked for again."""
        self._session = session
        session.on_generation, session.on_lapse = self.forget_all, self._doubt_all
        self._bus, self._agent, self._incarnation = bus, agent, incarnation
        self._subject = subjects.lease(bus.settings.gateway, agent)
        self._asking = asyncio.Semaphore(MOST_REQUESTS)
        self.epochs: dict[Key, Epoch] = {}
        self._doubted: set[Key] = set()  # of them, those that the guard may have ended: asked for before they are used
        self.given_back: Counter[Key] = Counter()  # how often a lease was given back

    async def take(self, key: Key) -> LeaseReply:
        """Return the lease of a resource, asked for if it is not ours; without an epoch where another holds it.

        Raises:
            UnavailableError: the guard does not answer.
            MalformedMessageError: it answers what is no answer.
        """
        known = self.epochs.get(key)
        if known is not None and not self.is_doubted(key):
            return LeaseReply(granted=True, epoch=known, holder=self._agent)
        request = LeaseRequest(incarnation=self._incarnation, device=key[0], resource=key[1])
        async with self._asking:
            answer = await self._bus.request(self._subject, wire.encode(request), wire.AS_PROTOBUF, timeout_s=REQUEST_S)
        reply = wire.decode(LeaseReply, answer.data)
        if reply.granted and reply.epoch is not None:
            self.epochs[key] = reply.epoch
            self._doubted.discard(key)
            return reply
        self.forget(key)
        return reply.model_copy(update={"epoch": None})

    async def hold(self, key: Key) -> bool:
        """Take the lease of a resource without a command; say whether it is ours."""
        try:
            return (await self.take(key)).epoch is not None
        except TheirError as error:
            log.debug("no lease of %s/%s: %s", *key, error)
            return False

    async def release(self, key: Key) -> None:
        """Give a lease back, so that somebody else can have it; of one that is not ours the guard says so."""
        self.forget(key)
        self.given_back[key] += 1
        request = LeaseRequest(incarnation=self._incarnation, device=key[0], resource=key[1], release=True)
        try:
            async with self._asking:
                await self._bus.request(self._subject, wire.encode(request), wire.AS_PROTOBUF, timeout_s=REQUEST_S)
        except TheirError as error:
            log.warning("the lease of %s/%s is not given back: %s", *key, error)

    def is_doubted(self, key: Key) -> bool:
        """Say whether a lease may have been ended since it was granted: after a silence of ours."""
        return self._session.has_lapsed or key in self._doubted

    def forget(self, key: Key) -> None:
        """Hold a lease no more, as far as we know: it is asked for again when it is needed."""
        self.epochs.pop(key, None)
        self._doubted.discard(key)

    def forget_all(self) -> None:
        """Hold none: the guard began anew."""
        self.epochs.clear()
        self._doubted.clear()

    def _doubt_all(self) -> None:
        """Hold what we hold, but be sure of none."""
        self._doubted = set(self.epochs)
