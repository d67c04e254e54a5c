"""How long ago was a message stored? By the broker's own clock and our monotonic one: our wall clock may be set.

Source: design.md section 3.5; JetStream wire API (ADR-8): answers carry the server's time.
"""

import logging
from collections.abc import Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.errors import NotFoundError, UnavailableError

log = logging.getLogger(__name__)

FRESH_S: Final = 1.0  # how long an answer of the broker is relied on
AHEAD_S: Final = 1.0  # a message from further ahead was stored before the broker's clock was set back


class BrokerClock:
    """Tells the age of stored messages."""

    def __init__(self, bus: Bus, now: Callable[[], float]) -> None:
        """Ask this broker; `now` is monotonic, in seconds."""
        self._bus = bus
        self._now = now
        self._broker_ns = 0
        self._asked_s: float | None = None

    async def age_s(self, stored_ns: int, longest_s: float) -> float | None:
        """Return the age of a message in seconds, None when nobody knows it.

        Args:
            stored_ns: when it was stored, by the broker's clock.
            longest_s: an age beyond this makes a difference: the broker is asked again before it is believed.
        """
        if self._asked_s is None or self._now() - self._asked_s > FRESH_S:
            await self._ask()
        age_s = self._age_s(stored_ns)
        if age_s is not None and not 0.0 <= age_s <= longest_s:
            await self._ask()  # the broker's clock may have been set since
            age_s = self._age_s(stored_ns)
        return None if age_s is None or age_s < -AHEAD_S else max(0.0, age_s)

    def _age_s(self, stored_ns: int) -> float | None:
        if self._asked_s is None:
            return None
        return (self._broker_ns - stored_ns) / 1e9 + self._now() - self._asked_s

    async def _ask(self) -> None:
        # The moment of asking, not of the answer: an age may come out too high by the time on the way, never too low.
        asked_s = self._now()
        try:
            self._broker_ns = await self._bus.server_time_ns(subjects.COMMANDS_STREAM)
            self._asked_s = asked_s
        except (NotFoundError, UnavailableError) as error:
            log.warning("the broker does not tell its time: %s", error)
