"""What takes long is done beside all else, and the end of the process does not wait for it."""

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from edgeagents.adapters.daemon_threads import DaemonThreads

NAME = contextvars.ContextVar("NAME", default="nobody")


def test_what_work_gives_or_raises_is_told_with_the_callers_context() -> None:
    threads = DaemonThreads("test", 2)
    NAME.set("caller")
    assert threads.begin(NAME.get).result(30) == "caller"
    with pytest.raises(ZeroDivisionError):
        threads.begin(divmod, 1, 0).result(30)
    with pytest.raises(SystemExit):
        threads.begin(sys.exit, 1).result(30)
    assert threads.begin(divmod, 7, 2).result(30) == (3, 1)


def test_so_many_at_once_and_the_others_in_turn() -> None:
    threads, goes_on, begun = DaemonThreads("test", 2), threading.Event(), list[int]()
    both = threading.Semaphore(0)

    def work(number: int) -> int:
        begun.append(number)
        both.release()
        assert goes_on.wait(30)
        return number

    futures = [threads.begin(work, number) for number in range(5)]
    assert both.acquire(timeout=30)
    assert both.acquire(timeout=30)
    assert sorted(begun) == [0, 1]
    assert futures[4].cancel()
    goes_on.set()
    assert [future.result(30) for future in futures[:4]] == [0, 1, 2, 3]
    assert threads._threads == 2
    assert 4 not in begun


def test_a_thread_that_is_free_takes_what_comes() -> None:
    threads = DaemonThreads("test", 8)
    for _ in range(20):
        threads.begin(int).result(30)
        assert threads._free.acquire(timeout=30)  # it has come back
        threads._free.release()
    assert threads._threads == 1


async def test_asyncios_own_threads_are_left_to_others() -> None:
    loop, goes_on = asyncio.get_running_loop(), threading.Event()
    threads = DaemonThreads("test", 2)
    slow = [asyncio.wrap_future(threads.begin(goes_on.wait, 30)) for _ in range(64)]
    async with asyncio.timeout(20):
        assert await loop.run_in_executor(None, int) == 0
    goes_on.set()
    assert all(await asyncio.gather(*slow))


def test_the_end_of_the_process_waits_for_nobody() -> None:
    program = (
        "import threading\n"
        "from edgeagents.adapters.daemon_threads import DaemonThreads\n"
        "begun = threading.Event()\n"
        "DaemonThreads('test', 1).begin(lambda: (begun.set(), threading.Event().wait()))\n"
        "assert begun.wait(30)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
