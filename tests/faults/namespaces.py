"""Two network namespaces with a cable between them: gateways that share no loopback, and a cable to cut.

A gateway lives in a thread that has entered its namespace: sockets belong to the namespace of the thread that opens
them, and processes inherit it. Only root can make them.

Source: network_namespaces(7), setns(2), veth(4).
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

CLONE_NEWNET: Final = 0x4000_0000
T = TypeVar("T")


def need_namespaces() -> None:
    """Skip where no network namespace can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here: apt-get install iproute2")


@dataclass(frozen=True)
class Cable:
    """A pair of interfaces, one in each of two namespaces; `near` is an address in the first."""

    first: str
    second: str
    near: str
    far: str

    def cut(self) -> None:
        """Have nothing go through, in either direction, and nobody be told."""
        _ip("-n", self.first, "link", "set", "cable", "down")

    def mend(self) -> None:
        """Have it go through again."""
        _ip("-n", self.first, "link", "set", "cable", "up")


@contextlib.contextmanager
def two_namespaces() -> Iterator[Cable]:
    """Yield two namespaces that are connected by a cable; they go with the block."""
    word = f"ea{os.getpid():x}"
    net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    cable = Cable(f"{word}n", f"{word}s", f"{net}.1", f"{net}.2")
    made: list[str] = []
    try:
        for name in (cable.first, cable.second):
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", cable.first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", cable.second)
        for name, address in ((cable.first, cable.near), (cable.second, cable.far)):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
        yield cable
    finally:
        for name in made:  # one that does not go leaves the other no reason to stay
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Side:
    """A thread in a network namespace, with a loop of its own."""

    def __init__(self, namespace: str) -> None:
        """Enter the namespace; `close` leaves it."""
        self._namespace = namespace
        self._is_up = threading.Event()
        self._problem = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=namespace, daemon=True)
        self._thread.start()
        self._is_up.wait()
        if self._problem:
            self._thread.join()
            self._loop.close()
            pytest.fail(self._problem)

    def _run(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self._namespace).open() as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                self._problem = f"namespace {self._namespace}: {os.strerror(ctypes.get_errno())}"
                self._is_up.set()
                return
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._is_up.set)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what some work gives that is done on this side."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
