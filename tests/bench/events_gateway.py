"""The gateway that `events.py` measures: broker with users, embedded core, guard, machines, one agent, maybe a peer.

It is the gateway of `make demo` with other devices and an MQTT listener for the peer. core-data keeps no events: it
shares its process with core-command here, which it does not on a gateway with the official services. In place of the
embedded core there may be an EdgeX that runs already, whose services take our MQTT listener for their bus: commands
then go through its core-command. The machines are taken out of its core-metadata at the end.
"""

import contextlib
import json
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from edgeagents.embedded.gateway import GATEWAY, PREFERRED_PORTS, Gateway, Plan
from edgeagents.embedded.supervisor import Child
from edgeagents.errors import UnavailableError
from tests.bench.events_devices import COUNT, KEY, PROFILE, names

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


def plan_of(folder: Path, count: int, environ: dict[str, str], site_start_s: float, mqtt_port: int = 1883) -> Plan:
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

    ports = {**PREFERRED_PORTS, "mqtt": mqtt_port}
    return Plan(folder, folder, 1.0, site_start_s, scenario="bench", ports=ports, adapt=adapt)


@dataclass(slots=True)
class BenchGateway(Gateway):
    """The demo's gateway, with machines in place of the house, an MQTT listener, and a peer.

    Args:
        keeper: address of an EdgeX that runs, in place of the embedded core.
        count: of machines.
    """

    keeper: str = ""
    count: int = 0

    def prepare(self) -> dict[str, Child]:
        """As the demo's, and a door for EdgeX services that speak MQTT.

        Raises:
            UnavailableError: there is no EdgeX at `keeper`.
        """
        children = Gateway.prepare(self)
        if self.keeper:
            del children["core"]
            own = {"EDGEX_CONFIG_PROVIDER": f"keeper.{self.keeper}"}
            children = {name: replace(child, env={**child.env, **own}) for name, child in children.items()}
            for name, key in {"guard": "app-guard", "world": KEY}.items():
                port = self._known(f"kvs/key/edgex/v4/{key}/Service/Port?plaintext=true", "response", "value")
                self.ports[name] = int(port) if port else self.ports[name]  # of a former run: it counts more than ours
        path = self.plan.folder / "nats" / "nats-server.conf"
        config = json.loads(path.read_text())
        config["mqtt"] = {"listen": f"127.0.0.1:{self.ports['mqtt']}", "no_auth_user": "edgex"}
        path.write_text(json.dumps(config))
        return children

    async def come_up(self, devices: int, timeout_s: float = 90.0) -> None:
        """Wait until the agent has its session and the machines are known; then no events are kept by core-data."""
        await self.ready(timeout_s)
        if self.keeper:
            return  # what its core-data keeps is its owner's to say
        url = f"{self.url('keeper')}/api/v3/kvs/key/edgex/v4/core-data/Writable/PersistData"
        (await self.http.put(url, json={"value": "false"})).raise_for_status()

    def start_peer(self, options: PeerOptions) -> None:
        """Start the peer; `BENCH_MQTT_PORT`, `BENCH_KEEPER_PORT` and `BENCH_NATS_PORT` tell it where."""
        environ = {f"BENCH_{name.upper()}_PORT": str(self.ports[name]) for name in ("mqtt", "keeper", "nats")}
        self.supervisor.start(Child(PEER, shlex.split(options.command), environ))

    def url(self, service: str) -> str:
        """Return the base address of a service."""
        if not self.keeper or service in ("guard", "world"):
            return Gateway.url(self, service)
        if service == "keeper":
            return self.keeper
        found = self._known(f"registry/serviceId/core-{service}", "registration") or {}
        return f"http://{found.get('host')}:{found.get('port')}"

    def _known(self, path: str, *keys: str) -> Any:
        """Return what keeper says, None if it knows of no such thing.

        Raises:
            UnavailableError: it cannot be reached.
        """
        try:
            answer = httpx.get(f"{self.keeper}/api/v3/{path}", timeout=5.0)
        except httpx.HTTPError as error:
            raise UnavailableError(f"no EdgeX at {self.keeper}: {error}") from error
        found: Any = answer.json() if answer.status_code == httpx.codes.OK else None
        for key in keys:
            found = found[0] if isinstance(found, list) and found else found
            found = found.get(key) if isinstance(found, dict) else None
        return found

    async def stop(self) -> None:
        """End all processes; take the machines out of an EdgeX that goes on."""
        if self.keeper:
            paths = [*(f"device/name/{name}" for name in names(self.count)), f"deviceprofile/name/{PROFILE.name}"]
            with contextlib.suppress(httpx.HTTPError, UnavailableError):  # it has gone: our processes end all the same
                metadata = self.url("metadata")
                for path in [*paths, f"deviceservice/name/{KEY}"]:
                    await self.http.delete(f"{metadata}/api/v3/{path}")
        await Gateway.stop(self)

    async def sets(self) -> list[tuple[float, int]]:
        """Return what the machines were set to since the last call: value and wall nanoseconds."""
        return [(float(value), int(at_ns)) for value, at_ns in (await self._get(f"{self.url('world')}/sets"))["sets"]]

    async def _missing(self) -> str:
        try:
            sessions = (await self._get(f"{self.url('guard')}/api/v3/guard")).get("sessions", [])
            devices = await self._get(f"{self.url('metadata')}/api/v3/device/service/name/{KEY}")
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
