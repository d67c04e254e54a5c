"""A service whose wall clock is as far off as a file says: `python -m tests.faults.stepped <file> <module> [flags]`.

`time.time` and `time.time_ns` are replaced before anything else is loaded: that is all the wall clock our services act
by. Monotonic clocks and timers go on as they are, as when the clock of a machine is set. (libfaketime would do it to
any program, but breaks monotonic sleeps: `time.sleep` in a thread of Python ended with EINVAL.)

Source: issue "Nothing lost".
"""

import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path


def stepped(clock: Path, time_ns: Callable[[], int]) -> Callable[[], int]:
    """Return a clock in nanoseconds that is off by the seconds a file holds; the file is read when it was replaced."""
    known, off_ns = (0, 0), 0

    def now_ns() -> int:
        nonlocal known, off_ns
        found = os.stat(clock)
        if known != (found.st_ino, found.st_mtime_ns):
            known, off_ns = (found.st_ino, found.st_mtime_ns), int(float(clock.read_text()) * 1e9)
        return time_ns() + off_ns

    return now_ns


def set_clock(clock: Path, off_s: float) -> None:
    """Step a clock: the file is replaced in one piece, as it is read at any moment."""
    beside = clock.with_name(clock.name + ".new")
    beside.write_text(str(off_s))
    beside.replace(clock)


def main() -> None:
    """Run a module with its wall clock off."""
    clock, module = Path(sys.argv[1]), sys.argv[2]
    now_ns = stepped(clock, time.time_ns)
    time.time_ns = now_ns
    time.time = lambda: now_ns() / 1e9
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
