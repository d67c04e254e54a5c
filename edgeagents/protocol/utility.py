"""What an outcome is worth to an agent, from 0 to 1, with the reasons: its owner's preferences, computed.

Source: `model/preferences.py`; Keeney and Raiffa 1976 (additive multi-attribute utility).
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeagents.errors import InvalidInputError
from edgeagents.model.preferences import DAY_S, Part, PiecewiseLinear, Preferences, Quadratic, Shape, Threshold


@dataclass(frozen=True, slots=True)
class Moment:
    """When, and who is there: `second_of_day` in site time."""

    second_of_day: float = 12 * 3600.0
    persons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Share:
    """What one part adds: its weight's share of all, times its gain."""

    of: str
    value: float
    gain: float
    share: float


@dataclass(frozen=True, slots=True)
class Worth:
    """A utility and what it is made of."""

    utility: float
    shares: tuple[Share, ...]


def gain(shape: Shape, value: float) -> float:
    """Return what a value of a quantity is worth, 0 to 1.

    Raises:
        InvalidInputError: the value is no number.
    """
    if math.isnan(value):
        raise InvalidInputError("a quantity that is no number is worth nothing that could be told")
    match shape:
        case PiecewiseLinear(points=points):
            return _between(points, value)
        case Quadratic(best=best, width=width):
            off = min(1.0, abs(value - best) / width)
            return 1.0 - off * off
        case Threshold():
            is_inside = (shape.above is None or value >= shape.above) and (shape.below is None or value <= shape.below)
            return shape.inside if is_inside else shape.outside


def _between(points: tuple[tuple[float, float], ...], value: float) -> float:
    if value <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in itertools.pairwise(points):
        if value <= right:
            # Weighted this way round it never leaves the two gains, whatever rounding does.
            along = (value - left) / (right - left)
            return low * (1.0 - along) + high * along
    return points[-1][1]


def weight_of(part: Part, moment: Moment) -> float:
    """Return how much a part counts at a moment: the first special weight that fits, else its own."""
    second = moment.second_of_day % DAY_S
    return next((when.weight for when in part.when if when.fits(second, moment.persons)), part.weight)


def worth(preferences: Preferences, outcome: Mapping[str, float], moment: Moment) -> Worth:
    """Return what an outcome is worth to an agent.

    Args:
        preferences: the owner's words.
        outcome: what each quantity would be; quantities that nobody asks for are ignored.
        moment: time of day and persons, for the weights.

    Raises:
        InvalidInputError: a quantity is missing or no number, or nothing counts at this moment.
    """
    weights = [weight_of(part, moment) for part in preferences.parts]
    total = math.fsum(weights)
    if not total > 0:
        raise InvalidInputError(f"agent {preferences.agent!r} prefers nothing now: all weights are 0, see its `when`")
    shares = []
    for part, weight in zip(preferences.parts, weights, strict=True):
        if weight == 0:
            continue
        if part.of not in outcome:
            raise InvalidInputError(f"the outcome does not say {part.of!r}, which agent {preferences.agent!r} looks at")
        value = outcome[part.of]
        shares.append(Share(part.of, value, gain(part.shape, value), weight / total))
    utility = math.fsum(share.gain * share.share for share in shares)
    return Worth(min(1.0, max(0.0, utility)), tuple(shares))
