"""What an agent's owner lets it bid for: `set` on what it may command, or a name for one command.

Source: design.md section 5; docs/tasks.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgeagents.errors import InvalidInputError
from edgeagents.model.message import Word

SET: Final = "set"  # the skill that needs no template: set one resource of one device
MOST_VALUE_CHARS: Final = 1_024
_HOLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def as_text(value: Any) -> Any:
    """Return a JSON boolean or number as EdgeX writes it, anything else as it is.

    Raises:
        ValueError: a number that is none.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise ValueError(f"{value} is no value")
    return repr(value) if isinstance(value, (int, float)) else value


class SkillSet(BaseModel):
    """The command that a named skill stands for; `{name}` is replaced by the task's parameter of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(min_length=1, max_length=512)
    resource: str = Field(min_length=1, max_length=512)
    value: str = Field(min_length=1, max_length=MOST_VALUE_CHARS)

    _text = field_validator("value", mode="before")(as_text)


class Skill(BaseModel):
    """One thing an agent bids for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Word
    set: SkillSet | None = None
    cost_s: float = Field(1.0, ge=0, le=86_400, description="what doing it takes, seconds: the bid's first part")

    @model_validator(mode="after")
    def _means_something(self) -> "Skill":
        if (self.set is None) != (self.name == SET):
            raise ValueError("skill 'set' has no template, every other one needs one: set: {device, resource, value}")
        return self


@dataclass(frozen=True, slots=True)
class Aim:
    """The one command by which a task is done."""

    device: str
    resource: str
    value: str


def aim_of(skill: Skill, device: str, resource: str, value: str, params: Mapping[str, str]) -> Aim:
    """Return the command that a task asks of who has this skill.

    Raises:
        InvalidInputError: a parameter of the template is missing.
    """
    if skill.set is None:
        return Aim(device, resource, value)
    known = {**params, "device": device, "resource": resource, "value": value}

    def put_in(found: re.Match[str]) -> str:
        name = found.group(1)
        if not known.get(name):
            raise InvalidInputError(f"skill {skill.name!r} needs the parameter {name!r}")
        return known[name]

    filled = (_HOLE.sub(put_in, text) for text in (skill.set.device, skill.set.resource, skill.set.value))
    return Aim(*filled)
