"""What happens to containers: credentials rotated, restarts, kills, pauses; each time it recovers by itself."""

import time

import pytest

from tests.docker.engine import OURS, Gateway

SHORT_S = 3.0


def started(gateway: Gateway, service: str) -> str:
    """Return when a service's container was started."""
    return str(gateway.engine.inspect(gateway.container(service))[0]["State"]["StartedAt"])


def password(gateway: Gateway, service: str) -> str:
    """Return a service's NATS password as its container sees it."""
    return gateway.python(service, "print(open('/run/credentials/nats.password').read())").strip()


class TestRotation:
    def test_new_credentials_are_taken_over_without_a_restart(self, gateway: Gateway) -> None:
        before = {name: (password(gateway, name), started(gateway, name)) for name in ("agent-air", "guard", "world")}
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
        for name in ("agent-air", "agent-comfort", "agent-energy", "guard"):
            assert "link is back" in gateway.logs(name), name

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
def test_after_a_kill_it_is_started_again_and_works_on(gateway: Gateway, service: str) -> None:
    container = gateway.container(service)
    pid = str(gateway.engine.inspect(container)[0]["State"]["Pid"])
    before = started(gateway, service)
    # Not `docker kill`: the engine takes that for the owner's will and does not start it again.
    gateway.kill(pid)
    deadline_s = time.monotonic() + 30
    while started(gateway, service) == before:
        assert time.monotonic() < deadline_s, f"{service} was not started again"
        time.sleep(0.2)
    gateway.wait_healthy()
    gateway.wait_proven()


@pytest.mark.parametrize("service", OURS)
def test_after_a_pause_it_works_on(gateway: Gateway, service: str) -> None:
    container = gateway.container(service)
    gateway.engine.docker("pause", container)
    try:
        time.sleep(SHORT_S)
    finally:
        gateway.engine.docker("unpause", container)
    gateway.wait_healthy()
    gateway.wait_proven()
