"""Records into the stream `tasks`: what waits is written as one, and what may be told then is told then.

The newest record of each task is kept, so reading the stream back is reading the book. The stream is the guard's:
whoever sets a stream up can have the broker publish anywhere, so we only write our records and purge old ones. Each
batch expects the stream to end where we left it: a second coordinator, or one that slept and woke, cannot write,
learns so, and ends.

Source: design.md section 4; group commit as in DeWitt et al. 1984; docs/decisions/0017.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.batches import MOST_MESSAGES, purge, store_together
from edgeagents.adapters.bus import Bus
from edgeagents.errors import ConflictError, MalformedMessageError, NotFoundError, StoreError, UnavailableError
from edgeagents.protocol.task_record import Record, from_bytes, to_bytes

log = logging.getLogger(__name__)

AGAIN_S: Final = 0.25
ENDED: Final = "the coordinator ends, its log says why: look for the task once it is up again"
ROOM: Final = 0.8  # of the stream: beyond, no new task is taken in, so that those under way can be brought to their end
ROOM_AGAIN_S: Final = 2.0
OVERHEAD_BYTES: Final = 256  # of a stored message: subject, headers, the broker's own


class Journal:
    """The one writer of a gateway's stream of tasks."""

    def __init__(self, bus: Bus) -> None:
        """Prepare; `open` reads, `run` writes."""
        self._bus = bus
        self._gateway = bus.settings.gateway
        self._last = 0
        self._waiting: dict[str, Record] = {}
        self._then: list[Callable[[], None]] = []
        self._awaited: set[asyncio.Future[None]] = set()
        self._has_ended = False
        self._has_work = asyncio.Event()
        self._is_busy = False
        self._size_bytes = 0
        self._max_bytes = -1
        self._forgotten: deque[tuple[str, int]] = deque()
        self.purged = 0
        self.batches = 0
        self.stored = 0

    async def open(self) -> list[Record]:
        """Return the newest record of each task; a broker that is away, or a guard not up yet, is waited for."""
        told = False
        while True:
            try:
                await self._look()
                return await self._read()
            except (UnavailableError, NotFoundError) as error:
                if not told:
                    log.warning("the tasks cannot be read yet: %s: does the guard run? It makes the stream", error)
                    told = True
                await asyncio.sleep(AGAIN_S)

    async def _read(self) -> list[Record]:
        found: list[Record] = []
        self._last = await self._bus.last_sequence(subjects.TASKS_STREAM)
        async for message in self._bus.read(subjects.TASKS_STREAM, [], name=subjects.COORDINATOR):
            try:
                found.append(from_bytes(message.data))
            except MalformedMessageError as error:
                log.error("record %d of stream %s: %s", message.sequence, subjects.TASKS_STREAM, error)
        return found

    @property
    def has_room(self) -> bool:
        """Say whether the stream has room for new tasks, beside what those under way may need."""
        return self._max_bytes <= 0 or self._size_bytes < ROOM * self._max_bytes

    async def _look(self) -> None:
        held = await self._bus.held(subjects.TASKS_STREAM)
        self._size_bytes, self._max_bytes = held.size_bytes, held.max_bytes

    def forget(self, task: str) -> None:
        """Have all that is on disk by now of a task removed, in the background; the same id may come again later."""
        self._forgotten.append((task, self._last + 1))

    async def run_room(self) -> None:
        """Remove what is to be forgotten and see how full the stream is, for ever."""
        while True:
            try:
                while self._forgotten:
                    task, before = self._forgotten[0]
                    await purge(self._bus, subjects.TASKS_STREAM, subjects.task_record(self._gateway, task), before)
                    self._forgotten.popleft()
                    self.purged += 1
                await self._look()
            except (UnavailableError, NotFoundError) as error:
                log.warning("stream %s: %s: looking again", subjects.TASKS_STREAM, error)
            await asyncio.sleep(ROOM_AGAIN_S)

    async def is_behind(self) -> bool | None:
        """Say whether somebody else has written since we did; None: what we are writing just now will tell.

        Raises:
            UnavailableError: the broker did not answer.
        """
        last = self._last
        if self._is_busy or self._waiting:
            return None
        end = await self._bus.last_sequence(subjects.TASKS_STREAM)
        return None if self._is_busy or self._waiting or self._last != last else end != last

    def put(self, record: Record | None, then: Callable[[], None] | None = None) -> None:
        """Have a record stored, then call `then`; without a record it waits for what was put before.

        Only the newest record of a task counts: one that waits is replaced.
        """
        if record is None and not self._waiting and not self._is_busy:
            if then is not None:
                then()
            return
        if record is not None:
            self._waiting.pop(record.task, None)
            self._waiting[record.task] = record
        if then is not None:
            self._then.append(then)
        self._has_work.set()

    async def stored_then(self, record: Record | None) -> None:
        """Return once a record, and all that was put before, is on disk.

        Raises:
            UnavailableError: the journal has ended; it may be on disk, or not.
        """
        if self._has_ended:
            raise UnavailableError(ENDED)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put(record, lambda: None if done.done() else done.set_result(None))
        self._awaited.add(done)
        try:
            await done
        finally:
            self._awaited.discard(done)

    async def run(self) -> None:
        """Write for ever.

        Raises:
            StoreError: somebody else writes the tasks of this gateway.
        """
        try:
            await self._write()
        finally:  # nobody waits for what will not be written
            self._has_ended = True
            for waiting in self._awaited:
                if not waiting.done():
                    waiting.set_exception(UnavailableError(ENDED))

    async def _write(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._waiting or self._then:
                records, then = list(self._waiting.values())[:MOST_MESSAGES], self._then
                # What waits for a record beyond this batch waits for the next one, too.
                is_all = len(records) == len(self._waiting)
                self._then = [] if is_all else then
                for record in records:
                    del self._waiting[record.task]
                self._is_busy = True
                if records:
                    await self._commit(records)
                if is_all:
                    for call in then:
                        call()
            self._is_busy = False

    async def _commit(self, records: list[Record]) -> None:
        messages = [(subjects.task_record(self._gateway, item.task), to_bytes(item)) for item in records]
        told = False
        while True:
            try:
                self._last = await store_together(self._bus, messages, self._last)
                break
            except ConflictError as error:
                if await self._is_stored(len(messages), messages[-1]):
                    break
                text = f"stream {subjects.TASKS_STREAM} was written by somebody else ({error})"
                raise StoreError(f"{text}: is there a second coordinator?") from error
            except UnavailableError as error:
                if not told:
                    log.warning("tasks wait to be stored: %s: trying again", error)
                    told = True
                await asyncio.sleep(AGAIN_S)
        self.batches += 1
        # Records that are replaced count until it is looked again: too much, never too little.
        self._size_bytes += sum(len(data) + OVERHEAD_BYTES for _, data in messages)
        self.stored += len(records)

    async def _is_stored(self, count: int, newest: tuple[str, bytes]) -> bool:
        """Say whether an earlier try was stored although its answer got lost; then go on behind it."""
        while True:
            try:
                end = await self._bus.last_sequence(subjects.TASKS_STREAM)
                found = [
                    message
                    async for message in self._bus.read(
                        subjects.TASKS_STREAM, [newest[0]], name=subjects.COORDINATOR, last_per_subject=True
                    )
                ]
                break
            except UnavailableError:
                await asyncio.sleep(AGAIN_S)
        is_ours = bool(found) and (found[-1].sequence, found[-1].data) == (end, newest[1])
        if end != self._last + count or not is_ours:
            return False
        self._last = end
        return True
