"""Whether a coordinator of the gateway is there, as far as an agent can say.

A coordinator that serves says so twice a second; a standby that waits says nothing. Silence counts only while we could
have heard it: not before we began to listen, not while the link to the broker was down, nor while this process itself
was held up. So what cannot be said is said to be so, and nobody leads on a guess.

Source: docs/decisions/0023 (how a standby listens), 0026.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage

Presence: TypeAlias = Literal["there", "away", "unknown"]
SILENT_S: Final = 3.0  # six of its beats, and twice what a standby waits before it takes over
LOOK_S: Final = 0.25
HELD_UP_S: Final = 0.5  # looked so much later than we wanted to, we cannot say that nobody spoke


class CoordinatorWatch:
    """Hears coordinators for as long as the agent runs."""

    def __init__(self, bus: Bus, now: Callable[[], float] = time.monotonic) -> None:
        """Use a connection; `now` returns monotonic seconds. `on_new` is called when another run of one is heard."""
        self._bus = bus
        self._now = now
        self._since_s = self._looked_s = now()
        self._is_listening = False
        self._heard_s: float | None = None
        self._run = b""
        self.on_new: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Listen for ever."""
        await self._bus.subscribe(subjects.coordinator(self._bus.settings.gateway), self.heard)
        self._is_listening, self._since_s, self._looked_s = True, self._now(), self._now()
        while True:
            await asyncio.sleep(LOOK_S)
            self._look(self._now())

    async def heard(self, message: BusMessage) -> None:
        """Take in what a coordinator says: its run's name."""
        self._heard_s = self._now()
        if message.data != self._run:
            self._run = message.data
            self.on_new()

    @property
    def presence(self) -> Presence:
        """Whether one is there: `unknown` while nobody was heard, and we have not listened for `SILENT_S` either."""
        now_s = self._now()
        self._look(now_s)
        if self._heard_s is not None and now_s - self._heard_s < SILENT_S:
            return "there"
        return "away" if now_s - self._since_s >= SILENT_S else "unknown"

    @property
    def problem(self) -> str:
        """Why no agent may lead now; empty when one may."""
        match self.presence:
            case "there":
                return "app-coordinator is there: give it to it"
            case "unknown":
                return f"nobody has listened for a coordinator for {SILENT_S:g} s yet: ask again then"
            case _:
                return ""

    def _look(self, now_s: float) -> None:
        """Begin to listen anew where we could not have heard anybody since the last look."""
        if not self._is_listening or not self._bus.is_connected or now_s - self._looked_s > LOOK_S + HELD_UP_S:
            self._since_s = now_s
        self._looked_s = now_s
