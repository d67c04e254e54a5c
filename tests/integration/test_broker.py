"""The broker of a container with `edgeagents credentials`: rotated under its clients, and nothing restarts."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.credentials import Credentials
from edgeagents.errors import CredentialsRefusedError, UnavailableError
from edgeagents.permissions import inbox
from edgeagents.settings import BusSettings
from tests.contract.waiting import until
from tests.nats import free_port


class Broker:
    """One broker process and the credentials it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "credentials"
        self.port, self.mqtt_port = free_port(), free_port()
        self.rotate()
        self.log = folder / "log"
        prefix = "EDGEAGENTS_BROKER_"
        own = {
            "USERS_FILE": str(self.folder / "nats" / "users.json"), "STORE": str(folder / "store"),
            "CONFIG": str(folder / "nats.conf"), "HOST": "127.0.0.1", "PORT": str(self.port),
            "MQTT_HOST": "127.0.0.1", "MQTT_PORT": str(self.mqtt_port),
        }  # fmt: skip
        environ = {**os.environ, **{f"{prefix}{name}": value for name, value in own.items()}}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "edgeagents.embedded.broker"]
            self.process = subprocess.Popen(command, env=environ, stderr=log)

    def rotate(self, *names: str) -> None:
        """Make what is missing, and of these anew."""
        Credentials(self.folder, "gw", ["air", "heat"], names).write()

    def password_file(self, consumer: str) -> Path:
        return self.folder / consumer / "nats.password"

    def server_pid(self) -> int:
        """Return the process id of nats-server."""
        own = self.process.pid
        return int(Path(f"/proc/{own}/task/{own}/children").read_text().split()[0])

    async def connect(self, user: str, consumer: str, password_file: Path | None = None) -> Bus:
        settings = BusSettings(
            gateway="gw", nats_url=f"nats://127.0.0.1:{self.port}", nats_user=user,
            nats_password_file=password_file or self.password_file(consumer),
        )  # fmt: skip
        return await Bus.connect(settings, user, inbox=inbox(user))


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    found = Broker(tmp_path)
    try:
        await until(lambda: "Server is ready" in found.log.read_text(), "the broker is up", timeout_s=20)
        yield found
    finally:
        found.process.terminate()
        await asyncio.to_thread(found.process.wait, 15)


async def reconnected(bus: Bus, asked: str) -> None:
    async def answers() -> bool:
        try:
            await bus.flush()
        except UnavailableError:
            return False
        return True

    await until(answers, asked, timeout_s=15)


async def test_rotated_clients_come_back_by_themselves_and_old_passwords_are_refused(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "old"
    old.write_text(broker.password_file("agent-air").read_text())
    air, heat = await broker.connect("agent-air", "agent-air"), await broker.connect("agent-heat", "agent-heat")
    came_back = asyncio.Event()
    air.on_reconnect(came_back.set)
    broker.rotate("air")
    async with asyncio.timeout(15):
        await came_back.wait()
    await reconnected(air, "air is back")
    assert not air.closed.is_set(), "a refusal while connected is no end"
    with pytest.raises(CredentialsRefusedError, match="refused user or password"):
        await broker.connect("agent-air", "", old)
    assert heat.is_connected
    assert "heat" not in caplog.text
    await air.close()
    await heat.close()


async def test_all_at_once_while_messages_flow(broker: Broker) -> None:
    owner, guard = await broker.connect("owner", "owner"), await broker.connect("guard", "guard")
    back = [asyncio.Event(), asyncio.Event()]
    owner.on_reconnect(back[0].set)
    guard.on_reconnect(back[1].set)
    await owner.ensure_stream("commands", ["gw.commands.*.*"])
    broker.rotate("all")
    async with asyncio.timeout(20):
        for event in back:
            await event.wait()
    await reconnected(owner, "owner is back")
    assert await owner.store("gw.commands.lamp.air", b"x") == 1
    assert await guard.last_sequence("commands") == 1
    await owner.close()
    await guard.close()


@pytest.mark.parametrize("topic_filter", ["edgex/events/#", "edgex/#"])
async def test_an_mqtt_client_without_a_password_is_edgex_and_no_more(broker: Broker, topic_filter: str) -> None:
    owner = await broker.connect("owner", "owner")
    heard: list[str] = []

    async def note(message: BusMessage) -> None:
        heard.append(message.subject)

    await owner.subscribe(">", note)
    await owner.flush()
    async with aiomqtt.Client("127.0.0.1", broker.mqtt_port, identifier="foreign") as client:
        await client.subscribe(topic_filter)
        await client.publish("gw/commands/lamp/air", b"{}", qos=0)
        await client.publish("edgex/events/device/x", b"{}", qos=0)
        async with asyncio.timeout(10):
            assert str((await anext(aiter(client.messages))).topic) == "edgex/events/device/x"
    await until(lambda: "edgex.events.device.x" in heard, "what EdgeX may say is heard", timeout_s=10)
    assert "gw.commands.lamp.air" not in heard
    await owner.close()


async def test_a_users_file_that_is_broken_leaves_the_former_users(broker: Broker) -> None:
    path = broker.folder / "nats" / "users.json"
    path.write_text("no json")
    await until(lambda: "the former users stay" in broker.log.read_text(), "it is told", timeout_s=10)
    air = await broker.connect("agent-air", "agent-air")
    assert air.is_connected
    await air.close()


async def test_a_server_that_ends_ends_the_container(broker: Broker) -> None:
    os.kill(broker.server_pid(), 9)
    assert await asyncio.to_thread(broker.process.wait, 15) is not None
