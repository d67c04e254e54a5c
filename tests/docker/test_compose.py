"""The gateway of docker-compose.yml comes up, works, and touches nothing but what it says."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeagents.permissions import BEHIND_DOOR
from tests.docker.engine import OURS, ROOT, Engine, Gateway, compose_commands, run

MOST_UP_S = 60.0
MOST_BASE_BYTES = 200_000_000
MOST_OURS_BYTES = 150_000_000
MOST_WITH_ONNXRUNTIME_BYTES = 250_000_000
IMAGES = ("nats", "core", "guard", "agent", "coordinator", "inference", "world")


def test_it_is_up_and_healthy_in_time(gateway: Gateway) -> None:
    print(f"up and healthy after {gateway.up_s:.1f} s")
    if gateway.up_s >= MOST_UP_S:  # once more: a machine that had no time for us is no slow gateway
        gateway.again()
        print(f"and once more after {gateway.up_s:.1f} s")
    assert gateway.up_s < MOST_UP_S
    gateway.wait_healthy()


def test_a_device_event_causes_a_proven_command(gateway: Gateway) -> None:
    gateway.wait_proven()


def test_keeper_finds_agents_healthy_behind_the_guard(gateway: Gateway) -> None:
    def registered() -> dict[str, dict[str, Any]]:
        found = gateway.get("core", "http://127.0.0.1:59890/api/v3/registry/all")["registrations"]
        return {item["serviceId"]: item for item in found if item["serviceId"].startswith("app-agent-")}

    give_up_s = time.monotonic() + 30  # keeper asks every 10 s
    while {item["status"] for item in registered().values()} != {"UP"}:
        assert time.monotonic() < give_up_s, registered()
        time.sleep(1)
    agents = registered()
    assert sorted(agents) == ["app-agent-air", "app-agent-assistant", "app-agent-comfort", "app-agent-energy"]
    for item in agents.values():
        assert (item["host"], item["status"]) == ("edgeagents-guard", "UP")
        url = f"http://{item['host']}:{item['port']}"
        assert gateway.get("world", f"{url}/api/v3/ping")["serviceName"] == item["serviceId"]
        assert gateway.get("world", f"{url}/api/v3/config")["serviceName"] == item["serviceId"]
    assert len({item["port"] for item in agents.values()}) == len(agents)


def test_the_owners_command_line_works(gateway: Gateway) -> None:
    assert "paused" in gateway.compose("run", "--rm", "edgeagents", "pause", "agent", "air", "--reason", "a test")
    assert any("air" in str(pause) for pause in gateway.guard()["paused"])
    gateway.compose("run", "--rm", "edgeagents", "resume", "agent", "air", "--reason", "a test")
    assert gateway.guard()["paused"] == []


@pytest.mark.parametrize("service", OURS)
def test_every_service_of_ours_is_confined(gateway: Gateway, service: str) -> None:
    found = gateway.engine.inspect(gateway.container(service))[0]
    host = found["HostConfig"]
    assert found["Config"]["User"] == "2002:2001"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert not host["Privileged"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert host["NetworkMode"] != "host"
    assert host["PidMode"] == ""
    assert "latest" not in found["Config"]["Image"]


def test_the_host_is_touched_by_published_ports_alone(gateway: Gateway) -> None:
    containers = gateway.engine.inspect(*(gateway.container(service) for service in OURS))
    for found in containers:
        assert not [m for m in found["Mounts"] if m["Type"] == "bind" and m["RW"]], found["Name"]
        assert not found["HostConfig"]["Devices"]
        published = [at for ports in found["NetworkSettings"]["Ports"].values() for at in ports or []]
        assert {at["HostIp"] for at in published} <= {"127.0.0.1"}, found["Name"]


def test_who_thinks_is_on_one_network_alone(gateway: Gateway) -> None:
    for service in OURS:
        networks = set(gateway.engine.inspect(gateway.container(service))[0]["NetworkSettings"]["Networks"])
        short = {name.rsplit("_", 1)[1] for name in networks}
        wanted = (
            {"agents"}
            if service.startswith("agent-") or service in BEHIND_DOOR
            else {"edgex"}
            if service in ("core", "world")
            else {"agents", "edgex"}
        )
        assert short == wanted, service


def test_images_are_small(engine: Engine) -> None:
    version = next(
        line for line in (ROOT / ".env").read_text().splitlines() if line.startswith("IMAGE_VERSION=")
    ).split("=")[1]
    images = {name: engine.inspect(f"edgeagents-{name}:{version}")[0] for name in IMAGES}
    layers = [image["RootFS"]["Layers"] for image in images.values()]
    # The base is what all have in common below our first layer; ours are told apart by the history.
    common = [one for one, *others in zip(*layers, strict=False) if all(one == other for other in others)]
    assert len(common) >= 4, "images share the base, the libraries and the common code"
    for name, image in images.items():
        print(name, image["Size"])
        most = MOST_WITH_ONNXRUNTIME_BYTES if name == "inference" else MOST_OURS_BYTES
        assert image["Size"] <= MOST_BASE_BYTES + most
        assert ours_bytes(engine, f"edgeagents-{name}:{version}") <= most


def ours_bytes(engine: Engine, image: str) -> int:
    """Return the size of an image's layers above its base: those from the first line of our recipe's last stage on."""
    told = engine.docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    sizes = list[int]()
    for line in told.splitlines():  # the newest first
        sizes.append(int(line.partition(" ")[0]))
        if "edgeagents:x:2002" in line:
            return sum(sizes)
    raise AssertionError(f"{image} is not of services/Dockerfile")


@pytest.mark.parametrize("profiles", ["edgex", "embedded,demo", "edgex,rules", "tools", ""])
def test_every_compose_takes_the_file(engine: Engine, profiles: str) -> None:
    commands = compose_commands(engine)
    assert ["docker-compose"] in commands
    for command in commands:
        shown = yaml.safe_load(run([*command, "config"], env={**engine.env, "COMPOSE_PROFILES": profiles}))
        assert "name" not in yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        assert {"credentials", "nats", "guard"} <= set(shown["services"])


def test_a_gateway_with_its_own_edgex_joins_its_network(engine: Engine) -> None:
    own = {
        "COMPOSE_PROFILES": "", "EDGEX_NETWORK": "edgex_edgex-network", "EDGEX_NETWORK_EXTERNAL": "true",
        "KEEPER_URL": "http://my-keeper:59890", "NATS_URL": "nats://my-nats:4222",
    }  # fmt: skip
    for command in compose_commands(engine):
        shown = yaml.safe_load(run([*command, "config"], env={**engine.env, **own}))
        assert shown["networks"]["edgex"] == {"external": True, "name": "edgex_edgex-network"}
        guard = shown["services"]["guard"]["environment"]
        assert guard["EDGEX_CONFIG_PROVIDER"] == "keeper.http://my-keeper:59890"
        assert guard["EDGEAGENTS_NATS_URL"] == "nats://my-nats:4222"


class TestSecrets:
    """No secret in logs, configurations, image layers or what the engine tells."""

    @pytest.fixture
    def secrets(self, gateway: Gateway) -> list[str]:
        """Every secret of this gateway."""
        code = (
            "import json, pathlib, re\n"
            "text = ' '.join(p.read_text() for p in pathlib.Path('/run/credentials').iterdir())\n"
            "print(json.dumps(re.findall(r'[A-Za-z0-9_-]{32}', text)))"
        )
        found = {secret for service in OURS for secret in json.loads(gateway.python(service, code))}
        assert len(found) >= 10
        return sorted(found)

    def test_not_in_logs_or_inspect(self, gateway: Gateway, secrets: list[str]) -> None:
        told = "".join(gateway.logs(service) for service in (*OURS, "credentials"))
        told += json.dumps(gateway.engine.inspect(*(gateway.container(name) for name in (*OURS, "credentials"))))
        assert len(told) > 10_000
        assert [secret for secret in secrets if secret in told] == []

    def test_not_in_configurations(self, gateway: Gateway, secrets: list[str]) -> None:
        found = gateway.get("core", "http://127.0.0.1:59890/api/v3/registry/all")["registrations"]
        open_to_all = [item for item in found if item["serviceId"] != "core-command"]  # asks even here for a token
        pages = [gateway.get("core", f"http://{item['host']}:{item['port']}/api/v3/config") for item in open_to_all]
        keys = gateway.get("core", "http://127.0.0.1:59890/api/v3/kvs/key/edgex?plaintext=true")
        told = json.dumps([pages, keys])
        assert len(pages) >= 7, [item["serviceId"] for item in found]
        assert [secret for secret in secrets if secret in told] == []

    def test_not_in_image_layers(self, engine: Engine) -> None:
        version = next(x for x in (ROOT / ".env").read_text().splitlines() if x.startswith("IMAGE_VERSION=")).split(
            "="
        )[1]
        for name in IMAGES:
            image = f"edgeagents-{name}:{version}"
            told = engine.docker("history", "--no-trunc", image) + json.dumps(engine.inspect(image))
            assert "token" not in told.lower()
            assert "password" not in told.lower()
            listed = engine.docker(
                "run", "--rm", "--network", "none", "--entrypoint", "find", image, "/credentials", "/run/credentials",
                "/state", "-type", "f",
            )  # fmt: skip
            assert listed == ""


def test_the_readme_of_profiles_names_what_the_file_has() -> None:
    services = yaml.safe_load(Path(ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    page = (ROOT / "docs" / "compose.md").read_text()
    assert all(f"`{name}`" in page for name in profiles)
