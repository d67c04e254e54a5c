"""Who holds a resource, and who may command nothing there, as the guard says: no party's word on that counts.

The request is the one by which agents ask for leases, under the coordinator's own name, to which the guard grants
nothing. A guard that does not know of this refuses it with a reason: then the holder is not known.

Source: design.md section 3.4; docs/decisions/0021.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.errors import TheirError, UnavailableError
from edgeagents.model.message import LeaseReply, LeaseRequest

ANSWER_S: Final = 0.3
MOST_BYTES: Final = 4096  # of a question: the guard drops longer ones unread


@dataclass(frozen=True, slots=True)
class Held:
    """How a resource stands at the guard.

    Args:
        agent: who holds its lease; empty: nobody.
        quiet_s: for how long that one has not used it, site seconds.
        barred: who negotiates about it and may command nothing there now, by the owner's order, and why.
        locked: the values that the owner's interlocks forbid now, and why.
        judged: the values that the interlocks were asked about; a guard of a former version judges none.
    """

    agent: str = ""
    quiet_s: float = 0.0
    barred: Mapping[str, str] = field(default_factory=dict)
    locked: Mapping[str, str] = field(default_factory=dict)
    judged: frozenset[str] = frozenset()


AskGuard: TypeAlias = Callable[[str, str, Sequence[str]], Awaitable[Held]]
"""Says how a device's resource stands, and which of these options are locked, or raises."""


class Holders:
    """Asks the guard who holds what."""

    def __init__(self, bus: Bus, incarnation: str) -> None:
        """Prepare: `incarnation` names this run of the coordinator."""
        self._bus = bus
        self._incarnation = incarnation

    async def of(self, device: str, resource: str, options: Sequence[str] = ()) -> Held:
        """Return who holds a device resource now, who may command nothing there, and which options are locked.

        Raises:
            UnavailableError: the guard did not say in `ANSWER_S`, or said something that is no answer.
        """
        asked = _fitting(LeaseRequest(
            incarnation=self._incarnation, device=device, resource=resource, options=tuple(options)
        ))  # fmt: skip
        subject = subjects.lease(self._bus.settings.gateway, subjects.COORDINATOR)
        about = f"who holds {device[:64]}/{resource[:64]} is not known"
        try:
            answer = await self._bus.request(subject, wire.encode(asked), wire.AS_PROTOBUF, timeout_s=ANSWER_S)
            told = wire.decode(LeaseReply, answer.data)
        except TheirError as error:
            raise UnavailableError(f"{about}: {error}") from error
        if told.reason:
            raise UnavailableError(f"{about}: the guard says {told.reason!r:.200}: is it of this version?")
        return Held(
            told.holder, told.quiet_s, {item.agent: item.reason for item in told.barred},
            {item.option: item.reason for item in told.locked}, frozenset(asked.options if told.judged else ()),
        )  # fmt: skip


def _fitting(asked: LeaseRequest) -> LeaseRequest:
    """Return a question with as many of its options, the first ones, as it may have bytes; the rest is not judged."""
    while asked.options and len(wire.encode(asked)) > MOST_BYTES:
        asked = asked.model_copy(update={"options": asked.options[:-1]})
    return asked
