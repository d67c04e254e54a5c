"""Child processes kept alive: started, watched, started again when they end, ended together.

Each child leads its own process group and dies with this process, so nothing is left running even after kill -9.
Modules that are said to share their imports are forked from one process that has made them (`fork_server.py`); all else
is started as a program of its own.

Source: prctl(2) PR_SET_PDEATHSIG; field notes on supervision.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeagents.embedded.fork_server import Forked, ForkServer, Order, die_with_parent

log = logging.getLogger(__name__)

STEADY_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
LOOK_AGAIN_S: Final = 0.5
FORK_SERVER: Final = "fork-server"
_Process = asyncio.subprocess.Process | Forked


@dataclass(frozen=True, slots=True)
class Child:
    """What to run: a name for logs, the command, its environment on top of ours.

    `is_stuck` is asked now and then while it runs; once true, the child is ended and started again.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    is_stuck: Callable[[], bool] | None = None


class Supervisor:
    """Runs children until `stop`; their output goes to one log file each."""

    def __init__(self, log_folder: Path, forked: Collection[str] = (), imports: Sequence[str] = ()) -> None:
        """Prepare; nothing runs yet.

        Args:
            log_folder: made when it is not there.
            forked: modules that are forked when a child runs them as `python -m`.
            imports: modules that are imported before, in this order.
        """
        log_folder.mkdir(parents=True, exist_ok=True)
        self._logs = log_folder
        self._forked = frozenset(forked if sys.platform == "linux" else ())
        self._forks = ForkServer(imports, log_folder / f"{FORK_SERVER}.log")
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, _Process] = {}
        self.restarts: dict[str, int] = {}

    def start(self, child: Child) -> None:
        """Start a child and keep it running."""
        self._keepers[child.name] = asyncio.create_task(self._keep(child), name=f"keep {child.name}")

    def pid(self, name: str) -> int | None:
        """Return the process id of a child that runs now, else None."""
        process = self._processes.get(name)
        return process.pid if process is not None and process.returncode is None else None

    @property
    def fork_server_pid(self) -> int | None:
        """Process id of what children are forked from, if it runs."""
        return self._forks.pid

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of all children that run, and of what they are forked from."""
        found = {name: self.pid(name) for name in self.names} | {FORK_SERVER: self.fork_server_pid}
        return {name: pid for name, pid in found.items() if pid is not None}

    @property
    def names(self) -> list[str]:
        """Names of all children, in the order they were started."""
        return list(self._keepers)

    def log_tail(self, name: str, lines: int = 5) -> str:
        """Return the last lines a child wrote, or, if nothing, what it should be forked from."""
        for path in (self._logs / f"{name}.log", self._logs / f"{FORK_SERVER}.log"):
            if path.exists() and (found := path.read_text(errors="replace").splitlines()[-lines:]):
                return "\n".join(found)
        return ""

    async def stop(self, grace_s: float = 5.0) -> None:
        """End all children, the last started first: SIGTERM, and SIGKILL to whoever is left after `grace_s`."""
        for keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        until_s = time.monotonic() + grace_s
        for name in reversed(self.names):
            process = self._processes.get(name)
            if process is None or process.returncode is not None:
                continue
            _signal(process, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), max(0.1, until_s - time.monotonic()))
            except TimeoutError:
                log.warning("%s did not end in time, killing it", name)
                _signal(process, signal.SIGKILL)
                await process.wait()
        await self._forks.stop()

    async def kill(self) -> None:
        """End all children at one moment, as a power cut would; they can be started again."""
        for keeper in self._keepers.values():
            keeper.cancel()
        for process in self._processes.values():
            if process.returncode is None:
                _signal(process, signal.SIGKILL)
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        await asyncio.gather(*(process.wait() for process in self._processes.values()))
        await self._forks.stop()  # nor does any go on whose fork is under way
        self._keepers.clear()

    async def _keep(self, child: Child) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            started_s = time.monotonic()
            try:
                process = self._processes[child.name] = await self._run(child)
                code = f"code {await self._ended(child, process)}"
            except OSError as error:
                code = f"{child.command[0]}: {error.strerror or error}"
            pause_s = FIRST_PAUSE_S if time.monotonic() - started_s > STEADY_S else min(pause_s * 2, LONGEST_PAUSE_S)
            self.restarts[child.name] = self.restarts.get(child.name, 0) + 1
            log.warning("%s ended (%s), starting it again in %.1f s", child.name, code, pause_s)
            await asyncio.sleep(pause_s)

    async def _ended(self, child: Child, process: _Process) -> int:
        """Wait until a child has ended and return its code; end it when it says that it is stuck."""
        ended = asyncio.ensure_future(process.wait())
        try:
            while child.is_stuck is not None:
                done, _ = await asyncio.wait({ended}, timeout=LOOK_AGAIN_S)
                if done:
                    break
                if child.is_stuck():
                    log.warning("%s is stuck, ending it", child.name)
                    _signal(process, signal.SIGKILL)
                    break
            return await ended
        finally:
            ended.cancel()

    async def _run(self, child: Child) -> _Process:
        match child.command:
            case [sys.executable, "-m", str(module), *arguments] if module in self._forked:
                environ, path = {**os.environ, **child.env}, self._logs / f"{child.name}.log"
                return await self._forks.run(Order(child.name, module, arguments, environ, str(path.absolute())))
        with (self._logs / f"{child.name}.log").open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **child.env},
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )


def _signal(process: _Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
