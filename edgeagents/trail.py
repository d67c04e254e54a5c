"""The audit of a gateway, read back: from its stream, or from a file it was exported to.

An export is JSON lines: one a record, then one with the heads of all chains and a SHA-256 over the lines above it.
It is the witness of what the stream held: `edgeagents audit verify --against` compares the two.

Source: design.md section 3.9.
"""

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

from pydantic import ValidationError

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, StoredMessage
from edgeagents.adapters.streams import Held
from edgeagents.errors import InvalidInputError, MalformedMessageError, StoreError
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import Entry, Head, Problem, Verifier, against_heads

MAX_LINE_BYTES: Final = 1 << 20
NEAR_LIMIT: Final = 0.9  # of a stream's age or size: its oldest records may have been dropped by it


class Trail(Protocol):
    """An audit that can be read."""

    @property
    def count(self) -> int | None:
        """How many entries there are; None: not known before they are read."""

    def entries(self) -> AsyncIterator[Entry]:
        """Yield all entries, oldest first."""

    def problems(self, verifier: Verifier) -> list[Problem]:
        """Return all that is wrong, once `verifier` has taken every entry in."""

    def oldest_may_be_gone(self) -> bool:
        """Say whether the stream's limits have dropped its oldest records; known once the entries were read."""


class StreamTrail:
    """The audit stream of a gateway as it is now."""

    def __init__(self, bus: Bus, held: Held) -> None:
        """Use a connection that may read the whole stream; `open` makes one."""
        self._bus = bus
        self._held = held
        self._oldest_ns = 0

    @classmethod
    async def open(cls, bus: Bus) -> "StreamTrail":
        """Return the trail of a gateway's broker.

        Raises:
            NotFoundError: there is no audit stream: has the guard ever run there?
            UnavailableError: the broker did not answer.
        """
        return cls(bus, await bus.held(subjects.AUDIT_STREAM))

    @property
    def count(self) -> int | None:
        """Return how many entries there are."""
        return self._held.messages

    @property
    def last_place(self) -> int:
        """Return the newest place that was given out when the trail was opened."""
        return self._held.last_sequence

    async def entries(self, start: int | None = None) -> AsyncIterator[Entry]:
        """Yield entries, oldest first, from place `start` on; what is written meanwhile may or may not be among them.

        Raises:
            UnavailableError: the broker did not answer.
        """
        # A name of its own: two may read at one time.
        name = f"audit-trail-{secrets.token_hex(4)}"
        async for message in self._bus.read(subjects.AUDIT_STREAM, [], name=name, start_sequence=start):
            self._oldest_ns = self._oldest_ns or message.time_ns
            yield entry_of(message)

    def problems(self, verifier: Verifier) -> list[Problem]:
        """Return all that is wrong, once `verifier` has taken every entry in."""
        return verifier.end(self.last_place, oldest_may_be_gone=self.oldest_may_be_gone())

    def oldest_may_be_gone(self) -> bool:
        """Say whether the stream's limits have dropped its oldest records."""
        held, age_s = self._held, time.time() - self._oldest_ns / 1e9
        is_full = 0 < held.max_bytes * NEAR_LIMIT <= held.size_bytes
        return is_full or 0 < held.max_age_s * NEAR_LIMIT <= age_s


@dataclass(frozen=True, slots=True)
class Heads:
    """The last line of an export.

    Args:
        gateway: whose audit it is.
        heads: the newest record of each chain.
        records: how many lines stand above.
        sha256: over those lines, line ends included.
        last_place: the newest place the stream had given out.
        oldest_gone: whether the stream's limits had dropped its oldest records.
        exported_unix_ns: when.
    """

    gateway: str
    heads: tuple[Head, ...]
    records: int
    sha256: str
    last_place: int
    oldest_gone: bool
    exported_unix_ns: int


class FileTrail:
    """An exported file. `heads` is there once its entries were read; None: it has no such line, its end is gone."""

    def __init__(self, path: Path) -> None:
        """Name a file; nothing is read yet."""
        self._path = path
        self._problems: list[Problem] = []
        self.heads: Heads | None = None

    @property
    def count(self) -> int | None:
        """Return None: the last line tells, and it is read last."""
        return None

    async def entries(self) -> AsyncIterator[Entry]:
        """Yield all entries, in the order of the file.

        Raises:
            StoreError: the file cannot be read.
            InvalidInputError: it is no export at all.
        """
        self._problems, self.heads = [], None
        hasher, number, records = hashlib.sha256(), 0, 0
        for number, line in enumerate(_lines(self._path), 1):
            if self.heads is not None:
                self._name(f"line {number}: stands behind the heads")
            entry = self._read(number, line)
            if self.heads is None:
                hasher.update(line)
            if entry is not None:
                records += 1
                yield entry
        if not records and self.heads is None:
            raise InvalidInputError(f"{self._path}: holds no audit record: was it made by `edgeagents audit export`?")
        self._check_sum(hasher.hexdigest(), number - 1)

    def problems(self, verifier: Verifier) -> list[Problem]:
        """Return all that is wrong, once `verifier` has taken every entry in."""
        last_place = self.heads.last_place if self.heads is not None else 0
        found = verifier.end(last_place, oldest_may_be_gone=self.oldest_may_be_gone())
        if self.heads is not None:
            found += against_heads(self.heads.heads, verifier)
        return [*found, *self._problems]

    def oldest_may_be_gone(self) -> bool:
        """Say whether the stream's limits had dropped its oldest records before the export."""
        return self.heads is not None and self.heads.oldest_gone

    def _read(self, number: int, line: bytes) -> Entry | None:
        try:
            content = json.loads(line)
            if "heads" in content:
                self.heads = _heads(content)
                return None
            return _entry(content)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            self._name(f"line {number}: is no audit record")
            return None

    def _check_sum(self, sha256: str, records: int) -> None:
        if self.heads is None:
            self._name("its last line, with the heads, is gone: what else is missing at the end is not known")
        elif (self.heads.sha256, self.heads.records) != (sha256, records):
            self._name("was changed after the export: its lines are not those it was closed with")

    def _name(self, what: str) -> None:
        self._problems.append(Problem("file", self._path.name, None, what))


def entry_of(message: StoredMessage) -> Entry:
    """Return what lies at a place of the audit stream; the writer is a token of the subject."""
    parts = message.subject.split(".")
    try:
        writer, incarnation = (subjects.name_of(part) for part in parts[2:4])
    except (InvalidInputError, ValueError):
        writer, incarnation = message.subject, ""
    try:
        content_type = message.headers.get(CONTENT_TYPE, wire.PROTOBUF)
        record: AuditRecord | None = wire.decode(AuditRecord, message.data, content_type)
    except MalformedMessageError:
        record = None
    raw = b"" if record is not None else message.data
    return Entry(message.sequence, writer, incarnation, record, message.time_ns, raw)


async def export(
    trail: StreamTrail, gateway: str, path: Path, step: Callable[[], None] = lambda: None
) -> tuple[int, list[Problem]]:
    """Write a trail to a file, whole or not at all, and return how many records, and what is wrong with them.

    Args:
        trail: what to write.
        gateway: whose it is.
        path: replaced when it is there.
        step: called after each record.

    Raises:
        StoreError: the file cannot be written.
        UnavailableError: the broker went away.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            verifier, sha256 = await _write_entries(trail, file, step)
            problems = trail.problems(verifier)
            heads = Heads(
                gateway, tuple(verifier.heads), verifier.count, sha256, verifier.last_place,
                trail.oldest_may_be_gone(), time.time_ns(),
            )  # fmt: skip
            file.write(_line(asdict(heads)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"export {path}: {error.strerror}: may we write there, is the disk full?") from error
    finally:
        partial.unlink(missing_ok=True)
    return verifier.count, problems


async def _write_entries(trail: StreamTrail, file: IO[bytes], step: Callable[[], None]) -> tuple[Verifier, str]:
    verifier, hasher = Verifier(), hashlib.sha256()
    async for entry in trail.entries():
        verifier.take(entry)
        line = _line(_content(entry))
        hasher.update(line)
        file.write(line)
        step()
    return verifier, hasher.hexdigest()


def _content(entry: Entry) -> dict[str, Any]:
    where = {"place": entry.place, "stored_ns": entry.stored_ns}
    subject = [entry.writer, entry.incarnation]
    if entry.record is None:
        return {**where, "subject": subject, "raw": base64.b64encode(entry.raw).decode()}
    return {**where, "subject": subject, **entry.record.model_dump()}


def _entry(content: dict[str, Any]) -> Entry:
    writer, incarnation = content["subject"]
    place, stored_ns = int(content["place"]), int(content["stored_ns"])
    if "raw" in content:
        return Entry(place, str(writer), str(incarnation), None, stored_ns, base64.b64decode(content["raw"]))
    try:
        record: AuditRecord | None = AuditRecord.model_validate(content, strict=True)
        "".join(map(str, content.values())).encode()  # half of a character would choke whoever prints it
    except ValidationError:
        record = None
    return Entry(place, str(writer), str(incarnation), record, stored_ns)


def _heads(content: dict[str, Any]) -> Heads:
    heads = tuple(
        Head(str(item["writer"]), str(item["incarnation"]), int(item["number"]), str(item["digest"]))
        for item in content["heads"]
    )
    return Heads(
        str(content["gateway"]), heads, int(content["records"]), str(content["sha256"]), int(content["last_place"]),
        bool(content["oldest_gone"]), int(content["exported_unix_ns"]),
    )  # fmt: skip


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: does the file exist, may we read it?") from error
