"""An agent as its owner writes it down, and what an agent makes of an event: Observation, Decision.

One YAML file per agent. Unknown fields are refused: a typo in a permission must not pass silently.

Source: design.md sections 1, 3 and 6; docs/agents.md shows an example field by field.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgeagents.model.device import Device
from edgeagents.model.message import Cause, Mode
from edgeagents.model.skill import Skill
from edgeagents.model.values import Value

Priority: TypeAlias = Literal["safety", "person", "health", "comfort", "economy"]
# Lowest first. `person` is for an agent that says what a person just asked for: only safety goes before that.
PRIORITIES: tuple[Priority, ...] = ("economy", "comfort", "health", "person", "safety")
Stage: TypeAlias = Literal["rule", "phrase", "policy-model", "language-model", "safe-default"]

# What a rule engine posts to an agent reads as resources of a device of this name.
RULE_DEVICE: Final = "rule"
PERSON: Final = "person"  # stands where a device's name would, in a decision on what somebody said

NAME: Final = r"^[a-z0-9][a-z0-9-]{0,40}$"  # of an agent
# Users of the broker and words of `credentials --rotate` (`adapters/credentials.py`), and who gives tasks over HTTP.
_TAKEN: Final = frozenset(("all", "coordinator", "edgex", "guard", "http", "inference", "owner"))
_PEER: Final = "peer-"  # so the users of other gateways begin
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_MOST_DURATION_CHARS: Final = 64  # looking for `_DURATION` in digits takes time by the square of their number
_HELD_TOPIC = re.compile(r"rules/agents|events/device(/[^/]+){4}")  # what the stream of events captures
_LONGEST_S = 1e9  # some 30 years: keeps infinities and absurd numbers out of sums of times
_DAY_S = 86_400.0
MOST_OPTIONS: Final = 32  # of one conflict
_OPTION = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str | int | float) -> float:
    """Return the seconds that `90s`, `15m`, `1h30m` or a plain number of seconds stand for.

    Raises:
        ValueError: the text is no duration.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and abs(text) < _LONGEST_S:
        return float(text)
    parts = _DURATION.findall(text) if isinstance(text, str) and len(text) <= _MOST_DURATION_CHARS else []
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != text or seconds >= _LONGEST_S:
        raise ValueError(f"{str(text)[:40]!r} is no duration: write 90s, 15m, 1h30m, or a number of seconds")
    return seconds


class OwnerModel(BaseModel):
    """Base of what owners write by hand: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _duration(value: Any) -> float:
    return parse_duration_s(value)


def _fits(pattern: str, name: str) -> bool:
    # Only `*` is special: a device may well be called "lamp[1]".
    return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))


class Selector(OwnerModel):
    """Which devices: all given words must fit; `device` takes `*` as a wildcard."""

    device: str = ""
    profile: str = ""
    label: str = ""

    def fits(self, device: Device) -> bool:
        """Say whether a device is meant."""
        return (
            (not self.device or _fits(self.device, device.name))
            and (not self.profile or device.profile_name == self.profile)
            and (not self.label or self.label in device.labels)
        )


class Watch(Selector):
    """Which events an agent consumes: those of devices that fit, or those on an EdgeX topic."""

    topic: str = Field("", description="EdgeX topic below the base, instead of devices: rules/agents")
    resources: tuple[str, ...] = Field((), description="sources to consume; empty: all")

    @model_validator(mode="after")
    def _one_way(self) -> "Watch":
        if bool(self.topic) == bool(self.device or self.profile or self.label):
            raise ValueError("watch either a topic, or devices by device, profile or label")
        if self.topic and (re.search(r"[+#*>\s]", self.topic) or not _HELD_TOPIC.fullmatch(self.topic)):
            raise ValueError(f"topic {self.topic!r} is not kept: write rules/agents, or events/device/… in full")
        return self


class Rate(OwnerModel):
    """At most `count` commands in `per` (site time)."""

    count: int = Field(gt=0)
    per: float = Field(gt=0, description="a duration: 1h")

    _parse = field_validator("per", mode="before")(_duration)


class Permission(Selector):
    """What an agent may command: nothing that no permission names."""

    resource: str = Field(min_length=1)
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = Field((), description="the only values allowed, as EdgeX writes them; empty: any")
    max_step: float | None = Field(None, gt=0, description="largest change by one command, in the resource's unit")
    rate: Rate | None = None
    max_data_age: float | None = Field(None, gt=0, description="oldest reading a decision may rest on, site time")

    _parse = field_validator("max_data_age", mode="before")(lambda value: None if value is None else _duration(value))

    @model_validator(mode="after")
    def _sane(self) -> "Permission":
        if not (self.device or self.profile or self.label):
            raise ValueError("name the devices by device, profile or label")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Recent(OwnerModel):
    """A statistic over the last readings of one resource, or how usual something is at this time of day."""

    of: str = Field(description="device/resource")
    over: float = Field(gt=0, description="how far back, site time")
    take: Literal["mean", "minimum", "maximum", "change", "age", "trend", "usual"]
    ahead: float = Field(0.0, ge=0, le=_DAY_S, description="for `usual`: at some time from now to this much later")

    otherwise: float | None = Field(None, description="taken where the statistic cannot be told; none: silence")

    _parse = field_validator("over", "ahead", mode="before")(_duration)

    @model_validator(mode="after")
    def _fits_together(self) -> "Recent":
        if self.ahead and self.take != "usual":
            raise ValueError(f"ahead is for `take: usual`, not for {self.take}: remove it")
        if self.take == "usual" and not _DAY_S <= self.over <= 60 * _DAY_S:
            raise ValueError("usual looks at whole past days: write over: 14d (1d to 60d)")
        return self

    @field_validator("of")
    @classmethod
    def _reference(cls, value: str) -> str:
        return _reference(value)

    @property
    def key(self) -> tuple[str, str]:
        """The device and its resource."""
        device, _, resource = self.of.partition("/")
        return device, resource


def _reference(value: str) -> str:
    device, slash, resource = value.partition("/")
    if not (device and slash and resource) or "/" in resource:
        raise ValueError(f"{value!r} is no reference: write device/resource")
    return value


class Set(OwnerModel):
    """The command a rule gives."""

    device: str = Field(min_length=1)
    resource: str = Field(min_length=1)
    value: bool | int | float | str = Field(description="a literal, or a CEL expression that starts with '='")
    dead_band: float = Field(
        0.0, ge=0, description="leave it as it is while its present value is no farther than this from the wanted one"
    )


class Rule(OwnerModel):
    """When `when` holds, `set` follows. `{name}` in texts is replaced for each entry of `for_each`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_{}-]*$")]
    for_each: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    given: Mapping[str, str | Recent] = Field(default_factory=dict, description="names for readings used below")
    when: str = Field(min_length=1, description="a CEL expression of type bool")
    set: Set
    because: str = Field("", description="for people; {names} of `given` are filled in")
    confidence: float = Field(1.0, gt=0, le=1)

    @field_validator("given")
    @classmethod
    def _references(cls, value: Mapping[str, str | Recent]) -> Mapping[str, str | Recent]:
        for name, reading in value.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name: small letters, digits, _")
            if isinstance(reading, str):
                _reference(reading)
        return value


class Thinks(OwnerModel):
    """Which language model an agent may ask, and when; its answers are proposals like any other."""

    by: str = Field(
        "gateway",
        description="`gateway`: the shared one; `process`: the agent's own; or the URL of an OpenAI-compatible server",
    )
    model: str = Field("", max_length=256, description="name of the model at such a server")
    budget: float = Field(8.0, gt=0, le=60, description="an answer that takes longer counts for nothing, wall time")
    when: tuple[Literal["asked", "silent"], ...] = Field(
        ("asked",), min_length=1, description="a person says what no template fits; news on which all rules are silent"
    )
    sure: float = Field(0.8, ge=0.5, le=1, description="an answer less sure than this is asked back, not acted on")
    every: float = Field(60.0, ge=1, le=86_400, description="for `silent`: at most so often, wall time")

    _parse = field_validator("budget", "every", mode="before")(_duration)

    @field_validator("by")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("gateway", "process") and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", value):
            raise ValueError(f"{value!r}: write gateway, process, or http://host:port/v1")
        return value


class Concession(OwnerModel):
    """One resource on which an agent gives way in a conflict: values it could live with, and what each would bring."""

    for_each: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    device: str = Field(min_length=1)
    resource: str = Field(min_length=1)
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = Field(None, gt=0)
    values: tuple[str, ...] = Field((), max_length=MOST_OPTIONS, description="instead of a range, as EdgeX writes them")
    given: Mapping[str, str | Recent] = Field(default_factory=dict, description="names for readings used in `brings`")
    brings: Mapping[str, str] = Field(
        min_length=1,
        max_length=64,
        description="quantity of the preferences -> CEL over `value` and `given`",
    )
    only_settled: bool | None = Field(None, description="for this alone; none: as `negotiates.only_settled` says")

    @model_validator(mode="after")
    def _one_list(self) -> "Concession":
        limits = (self.minimum, self.maximum, self.step)
        if bool(self.values) == any(item is not None for item in limits):
            raise ValueError("give either values, or minimum, maximum and step")
        if any(isinstance(item, Recent) and item.take == "usual" for item in self.given.values()):
            raise ValueError("`take: usual` is for rules: give a reading or another statistic")
        if "value" in self.given:
            raise ValueError("`value` stands for the option: give the reading another name")
        if not self.values and (self.minimum is None or self.maximum is None or self.step is None):
            raise ValueError("a range needs minimum, maximum and step")
        options = self.options
        if not 2 <= len(options) <= MOST_OPTIONS:
            raise ValueError(f"{len(options)} options: 2 to {MOST_OPTIONS}, each once")
        for option in options:
            if not _OPTION.fullmatch(option):
                raise ValueError(f"option {option[:40]!r} cannot be told: letters, digits and . _ : -")
        return self

    @property
    def options(self) -> tuple[str, ...]:
        """Return the values it could live with, in words, each once; more than `MOST_OPTIONS` are not all listed."""
        if self.values or self.minimum is None or self.maximum is None or self.step is None:
            return tuple(dict.fromkeys(self.values))
        count = min(MOST_OPTIONS + 1, math.floor((self.maximum - self.minimum) / self.step + 1e-9) + 1)
        return tuple(option_word(self.minimum + place * self.step) for place in range(count))

    def is_about(self, device: str, resource: str) -> bool:
        """Say whether it is about a device resource."""
        return self.resource == resource and _is_filled(device, self.device, self.for_each)


def option_word(value: bool | float | str) -> str:
    """Return a value as one word of a conflict: 21.5, true, auto."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.7g}" if isinstance(value, (int, float)) else value


class Negotiates(OwnerModel):
    """By which preferences an agent bargains in conflicts, and about what (docs/conflicts.md)."""

    preferences: str = Field(min_length=1, max_length=512, description="a file, seen from the agent's own")
    priority: Priority | None = Field(
        None, description="the class in which it bargains, for the mediator alone; none: the agent's own"
    )
    only_settled: bool = Field(
        False, description="its rules command what it negotiates about only as it was settled with the others"
    )
    over: tuple[Concession, ...] = Field(min_length=1, max_length=64)

    def covers(self, device: str, resource: str) -> bool:
        """Say whether it negotiates about a device resource."""
        return any(item.is_about(device, resource) for item in self.over)

    def waits_for_settlement(self, device: str, resource: str) -> bool:
        """Say whether its rules command a device resource only as it was settled with the others."""
        found = next((item for item in self.over if item.is_about(device, resource)), None)
        if found is None:
            return False
        return self.only_settled if found.only_settled is None else found.only_settled


def _is_filled(device: str, text: str, words: Mapping[str, tuple[str, ...]]) -> bool:
    """Say whether a name is one that a text becomes with the words that it names; the guard asks it often."""
    if len(words) == 1:  # as usual: without making all names there are
        ((name, choices),) = words.items()
        before, mark, after = text.partition("{" + name + "}")
        if mark and mark not in after:
            end = len(device) - len(after)
            is_around = end >= len(before) and device.startswith(before) and device.endswith(after)
            return is_around and device[len(before) : end] in choices
    return device in _filled(text, words)


def _filled(text: str, words: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return what a text becomes with each combination of the words that it names."""
    found = {text}
    for name, choices in words.items():
        found = {item.replace("{" + name + "}", word) for item in found for word in choices}
    return found


class AgentDefinition(OwnerModel):
    """One agent: what it watches, what it may do, what it wants."""

    name: Annotated[str, Field(pattern=NAME)]
    description: str = ""
    mode: Mode = "observe"
    priority: Priority = "comfort"
    watches: tuple[Watch, ...] = Field(min_length=1)
    goals: Mapping[str, float | bool | str] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    may: tuple[Permission, ...] = ()
    answers: bool = Field(False, description="takes what people say: POST /api/v3/ask (docs/ask.md)")
    thinks: Thinks | None = Field(None, description="which language model it may ask; none: it asks no model")
    skills: tuple[Skill, ...] = Field((), max_length=64, description="tasks it bids for")
    leads: bool = Field(False, description="it may lead tasks of class A while no coordinator is there")
    negotiates: Negotiates | None = Field(None, description="how it settles conflicts; none: by leases, classes")
    ttl: float = Field(10.0, gt=0, le=3600, description="how long a command may wait from its decision on, wall time")

    _parse = field_validator("ttl", mode="before")(_duration)

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value in _TAKEN or value.startswith(_PEER):
            raise ValueError(
                f"the name {value!r} is taken: services, users of the broker and words of `edgeagents credentials` are "
                f"called {', '.join(sorted(_TAKEN))} or {_PEER}…: give the agent another"
            )
        return value

    @field_validator("rules")
    @classmethod
    def _names_once(cls, value: tuple[Rule, ...]) -> tuple[Rule, ...]:
        names = [rule.name for rule in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules have the name {name!r}")
        return value

    @field_validator("skills")
    @classmethod
    def _skills_once(cls, value: tuple[Skill, ...]) -> tuple[Skill, ...]:
        names = [skill.name for skill in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two skills have the name {name!r}")
        return value

    @property
    def bargains_as(self) -> Priority:
        """Return the class in which it bargains; commands and leases go by `priority`."""
        own = None if self.negotiates is None else self.negotiates.priority
        return own or self.priority

    def skill(self, name: str) -> Skill | None:
        """Return a skill by its name, None when it has none of that name."""
        return next((item for item in self.skills if item.name == name), None)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one device resource."""

    value: Value
    origin_ns: int
    site_s: float


@dataclass(frozen=True, slots=True)
class Intent:
    """What a decision wants: one resource at one value."""

    device: str
    resource: str
    value: Value
    because: str
    rule: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person said, or a model answered, as it was understood: an input of a decision like any reading.

    Args:
        id: of the question, chosen by who asked; empty: nobody asked, the rules were silent.
        text: as it was said.
        stage: who understood it.
        intents: what is wanted.
        confidence: 0 to 1.
        inputs: readings it rests on, by `device/resource`.
        model_hash: of the model that answered.
    """

    id: str
    text: str
    stage: Stage
    intents: tuple[Intent, ...]
    confidence: float = 1.0
    inputs: Mapping[str, Value] = field(default_factory=dict)
    model_hash: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an agent makes of one event: which resources have a new value, and what they are now.

    `asked` is set when it is no event but what somebody said.
    """

    cause: Cause
    device: str
    changed: Mapping[str, Sample]
    site_s: float
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer to an observation, with what it rests on."""

    id: str
    intents: tuple[Intent, ...]
    stage: Stage
    confidence: float
    inputs: Mapping[str, Value]
    data_origin_ns: int
    model_hash: str = ""
    question: str = ""  # names the question it answers: asked again, it makes the same commands
