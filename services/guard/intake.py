"""The command stream into the ledger and the lanes, and outcomes out of the ledger into the stream.

A command counts as received once it is in the ledger; then its delivery is acknowledged. A redelivered one is known
by its id and changes nothing. What came while the guard was away is of unknown age and expires, reported; what a guard
had taken in and not begun with may go on after a restart (`waiting.py`). One for which the ledger has no room, nor the
reserve if it is for safety, is refused, and acknowledged only once that is told.

Source: design.md sections 3.5 to 3.8.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import telemetry, wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, StoredMessage
from edgeagents.adapters.edgex_bus import DeadLetter
from edgeagents.errors import (
    ConflictError,
    InvalidInputError,
    MalformedMessageError,
    UnavailableError,
    VolumeFullError,
)
from edgeagents.model.message import Command, LeaseRecord, Outcome
from edgeagents.settings import SiteTime
from services.guard.age import BrokerClock
from services.guard.jobs import Job, Means, end
from services.guard.lanes import Lanes
from services.guard.ledger import Intent
from services.guard.past import NOTHING_LOST, Key, Past

log = logging.getLogger(__name__)

KNOWN_SUBJECTS: Final = 4096
KNOWN_TURNED_AWAY: Final = 4096
BATCH: Final = 64  # commands asked for at a time


class Intake:
    """Reads the command stream in order."""

    def __init__(self, bus: Bus, means: Means, lanes: Lanes, site_time: SiteTime, dead_letter: DeadLetter) -> None:
        """Prepare; `run` does the rest. `dead_letter(subject, data, cause, text)` gets what cannot be decoded."""
        self._bus = bus
        self._means = means
        self._clock = BrokerClock(bus, means.clocks.now)
        self._lanes = lanes
        self._site_time = site_time
        self._dead_letter = dead_letter
        self._known = 0
        self._past = NOTHING_LOST
        self._told: set[str] = set()
        self._turned_away: dict[Key, None] = {}  # oldest first: in no ledger, so they are known from here
        self.counts: Counter[str] = Counter()

    async def run(self, last_before: int, past: Past = NOTHING_LOST) -> None:
        """Take commands in for ever.

        Args:
            past: what a lost or an old ledger has to be told.
            last_before: place in the stream of what was there before this guard read it; nobody knows how old that
                is. (Its time of storage does not tell either: clocks of gateways are set after they have started.)
        """
        self._known, self._past = last_before, past
        pattern = [subjects.commands(self._bus.settings.gateway)]
        async for stored in self._bus.consume(subjects.COMMANDS_STREAM, "guard", pattern, batch=BATCH):
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
            await self._means.on_disk(self._means.ledger.saw, stored.sequence)
            return
        command = wire.decode(Command, stored.data, content_type)
        if command.device != device:
            raise InvalidInputError(f"the command is for {command.device!r}, its subject for {device!r}")
        means = self._means
        key: Key = (agent, command.id)
        if key in self._past.ended or key in self._turned_away:
            self.counts["duplicates"] += 1
            await means.on_disk(means.ledger.saw, stored.sequence)
            return
        wall_ns = means.clocks.wall_ns()
        is_safety = means.owner.is_safety(agent)
        age_s = await self._clock.age_s(stored.time_ns, command.ttl_s)
        deadline_s = means.clocks.now() + command.ttl_s - (age_s or 0.0)
        data_site_s = self._site_time.at_ns(command.data_origin_ns)
        may_be_out = stored.sequence <= self._past.taken
        problem = self._problem(stored.sequence, age_s, command.ttl_s)
        # Without a deadline it does not go out either if this guard dies before it has told why it does not.
        until = Intent(deadline_s=0.0 if problem or may_be_out else deadline_s, data_site_s=data_site_s)
        try:
            is_new = await means.on_disk(
                means.ledger.receive, command, agent, stored.sequence, wall_ns / 1e9, is_safety, until
            )
        except VolumeFullError as error:
            await self._turn_away(Job(command, agent, stored.sequence, 0.0, 0.0), str(error))
            return
        if not is_new:
            self.counts["duplicates"] += 1
            return
        self.counts["received"] += 1
        trace = telemetry.trace_of(stored.headers)
        job = Job(command, agent, stored.sequence, deadline_s, data_site_s, trace=trace)
        if may_be_out:
            text = "taken in by a guard whose state was lost: nobody knows whether it went out"
            await end(means, job, "uncertain", text)
        elif problem:
            await end(means, job, "expired", problem, "late")
        else:
            await self._lanes.put(job)

    def _problem(self, sequence: int, age_s: float | None, ttl_s: float) -> str:
        """Return why a command counts as late, empty when it does not."""
        if sequence <= self._known:
            return "waited while the guard was not running: age unknown"
        if age_s is None:
            return "age unknown: a clock was set while it was on its way"
        return f"received {age_s:.1f} s after it was stored" if age_s > ttl_s else ""

    async def _turn_away(self, job: Job, problem: str) -> None:
        """Refuse a command that the ledger does not hold; on return its outcome is in the stream."""
        self.counts["turned_away"] += 1
        while len(self._turned_away) >= KNOWN_TURNED_AWAY:
            del self._turned_away[next(iter(self._turned_away))]
        self._turned_away[job.agent, job.command.id] = None
        await end(self._means, job, "refused", problem, "storage")
        await self._means.all_told()
        # A guard that starts with less remembered than was acknowledged counts its state as lost: the safe side.
        with contextlib.suppress(VolumeFullError):
            await self._means.on_disk(self._means.ledger.saw, job.sequence)

    async def _set_aside(self, stored: StoredMessage, error: MalformedMessageError | InvalidInputError) -> None:
        kind = error.cause_kind if isinstance(error, MalformedMessageError) else "wrong-subject"
        self.counts["rejected"] += 1
        if kind not in self._told:
            self._told.add(kind)
            log.warning("%s set aside: %s (further ones of this cause are only counted)", stored.subject, error)
        self._means.audit.append(
            "rejected", subject=stored.subject, sequence=stored.sequence, cause=kind, text=str(error)
        )
        await self._means.on_disk(self._means.ledger.saw, stored.sequence)
        await self._dead_letter(stored.subject, stored.data, kind, str(error))


class Teller:
    """Puts outcomes into the stream, in order, until each is held."""

    def __init__(self, bus: Bus, gateway: str) -> None:
        """Start with nothing to tell."""
        self._bus = bus
        self._gateway = gateway
        self._sequences: dict[str, int] = {}
        self._queue: asyncio.Queue[tuple[str, Outcome, telemetry.Headers]] = asyncio.Queue()
        self.counts: Counter[str] = Counter()

    def tell(self, agent: str, outcome: Outcome) -> None:
        """Queue an outcome; the ledger holds it until it was told."""
        self.counts[outcome.status] += 1
        self._queue.put_nowait((agent, outcome, telemetry.carried()))

    async def run(self, means: Means) -> None:
        """Tell for ever; a broker that is away is waited for."""
        for agent, outcome in await self._left(means):
            self._queue.put_nowait((agent, outcome, {}))
        while True:
            agent, outcome, trace = await self._queue.get()
            with telemetry.carry(trace):
                subject = subjects.outcome(self._gateway, agent, outcome.device)
                await self._store(subject, outcome, agent, means.desk.reads(agent))
            await means.on_disk(means.ledger.told, agent, outcome.command_id)
            self._queue.task_done()

    async def all_told(self) -> None:
        """Wait until all outcomes so far are told."""
        await self._queue.join()

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until all outcomes so far are told, for at most `timeout_s`."""
        try:
            await asyncio.wait_for(self.all_told(), timeout_s)
        except TimeoutError:
            log.warning("outcomes are left to be told after the next start")

    async def _left(self, means: Means) -> list[tuple[str, Outcome]]:
        """Return the outcomes that an earlier run left to be told.

        It told one after the other, in an order that is not the ledger's, and may have died between one's place in the
        stream and the ledger. That one is still the last of its subject: now, before anything is told behind it.
        """
        left = []
        for entry in await means.on_disk(means.ledger.untold):
            if entry.outcome is None:
                continue
            if await self._is_held(subjects.outcome(self._gateway, entry.agent, entry.outcome.device), entry.outcome):
                await means.on_disk(means.ledger.told, entry.agent, entry.outcome.command_id)
            else:
                left.append((entry.agent, entry.outcome))
        return left

    async def _is_held(self, subject: str, outcome: Outcome) -> bool:
        while True:
            try:
                return (await self._last(subject, outcome))[1]
            except UnavailableError:
                await asyncio.sleep(0.25)

    async def _written_in(self, agent: str, device: str) -> str:
        """Return the encoding of an agent's newest command for a device: what it reads, as long as it was not heard."""
        last = await self._bus.last(subjects.COMMANDS_STREAM, subjects.command(self._gateway, device, agent))
        return wire.answers_in(last.headers.get(CONTENT_TYPE, wire.PROTOBUF)) if last is not None else wire.PROTOBUF

    async def _store(self, subject: str, outcome: Outcome, agent: str, content_type: str) -> None:
        """Store an outcome behind the last one of its subject; wait for a broker that is away.

        Told in `content_type`; empty: in that of the agent's newest command for the device.

        No message id: the stream's memory of ids spans its subjects, and agents may publish on some of them.
        """
        told = False
        while True:
            try:
                if subject not in self._sequences:
                    if len(self._sequences) >= KNOWN_SUBJECTS:
                        self._sequences.clear()
                    self._sequences[subject], is_told = await self._last(subject, outcome)
                    if is_told:
                        return
                content_type = content_type or await self._written_in(agent, outcome.device)
                data, last = wire.encode(outcome, content_type), self._sequences[subject]
                self._sequences[subject] = await self._bus.store(
                    subject, data, {CONTENT_TYPE: content_type}, expected_last=last
                )
                return
            except ConflictError:
                self._sequences.pop(subject, None)
            except UnavailableError as error:
                # Stored or not: the subject's last message tells.
                self._sequences.pop(subject, None)
                if not told:
                    log.warning("outcomes wait: %s", error)
                    told = True
                await asyncio.sleep(0.25)

    async def _last(self, subject: str, outcome: Outcome) -> tuple[int, bool]:
        """Return the sequence of a subject's last message, and whether that is this very outcome."""
        last = await self._bus.last(subjects.COMMANDS_STREAM, subject)
        if last is None:
            return 0, False
        try:
            content_type = last.headers.get(CONTENT_TYPE, wire.PROTOBUF)
            return last.sequence, wire.decode(Outcome, last.data, content_type).command_id == outcome.command_id
        except MalformedMessageError:
            return last.sequence, False
