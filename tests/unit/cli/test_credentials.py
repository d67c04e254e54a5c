"""`edgeagents credentials` where an owner's file is wrong: it is told, and all others have what they need."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.guard.doorkeeper import read_door_tokens
from tests.unit.cli.command import Done, run

AGENT = "name: {name}\nwatches:\n  - {{profile: sensor}}\n"
NOT_YAML = "name: [air\n"


class Owner:
    """An owner's folder of agent files, and the credentials that the command makes for them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Begin with the agents `air` and `heat`, whose credentials are there."""
        self.agents, self.made, self._capsys = folder / "agents", folder / "credentials", capsys
        self.agents.mkdir()
        self.write("air")
        self.write("heat", leads=True)
        assert self.run().code == 0

    def write(self, name: str, file: str = "", *, leads: bool = False) -> None:
        (self.agents / (file or f"{name}.yaml")).write_text(AGENT.format(name=name) + "leads: true\n" * leads)

    def run(self, *words: str) -> Done:
        return run(self._capsys, "credentials", "--folder", self.made, "--agents", self.agents, *words)

    @property
    def users(self) -> dict[str, Any]:
        return {user["user"]: user for user in json.loads((self.made / "nats" / "users.json").read_text())["users"]}

    @property
    def doors(self) -> dict[str, str]:
        return read_door_tokens(self.made / "guard" / "door.tokens")

    def password(self, agent: str) -> str:
        return (self.made / f"agent-{agent}" / "nats.password").read_text().strip()


@pytest.fixture
def owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(tmp_path, capsys)


def test_what_is_right_is_told_on_stdout_alone(owner: Owner) -> None:
    done = owner.run()
    assert (done.code, done.err) == (0, "")
    assert "credentials of 2 agents" in done.out
    assert "nothing is new" in done.out


def test_an_agent_that_two_files_declare_keeps_one_user_and_the_others_theirs(owner: Owner) -> None:
    users = owner.users
    owner.write("air", "copy.yaml")
    done = owner.run()
    assert done.code == 0
    assert done.err.startswith("warning: ")
    assert "both declare agent 'air': keep one of them" in done.err
    assert owner.users == users


def test_a_file_that_is_no_yaml_takes_nothing_from_its_agent_and_stops_no_other(owner: Owner) -> None:
    users, doors = owner.users, owner.doors
    (owner.agents / "heat.yaml").write_text(NOT_YAML)
    owner.write("night")
    done = owner.run()
    assert done.code == 0
    assert "heat.yaml, line 2: not YAML" in done.err
    assert "kept are heat" in done.err
    assert "credentials of 3 agents" in done.out
    assert "new are agent-night/nats.password, agent-night/door.token" in done.out
    assert {name: owner.users[name] for name in users} == users, "its rights, too: nobody knows whether it may lead"
    assert {name: owner.doors[name] for name in doors} == doors


def test_a_rotation_reaches_also_an_agent_whose_file_is_wrong(owner: Owner) -> None:
    (owner.agents / "heat.yaml").write_text(NOT_YAML)
    for words, changed in ((["heat"], {"agent-heat"}), ([], set(owner.users))):
        before, doors = owner.users, owner.doors
        assert owner.run("--rotate", *words).code == 0
        assert {name for name, user in owner.users.items() if user != before[name]} == changed
        assert owner.users["agent-heat"]["password"] == owner.password("heat")
        assert owner.users["agent-heat"]["permissions"] == before["agent-heat"]["permissions"]
        assert owner.doors["heat"] != doors["heat"]


def test_whose_volume_is_gone_keeps_what_the_others_have_of_it(owner: Owner) -> None:
    """An agent that was taken out of compose while another one's file is wrong: nothing can be written for it."""
    users, doors = owner.users, owner.doors
    (owner.agents / "heat.yaml").unlink()
    for file in (owner.made / "agent-heat").iterdir():
        file.unlink()
    (owner.made / "agent-heat").rmdir()
    (owner.agents / "air.yaml").write_text(NOT_YAML)
    assert owner.run().code == 0
    assert (owner.users, owner.doors) == (users, doors)
    assert not (owner.made / "agent-heat").exists()
    owner.write("air")
    done = owner.run()
    assert done.err == ""
    assert "agent-heat" not in owner.users, "all can be read: who is gone is gone"


def test_a_folder_where_a_file_is_wanted_is_told_and_stops_nobody(owner: Owner) -> None:
    (owner.agents / "comfort.yaml").mkdir()
    done = owner.run()
    assert done.code == 0
    assert done.err.startswith(f"warning: {owner.agents / 'comfort.yaml'}: ")
    assert set(owner.doors) == {"air", "heat", "coordinator", "inference"}


@pytest.mark.parametrize("text", ["{", "[]", '{"users": [{}]}', '{"users": [{"user": "agent-heat", "password": "x"}]}'])
def test_users_that_nobody_can_read_are_made_anew(owner: Owner, text: str) -> None:
    (owner.made / "nats" / "users.json").write_text(text)
    (owner.agents / "heat.yaml").write_text(NOT_YAML)
    assert owner.run().code == 0
    assert "agent-air" in owner.users


def test_an_empty_folder_takes_nobodys_credentials_away_and_is_told(owner: Owner) -> None:
    users, doors = owner.users, owner.doors
    for file in owner.agents.iterdir():
        file.unlink()
    (owner.agents / "._air.yaml").write_text("left behind by a copy: no owner's file")
    done = owner.run()
    assert done.code == 0
    assert f"warning: {owner.agents}: no agent file at all: is the volume mounted?" in done.err
    assert "kept are air, heat" in done.err
    assert "credentials of 2 agents" in done.out
    assert (owner.users, owner.doors) == (users, doors)
    owner.write("air")
    assert owner.run().err == ""
    assert "agent-heat" not in owner.users, "a file is the owner's word again"


def test_a_gateway_without_agents_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agents").mkdir()
    for _ in range(2):
        done = run(capsys, "credentials", "--folder", tmp_path / "made", "--agents", tmp_path / "agents")
        assert (done.code, done.err) == (0, "")


def test_no_folder_of_agents_is_an_error(owner: Owner) -> None:
    owner.agents.rename(owner.agents.with_name("elsewhere"))
    done = owner.run()
    assert done.code == 1
    assert "no such folder" in done.err
