"""Every message between agents and the guard; `proto/` is the contract, a test checks that both say the same.

Frozen, unknown fields ignored: an older reader understands a newer writer. Who sent a message is a token of
its subject, never a field.

Source: proto/edgeagents/v1, design.md sections 3 and 4.
"""

from typing import Annotated, Literal, NewType, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

AgentId = NewType("AgentId", str)
CommandId = NewType("CommandId", str)

RiskClass: TypeAlias = Literal["A", "B", "C", "D"]
CommandKind: TypeAlias = Literal["absolute", "step", "toggle"]
Mode: TypeAlias = Literal["observe", "act"]
OutcomeStatus: TypeAlias = Literal["proven", "refused", "failed", "expired", "unproven", "uncertain"]
# Why a command was not carried out, for code. An outcome holds it as a text: a newer guard may know more of them.
CauseKind: TypeAlias = Literal[
    "", "lease", "order", "override", "gate", "interlock", "task", "approval", "late", "room", "storage", "device",
    "proof",
]  # fmt: skip

MAX_TTL_S = 86_400.0
MAX_VALUE_CHARS = 16_384
MAX_REASON_CHARS = 2_000
MAX_OPTIONS = 64  # of one conflict

# They become parts of headers and file names: nothing in them may mean anything there.
Word: TypeAlias = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$")]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]  # as long as EdgeX's own


class Message(BaseModel):
    """Base of all messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Epoch(Message):
    """Which lease a command was decided under; compares by generation, then revision."""

    generation: int = Field(ge=0)
    revision: int = Field(ge=0)

    def __lt__(self, other: "Epoch") -> bool:
        return (self.generation, self.revision) < (other.generation, other.revision)

    def __str__(self) -> str:
        return f"{self.generation}.{self.revision}"


class Cause(Message):
    """The stored message that triggered a decision."""

    stream: str = Field(max_length=256)
    sequence: int = Field(ge=0)
    event_id: str = Field("", max_length=256)
    origin_ns: int = Field(0, ge=0)


class Heartbeat(Message):
    """Opens a session, or keeps it alive."""

    incarnation: Word


class SiteEntry(Message):
    """What the owner's `site.yaml` says on one resource an agent may command."""

    device: str
    resource: str
    risk_class: RiskClass
    kind: CommandKind
    minimum_interval_s: float = Field(0.0, ge=0)
    approval_wait_s: float = Field(0.0, ge=0)


class Paused(Message):
    """What the owner has paused, of what an agent may command, and why; no device: all of them."""

    device: str = ""
    reason: str = ""


class SessionWelcome(Message):
    """The guard's answer to a heartbeat sent as a request."""

    generation: int = Field(ge=0)
    mode: Mode = "observe"
    site: tuple[SiteEntry, ...] = ()
    refused: str = ""
    paused: tuple[Paused, ...] = ()

    @field_validator("mode", mode="before")
    @classmethod
    def _absent_is_observe(cls, value: object) -> object:
        return value or "observe"


class LeaseRequest(Message):
    """Asks for, or gives back, the right to command one device resource."""

    incarnation: Word
    device: Name
    resource: Name
    release: bool = False
    options: Annotated[tuple[Word, ...], Field(max_length=MAX_OPTIONS)] = ()


class Locked(Message):
    """A value that the owner's interlocks forbid as things are now, and why."""

    option: str
    reason: str = ""


class Barred(Message):
    """An agent that may command nothing at a resource now, by the owner's order, and why."""

    agent: str
    reason: str = ""


class LeaseReply(Message):
    """The guard's answer to a `LeaseRequest`."""

    granted: bool
    epoch: Epoch | None = None
    holder: str = ""
    reason: str = ""
    retry_after_s: float = Field(0.0, ge=0)
    quiet_s: float = Field(0.0, ge=0)
    barred: tuple[Barred, ...] = ()
    judged: bool = False
    locked: tuple[Locked, ...] = ()


class LeaseRecord(Message):
    """A change of holder, in order with the device's commands; its stream sequence is the new revision."""

    # Empty bytes are no record: what a broker itself says (a status) has no others.
    device: str = Field(min_length=1)
    resource: str
    agent: str = ""
    incarnation: str = ""
    generation: int = Field(ge=0)
    reason: str = ""


class Command(Message):
    """What an agent wants a device resource to become."""

    id: Annotated[CommandId, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$")]
    device: Name
    resource: Name
    value: str = Field(max_length=MAX_VALUE_CHARS)
    incarnation: Word
    epoch: Epoch
    ttl_s: float = Field(gt=0, le=MAX_TTL_S)
    cause: Cause
    decision_id: str = Field("", max_length=128)
    because: str = Field("", max_length=2_000)
    data_origin_ns: int = Field(0, ge=0)
    decided_on: str | None = Field(None, max_length=MAX_VALUE_CHARS)


class Outcome(Message):
    """How a command ended."""

    command_id: CommandId
    device: str
    resource: str
    status: OutcomeStatus
    reason: str = ""
    value: str = ""
    read_back: str | None = None
    epoch: Epoch | None = None
    sequence: int = 0
    finished_unix_ns: int = 0
    approver: str = ""
    cause_kind: str = Field("", max_length=64)


class AuditRecord(Message):
    """One link of a hash chain."""

    writer: str
    incarnation: str
    number: int = Field(ge=0)
    kind: str
    body: str
    time_unix_ns: int
    previous: str = ""
    digest: str = ""


AnyMessage: TypeAlias = (
    Heartbeat | SessionWelcome | LeaseRequest | LeaseReply | LeaseRecord | Command | Outcome | AuditRecord
)
