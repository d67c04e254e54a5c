"""Disks that get full and have room again, and disks that are slow: the stores of broker and guard."""

import asyncio
import contextlib
import json
from dataclasses import replace
from pathlib import Path

from edgeagents.embedded.supervisor import Child
from tests.disks import full, small_disk
from tests.faults.rig import Moment, Rig, a_rig, failures
from tests.faults.score import Score

STORES = {"nats": "nats", "guard": "guard"}
FULL_S = 4.0
SLOW_S = 0.2  # each fsync


def promise_room(config: Path) -> None:
    """Have the broker take its store for large: else it sizes itself by the small disk and refuses our streams."""
    words = json.loads(config.read_text())
    words["jetstream"]["max_file_store"] = 1 << 34
    config.write_text(json.dumps(words))


async def fill(rig: Rig, name: str) -> None:
    """Let a store be full for a while, and measure from when it has room again."""
    with full(rig.gateway.plan.folder / STORES[name]):
        await asyncio.sleep(FULL_S)
    await rig.recovers("full disk", f"of {name}", Moment())


async def test_a_full_disk_that_has_room_again_loses_nothing(
    tmp_path: Path, rounds: int, seed: int, mounting: None, score: Score
) -> None:
    problems: list[str] = []
    folder = tmp_path / "gateway"
    with contextlib.ExitStack() as disks:
        for where in STORES.values():
            disks.enter_context(small_disk(folder / where))
        async with a_rig(folder, score, seed=seed, factor=1.0, only_played=True) as rig:
            promise_room(folder / "nats" / "nats-server.conf")
            rig.start()
            async with rig.connected():
                await rig.up()
                async with rig.traffic():
                    for name in sorted(STORES) * max(1, rounds // 2):
                        await asyncio.sleep(rig.random.uniform(0.0, 1.0))
                        with failures(problems, f"full disk of {name}"):
                            await fill(rig, name)
                result = await rig.judged()
    assert problems + score.run("full disks", result) == []


async def test_a_slow_disk_only_makes_things_slow(tmp_path: Path, seed: int, strace: str, score: Score) -> None:
    delay = [
        strace, "-f", "-DD", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync",
        "-e", f"inject=fsync,fdatasync:delay_exit={int(SLOW_S * 1e6)}",
    ]  # fmt: skip

    def adapt(child: Child) -> Child:
        return replace(child, command=[*delay, *child.command]) if child.name in STORES else child

    async with a_rig(tmp_path, score, seed=seed, factor=1.0, only_played=True, adapt=adapt) as rig:
        rig.start()
        async with rig.connected():
            await rig.up()
            async with rig.traffic():
                await asyncio.sleep(8.0)
            score.fault("slow disk", f"{SLOW_S:g} s an fsync of broker and guard", None)
            result = await rig.judged()
    assert score.run("slow disks", result) == []
    assert result.outcomes["proven"] >= 1
