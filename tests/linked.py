"""Real nats-servers, each the broker of a gateway of its own, linked by leaf nodes on 127.0.0.1; cables to cut."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.leaf_nodes import LINKS, account_of, leaf_user
from edgeagents.embedded.nats import find_nats_server, write_config
from edgeagents.errors import UnavailableError
from edgeagents.model.gateways import Gateways
from edgeagents.permissions import Permissions, agent_user, for_agent, for_edgex, for_everything, inbox
from edgeagents.settings import BusSettings
from tests.nats import free_port

START_S = 60.0


class Cable:
    """A TCP relay to a leaf listener: `cut` has it forward nothing and take nothing in, without closing; `mend` heals.

    What was written to it before and not read yet stays in the machine's buffers, as in a real network's.
    """

    def __init__(self, target: int) -> None:
        """Lead to a port on 127.0.0.1."""
        self.port = free_port()
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to forward."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Forward nothing any more."""
        self._flows.clear()

    def mend(self) -> None:
        """Forward again."""
        self._flows.set()

    async def stop(self) -> None:
        """End it, with all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


class LinkedBroker:
    """The nats-server of one gateway, with its peers."""

    def __init__(self, folder: Path, gateways: Gateways, agents: tuple[str, ...] = ("air",)) -> None:
        """Prepare; `start` starts it."""
        self.folder = folder / gateways.gateway
        self.gateways, self.name = gateways, gateways.gateway
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._users: dict[str, Permissions] = {
            "owner": for_everything(),
            "edgex": for_edgex(self.name),
            **{agent_user(name): for_agent(self.name, name, peers=list(gateways.peers)) for name in agents},
        }
        self.config, self.passwords = write_config(self.folder, self.port, self._users, gateways=gateways)

    def reconfigure(self, gateways: Gateways) -> None:
        """Tell the server, which must not run, of other peers."""
        self.gateways = gateways
        self.config, _ = write_config(self.folder, self.port, self._users, gateways=gateways)

    @property
    def log(self) -> str:
        """Return what the server has said."""
        path = self.folder / "nats.log"
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """Start the server; `connect` waits for it."""
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([find_nats_server(), "-c", str(self.config)], stdout=log, stderr=log)

    def stop(self) -> None:
        """End the server, if it runs."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(15)
            self.process = None

    async def connect(self, user: str = "owner") -> Bus:
        """Return a connection, waiting for the server."""
        settings = BusSettings(
            gateway=self.name, nats_url=f"nats://127.0.0.1:{self.port}", nats_user=user,
            nats_password_file=self.passwords[user],
        )  # fmt: skip
        give_up_s = time.monotonic() + START_S
        while True:
            try:
                return await Bus.connect(settings, user, inbox=inbox(user))
            except UnavailableError as error:
                if time.monotonic() > give_up_s or "refused" in str(error):
                    raise
                await asyncio.sleep(0.02)


async def links(bus: Bus) -> dict[str, Mapping[str, Any]]:
    """Return the leaf links that a server has, by the account in which they end."""
    answer = json.loads((await bus.request(LINKS, b"", timeout_s=5)).data)
    return {link["account"]: link for link in answer["data"].get("leafs") or []}


async def until_linked(bus: Bus, *peers: str, timeout_s: float = 60.0) -> float:
    """Wait until a server has links to just these peers; return the seconds that it took."""
    began_s, wanted = time.monotonic(), {account_of(peer) for peer in peers}
    async with asyncio.timeout(timeout_s):
        while set(await links(bus)) != wanted:  # noqa: ASYNC110  # a server that tells only when asked
            await asyncio.sleep(0.05)
    return time.monotonic() - began_s


class Pair:
    """Two gateways: `north` listens, `south` goes there through a cable."""

    def __init__(self, folder: Path, north: LinkedBroker, south: LinkedBroker, cable: Cable) -> None:
        """Hold what runs; see `linked_pair`."""
        self.folder, self.north, self.south, self.cable = folder, north, south, cable


@contextlib.asynccontextmanager
async def linked_pair(folder: Path, password: str = "", **south_peer: Any) -> AsyncIterator[Pair]:
    """Yield two running brokers that are linked.

    Args:
        folder: for their files.
        password: that south gives; empty: the right one.
        south_peer: further fields of south's entry about north.
    """
    leaf_port = free_port()
    cable = Cable(leaf_port)
    north = LinkedBroker(
        folder,
        Gateways.model_validate(
            {"gateway": "north", "listen": {"host": "127.0.0.1", "port": leaf_port}, "peers": {"south": {}}}
        ),
    )
    given = folder / "given.password"
    given.write_text(password or (north.folder / "peer-south.password").read_text())
    peer = {"address": f"nats-leaf://127.0.0.1:{cable.port}", "password_file": str(given), **south_peer}
    south = LinkedBroker(folder, Gateways.model_validate({"gateway": "south", "peers": {"north": peer}}))
    await cable.start()
    try:
        for broker in (north, south):
            broker.start()
        yield Pair(folder, north, south, cable)
    finally:
        for broker in (north, south):
            broker.stop()
        await cable.stop()


@contextlib.contextmanager
def running(config: Path) -> Iterator[None]:
    """Run a server with this configuration for a block."""
    with subprocess.Popen([find_nats_server(), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def as_peer(name: str, password: str, port: int, folder: Path, **options: Any) -> Path:
    """Write the configuration of a server that keeps to no rule, and goes to a leaf listener as a peer; return it."""
    folder.mkdir()
    path = folder / "nats.conf"
    url = f"nats-leaf://{leaf_user(name)}:{password}@127.0.0.1:{port}"
    path.write_text(json.dumps({"server_name": "rogue", "leafnodes": {"remotes": [{"urls": [url]}]}, **options}))
    return path
