"""Everything is off; its parts come up in any order, seconds or minutes apart: the home works, and nothing is lost."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from tests.scenarios.conftest import Deadline, figures_of, never_done

PARTS = (
    "nats", "core", "guard", "world", "agent-air", "agent-assistant", "agent-comfort", "agent-dimmer", "agent-energy",
)  # fmt: skip


async def come_up(gateway: Gateway, order: Sequence[str], gaps_s: Sequence[float], ready_s: float) -> None:
    """Start the parts of a gateway in this order, each after its gap, and wait until all of it works."""
    children = gateway.prepare()
    assert set(children) == set(PARTS)
    for name, gap_s in zip(order, gaps_s, strict=True):
        await asyncio.sleep(gap_s)
        gateway.supervisor.start(children[name])
    await gateway.ready(ready_s)


async def works(folder: Path, order: Sequence[str], gaps_s: Sequence[float], ready_s: float = 60.0) -> None:
    """Start a gateway in this order, and see that it proves a command and loses none, nor any event."""
    gateway = Gateway(Plan(folder, never_done(folder.parent), 60.0, WINTER_MORNING_S))
    try:
        await come_up(gateway, order, gaps_s, ready_s)
        deadline = Deadline(90)
        while not (await gateway.state("guard", "/api/v3/guard")).get("outcomes", {}).get("proven"):
            assert not deadline.is_over, f"no command is proven after a start in the order {order}"
            await asyncio.sleep(0.1)
        figures = await figures_of(gateway)
    finally:
        await gateway.stop()
    assert figures["problems"] == [], order
    assert (figures["lost"], figures["duplicated"]) == (0, 0)


def shuffled(seed: int, longest_s: float) -> tuple[list[str], list[float]]:
    """Return an order of the parts, and the gap before each."""
    chance = random.Random(seed)
    order = list(PARTS)
    chance.shuffle(order)
    return order, [round(chance.uniform(0, longest_s), 2) for _ in order]


@pytest.mark.timeout(400)
async def test_a_gateway_comes_up_in_any_order_and_again_from_what_it_kept(tmp_path: Path) -> None:
    await works(tmp_path / "gateway", tuple(reversed(PARTS)), [0.7] * len(PARTS))
    for seed in (1, 2):
        await works(tmp_path / "gateway", *shuffled(seed, 2.0))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10, 18))
async def test_a_gateway_comes_up_in_many_orders(tmp_path: Path, seed: int) -> None:
    for further in range(2):
        await works(tmp_path / "gateway", *shuffled(seed + 100 * further, 5.0))


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("late", ["nats", "core"])
async def test_who_comes_after_more_than_a_minute_is_still_waited_for(tmp_path: Path, late: str) -> None:
    order = [*(name for name in PARTS if name != late), late]
    await works(tmp_path / "gateway", order, [*([0.2] * (len(PARTS) - 1)), 75.0], ready_s=90)
