"""A timer fires when its time is over, on the loop that services run on and on asyncio's own."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest
import uvloop

from edgeagents.adapters.timers import call_after
from tests.contract.waiting import busy


async def _earliest_s(count: int) -> tuple[int, float]:
    """Start timers on a busy loop; return how many fired, and by how much the earliest missed its time (negative)."""
    found: list[float] = []
    work = asyncio.create_task(busy())
    chosen = random.Random(7)
    for _ in range(count):
        after_s = chosen.uniform(0.0, 0.05)
        call_after(after_s, lambda due_s: found.append(time.monotonic() - due_s), time.monotonic() + after_s)
        await asyncio.sleep(chosen.uniform(0.0, 0.002))
    await asyncio.sleep(0.1)
    work.cancel()
    return len(found), min(found)


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_no_timer_fires_before_its_time(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        fired, earliest_s = runner.run(_earliest_s(500))
    assert fired == 500
    assert earliest_s >= 0, f"{-earliest_s * 1000:.3f} ms too early"


async def test_a_time_that_is_over_is_now_and_a_timer_can_be_taken_back() -> None:
    called: list[str] = []
    call_after(-5.0, called.append, "past")
    call_after(0.001, called.append, "taken back").cancel()
    await asyncio.sleep(0.05)
    assert called == ["past"]
