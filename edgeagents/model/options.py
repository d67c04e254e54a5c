"""What a language model may answer: commands an agent may give now, its tasks, a question, or nothing and why.

An agent's options follow from its permissions, the devices it knows and their profiles. Nothing outside of them can be
said (`inference/constrain.py` makes a grammar of them) or is understood (`model/answer.py`). They are a plain value:
they travel to whoever writes, and their digest names the grammar.

Numbers are whole steps: with `decimals` 1 a slot from 140 to 230 means 14.0 to 23.0, exactly. Leaves out what only the
guard knows (rates, interlocks, the owner's limits in `site.yaml`): an answer is a proposal like any other.

Source: design.md section 6; `protocol/gate.py`, which judges the same permissions.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition, Permission
from edgeagents.model.device import Device, DeviceResource
from edgeagents.model.device import Profile as DeviceProfile
from edgeagents.model.message import Word
from edgeagents.model.values import INTEGER_RANGES, SIMPLE_TYPES, Value, is_numeric, parse_value

Key: TypeAlias = tuple[str, str]  # device, resource
MOST_SLOTS: Final = 20_000
MOST_TEXT: Final = 400
MOST_VALUES: Final = 4096  # of one resource
MOST_VALUE_CHARS: Final = 1024
MOST_DECIMALS: Final = 6
MOST_STEPS: Final = 10**24
# Where neither profile nor permission bounds a real number, these do: a model needs no more.
UNBOUNDED: Final = 10**6
# What no text of an answer holds: controls, what is invisible or turns the direction of writing, private use.
UNSHOWN: Final = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200F), (0x2028, 0x202E),
    (0x2060, 0x206F), (0xE000, 0xF8FF), (0xFEFF, 0xFEFF), (0xFFF0, 0xFFFF), (0xE0000, 0x10FFFF),
)  # fmt: skip
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]


class Slot(BaseModel):
    """One resource that may be set, and to what.

    A number lies from `lowest` to `highest`, in steps of 10^-decimals; `values` are the only ones there are, as EdgeX
    writes them; a text without `values` has up to `most_chars` printable characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Name
    resource: Name
    kind: str = Field(description="EdgeX value type, canonical")
    lowest: int = Field(0, ge=-MOST_STEPS, le=MOST_STEPS)
    highest: int = Field(0, ge=-MOST_STEPS, le=MOST_STEPS)
    decimals: int = Field(0, ge=0, le=MOST_DECIMALS)
    values: tuple[Annotated[str, Field(max_length=MOST_VALUE_CHARS)], ...] = Field((), max_length=MOST_VALUES)
    most_chars: int = Field(64, ge=1, le=MOST_TEXT)

    @model_validator(mode="after")
    def _possible(self) -> "Slot":
        if self.kind not in SIMPLE_TYPES:
            raise ValueError(f"{self.device}/{self.resource}: values of type {self.kind} cannot be written")
        if is_numeric(self.kind) and not self.values and self.lowest > self.highest:
            raise ValueError(f"{self.device}/{self.resource}: no number from {self.lowest} to {self.highest}")
        if not all(_is_value(self.kind, text, None, None) for text in self.values):
            raise ValueError(f"{self.device}/{self.resource}: a permitted value is none of type {self.kind}")
        return self

    @property
    def shape(self) -> tuple[object, ...]:
        """Return what values it takes: slots of equal shape differ in their names alone."""
        return self.kind, self.lowest, self.highest, self.decimals, self.values, self.most_chars


class Options(BaseModel):
    """All that may be answered.

    Args:
        slots: resources that may be set; one may come twice, with two ranges.
        skills: tasks that may be handed to others, by skill.
        may_ask: whether a question to the person is an answer.
        most_text: characters of a question, a reason or a task's text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: tuple[Slot, ...] = Field((), max_length=MOST_SLOTS)
    skills: tuple[Word, ...] = Field((), max_length=256)
    may_ask: bool = True
    most_text: int = Field(160, ge=1, le=MOST_TEXT)

    @cached_property
    def digest(self) -> str:
        """Return a name for exactly these options: SHA-256 of their JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @cached_property
    def by_key(self) -> Mapping[Key, tuple[Slot, ...]]:
        """Return the slots of each resource."""
        found: dict[Key, tuple[Slot, ...]] = {}
        for slot in self.slots:
            key = (slot.device, slot.resource)
            found[key] = (*found.get(key, ()), slot)
        return found


def options_of(
    agent: AgentDefinition, devices: Mapping[str, Device], profiles: Mapping[str, DeviceProfile],
    present: Mapping[Key, Value] | None = None, *, declared: Collection[Key] | None = None,
    skills: Sequence[str] = (), may_ask: bool = True, most_text: int = 160,
) -> Options:  # fmt: skip
    """Return what an agent may answer now.

    Args:
        agent: its permissions.
        devices: by name.
        profiles: by name.
        present: values as they are now; a resource with `max_step` whose value is unknown is left out, since the guard
            would refuse any.
        declared: what the owner's `site.yaml` declares (the guard's welcome says so); none: all is taken as declared.
        skills: tasks it may hand on.
        may_ask: whether somebody is there to be asked.
        most_text: characters of a text.

    Raises:
        InvalidInputError: there are more than `MOST_SLOTS`, or one has more than `MOST_VALUES`.
    """
    slots: dict[Slot, None] = {}
    for name in sorted(devices):
        profile = profiles.get(devices[name].profile_name)
        if profile is None or not _is_text(name):
            continue
        for slot in _slots(agent.may, devices[name], profile, present or {}):
            if declared is None or (slot.device, slot.resource) in declared:
                slots[slot] = None
    if len(slots) > MOST_SLOTS:
        raise InvalidInputError(
            f"agent {agent.name!r} may set {len(slots)} resources: {MOST_SLOTS} are possible: narrow its permissions"
        )
    return Options(slots=tuple(slots), skills=tuple(skills), may_ask=may_ask, most_text=most_text)


def _slots(
    permissions: Sequence[Permission], device: Device, profile: DeviceProfile, present: Mapping[Key, Value]
) -> Iterator[Slot]:
    for permission in permissions:
        resource = profile.resource(permission.resource)
        if resource is None or not permission.fits(device) or not resource.properties.is_writable:
            continue
        slot = _slot(permission, device.name, resource, present.get((device.name, resource.name)))
        if slot is not None and _is_text(resource.name):
            yield slot


def _slot(permission: Permission, device: str, resource: DeviceResource, present: Value) -> Slot | None:
    """Return what one permission makes of a resource; None: nothing that could be set."""
    properties = resource.properties
    kind, step = properties.value_type, permission.max_step
    if kind not in SIMPLE_TYPES or (step is not None and not _is_number(present)):
        return None
    bounds = [(permission.minimum, permission.maximum), (properties.minimum, properties.maximum)]
    if step is not None:
        now, far = Decimal(str(present)), Decimal(str(step))
        bounds.append((float(now - far), float(now + far)))
    low = max((low for low, _ in bounds if low is not None), default=None)
    high = min((high for _, high in bounds if high is not None), default=None)
    if permission.values:
        values = tuple(text for text in dict.fromkeys(permission.values) if _is_value(kind, text, low, high))
        if len(values) > MOST_VALUES:
            raise InvalidInputError(f"{device}/{resource.name}: {len(values)} values may be set: {MOST_VALUES} at most")
        return Slot(device=device, resource=resource.name, kind=kind, values=values) if values else None
    if not is_numeric(kind):
        is_free = low is None and high is None  # limits on what is no number let nothing through
        return Slot(device=device, resource=resource.name, kind=kind) if is_free else None
    lowest, highest, decimals = _steps(kind, low, high)
    if lowest > highest:
        return None
    return Slot(device=device, resource=resource.name, kind=kind, lowest=lowest, highest=highest, decimals=decimals)


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _steps(kind: str, low: float | None, high: float | None) -> tuple[int, int, int]:
    """Return a range as whole steps, and their decimals: about a hundredth of the range, at least tenths."""
    if kind in INTEGER_RANGES:
        least, most = INTEGER_RANGES[kind]
        return max(least, math.ceil(low) if low is not None else least), min(
            most, math.floor(high) if high is not None else most
        ), 0  # fmt: skip
    low = max(low, -1e15) if low is not None else min(-UNBOUNDED, high if high is not None else 0)
    high = min(high, 1e15) if high is not None else max(UNBOUNDED, low)
    span = high - low
    decimals = min(max(1 - math.floor(math.log10(span)), 1), MOST_DECIMALS) if span > 0 else MOST_DECIMALS
    scale = 10**decimals
    return math.ceil(Decimal(repr(low)) * scale), math.floor(Decimal(repr(high)) * scale), decimals


def _is_value(kind: str, text: str, low: float | None, high: float | None) -> bool:
    try:
        value = parse_value(kind, text)
    except InvalidInputError:
        return False
    if not _is_text(text) or len(text) > MOST_VALUE_CHARS or (isinstance(value, float) and not math.isfinite(value)):
        return False
    if low is None and high is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def _is_text(text: str) -> bool:
    """Say whether a text can be written as UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
