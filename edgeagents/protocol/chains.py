"""Hash chains: how a record follows from the one before it, and what was done to a log of many chains.

One chain per writer and incarnation; #0 names a record of the writer's chain before it. `Verifier` takes a log in
the order of its stream and names what was edited, dropped, repeated or reordered. What a log cannot tell by itself,
a chain's newest records that are gone or a log written anew from some point on, tells an earlier copy: `compare`.
Leaves out signatures on purpose: a copy that lies off the gateway is the witness.

Source: design.md section 3.9; B. Schneier, J. Kelsey, "Secure audit logs to support computer forensics", 1999.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edgeagents.model.message import AuditRecord

ChainName: TypeAlias = tuple[str, str]
"""Writer and incarnation."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a log; `number` is None where it concerns no single record."""

    writer: str
    incarnation: str
    number: int | None
    what: str

    def __str__(self) -> str:
        number = "" if self.number is None else f" #{self.number}"
        return f"{self.writer} {self.incarnation}{number}: {self.what}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A place in a log and what lies there.

    Args:
        place: sequence in the stream; 0: not known.
        writer: whose subject it lies on: who really wrote it.
        incarnation: of that subject.
        record: None when the bytes there are no audit record.
        stored_ns: when the stream took it, wall nanoseconds.
        raw: the bytes, where they are no record.
    """

    place: int
    writer: str
    incarnation: str
    record: AuditRecord | None
    stored_ns: int = 0
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of one chain."""

    writer: str
    incarnation: str
    number: int
    digest: str


@dataclass(slots=True)
class Chain:
    """What was seen of one chain: by number, its digest and its place."""

    records: dict[int, tuple[str, int]] = field(default_factory=dict)
    highest: int = -1
    newest_ns: int = 0


def digest(record: AuditRecord) -> str:
    """Return the SHA-256, in hex, over all fields of a record but its own digest."""
    fields = record.model_dump(exclude={"digest"})
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def link(
    previous: AuditRecord | None, writer: str, incarnation: str, kind: str, body: Mapping[str, Any], time_ns: int
) -> AuditRecord:
    """Return the record that follows `previous` (None, or a record of another incarnation: a new chain begins)."""
    continues = previous is not None and previous.incarnation == incarnation
    record = AuditRecord(
        writer=writer,
        incarnation=incarnation,
        number=previous.number + 1 if continues and previous is not None else 0,
        kind=kind,
        body=_body(body),
        time_unix_ns=time_ns,
        previous=previous.digest if previous is not None else "",
    )
    return record.model_copy(update={"digest": digest(record)})


def _fits(record: AuditRecord) -> bool:
    try:
        return digest(record) == record.digest
    except UnicodeEncodeError:  # half of a character, which no writer of ours can have hashed
        return False


def _body(body: Mapping[str, Any]) -> str:
    """Return the one spelling of a body; a text that is none (half of a character) is written escaped."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
    return text


def verify(records: Iterable[AuditRecord]) -> list[Problem]:
    """Return what was edited, dropped or reordered in the chains of one log, given in the order of the stream."""
    verifier = Verifier()
    for record in records:
        verifier.take(Entry(0, record.writer, record.incarnation, record))
    return verifier.end()


class Verifier:
    """Takes the entries of a log one by one, in its order, and says what is wrong with it.

    Copies of one agent write at one time: their chains may interleave, each follows from itself.
    """

    def __init__(self) -> None:
        """Start with an empty log."""
        self.chains: dict[ChainName, Chain] = {}
        self.notes: list[Problem] = []
        self.first_place = 0
        self.last_place = 0
        self.count = 0
        self._problems: list[Problem] = []
        self._known: dict[str, set[str]] = {}  # every digest of a writer
        self._unfounded: list[tuple[AuditRecord, bool]] = []  # beginnings whose predecessor was not seen yet

    def take(self, entry: Entry) -> None:
        """Take the next entry in."""
        self.count += 1
        self._take_place(entry)
        record = entry.record
        if record is None:
            self._name(entry, None, f"place {entry.place}: what lies there is no audit record")
            return
        if (record.writer, record.incarnation) != (entry.writer, entry.incarnation):
            claimed = f"{record.writer} {record.incarnation}"
            self._name(entry, record.number, f"place {entry.place}: claims to be a record of {claimed}")
            return
        fits = _fits(record)
        if not fits:
            self._name(entry, record.number, "edited: its digest does not fit its content")
        chain = self.chains.get((entry.writer, entry.incarnation))
        expected = 0 if chain is None else chain.highest + 1
        if fits or record.number == expected:  # else nobody knows where it belongs
            self._enter(entry, record)

    def end(self, last_place: int = 0, *, oldest_may_be_gone: bool = False) -> list[Problem]:
        """Return everything that is wrong, once the whole log was taken in.

        Args:
            last_place: the newest place the stream has given out; 0: not known.
            oldest_may_be_gone: the stream's limits have dropped its oldest records; then chains may lack their
                beginnings.
        """
        found = list(self._problems)
        if last_place > self.last_place:
            found.append(Problem("stream", "audit", None, f"{_run('place', self.last_place + 1, last_place)}: dropped"))
        if self.first_place > 1 and not oldest_may_be_gone:
            found.append(Problem("stream", "audit", None, f"{_run('place', 1, self.first_place - 1)}: dropped"))
        for record, was_first in self._unfounded:
            if record.previous in self._known[record.writer]:
                found.append(_problem(record, "reordered: stands before the chain it continues"))
            elif not (oldest_may_be_gone and was_first):
                found.append(_problem(record, "dropped or edited: the end of the chain before it is not there"))
        for (writer, incarnation), chain in self.chains.items():
            for first, last in _missing(chain):
                if first > 0 or not oldest_may_be_gone:
                    found.append(Problem(writer, incarnation, first, f"dropped: {_gap(first, last)}"))
        return found

    @property
    def heads(self) -> list[Head]:
        """Return the newest record of every chain."""
        return [
            Head(writer, incarnation, chain.highest, chain.records[chain.highest][0])
            for (writer, incarnation), chain in self.chains.items()
        ]

    def _take_place(self, entry: Entry) -> None:
        if not entry.place:
            return
        number = entry.record.number if entry.record is not None else None
        if self.last_place and entry.place <= self.last_place:
            self._name(entry, number, f"reordered: place {entry.place} stands behind place {self.last_place}")
            return
        if self.last_place and entry.place > self.last_place + 1:
            gap = _run("place", self.last_place + 1, entry.place - 1)
            self._problems.append(Problem("stream", "audit", None, f"{gap}: dropped"))
        self.first_place = self.first_place or entry.place
        self.last_place = entry.place

    def _enter(self, entry: Entry, record: AuditRecord) -> None:
        known = self._known.setdefault(record.writer, set())
        chain = self.chains.setdefault((record.writer, record.incarnation), Chain())
        if record.number in chain.records:
            same = chain.records[record.number][0] == record.digest
            self._name(entry, record.number, "stands there twice" if same else "stands there twice, not the same")
            return
        if record.number < chain.highest:
            self._name(entry, record.number, f"reordered: stands behind #{chain.highest}")
        before = chain.records.get(record.number - 1)
        if before is not None and before[0] != record.previous:
            self._name(entry, record.number, f"does not follow from #{record.number - 1}: one of the two was edited")
        if record.number == 0:
            self._begin(record, known)
        chain.records[record.number] = (record.digest, entry.place)
        if record.number > chain.highest:
            chain.highest, chain.newest_ns = record.number, record.time_unix_ns
        known.add(record.digest)
        if record.kind == "dropped":
            self.notes.append(_problem(record, "the writer could not store records in time and left some out"))

    def _begin(self, record: AuditRecord, known: set[str]) -> None:
        if not record.previous and known:
            # Nothing is hidden by it, and it happens where a writer's first two copies start at one time.
            self.notes.append(_problem(record, "names no chain before it, though there is one"))
        elif record.previous and record.previous not in known:
            self._unfounded.append((record, not known))

    def _name(self, entry: Entry, number: int | None, what: str) -> None:
        self._problems.append(Problem(entry.writer, entry.incarnation, number, what))


def against_heads(heads: Iterable[Head], found: Verifier) -> list[Problem]:
    """Return what does not fit the heads that were written down with a log: ends cut off, chains gone or added."""
    problems, told = [], set()
    for head in heads:
        name = (head.writer, head.incarnation)
        told.add(name)
        chain = found.chains.get(name, Chain())
        if not chain.records:
            problems.append(Problem(*name, head.number, "dropped: nothing is left of this chain, it ended here"))
        elif chain.highest < head.number:
            gap = _gap(chain.highest + 1, head.number)
            problems.append(Problem(*name, chain.highest + 1, f"dropped at the chain's end: {gap}"))
        elif chain.highest > head.number:
            problems.append(Problem(*name, head.number + 1, f"added: the chain ended with #{head.number}"))
        elif chain.records[head.number][0] != head.digest:
            problems.append(Problem(*name, head.number, "edited: the chain ended with another record"))
    added = [name for name in found.chains if name not in told]
    return [*problems, *(Problem(*name, None, "added: no head tells of this chain") for name in added)]


def compare(earlier: Verifier, now: Verifier, *, oldest_may_be_gone: bool = False) -> list[Problem]:
    """Return what of an earlier copy of a log was dropped or changed since.

    Args:
        earlier: the copy, taken in.
        now: the log as it is, taken in.
        oldest_may_be_gone: what lay before the first place there is now was dropped by the stream's limits.
    """
    problems = []
    for name, chain in earlier.chains.items():
        present = now.chains.get(name, Chain()).records
        gone = []
        for number, (was, place) in sorted(chain.records.items()):
            there = present.get(number)
            if there is not None and there[0] != was:
                problems.append(Problem(*name, number, "changed since the earlier export"))
            elif there is None and not (oldest_may_be_gone and place < now.first_place):
                gone.append(number)
        problems += [
            Problem(*name, first, f"dropped since the earlier export: {_gap(first, last)}")
            for first, last in _runs(gone)
        ]
    return problems


def _missing(chain: Chain) -> Iterator[tuple[int, int]]:
    if len(chain.records) == chain.highest + 1:
        return
    expected = 0
    for number in sorted(chain.records):
        if number > expected:
            yield expected, number - 1
        expected = number + 1


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _run(word: str, first: int, last: int) -> str:
    return f"{word} {first}" if first == last else f"{word}s {first} to {last}"


def _gap(first: int, last: int) -> str:
    return "it is not there" if first == last else f"#{first} to #{last} are not there"


def _problem(record: AuditRecord, what: str) -> Problem:
    return Problem(record.writer, record.incarnation, record.number, what)
