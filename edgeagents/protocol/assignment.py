"""Many tasks to many agents at once, at the least total cost: exact, one task an agent.

For small batches whose costs do not depend on each other; where tasks have to wait for each other, or agents carry
several, `scheduling.py` is exact, too.

Source: Crouse 2016 (scipy's `linear_sum_assignment`, a shortest augmenting path method).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from edgeagents.errors import InvalidInputError

MOST_CELLS: Final = 4_000_000
FINE: Final = 1e6  # beside what is so much dearer than the total, the solver's rounding would count
Matrix: TypeAlias = "np.ndarray[tuple[int, int], np.dtype[np.float64]]"


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which column each row has (None: none), the total cost, and why some have none."""

    columns: tuple[int | None, ...]
    total: float
    reasons: tuple[str, ...]


def assign(costs: Sequence[Sequence[float | None]]) -> Assignment:
    """Return the cheapest of the assignments that place as many rows as can be placed.

    Costs of all sizes may stand beside each other: the total is the least to one part in 10⁹.

    Args:
        costs: a row a task, a column an agent; None or infinite: it cannot be done. All others finite, 0 or more.

    Raises:
        InvalidInputError: rows of different lengths, a cost that is no number or negative, or far too many.
    """
    matrix = _matrix(costs)
    if matrix.size == 0:
        return Assignment((None,) * len(costs), 0.0, ("there is nobody to assign anything to",) if len(costs) else ())
    placed = _placed(matrix)
    found = tuple(placed.get(row) for row in range(len(costs)))
    is_possible = np.isfinite(matrix)
    reasons = tuple(_reason(row, is_possible) for row, column in enumerate(found) if column is None)
    return Assignment(found, _total(matrix, placed), reasons)


def _placed(matrix: Matrix) -> dict[int, int]:
    """Return the column of each row that is placed.

    Whatever is dearer than all that was placed together has no place in the best assignment. Where such costs are far
    dearer they are taken out and it is done once more: beside them small differences would be lost in rounding.
    """
    while True:
        is_possible = np.isfinite(matrix)
        # Dearer than all possible ones together: taken only where nothing else is left.
        dear = 2.0 * float(np.where(is_possible, matrix, 0.0).max(axis=1).sum()) or 1.0
        rows, columns = linear_sum_assignment(np.where(is_possible, matrix, dear))
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        placed = {row: column for row, column in pairs if is_possible[row, column]}
        total = _total(matrix, placed)
        is_too_dear = is_possible & (matrix > total)
        if dear <= FINE * total or not is_too_dear.any():
            return placed
        matrix = np.where(is_too_dear, math.inf, matrix)


def _total(matrix: Matrix, placed: Mapping[int, int]) -> float:
    return math.fsum(float(matrix[row, column]) for row, column in placed.items())


def _reason(row: int, is_possible: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]") -> str:
    able = int(is_possible[row].sum())
    if able == 0:
        return f"row {row}: nobody can do it"
    return f"row {row}: the {able} that could do it are needed elsewhere"


def _matrix(costs: Sequence[Sequence[float | None]]) -> Matrix:
    width = len(costs[0]) if costs else 0
    if any(len(row) != width for row in costs):
        raise InvalidInputError("a matrix of costs has rows of one length")
    if width * len(costs) > MOST_CELLS:
        raise InvalidInputError(f"{len(costs)} × {width} costs at once: at most {MOST_CELLS}, auction them instead")
    filled = [[math.inf if cost is None else cost for cost in row] for row in costs]
    matrix = np.array(filled, dtype=np.float64).reshape(len(costs), width)
    if np.isnan(matrix).any() or (matrix < 0).any():
        raise InvalidInputError("a cost is a number, 0 or more, or None where it cannot be done")
    if np.isfinite(matrix).any() and float(matrix[np.isfinite(matrix)].max()) > 1e15:
        raise InvalidInputError("a cost above 1e15: is it meant as impossible? Then write None")
    return matrix
