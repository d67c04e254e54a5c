"""What every protocol between agents shares: what it hears, what it may ask for, and what it refuses to listen to.

Leaves out how acts travel and who may send on which subject: the sender of what is heard was proven by the bus.

Source: style.md section 3, design.md sections 4 and 5; FIPA SC00037J for `not-understood`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from edgeagents.model.cooperation import PERFORMATIVES, VERSION, Act, Performative
from edgeagents.protocol.effects import StartTimer

RefusalCause: TypeAlias = Literal[
    "unknown-performative", "newer-version", "other-conversation", "not-invited", "no-content", "late", "repeated",
    "too-many", "stale-epoch", "out-of-turn", "no-number", "unknown-name", "not-allowed",
]  # fmt: skip
ROUNDING_S: Final = 1e-6
MOST_ACTS: Final = 256  # of one sender in one conversation; what comes after that is counted and not looked at


@dataclass(frozen=True, slots=True)
class Begin:
    """Start."""

    now_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """An act came in; `sender` is proven by its subject, `now_s` is the receiver's clock."""

    sender: str
    act: Act
    now_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes on the party's own clock."""

    now_s: float


@dataclass(frozen=True, slots=True)
class Recovered:
    """The party was restarted with the state it had stored last."""

    now_s: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Send an act to one agent."""

    to: str
    act: Act


@dataclass(frozen=True, slots=True)
class Refuse:
    """An act was not listened to: count it by cause; the text is for people."""

    sender: str
    cause: RefusalCause
    text: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write the state down, on disk, before any effect behind this one is carried out."""


ConversationEffect: TypeAlias = Tell | Refuse | Save | StartTimer


def act(performative: Performative, conversation: str, **content: Any) -> Act:
    """Return an act in this version of the contract; `content` are further fields of `Act`."""
    return Act(version=VERSION, performative=performative, conversation=conversation, **content)


def objection(heard: Heard, conversation: str, members: Collection[str]) -> Refuse | None:
    """Return why an act cannot be listened to at all, None when it can.

    Args:
        heard: what came in.
        conversation: the one this party is in.
        members: who takes part in it.
    """
    said, sender = heard.act, heard.sender
    if said.needs > VERSION:
        text = f"it needs version {said.needs} of the contract, this is version {VERSION}: update this gateway"
        return Refuse(sender, "newer-version", text)
    if said.performative not in PERFORMATIVES:
        return Refuse(sender, "unknown-performative", f"no performative {said.performative!r} is known here")
    if said.conversation != conversation:
        return Refuse(sender, "other-conversation", f"{said.conversation!r} is not {conversation!r}")
    if sender not in members:
        return Refuse(sender, "not-invited", f"{sender!r} takes no part in {conversation!r}")
    return None


def answered(refused: Refuse, heard: Heard) -> list[Tell | Refuse]:
    """Return a refusal with the word that tells its sender; what was not understood itself is answered by nothing."""
    if refused.cause not in ("newer-version", "unknown-performative") or heard.act.performative == "not-understood":
        return [refused]
    told = act("not-understood", heard.act.conversation, reason=refused.text)
    return [Tell(refused.sender, told), refused]


def is_over(now_s: float, until_s: float) -> bool:
    """Say whether a time has come. A timer for the time that was left may fire a rounding too early: that counts."""
    return now_s >= until_s - ROUNDING_S


def counted(heard: Mapping[str, int], sender: str) -> dict[str, int]:
    """Return how many acts came from each sender, with one more of this one."""
    return {**heard, sender: heard.get(sender, 0) + 1}
