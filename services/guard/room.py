"""Room for everybody in the streams that agents and the guard share, `commands` and `audit`.

An agent may publish under any number of subjects there, so no limit of the broker's is one of an agent. Twice a
second the guard looks at what was published and at what lies there; the decisions are `protocol/ration.py`. Of whom
is cut the stream captures nothing for a while: its publishers wait for an acknowledgement in vain (others hear its
subjects, so that the broker does not say that nobody does), and its commands that wait are taken out, as the guard
reads commands in order.

Source: docs/decisions/0012.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage, Subscription
from edgeagents.adapters.stream_room import Lying, sampled, trim
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.protocol.ration import Book, Cut, Ration, Sample, charge, over_share

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
MOST_SEEN: Final = 256  # messages between two looks that the broker lets us see; it ends our subscription then
MOST_PENDING_BYTES: Final = 32 << 20
SAMPLES_OF_ALL: Final = 256  # of what lies there
# While nobody is over its share, what lies there is not looked at until so much more has come, or after so long.
GROWN_SHARE: Final = 0.01  # of what the stream may hold
AGAIN_S: Final = 60.0
# The guard takes some hundred commands a second in; audit records wait for nobody.
COMMANDS: Final = Ration(per_s=100.0, burst=1_000.0)
AUDITS: Final = Ration(per_s=200.0, burst=2_000.0)
OTHERS: Final = (subjects.GUARD, "coordinator", "resource", "inference", "console")  # who is no agent and may write


@dataclass(slots=True)
class _Shared:
    """A stream that is looked after, and how far it was seen."""

    name: str
    book: Book
    seen: list[Sample] = field(default_factory=list)  # since the last look
    subscription: Subscription | None = None
    former: Subscription | None = None  # ended by the broker; what was on its way then still comes
    number: int = 0  # of the subscription
    left: int = 0  # messages that the subscription still gets
    last_sequence: int | None = None  # of the stream at the last look
    cut: frozenset[str] = field(default_factory=frozenset)
    captured: list[str] = field(default_factory=list)  # empty: as it was made
    came_bytes: float = math.inf  # by estimate, since nobody was found over its share
    fair_s: float = 0.0  # when that was


class Room:
    """Looks after the shared streams."""

    def __init__(
        self, bus: Bus, names: Callable[[], Collection[str]], audit: Audit, now: Callable[[], float],
        limits: dict[str, dict[str, Any]],
    ) -> None:  # fmt: skip
        """Prepare; `run` does the rest. `names` says which agents there are, `limits` are those of the streams."""
        self._bus = bus
        self._names = names
        self._audit = audit
        self._now = now
        self._limits = limits
        rations = {subjects.COMMANDS_STREAM: COMMANDS, subjects.AUDIT_STREAM: AUDITS}
        self._streams = [_Shared(name, Book(ration)) for name, ration in rations.items()]

    @property
    def cut(self) -> dict[str, list[str]]:
        """Whom each stream takes nothing of now."""
        return {shared.name: sorted(shared.cut) for shared in self._streams if shared.cut}

    async def run(self) -> None:
        """Look for ever; a broker that is away is asked again."""
        is_told = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for shared in self._streams:
                    await self._look(shared)
                is_told = False
            except EdgeAgentsError as error:
                if not is_told:
                    log.warning("nobody sees now who fills the streams: %s", error)
                    is_told = True

    async def _look(self, shared: _Shared) -> None:
        held = await self._bus.held(shared.name)
        seen, shared.seen = shared.seen, []
        before, shared.last_sequence = shared.last_sequence, held.last_sequence
        stored, grown = len(seen), held.last_sequence - before if before is not None else 0
        if shared.left <= 0 and shared.subscription is not None:
            # More came than the broker let us see. How many more, the stream knows, except of what it did not take.
            stored = max(stored, grown)
        shared.came_bytes += sum(sample.size_bytes for sample in seen) * stored / len(seen) if seen else 0.0
        shared.book, effects = charge(shared.book, seen, stored, self._now())
        for effect in effects:
            if effect.writer != subjects.GUARD:
                self._tell(shared, effect)
        await self._apply(shared)
        if shared.name == subjects.COMMANDS_STREAM:
            # Again and again: what the broker had taken before, and waited to be stored, comes after the cut.
            for writer in sorted(shared.cut):
                await trim(self._bus, shared.name, subjects.own_commands(self._bus.settings.gateway, writer))
        await self._renew(shared)
        is_due = shared.came_bytes >= GROWN_SHARE * held.max_bytes or self._now() - shared.fair_s >= AGAIN_S
        if is_due and held.max_bytes > 0 and held.size_bytes > held.max_bytes // 2:
            # A full stream grows no more: what has come is counted, not what lies there.
            # Of places where nothing lies any more there may be many between its ends.
            first, last = max(1, held.first_sequence), held.last_sequence
            lying = await sampled(self._bus, shared.name, first, last, SAMPLES_OF_ALL)
            share_bytes = held.max_bytes / 2 / (len(self._names()) + 1)
            if not await self._trim(shared, _samples(lying), held.size_bytes, share_bytes):
                shared.came_bytes, shared.fair_s = 0.0, self._now()

    async def _renew(self, shared: _Shared) -> None:
        """Be told of what is published, whether the stream has stored it yet or not."""
        if shared.former is not None:
            await shared.former.unsubscribe()
        number = shared.number + 1

        async def see(message: BusMessage) -> None:
            shared.left -= number == shared.number
            shared.seen += _samples([Lying(0, message.subject, len(message.data))])

        gateway = self._bus.settings.gateway
        pattern = subjects.commands(gateway) if shared.name == subjects.COMMANDS_STREAM else subjects.audits(gateway)
        shared.former, shared.subscription = shared.subscription, None
        shared.number, shared.left = number, MOST_SEEN
        shared.subscription = await self._bus.subscribe(pattern, see, most=MOST_SEEN, pending_bytes=MOST_PENDING_BYTES)
        if shared.former is not None:
            await self._bus.retire(shared.former)

    def _tell(self, shared: _Shared, effect: Any) -> None:
        what = "flood" if isinstance(effect, Cut) else "flood-over"
        about = {"for_s": effect.for_s} if isinstance(effect, Cut) else {}
        self._audit.append(what, agent=effect.writer, stream=shared.name, **about)
        if isinstance(effect, Cut):
            log.error("agent %s floods stream %s: nothing of it is taken for %.0f s", effect.writer, shared.name,
                      effect.for_s)  # fmt: skip

    async def _apply(self, shared: _Shared) -> None:
        """Have the broker take messages of all but those that are cut."""
        wanted = shared.book.cut - {subjects.GUARD}
        gateway = self._bus.settings.gateway
        captured: list[str] = []
        if wanted:  # who is new among the agents' files meanwhile is let in as well
            captured = subjects.of_writers(gateway, shared.name, {*OTHERS, *self._names()} - wanted)
        if captured != shared.captured:
            everything = subjects.stream_subjects(gateway)[shared.name]
            await self._bus.ensure_stream(shared.name, captured or everything, **self._limits[shared.name])
        shared.cut, shared.captured = wanted, captured

    async def _trim(self, shared: _Shared, samples: list[Sample], size_bytes: int, share_bytes: float) -> bool:
        """Take out what agents hold beyond their share; return whether there was any."""
        is_any = False
        found = (item for item in over_share(samples, size_bytes, share_bytes) if item.writer != subjects.GUARD)
        for item in found:
            gone = 0
            for pattern in subjects.filters_of_writer(self._bus.settings.gateway, shared.name, item.writer):
                gone += await trim(self._bus, shared.name, pattern, item.keep)
            if not gone:  # the samples looked like more than there is
                continue
            is_any = True
            log.warning("stream %s is half full, and agent %s holds more than its share of it: its %d oldest are gone",
                        shared.name, item.writer, gone)  # fmt: skip
            self._audit.append("trimmed", agent=item.writer, stream=shared.name, messages=gone)
        return is_any


def _samples(found: list[Lying]) -> list[Sample]:
    samples = []
    for lying in found:
        try:
            samples.append(Sample(subjects.writer(lying.subject), lying.size_bytes))
        except InvalidInputError:  # nobody's that we know
            continue
    return samples
