"""The clocks of our own services are set an hour ahead and back while commands are under way; the broker keeps its own.

libfaketime reads how far off the clock is from a file, so that it steps in a process that runs. Monotonic clocks go on
as they are, as they do when the clock of a machine is set.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

from edgeagents.embedded.supervisor import Child
from tests.faults.rig import PLAYED, Moment, a_rig, failures
from tests.faults.score import Score

STEPS = ("+3600", "+0", "-3600", "+0")  # seconds off the true time, one after the other


def faked(child: Child, library: str, clock: Path) -> Child:
    """Return a child whose wall clock is as far off as a file says."""
    return replace(child, env={
        **child.env, "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1", "DONT_FAKE_MONOTONIC": "1",
    })  # fmt: skip


def set_clock(clock: Path, offset: str) -> None:
    """Step a clock: the file is replaced in one piece, as it is read at any moment."""
    beside = clock.with_suffix(".new")
    beside.write_text(offset + "\n")
    beside.replace(clock)


async def test_clock_steps_of_our_services_break_no_promise(
    tmp_path: Path, rounds: int, seed: int, faketime: str, score: Score
) -> None:
    problems: list[str] = []
    clocks = tmp_path / "clocks"
    clocks.mkdir()
    stepped = ("guard", "world", "core", "agent-comfort")
    played = frozenset({*PLAYED, "energy", "air"})
    for name in stepped:
        set_clock(clocks / name, "+0")

    def adapt(child: Child) -> Child:
        return faked(child, faketime, clocks / child.name) if child.name in stepped else child

    async with a_rig(tmp_path / "gateway", score, seed=seed, factor=1.0, played=played, adapt=adapt) as rig:
        rig.start()
        async with rig.connected():
            await rig.up()
            for number in range(max(1, rounds // 4)):
                # First the guard alone, then one other service, then all at once: as when the machine's clock is set.
                for names in (("guard",), (rig.random.choice(stepped[1:]),), stepped):
                    async with rig.traffic():
                        for step in STEPS:
                            with failures(problems, f"clock {step} s, {', '.join(names)}, round {number}"):
                                await asyncio.sleep(rig.random.uniform(0.0, 0.5))
                                for name in names:
                                    set_clock(clocks / name, step)
                                await rig.recovers("clock step", f"{step} s, {', '.join(names)}", Moment())
            result = await rig.judged()
    assert problems + score.run("clock steps", result) == []
