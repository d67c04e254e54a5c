"""The gateway that `events.py` measures: broker with users, embedded core, guard, machines, one agent, maybe a peer.

It is the gateway of `make demo` with other devices and an MQTT listener for the peer. core-data keeps no events: it
shares its process with core-command here, which it does not on a gateway with the official services.
"""

import json
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from edgeagents.embedded.gateway import GATEWAY, PREFERRED_PORTS, Gateway, Plan
from edgeagents.embedded.supervisor import Child
from edgeagents.errors import UnavailableError
from tests.bench.events_devices import COUNT, PROFILE, names

__all__ = ["AGENT", "GATEWAY", "BenchGateway", "PeerOptions", "plan_of"]

AGENT: Final = "bench"
PEER: Final = "peer"
_OF_THE_DEMO: Final = ("EDGEAGENTS_WORLD_", "DEVICE_", "EDGEAGENTS_JOURNAL_")
FIRES_FROM: Final = 100.0  # a machine's level from which the rule fires; what it sets is the level itself
SITE: Final[dict[str, Any]] = {
    "resources": [
        {"profile": PROFILE.name, "resource": "Setpoint", "risk_class": "A", "kind": "absolute",
         "proof": {"resource": "Setpoint", "tolerance": 0.001, "wait": "2s"}, "stand_back": "0s"},
    ],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Another service to measure beside the agent.

    Args:
        topic: where it publishes what it made of an event.
        events: where it hears events, below the base; the agent hears others, so that each is idle in the other's turn.
        command: what starts it, a shell's words; empty: it runs already, or waits for our ports.
    """

    topic: str
    events: str
    command: str = ""


def agent_file(count: int) -> dict[str, Any]:
    """Return the agent: one rule, the same for each machine."""
    return {
        "name": AGENT, "mode": "act", "priority": "comfort",
        "watches": [{"profile": PROFILE.name, "resources": ["Level"]}],
        "goals": {"high": FIRES_FROM},
        "rules": [{
            "name": "high-{machine}", "for_each": {"machine": names(count)}, "given": {"level": "{machine}/Level"},
            "when": "level >= goals.high",
            "set": {"device": "{machine}", "resource": "Setpoint", "value": "=level"}, "because": "level {level}",
        }],
        "may": [{"profile": PROFILE.name, "resource": "Setpoint"}],
        "ttl": "30s",
    }  # fmt: skip


def plan_of(folder: Path, count: int, environ: dict[str, str], site_start_s: float) -> Plan:
    """Return what to run in a folder, with so many machines; writes the owner's files there."""
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(yaml.safe_dump(SITE))
    (folder / "agents" / f"{AGENT}.yaml").write_text(yaml.safe_dump(agent_file(count)))

    def adapt(child: Child) -> Child:
        known = {name: value for name, value in child.env.items() if not name.startswith(_OF_THE_DEMO)}
        if child.name != "world":
            return replace(child, env={**known, **environ})
        command = [sys.executable, "-m", "tests.bench.events_devices"]
        return replace(child, command=command, env={**known, COUNT: str(count)})

    ports = {**PREFERRED_PORTS, "mqtt": 1883}
    return Plan(folder, folder, 1.0, site_start_s, scenario="bench", ports=ports, adapt=adapt)


class BenchGateway(Gateway):
    """The demo's gateway, with machines in place of the house, an MQTT listener, and a peer."""

    def prepare(self) -> dict[str, Child]:
        """As the demo's, and a door for EdgeX services that speak MQTT."""
        children = super().prepare()
        path = self.plan.folder / "nats" / "nats-server.conf"
        config = json.loads(path.read_text())
        config["mqtt"] = {"listen": f"127.0.0.1:{self.ports['mqtt']}", "no_auth_user": "edgex"}
        path.write_text(json.dumps(config))
        return children

    async def come_up(self, devices: int, timeout_s: float = 90.0) -> None:
        """Wait until the agent has its session and the machines are known; then no events are kept by core-data."""
        await self.ready(timeout_s)
        url = f"{self.url('keeper')}/api/v3/kvs/key/edgex/v4/core-data/Writable/PersistData"
        (await self.http.put(url, json={"value": "false"})).raise_for_status()

    def start_peer(self, options: PeerOptions) -> None:
        """Start the peer; `BENCH_MQTT_PORT`, `BENCH_KEEPER_PORT` and `BENCH_NATS_PORT` tell it where."""
        environ = {f"BENCH_{name.upper()}_PORT": str(self.ports[name]) for name in ("mqtt", "keeper", "nats")}
        self.supervisor.start(Child(PEER, shlex.split(options.command), environ))

    async def sets(self) -> list[tuple[float, int]]:
        """Return what the machines were set to since the last call: value and wall nanoseconds."""
        return [(float(value), int(at_ns)) for value, at_ns in (await self._get(f"{self.url('world')}/sets"))["sets"]]

    async def _missing(self) -> str:
        try:
            sessions = (await self._get(f"{self.url('guard')}/api/v3/guard")).get("sessions", [])
            devices = await self._get(f"{self.url('metadata')}/api/v3/device/all?limit=1000")
            urls = await self.agent_urls()
            agent = await self._get(f"{urls[AGENT]}/api/v3/agent") if urls else {}
        except UnavailableError as error:
            return str(error)
        if AGENT not in sessions or agent.get("mode") != "act":
            return f"agent-{AGENT}: no session with the guard"
        return "" if devices.get("totalCount") else "world: no machines in core-metadata"


def usage(pid: int) -> tuple[float, int, int]:
    """Return of one process: CPU seconds so far, resident bytes, and bytes that are its own alone.

    Source: proc(5), `stat` and `smaps_rollup`.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024
    return cpu_s, sizes["Rss"], sizes["Private_Clean"] + sizes["Private_Dirty"]
