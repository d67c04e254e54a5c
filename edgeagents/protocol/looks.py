"""Is it a hand, or does it change by itself? What the guard's own looks at a doubted resource say, one after another.

    as expected at once                 -> `Settled`: the reading was stale
    the same other value, again and again -> `Settled`: somebody set it
    now this, now that                  -> after a pause once more (somebody is just at it), then `Moving`

A simulated random value, a jittering measurement and a counter give another value at each look; what a person has set
stays for longer than the looks take. A random Bool that shows one value at every look by chance passes for a hand:
once in some three hundred times.

Source: measured on EdgeX 4.0.2 with device-virtual; design.md section 3.8.
"""

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edgeagents.model.values import Value, same_value

AGREEING_LOOKS: Final = 10
FEWEST_LOOKS: Final = 3  # of a device that answers slowly
LOOKING_S: Final = 0.5  # from here on the fewest are enough
BETWEEN_LOOKS_S: Final = 0.05
ROUNDS: Final = 2
BETWEEN_ROUNDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Looking:
    """Not clear yet: look again after `pause_s`.

    Args:
        expected: what the resource should show.
        tolerance: within which two values are one.
        pause_s: before the next look.
        shown: what the last look of this round showed.
        agreeing: how many looks in a row showed it.
        since_s: when the first of them was made, on the guard's monotonic clock.
        rounds: how many rounds ended with two different values.
    """

    expected: Value
    tolerance: float
    pause_s: float = 0.0
    shown: Value = None
    agreeing: int = 0
    since_s: float = 0.0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """It shows `value`, and keeps it."""

    value: Value


@dataclass(frozen=True, slots=True)
class Moving:
    """It shows now this, now that, although nobody has the time to set it so often."""


State: TypeAlias = Looking | Settled | Moving


def take(state: Looking, value: Value, now_s: float) -> State:
    """Return what is known after one more look that showed `value` at `now_s`."""
    if not state.agreeing:
        if not state.rounds and same_value(value, state.expected, state.tolerance):
            return Settled(value)
        return replace(state, pause_s=BETWEEN_LOOKS_S, shown=value, agreeing=1, since_s=now_s)
    if not same_value(value, state.shown, state.tolerance):
        if state.rounds + 1 >= ROUNDS:
            return Moving()
        return replace(state, pause_s=BETWEEN_ROUNDS_S, shown=None, agreeing=0, rounds=state.rounds + 1)
    agreeing = state.agreeing + 1
    is_enough = agreeing >= FEWEST_LOOKS and now_s - state.since_s >= LOOKING_S
    if is_enough or agreeing >= AGREEING_LOOKS:
        return Settled(value)
    return replace(state, agreeing=agreeing)
