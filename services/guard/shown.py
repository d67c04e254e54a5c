"""What the guard's routes answer, for their OpenAPI page.

Source: docs/operations.md; design.md section 3.
"""

from typing import Literal

from pydantic import Field

from edgeagents.adapters.web_pages import Answer, Shown
from edgeagents.model.message import Mode, RiskClass
from services.guard.orders import Scope


class ApprovalShown(Shown):
    """A command that waits for a human."""

    command_id: str
    agent: str
    device_name: str
    resource_name: str
    value: str = Field(description="as EdgeX writes it")
    risk_class: RiskClass
    because: str = Field(description="why the agent wants it; written by the agent, for people")
    seconds_left: float = Field(description="then it expires")


class ApprovalList(Answer):
    """All that waits, the oldest first."""

    total_count: int
    approvals: list[ApprovalShown]


class Decided(Answer):
    """What an approver said."""

    command_id: str
    decision: Literal["approve", "deny"]


class PauseShown(Shown):
    """One pause."""

    scope: Scope
    name: str = Field(description="of the agent or device; empty for all")
    by: str = Field(description="the approver")
    reason: str
    since_unix_ns: int


class ModeShown(Shown):
    """A mode that is not the one of the agent's file."""

    agent: str
    mode: Mode
    by: str = Field(description="the approver")
    reason: str
    since_unix_ns: int


class OrdersShown(Answer):
    """What is ordered now."""

    paused: list[PauseShown]
    modes: dict[str, Mode] = Field(description="of each agent, as it counts now")
    mode_orders: list[ModeShown]


class LeaseShown(Shown):
    """Who may command a resource now."""

    device_name: str
    resource_name: str
    agent: str
    epoch: str = Field(description="generation.revision; a command under another one is refused")


class OverrideShown(Shown):
    """What was set by hand: agents leave it alone for a while."""

    device_name: str
    resource_name: str
    value: str | None
    since_site: float = Field(description="site seconds")
    until_site: float = Field(description="site seconds")
    by: str


class GuardState(OrdersShown):
    """What the guard does, and how it went so far."""

    generation: int = Field(description="of its state; a restored or lost one raises it")
    sessions: list[str] = Field(description="agents heard lately")
    leases: list[LeaseShown]
    blocked: dict[str, str] = Field(description="devices that wait until a doubtful command is settled, and why")
    overrides: list[OverrideShown]
    waiting: int = Field(description="commands in its lanes")
    volume_full: bool
    not_taken: dict[str, list[str]] = Field(description="by stream: whose messages the broker takes no more")
    wrong_files: dict[str, str] = Field(description="agent files that cannot be read, and why")
    doubled_agents: dict[str, str] = Field(description="names that several files declare")
    commands: dict[str, int] = Field(description="since the start, by what became of them at the door")
    outcomes: dict[str, int] = Field(description="since the start, by status")
    door: dict[str, int] = Field(description="what agents asked of EdgeX, by answer")
    unreadable: dict[str, int] = Field(default_factory=dict, description="readings left out, by device")
