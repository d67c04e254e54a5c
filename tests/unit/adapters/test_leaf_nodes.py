"""What nats-server is told of peers, where a store's streams lie, and what is wrong with an owner's file."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from edgeagents.adapters.leaf_nodes import (
    ACCOUNT,
    CLIENTS,
    gateways_if_any,
    linked_config,
    load_gateways,
    outgoing_passwords,
    settle_store,
)
from edgeagents.errors import ConfigurationError
from edgeagents.model.gateways import Gateways

PLAIN = {"jetstream": {"store_dir": "/s"}, "authorization": {"users": []}, "max_payload": 5}
USERS = [{"user": "owner", "password": "p"}]
TLS = {"certificate": "/c.pem", "key": "/k.pem", "ca": "/ca.pem"}
GATEWAYS = Gateways.model_validate(
    {
        "gateway": "north gate",
        "listen": {"host": "10.0.0.1", "port": 7000, "tls": TLS},
        "peers": {
            "south": {"cross": ["acts"], "mirrors": ["audit"]},
            "hub": {"address": "tls://hub:7422", "password_file": "hub.password", "tls": {"ca": "/hub.pem"},
                    "keeps": ["edgex-events"]},
        },
    }
)  # fmt: skip


def told() -> dict[str, Any]:
    return linked_config(PLAIN, USERS, GATEWAYS, {"south": "s"}, {"hub": SecretStr("p@ss/:")})


def test_each_peer_ends_in_an_account_of_its_own_that_holds_no_streams() -> None:
    found = told()
    assert set(found["accounts"]) == {"peer-south", "peer-hub", ACCOUNT, "SYS"}
    assert [name for name, account in found["accounts"].items() if account.get("jetstream")] == [ACCOUNT]
    assert (found["jetstream"]["domain"], found["server_name"]) == ("=bm9ydGggZ2F0ZQ", "=bm9ydGggZ2F0ZQ")
    assert "authorization" not in found
    assert found["accounts"][ACCOUNT]["users"] == [{**USERS[0], "allowed_connection_types": list(CLIENTS)}]


def test_only_named_subjects_join_the_accounts() -> None:
    north, south = "=bm9ydGggZ2F0ZQ", told()["accounts"]["peer-south"]
    consumer = f"audit.mirror-{north}-south"
    assert south["exports"] == [{"stream": f"{north}.acts.*.south.*", "accounts": [ACCOUNT]}]
    services = [item["service"]["subject"] for item in south["imports"] if "service" in item]
    streams = [item["stream"]["subject"] for item in south["imports"] if "stream" in item]
    assert streams == [f"south.acts.*.{north}.*", f"{north}.mirrors.south.audit"]
    assert services == [f"$JS.API.CONSUMER.RESET.{consumer}", f"$JS.FC.{consumer}.*"]


def test_who_comes_has_a_user_for_leaf_nodes_alone_and_who_we_go_to_has_none() -> None:
    accounts = told()["accounts"]
    assert accounts["peer-south"]["users"] == [
        {"user": "gateway-south", "password": "s", "allowed_connection_types": ["LEAFNODE"]}
    ]
    assert accounts["peer-hub"]["users"] == []


def test_listener_and_links_are_where_the_owner_says_and_nowhere_else() -> None:
    found = told()["leafnodes"]
    assert (found["listen"], found["no_advertise"]) == ("10.0.0.1:7000", True)
    assert found["tls"] == {"cert_file": "/c.pem", "key_file": "/k.pem", "ca_file": "/ca.pem", "verify": True}
    assert found["remotes"] == [
        {
            "urls": ["tls://gateway-north%20gate:p%40ss%2F%3A@hub:7422"], "account": "peer-hub",
            "ignore_discovered_servers": True, "tls": {"ca_file": "/hub.pem"},
        }
    ]  # fmt: skip


def test_a_file_of_another_gateway_and_a_missing_password_are_told(tmp_path: Path) -> None:
    path = tmp_path / "gateways.yaml"
    assert gateways_if_any(path, "north") is None
    assert gateways_if_any(None, "north") is None
    path.write_text("gateway: north\npeers: {hub: {address: 'tls://hub', password_file: hub.password}}\n")
    with pytest.raises(ConfigurationError, match="it is of gateway 'north', and this one is called 'south'"):
        load_gateways(path, "south")
    found = load_gateways(path, "north")
    assert found.peers["hub"].password_file == tmp_path / "hub.password"
    with pytest.raises(ConfigurationError, match="peer hub: secret file"):
        outgoing_passwords(found)
    (tmp_path / "hub.password").write_text("x\n")
    assert outgoing_passwords(found) == {"hub": SecretStr("x")}


def test_streams_follow_when_peers_come_and_go(tmp_path: Path) -> None:
    stored = tmp_path / "jetstream" / "$G" / "streams" / "audit" / "1.blk"
    stored.parent.mkdir(parents=True)
    stored.write_text("x")
    assert not settle_store(tmp_path, is_linked=False)
    (tmp_path / "jetstream" / ACCOUNT / "streams").mkdir(parents=True)  # what an empty account leaves
    assert settle_store(tmp_path, is_linked=True)
    assert [path.relative_to(tmp_path / "jetstream").parts[0] for path in tmp_path.rglob("*.blk")] == [ACCOUNT]
    assert settle_store(tmp_path, is_linked=False)
    assert stored.read_text() == "x"


def test_streams_in_both_places_are_left_alone_and_told(tmp_path: Path) -> None:
    for account in ("$G", ACCOUNT):
        path = tmp_path / "jetstream" / account / "1.blk"
        path.parent.mkdir(parents=True)
        path.write_text(account)
    with pytest.raises(ConfigurationError, match="keep the ones you want"):
        settle_store(tmp_path, is_linked=True)
    assert len(list(tmp_path.rglob("*.blk"))) == 2
