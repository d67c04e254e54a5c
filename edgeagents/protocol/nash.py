"""The exact Nash bargaining point: the outcome with the largest product of gains over what no agreement is worth.

Individually rational, Pareto-optimal, and the same whatever scale anybody's utilities are told in. Listed outcomes are
all looked at; outcomes that are combinations of issues are, up to `MOST_LISTED`, and found by branch and bound beyond
(`nash_search.py`). Where nobody can have everybody gain, as many as possible gain, and the product is theirs. Exact
ties go to the larger smallest gain, then to the larger sum, then to the first.

Source: Nash 1950.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from operator import sub
from typing import Final, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.protocol.nash_search import Search

MOST_LISTED: Final = 100_000
MOST_NODES: Final = 2_000_000  # values of issues that a search looks at
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
    distinct: dict[Row, int] = {}  # of equal ones the first: ties everywhere cost no more than none
    for place in near:
        distinct.setdefault(tuple(rows[place]), place)
    place = max(distinct.values(), key=lambda item: (_exact(rows[item], disagreement), -item))
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
    reason = f"largest product of gains of {_many(count)} outcomes: {', '.join(f'{gain:.4g}' for gain in gains)}"
    return Bargain(place, gains, reason, choice)


def _many(count: int) -> str:
    """Return a number of outcomes in words; Python writes no integer of thousands of digits."""
    return str(count) if count < 10**15 else f"some 10^{math.log10(count):.0f}"


# --- issues ----------------------------------------------------------------------------------------


def nash_of_issues(issues: Sequence[Issue], disagreement: Row, most_nodes: int = MOST_NODES) -> Bargain:
    """Return the best combination of values, one of each issue; utilities add up over the issues.

    Of combinations that give everybody the same it is the first, beyond `MOST_LISTED` the first that the search meets.

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
    search = Search([issue.values for issue in issues], disagreement, most_nodes)
    search.run()
    if search.choice is None:
        text = f"none of {_many(size)} outcomes is worth as much as no agreement to everybody"
        text = text if search.is_proven else f"{text}, as far as was looked"
        return Bargain(None, (), text, is_proven=search.is_proven)
    found = _told(_sum(issues, search.choice), disagreement, size, None, search.choice)
    return replace(found, is_proven=search.is_proven)


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
