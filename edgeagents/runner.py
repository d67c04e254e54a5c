"""Drives a protocol: the only loop that carries out effects.

A protocol is `step(state, event) -> (state, effects)`. The runner calls it, carries each effect out in order
through a function the service supplies, and feeds what comes back into the next step.

Source: style.md section 3.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

S = TypeVar("S")
E = TypeVar("E")
F = TypeVar("F")

Step = Callable[[S, E], tuple[S, Sequence[F]]]
CarryOut = Callable[[F], Awaitable[E | None]]


async def drive(state: S, event: E, step: Step[S, E, F], carry_out: CarryOut[F, E]) -> S:
    """Run a protocol from an event until nothing is left to do, and return the state it rests in.

    Args:
        state: where it starts.
        event: what happened.
        step: the pure protocol.
        carry_out: does one effect; returns the event that follows from it, None when nothing does.
    """
    events = deque([event])
    while events:
        state, effects = step(state, events.popleft())
        for effect in effects:
            following = await carry_out(effect)
            if following is not None:
                events.append(following)
    return state
