"""The guard dies once at every place at which it waits while a command is under way; nothing is lost or done twice."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.crash_points import FOLDER
from tests.faults.rig import LIGHTS, Moment, Rig, a_rig, failures
from tests.faults.score import Score

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
    doing = asyncio.create_task(rig.probe.do(light, rig.random.randint(1, 100), timeout_s=timeout_s))
    dying = asyncio.create_task(guards.dead(timeout_s))
    await asyncio.wait({doing, dying}, return_when=asyncio.FIRST_COMPLETED)
    ended = doing.done()
    for task in (doing, dying):
        task.cancel()
    await asyncio.gather(doing, dying, return_exceptions=True)
    return ended


async def test_the_guard_dies_at_each_await_of_its_command_path(guards: Guards, score: Score) -> None:
    rig, problems = guards.rig, []
    guards.order("record")
    for light in LIGHTS:
        assert await one_command(guards, light, 8.0)
    await asyncio.sleep(0.3)
    guards.order("")
    points = guards.passed()
    assert len(points) > 40, points
    for number, point in enumerate(points):
        light = LIGHTS[number % len(LIGHTS)]
        guards.order(f"die {point} 1")
        with failures(problems, point):
            await one_command(guards, light, 4.0)
            if not await guards.dead(2.0):
                score.say(f"     not passed again: {point}")
                guards.order("")
                continue
            await guards.start()
            await rig.recovers("killed at a point", point, guards.died)
    assert problems + score.run("each await of the command path", await rig.judged()) == []
