"""Passwords and tokens of a gateway: made once, kept, rotated; each consumer has what it needs and no more."""

import json
import os
from pathlib import Path

import pytest

from edgeagents.adapters.credentials import EVERYBODY, Credentials
from edgeagents.embedded.command_routes import read_tokens
from edgeagents.errors import ConfigurationError
from edgeagents.permissions import Permissions, for_agent, for_coordinator, for_inference
from services.guard.approvals import read_approvers
from services.guard.doorkeeper import read_door_tokens

FILES = {
    "nats/users.json", "guard/nats.password", "guard/door.tokens", "guard/command.token", "guard/approvers",
    "core/nats.password", "core/command.tokens", "world/nats.password", "owner/nats.password", "owner/command.token",
    "owner/approver.token", "agent-air/nats.password", "agent-air/door.token", "agent-heat/nats.password",
    "agent-heat/door.token", "coordinator/nats.password", "coordinator/door.token", "inference/nats.password",
    "inference/door.token",
}  # fmt: skip
BOTH = {"coordinator", "inference"}


def made(folder: Path, *rotated: str, agents: tuple[str, ...] = ("air", "heat")) -> Credentials:
    found = Credentials(folder, "gw", agents, rotated)
    found.write()
    return found


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_consumer_has_its_files_private_to_their_owner(tmp_path: Path) -> None:
    made(tmp_path)
    assert set(texts(tmp_path)) == FILES
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o600}


def test_what_belongs_together_agrees_and_is_what_its_readers_read(tmp_path: Path) -> None:
    made(tmp_path)
    found = texts(tmp_path)
    users = {user["user"]: user for user in json.loads(found["nats/users.json"])["users"]}
    consumers = {
        "guard": "guard",
        "owner": "owner",
        "edgex": "core",
        "agent-air": "agent-air",
        "agent-heat": "agent-heat",
        "coordinator": "coordinator",
        "inference": "inference",
    }
    assert set(users) == set(consumers)
    for user, consumer in consumers.items():
        assert users[user]["password"] == found[f"{consumer}/nats.password"].strip()
    assert found["world/nats.password"] == found["core/nats.password"]
    doors = read_door_tokens(tmp_path / "guard" / "door.tokens")
    owners = {"air": "agent-air", "heat": "agent-heat", "coordinator": "coordinator", "inference": "inference"}
    assert doors == {name: found[f"{folder}/door.token"].strip() for name, folder in owners.items()}
    commands = read_tokens(tmp_path / "core" / "command.tokens")
    assert commands == {name: found[f"{name}/command.token"].strip() for name in ("guard", "owner")}
    assert read_approvers(tmp_path / "guard" / "approvers") == {"owner": found["owner/approver.token"].strip()}
    secrets = [text.strip() for name, text in found.items() if name.endswith((".password", ".token"))]
    assert len(set(secrets)) == len(secrets) - 1, "all differ, but for what core and world share"
    assert min(map(len, secrets)) >= 32


def test_agents_may_do_what_the_permissions_say(tmp_path: Path) -> None:
    made(tmp_path)
    users = {user["user"]: user for user in json.loads((tmp_path / "nats" / "users.json").read_text())["users"]}
    wanted = for_agent("gw", "air")
    assert users["agent-air"]["permissions"] == {
        "publish": {"allow": list(wanted.publish), "deny": list(wanted.deny_publish)},
        "subscribe": {"allow": list(wanted.subscribe), "deny": list(wanted.deny_subscribe)},
    }


def test_an_agent_that_may_lead_and_no_other_gets_a_leaders_words(tmp_path: Path) -> None:
    Credentials(tmp_path, "gw", ("air", "heat"), leaders=("heat",)).write()
    users = {user["user"]: user for user in json.loads((tmp_path / "nats" / "users.json").read_text())["users"]}
    for name, leads in (("air", False), ("heat", True)):
        wanted = for_agent("gw", name, leads=leads)
        assert users[f"agent-{name}"]["permissions"]["publish"]["allow"] == list(wanted.publish)
        assert users[f"agent-{name}"]["permissions"]["subscribe"]["allow"] == list(wanted.subscribe)
        assert ("gw.peer-acts.*." + name in wanted.publish) is leads


@pytest.mark.parametrize(
    ("who", "wanted"), [("coordinator", for_coordinator("gw")), ("inference", for_inference("gw"))]
)
def test_coordinator_and_language_model_may_do_what_the_permissions_say(
    tmp_path: Path, who: str, wanted: Permissions
) -> None:
    made(tmp_path)
    users = {user["user"]: user for user in json.loads((tmp_path / "nats" / "users.json").read_text())["users"]}
    assert users[who]["permissions"]["publish"] == {
        "allow": list(wanted.publish), "deny": list(wanted.deny_publish),
    }  # fmt: skip
    assert users[who]["permissions"]["subscribe"]["allow"] == list(wanted.subscribe)


def test_again_changes_nothing(tmp_path: Path) -> None:
    assert made(tmp_path).made
    before, times = texts(tmp_path), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert made(tmp_path).made == []
    assert texts(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times


def test_an_agent_more_gets_its_own_and_the_others_keep_theirs(tmp_path: Path) -> None:
    made(tmp_path)
    before = texts(tmp_path)
    assert made(tmp_path, agents=("air", "heat", "night")).made == [
        "agent-night/nats.password",
        "agent-night/door.token",
    ]
    changed = {name for name, text in texts(tmp_path).items() if before.get(name) != text}
    assert changed == {"agent-night/nats.password", "agent-night/door.token", "guard/door.tokens", "nats/users.json"}


def test_an_agent_that_is_gone_is_no_user_any_more(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path, agents=("air",))
    users = json.loads((tmp_path / "nats" / "users.json").read_text())["users"]
    assert "agent-heat" not in [user["user"] for user in users]
    assert set(read_door_tokens(tmp_path / "guard" / "door.tokens")) == {"air", *BOTH}
    made(tmp_path, agents=())
    assert set(read_door_tokens(tmp_path / "guard" / "door.tokens")) == BOTH


@pytest.mark.parametrize(
    ("who", "changed"),
    [
        ("air", {"agent-air/nats.password", "agent-air/door.token", "guard/door.tokens", "nats/users.json"}),
        (
            "coordinator",
            {"coordinator/nats.password", "coordinator/door.token", "guard/door.tokens", "nats/users.json"},
        ),
        ("inference", {"inference/nats.password", "inference/door.token", "guard/door.tokens", "nats/users.json"}),
        ("guard", {"guard/nats.password", "guard/command.token", "core/command.tokens", "nats/users.json"}),
        ("edgex", {"core/nats.password", "world/nats.password", "nats/users.json"}),
        (
            "owner",
            {
                "owner/nats.password", "owner/command.token", "owner/approver.token", "core/command.tokens",
                "guard/approvers", "nats/users.json",
            },
        ),
        (EVERYBODY, FILES),
    ],
)  # fmt: skip
def test_a_rotation_changes_what_is_theirs_and_nothing_else(tmp_path: Path, who: str, changed: set[str]) -> None:
    made(tmp_path)
    before = texts(tmp_path)
    made(tmp_path, who)
    assert {name for name, text in texts(tmp_path).items() if before[name] != text} == changed


def test_nobody_of_that_name_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"nobody is called aire: known are air, all, coordinator, edgex, guard, heat, inf"
    ):
        made(tmp_path, "aire")
    assert texts(tmp_path) == {}


def test_the_brokers_users_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    really = os.replace

    def replace(source: Path, target: Path) -> None:
        order.append(str(target.relative_to(tmp_path)))
        really(source, target)

    monkeypatch.setattr("edgeagents.adapters.credentials.os.replace", replace)
    made(tmp_path)
    assert order[-1] == "nats/users.json"


def test_a_folder_that_cannot_be_written_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "agent-air").write_text("a file where a folder is to be")
    with pytest.raises(ConfigurationError, match=r"agent-air"):
        made(tmp_path)


def test_a_peer_that_comes_to_us_has_a_password_and_its_rotation_changes_no_other(tmp_path: Path) -> None:
    def linked(*rotated: str) -> list[str]:
        found = Credentials(tmp_path, "gw", ("air",), rotated, peers=("south", "hub"), coming=("south",))
        found.write()
        return found.made

    assert "owner/peer-south.password" in linked()
    before = texts(tmp_path)
    assert "owner/peer-hub.password" not in before
    users = json.loads(before["nats/users.json"])
    assert users["peers"] == {"south": before["owner/peer-south.password"].strip()}
    [air] = [user for user in users["users"] if user["user"] == "agent-air"]
    assert {"south.acts.*.gw.air", "hub.tasks.*.gw.air"} <= set(air["permissions"]["publish"]["allow"])
    assert linked("peer-south") == ["owner/peer-south.password"]
    changed = {name for name, text in texts(tmp_path).items() if before[name] != text}
    assert changed == {"owner/peer-south.password", "nats/users.json"}
    with pytest.raises(ConfigurationError, match="nobody is called peer-hub"):
        linked("peer-hub")
