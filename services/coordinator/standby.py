"""One of several coordinators of a gateway leads: the others wait while it is heard, and of two that lead one ends.

A coordinator says twice a second that it serves. Silence counts only while we could have heard it: not while the link
to the broker is down, nor while this process itself was held up. Two may lead for a moment all the same: one that was
paused wakes, or two begin at once. The stream `tasks` has one writer, so neither can undo what the other wrote
(`journal.py`); and whoever leads goes on listening: on hearing another one it ends if it is behind the stream, and of
two that are both at its end the one whose run has the smaller name stays. A leader that has just woken speaks a moment
before it learns that it is behind: only who is heard for `RIVAL_S` counts as one that is at the end, too.

Source: design.md section 5 ("a standby coordinator"); docs/decisions/0023.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import StoreError, UnavailableError

log = logging.getLogger(__name__)

SILENT_S: Final = 1.5  # three of its beats
LOOK_S: Final = 0.1
RIVAL_S: Final = 2.0  # so long another one is heard before we believe that it is not behind
HELD_UP_S: Final = 0.5  # looked so much later than we wanted to, we cannot say that nobody spoke


class Standby:
    """Hears whether a coordinator is there."""

    def __init__(self, bus: Bus, now: Callable[[], float] = time.monotonic) -> None:
        """Use a connection; `now` returns monotonic seconds."""
        self._bus = bus
        self._now = now
        self._heard_s = now()
        self.beats = 0

    async def until_needed(self) -> None:
        """Return once nobody was heard for `SILENT_S`."""
        gateway = self._bus.settings.gateway
        subscription = await self._bus.subscribe(subjects.coordinator(gateway), self._on_beat)
        self._heard_s = looked_s = self._now()
        told = False
        while self._now() - self._heard_s < SILENT_S:
            await asyncio.sleep(LOOK_S)
            now_s = self._now()
            if not self._bus.is_connected or now_s - looked_s > LOOK_S + HELD_UP_S:
                self._heard_s = now_s
            looked_s = now_s
            if self.beats and not told:
                told = True
                log.info("another coordinator leads the tasks of %s: waiting in case it goes", gateway)
        await subscription.unsubscribe()
        if told:
            log.warning("no coordinator of %s was heard for %.1f s: taking over", gateway, SILENT_S)

    async def _on_beat(self, message: BusMessage) -> None:
        self.beats += 1
        self._heard_s = self._now()


class Rivals:
    """Listens, while we lead, whether another one does, and ends one of the two."""

    def __init__(
        self, bus: Bus, incarnation: str, is_behind: Callable[[], Awaitable[bool | None]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Prepare; `run` listens.

        Args:
            bus: where coordinators say that they are there.
            incarnation: of our own run, which we hear, too.
            is_behind: whether the stream has what we have not written; None: that cannot be said now.
            now: monotonic seconds.
        """
        self._bus = bus
        self._incarnation = incarnation
        self._is_behind = is_behind
        self._now = now
        self._rival = ""
        self._since_s = self._last_s = 0.0
        self._has_heard = asyncio.Event()

    async def run(self) -> None:
        """Listen for ever.

        Raises:
            StoreError: another one leads, and it is for us to end.
        """
        await self._bus.subscribe(subjects.coordinator(self._bus.settings.gateway), self._on_beat)
        while True:
            await self._has_heard.wait()
            self._has_heard.clear()
            await self._judge()

    async def _on_beat(self, message: BusMessage) -> None:
        name, now_s = message.data[:64].decode("ascii", "replace"), self._now()
        if name == self._incarnation:
            return
        if name != self._rival or now_s - self._last_s > SILENT_S:
            self._rival, self._since_s = name, now_s
        self._last_s = now_s
        self._has_heard.set()

    async def _judge(self) -> None:
        try:
            is_behind = await self._is_behind()
        except UnavailableError:
            return  # it is heard again, or is none any more
        if is_behind:
            raise StoreError("somebody else wrote tasks while we led: there is a second coordinator, which is ahead")
        is_lasting = self._last_s - self._since_s >= RIVAL_S
        if is_behind is None or not is_lasting or self._rival > self._incarnation:
            return
        raise StoreError(f"a second coordinator ({self._rival}) leads, too: it stays, we end")
