"""What an agent would like, as its owner writes it down: a utility from 0 to 1 of what the world would be like.

One YAML file per agent. A utility is a weighted mean of parts, each a function of one quantity with values from 0 to
1; weights may depend on the time of day and on who is at home. Computed by code, so an agent's utilities are its
owner's words, not its own.

Source: design.md section 5; docs/protocols.md shows an example.
"""

import itertools
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from edgeagents.model.agent import OwnerModel

DAY_S = 86_400.0
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
Gain: TypeAlias = Annotated[float, Field(ge=0, le=1, description="a share of all that can be gained")]


def seconds_of_day(text: object) -> object:
    """Return the seconds since midnight that `07:30` stands for; seconds as they are, when they are whole minutes.

    Raises:
        ValueError: a text or a number that is no time of day: `22` would be 00:22.
    """
    if isinstance(text, bool) or not isinstance(text, (int, float, str)):
        return text
    # YAML 1.1 reads 07:30 without quotes as a number in base 60, the whole number 450: at least 1:00, 60.
    if isinstance(text, int) and 60 <= text <= 24 * 60:
        return float(text * 60)
    if isinstance(text, float) and text % 60 == 0:
        return text
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no time of day: write it in quotes, as '07:30'")
    if not _CLOCK.fullmatch(text):
        raise ValueError(f"{text!r} is no time of day: write 07:30")
    hours, minutes = text.split(":")
    return int(hours) * 3600.0 + int(minutes) * 60.0


class PiecewiseLinear(OwnerModel):
    """Straight lines between points; flat before the first and behind the last."""

    kind: Literal["linear"]
    points: tuple[tuple[float, Gain], ...] = Field(min_length=2, max_length=64)

    @model_validator(mode="after")
    def _in_order(self) -> "PiecewiseLinear":
        for (before, _), (after, _) in itertools.pairwise(self.points):
            if not before < after:
                raise ValueError(f"points must go up: {after:g} comes behind {before:g}")
        if len({gain for _, gain in self.points}) == 1:
            raise ValueError("all points have one gain: then nothing is preferred, leave it out")
        return self


class Quadratic(OwnerModel):
    """1 at `best`, falling as the square of the distance, 0 from `width` on."""

    kind: Literal["quadratic"]
    best: float
    width: float = Field(gt=0)


class Threshold(OwnerModel):
    """`inside` between the limits (both belong to it), `outside` elsewhere."""

    kind: Literal["threshold"]
    above: float | None = None
    below: float | None = None
    inside: Gain = 1.0
    outside: Gain = 0.0

    @model_validator(mode="after")
    def _means_something(self) -> "Threshold":
        if self.above is None and self.below is None:
            raise ValueError("give above, below or both")
        if self.above is not None and self.below is not None and self.above > self.below:
            raise ValueError(f"nothing is above {self.above:g} and below {self.below:g}: swap them")
        if self.inside == self.outside:
            raise ValueError("inside and outside are the same: then nothing is preferred, leave it out")
        return self


Shape: TypeAlias = Annotated[PiecewiseLinear | Quadratic | Threshold, Field(discriminator="kind")]


def most(shape: Shape) -> float:
    """Return the most that a shape's quantity can gain."""
    match shape:
        case PiecewiseLinear(points=points):
            return max(gain for _, gain in points)
        case Threshold(inside=inside, outside=outside):
            return max(inside, outside)
        case Quadratic():
            return 1.0


class When(OwnerModel):
    """Another weight at a time of day, or while somebody is there; the first that fits counts."""

    weight: float = Field(ge=0, le=1000)
    since: float | None = Field(None, ge=0, le=DAY_S, description="time of day: 22:00")
    until: float | None = Field(None, ge=0, le=DAY_S, description="time of day; before `since`: over midnight")
    person: str = Field("", max_length=128)

    _clock = field_validator("since", "until", mode="before")(seconds_of_day)

    @model_validator(mode="after")
    def _means_something(self) -> "When":
        if (self.since is None) != (self.until is None):
            raise ValueError("give since and until, or neither")
        if self.since is None and not self.person:
            raise ValueError("give a time (since, until), a person, or both")
        if self.since is not None and self.since == self.until:
            raise ValueError("since and until are the same: leave both out")
        return self

    def fits(self, second_of_day: float, persons: frozenset[str]) -> bool:
        """Say whether this weight counts now."""
        if self.person and self.person not in persons:
            return False
        if self.since is None or self.until is None:
            return True
        if self.since < self.until:
            return self.since <= second_of_day < self.until
        return second_of_day >= self.since or second_of_day < self.until


class Part(OwnerModel):
    """What the agent thinks of one quantity."""

    of: str = Field(min_length=1, max_length=512, description="device/resource, or a word of the site: cost_eur")
    shape: Shape
    weight: float = Field(1.0, ge=0, le=1000)
    when: tuple[When, ...] = Field((), max_length=64)
    unit: str = Field("", max_length=32)


class Preferences(OwnerModel):
    """All that one agent would like."""

    agent: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    parts: tuple[Part, ...] = Field(min_length=1, max_length=64)
    disagreement: float = Field(0.0, ge=0, lt=1, description="what no agreement is worth to it")

    @field_validator("parts", mode="before")
    @classmethod
    def _negative(cls, value: Any) -> Any:
        for part in value if isinstance(value, (list, tuple)) else ():
            weight = part.get("weight") if isinstance(part, dict) else None
            if isinstance(weight, (int, float)) and weight < 0:
                raise ValueError(f"{part.get('of')}: a weight is never negative; to dislike, turn its shape around")
        return value

    @model_validator(mode="after")
    def _not_contradictory(self) -> "Preferences":
        names = [part.of for part in self.parts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} stands there twice: two opinions of one quantity, write one shape")
        if not any(part.weight > 0 or any(when.weight > 0 for when in part.when) for part in self.parts):
            raise ValueError("all weights are 0: then nothing is preferred")
        best = max(most(part.shape) for part in self.parts)
        if self.disagreement >= best:
            raise ValueError(f"disagreement {self.disagreement:g} is as good as the best outcome, {best:g}: lower it")
        return self
