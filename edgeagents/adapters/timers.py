"""Timers that never come too early: who acts on a time only once it is over would otherwise sleep on for ever.

uvloop counts whole milliseconds from the last one begun, and rounds what it is given: under load every other of its
timers fires up to 1.5 ms before its time by `time.monotonic`.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVarTuple

EARLY_S: Final = 0.002  # more than any timer comes too early
Ts = TypeVarTuple("Ts")


def call_after(after_s: float, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.TimerHandle:
    """Have the running loop call something once, when so many seconds are over by `time.monotonic`, not before."""
    return asyncio.get_running_loop().call_later(max(0.0, after_s) + EARLY_S, callback, *args)
