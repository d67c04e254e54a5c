"""The fence around agents: each rule tried from inside an agent's container, with its credentials."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import PROJECT, Gateway

ATTACKS = (Path(__file__).parent / "attacks.py").read_text()
COMMAND = "/api/v3/device/name/ventilation/Level"
TARGET = "ventilation"


@pytest.fixture
def attack(gateway: Gateway) -> Any:
    """Return what happens to an attack of agent `air`."""

    def tried(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(gateway.python("agent-air", ATTACKS, *words))
        return found

    return tried


def address_of(gateway: Gateway, service: str, network: str) -> str:
    """Return a container's address on one of the two networks."""
    settings = gateway.engine.inspect(gateway.container(service))[0]["NetworkSettings"]["Networks"]
    return str(settings[f"{PROJECT}_{network}"]["IPAddress"])


class TestOpen:
    """What an agent needs is open: else the tests below would prove nothing."""

    def test_its_own_key_and_the_common_configuration_are_readable(self, attack: Any) -> None:
        own = attack("door", "GET", "/api/v3/kvs/key/edgex/v4/app-agent-air?keyOnly=true")
        common = attack("door", "GET", "/api/v3/kvs/key/edgex/v4/core-common-config-bootstrapper?plaintext=true")
        assert own["status"] == 200
        assert "edgex/v4/app-agent-air/Writable/LogLevel" in own["body"]
        assert common["status"] == 200
        assert "IsCommonConfigReady" in common["body"]

    def test_devices_are_readable(self, attack: Any) -> None:
        found = attack("door", "GET", "/api/v3/device/all?limit=100")
        assert found["status"] == 200
        assert TARGET in found["body"]

    def test_the_broker_takes_its_own_subjects(self, attack: Any) -> None:
        assert attack("publish", "gateway.sessions.air", "{}")["said"] == []


class TestCoreCommand:
    def test_cannot_be_found_by_name(self, attack: Any) -> None:
        assert "error" in attack("resolve", "edgex-core-command")

    def test_cannot_be_reached_by_its_address(self, gateway: Gateway, attack: Any) -> None:
        where = address_of(gateway, "core", "edgex")
        assert "error" in attack("http", "GET", f"http://{where}:59882{COMMAND}")

    def test_is_not_behind_the_door(self, attack: Any) -> None:
        assert attack("door", "PUT", COMMAND, '{"Level": "3"}')["status"] == 403
        assert attack("door", "GET", COMMAND)["status"] == 403
        assert attack("door", "GET", "/api/v3/device/name/ventilation%2FLevel")["status"] == 403
        assert attack("door", "GET", "/api/v3/registry/serviceId/core-command")["status"] == 403

    def test_cannot_be_asked_by_nats(self, attack: Any) -> None:
        found = attack("request", f"edgex.core.command.request.{TARGET}.Level.set", "{}")
        assert any("permissions violation" in text.lower() for text in found["said"]), found

    def test_nor_can_a_device_service(self, attack: Any) -> None:
        found = attack("publish", f"edgex.device.command.request.device-world-home.{TARGET}.Level.set", "{}")
        assert any("permissions violation" in text.lower() for text in found["said"]), found

    @pytest.mark.parametrize("network", ["agents", "edgex"])
    def test_mqtt_is_not_there_for_agents_anonymous_or_not(self, gateway: Gateway, attack: Any, network: str) -> None:
        assert "error" in attack("tcp", address_of(gateway, "nats", network), "1883")

    def test_mqtt_is_there_for_edgex(self, gateway: Gateway) -> None:
        code = "import socket\nsocket.create_connection(('edgex-mqtt-broker', 1883), 3).close()\nprint('taken')"
        assert gateway.python("world", code).strip() == "taken"

    def test_anonymous_nats_is_refused(self, attack: Any) -> None:
        assert "error" in attack("anonymous")


class TestOtherAgents:
    @pytest.mark.parametrize(
        "subject",
        [
            "gateway.commands.ventilation.comfort",
            "gateway.leases.comfort",
            "gateway.sessions.comfort",
            "gateway.audit.comfort.x",
            "gateway.triggers.comfort",
            "gateway.outcomes.air.ventilation",
            "gateway.guard",
        ],
    )
    def test_their_subjects_and_the_guards_are_refused(self, attack: Any, subject: str) -> None:
        assert any("permissions violation" in text.lower() for text in attack("publish", subject, "{}")["said"])

    @pytest.mark.parametrize(
        "subject", ["gateway.commands.>", "gateway.outcomes.comfort.*", "edgex.>", ">", "_INBOX.>"]
    )
    def test_nobody_elses_messages_are_heard(self, attack: Any, subject: str) -> None:
        found = attack("subscribe", subject)
        assert found["result"] == []
        assert any("permissions violation" in text.lower() for text in found["said"])

    @pytest.mark.parametrize(
        "subject",
        [
            "$JS.API.CONSUMER.MSG.NEXT.edgex-events.agent-comfort",
            "$JS.API.CONSUMER.DELETE.edgex-events.agent-comfort",
            "$JS.API.STREAM.PURGE.commands",
            "$JS.API.DIRECT.GET.commands",
        ],
    )
    def test_their_consumers_and_the_streams_are_refused(self, attack: Any, subject: str) -> None:
        assert any("permissions violation" in text.lower() for text in attack("publish", subject, "{}")["said"])

    def test_only_its_own_secrets_are_there(self, attack: Any) -> None:
        found = attack("files")
        secrets = [path for path in found["run"] if "credentials" in path]
        assert sorted(secrets) == ["/run/credentials/door.token", "/run/credentials/nats.password"]

    def test_its_password_opens_nobody_elses_user(self, gateway: Gateway, attack: Any) -> None:
        code = "print(open('/run/credentials/nats.password').read().strip())"
        own = gateway.python("agent-air", code).strip()
        assert attack("as-user", "agent-air", own) == {"connected": True}
        for user in ("agent-comfort", "guard", "owner", "edgex"):
            assert "error" in attack("as-user", user, own), user

    def test_their_containers_take_no_secret_from_it(self, attack: Any) -> None:
        found = attack("http", "GET", "http://agent-comfort:59750/api/v3/config")
        assert "nats.password" not in found.get("body", "")

    def test_they_and_the_coordinator_answer_the_guard_alone(self, attack: Any) -> None:
        said = json.dumps({"text": "turn on the light in the living room"})
        assert attack("http", "POST", "http://agent-assistant:59750/api/v3/ask", said)["status"] == 401
        assert attack("http", "POST", "http://agent-comfort:59750/api/v3/deciding/off", "{}")["status"] == 401
        assert attack("http", "POST", "http://coordinator:59741/api/v3/task", "{}")["status"] == 401
        assert attack("http", "GET", "http://inference:59743/v1/models")["status"] == 401


class TestKeeper:
    @pytest.mark.parametrize(
        "key",
        [
            "edgex/v4/app-agent-comfort",
            "edgex/v4/app-agent-comfort/Writable/LogLevel",
            "edgex/v4/app-guard",
            "edgex/v4/core-metadata",
            "edgex/v4",
            "edgex/v4/app-agent-air/../app-guard",
            "edgex/v4/app-agent-air%2F..%2Fapp-guard",
            "edgex/v4/app-agent-ai",
        ],
    )
    def test_keys_of_others_are_refused(self, attack: Any, key: str) -> None:
        assert attack("door", "GET", f"/api/v3/kvs/key/{key}")["status"] == 403
        assert attack("door", "PUT", f"/api/v3/kvs/key/{key}", '{"value": "x"}')["status"] == 403
        assert attack("door", "DELETE", f"/api/v3/kvs/key/{key}")["status"] == 403

    def test_the_common_configuration_cannot_be_changed(self, attack: Any) -> None:
        key = "edgex/v4/core-common-config-bootstrapper/all-services/Writable/LogLevel"
        assert attack("door", "PUT", f"/api/v3/kvs/key/{key}", '{"value": "TRACE"}')["status"] == 403

    def test_nobody_else_can_be_registered(self, attack: Any) -> None:
        body = {"registration": {"serviceId": "core-command", "host": "agent-air", "port": 59750}}
        assert attack("door", "POST", "/api/v3/registry", json.dumps(body))["status"] == 403
        assert attack("door", "PUT", "/api/v3/registry", json.dumps(body))["status"] == 403
        assert attack("door", "DELETE", "/api/v3/registry/serviceId/core-command")["status"] == 403

    def test_without_a_token_there_is_no_door(self, attack: Any) -> None:
        assert attack("door-without", "GET", "/api/v3/ping")["status"] == 401

    def test_keeper_itself_is_out_of_reach(self, gateway: Gateway, attack: Any) -> None:
        assert "error" in attack("tcp", address_of(gateway, "core", "edgex"), "59890")


class TestMetadata:
    @pytest.mark.parametrize("method", ["PATCH", "POST", "PUT", "DELETE"])
    def test_cannot_be_changed(self, attack: Any, method: str) -> None:
        body = json.dumps([{"apiVersion": "v3", "device": {"name": TARGET, "adminState": "LOCKED"}}])
        assert attack("door", method, "/api/v3/device", body)["status"] == 403
        assert attack("door", method, f"/api/v3/device/name/{TARGET}", body)["status"] == 403


class TestTheHost:
    def test_docker_cannot_be_reached(self, gateway: Gateway, attack: Any) -> None:
        found = attack("files")
        assert not [path for path in found["run"] if "docker" in path or path.endswith(".sock")]
        mounts = gateway.engine.inspect(gateway.container("agent-air"))[0]["Mounts"]
        assert not [mount for mount in mounts if "sock" in mount["Source"]]

    def test_nothing_but_tmp_can_be_written(self, attack: Any) -> None:
        found = attack("files")
        assert found["writable"] == []
        assert found["uid"] == 2002

    def test_the_host_has_no_address_here(self, gateway: Gateway, attack: Any) -> None:
        network = gateway.engine.inspect(f"{PROJECT}_agents")[0]
        assert network["Internal"]
        host = network["IPAM"]["Config"][0]["Gateway"]
        assert "error" in attack("tcp", host, "22")
        own = gateway.engine.inspect(f"{PROJECT}_edgex")[0]["IPAM"]["Config"][0]["Gateway"]
        assert "error" in attack("tcp", own, "22")

    def test_the_internet_is_out_of_reach(self, attack: Any) -> None:
        assert "error" in attack("resolve", "example.org")
        assert "error" in attack("tcp", "192.0.2.1", "443")
        assert "error" in attack("tcp", "8.8.8.8", "53")

    def test_guards_own_page_is_not_for_agents(self, gateway: Gateway, attack: Any) -> None:
        assert "error" in attack("tcp", address_of(gateway, "guard", "agents"), "59740")


def test_a_refusal_at_the_door_is_counted_and_audited_once(gateway: Gateway, attack: Any) -> None:
    before = gateway.guard()["door"]["refused"]
    for _ in range(3):
        attack("door", "PATCH", "/api/v3/device", "[]")
    assert gateway.guard()["door"]["refused"] >= before + 3
    told = [line for line in gateway.logs("guard").splitlines() if "changing core-metadata" in line]
    assert len(told) == 1
