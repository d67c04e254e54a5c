"""The guard, dying where it is told to: `python -m tests.faults.crashing_guard`, in the folder `FAULTS_FOLDER`.

Loads the guard once, with crash points in its command path, then waits: each line on standard input starts one guard
in a fork, so that a start costs what the guard does and not what Python's imports do. Each line on standard output is
a process id: of a guard that began, or, with `ended` and its wait status, of one that ended.

Source: issue "Nothing lost".
"""

import os
import select
import sys
from pathlib import Path

from tests.faults.crash_points import FOLDER, install

# The command path: all that is the guard's own, the loop that carries effects out, and how it reaches broker and EdgeX.
BEGINNINGS = (
    "services.guard", "edgeagents.runner", "edgeagents.audit", "edgeagents.adapters.streams",
    "edgeagents.adapters.command_route", "edgeagents.adapters.edgex",
)  # fmt: skip


def main() -> int:
    """Start guards on demand until standard input ends."""
    install(BEGINNINGS, Path(os.environ[FOLDER]))
    from edgeagents.adapters.bootstrap import run_service
    from services.guard.app import SPEC, build

    running: set[int] = set()
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], 0.01)
        if readable:
            if not sys.stdin.readline():
                return 0
            child = os.fork()
            if not child:
                devnull = os.open(os.devnull, os.O_RDONLY)
                os.dup2(devnull, 0)
                os.dup2(2, 1)
                os._exit(run_service(SPEC, build, []))
            running.add(child)
            print(child, flush=True)
        for process in list(running):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                running.discard(process)
                print(process, "ended", status, flush=True)


if __name__ == "__main__":
    sys.exit(main())
