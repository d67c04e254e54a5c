"""What a protocol may ask its runner to do. An effect is a value; `edgeagents/runner.py` carries it out.

Source: style.md section 3, design.md section 3.
"""

from dataclasses import dataclass
from typing import TypeAlias

from edgeagents.model.message import Command, LeaseRecord, LeaseReply, Outcome
from edgeagents.model.values import Value


@dataclass(frozen=True, slots=True)
class StoreIntent:
    """Write down, on disk, that this command is about to be carried out."""

    command: Command


@dataclass(frozen=True, slots=True)
class Set:
    """Set a device resource through core-command; `wanted` is the value that the command's text stands for."""

    command: Command
    wanted: Value


@dataclass(frozen=True, slots=True)
class Read:
    """Read a device resource through core-command."""

    device: str
    resource: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Come back with a tick after `after_s` seconds."""

    after_s: float


@dataclass(frozen=True, slots=True)
class WakeLater:
    """Come back with a tick after `after_s` seconds, and let other devices of the lane go first."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Block:
    """Write down, on disk, that a device takes no further command for now."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """Write down, on disk, that a device takes commands again."""

    device: str


@dataclass(frozen=True, slots=True)
class Finish:
    """A command has ended: write the outcome down, then tell its agent.

    `settles`: it shows that a SET without an answer has taken effect, so that one cannot come any more.
    """

    outcome: Outcome
    settles: bool = False


@dataclass(frozen=True, slots=True)
class StoreLease:
    """Write a change of holder into the device's command stream; its sequence comes back as `Recorded`."""

    record: LeaseRecord


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request being handled."""

    reply: LeaseReply


ActuationEffect: TypeAlias = StoreIntent | Set | Read | StartTimer | WakeLater | Block | Release | Finish
LeaseEffect: TypeAlias = StoreLease | Reply
