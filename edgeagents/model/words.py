"""`words.yaml`: what people call the rooms and devices of a site, and what a device's resources are good for.

All of it is optional: what the file does not say is taken from names, labels, descriptions and units in core-metadata
(`services/agent/house.py`). It permits nothing: what may be commanded stands in agent files and `site.yaml` alone.

Source: docs/ask.md shows an example field by field.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from edgeagents.model.agent import OwnerModel, Selector

Language: TypeAlias = Literal["en", "zh"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
Kind: TypeAlias = Literal["light", "blind", "heating", "ventilation", "switch", "sensor"]
Role: TypeAlias = Literal[
    "switch",  # a Bool that is true while it is on
    "brightness",  # percent
    "open",  # percent open
    "closed",  # percent closed: 100 is shut
    "target",  # wanted temperature of the room, °C
    "level",  # whole steps, 0 is off
    "temperature", "outdoor", "humidity", "co2", "presence", "window", "power", "price",
]  # fmt: skip
ROLES: Final[tuple[Role, ...]] = get_args(Role)
Spoken: TypeAlias = Annotated[str, Field(min_length=1, max_length=60)]


class Named(OwnerModel):
    """Names in the languages people speak here."""

    en: tuple[Spoken, ...] = ()
    zh: tuple[Spoken, ...] = ()

    def names(self, language: Language) -> tuple[str, ...]:
        """Return the names in one language."""
        return self.en if language == "en" else self.zh


class Room(Named):
    """A room: the devices that carry its label in EdgeX are in it."""

    label: str = Field(min_length=1)


class ThingWords(Selector):
    """Devices that people call by one word."""

    en: tuple[Spoken, ...] = ()
    zh: tuple[Spoken, ...] = ()
    kind: Kind | None = Field(None, description="what it is; none: told by its profile")
    resources: Mapping[Role, str] = Field(default_factory=dict, description="role -> device resource")

    @model_validator(mode="after")
    def _sane(self) -> "ThingWords":
        if not (self.device or self.profile or self.label):
            raise ValueError("name the devices by device, profile or label")
        return self

    def names(self, language: Language) -> tuple[str, ...]:
        """Return the names in one language."""
        return self.en if language == "en" else self.zh


class Words(OwnerModel):
    """The whole file."""

    rooms: tuple[Room, ...] = Field((), max_length=200)
    things: tuple[ThingWords, ...] = Field((), max_length=500)
    away: float = Field(17.0, ge=5, le=25, description="wanted temperature of rooms when everybody leaves, °C")
    step: float = Field(1.0, gt=0, le=5, description="how much warmer or cooler `it is too cold` means, °C")

    @model_validator(mode="after")
    def _labels_once(self) -> "Words":
        labels = [room.label for room in self.rooms]
        if len(labels) != len(set(labels)):
            raise ValueError("two rooms have one label")
        return self
