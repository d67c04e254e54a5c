"""The guard dies once at every place at which it waits while a command is under way; nothing is lost or done twice."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.faults.crash_points import FOLDER
from tests.faults.rig import LIGHTS, Moment, Rig, a_rig, failures, until
from tests.faults.score import Score

ALL_FROM, SHORT_STEP = 20, 12  # rounds from which on every point has its turn; else one in so many
SETTING = "adapters.edgex:CommandClient.set:call"  # where core-command is asked
ROOT = Path(__file__).resolve().parents[2]


class Guards:
    """Guards that die where they are told to, started one after the other from one process that has loaded them."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        """Start guards of a rig; `folder` is for orders and what was passed."""
        self.rig = rig
        self.folder = folder
        folder.mkdir()
        self.pid: int | None = None
        self.died = Moment()

    async def __aenter__(self) -> "Guards":
        environ = {**os.environ, **self.rig.children["guard"].env, FOLDER: str(self.folder)}
        with (self.rig.gateway.plan.folder / "log" / "guard.log").open("ab") as log:
            self._loader = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.crashing_guard", env=environ, cwd=ROOT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self._ended = asyncio.Event()
        self._began: asyncio.Queue[int] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.pid is not None:
            self.kill()
            await self.dead()
        self._loader.stdin.close()
        await self._loader.wait()
        await self._reading

    async def _read(self) -> None:
        while line := await self._loader.stdout.readline():
            words = line.decode().split()
            if len(words) == 1:
                self._began.put_nowait(int(words[0]))
            elif int(words[0]) == self.pid:
                self.pid, self.died = None, Moment()
                self._ended.set()

    async def start(self) -> None:
        """Start a guard; it runs when this returns, it need not serve yet."""
        assert self.pid is None, "one guard at a time"
        self._ended.clear()
        self._loader.stdin.write(b"start\n")
        self.pid = await self._began.get()

    def kill(self) -> None:
        """End the guard at once."""
        os.kill(self.pid, 9)

    async def dead(self, timeout_s: float = 10.0) -> bool:
        """Wait until the guard has died; say whether it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        return self.pid is None

    def order(self, text: str) -> None:
        """Have passes of points do something: `record`, or `die <point> <count>`; nothing when empty."""
        beside = self.folder / "armed.new"
        beside.write_text(text)
        beside.replace(self.folder / "armed") if text else (self.folder / "armed").unlink(missing_ok=True)

    def passed(self) -> list[str]:
        """Return the points that were passed since `record`, each once, in order; they are forgotten then."""
        log = self.folder / "passed"
        found = list(dict.fromkeys(log.read_text().split("\n")[:-1])) if log.exists() else []
        log.unlink(missing_ok=True)
        return found


@pytest.fixture
async def guards(tmp_path: Path, seed: int, score: Score) -> AsyncIterator[Guards]:
    """A home without agents of its own, up, and its guard as one that can be told where to die."""
    async with a_rig(tmp_path, score, seed=seed, factor=1.0, only_played=True) as rig:
        rig.start("nats", "core", "world")
        async with Guards(rig, tmp_path / "orders") as found:
            await found.start()
            async with rig.connected():
                await rig.up()
                yield found


async def one_command(guards: Guards, light: str, timeout_s: float) -> bool:
    """Take a light's lease anew and command it once; say whether that ended before the guard did."""
    rig = guards.rig
    await rig.probe.lease(light, release=True)
    doing = rig.probe.do(light, rig.random.randint(1, 100), timeout_s=timeout_s)
    return await first_of(doing, guards.dead(timeout_s))


async def first_of(work: Coroutine[Any, Any, Any], other: Coroutine[Any, Any, Any]) -> bool:
    """Wait until one of two is done and end the other; say whether it was the first."""
    tasks = [asyncio.create_task(item) for item in (work, other)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    is_first = tasks[0].done()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return is_first


def chosen(points: list[str], rounds: int, rig: Rig) -> list[str]:
    """Return the points to die at: all in a long run, else every few of them, others with every seed."""
    step = 1 if rounds >= ALL_FROM else SHORT_STEP
    return points[rig.random.randrange(step) :: step]


async def test_the_guard_dies_at_each_await_of_its_command_path(guards: Guards, rounds: int, score: Score) -> None:
    rig, problems = guards.rig, []
    guards.order("record")
    for light in LIGHTS:
        assert await one_command(guards, light, 8.0)
    await asyncio.sleep(0.3)
    guards.order("")
    points = guards.passed()
    assert len(points) > 40, points
    for number, point in enumerate(chosen(points, rounds, rig)):
        guards.order(f"die {point} 1")
        with failures(problems, point):
            await one_command(guards, LIGHTS[number % len(LIGHTS)], 4.0)
            if not await guards.dead(2.0):
                guards.order("")
                # It may have passed there just before the order was taken back: the next one is for a guard that runs.
                if not await guards.dead(0.3):
                    score.say(f"     not passed again: {point}")
                    continue
            await guards.start()
            await rig.recovers("killed at a point", point, guards.died)
    assert problems + score.run("each await of the command path", await rig.judged()) == []


async def die_setting(guards: Guards, light: str, side: str) -> None:
    """Have the guard die right before, or right after, core-command was asked to SET."""
    guards.order(f"die {SETTING}:{side} 1")
    for _ in range(3):  # a command may expire before: its light may still be in quarantine from the death before
        if not await one_command(guards, light, 8.0) or await guards.dead(2.0):
            break
    assert await guards.dead(), f"{SETTING}:{side} was not passed"


async def test_the_guard_dies_again_at_each_await_of_its_recovery(guards: Guards, rounds: int, score: Score) -> None:
    rig, problems = guards.rig, []
    await die_setting(guards, LIGHTS[0], "after")
    guards.order("record")
    await guards.start()
    await until(rig.probe.is_welcome, "the guard serves agents", 30.0)
    guards.order("")
    points = guards.passed()
    assert len(points) > 20, points
    await rig.up()
    for number, point in enumerate(chosen(points, rounds, rig)):
        with failures(problems, point):
            await die_setting(guards, LIGHTS[number % len(LIGHTS)], ("before", "after")[number % 2])
            guards.order(f"die {point} 1")
            await guards.start()
            await first_of(until(rig.probe.is_welcome, "the guard serves agents", 30.0), guards.dead(60.0))
            if not await guards.dead(1.0):
                guards.order("")
                if not await guards.dead(0.3):
                    score.say(f"     not passed again: {point}")
                    await rig.up()
                    continue
            await guards.start()
            await rig.recovers("killed in recovery", point, guards.died)
    assert problems + score.run("each await of the recovery", await rig.judged()) == []
