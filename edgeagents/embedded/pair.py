"""Two gateways on this machine, linked as two in different places would be: by leaf nodes, a password, an allow-list.

    north, south = linked(plan_of_north, plan_of_south)
    north.start(); south.start()

Each keeps all of its own in its folder, with the `gateways.yaml` that its owner would have written.

Source: design.md section 7; docs/gateways.md.
"""

import secrets
from dataclasses import replace
from typing import Any, Final

import yaml

from edgeagents.adapters.nats_server import write_private
from edgeagents.adapters.ports import free_port
from edgeagents.embedded.gateway import Gateway, Plan

FILE: Final = "gateways.yaml"


def linked(listening: Plan, going: Plan, host: str = "127.0.0.1") -> tuple[Gateway, Gateway]:
    """Return two gateways of which the second goes to the first; nothing runs yet.

    Files that are there already stay: so a pair comes up again as it was.

    Args:
        listening: where the other comes in.
        going: the one that opens the link.
        host: the address, of the listening side, at which they meet.
    """
    taken: set[int] = set()
    port, password = _port(taken), secrets.token_urlsafe(24)
    peer = f"{going.gateway}.password"
    _write(listening, {"listen": {"host": host, "port": port}, "peers": {going.gateway: {}}})
    broker = listening.folder / "nats" / f"peer-{peer}"
    broker.parent.mkdir(parents=True, exist_ok=True)
    if not broker.exists():
        write_private(broker, password + "\n")
    given = going.folder / f"{listening.gateway}.password"
    entry = {"address": f"nats-leaf://{host}:{port}", "password_file": given.name}
    _write(going, {"peers": {listening.gateway: entry}})
    write_private(given, broker.read_text())
    return Gateway(_with_file(listening, taken)), Gateway(_with_file(going, taken))


def _write(plan: Plan, content: dict[str, Any]) -> None:
    plan.folder.mkdir(parents=True, exist_ok=True)
    path = plan.folder / FILE
    if not path.exists():
        path.write_text(yaml.safe_dump({"gateway": plan.gateway, **content}, sort_keys=False))


def _with_file(plan: Plan, taken: set[int]) -> Plan:
    # The second of a pair chooses its ports before the first listens on those that both prefer.
    return replace(plan, gateways_file=plan.folder / FILE, ports={name: _port(taken) for name in plan.ports})


def _port(taken: set[int]) -> int:
    """Return a port that is free now and that neither of the pair has chosen, and note it."""
    port = free_port(taken=taken)
    taken.add(port)
    return port
