"""What could not be decoded, set aside with its cause; never in the way of what can be.

Source: design.md section 4, stream `dead-letters`.
"""

import asyncio
import logging
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.errors import EdgeAgentsError

log = logging.getLogger(__name__)

MAX_BYTES: Final = 65_536
_WAITING: Final = 256


class DeadLetters:
    """A bounded queue in front of the dead-letter stream; call it with what could not be decoded."""

    def __init__(self, bus: Bus, service: str) -> None:
        """Store below the dead-letter subject of `service`."""
        self._bus = bus
        self._subject = subjects.dead_letter(bus.settings.gateway, service)
        self._queue: asyncio.Queue[tuple[bytes, dict[str, str]]] = asyncio.Queue(_WAITING)
        self._told = False
        self.lost = 0

    async def __call__(self, topic: str, data: bytes, cause: str, error: str) -> None:
        """Queue one; when too many wait it is only counted."""
        headers = {"topic": _header(topic), "cause": _header(cause), "error": _header(error)}
        if len(data) > MAX_BYTES:
            headers["size"] = str(len(data))
        try:
            self._queue.put_nowait((data[:MAX_BYTES], headers))
        except asyncio.QueueFull:
            self.lost += 1

    async def run(self) -> None:
        """Store what is queued, for ever; without the stream they are counted as lost, which is logged once."""
        while True:
            data, headers = await self._queue.get()
            try:
                await self._bus.store(self._subject, data, headers, timeout_s=2.0)
                self._told = False
            except EdgeAgentsError as error:
                self.lost += 1
                if not self._told:
                    log.warning("dead letters cannot be stored: %s: they are only counted", error)
                    self._told = True


def _header(text: str) -> str:
    """Return a text that a NATS header can carry."""
    return " ".join(text.split())[:500].encode("ascii", "replace").decode()
