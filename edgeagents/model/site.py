"""`site.yaml`: what the owner says about each device resource. Only the guard reads the file.

What is not declared here cannot be commanded by any agent.

Source: design.md section 3.8.
"""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from edgeagents.model.agent import NAME, OwnerModel, Selector, parse_duration_s
from edgeagents.model.device import Device
from edgeagents.model.message import CommandKind, RiskClass


def _duration(value: object) -> float:
    return parse_duration_s(value)  # type: ignore[arg-type]  # pydantic reports the ValueError with the field's name


class Proof(OwnerModel):
    """How the guard knows that a device really changed."""

    resource: str = Field(min_length=1, description="read back after the SET")
    tolerance: float = Field(0.0, ge=0, description="in the resource's unit")
    wait: float = Field(2.0, gt=0, le=600, description="longest wait for the value, wall time")

    _parse = field_validator("wait", mode="before")(_duration)


class ResourceRule(Selector):
    """One resource of the devices that fit: how risky, how it behaves, how it is proven."""

    resource: str = Field(min_length=1)
    risk_class: RiskClass = "D"
    kind: CommandKind = "step"
    minimum: float | None = None
    maximum: float | None = None
    minimum_interval: float = Field(0.0, ge=0, description="between two commands, site time")
    minimum_on: float = Field(0.0, ge=0, description="a Bool stays true at least this long, site time")
    minimum_off: float = Field(0.0, ge=0, description="a Bool stays false at least this long, site time")
    proof: Proof | None = None
    approval_wait: float = Field(600.0, gt=0, le=86_400, description="how long a human has to decide, wall time")
    affected: tuple[Annotated[str, Field(pattern=NAME)], ...] = Field(
        (), max_length=64, description="class B: agents whose consent counts; empty: the others that may set it"
    )
    quorum: int | None = Field(None, ge=1, le=64, description="class B: so many of them are enough; unset: all")
    quarantine: float = Field(
        5.0, ge=0, le=3600, description="how long a device is left alone after a SET without an answer, wall time"
    )
    stand_back: float = Field(
        1800.0, ge=0, description="agents leave it alone so long after somebody changed it by hand, site time; 0: never"
    )

    look_every: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="the guard reads it so often, to see what its device does not report, wall time",
    )

    _parse = field_validator(
        "minimum_interval", "minimum_on", "minimum_off", "approval_wait", "quarantine", "stand_back", "look_every",
        mode="before",
    )(_duration)  # fmt: skip

    @model_validator(mode="after")
    def _sane(self) -> "ResourceRule":
        if not (self.device or self.profile or self.label):
            raise ValueError("name the devices by device, profile or label")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.risk_class != "B" and (self.affected or self.quorum is not None):
            raise ValueError(f"affected and quorum are for class B: class {self.risk_class} counts no consents")
        if self.affected and self.quorum is not None and self.quorum > len(set(self.affected)):
            raise ValueError(f"quorum {self.quorum} of {len(set(self.affected))} affected agents is never reached")
        return self


class Condition(OwnerModel):
    """A reading that is, or is above or below, a value."""

    device: str = Field(min_length=1, description="may hold {device:...} of the interlock; no wildcard")
    resource: str = Field(min_length=1)
    equals: str | None = Field(None, description="as EdgeX writes it")
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one(self) -> "Condition":
        if sum(part is not None for part in (self.equals, self.above, self.below)) != 1:
            raise ValueError("give exactly one of equals, above, below")
        return self

    @field_validator("equals", mode="before")
    @classmethod
    def _yaml_words(cls, value: object) -> object:
        # YAML reads `true` as a bool and `5` as a number; EdgeX writes text.
        return (
            str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, (int, float)) else value
        )


class Interlock(OwnerModel):
    """What nothing can outvote: `forbid` may not become true while `during` holds (or cannot be known)."""

    name: str = Field(min_length=1)
    forbid: Condition
    during: Condition
    max_age: float = Field(600.0, gt=0, description="older readings of `during` count as unknown, site time")

    _parse = field_validator("max_age", mode="before")(_duration)


class Site(OwnerModel):
    """The whole file."""

    resources: tuple[ResourceRule, ...] = ()
    interlocks: tuple[Interlock, ...] = ()
    priority_hold: float = Field(
        900.0,
        ge=0,
        description="a quiet holder of a lease is passed over by a lower priority after this, site time",
    )
    max_data_age: float = Field(3600.0, gt=0, description="default for permissions without one, site time")

    _parse = field_validator("priority_hold", "max_data_age", mode="before")(_duration)

    @model_validator(mode="after")
    def _names_once(self) -> "Site":
        names = [interlock.name for interlock in self.interlocks]
        if len(names) != len(set(names)):
            raise ValueError("two interlocks have one name")
        return self

    def rule_for(self, device: Device, resource: str) -> ResourceRule | None:
        """Return the first rule that fits, None when the owner declared nothing: then nobody may command it."""
        return next((rule for rule in self.resources if rule.resource == resource and rule.fits(device)), None)
