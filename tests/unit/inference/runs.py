"""A token loop over rows without a model, and what it would write of each prompt if it wrote that text alone."""

from collections import Counter
from collections.abc import Sequence

from edgeagents.inference.generate import Finished, Loop, Written
from edgeagents.inference.prefix import Prefixes
from tests.unit.inference.rows import END, TokenRows, follows, vocabulary

WORDS = vocabulary()
PIECE = 8


class Run:
    """A loop whose clock is set by hand, and all it said."""

    def __init__(self, rows: int = 3, budget_bytes: int = 1 << 20, length: int = 64) -> None:
        self.rows, self.now_s = TokenRows(rows, length), 0.0
        self.prefixes = Prefixes(budget_bytes)
        self.loop = Loop(self.rows, WORDS, [END], self.prefixes, lambda: self.now_s, PIECE)
        self.said: list[Written | Finished] = []

    def step(self) -> None:
        self.said += self.loop.step()

    def finish(self, most: int = 10_000) -> dict[str, Finished]:
        """Step until nothing is left; return how each ended."""
        for _ in range(most):
            if self.loop.is_idle:
                break
            self.step()
        assert self.loop.is_idle
        return self.ended()

    def ended(self) -> dict[str, Finished]:
        found = [item for item in self.said if isinstance(item, Finished)]
        assert max(Counter(item.name for item in found).values(), default=1) == 1, "none ends twice"
        return {item.name: item for item in found}


def answer(prompt: Sequence[int], most: int) -> tuple[tuple[int, ...], str]:
    """Return what a loop that writes one text alone would write, and why it ends."""
    tokens = list(prompt)
    for _ in range(most):
        token = follows(tokens)
        if token == END:
            return tuple(tokens[len(prompt) :]), "stop"
        tokens.append(token)
    return tuple(tokens[len(prompt) :]), "length"


def prompt(number: int, length: int = 10) -> tuple[int, ...]:
    return tuple((number * 7 + place * 3) % 90 + 32 for place in range(length))


def talkative(number: int, length: int = 10, most: int = 40) -> tuple[int, ...]:
    """Return a prompt whose answer does not end by itself."""
    found = (prompt(other, length) for other in range(number, number + 90))
    return next(tokens for tokens in found if answer(tokens, most)[1] == "length")
