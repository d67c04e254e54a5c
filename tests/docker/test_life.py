"""What happens to containers: credentials rotated, restarts, kills, pauses; each time it recovers by itself."""

import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.docker.engine import OURS, PROJECT, Engine, Gateway

SHORT_S = 2.0


def started(gateway: Gateway, service: str) -> str:
    """Return when a service's container was started."""
    return str(gateway.engine.inspect(gateway.container(service))[0]["State"]["StartedAt"])


def password(gateway: Gateway, service: str) -> str:
    """Return a service's NATS password as its container sees it."""
    return gateway.python(service, "print(open('/run/credentials/nats.password').read())").strip()


class TestRotation:
    def test_new_credentials_are_taken_over_without_a_restart(self, gateway: Gateway) -> None:
        names = ("agent-air", "guard", "world", "coordinator", "inference")
        before = {name: (password(gateway, name), started(gateway, name)) for name in names}
        nats = started(gateway, "nats")
        gateway.compose("run", "--rm", "credentials", "--rotate")
        deadline_s = time.monotonic() + 30
        while "users changed" not in gateway.logs("nats"):
            assert time.monotonic() < deadline_s, gateway.logs("nats")[-2000:]
            time.sleep(0.2)
        for name, (old, at) in before.items():
            assert password(gateway, name) != old
            assert started(gateway, name) == at, f"{name} was restarted"
        assert started(gateway, "nats") == nats
        gateway.wait_proven()
        deadline_s = time.monotonic() + 30
        for name in ("agent-air", "agent-comfort", "agent-energy", "guard", "coordinator", "inference"):
            while "link is back" not in gateway.logs(name):  # one proven command says nothing of the others
                assert time.monotonic() < deadline_s, name
                time.sleep(0.2)

    def test_an_old_password_is_refused_after_a_rotation_of_one(self, gateway: Gateway) -> None:
        old, other = password(gateway, "agent-air"), password(gateway, "agent-comfort")
        gateway.compose("run", "--rm", "credentials", "--rotate", "air")
        code = (
            "import asyncio, sys, nats\n"
            "async def main():\n"
            "    try:\n"
            "        await nats.connect('nats://nats:4222', user='agent-air', password=sys.argv[1],"
            " allow_reconnect=False, connect_timeout=3)\n"
            "    except Exception as error: print('refused', error)\n"
            "    else: print('taken')\n"
            "asyncio.run(main())"
        )
        deadline_s = time.monotonic() + 15
        while "refused" not in gateway.python("agent-air", code, old):
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        assert "taken" in gateway.python("agent-air", code, password(gateway, "agent-air"))
        assert password(gateway, "agent-comfort") == other

    def test_running_it_again_changes_nothing(self, gateway: Gateway) -> None:
        old = password(gateway, "agent-air")
        assert "nothing is new" in gateway.compose("run", "--rm", "credentials")
        assert password(gateway, "agent-air") == old


@pytest.mark.parametrize("service", OURS)
def test_after_a_restart_it_works_on(gateway: Gateway, service: str) -> None:
    before = started(gateway, service)
    gateway.engine.docker("restart", "-t", "10", gateway.container(service))
    assert started(gateway, service) != before
    gateway.wait_healthy()
    gateway.wait_proven()


@pytest.mark.parametrize("service", OURS)
def test_after_a_kill_it_is_started_again_and_after_a_pause_it_works_on(gateway: Gateway, service: str) -> None:
    container = gateway.container(service)
    before = started(gateway, service)
    # Not `docker kill`: the engine takes that for the owner's will and does not start it again.
    gateway.kill(str(gateway.engine.inspect(container)[0]["State"]["Pid"]))
    deadline_s = time.monotonic() + 30
    while started(gateway, service) == before:
        assert time.monotonic() < deadline_s, f"{service} was not started again"
        time.sleep(0.2)
    gateway.wait_healthy()
    gateway.engine.docker("pause", container)
    try:
        time.sleep(SHORT_S)
    finally:
        gateway.engine.docker("unpause", container)
    gateway.wait_proven()
    gateway.wait_healthy()


class TestFullDisk:
    """A broker's container alone, with a small disk of its own."""

    @pytest.fixture
    def broker(self, engine: Engine, gateway: Gateway) -> Iterator[str]:
        """The container, with the gateway's users."""
        image = engine.inspect(gateway.container("nats"))[0]["Config"]["Image"]
        users = f"{PROJECT}_nats-credentials:/run/credentials:ro"
        words = ["-d", "--read-only", "--network", "none", "--tmpfs", "/tmp:size=16m", "-v", users]
        words += ["--tmpfs", "/state:size=48m,uid=2002,gid=2001", "--label", f"com.docker.compose.project={PROJECT}"]
        words += ["-e", "EDGEAGENTS_BROKER_USERS_FILE=/run/credentials/users.json"]
        words += ["-e", "EDGEAGENTS_BROKER_STORE=/state/jetstream"]
        container = engine.docker("run", *words, image).strip()
        try:
            yield container
        finally:
            engine.docker("rm", "-f", "-v", container)

    def test_a_broker_takes_messages_again_once_there_is_room(self, engine: Engine, broker: str) -> None:
        deadline_s = time.monotonic() + 60
        while engine.docker("exec", "-i", broker, "python3", "-", "stored", stdin=FILL).strip() != "stored":
            assert time.monotonic() < deadline_s
            time.sleep(0.3)
        before = engine.inspect(broker)[0]["State"]["StartedAt"]
        assert engine.docker("exec", "-i", broker, "python3", "-", "fill", stdin=FILL).strip() == "full"
        while engine.docker("exec", "-i", broker, "python3", "-", "stored", stdin=FILL).strip() != "stored":
            assert time.monotonic() < deadline_s, engine.docker("logs", broker)
            time.sleep(0.3)
        assert engine.inspect(broker)[0]["State"]["StartedAt"] == before, "not the container was started again"
        assert "the disk was full and has room again" in engine.both(broker), "but the server in it"


# Fills the disk until a message is not stored, and makes room again; or says whether a message is stored now.
FILL: Final = """
import asyncio, json, os, sys, nats
from nats.js.api import StreamConfig

users = {user["user"]: user["password"] for user in json.load(open("/run/credentials/users.json"))["users"]}

async def main():
    try:
        client = await nats.connect("nats://127.0.0.1:4222", user="owner", password=users["owner"],
                                    allow_reconnect=False, connect_timeout=2)
        js = client.jetstream(timeout=2)
        await js.add_stream(StreamConfig(name="probe", subjects=["probe"], max_msgs=4))
        if sys.argv[1] == "stored":
            await js.publish("probe", b"x" * 100_000)
            return print("stored")
        with open("/state/ballast", "wb", 0) as ballast:
            try:
                while True:
                    ballast.write(b"x" * 4096)
            except OSError:
                pass
        try:
            while True:
                await js.publish("probe", os.urandom(100_000))
        except Exception:
            print("full")
        os.remove("/state/ballast")
    except Exception as error:
        print(type(error).__name__, error)

asyncio.run(main())
"""
