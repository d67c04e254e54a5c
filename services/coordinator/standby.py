"""Waits while another coordinator of this gateway is there, so that one of several leads and the next takes over.

A coordinator says twice a second that it serves. Silence counts only while we could have heard it: not while the link
to the broker is down, nor while this process itself was held up. Who takes over too early does no harm: the stream
`tasks` has one writer, and whoever is behind cannot write, and ends (`journal.py`).

Source: design.md section 5 ("a standby coordinator"); docs/decisions/0023.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage

log = logging.getLogger(__name__)

SILENT_S: Final = 1.5  # three of its beats
LOOK_S: Final = 0.1
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
