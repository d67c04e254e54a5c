"""A gateway of which everything was killed comes up from cold, whatever starts first and whenever the next follows."""

import asyncio
from pathlib import Path

from tests.faults.rig import Moment, a_rig, failures
from tests.faults.score import Score

LONGEST_GAP_S = 4.0


async def test_everything_is_started_from_cold_in_any_order(
    tmp_path: Path, rounds: int, seed: int, score: Score
) -> None:
    problems: list[str] = []
    async with a_rig(tmp_path, score, seed=seed) as rig:
        rig.start()
        async with rig.connected():
            await rig.up()
            for _ in range(max(1, rounds // 2)):
                order = rig.random.sample(list(rig.children), len(rig.children))
                with failures(problems, f"cold start, {', '.join(order)}"):
                    async with rig.traffic():
                        await asyncio.sleep(rig.random.uniform(0.5, 2.0))
                        await rig.gateway.supervisor.kill()
                        for name in order[:-1]:
                            rig.start(name)
                            await asyncio.sleep(rig.random.choice((0.0, 0.5, LONGEST_GAP_S)))
                        since = Moment()
                        rig.start(order[-1])
                        await rig.recovers("cold start", ", ".join(order), since)
            result = await rig.judged()
    assert problems + score.run("cold starts in random orders", result) == []
