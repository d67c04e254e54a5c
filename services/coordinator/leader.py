"""Leads tasks: what comes in goes through the book, is stored, and only then told.

One event at a time, on one loop; nothing here waits for a disk with a task in its hands. Times and roster are the
engine's (`edgeagents/task_engine.py`). Roster and heartbeats are not stored: a coordinator that begins says so, and
agents answer at once.

Source: design.md section 5.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus
from edgeagents.audit import Audit, Refusals
from edgeagents.errors import EdgeAgentsError, InvalidInputError, NotFoundError, TooManyAttemptsError, UnavailableError
from edgeagents.model.cooperation import Act, Announcement
from edgeagents.model.task import TaskWanted
from edgeagents.protocol.conversation import Tell
from edgeagents.protocol.eligibility import Site, able, invited, unknown_devices
from edgeagents.protocol.explanation import award_body, end_body
from edgeagents.protocol.roster import MOST_RUNS
from edgeagents.protocol.task_book import Book, Turn
from edgeagents.protocol.task_ledger import LedgerRequest
from edgeagents.protocol.task_record import Record, shown, wanted_of
from edgeagents.task_engine import TaskEngine
from services.coordinator.journal import ROOM, Journal

log = logging.getLogger(__name__)

BEAT_S: Final = 0.5
LOOK_S: Final = 1.0
LONGEST_SLEEP_S: Final = 0.25
MOST_SOUGHT: Final = 3  # devices that a task names and nobody told of: so many are asked for
MOST_UNREAD: Final = 1_000  # records that wait for one watcher


class LedgerClock:
    """Seconds that go on over restarts and that nobody sets while we run: wall time at the start, then monotonic."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the ledger's time, seconds."""
        return self._offset_s + time.monotonic()

    def after(self, s: float) -> None:
        """Be no earlier than a time that was seen before this start."""
        self._offset_s = max(self._offset_s, s - time.monotonic())


class Leader:
    """Keeps the ledger of tasks and leads a contract net for each."""

    def __init__(
        self,
        bus: Bus,
        book: Book,
        journal: Journal,
        audit: Audit,
        site: Callable[[], Site],
        seek: Callable[[str], Awaitable[None]],
        most_invited: int,
        incarnation: str,
    ) -> None:
        """Prepare; `restore`, then `run`.

        Args:
            bus: connected.
            book: the tasks, empty.
            journal: opened by `restore`.
            audit: for awards, ends and refusals.
            site: the owner's files and devices, as they are now.
            seek: has a device known that is not, if core-metadata has it.
            most_invited: so many agents are asked for one task at most.
            incarnation: of this run.
        """
        self._bus = bus
        self.book = book
        self.journal = journal
        self._audit = audit
        self.site = site
        self._seek = seek
        self._most_invited = most_invited
        self._gateway = bus.settings.gateway
        self.clock = LedgerClock()
        self._watchers: dict[int, tuple[str, asyncio.Queue[Record]]] = {}
        self.stored: dict[str, Record] = {}  # what is on disk, and so may be told
        self._able: dict[str, list[str]] = {}
        self.incarnation = incarnation
        self.is_serving = asyncio.Event()  # the tasks were read back
        self.counts: Counter[str] = Counter()
        self._refusals = Refusals(audit, "task-refused", self.counts)
        self.engine = TaskEngine(
            book, self.counts, self._refusals, lambda: self.clock.now(), self._begin, self._carry_out
        )
        self._encoded: tuple[Act | None, dict[str, bytes]] = (None, {})  # the last act, by encoding
        self._encodings = wire.Encodings(MOST_RUNS)  # of announcements
        self._sending: deque[tuple[str, bytes, str]] = deque()
        self._has_to_send = asyncio.Event()

    # --- life ------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Read the tasks back, and go on with each where it stood."""
        found = await self.journal.open()
        self.book.restored(found)
        self.stored = {record.task: record for record in found}
        self._forget()
        for record in self.book.all():
            self.clock.after(record.changed_s)
        self.engine.begin_anew()
        for task in list(self.book.open):
            self._carry_out(self.book.recover(task, self.engine.now(), time.time_ns()))
        log.info("%d tasks under way, %d ended lately", len(self.book.open), len(self.book.ended))

    async def run_timers(self) -> None:
        """Look at each task when its time has come, for ever."""
        while True:
            await self.engine.rest(LONGEST_SLEEP_S)
            self.engine.look()
            await asyncio.sleep(0)  # others have their turn, however much is due

    async def run_beats(self) -> None:
        """Say twice a second that we are here, for ever."""
        subject, data = subjects.coordinator(self._gateway), self.incarnation.encode()
        while True:
            try:
                await self._bus.publish(subject, data)
            except UnavailableError as error:
                log.debug("no heartbeat: %s", error)
            await asyncio.sleep(BEAT_S)

    async def run_rounds(self) -> None:
        """End what was taken by who is gone, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._bus.is_connected:
                self.engine.end_gone()
            else:
                self.engine.deafen()

    # --- what comes in ---------------------------------------------------------------------------

    async def submit(self, wanted: TaskWanted, giver: str) -> tuple[Record, bool]:
        """Take a task in, and return once it is on disk; and whether it is new.

        Raises:
            InvalidInputError: nobody could do it, and why.
            ConflictError: its id is taken.
            TooLargeError: it is too long.
            TooManyAttemptsError: too many are under way, or the disk's share is nearly used up.
            UnavailableError: what is known is not read back yet.
        """
        self.check_serving()
        task = wanted.id or secrets.token_hex(8)
        known = task in self.book.open or task in self.book.ended
        names: list[str] = []
        if not known:
            for name in unknown_devices(wanted, self.site())[:MOST_SOUGHT]:
                await self._seek(name)
            names = able(wanted, self.site())
            if not self.journal.has_room:
                self.counts["turned_away"] += 1
                raise TooManyAttemptsError(f"the stream of tasks is {ROOM:.0%} full: no new task is taken in", 30.0)
        record, is_new = self.book.accept(task, wanted, giver, self.engine.now(), time.time_ns())
        if not is_new:
            self.counts["repeated"] += 1
            await self.journal.stored_then(None)
            return record, False
        self.counts["accepted"] += 1
        self._able[task] = names
        self._begin(record)
        record = self.book.record(task)
        self.journal.put(record, lambda: self._stored(record))
        try:
            await self.journal.stored_then(None)
        except UnavailableError as error:  # by its name it can be looked for, or given again
            raise UnavailableError(f"task {task!r}: {error}") from error
        return self.stored.get(task, record), True

    def _begin(self, record: Record) -> None:
        if record.task not in self._able:
            try:
                self._able[record.task] = able(wanted_of(record), self.site())
            except InvalidInputError:
                self._able[record.task] = []  # after a restart with other files: its deadline ends it
        now_s = self.engine.now()
        names = [name for name in self._able[record.task] if name not in record.asked]
        whom = invited(names, self.engine.alive(), self._most_invited, record.task)
        self._carry_out(self.book.begin(record, whom, now_s, time.time_ns()))

    async def cancel(self, task: str, by: str) -> Record:
        """End a task by somebody's word, and return once that is on disk.

        Raises:
            NotFoundError: no such task is known.
            ConflictError: it has ended already.
            UnavailableError: what is known is not read back yet.
        """
        self.check_serving()
        self.engine.cancel(task, f"cancelled by {by}")
        ended = self.book.record(task)
        await self.journal.stored_then(None)
        return self.stored.get(task, ended)

    def heard(self, sender: str, said: Act) -> None:
        """Take in what an agent said in a task's conversation."""
        self.engine.heard(sender, said)

    async def asked(self, sender: str, task: str, request: LedgerRequest, reason: str) -> Turn:
        """Return what the ledger says to an agent, once that is on disk.

        Raises:
            NotFoundError: no such task is known.
        """
        turn = self.engine.asked(sender, task, request, reason)
        await self.journal.stored_then(None)
        return turn

    def announced(self, agent: str, said: Announcement, content_type: str = wire.PROTOBUF) -> None:
        """Note that an agent is there, and what it reads: acts for it are written in that."""
        self.engine.announced(agent, said)
        self._encodings.heard(agent, content_type)

    def refused(self, sender: str, cause: str, text: str) -> None:
        """Count what was not accepted, and write the first ones of each minute down."""
        self._refusals.add(sender, cause, text)

    # --- what follows ----------------------------------------------------------------------------

    def _carry_out(self, turn: Turn) -> None:
        """Have what changed stored, and told then."""
        record = turn.record
        self.engine.taken_in(turn)
        if turn.has_ended:
            self._able.pop(record.task, None)
        if turn.is_changed or turn.tells:
            self.journal.put(record if turn.is_changed else None, lambda: self._tell(turn))
        self._forget()

    def _forget(self) -> None:
        """Have what the book remembers no more forgotten on disk, too: ends do not fill it up."""
        while self.book.evicted:
            task = self.book.evicted.pop()
            self.stored.pop(task, None)
            self.journal.forget(task)

    def _tell(self, turn: Turn) -> None:
        """Count, audit, show and send what a turn has made: it is on disk, so no crash makes it untrue."""
        record = turn.record
        if turn.awarded is not None:
            self.counts["awards"] += 1
            self._audit.append("award", **award_body(record, turn.awarded, self.engine.alive()))
        if turn.has_ended:
            self.counts[record.state] += 1
            self._audit.append("task", **end_body(record))
        if turn.is_changed:
            self._stored(record)
        for tell in turn.tells:
            self._send(tell)

    def _stored(self, record: Record) -> None:
        """Let readers see a record; who watches and does not read misses some, and holds nobody up."""
        if record.task in self.book.open or record.task in self.book.ended:
            self.stored[record.task] = record
        for watched, queue in self._watchers.values():
            if watched in ("", record.task) and not queue.full():
                queue.put_nowait(record)

    def _send(self, tell: Tell) -> None:
        content_type = self._encodings.of(tell.to)
        if self._encoded[0] is not tell.act:
            self._encoded = (tell.act, {})
        written = self._encoded[1]
        if content_type not in written:  # a call goes to many: written once for each encoding
            written[content_type] = wire.encode(tell.act, content_type)
        self.counts["acts_sent"] += 1
        subject = subjects.act(self._gateway, tell.to, subjects.COORDINATOR)
        self._sending.append((subject, written[content_type], content_type))
        self._has_to_send.set()

    async def run_sending(self) -> None:
        """Publish what is to be told, in order, for ever; what gets lost is said again by the protocols."""
        while True:
            await self._has_to_send.wait()
            self._has_to_send.clear()
            while self._sending:
                subject, data, content_type = self._sending.popleft()
                try:
                    await self._bus.publish(subject, data, {CONTENT_TYPE: content_type})
                except EdgeAgentsError as error:
                    self.counts["acts_lost"] += 1
                    log.warning("not told: %s", error)

    # --- who looks on ----------------------------------------------------------------------------

    def watch(self, task: str = "") -> "asyncio.Queue[Record]":
        """Return a queue that gets each record that changes, of one task if named, from now on; `unwatch` ends it."""
        queue: asyncio.Queue[Record] = asyncio.Queue(MOST_UNREAD)
        self._watchers[id(queue)] = (task, queue)
        return queue

    def unwatch(self, queue: "asyncio.Queue[Record]") -> None:
        """Have a queue get nothing any more."""
        self._watchers.pop(id(queue), None)

    def record(self, task: str) -> Record:
        """Return a task's newest record that is on disk: what a crash cannot make untrue.

        Raises:
            NotFoundError: no such task is known (any more), or it is not on disk yet.
            UnavailableError: what is known is not read back yet.
        """
        self.check_serving()
        if task not in self.stored:
            raise NotFoundError(f"no task {task!r} is known here: it was never taken in, or ended long ago")
        return self.stored[task]

    def check_serving(self) -> None:
        """Return if the tasks were read back.

        Raises:
            UnavailableError: they were not: what is known now is nothing or old.
        """
        if not self.is_serving.is_set():
            raise UnavailableError("the tasks are not read back yet: ask again in a moment")

    def listed(self, state: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Return tasks as clients see them, the newest first; those of one state if given."""
        self.check_serving()
        found = [item for item in self.stored.values() if not state or item.state == state]
        found.sort(key=lambda item: item.accepted_unix_ns, reverse=True)
        return [shown(item) for item in found[:limit]]
