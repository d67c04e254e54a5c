"""Child processes: started again when they end, ended together, gone when their parent is; forked or programs."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagents.embedded import supervisor as supervisor_module
from edgeagents.embedded.fork_server import ForkServer, Order
from edgeagents.embedded.gateway import IMPORTED
from edgeagents.embedded.supervisor import Child, Supervisor
from tests.contract.waiting import until

SAID = "tests.unit.embedded.said"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def child(name: str, code: str, **env: str) -> Child:
    """Return a child that runs some Python."""
    return Child(name, [sys.executable, "-m", SAID, code], env)


@pytest.fixture(params=["forked", "programs"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Supervisor:
    """Return a supervisor whose children are forked, or started as programs of their own."""
    forked = [SAID] if request.param == "forked" else []
    return Supervisor(tmp_path / "log", forked, ["json", "uvloop"])


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_child_that_is_killed_is_started_again_and_counted(found: Supervisor) -> None:
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


async def test_output_and_environment_go_where_they_should(found: Supervisor) -> None:
    code = "import os, sys, time; print('oops', file=sys.stderr, flush=True); print('said', os.environ['WORD'])"
    found.start(child("talker", code + "; sys.stdout.flush(); time.sleep(60)", WORD="hello"))
    await until(lambda: "said hello" in found.log_tail("talker"), "it has spoken")
    assert "oops" in found.log_tail("talker")
    assert found.log_tail("nobody") == ""
    pid = await until(lambda: found.pid("talker"), "it is known")  # a forked one may speak before
    assert os.getpgid(pid) == pid, "a group of its own: what it starts ends with it"
    await found.stop()


async def test_one_that_ends_at_once_is_started_again_with_growing_pauses(
    found: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    original = asyncio.sleep

    async def sleep(delay: float) -> None:
        pauses.append(delay)
        await original(0 if len(pauses) < 7 else 60)

    monkeypatch.setattr("edgeagents.embedded.supervisor.asyncio.sleep", sleep)
    found.start(Child("failer", ["/bin/false"]))
    async with asyncio.timeout(10):
        while len(pauses) < 7:
            await original(0.01)
    await found.stop()
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, supervisor_module.LONGEST_PAUSE_S, supervisor_module.LONGEST_PAUSE_S]


async def test_a_command_that_is_not_there_is_told_and_tried_again(
    found: Supervisor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found.start(Child("missing", [str(tmp_path / "no-such-program")]))
    await until(lambda: found.restarts.get("missing"), "it was tried")
    assert "no-such-program: No such file or directory" in caplog.text
    await found.stop()


async def test_who_does_not_end_in_time_is_killed(found: Supervisor) -> None:
    found.start(child("stubborn", STUBBORN))
    await until(lambda: "up" in found.log_tail("stubborn"), "it ignores SIGTERM by now")
    pid = await until(lambda: found.pid("stubborn"), "it is known")
    await found.stop(grace_s=0.2)
    assert not is_alive(pid)


async def test_one_that_is_stuck_is_ended_and_started_again(found: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LOOK_AGAIN_S", 0.01)
    answers = iter([False, True])
    sleeper = Child("sleeper", child("", STUBBORN).command, is_stuck=lambda: next(answers, False))
    found.start(sleeper)
    first = await until(lambda: found.pid("sleeper"), "it runs")
    second = await until(lambda: found.pid("sleeper") not in (None, first) and found.pid("sleeper"), "another runs")
    assert (is_alive(first), is_alive(second)) == (False, True)
    assert found.restarts == {"sleeper": 1}
    await found.stop(grace_s=0.1)
    assert not is_alive(second)


async def test_killed_together_nobody_is_started_again_until_asked_to(found: Supervisor) -> None:
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


async def test_stopping_before_anything_started_is_fine(found: Supervisor) -> None:
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


# --- of those that are forked ------------------------------------------------------------------------

SLEEP = "import time; time.sleep(60)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="they are forked on Linux")


@pytest.fixture
def forks(tmp_path: Path) -> Supervisor:
    return Supervisor(tmp_path / "log", [SAID], ["edgeagents.quick_start", "json"])  # the first switches gc off


@linux
async def test_when_what_they_are_forked_from_is_killed_all_are_started_again(forks: Supervisor) -> None:
    names = ["one", "two"]
    for name in names:
        forks.start(child(name, SLEEP))
    first = [await until(lambda name=name: forks.pid(name), "it runs") for name in names]
    server = forks.fork_server_pid
    assert server is not None
    os.kill(server, signal.SIGKILL)
    again = [
        await until(lambda name=name, old=old: forks.pid(name) not in (None, old) and forks.pid(name), "another runs")
        for name, old in zip(names, first, strict=True)
    ]
    assert [is_alive(pid) for pid in (*first, *again)] == [False, False, True, True]
    assert forks.fork_server_pid not in (None, server)
    await forks.stop()
    assert (forks.fork_server_pid, is_alive(again[0])) == (None, False)


@linux
async def test_what_cannot_be_imported_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = Supervisor(tmp_path / "log", [SAID], ["no_such_module"])
    found.start(child("sleeper", SLEEP))
    await until(lambda: found.restarts.get("sleeper"), "it was tried")
    assert "the fork server has ended (code 1): see" in caplog.text
    assert "no_such_module" in found.log_tail("sleeper", 20), "what would have forked it says why not"
    await found.stop()


@linux
async def test_nothing_is_forked_while_threads_run(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log", [SAID], ["tests.unit.embedded.with_a_thread"])
    found.start(child("sleeper", SLEEP))
    await until(lambda: "1 threads run" in found.log_tail("fork-server"), "it says why not")
    assert found.pid("sleeper") is None
    await found.stop()


@linux
async def test_a_forked_child_is_a_process_like_any_other(forks: Supervisor) -> None:
    code = """
import gc, os, signal, sys, threading, time
print(sys.argv[2:], __name__, gc.isenabled(), len(os.listdir('/proc/self/fd')), flush=True)
print(open('/proc/self/comm').read().strip(), signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)
threading.Thread(target=lambda: print('a thread')).start()
import atexit
atexit.register(print, 'at exit')
sys.exit(7)
"""
    forks.start(Child("talker", [sys.executable, "-m", SAID, code, "--one", "two"]))
    await until(lambda: forks.restarts.get("talker"), "it has ended")
    lines = forks.log_tail("talker", 100).splitlines()
    assert lines[0] == "['--one', 'two'] __main__ True 4", "in, out, error and the folder that is listed"
    assert lines[1:4] == ["talker True", "a thread", "at exit"]
    await forks.stop()


@linux
async def test_what_a_gateway_forks_imports_without_a_thread_or_an_open_file(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log", [SAID], IMPORTED)
    code = "import os; print(len(os.listdir('/proc/self/fd')), flush=True)"
    found.start(child("one", code))
    await until(lambda: found.restarts.get("one"), "it has ended")
    assert found.log_tail("one", 100).splitlines()[0] == "4"
    await found.stop()


@linux
async def test_who_cannot_be_forked_leaves_the_others_alone(tmp_path: Path) -> None:
    found = Supervisor(tmp_path / "log", [SAID], ["tests.unit.embedded.forks_once"])
    found.start(child("first", SLEEP))
    first = await until(lambda: found.pid("first"), "it runs")
    found.start(child("second", SLEEP))
    await until(lambda: found.restarts.get("second"), "it was tried")
    assert (found.pid("first"), is_alive(first), list(found.restarts)) == (first, True, ["second"])
    await found.stop()


@linux
async def test_the_end_of_a_whole_unit_reaches_each_child_itself(forks: Supervisor) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit(3)))"
    forks.start(child("orderly", f"{code}; print('up'); time.sleep(60)"))
    await until(lambda: "up" in forks.log_tail("orderly"), "it runs")
    await until(lambda: forks.pid("orderly"), "it is known")
    pids = forks.pids
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    await until(lambda: forks.restarts.get("orderly"), "it has ended")
    assert forks.fork_server_pid == pids["fork-server"]
    await forks.stop()


@linux
async def test_nothing_is_forked_any_more_once_all_were_killed(forks: Supervisor) -> None:
    forks.start(child("early", SLEEP))
    await until(lambda: forks.fork_server_pid, "it is being imported")
    server = forks.fork_server_pid
    assert server is not None
    await forks.kill()
    assert not is_alive(server)
    assert forks.pid("early") is None
    forks.start(child("early", SLEEP))
    await until(lambda: forks.pid("early"), "it runs again")
    await forks.stop()


@linux
async def test_an_order_that_comes_too_late_fails(tmp_path: Path) -> None:
    forks = ForkServer(["json"], tmp_path / "log")
    order = Order("one", SAID, ["pass"], dict(os.environ), str(tmp_path / "one.log"))
    first = await forks.run(order)
    life = forks._life
    assert life is not None
    os.kill(life.result().process.pid, signal.SIGKILL)
    await first.wait()
    with pytest.raises(OSError, match="has ended"):
        await life.result().order(order)
    assert (await (await forks.run(order)).wait()) == 0
    await forks.stop()


@linux
async def test_its_code_is_told(forks: Supervisor, caplog: pytest.LogCaptureFixture) -> None:
    forks.start(child("failer", "import sys; sys.exit('it cannot work')"))
    forks.start(child("killed", "import os; os.kill(os.getpid(), 9)"))
    await until(lambda: {"failer", "killed"} <= set(forks.restarts), "both have ended")
    assert "failer ended (code 1)" in caplog.text
    assert "killed ended (code -9)" in caplog.text
    assert "it cannot work" in forks.log_tail("failer")
    await forks.stop()


@linux
def test_no_forked_one_is_left_when_the_gateway_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from edgeagents.embedded.supervisor import Child, Supervisor
async def main():
    found = Supervisor(Path({str(tmp_path)!r}), [{SAID!r}], ["json"])
    found.start(Child("sleeper", [sys.executable, "-m", {SAID!r}, {SLEEP!r}]))
    while found.pid("sleeper") is None:
        await asyncio.sleep(0.01)
    print(found.pid("sleeper"), found.fork_server_pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
    asyncio.run(until(lambda: not any(is_alive(pid) for pid in pids), "they went with the gateway"))
