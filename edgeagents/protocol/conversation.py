"""What every protocol between agents shares: what it hears, what it may ask for, and what it refuses to listen to.

Leaves out how acts travel and who may send on which subject: the sender of what is heard was proven by the bus.

Source: style.md section 3, design.md sections 4 and 5; FIPA SC00037J for `not-understood`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from edgeagents.model.cooperation import PERFORMATIVES, VERSION, Act, Performative
from edgeagents.model.message import MAX_TTL_S
from edgeagents.protocol.effects import StartTimer

RefusalCause: TypeAlias = Literal[
    "unknown-performative", "newer-version", "other-conversation", "not-invited", "no-content", "late", "repeated",
    "too-many", "stale-epoch", "out-of-turn", "no-number", "unknown-name", "not-allowed",
]  # fmt: skip
ROUNDING_S: Final = 1e-6
MOST_TIME_S: Final = 1e10  # some three hundred years: beyond, microseconds are lost in sums
ASK_AGAIN_S: Final = 0.5  # until what was asked and not answered is asked again
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
    if sender not in members:  # first: who takes no part is not answered, whatever it says
        return Refuse(sender, "not-invited", f"{sender!r} takes no part in {conversation!r}")
    if said.needs > VERSION:
        text = f"it needs version {said.needs} of the contract, this is version {VERSION}: update this gateway"
        return Refuse(sender, "newer-version", text)
    if said.performative not in PERFORMATIVES:
        return Refuse(sender, "unknown-performative", f"no performative {said.performative!r} is known here")
    if said.conversation != conversation:
        return Refuse(sender, "other-conversation", f"{said.conversation!r} is not {conversation!r}")
    return None


def answered(refused: Refuse, heard: Heard) -> list[Tell | Refuse]:
    """Return a refusal with the word that tells its sender; what was not understood itself is answered by nothing.

    Every answer is to an act of a member (`objection`); `admitted` bounds how many there are.
    """
    if refused.cause not in ("newer-version", "unknown-performative") or heard.act.performative == "not-understood":
        return [refused]
    told = act("not-understood", heard.act.conversation, reason=refused.text)
    return [Tell(refused.sender, told), refused]


def admitted(
    heard: Heard, conversation: str, members: Collection[str], counts: Mapping[str, int], most: int = MOST_ACTS
) -> tuple[Mapping[str, int], list[Tell | Refuse]]:
    """Return how many acts came from each member with this one, and what refuses it: nothing when it is to be heard.

    Counted comes first: after `most` acts of one member nothing is looked at, nor answered. Strangers are kept in no
    count of the state's, so they cannot make it grow.
    """
    sender = heard.sender
    if sender in members and counts.get(sender, 0) >= most:
        return counts, [Refuse(sender, "too-many", f"more than {most} acts of {sender!r} in {conversation!r}")]
    refused = objection(heard, conversation, members)
    if sender in members:
        counts = counted(counts, sender)
    return counts, [] if refused is None else answered(refused, heard)


def is_duration(value: object) -> bool:
    """Say whether a value is a time to wait for: above 0, a day at most, and a number at all."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_TTL_S


def is_time(value: object) -> bool:
    """Say whether a value can be a point in time on some clock: a number that ordinary ones can be added to."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -MOST_TIME_S < value < MOST_TIME_S


def is_over(now_s: float, until_s: float) -> bool:
    """Say whether a time has come. A timer for the time that was left may fire a rounding too early: that counts."""
    return now_s >= until_s - ROUNDING_S


def counted(heard: Mapping[str, int], sender: str) -> dict[str, int]:
    """Return how many acts came from each sender, with one more of this one."""
    return {**heard, sender: heard.get(sender, 0) + 1}
