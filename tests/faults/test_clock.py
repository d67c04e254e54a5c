"""The clocks of our own services are set an hour ahead and back while commands are under way; the broker keeps its own.

One service alone is set, then all at once, as when somebody sets the clock of the machine.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

from edgeagents.embedded.supervisor import Child
from tests.faults.rig import PLAYED, Moment, a_rig, failures
from tests.faults.score import Score
from tests.faults.stepped import set_clock

STEPS_S = (3600.0, 0.0, -3600.0, 0.0)  # off the true time, one after the other
STEPPED = ("guard", "world", "core", "agent-comfort")
ROOT = Path(__file__).resolve().parents[2]


async def test_clock_steps_of_our_services_break_no_promise(
    tmp_path: Path, rounds: int, seed: int, score: Score
) -> None:
    problems: list[str] = []
    clocks = tmp_path / "clocks"
    clocks.mkdir()
    for name in STEPPED:
        set_clock(clocks / name, 0.0)
    played = frozenset({*PLAYED, "energy", "air"})

    def adapt(child: Child) -> Child:
        if child.name not in STEPPED:
            return child
        python, _, *rest = child.command  # python -m module …
        command = [python, "-m", "tests.faults.stepped", str(clocks / child.name), *rest]
        return replace(child, command=command, env={**child.env, "PYTHONPATH": str(ROOT)})

    async with a_rig(tmp_path / "gateway", score, seed=seed, factor=1.0, played=played, adapt=adapt) as rig:
        rig.start()
        async with rig.connected():
            await rig.up()
            for number in range(max(1, rounds // 4)):
                # First the guard alone, then one other service, then all at once: as when the machine's clock is set.
                for names in (("guard",), (rig.random.choice(STEPPED[1:]),), STEPPED):
                    async with rig.traffic():
                        for off_s in STEPS_S:
                            with failures(problems, f"clock {off_s:+g} s, {', '.join(names)}, round {number}"):
                                await asyncio.sleep(rig.random.uniform(0.0, 0.5))
                                for name in names:
                                    set_clock(clocks / name, off_s)
                                await rig.recovers("clock step", f"{off_s:+g} s, {', '.join(names)}", Moment())
            result = await rig.judged()
    assert problems + score.run("clock steps", result) == []
