"""The broker of a container with peers: passwords are rotated under the link, peers come and go, streams stay."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest
import yaml

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.credentials import Credentials
from edgeagents.adapters.leaf_nodes import LINKS
from edgeagents.adapters.nats_server import lent_store
from edgeagents.errors import UnavailableError
from edgeagents.permissions import inbox
from edgeagents.settings import BusSettings
from tests.contract.waiting import until
from tests.linked import links
from tests.nats import free_port


class Home:
    """One broker process, with its credentials and its owner's file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        self.port, self.mqtt_port = free_port(), free_port()
        self.file, self.log, self.store = (self.folder / part for part in ("gateways.yaml", "log", "store"))
        self.process: subprocess.Popen[bytes] | None = None

    def credentials(self, *rotated: str, coming: tuple[str, ...] = ()) -> None:
        found = Credentials(self.folder, self.name, ["air"], rotated, peers=coming, coming=coming)
        found.write()

    def write(self, **content: object) -> None:
        self.file.write_text(yaml.safe_dump({"gateway": self.name, **content}))

    def start(self) -> None:
        own = {
            "USERS_FILE": self.folder / "nats" / "users.json", "STORE": self.store, "HOST": "127.0.0.1",
            "CONFIG": self.folder / "nats.conf", "PORT": self.port, "GATEWAY": self.name, "GATEWAYS_FILE": self.file,
            "MONITOR": f"127.0.0.1:{free_port()}", "MQTT_HOST": "127.0.0.1", "MQTT_PORT": self.mqtt_port,
        }  # fmt: skip
        environ = {**os.environ, **{f"EDGEAGENTS_BROKER_{key}": str(value) for key, value in own.items()}}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "edgeagents.embedded.broker"]
            self.process = subprocess.Popen(command, env=environ, stderr=log)

    async def connect(self) -> Bus:
        settings = BusSettings(
            gateway=self.name, nats_url=f"nats://127.0.0.1:{self.port}", nats_user="owner",
            nats_password_file=self.folder / "owner" / "nats.password",
        )  # fmt: skip
        found: list[Bus] = []

        async def is_up() -> bool:
            try:
                found.append(await Bus.connect(settings, "owner", inbox=inbox("owner")))
            except UnavailableError:
                return False
            return True

        await until(is_up, f"the broker of {self.name} is up", timeout_s=90)
        return found[0]

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            await asyncio.to_thread(self.process.wait, 30)


@pytest.fixture
async def homes(tmp_path: Path) -> AsyncIterator[tuple[Home, Home]]:
    """Return north, which has been alone so far, and south, which means to go to it."""
    north, south = Home(tmp_path, "north"), Home(tmp_path, "south")
    north.credentials()
    south.credentials()
    try:
        yield north, south
    finally:
        await north.stop()
        await south.stop()


async def is_linked(bus: Bus) -> bool:
    try:
        return bool(await links(bus))
    except UnavailableError:  # it is started anew
        return False


@pytest.mark.timeout(300)  # five servers are started one after the other
async def test_peers_come_while_it_runs_are_rotated_and_go_again(homes: tuple[Home, Home], tmp_path: Path) -> None:
    north, south = homes
    north.start()
    owner = await north.connect()
    await owner.ensure_stream("audit", ["north.audit.*.*"])
    assert await owner.store("north.audit.air.1", b"alone") == 1

    port = free_port()
    north.credentials(coming=("south",))
    north.write(listen={"host": "127.0.0.1", "port": port}, peers={"south": {}})
    given = south.folder / "north.password"
    given.write_text((north.folder / "owner" / "peer-south.password").read_text())
    south.write(peers={"north": {"address": f"nats-leaf://127.0.0.1:{port}", "password_file": given.name}})
    south.start()
    await until(lambda: is_linked(owner), "the link is up", timeout_s=90)
    assert await owner.store("north.audit.air.1", b"linked") == 2, "what it held alone is there"

    # A new password: the old link ends at once, and is back when the other owner has it.
    north.credentials("peer-south", coming=("south",))
    await until(lambda: "authentication error" in north.log.read_text(), "the old password is refused", timeout_s=90)
    await until(lambda: _not(is_linked(owner)), "the link with the old password has ended", timeout_s=90)
    given.write_text((north.folder / "owner" / "peer-south.password").read_text())
    await until(lambda: is_linked(owner), "the link is back", timeout_s=90)
    assert south.log.read_text().count("Server is ready") == 1, "south's server was not restarted for a password"

    north.write(peers={"south": {}})  # no listener: it cannot be meant
    await until(lambda: "say where, with `listen`" in north.log.read_text(), "a wrong file is told", timeout_s=90)
    assert await is_linked(owner), "and leaves what was"
    north.file.unlink()
    await until(lambda: _knows_no_links(owner), "north is alone again", timeout_s=90)
    assert await owner.store("north.audit.air.1", b"alone again") == 3
    await owner.close()
    await north.stop()


@pytest.mark.timeout(300)
async def test_a_linked_broker_is_edgexs_too_and_its_store_is_read_for_a_backup(
    homes: tuple[Home, Home], tmp_path: Path
) -> None:
    north, _ = homes
    north.credentials(coming=("south",))
    north.write(listen={"host": "127.0.0.1", "port": free_port()}, peers={"south": {}})
    north.start()
    owner = await north.connect()
    await owner.ensure_stream("audit", ["north.audit.*.*"])
    assert await owner.store("north.audit.air.1", b"x") == 1
    await owner.ensure_stream("edgex-events", ["edgex.events.device.>"])
    async with aiomqtt.Client("127.0.0.1", north.mqtt_port, identifier="device-service") as client:
        await client.publish("edgex/events/device/lamp", b"{}", qos=1)

    async def is_stored() -> bool:  # by a stream behind the MQTT listener, which has answered for itself
        return await owner.last_sequence("edgex-events") >= 1

    await until(is_stored, "what came over MQTT is in the stream", timeout_s=30)
    assert await owner.last_sequence("edgex-events") == 1
    await owner.close()
    await north.stop()
    async with lent_store(north.store, tmp_path / "lent.conf") as lent:
        assert await lent.last_sequence("audit") == 1


async def _not(condition: object) -> bool:
    return not await condition  # type: ignore[misc]


async def _knows_no_links(bus: Bus) -> bool:
    try:
        await bus.request(LINKS, b"", timeout_s=1)
    except UnavailableError as error:
        return "nobody answers" in str(error)
    return False
