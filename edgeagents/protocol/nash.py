"""The exact Nash bargaining point: the outcome with the largest product of gains over what no agreement is worth.

Individually rational, Pareto-optimal, and the same whatever scale anybody's utilities are told in. Listed outcomes are
all looked at; outcomes that are combinations of issues are, up to `MOST_LISTED`, and found by branch and bound beyond.
Where nobody can have everybody gain, as many as possible gain, and the product is theirs. Exact ties go to the larger
smallest gain, then to the larger sum, then to the first.

Source: Nash 1950; the bound of the branch and bound is the inequality of arithmetic and geometric means.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import sub
from typing import Final, TypeAlias

from edgeagents.errors import InvalidInputError

MOST_LISTED: Final = 100_000
MOST_NODES: Final = 2_000_000
NEAR: Final = 1e-9  # relative: closer products are compared exactly
TINY: Final = 1e-250
Row: TypeAlias = Sequence[float]


@dataclass(frozen=True, slots=True)
class Bargain:
    """The best outcome: which one, what each party gains, and why; `place` is None when nothing suits all.

    Args:
        place: index of the listed outcome, or None.
        choice: index of the value of each issue; empty for listed outcomes.
        gains: of each party over its disagreement.
        reason: in words.
        is_proven: False: the search was cut short, there may be better ones.
    """

    place: int | None
    gains: tuple[float, ...]
    reason: str
    choice: tuple[int, ...] = ()
    is_proven: bool = True


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to agree on: for each of its values what it adds to the utility of each party."""

    name: str
    values: tuple[Row, ...]


def nash(rows: Sequence[Row], disagreement: Row) -> Bargain:
    """Return the best of listed outcomes.

    Args:
        rows: an outcome each: the utility of each party, 0 or more.
        disagreement: what no agreement is worth to each party.

    Raises:
        InvalidInputError: no outcomes, no parties, rows of different lengths, or a utility that is negative or none.
    """
    _check(rows, disagreement)
    best_count, best_product = 0, -1.0
    near: list[int] = []
    for place, row in enumerate(rows):
        gains = [*map(sub, row, disagreement)]
        least = min(gains)
        if least < 0:
            continue
        if least == 0:
            gains = [gain for gain in gains if gain]
        product, count = math.prod(gains), len(gains)
        if count < best_count or (count == best_count and product < best_product * (1 - NEAR)):
            continue
        if count > best_count or product > best_product * (1 + NEAR):
            near = []
        if count > best_count or product > best_product:
            best_count, best_product = count, product
        near.append(place)
    if not near:
        return Bargain(None, (), f"none of {len(rows)} outcomes is worth as much as no agreement to everybody")
    if best_product < TINY:  # too small for floats: all that suit everybody are compared exactly
        near = [place for place, row in enumerate(rows) if _count(row, disagreement) == best_count]
    place = max(near, key=lambda item: (_exact(rows[item], disagreement), -item))
    return _told(rows[place], disagreement, len(rows), place)


def _check(rows: Sequence[Row], disagreement: Row) -> None:
    if not rows or not disagreement:
        raise InvalidInputError(f"{len(rows)} outcomes for {len(disagreement)} parties: nothing to bargain about")
    for row in (*rows, disagreement):
        if len(row) != len(disagreement):
            raise InvalidInputError(f"an outcome with {len(row)} utilities for {len(disagreement)} parties")
        for utility in row:
            if not 0 <= utility <= 1e6:
                raise InvalidInputError(f"a utility is a number from 0 to 1e6, not {utility}")


def _count(row: Row, disagreement: Row) -> int:
    """Return how many gain; -1 when somebody loses."""
    pairs = list(zip(row, disagreement, strict=True))
    return -1 if any(u < d for u, d in pairs) else sum(u > d for u, d in pairs)


def _exact(row: Row, disagreement: Row) -> tuple[Fraction, Fraction, Fraction]:
    gains = [Fraction(u) - Fraction(d) for u, d in zip(row, disagreement, strict=True)]
    return math.prod((gain for gain in gains if gain > 0), start=Fraction(1)), min(gains), sum(gains, Fraction())


def _told(row: Row, disagreement: Row, count: int, place: int | None, choice: tuple[int, ...] = ()) -> Bargain:
    gains = tuple(u - d for u, d in zip(row, disagreement, strict=True))
    reason = f"largest product of gains of {count} outcomes: {', '.join(f'{gain:.4g}' for gain in gains)}"
    return Bargain(place, gains, reason, choice)


# --- issues ----------------------------------------------------------------------------------------


def nash_of_issues(issues: Sequence[Issue], disagreement: Row, most_nodes: int = MOST_NODES) -> Bargain:
    """Return the best combination of values, one of each issue; utilities add up over the issues.

    Raises:
        InvalidInputError: as `nash`.
    """
    if not issues:
        raise InvalidInputError("no issues: nothing to bargain about")
    for issue in issues:
        try:
            _check(issue.values, disagreement)
        except InvalidInputError as error:
            raise InvalidInputError(f"issue {issue.name!r}: {error}") from error
    size = math.prod(len(issue.values) for issue in issues)
    if size <= MOST_LISTED:
        choices = list(_choices(issues))
        rows = [_sum(issues, choice) for choice in choices]
        found = nash(rows, disagreement)
        if found.place is None:
            return found
        return Bargain(found.place, found.gains, found.reason, choices[found.place])
    return _Search(issues, disagreement, most_nodes).run(size)


def _choices(issues: Sequence[Issue]) -> Iterator[tuple[int, ...]]:
    """Yield all combinations, the last issue's values changing first."""
    choice = [0] * len(issues)
    while True:
        yield tuple(choice)
        place = len(issues) - 1
        while place >= 0 and choice[place] == len(issues[place].values) - 1:
            choice[place] = 0
            place -= 1
        if place < 0:
            return
        choice[place] += 1


def _sum(issues: Sequence[Issue], choice: Sequence[int]) -> tuple[float, ...]:
    rows = [issue.values[value] for issue, value in zip(issues, choice, strict=True)]
    return tuple(math.fsum(column) for column in zip(*rows, strict=True))


@dataclass
class _Search:
    """Branch and bound, depth first: a branch is left when neither bound lets it be better than the best so far."""

    issues: Sequence[Issue]
    disagreement: Row
    most_nodes: int
    nodes: int = 0
    best: tuple[int, float] = (-1, -1.0)  # how many gain, and their product
    best_choice: tuple[int, ...] = ()
    order: list[int] = field(default_factory=list)
    most_left: list[list[float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    weighed_left: list[float] = field(default_factory=list)

    def run(self, size: int) -> Bargain:
        parties = range(len(self.disagreement))

        def spread(place: int) -> float:
            return sum(max(row[p] for row in self.issues[place].values) for p in parties)

        self.order = sorted(range(len(self.issues)), key=lambda place: -spread(place))
        self.most_left = [[0.0] * len(self.disagreement)]
        for place in reversed(self.order):
            left = [max(row[p] for row in self.issues[place].values) + self.most_left[0][p] for p in parties]
            self.most_left.insert(0, left)
        self._go(0, [0.0] * len(self.disagreement), [])
        if not self.best_choice:
            text = f"none of {size} outcomes is worth as much as no agreement to everybody"
            return Bargain(None, (), text, is_proven=self.nodes < self.most_nodes)
        found = _told(_sum(self.issues, self.best_choice), self.disagreement, size, None, self.best_choice)
        return Bargain(None, found.gains, found.reason, found.choice, self.nodes < self.most_nodes)

    def _go(self, depth: int, so_far: list[float], chosen: list[int]) -> None:
        self.nodes += 1
        if self.nodes >= self.most_nodes:
            return
        if depth == len(self.order):
            self._reached(chosen)
            return
        issue = self.issues[self.order[depth]]
        branches = []
        for value, row in enumerate(issue.values):
            after = [have + more for have, more in zip(so_far, row, strict=True)]
            bound = self._bound(depth + 1, after)
            if bound is not None:
                branches.append((bound, value, after))
        for bound, value, after in sorted(branches, key=lambda item: (-item[0][0], -item[0][1], item[1])):
            if self._may_be_better(bound, depth + 1, after):
                self._go(depth + 1, after, [*chosen, value])

    def _bound(self, depth: int, so_far: list[float]) -> tuple[int, float] | None:
        """Return how many could gain, and what their product could be; None when somebody must lose."""
        count, product = 0, 1.0
        for have, left, least in zip(so_far, self.most_left[depth], self.disagreement, strict=True):
            gain = have + left - least
            if gain < -1e-12:
                return None
            if gain > 0:
                count, product = count + 1, product * gain
        return count, product

    def _may_be_better(self, bound: tuple[int, float], depth: int, so_far: list[float]) -> bool:
        if bound[0] != self.best[0]:
            return bound[0] > self.best[0]
        parties = len(self.disagreement)
        if bound[1] <= self.best[1] * (1 + 1e-12):
            return False
        if self.best[0] < parties or not self.weights:
            return True
        # Product of gains <= product of the best one's gains × (mean of gain / gain of the best)^parties.
        pairs = zip(so_far, self.disagreement, self.weights, strict=True)
        mean = (sum((have - least) * weight for have, least, weight in pairs) + self.weighed_left[depth]) / parties
        return bool(mean > 0 and mean**parties > 1 + 1e-12)

    def _reached(self, chosen: list[int]) -> None:
        choice = [0] * len(self.issues)
        for place, value in zip(self.order, chosen, strict=True):
            choice[place] = value
        row = _sum(self.issues, choice)
        count = _count(row, self.disagreement)
        gains = [u - d for u, d in zip(row, self.disagreement, strict=True)]
        found = (count, math.prod(gain for gain in gains if gain > 0))
        if count < 0 or found <= self.best:
            return
        self.best, self.best_choice = found, tuple(choice)
        if count == len(gains):
            self.weights = [1.0 / gain for gain in gains]
            self.weighed_left = [0.0]
            for place in reversed(self.order):
                most = max(
                    sum(w * more for w, more in zip(self.weights, row, strict=True))
                    for row in self.issues[place].values
                )
                self.weighed_left.insert(0, most + self.weighed_left[0])
