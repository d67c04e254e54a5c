"""Hash-chained records, appended; used by agents and the guard. `trail.py` reads them, `protocol/chains.py` verifies.

One chain per writer and incarnation; the first record names the head of the writer's chain before it. Records
go out in order, off the hot path, each with the expected last sequence of its subject: what the stream holds is
exactly the chain, without gaps or strangers' records. Leaves out signing heads and sending them off the gateway.

Source: design.md section 3.9.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.errors import ConflictError, MalformedMessageError, NotFoundError, UnavailableError
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import digest, link, verify

__all__ = ["Audit", "Refusals", "digest", "link", "verify"]

log = logging.getLogger(__name__)

QUEUE_LENGTH: Final = 10_000
MAX_BODY_BYTES: Final = 65_536
MOST_REFUSALS: Final = 50  # of one kind, a minute; all are counted


class Audit:
    """Appends one writer's records; `run` carries them to the stream."""

    def __init__(self, bus: Bus, writer: str, incarnation: str, wall_ns: Callable[[], int] = time.time_ns) -> None:
        """Prepare a chain; nothing is read or written yet."""
        self._bus = bus
        self._writer = writer
        self._incarnation = incarnation
        self._wall_ns = wall_ns
        self._subject = subjects.audit(bus.settings.gateway, writer, incarnation)
        self._queue: asyncio.Queue[tuple[str, Mapping[str, Any], int]] = asyncio.Queue(QUEUE_LENGTH)
        self._last: AuditRecord | None = None
        self._sequence = 0
        self.dropped = 0

    def append(self, kind: str, **body: Any) -> None:
        """Queue a record; never blocks. When the queue is full the record is counted as dropped, logged once."""
        try:
            self._queue.put_nowait((kind, body, self._wall_ns()))
        except asyncio.QueueFull:
            self.dropped += 1
            if self.dropped == 1:
                log.error(
                    "audit of %s: %d records wait, dropping new ones: is the broker up?", self._writer, QUEUE_LENGTH
                )

    async def run(self) -> None:
        """Carry records to the stream for ever; a broker that is away is waited for."""
        await self._find_predecessor()
        told = 0
        while True:
            kind, body, time_ns = await self._queue.get()
            await self._add(kind, body, time_ns)
            if self.dropped > told:
                # The chain itself says that it is not whole.
                missing, told = self.dropped - told, self.dropped
                await self._add("dropped", {"records": missing}, self._wall_ns())
            self._queue.task_done()

    async def _add(self, kind: str, body: Mapping[str, Any], time_ns: int) -> None:
        record = link(self._last, self._writer, self._incarnation, kind, body, time_ns)
        size_bytes = len(record.body.encode())
        if size_bytes > MAX_BODY_BYTES:
            body = {"too_large": size_bytes, "sha256": hashlib.sha256(record.body.encode()).hexdigest()}
            record = link(self._last, self._writer, self._incarnation, kind, body, time_ns)
        await self._store(record)
        self._last = record

    async def drain(self, timeout_s: float = 2.0) -> None:
        """Wait until everything queued so far is stored, for at most `timeout_s`; what is lost with us is logged."""
        try:
            await asyncio.wait_for(self._queue.join(), timeout_s)
        except TimeoutError:
            more = self._queue.qsize()
            log.error("audit of %s: one record and %d behind it are not stored in %g s", self._writer, more, timeout_s)

    async def _store(self, record: AuditRecord) -> None:
        data = wire.encode(record)
        told = False
        while True:
            try:
                self._sequence = await self._bus.store(
                    self._subject, data, wire.AS_PROTOBUF, expected_last=self._sequence
                )
                return
            except ConflictError:
                # An earlier try was stored although its acknowledgement got lost.
                if await self._is_stored(record):
                    return
                await asyncio.sleep(0.25)
            except UnavailableError as error:
                if not told:
                    log.warning("audit of %s: %s: trying again", self._writer, error)
                    told = True
                await asyncio.sleep(0.25)

    async def _is_stored(self, record: AuditRecord) -> bool:
        """Look at the end of our chain: say whether a record is there, and go on behind what is there if not."""
        try:
            found = [message async for message in self._read(self._subject)]
        except (NotFoundError, UnavailableError):
            return False
        self._sequence = found[-1].sequence if found else 0
        last = _decoded(found[-1]) if found else None
        if last is not None and last.digest == record.digest:
            return True
        if last is None or last.digest != record.previous:
            log.error("audit of %s: the stream holds something else at the end of %s", self._writer, self._subject)
        return False

    async def _find_predecessor(self) -> None:
        pattern = f"{subjects.token(self._bus.settings.gateway)}.audit.{subjects.token(self._writer)}.*"
        while True:
            try:
                found = [message async for message in self._read(pattern)]
                break
            except (NotFoundError, UnavailableError):
                await asyncio.sleep(0.25)
        records = (_decoded(message) for message in sorted(found, key=lambda message: -message.sequence))
        self._last = next((record for record in records if record is not None), None)

    def _read(self, pattern: str) -> AsyncIterator[StoredMessage]:
        # By a consumer of ours: agents may not get messages directly (`edgeagents/permissions.py` says why).
        name = f"audit-{subjects.token(self._writer)}"
        return self._bus.read(subjects.AUDIT_STREAM, [pattern], name=name, last_per_subject=True)


class Refusals:
    """Counts what was not accepted, of one kind, by its causes; the first ones of each minute are written down."""

    def __init__(self, audit: Audit, kind: str, counts: Counter[str]) -> None:
        """Write records of `kind`; count in `counts`, as `refused_<cause>`."""
        self._audit = audit
        self._kind = kind
        self._counts = counts
        self._audited: deque[float] = deque(maxlen=MOST_REFUSALS)

    def add(self, sender: str, cause: str, text: str) -> None:
        """Take one in."""
        self._counts[f"refused_{cause}"] += 1
        now_s = time.monotonic()
        if len(self._audited) == MOST_REFUSALS and now_s - self._audited[0] < 60:
            return
        self._audited.append(now_s)
        plain = text[:500].encode(errors="backslashreplace").decode()
        self._audit.append(self._kind, sender=sender, cause=cause, text=plain)


def _decoded(message: StoredMessage) -> AuditRecord | None:
    try:
        return wire.decode(AuditRecord, message.data)
    except MalformedMessageError as error:
        log.error("%s, record %d of the stream: %s", message.subject, message.sequence, error)
        return None
