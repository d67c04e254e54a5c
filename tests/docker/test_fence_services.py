"""The fence around coordinator and language model: each rule tried inside the container, with its credentials."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from edgeagents.permissions import BEHIND_DOOR
from tests.docker.engine import PROJECT, Gateway

ATTACKS: Final = (Path(__file__).parent / "attacks.py").read_text()
COMMAND: Final = "/api/v3/device/name/ventilation/Level"
WHO: Final = sorted(BEHIND_DOOR)
Attack: TypeAlias = Callable[..., Any]


@pytest.fixture(params=WHO)
def who(request: pytest.FixtureRequest) -> str:
    """Each of the two."""
    return str(request.param)


@pytest.fixture
def attack(gateway: Gateway, who: str) -> Attack:
    """Return what happens to an attack of theirs; to each of several when lists are given."""

    def tried(*words: Any) -> Any:
        if isinstance(words[0], list):
            return json.loads(gateway.python(who, ATTACKS, "many", json.dumps(words)))
        return json.loads(gateway.python(who, ATTACKS, *words))

    return tried


def test_what_they_need_is_open(attack: Attack, who: str) -> None:
    """Else the tests below would prove nothing."""
    spoken = {"coordinator": "gateway.coordinator", "inference": "gateway.dead-letters.app-inference"}[who]
    heard = {"coordinator": "gateway.acts.coordinator.*", "inference": "gateway.inference.*"}[who]
    own, devices, published, subscribed = attack(
        ["door", "GET", f"/api/v3/kvs/key/edgex/v4/app-{who}?keyOnly=true"],
        ["door", "GET", "/api/v3/device/all?limit=100"],
        ["publish-each", spoken],
        ["subscribe-each", heard],
    )
    assert (own["status"], f"app-{who}/Writable/LogLevel" in own["body"]) == (200, True)
    assert (devices["status"], "ventilation" in devices["body"]) == (200, True)
    assert (published[spoken], subscribed[heard]) == ("", "")


def test_core_command_is_out_of_reach_by_http(gateway: Gateway, attack: Attack) -> None:
    where = gateway.address("core")
    name, direct, put, get, registered = attack(
        ["resolve", "edgex-core-command"], ["http", "GET", f"http://{where}:59882{COMMAND}"],
        ["door", "PUT", COMMAND, '{"Level": "3"}'], ["door", "GET", COMMAND],
        ["door", "GET", "/api/v3/registry/serviceId/core-command"],
    )  # fmt: skip
    assert "error" in name
    assert "error" in direct
    assert [answer["status"] for answer in (put, get, registered)] == [403, 403, 403]


def test_core_command_and_device_services_are_out_of_reach_by_nats(attack: Attack) -> None:
    said = attack(
        "publish-each", "edgex.core.command.request.ventilation.Level.set",
        "edgex.device.command.request.device-world-home.ventilation.Level.set",
        "edgex.core.commandquery.request.all", "edgex.events.device.s.p.d.r",
    )  # fmt: skip
    assert [subject for subject, text in said.items() if "permissions violation" not in text] == []


def test_mqtt_is_not_there_on_either_network(gateway: Gateway, attack: Attack) -> None:
    found = attack(*(["tcp", gateway.address("nats", network), "1883"] for network in ("agents", "edgex")))
    assert ["error" in item for item in found] == [True, True]


def test_nobody_gets_in_without_a_password_and_theirs_opens_no_other_user(
    gateway: Gateway, attack: Attack, who: str
) -> None:
    own = gateway.python(who, "print(open('/run/credentials/nats.password').read().strip())").strip()
    others = ["guard", "owner", "edgex", "agent-air", *(name for name in WHO if name != who)]
    anonymous, mine, *theirs = attack(["anonymous"], *(["as-user", user, own] for user in (who, *others)))
    assert "error" in anonymous
    assert mine == {"connected": True}
    assert ["error" in item for item in theirs] == [True] * len(others)


def test_commands_leases_and_what_others_say_cannot_be_written(attack: Attack, who: str) -> None:
    [other] = [name for name in WHO if name != who]
    # The coordinator asks there who holds what; the guard grants that name no lease.
    leases = [] if who == "coordinator" else [f"gateway.leases.{who}", f"gateway.leases.{other}"]
    said = attack(
        "publish-each", "gateway.commands.ventilation.air", f"gateway.commands.ventilation.{who}",
        "gateway.commands.ventilation.guard", *leases, "gateway.leases.air",
        f"gateway.sessions.{who}", "gateway.outcomes.air.ventilation", "gateway.triggers.air", "gateway.audit.air.x",
        f"gateway.audit.{other}.x", "gateway.guard", "gateway.acts.coordinator.air", "gateway.ask.assistant",
        "gateway.inference.air", "gateway.ledger.air", "gateway.task-requests.submit.owner",
    )  # fmt: skip
    assert [subject for subject, text in said.items() if "permissions violation" not in text] == []


def test_commands_answers_and_questions_of_others_cannot_be_heard(attack: Attack, who: str) -> None:
    others = {"coordinator": "gateway.inference.*", "inference": "gateway.acts.>"}[who]
    said = attack(
        "subscribe-each", ">", "gateway.>", "gateway.commands.>", "gateway.outcomes.>", "gateway.leases.*",
        "gateway.audit.>", "gateway.ask.*", "_INBOX.>", "_INBOX.agent-air.>", "edgex.>", "edgex.events.>",
        "$JS.API.>", others,
    )  # fmt: skip
    assert [subject for subject, text in said.items() if "permissions violation" not in text] == []


def test_no_stream_of_others_can_be_read_changed_or_emptied(attack: Attack, who: str) -> None:
    said = attack(
        "publish-each", "$JS.API.CONSUMER.CREATE.commands.x", "$JS.API.CONSUMER.CREATE.commands.x.gateway.commands.>",
        "$JS.API.CONSUMER.MSG.NEXT.commands.agent-air", "$JS.API.DIRECT.GET.commands", "$JS.API.STREAM.PURGE.commands",
        "$JS.API.STREAM.MSG.GET.audit", "$JS.API.STREAM.UPDATE.tasks", "$JS.API.STREAM.CREATE.mine",
        "$JS.API.STREAM.DELETE.tasks", "$JS.API.CONSUMER.DELETE.edgex-events.agent-air",
    )  # fmt: skip
    assert [subject for subject, text in said.items() if "permissions violation" not in text] == []


def test_keys_and_registrations_of_others_are_refused(attack: Attack, who: str) -> None:
    [other] = [name for name in WHO if name != who]
    keys = [f"/api/v3/kvs/key/edgex/v4/{key}" for key in ("app-guard", "app-agent-air", f"app-{other}")]
    body = json.dumps({"registration": {"serviceId": f"app-{other}", "host": who, "port": 59740}})
    found = attack(
        *(["door", "GET", key] for key in keys), *(["door", "PUT", key, '{"value": "x"}'] for key in keys),
        ["door", "POST", "/api/v3/registry", body], ["door", "PATCH", "/api/v3/device", "[]"],
    )  # fmt: skip
    assert {item["status"] for item in found} == {403}


def test_neither_agents_nor_each_other_can_be_asked_over_http(attack: Attack, who: str) -> None:
    """Over NATS the broker forbids it; they share a network, so each asks for a token that the guard alone has."""
    [other] = [name for name in WHO if name != who]
    others = {"coordinator": "http://coordinator:59741/api/v3/task", "inference": "http://inference:59743/v1/models"}
    said = json.dumps({"text": "turn on the light in the living room"})
    found = attack(
        ["http", "POST", "http://agent-assistant:59750/api/v3/ask", said],
        ["http", "POST", "http://agent-air:59750/api/v3/deciding/off", "{}"],
        ["http", "POST", "http://agent-air:59750/api/v3/rule", "{}"],
        ["http", "POST" if other == "coordinator" else "GET", others[other], "{}"],
    )  # fmt: skip
    assert [item.get("status") for item in found] == [401] * 4, found


def test_without_a_token_there_is_no_door_and_no_page_of_the_guard_beside_it(gateway: Gateway, attack: Attack) -> None:
    without, page = attack(
        ["door-without", "GET", "/api/v3/ping"], ["tcp", gateway.address("guard", "agents"), "59740"]
    )
    assert without["status"] == 401
    assert "error" in page


def test_only_their_own_secrets_are_there_no_docker_and_nothing_to_write(
    gateway: Gateway, attack: Attack, who: str
) -> None:
    found = attack("files")
    secrets = sorted(path for path in found["run"] if "credentials" in path)
    assert secrets == ["/run/credentials/door.token", "/run/credentials/nats.password"]
    assert not [path for path in found["run"] if "docker" in path or path.endswith(".sock")]
    assert (found["writable"], found["uid"]) == ([], 2002)
    mounts = gateway.engine.inspect(gateway.container(who))[0]["Mounts"]
    assert not [mount for mount in mounts if mount["RW"] or "sock" in mount["Source"]]


def test_host_and_internet_are_out_of_reach(gateway: Gateway, attack: Attack) -> None:
    hosts = [
        gateway.engine.inspect(f"{PROJECT}_{name}")[0]["IPAM"]["Config"][0]["Gateway"] for name in ("agents", "edgex")
    ]
    found = attack(
        ["resolve", "example.org"], ["tcp", "192.0.2.1", "443"], ["tcp", "8.8.8.8", "53"],
        *(["tcp", host, "22"] for host in hosts),
    )  # fmt: skip
    assert ["error" in item for item in found] == [True] * 5
