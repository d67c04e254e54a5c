"""How much one writer may put into a stream that all share: how fast, and how much of it at most.

    stored, within the ration -> nothing
    stored, beyond it         -> `Cut`: the stream takes nothing of the writer for a while, longer each time in a day
    the while is over         -> `Restored`
    the stream is half full   -> `Trim` for each writer that holds more than its share: its own oldest go

Each writer has a share of half the stream, and nobody loses a record for another while the other half has room for
what comes between two looks. The guard looks at samples, so what it charges is an estimate; what is cut or trimmed is
exact, since a writer is part of the subject.

Source: token bucket; docs/decisions/0012.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

UNIT_BYTES: Final = 4096  # a long message counts as several
FIRST_CUT_S: Final = 60.0
LONGEST_CUT_S: Final = 3600.0
FORGIVEN_S: Final = 86_400.0  # after so long without a cut the next one is a first one
LENIENCE: Final = 1.25  # an estimate that is so much over the share may still be within it


@dataclass(frozen=True, slots=True)
class Ration:
    """What a writer may store: `per_s` units a second on average, and `burst` at once."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Account:
    """One writer's: units it may store now, as of `at_s`, how often it was cut, and when the last cut ended or ends."""

    left: float
    at_s: float
    cuts: int = 0
    cut_until_s: float = 0.0
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Book:
    """All writers of one stream; times are the guard's monotonic clock."""

    ration: Ration
    accounts: Mapping[str, Account] = field(default_factory=dict)

    @property
    def cut(self) -> frozenset[str]:
        """The writers that the stream takes nothing of now."""
        return frozenset(name for name, account in self.accounts.items() if account.cut_until_s)


@dataclass(frozen=True, slots=True)
class Sample:
    """One message of a stream: whose, and how long."""

    writer: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Take nothing of a writer for so long."""

    writer: str
    for_s: float


@dataclass(frozen=True, slots=True)
class Restored:
    """Take a writer's messages again."""

    writer: str


@dataclass(frozen=True, slots=True)
class Trim:
    """Keep the newest so many messages of a writer."""

    writer: str
    keep: int


Effect: TypeAlias = Cut | Restored


def charge(book: Book, samples: Iterable[Sample], stored: int, now_s: float) -> tuple[Book, list[Effect]]:
    """Return the book after so many messages more, of which these are evenly spaced samples, and what follows."""
    found = list(samples)
    weight = stored / len(found) if found else 0.0
    units: dict[str, float] = {}
    for sample in found:
        units[sample.writer] = units.get(sample.writer, 0.0) + max(1.0, sample.size_bytes / UNIT_BYTES) * weight
    accounts, effects = dict(book.accounts), list[Effect]()
    for writer in {*accounts, *units}:
        account, effect = _charged(book.ration, writer, accounts.get(writer), units.get(writer, 0.0), now_s)
        if account is None:
            accounts.pop(writer, None)
        else:
            accounts[writer] = account
        if effect is not None:
            effects.append(effect)
    return replace(book, accounts=accounts), effects


def _charged(
    ration: Ration, writer: str, known: Account | None, units: float, now_s: float
) -> tuple[Account | None, Effect | None]:
    known = known or Account(ration.burst, now_s)
    left = min(ration.burst, known.left + (now_s - known.at_s) * ration.per_s) - units
    if known.cut_until_s:
        if now_s < known.cut_until_s:
            return replace(known, left=max(0.0, left), at_s=now_s), None
        return replace(known, left=ration.burst / 2, at_s=now_s, cut_until_s=0.0), Restored(writer)
    if known.cuts and now_s - known.ended_s >= FORGIVEN_S:
        known = replace(known, cuts=0)
    if left < 0:
        for_s = min(LONGEST_CUT_S, FIRST_CUT_S * 2.0**known.cuts)
        return Account(0.0, now_s, known.cuts + 1, now_s + for_s, now_s + for_s), Cut(writer, for_s)
    if left >= ration.burst and not known.cuts:
        return None, None  # as if it had never stored anything
    return replace(known, left=left, at_s=now_s), None


def over_share(samples: Iterable[Sample], size_bytes: int, share_bytes: float) -> list[Trim]:
    """Return who holds more than a share of a stream, and how much of it to keep.

    Places where nothing lies any more make samples uneven, so who holds how much is an estimate. What is kept is none:
    as many of a writer's newest messages as fill its share at their usual length.

    Args:
        samples: messages, evenly spaced over the places of a stream.
        size_bytes: how long all messages of the stream are together.
        share_bytes: what each writer may hold.
    """
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for sample in samples:
        counts[sample.writer] += 1
        sizes[sample.writer] += sample.size_bytes
    if not sizes.total():
        return []
    found = []
    for writer in sorted(sizes):
        held_bytes = size_bytes * sizes[writer] / sizes.total()
        if held_bytes > LENIENCE * share_bytes:
            found.append(Trim(writer, max(1, int(share_bytes * counts[writer] / sizes[writer]))))
    return found
