"""Every container killed and paused again and again, the broker's disk and networks: it recovers by itself, whole.

In `make test-long`; short forms stand in `test_life.py`. Source: issue "On a real gateway"; design.md sections 3 and 4.
"""

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docker.engine import OURS, Engine, Gateway
from tests.docker.test_life import started
from tests.docker.witness import PROJECT, Watched
from tests.faults.conftest import rounds_now
from tests.faults.score import Score
from tests.faults.test_disk import full

pytestmark = pytest.mark.long

LONGEST_RECOVERY_S: Final = 60.0
CUT_S: Final = 8.0
FULL_S: Final = 6.0
DAY_S: Final = 86_400.0
DAYS_FACTOR: Final = 240.0  # a day of site time in six minutes
LONGEST_QUIET_S: Final = 180.0  # on a busy machine a device that answers late stands in quarantine for a while
OUTSIDE: Final = "203.0.113.1"  # documentation address


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Iterator[Score]:
    """Where faults and what came of them are counted; its line is told at the end."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, flush=True)

    found = Score(say)
    yield found
    say(found.line())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that containers, whose user is another one, may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk for the broker, and cut an uplink")
    for part in (tmp_path, *tmp_path.parents[:3]):
        if part.owner() == tmp_path.owner() and part != Path("/tmp"):
            part.chmod(0o755)
    return tmp_path


def recovers(gateway: Gateway, score: Score, kind: str, where: str) -> None:
    """Wait until a fresh command is proven and all is healthy; count the fault, and how long that took from now."""
    began_s = time.monotonic()
    gateway.wait_proven(timeout_s=LONGEST_RECOVERY_S)
    took_s = time.monotonic() - began_s
    gateway.wait_healthy()
    score.fault(kind, where, took_s)


def kill(gateway: Gateway, score: Score, service: str, chance: random.Random) -> None:
    """Kill the first process of a container; the engine starts it again."""
    before = started(gateway, service)
    gateway.kill(str(gateway.engine.inspect(gateway.container(service))[0]["State"]["Pid"]))
    give_up_s = time.monotonic() + LONGEST_RECOVERY_S
    while started(gateway, service) == before:
        assert time.monotonic() < give_up_s, f"{service} was not started again"
        time.sleep(0.1)
    recovers(gateway, score, "kill -9", service)


def pause(gateway: Gateway, score: Score, service: str, chance: random.Random) -> None:
    """Stop all processes of a container for a while."""
    container, for_s = gateway.container(service), chance.uniform(0.5, 8.0)
    gateway.engine.docker("pause", container)
    try:
        time.sleep(for_s)
    finally:
        gateway.engine.docker("unpause", container)
    recovers(gateway, score, "pause", f"{service} for {for_s:.1f} s")


def restart(gateway: Gateway, score: Score, service: str, chance: random.Random) -> None:
    """Have the engine restart a container in order."""
    gateway.engine.docker("restart", "-t", "10", gateway.container(service))
    recovers(gateway, score, "restart", service)


def cut(gateway: Gateway, score: Score, service: str, chance: random.Random) -> None:
    """Take a container off all its networks for a while, as a cable pulled, and put it back."""
    docker, container = gateway.engine.docker, gateway.container(service)
    networks = gateway.engine.inspect(container)[0]["NetworkSettings"]["Networks"]
    for network in networks:
        docker("network", "disconnect", network, container)
    time.sleep(CUT_S)
    for network, found in networks.items():
        names = [name for name in found["Aliases"] or [] if name not in container]
        aliases = [word for name in names for word in ("--alias", name)]
        docker("network", "connect", *aliases, network, container)
    recovers(gateway, score, "network cut", f"{service} for {CUT_S:g} s")
    assert reaches(gateway, "core", "edgex-mqtt-broker", 1883), "EdgeX's services find the broker no more"


def test_it_recovers_from_kills_pauses_and_cuts_and_loses_nothing(engine: Engine, folder: Path, score: Score) -> None:
    rounds = max(1, rounds_now() // 5)
    chance = random.Random(int(os.environ.get("FAULTS_SEED", "1")))
    faults = [(how, service) for how in (kill, pause) for service in OURS]
    faults += [(restart, "nats"), (cut, "nats"), (cut, "guard"), (cut, "agent-air")]
    watched = Watched(engine, folder, {})
    with watched.running() as gateway:
        gateway.wait_proven()
        for how, service in chance.sample(faults * rounds, len(faults) * rounds):
            time.sleep(chance.uniform(0.0, 1.0))
            how(gateway, score, service, chance)
        assert score.run("containers killed, paused, cut off", watched.judged()) == []


def test_a_full_volume_of_the_broker_that_has_room_again_loses_nothing(
    engine: Engine, folder: Path, score: Score
) -> None:
    watched = Watched(engine, folder, {})
    with watched.running() as gateway:
        gateway.wait_proven()
        for _ in range(max(2, rounds_now() // 5)):
            with full(watched.store):
                time.sleep(FULL_S)
            recovers(gateway, score, "full volume", "nats")
        assert score.run("full volume of the broker", watched.judged()) == []


def test_a_day_without_uplink_changes_nothing(engine: Engine, folder: Path, score: Score) -> None:
    if shutil.which("iptables") is None:
        pytest.skip("not installed: iptables (apt-get install iptables)")
    watched = Watched(engine, folder, {"SITE_TIME_FACTOR": str(int(DAYS_FACTOR))})
    with watched.running() as gateway:
        gateway.wait_proven()
        before = {service: started(gateway, service) for service in OURS}
        with no_way_out(gateway) as dropped:
            end_s, hours = time.monotonic() + DAY_S / DAYS_FACTOR, 0
            assert not reaches(gateway, "world", OUTSIDE, 443)
            assert dropped() > 0, "what goes out is not stopped"
            while time.monotonic() < end_s:
                gateway.wait_proven(timeout_s=LONGEST_QUIET_S)
                hours += 1
                time.sleep(3600 / DAYS_FACTOR)
            gateway.wait_healthy()
        score.fault("uplink cut", f"24 h of site time, looked at {hours} times", None)
        assert {service: started(gateway, service) for service in OURS} == before
        assert score.run("a day without uplink", watched.judged()) == []


@contextlib.contextmanager
def no_way_out(gateway: Gateway) -> Iterator[Callable[[], int]]:
    """Drop all that leaves EdgeX's network for elsewhere; the context tells how many packets were dropped so far."""
    network = gateway.engine.inspect(f"{PROJECT}_edgex")[0]
    bridge = f"br-{network['Id'][:12]}"
    rule = ["-i", bridge, "!", "-o", bridge, "-j", "DROP"]
    subprocess.run(["iptables", "-I", "DOCKER-USER", "1", *rule], check=True)

    def dropped() -> int:
        words = ["iptables", "-L", "DOCKER-USER", "1", "-v", "-n", "-x"]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0])

    try:
        yield dropped
    finally:
        subprocess.run(["iptables", "-D", "DOCKER-USER", *rule], check=True)


def reaches(gateway: Gateway, service: str, host: str, port: int) -> bool:
    """Say whether a container gets a connection to an address."""
    code = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close(); print('yes')\n"
        "except OSError as error: print(error)"
    )
    return gateway.python(service, code, host, str(port)).strip() == "yes"
