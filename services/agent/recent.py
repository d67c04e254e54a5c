"""Statistics over the last samples of one resource: plain functions of the samples and the time now.

Source: docs/agents.md; least squares for `trend`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edgeagents.model.agent import Sample


def statistic(take: str, samples: Sequence[Sample], site_s: float) -> float | None:
    """Return a statistic of samples, oldest first; None when they are no numbers or too few.

    Args:
        take: one of the words in `STATISTICS`, or `age`.
        samples: of one resource, oldest first.
        site_s: site time now.
    """
    try:
        numbers = [float(item.value) for item in samples if isinstance(item.value, (int, float))]
    except OverflowError:  # an integer beyond any float
        return None
    if not samples or len(numbers) != len(samples):
        return None
    if take == "age":
        return site_s - samples[-1].site_s
    return STATISTICS[take]([item.site_s for item in samples], numbers)


def trend_per_h(times_s: Sequence[float], numbers: Sequence[float]) -> float | None:
    """Return the slope of the least-squares line, in units per hour of site time; None for a single time."""
    mean_s, mean = math.fsum(times_s) / len(times_s), math.fsum(numbers) / len(numbers)
    spread = math.fsum((at - mean_s) ** 2 for at in times_s)
    if spread == 0.0:
        return None
    slope = math.fsum((at - mean_s) * (number - mean) for at, number in zip(times_s, numbers, strict=True)) / spread
    return 3600.0 * slope


STATISTICS: Final[Mapping[str, Callable[[Sequence[float], Sequence[float]], float | None]]] = {
    "mean": lambda times_s, numbers: math.fsum(numbers) / len(numbers),
    "minimum": lambda times_s, numbers: min(numbers),
    "maximum": lambda times_s, numbers: max(numbers),
    "change": lambda times_s, numbers: numbers[-1] - numbers[0],
    "trend": trend_per_h,
}
