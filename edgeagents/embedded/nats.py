"""The real nats-server as a child process: JetStream, users and permissions, an MQTT listener if wanted.

Source: NATS server configuration reference; field notes on brokers (`sync_interval: always`).
"""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeagents.adapters.leaf_nodes import linked_config, outgoing_passwords, settle_store
from edgeagents.adapters.nats_server import find_nats_server, user_entry, write_private
from edgeagents.model.gateways import Gateways
from edgeagents.permissions import Permissions

__all__ = ["find_nats_server", "write_config", "write_private"]

MAX_PAYLOAD_BYTES = 8 << 20
# What waits to be stored, of one stream, and does not fit is refused, and device services hear nothing of that.
WAITING = {"max_buffered_msgs": 10_000, "max_buffered_size": 64 << 20}


def write_config(
    folder: Path,
    port: int,
    users: Mapping[str, Permissions],
    *,
    mqtt_port: int | None = None,
    sync_always: bool = True,
    gateways: Gateways | None = None,
) -> tuple[Path, dict[str, Path]]:
    """Write a server configuration and one password file a user; return both. Bound to 127.0.0.1.

    Args:
        folder: where configuration, passwords and the JetStream store go; made private to the owner.
        port: NATS port.
        users: user name -> permissions; empty: no authorization.
        mqtt_port: of the MQTT listener; None: no listener.
        sync_always: acknowledge stored messages only once they are on disk.
        gateways: which peers it is linked to; those that come to us have their passwords in `peer-NAME.password`.
            None: none. The server must not run: its streams may have to be moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    passwords: dict[str, Path] = {}
    entries: list[dict[str, Any]] = []
    for user, permissions in users.items():
        path = passwords[user] = _password(folder, user)
        entries.append(user_entry(user, path.read_text().strip(), permissions))
    config: dict[str, Any] = {
        "server_name": "gateway",
        "listen": f"127.0.0.1:{port}",
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {"store_dir": str(folder / "jetstream"), **WAITING},
    }
    if sync_always:
        config["jetstream"]["sync_interval"] = "always"
    if entries:
        config["authorization"] = {"users": entries}
    if mqtt_port is not None:
        config["mqtt"] = {"listen": f"127.0.0.1:{mqtt_port}"}
    settle_store(folder / "jetstream", is_linked=gateways is not None)
    if gateways is not None:
        incoming = {peer: _password(folder, f"peer-{peer}").read_text().strip() for peer in gateways.coming}
        config = linked_config(config, entries, gateways, incoming, outgoing_passwords(gateways))
    path = folder / "nats-server.conf"
    # The server's configuration language is a superset of JSON.
    write_private(path, json.dumps(config, indent=1))
    return path, passwords


def _password(folder: Path, name: str) -> Path:
    """Return the file with somebody's password, made when it is not there."""
    path = folder / f"{name}.password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24) + "\n")
    return path
