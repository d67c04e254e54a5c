"""Who is in which row: texts that get a token at each step come first, behind them those that are still computed.

`Rows.decode` computes into the first rows, so a text that begins or stops to get tokens changes places with another.
Copying a row costs 45 KiB a token, so nobody moves without need.

Source: `language.Decoder`, whose rows these are.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from edgeagents.inference.language import Block, Floats


class Rows(Protocol):
    """Memory of texts that are written, and what computes into it; see `language.Decoder`."""

    rows: int
    length: int

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Floats:
        """Compute a piece of a prompt."""

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Floats:
        """Compute a token more in each of the first rows."""

    def read(self, row: int, start: int, stop: int) -> Block:
        """Return a copy of what a row holds."""

    def write(self, row: int, start: int, block: Block) -> None:
        """Put what was read before into a row."""

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row to another."""

    def release(self) -> None:
        """Give the memory of all rows back; what they held is gone."""


class HasLength(Protocol):
    """A text in a row."""

    length: int  # tokens in its row


T = TypeVar("T", bound=HasLength)


class Places(Generic[T]):
    """Texts in rows 0, 1, …; texts are told apart by identity."""

    def __init__(self, rows: Rows, piece_tokens: int) -> None:
        """Hold nobody yet; rows are exchanged so many tokens at a time, so that it takes little memory."""
        self._rows, self._piece_tokens = rows, piece_tokens
        self.all: list[T] = []
        self._running = 0  # so many of the first ones

    @property
    def running(self) -> list[T]:
        """Those that get a token at each step, in rows 0, 1, …."""
        return self.all[: self._running]

    @property
    def behind(self) -> list[T]:
        """Those that are computed until they can."""
        return self.all[self._running :]

    def row(self, text: T) -> int:
        """Return where a text is."""
        return self.all.index(text)

    def add(self, text: T) -> None:
        """Give the first free row to a text that is behind."""
        self.all.append(text)

    def run(self, text: T) -> None:
        """Have a text that was behind run."""
        self._exchange(self.row(text), self._running)
        self._running += 1

    def hold(self, text: T) -> None:
        """Have a text that ran be behind."""
        self._running -= 1
        self._exchange(self.row(text), self._running)

    def remove(self, text: T) -> None:
        """Take a text out, and close the gap its row leaves."""
        gap = self.row(text)
        if gap < self._running:
            self._running -= 1
            self._fill(gap, self._running)
            gap = self._running
        self._fill(gap, len(self.all) - 1)
        self.all.pop()

    def _fill(self, gap: int, source: int) -> None:
        if source != gap:
            self._rows.move(source, gap, self.all[source].length)
            self.all[gap] = self.all[source]

    def _exchange(self, one: int, other: int) -> None:
        if one == other:
            return
        longest = max(self.all[one].length, self.all[other].length)
        for start in range(0, longest, self._piece_tokens):
            stop = min(start + self._piece_tokens, longest)
            first, second = self._rows.read(one, start, stop), self._rows.read(other, start, stop)
            self._rows.write(one, start, second)
            self._rows.write(other, start, first)
        self.all[one], self.all[other] = self.all[other], self.all[one]
