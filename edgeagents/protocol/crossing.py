"""What came from another gateway: is it still true? A link that was cut may hand over, all at once, what is old.

Within a gateway a deadline counts from receipt. Between gateways the sender says when it sent, by its wall clock; what
is older than the owner allows, or whose own deadline has passed on the way, is refused, and the rest has so much less
time left. So clocks of linked gateways must agree within seconds: one that is ahead is refused, too, by a cause of its
own, and `edgeagents doctor` shows it.

Source: design.md section 4, "What crossed a healed link may be a minute old".
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import Act

CrossingCause: TypeAlias = Literal["undated", "stale", "ahead"]
AHEAD_S: Final = 2.0  # clocks kept by NTP differ by far less
LONGEST_STAMP: Final = 20  # digits; more are no time


@dataclass(frozen=True, slots=True)
class Fresh:
    """It may be acted on; so old it is, by the sender's clock and ours."""

    age_s: float


@dataclass(frozen=True, slots=True)
class Refused:
    """It must not be acted on: count it by cause; the text is for people."""

    cause: CrossingCause
    text: str


def stamp(now_ns: int) -> str:
    """Return a wall time, nanoseconds since the epoch, as a message between gateways carries it."""
    return str(now_ns)


def judge(sent: str, now_ns: int, oldest_s: float) -> Fresh | Refused:
    """Return how old a message is, or why it cannot be acted on.

    Args:
        sent: what it carries as `stamp`; empty: nothing.
        now_ns: our wall clock.
        oldest_s: the owner's `oldest`.
    """
    if not (sent.isascii() and sent.isdigit() and len(sent) <= LONGEST_STAMP):
        return Refused("undated", "it does not say when it was sent: is its gateway of an older version?")
    age_s = (now_ns - int(sent)) / 1e9
    if age_s > oldest_s:
        return Refused("stale", f"sent {age_s:.1f} s ago, and at most {oldest_s:g} s are allowed")
    if age_s < -AHEAD_S:
        return Refused("ahead", f"sent {-age_s:.1f} s from now: set the clocks of both gateways")
    return Fresh(max(0.0, age_s))


def received(act: Act, age_s: float) -> Act | Refused:
    """Return an act with the time that is left of its `reply_by_s`, or that none is."""
    if not act.reply_by_s:
        return act
    left_s = act.reply_by_s - age_s
    if left_s <= 0:
        return Refused("stale", f"an answer counted for {act.reply_by_s:g} s, and it was under way for {age_s:.1f} s")
    return act.model_copy(update={"reply_by_s": left_s})
