"""Branch and bound for the Nash point of many issues: exact, in integers, as deep as there are issues.

Every utility is a whole number of some power of two, so each party's are counted in its own unit: sums, gains and
products are exact, and the Nash point does not change with units. Only what a float cannot tell from the disagreement
counts as just as good: the sums that are told are floats.

Source: Land and Doig 1960; the second bound is the inequality of arithmetic and geometric means.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

Whole: TypeAlias = tuple[int, ...]
Score: TypeAlias = tuple[int, int]  # how many gain, and the product of their gains


@dataclass(frozen=True, slots=True)
class _Least:
    """What no agreement is worth to a party; sums from `low` to `high` are told as the same float. In its unit."""

    value: int
    low: int
    high: int


@dataclass(slots=True)
class _Branch:
    """The first issues are settled: what each party has of them, by which values, and what may come of it at most."""

    bound: Score
    have: Whole
    depth: int
    value: int
    before: "_Branch | None"


@dataclass
class Search:
    """Finds the best choice: depth first, leaving a branch when no outcome below it can be better than the best so far.

    Args:
        values: of each issue, for each of its values what it adds to the utility of each party.
        disagreement: what no agreement is worth to each party.
        most_nodes: after so many values that were looked at it stops.
    """

    values: Sequence[Sequence[Sequence[float]]]
    disagreement: Sequence[float]
    most_nodes: int
    nodes: int = 0
    choice: tuple[int, ...] | None = None  # the best so far
    is_proven: bool = False
    _best: tuple[int, int, Fraction, Fraction] = (-1, 0, Fraction(), Fraction())
    _order: list[int] = field(default_factory=list)
    _units: list[int] = field(default_factory=list)  # of each party, in one
    _least: list[_Least] = field(default_factory=list)
    _rows: list[list[Whole]] = field(default_factory=list)  # of each issue, in the order of the search
    _most: list[Whole] = field(default_factory=list)  # by depth: what the issues left can add at most
    _weights: Whole = ()
    _weighed_most: list[int] = field(default_factory=list)

    def run(self) -> None:
        """Search: then `choice` is the best one, or None when none suits all, for sure if it `is_proven`."""
        self._prepare()
        root = self._branch(tuple(0 for _ in self.disagreement), 0, 0, None)
        stack = [root] if root is not None else []
        while stack and self.nodes < self.most_nodes:
            branch = stack.pop()
            if not self._may_be_better(branch):
                continue
            if branch.depth == len(self._rows):
                self._reached(branch)
                continue
            rows = self._rows[branch.depth]
            self.nodes += len(rows)
            below = [self._branch(_plus(branch.have, row), branch.depth + 1, n, branch) for n, row in enumerate(rows)]
            # The most promising one is looked at first, of equal ones that of the first value.
            stack.extend(sorted((item for item in below if item is not None), key=lambda it: (it.bound, -it.value)))
        self.is_proven = not stack

    def _prepare(self) -> None:
        columns = list(zip(*(row for issue in self.values for row in issue), strict=True))
        self._units = [_unit((*column, least), least) for column, least in zip(columns, self.disagreement, strict=True)]
        self._least = [_least(least, unit) for least, unit in zip(self.disagreement, self._units, strict=True)]
        most = [[max(column) for column in zip(*issue, strict=True)] for issue in self.values]
        self._order = sorted(range(len(most)), key=lambda place: -sum(most[place]))
        for place in self._order:
            self._rows.append([tuple(map(_whole, row, self._units)) for row in self.values[place]])
        self._most = [tuple(0 for _ in self.disagreement)]
        for rows in reversed(self._rows):
            self._most.append(_plus(self._most[-1], tuple(max(column) for column in zip(*rows, strict=True))))
        self._most.reverse()

    def _branch(self, have: Whole, depth: int, value: int, before: _Branch | None) -> _Branch | None:
        """Return a branch with how many could gain, and what their product could be; None when somebody must lose."""
        count, product = 0, 1
        for most, least in zip(_plus(have, self._most[depth]), self._least, strict=True):
            if most < least.low:
                return None
            if most > least.high:
                count, product = count + 1, product * (most - least.value)
        return _Branch((count, product), have, depth, value, before)

    def _may_be_better(self, branch: _Branch) -> bool:
        if branch.bound < self._best[:2]:
            return False
        if branch.bound[0] > self._best[0] or not self._weights:
            return True
        # Weighed by 1/gain of the best: whose gains add up to no more has no larger product, and as large a one is it.
        parts = zip(self._weights, branch.have, self._least, strict=True)
        gains = sum(weight * (have - least.value) for weight, have, least in parts)
        return gains + self._weighed_most[branch.depth] > self._best[0] * self._best[1]

    def _reached(self, branch: _Branch) -> None:
        pairs = zip(branch.have, self._least, strict=True)
        gains = [have - least.value if have > least.high else 0 for have, least in pairs]
        told = [Fraction(gain, unit) for gain, unit in zip(gains, self._units, strict=True)]
        found = (*branch.bound, min(told), sum(told, Fraction()))
        if found <= self._best:
            return
        self._best, self.choice = found, self._chosen(branch)
        if branch.bound[0] < sum(most > least.high for most, least in zip(self._most[0], self._least, strict=True)):
            return  # others may gain yet: this one's weights say nothing of those who do not
        product = branch.bound[1]
        self._weights = tuple(product // gain if gain else 0 for gain in gains)
        self._weighed_most = [0]
        for rows in reversed(self._rows):
            most = max(sum(map(int.__mul__, self._weights, row)) for row in rows)
            self._weighed_most.append(most + self._weighed_most[-1])
        self._weighed_most.reverse()

    def _chosen(self, branch: _Branch) -> tuple[int, ...]:
        choice, step = [0] * len(self._order), branch
        while step.before is not None:
            choice[self._order[step.depth - 1]], step = step.value, step.before
        return tuple(choice)


def _plus(one: Whole, other: Whole) -> Whole:
    return tuple(map(int.__add__, one, other))


def _unit(numbers: Iterable[float], least: float) -> int:
    """Return how many units are in one, so that all numbers are whole, and so is what rounds to the least."""
    rounding = math.ulp(math.nextafter(least, 0.0)) if least else 1.0
    return max(2 * rounding.as_integer_ratio()[1], *(float(number).as_integer_ratio()[1] for number in numbers))


def _whole(number: float, unit: int) -> int:
    above, below = float(number).as_integer_ratio()
    return above * (unit // below)


def _least(least: float, unit: int) -> _Least:
    value = _whole(least, unit)
    if not value:
        return _Least(0, 0, 0)
    before, after = (_whole(math.nextafter(least, way), unit) for way in (-math.inf, math.inf))
    # What lies halfway is rounded to the even one.
    is_odd = int(least / math.ulp(least)) % 2
    return _Least(value, (before + value) // 2 + is_odd, (value + after) // 2 - is_odd)
