"""Each process of a home is killed and stopped at random moments, with commands under way on three lights."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from tests.faults.rig import Rig, a_rig, failures
from tests.faults.score import Score

PROCESSES = (
    "nats", "core", "guard", "world", "agent-comfort", "agent-energy", "agent-air", "agent-assistant", "coordinator",
)  # fmt: skip
Fault: TypeAlias = tuple[Callable[[Rig, str], Awaitable[None]], str]


async def kill(rig: Rig, name: str) -> None:
    """Kill one process."""
    await rig.kill(name)


async def hold(rig: Rig, name: str) -> None:
    """Stop one process for a while."""
    await rig.hold(name, rig.random.uniform(0.2, 6.0))


async def attacked(rig: Rig, faults: Sequence[Fault], what: str) -> list[str]:
    """Return what went wrong in one home while faults came, in random order and at random moments."""
    problems: list[str] = []
    rig.start()
    async with rig.connected():
        await rig.up()
        async with rig.traffic():
            for how, name in rig.random.sample(faults, len(faults)):
                await asyncio.sleep(rig.random.uniform(0.0, 1.0))
                with failures(problems, f"{how.__name__} {name}"):
                    await how(rig, name)
        return problems + rig.score.run(what, await rig.judged())


async def test_each_process_killed_and_stopped_at_random(tmp_path: Path, rounds: int, seed: int, score: Score) -> None:
    faults = [(how, name) for how in (kill, hold) for name in PROCESSES for _ in range(rounds)]
    async with a_rig(tmp_path, score, seed=seed, coordinator=True) as rig:
        assert await attacked(rig, faults, "home, each process killed and stopped") == []


async def test_broker_and_guard_killed_where_the_broker_syncs_later(
    tmp_path: Path, rounds: int, seed: int, score: Score
) -> None:
    # The others are killed above; what differs here is what the broker had on disk, and who relies on it.
    faults = [(kill, name) for name in ("nats", "guard") for _ in range(rounds)]
    async with a_rig(tmp_path, score, seed=seed, sync_always=False, only_played=True, factor=1.0) as rig:
        assert await attacked(rig, faults, "broker with sync_interval default, killed") == []
