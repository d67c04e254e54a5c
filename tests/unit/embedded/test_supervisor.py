"""Children are started again when they end, and none is left behind."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagents.embedded.supervisor import Child, Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    for _ in range(int(seconds * 100)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not in {seconds:g} s")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.start(Child("sleeper", [sys.executable, "-c", SLEEPER]))
    try:
        await until(lambda: "up" in supervisor.log_tail("sleeper"))
        first = supervisor.pid("sleeper")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pid("sleeper") not in (None, first))
        assert supervisor.restarts == {"sleeper": 1}
    finally:
        await supervisor.stop()
    assert supervisor.pid("sleeper") is None


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN])
async def test_stop_leaves_nothing_running(tmp_path: Path, code: str) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.start(Child("child", [sys.executable, "-c", code]))
    await until(lambda: "up" in supervisor.log_tail("child"))
    pid = supervisor.pid("child")
    assert pid is not None

    await supervisor.stop(grace_s=0.3)

    assert not is_alive(pid)


async def test_a_child_gets_its_environment_and_its_own_process_group(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    code = "import os, time; print(os.environ['WORD'], os.getpgrp() == os.getpid(), flush=True); time.sleep(60)"
    supervisor.start(Child("child", [sys.executable, "-c", code], {"WORD": "hello"}))
    try:
        await until(lambda: "hello True" in supervisor.log_tail("child"))
    finally:
        await supervisor.stop()


async def test_a_child_that_cannot_start_is_tried_again_with_growing_pauses(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.start(Child("broken", [sys.executable, "-c", "raise SystemExit(3)"]))
    try:
        await until(lambda: supervisor.restarts.get("broken", 0) >= 2)
    finally:
        await supervisor.stop()
