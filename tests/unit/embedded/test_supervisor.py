"""Child processes: started again when they end, ended together, gone when their parent is."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagents.embedded import supervisor as supervisor_module
from edgeagents.embedded.supervisor import Child, Supervisor
from tests.contract.waiting import until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def child(name: str, code: str, **env: str) -> Child:
    """Return a child that runs some Python."""
    return Child(name, [sys.executable, "-c", code], env)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_child_that_is_killed_is_started_again_and_counted(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log")
    found.start(child("sleeper", "import time; time.sleep(60)"))
    first = await until(lambda: found.pid("sleeper"), "it runs")
    os.kill(first, signal.SIGKILL)
    second = await until(lambda: found.pid("sleeper") not in (None, first) and found.pid("sleeper"), "another runs")
    assert found.restarts == {"sleeper": 1}
    assert found.names == ["sleeper"]
    await found.stop()
    assert not is_alive(first)
    assert not is_alive(second)
    assert found.pid("sleeper") is None


async def test_output_and_environment_go_where_they_should(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log")
    code = "import os, sys, time; print('said', os.environ['WORD']); print('oops', file=sys.stderr, flush=True)"
    found.start(child("talker", code + "; sys.stdout.flush(); time.sleep(60)", WORD="hello"))
    await until(lambda: "said hello" in found.log_tail("talker"), "it has spoken")
    assert "oops" in found.log_tail("talker")
    assert found.log_tail("nobody") == ""
    pid = found.pid("talker")
    assert pid is not None
    assert os.getpgid(pid) == pid, "a group of its own: what it starts ends with it"
    await found.stop()


async def test_one_that_ends_at_once_is_started_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    original = asyncio.sleep

    async def sleep(delay: float) -> None:
        pauses.append(delay)
        await original(0 if len(pauses) < 7 else 60)

    monkeypatch.setattr("edgeagents.embedded.supervisor.asyncio.sleep", sleep)
    found = Supervisor(tmp_path / "log")
    found.start(Child("failer", ["/bin/false"]))
    async with asyncio.timeout(10):
        while len(pauses) < 7:
            await original(0.01)
    await found.stop()
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, supervisor_module.LONGEST_PAUSE_S, supervisor_module.LONGEST_PAUSE_S]


async def test_a_command_that_is_not_there_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = Supervisor(tmp_path / "log")
    found.start(Child("missing", [str(tmp_path / "no-such-program")]))
    await until(lambda: found.restarts.get("missing"), "it was tried")
    assert "no-such-program: No such file or directory" in caplog.text
    await found.stop()


async def test_who_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log")
    found.start(child("stubborn", STUBBORN))
    await until(lambda: "up" in found.log_tail("stubborn"), "it ignores SIGTERM by now")
    pid = found.pid("stubborn")
    assert pid is not None
    await found.stop(grace_s=0.2)
    assert not is_alive(pid)


async def test_one_that_is_stuck_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LOOK_AGAIN_S", 0.01)
    answers = iter([False, True])
    found = Supervisor(tmp_path / "log")
    sleeper = Child("sleeper", child("", STUBBORN).command, is_stuck=lambda: next(answers, False))
    found.start(sleeper)
    first = await until(lambda: found.pid("sleeper"), "it runs")
    second = await until(lambda: found.pid("sleeper") not in (None, first) and found.pid("sleeper"), "another runs")
    assert (is_alive(first), is_alive(second)) == (False, True)
    assert found.restarts == {"sleeper": 1}
    await found.stop(grace_s=0.1)
    assert not is_alive(second)


async def test_killed_together_nobody_is_started_again_until_asked_to(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log")
    sleepers = [child(f"sleeper-{number}", "import time; time.sleep(60)") for number in (1, 2)]
    for sleeper in sleepers:
        found.start(sleeper)
    pids = [await until(lambda name=sleeper.name: found.pid(name), "it runs") for sleeper in sleepers]
    await found.kill()
    assert [is_alive(pid) for pid in pids] == [False, False]
    assert (found.names, [found.pid(sleeper.name) for sleeper in sleepers]) == ([], [None, None])
    found.start(sleepers[0])
    assert await until(lambda: found.pid("sleeper-1"), "it runs again") not in pids
    await found.stop()


async def test_stopping_before_anything_started_is_fine(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log")
    await found.stop()
    found.start(child("late", "import time; time.sleep(60)"))
    await found.stop()
    assert found.pid("late") is None


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from edgeagents.embedded.supervisor import Child, Supervisor
async def main():
    found = Supervisor(Path({str(tmp_path)!r}))
    found.start(Child("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"]))
    while found.pid("sleeper") is None:
        await asyncio.sleep(0.01)
    print(found.pid("sleeper"), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    asyncio.run(until(lambda: not is_alive(pid), "the child went with its parent"))
