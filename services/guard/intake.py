"""The command stream into the ledger and the lanes, and outcomes out of the ledger into the stream.

A command counts as received once it is in the ledger; then its delivery is acknowledged. A redelivered one is known
by its id and changes nothing. What waited while the guard was away is of unknown age and expires, reported.

Source: design.md sections 3.5 and 3.8.
"""

import asyncio
import logging
from collections import Counter

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, StoredMessage
from edgeagents.errors import InvalidInputError, MalformedMessageError, UnavailableError
from edgeagents.model.message import Command, LeaseRecord, Outcome
from edgeagents.settings import SiteTime
from services.guard.lanes import Job, Lanes, Means

log = logging.getLogger(__name__)


class Intake:
    """Reads the command stream in order."""

    def __init__(self, bus: Bus, means: Means, lanes: Lanes, site_time: SiteTime, started_wall_ns: int) -> None:
        """Prepare; `run` does the rest."""
        self._bus = bus
        self._means = means
        self._lanes = lanes
        self._site_time = site_time
        self._started_wall_ns = started_wall_ns
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Take commands in for ever."""
        gateway = self._bus.settings.gateway
        pattern = [subjects.commands(gateway)]
        async for stored in self._bus.consume(subjects.COMMANDS_STREAM, "guard", pattern):
            try:
                await self._take(stored)
            except (MalformedMessageError, InvalidInputError) as error:
                await self._set_aside(stored, error)
            await stored.ack()

    async def _take(self, stored: StoredMessage) -> None:
        device, agent = subjects.parse_command(stored.subject)
        content_type = stored.headers.get(CONTENT_TYPE, wire.PROTOBUF)
        if agent == subjects.GUARD:
            self._means.desk.seen(wire.decode(LeaseRecord, stored.data, content_type), stored.sequence)
            return
        command = wire.decode(Command, stored.data, content_type)
        if command.device != device:
            raise InvalidInputError(f"the command is for {command.device!r}, its subject for {device!r}")
        means = self._means
        wall_ns = means.clocks.wall_ns()
        new = await means.on_disk(means.ledger.receive, command, agent, stored.sequence, wall_ns / 1e9)
        await means.on_disk(means.ledger.remember, "last_sequence", stored.sequence)
        if not new:
            self.counts["duplicates"] += 1
            return
        self.counts["received"] += 1
        age_s = (wall_ns - stored.time_ns) / 1e9
        if stored.time_ns < self._started_wall_ns:
            await self._expire(command, agent, stored.sequence, "waited while the guard was not running: age unknown")
        elif age_s > command.ttl_s:
            await self._expire(command, agent, stored.sequence, f"received {age_s:.1f} s after it was stored")
        else:
            deadline_s = means.clocks.now() + command.ttl_s - max(0.0, age_s)
            data_site_s = self._site_time.at_ns(command.data_origin_ns)
            self._lanes.put(Job(command, agent, stored.sequence, deadline_s, data_site_s))

    async def _expire(self, command: Command, agent: str, sequence: int, reason: str) -> None:
        lane = self._lanes.lane_of(command.device)
        await lane.end(Job(command, agent, sequence, 0.0, 0.0), "expired", reason)

    async def _set_aside(self, stored: StoredMessage, error: MalformedMessageError | InvalidInputError) -> None:
        kind = error.cause_kind if isinstance(error, MalformedMessageError) else "wrong-subject"
        self.counts["rejected"] += 1
        log.warning("%s set aside: %s", stored.subject, error)
        self._means.audit.append(
            "rejected", subject=stored.subject, sequence=stored.sequence, cause=kind, text=str(error)
        )
        try:
            await self._bus.store(
                subjects.dead_letter(self._bus.settings.gateway, "app-guard"),
                stored.data[:65_536],
                {"Topic": stored.subject, "Cause": kind},
            )
        except UnavailableError as failure:
            log.warning("dead letter could not be stored: %s", failure)


class Teller:
    """Puts outcomes into the stream, in order, until each is held."""

    def __init__(self, bus: Bus, gateway: str) -> None:
        """Start with nothing to tell."""
        self._bus = bus
        self._gateway = gateway
        self._queue: asyncio.Queue[tuple[str, Outcome]] = asyncio.Queue()
        self.counts: Counter[str] = Counter()

    def tell(self, agent: str, outcome: Outcome) -> None:
        """Queue an outcome; the ledger holds it until it was told."""
        self.counts[outcome.status] += 1
        self._queue.put_nowait((agent, outcome))

    async def run(self, means: Means) -> None:
        """Tell for ever; a broker that is away is waited for."""
        for entry in await means.on_disk(means.ledger.untold):
            if entry.outcome is not None:
                self._queue.put_nowait((entry.agent, entry.outcome))
        while True:
            agent, outcome = await self._queue.get()
            subject = subjects.outcome(self._gateway, agent, outcome.device)
            # The id makes a second telling of the same outcome known to the stream for its window.
            await self._store(subject, wire.encode(outcome), f"outcome.{agent}.{outcome.command_id}")
            await means.on_disk(means.ledger.told, agent, outcome.command_id)
            self._queue.task_done()

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until all outcomes so far are told, for at most `timeout_s`."""
        try:
            await asyncio.wait_for(self._queue.join(), timeout_s)
        except TimeoutError:
            log.warning("outcomes are left to be told after the next start")

    async def _store(self, subject: str, data: bytes, message_id: str) -> None:
        told = False
        while True:
            try:
                await self._bus.store(subject, data, {CONTENT_TYPE: wire.PROTOBUF}, message_id=message_id)
                return
            except UnavailableError as error:
                if not told:
                    log.warning("outcomes wait: %s", error)
                    told = True
                await asyncio.sleep(0.25)
