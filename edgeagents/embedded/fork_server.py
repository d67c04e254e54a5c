"""Processes forked from one that has imported what they share: many start sooner, and share the memory of it.

    gateway --- orders (JSON lines over a socket pair) ---> fork server --- fork ---> agent, agent, guard, …
            <-- began, ended ------------------------------

The server does nothing but import, fork and say who has ended; it has no thread, so that a fork is a whole copy. A
child leads its own session, gets its own environment and log, and runs as `python -m` would run it; it dies with the
server, and the server with the gateway. Signals that end a whole unit the server leaves to its children. What Python
itself and the C library read from their environment is the server's.

For processes of one gateway on one machine. In containers each service imports for itself.

Source: fork(2), prctl(2) PR_SET_PDEATHSIG; CPython's gc.freeze; docs/decisions/0028-fork-server.md.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_DYING_S: Final = 5.0
_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Order:
    """What to run.

    Args:
        name: for `ps` and `top`.
        module: as in `python -m`; one that is imported already has a `main` that takes arguments and returns a code.
        arguments: of it.
        env: its whole environment.
        log: file to which its output is added.
    """

    name: str
    module: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    log: str


@dataclass(slots=True, eq=False)
class Forked:
    """A child of the server, as `asyncio.subprocess.Process` shows one."""

    pid: int
    returncode: int | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, code: int) -> None:
        """Take in that it has ended."""
        self.returncode = code
        self._ended.set()

    async def wait(self) -> int:
        """Wait until it has ended and return its code; minus a signal's number, if that ended it."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


class ForkServer:
    """The gateway's end: starts the server with the first order, and another one when it has ended."""

    def __init__(self, imports: Sequence[str], log: Path) -> None:
        """Prepare.

        Args:
            imports: modules to import before anything is forked.
            log: file for what the server itself has to say.
        """
        self._imports, self._log = imports, log
        self._life: asyncio.Task[_Life] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, if it runs."""
        return self._life.result().process.pid if self._life is not None and _is_up(self._life) else None

    async def run(self, order: Order) -> Forked:
        """Return a new child.

        Raises:
            OSError: the server does not start, or ends meanwhile; the next call starts another.
        """
        if self._life is None or (self._life.done() and not _is_up(self._life)):
            self._life = asyncio.create_task(self._begin(), name="fork server's start")
        # Whoever gives up stops neither the start, which others wait for, nor the fork, whose child is ended then.
        began = (await asyncio.shield(self._life)).order(order)
        try:
            return await asyncio.shield(began)
        except asyncio.CancelledError:
            began.add_done_callback(_kill)
            raise

    async def stop(self) -> None:
        """End the server, and with it all children that are left."""
        if self._life is not None:
            with contextlib.suppress(OSError):
                await (await self._life).end()

    async def _begin(self) -> "_Life":
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as output:
            words = [sys.executable, "-m", __spec__.name, str(theirs.fileno()), *self._imports]
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[theirs.fileno()],
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return _Life(process, reader, writer, self._log)


def _is_up(life: "asyncio.Task[_Life]") -> bool:
    return life.done() and not life.cancelled() and life.exception() is None and not life.result().is_over


class _Life:
    """One server, from its start to its end."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: Path
    ) -> None:
        self.process, self._writer, self._log = process, writer, log
        self.is_over = False
        self._ordered: deque[asyncio.Future[Forked]] = deque()
        self._children: dict[int, Forked] = {}
        self._hearing = asyncio.create_task(self._hear(reader), name="fork server")

    def order(self, order: Order) -> "asyncio.Future[Forked]":
        """Have something run."""
        began: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        if self.is_over:  # it ended while it was waited for
            began.set_exception(self._gone())
            return began
        self._ordered.append(began)  # they begin in the order in which they are ordered
        self._writer.write(json.dumps(asdict(order)).encode() + b"\n")
        return began

    async def end(self) -> None:
        """End it, whatever it does just now, and all children that are left."""
        self.is_over = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self._hearing

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                told = json.loads(line)
                if "error" in told:
                    self._ordered.popleft().set_exception(OSError(None, f"it cannot be forked: {told['error']}"))
                elif "code" in told:
                    self._children.pop(told["pid"]).end(told["code"])
                else:
                    self._children[told["pid"]] = Forked(told["pid"])
                    self._ordered.popleft().set_result(self._children[told["pid"]])
        except OSError:
            pass  # it has ended
        finally:
            self.is_over = True
            self._writer.close()
            await self.process.wait()
            for child in self._children.values():  # the system kills them, which takes a moment
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DYING_S):
                        await _gone(child.pid)
                child.end(-signal.SIGKILL)
            for began in self._ordered:
                began.set_exception(self._gone())

    def _gone(self) -> OSError:
        return OSError(None, f"the fork server has ended (code {self.process.returncode}): see {self._log}")


async def _gone(pid: int) -> None:
    """Wait until a process that is nobody's child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # it has ended, or this kernel has no such thing
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _kill(began: "asyncio.Future[Forked]") -> None:
    if not began.cancelled() and began.exception() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(began.result().pid, signal.SIGKILL)


def die_with_parent() -> None:
    """Have this process be killed when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


# --- the server's end --------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> int:
    """Serve until the gateway goes away; in a child: run what was ordered.

    Args:
        argv: number of the socket, then the modules to import.
    """
    # Who ends a whole unit signals us, too: our children would be killed while they end in order.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    for name in argv[1:]:
        importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        print(f"fork server: {threads - 1} threads run after the imports, and would be in no child: nothing is forked")
        return 1
    # What is there now is never collected: a collection would write to it, and so end the sharing.
    gc.collect()
    gc.freeze()
    order = _serve(socket.socket(fileno=int(argv[0])))
    return 0 if order is None else _run(order)


def _serve(orders: socket.socket) -> Order | None:
    """Fork what is ordered and tell of who ended; return None at the end, and in each child its order."""
    woken, wakes = socket.socketpair()
    woken.setblocking(False)
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    with woken, wakes, orders, selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        rest = b""
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                woken.recv(4096)
                for pid, code in _ended():
                    _tell(orders, pid=pid, code=code)
            if orders not in ready:
                continue
            part = orders.recv(1 << 16)
            if not part:
                return None
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                order = Order(**json.loads(line))
                try:
                    pid = _forked(order)
                except OSError as error:  # too many processes, too little memory: the others go on
                    _tell(orders, error=str(error))
                    continue
                if pid == 0:
                    return order
                _tell(orders, pid=pid)


def _forked(order: Order) -> int:
    """Fork a child and return its pid once it can be signalled like any program; in the child return 0."""
    ready, begun = os.pipe()
    server = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # what a child is told before it can hear waits for it
    try:
        pid = os.fork()
        if pid == 0:
            _settled(order, server)
    except BaseException:
        os.close(ready)
        raise
    finally:
        os.close(begun)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    if pid != 0:
        os.read(ready, 1)  # nothing ever comes: the child has closed its end, or has ended
    os.close(ready)
    return pid


def _ended() -> list[tuple[int, int]]:
    """Return pid and exit code of the children that have ended."""
    found = list[tuple[int, int]]()
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        found.append((pid, os.waitstatus_to_exitcode(status)))


def _tell(orders: socket.socket, **what: int | str) -> None:
    orders.sendall(json.dumps(what).encode() + b"\n")


def _settled(order: Order, server: int) -> None:
    try:
        _settle(order, server)
    except BaseException:  # noqa: BLE001  # it must not go on as a second server
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _settle(order: Order, server: int) -> None:
    """Become what `subprocess` would have made of a child: own session, signals, environment and output."""
    signal.set_wakeup_fd(-1)
    for number in (*_ENDING, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.setsid()
    die_with_parent()
    if os.getppid() != server:  # it ended before we asked to end with it
        os._exit(1)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, order.name.encode()[:15], 0, 0, 0)
    os.environ.clear()
    os.environ.update(order.env)
    output = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _run(order: Order) -> int:
    """Run what was ordered and return its exit code."""
    gc.enable()  # what imports most cheaply switched it off
    sys.argv = [order.module, *order.arguments]
    imported: Any = sys.modules.get(order.module)
    if imported is not None and hasattr(imported, "main"):
        return int(imported.main(order.arguments))
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
