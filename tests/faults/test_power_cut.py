"""The power of a whole gateway is cut: broker and guard find on disk what their last fsync put there, no more."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.supervisor import Child
from tests.faults.disk_trace import Disk, is_whole, traced
from tests.faults.rig import Rig, a_rig, failures, until
from tests.faults.score import Score

TRACED = {"nats": "nats/jetstream", "guard": "guard"}  # whose promise it is that what they acknowledged is on disk


async def cut(rig: Rig, disks: dict[str, Disk], logs: Path) -> None:
    """Cut the power of everything at one moment, and leave on disk what was synced."""
    pids = {name: rig.gateway.supervisor.pid(name) or 0 for name in TRACED}
    await rig.gateway.supervisor.kill()
    for name, pid in pids.items():

        async def is_done(name: str = name, pid: int = pid) -> bool:
            return is_whole(logs / name, pid)

        await until(is_done, f"the trace of {name} is whole")
        disks[name].follow(logs / name)
        disks[name].rebuild()


async def powered_off(folder: Path, logs: Path, rounds: int, strace: str, rig_options: dict[str, Any]) -> list[str]:
    """Return what went wrong in a gateway whose power was cut `rounds` times, at random moments."""
    problems: list[str] = []

    def adapt(child: Child) -> Child:
        is_traced = child.name in TRACED
        return replace(child, command=traced(strace, logs / child.name, child.command)) if is_traced else child

    async with a_rig(folder, factor=1.0, only_played=True, adapt=adapt, **rig_options) as rig:
        disks = {name: Disk(folder / where) for name, where in TRACED.items()}
        rig.start()
        async with rig.connected():
            await rig.up()
            for number in range(rounds):
                with failures(problems, f"power cut {number}"):
                    async with rig.traffic():
                        await asyncio.sleep(rig.random.uniform(0.5, 3.0))
                        await cut(rig, disks, logs)
                        disks = {name: Disk(folder / where) for name, where in TRACED.items()}
                        rig.start()
                        await rig.up()  # how long that takes says more about the tracer than about the gateway
                    rig.score.fault("power cut", "the whole gateway", None)
            result = await rig.judged()
    return problems + rig.score.run("power cuts", result)


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """A folder for traces."""
    found = tmp_path / "traces"
    found.mkdir()
    return found


async def test_a_power_cut_loses_nothing_that_was_acknowledged(
    tmp_path: Path, traces: Path, rounds: int, seed: int, strace: str, score: Score
) -> None:
    options = {"score": score, "seed": seed}
    assert await powered_off(tmp_path / "gateway", traces, rounds, strace, options) == []


@pytest.mark.long
async def test_a_power_cut_is_felt_by_a_broker_that_syncs_later(
    tmp_path: Path, traces: Path, seed: int, strace: str
) -> None:
    """The check of the check: without `sync_interval: always` acknowledged commands are lost, and that is found."""
    options = {"score": Score(lambda text: None), "seed": seed, "sync_always": False}
    problems = await powered_off(tmp_path / "gateway", traces, 1, strace, options)
    assert [problem for problem in problems if "acknowledged by the broker, which has it no longer" in problem]
