"""What nats-server is told in a container."""

from pathlib import Path

import pytest

from edgeagents.embedded.broker import BrokerSettings, main, server_config
from edgeagents.embedded.full_store import FullStore
from edgeagents.embedded.nats import MAX_PAYLOAD_BYTES, WAITING

USERS = [{"user": "edgex", "password": "p"}]


def test_everything_stored_is_on_disk_before_it_is_acknowledged_and_users_are_demanded() -> None:
    found = server_config(BrokerSettings(users_file=Path("users.json"), store=Path("/state/jetstream")), USERS)
    assert found["jetstream"] == {"store_dir": "/state/jetstream", "sync_interval": "always", **WAITING}
    assert found["authorization"] == {"users": USERS}
    assert found["max_payload"] == MAX_PAYLOAD_BYTES
    assert found["http"].startswith("127.0.0.1:"), "the monitoring page is for the health check alone"
    assert "mqtt" not in found


def test_mqtt_listens_where_it_is_told_and_nowhere_else() -> None:
    settings = BrokerSettings(users_file=Path("users.json"), mqtt_host="edgex-mqtt-broker", store_bytes=5)
    found = server_config(settings, USERS)
    assert found["mqtt"] == {"host": "edgex-mqtt-broker", "port": 1883, "no_auth_user": "edgex"}
    assert found["jetstream"]["max_file_store"] == 5


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "EDGEAGENTS_BROKER_USERS_FILE"),
        ({"EDGEAGENTS_BROKER_USERS_FILE": "nothing-here.json"}, "nothing-here.json"),
        ({"EDGEAGENTS_BROKER_USERS_FILE": "x", "EDGEAGENTS_BROKER_PORT": "0"}, "EDGEAGENTS_BROKER_PORT"),
        ({"EDGEAGENTS_BROKER_MQTTHOST": "x"}, "EDGEAGENTS_BROKER_MQTT_HOST"),
    ],
)
def test_what_cannot_work_is_told_by_name(
    environ: dict[str, str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main() == 1
    assert told in caplog.text


def test_a_broker_that_met_a_full_disk_is_started_again_once_there_is_room(tmp_path: Path) -> None:
    full = FullStore(Path("/dev/null"), tmp_path)
    assert not full.heard(b"[INF] Server is ready\n")
    assert full.heard(b"[ERR] write: no space left on device\n"), "here is room"
    assert not full.heard(b""), "once is enough"
    nowhere = FullStore(Path("/dev/null"), tmp_path / "gone")
    assert not nowhere.heard(b"no space left on device"), "not before there is room"
