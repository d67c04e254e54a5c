"""The gateway under load: that of `make demo`, with lines of machines for a house and an agent for each line.

core-data keeps no events: the embedded one shares its process with core-command, which EdgeX's does not.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from edgeagents.embedded.gateway import GATEWAY, Gateway, Plan
from edgeagents.embedded.supervisor import Child
from edgeagents.errors import UnavailableError
from tests.faults.rig import quiet_ports
from tests.load.machines import LINES, MACHINES, SCENARIO, line_name, machine_name

__all__ = ["GATEWAY", "LoadGateway", "agent_name", "plan_of"]

FIRES_FROM: Final = 100.0  # a machine's level from which its rule fires; what it sets is the level itself
NOTHING: Final[Mapping[str, str]] = {}
IMPORTED: Final = (
    "uvloop", "services.agent.app", "services.guard.app", "edgeagents.embedded.core", "tests.load.machines",
)  # fmt: skip
_OF_THE_DEMO: Final = ("EDGEAGENTS_WORLD_", "DEVICE_")


def agent_name(line: int) -> str:
    """Return the name of the agent of a line."""
    return f"line{line}"


def site_file(lines: int) -> dict[str, Any]:
    """Return the owner's site file: what may be set on each line."""
    return {
        "resources": [
            {"profile": line_name(line), "resource": "Setpoint", "risk_class": "A", "kind": "absolute",
             "proof": {"resource": "Setpoint", "tolerance": 0.001, "wait": "5s"}, "stand_back": "0s"}
            for line in range(lines)
        ]
    }  # fmt: skip


def agent_file(line: int, machines: int) -> dict[str, Any]:
    """Return the agent of a line: a rule for each of its machines."""
    return {
        "name": agent_name(line), "mode": "act", "priority": "comfort",
        "watches": [{"profile": line_name(line), "resources": ["Level"]}],
        "goals": {"high": FIRES_FROM},
        "rules": [{
            "name": "high-{machine}", "for_each": {"machine": [machine_name(line, item) for item in range(machines)]},
            "given": {"level": "{machine}/Level"}, "when": "level >= goals.high",
            "set": {"device": "{machine}", "resource": "Setpoint", "value": "=level"}, "because": "level {level}",
        }],
        "may": [{"profile": line_name(line), "resource": "Setpoint"}],
        "ttl": "60s",
    }  # fmt: skip


def as_in_an_image(folder: Path) -> dict[str, str]:
    """Return an environment in which all that services import is compiled already, whatever ours says; compiles it."""
    prefix = os.environ.get("PYTHONPYCACHEPREFIX") or str(folder / "compiled")
    environ = {"PYTHONPYCACHEPREFIX": prefix, "PYTHONDONTWRITEBYTECODE": ""}
    words = [sys.executable, "-c", f"import {', '.join(IMPORTED)}"]
    subprocess.run(words, env={**os.environ, **environ}, check=True)
    return environ


def plan_of(folder: Path, lines: int, machines: int, environ: Mapping[str, str] = NOTHING) -> Plan:
    """Return what to run in a folder; writes the owner's files there.

    Args:
        folder: for all it keeps.
        lines: how many, each with an agent.
        machines: on each line.
        environ: of every process, in place of ours.
    """
    owner = folder / "owner"
    (owner / "agents").mkdir(parents=True)
    (owner / "site.yaml").write_text(yaml.safe_dump(site_file(lines)))
    for line in range(lines):
        (owner / "agents" / f"{agent_name(line)}.yaml").write_text(yaml.safe_dump(agent_file(line, machines)))

    def adapt(child: Child) -> Child:
        own = {name: value for name, value in child.env.items() if not name.startswith(_OF_THE_DEMO)} | environ
        if child.name != "world":
            return replace(child, env=own)
        command = [sys.executable, "-m", "tests.load.machines"]
        return replace(child, command=command, env={**own, LINES: str(lines), MACHINES: str(machines)})

    return Plan(folder, owner, 1.0, time.time(), scenario=SCENARIO, ports=quiet_ports(), adapt=adapt)


@dataclass(slots=True)
class LoadGateway(Gateway):
    """The demo's gateway, with machines in place of the house."""

    devices: int = 0

    async def come_up(self, timeout_s: float) -> None:
        """Wait until all agents have a session and all machines are known; then core-data keeps no events.

        Raises:
            UnavailableError: something did not come up; its last words are told.
        """
        await self.ready(timeout_s)
        url = f"{self.url('keeper')}/api/v3/kvs/key/edgex/v4/core-data/Writable/PersistData"
        (await self.http.put(url, json={"value": "false"})).raise_for_status()

    async def only_agents_missing(self, timeout_s: float) -> list[Child]:
        """Start all but the agents, wait until the machines are known, and return the agents to be started.

        Raises:
            UnavailableError: the machines did not become known.
        """
        children = self.prepare()
        agents = [child for name, child in children.items() if name.startswith("agent-")]
        for child in children.values():
            if child not in agents:
                self.supervisor.start(child)
        until_s = time.monotonic() + timeout_s
        while True:
            missing = await self._missing_machines()
            if not missing:
                return agents
            if time.monotonic() > until_s:
                raise UnavailableError(f"not up in {timeout_s:g} s: {missing}")
            await asyncio.sleep(0.2)

    async def _missing_machines(self) -> str:
        """Return what is missing of guard, metadata and machines."""
        try:
            await self._get(f"{self.url('guard')}/api/v3/guard")
            known = (await self._get(f"{self.url('metadata')}/api/v3/device/all?limit=1")).get("totalCount", 0)
        except UnavailableError as error:
            return str(error)
        return "" if known >= self.devices else f"world: {known} of {self.devices} machines in core-metadata"

    async def _missing(self) -> str:
        try:
            sessions = set((await self._get(f"{self.url('guard')}/api/v3/guard")).get("sessions", []))
        except UnavailableError as error:
            return str(error)
        missing = [name for name in self.running if name not in sessions]
        if missing:
            return f"agent-{missing[0]}: no session with the guard ({len(missing)} of {len(self.running)} have none)"
        return await self._missing_machines()
