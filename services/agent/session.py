"""An agent's session with the guard: heartbeats, and what the guard lets it do, by the guard's own word.

Source: design.md sections 3.2 and 3.4.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import MalformedMessageError, UnavailableError
from edgeagents.model.message import Heartbeat, Mode, SessionWelcome
from edgeagents.permissions import called
from edgeagents.protocol import lease

log = logging.getLogger(__name__)

REQUEST_S: Final = 2.0
MOST_SILENT_S: Final = lease.SESSION_S / 2  # after that the guard may have ended our leases by the time it hears us
WELCOME_AGAIN_S: Final = 5.0


class GuardSession:
    """One for each run of an agent; `welcome` is what the guard said last, None without a session."""

    def __init__(self, bus: Bus, agent: str, incarnation: str) -> None:
        """Prepare; `keep` begins it."""
        self._bus, self._agent = bus, agent
        self._subject = subjects.session(bus.settings.gateway, agent)
        self._beat = wire.encode(Heartbeat(incarnation=incarnation))
        self._asking = asyncio.Lock()
        self._told = ""
        self._said_s: float | None = None  # when the guard was given a sign of life last, as far as we know
        self.welcome: SessionWelcome | None = None
        self.welcomed = asyncio.Event()
        self.link_s = 0.0  # how long the guard took to answer last
        self.on_generation: Callable[[], None] = lambda: None  # no lease of ours is what it was
        self.on_lapse: Callable[[], None] = lambda: None  # no lease of ours is surely what it was
        self.on_orders: Callable[[], None] = lambda: None  # the owner's orders are not what they were

    async def keep(self) -> None:
        """Send heartbeats for ever; ask for the welcome again when called, and now and then anyway.

        Raises:
            UnavailableError: the connection is closed for good.
        """
        await self._bus.subscribe(called(self._agent), self._on_call)
        ask_at_s = 0.0
        while True:
            try:
                if time.monotonic() >= ask_at_s:
                    await self._ask()
                    ask_at_s = time.monotonic() + (WELCOME_AGAIN_S if self.welcome else lease.HEARTBEAT_S)
                else:
                    said_s, is_up = time.monotonic(), self._bus.is_connected  # else it is kept until the link is up
                    await self._bus.publish(self._subject, self._beat, wire.AS_PROTOBUF)
                    if is_up and self._bus.is_connected:
                        self._spoke(said_s)
            except (UnavailableError, MalformedMessageError) as error:
                if not self._told:
                    log.warning("agent %s has no session: %s", self._agent, error)
                    self._told = str(error)
            await asyncio.sleep(lease.HEARTBEAT_S)

    async def _on_call(self, message: BusMessage) -> None:
        """Ask what the guard says now; nothing in the call itself counts."""
        with contextlib.suppress(UnavailableError, MalformedMessageError):  # then it is asked for in its time
            await self._ask()

    async def _ask(self) -> None:
        async with self._asking:  # a later answer is never overtaken by an earlier one
            asked_s = time.monotonic()
            answer = await self._bus.request(self._subject, self._beat, wire.AS_PROTOBUF, timeout_s=REQUEST_S)
            self.link_s = time.monotonic() - asked_s
            self._spoke(asked_s)
            self._told = self.take(wire.decode(SessionWelcome, answer.data), self._told)

    @property
    def has_lapsed(self) -> bool:
        """Whether we were silent for so long that the guard may have ended the session, and our leases with it."""
        return self._said_s is not None and time.monotonic() - self._said_s > MOST_SILENT_S

    def _spoke(self, said_s: float) -> None:
        """Take in that the guard hears us; after a silence our leases are not surely ours."""
        before_s = said_s if self._said_s is None else self._said_s
        if said_s - before_s > MOST_SILENT_S:
            self.on_lapse()
        self._said_s = max(before_s, said_s)  # what was asked earlier may be answered later

    @property
    def mode(self) -> Mode:
        """What the guard lets the agent do, `observe` without a session: its word counts, not our file."""
        return self.welcome.mode if self.welcome is not None else "observe"

    def barred(self, device: str) -> str:
        """Return why we may command nothing at a device, by the owner's order as the guard told it; empty: we may."""
        if self.welcome is None or self.mode != "act":
            return "it observes: it commands nothing"
        return next((item.reason for item in self.welcome.paused if item.device in ("", device)), "")

    def take(self, welcome: SessionWelcome, told: str = "") -> str:
        """Take in what the guard says; return why it refuses us, empty when it does not.

        Args:
            welcome: its answer.
            told: the refusal that was logged last: the same one is not logged again.
        """
        before = self.welcome
        if welcome.refused:
            if told != welcome.refused:
                log.error("the guard refuses agent %s: %s", self._agent, welcome.refused)
            self.welcome = None
            if before is not None:
                self.on_orders()
            return welcome.refused
        if told or before is None or (welcome.generation, welcome.mode) != (before.generation, before.mode):
            log.info("agent %s has a session, generation %d, mode %s", self._agent, welcome.generation, welcome.mode)
        if before is None or welcome.generation != before.generation:
            self.on_generation()
        self.welcome = welcome
        self.welcomed.set()
        if before is None or (welcome.mode, welcome.paused) != (before.mode, before.paused):
            self.on_orders()
        return ""
