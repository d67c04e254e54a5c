"""Acts between gateways: sent with the time of sending, heard only while they are true, refusals counted by cause.

    crossing = Crossing(bus, gateways)
    await crossing.tell("north", "coordinator", "air", act)           # as agent air of this gateway
    await crossing.hear("coordinator", on_crossed)                    # from all peers; gateway and sender are proven

Who sent it says the subject: the link to a peer carries nothing under another gateway's name (`leaf_nodes.py`), and the
peer's own server lets each of its agents write its own name alone (`permissions.py`). Nothing is stored, and nobody is
told that it arrived: who needs an answer asks again, as within a gateway.

Source: design.md section 4; proto/edgeagents/v1/cooperation.proto.
"""

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage, Subscription
from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError, TooLargeError
from edgeagents.model.cooperation import Act
from edgeagents.model.gateways import Gateways
from edgeagents.protocol.crossing import Fresh, judge, received, stamp

log = logging.getLogger(__name__)

SENT: Final = "Edgeagents-Sent"
PENDING: Final = 1_024  # messages of one peer that wait here; a burst beyond is lost, as what nobody stored may be
PENDING_BYTES: Final = 16 << 20
Spoken: TypeAlias = Literal["acts", "tasks"]


@dataclass(frozen=True, slots=True)
class Crossed:
    """An act of another gateway's; `act` has the time that is left of its deadline.

    Args:
        gateway: where it comes from, proven by the link.
        sender: who sent it there, proven by that gateway.
        to: to whom.
        act: what was said.
        age_s: how long it was under way.
    """

    gateway: str
    sender: str
    to: str
    act: Act
    age_s: float


CrossedHandler: TypeAlias = Callable[[Crossed], Awaitable[None]]


class Crossing:
    """This gateway's side of all its links."""

    def __init__(self, bus: Bus, gateways: Gateways, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """Speak and hear over `bus`; `wall_ns` is this machine's wall clock."""
        self._bus = bus
        self._gateways = gateways
        self._wall_ns = wall_ns
        self.heard: Counter[str] = Counter()  # acts that were handed on, by gateway
        self.refused: Counter[tuple[str, str]] = Counter()  # by gateway and cause

    async def tell(self, gateway: str, to: str, sender: str, act: Act, *, family: Spoken = "acts") -> None:
        """Send an act to somebody of a peer; at most once, and to nobody while the link is down.

        Raises:
            NotFoundError: no such peer, or the owner lets no such thing cross to it.
            TooLargeError: it would be refused over there.
            UnavailableError: no connection to our own broker.
        """
        peer = self._gateways.peers.get(gateway)
        if peer is None or family not in peer.cross:
            known = ", ".join(name for name, found in self._gateways.peers.items() if family in found.cross)
            raise NotFoundError(f"no {family} cross to gateway {gateway!r}: gateways.yaml lets them cross to {known}")
        data = wire.encode(act)
        if len(data) > wire.MAX_MESSAGE_BYTES:
            raise TooLargeError(f"an act of {len(data)} bytes to {gateway}: at most {wire.MAX_MESSAGE_BYTES}")
        subject = subjects.between(gateway, family, to, self._gateways.gateway, sender)
        await self._bus.publish(subject, data, {CONTENT_TYPE: wire.PROTOBUF, SENT: stamp(self._wall_ns())})

    async def hear(self, name: str, handler: CrossedHandler, *, family: Spoken = "acts") -> list[Subscription]:
        """Hand on what peers say to `name`, while it is true; return the subscriptions, one a peer.

        Raises:
            UnavailableError: the connection is closed.
        """

        async def on_message(message: BusMessage) -> None:
            found = self._crossed(message)
            if found is not None:
                self.heard[found.gateway] += 1
                await handler(found)

        own = self._gateways.gateway
        return [
            await self._bus.subscribe(
                subjects.between(own, family, name, gateway, None), on_message, pending=PENDING,
                pending_bytes=PENDING_BYTES,
            )
            for gateway, peer in self._gateways.peers.items()
            if family in peer.cross
        ]  # fmt: skip

    def _crossed(self, message: BusMessage) -> Crossed | None:
        """Return what a message says; None when it was refused, and counted."""
        gateway = message.subject.split(".")[3]
        try:
            _, _, to, gateway, sender = subjects.parse_between(message.subject)
            fresh = judge(message.headers.get(SENT, ""), self._wall_ns(), self._gateways.oldest)
            if isinstance(fresh, Fresh):
                act = wire.decode(Act, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
                left = received(act, fresh.age_s)
                if isinstance(left, Act):
                    return Crossed(gateway, sender, to, left, fresh.age_s)
                fresh = left
            self._refuse(gateway, fresh.cause, fresh.text)
        except MalformedMessageError as error:
            self._refuse(gateway, error.cause_kind, str(error))
        except InvalidInputError as error:
            self._refuse(gateway, "no-name", str(error))
        return None

    def _refuse(self, gateway: str, cause: str, text: str) -> None:
        self.refused[gateway, cause] += 1
        if self.refused[gateway, cause] == 1:  # told once: a healed link may bring thousands
            log.warning("gateway %s: refused as %s: %s; further ones are only counted", gateway, cause, text)
