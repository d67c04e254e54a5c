"""A coordinator process beside a broker, an embedded core with valves, and agents that tests play (`bidders.py`)."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from services.guard.streams import ensure_tasks
from tests.contract.waiting import until
from tests.embedded_core import EmbeddedCore
from tests.guarded import agent_file
from tests.nats import NatsServer, free_port
from tests.services import START_S, ServiceProcess
from tests.valves import KEY, NAMES

SKILLED = {"skills": [{"name": "set"}, {"name": "warm", "set": {
    "device": "{device}", "resource": "Setpoint", "value": "{degrees}"}}]}  # fmt: skip


class Coordinated:
    """Broker, core, valves and coordinator; `coordinator` is killed and started by tests as they like."""

    def __init__(self, folder: Path, agents: Sequence[str], **environ: str) -> None:
        """Start broker, core and valves; `agents` are those the owner wrote files for, `environ` is coordinators'."""
        self.folder, self._environ = folder, environ
        for name in ("nats", "agents"):
            (folder / name).mkdir()
        self.nats = NatsServer(folder / "nats")
        self.nats.start()
        for name in agents:
            (folder / "agents" / f"{name}.yaml").write_text(yaml.safe_dump(agent_file(name, **SKILLED)))
        self.core = EmbeddedCore(folder / "core", self.nats.url).start()
        self.valves = ServiceProcess("tests.valves", KEY, self.core, self.nats.url, folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.coordinator: ServiceProcess | None = None

    def spawn(self, **environ: str) -> ServiceProcess:
        """Start a coordinator, not waiting for it."""
        own = {
            "EDGEAGENTS_GATEWAY": "gw", "SERVICE_PORT": str(self.port),
            "EDGEAGENTS_COORDINATOR_AGENTS_DIR": str(self.folder / "agents"),
            "EDGEAGENTS_COORDINATOR_BID_S": "0.5", "EDGEAGENTS_COORDINATOR_TAKE_S": "6",
        }  # fmt: skip
        key = environ.get("EDGEX_SERVICE_KEY", "app-coordinator")  # two at once write a log each
        self.coordinator = ServiceProcess(
            "services.coordinator", key, self.core, self.nats.url, self.folder,
            environ=own | self._environ | environ,
        )  # fmt: skip
        return self.coordinator

    def kill(self) -> None:
        """End the coordinator as a power cut would."""
        if self.coordinator is not None:
            self.coordinator.kill()
            self.coordinator = None

    def stop(self) -> None:
        """End everything."""
        self.kill()
        self.valves.kill()
        self.core.kill()
        self.nats.kill()


class Owner:
    """Who gives tasks and looks at them."""

    def __init__(self, gateway: Coordinated, bus: Bus, http: httpx.AsyncClient) -> None:
        self.gateway, self.bus, self.http = gateway, bus, http

    async def up(self, agents: int = 0) -> None:
        """Have a coordinator run, and wait until it serves and knows so many agents."""
        if self.gateway.coordinator is None:
            self.gateway.spawn()
        await ensure_tasks(self.bus)  # as the guard does

        async def serves() -> bool:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                found = (await self.http.get(f"{self.gateway.url}/api/v3/coordinator")).json()
                return bool(found.get("isServing")) and found["agents"] >= agents
            return False

        await until(serves, "the coordinator serves", timeout_s=START_S)

    async def give(self, **task: Any) -> httpx.Response:
        """Give a task over HTTP."""
        body = {"skill": "set", "deviceName": "valve-1", "resourceName": "Setpoint", "value": 21.0, "deadlineS": 60}
        return await self.http.post(f"{self.gateway.url}/api/v3/task", json={"apiVersion": "v3", "task": body | task})

    async def task(self, name: str) -> dict[str, Any]:
        """Return where a task stands."""
        found: dict[str, Any] = (await self.http.get(f"{self.gateway.url}/api/v3/task/id/{name}")).json()["task"]
        return found

    async def ended(self, name: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return a task once it has ended."""
        found: dict[str, Any] = {}

        async def has_ended() -> bool:
            nonlocal found
            with contextlib.suppress(httpx.HTTPError, KeyError):
                found = await self.task(name)
            return found.get("state") in ("done", "failed", "cancelled")

        await until(has_ended, f"task {name} ends", timeout_s=timeout_s)
        return found

    async def stands(self, name: str, state: str) -> None:
        """Wait until a task is in a state."""

        async def is_so() -> bool:
            return bool((await self.task(name))["state"] == state)

        await until(is_so, f"task {name} is {state}", timeout_s=60)

    async def counts(self) -> dict[str, int]:
        """Return what the coordinator counts."""
        found: dict[str, int] = (await self.http.get(f"{self.gateway.url}/api/v3/coordinator")).json()["counts"]
        return found


@contextlib.asynccontextmanager
async def owner_of(gateway: Coordinated) -> AsyncIterator[Owner]:
    """Yield who gives tasks, once the valves are known."""
    bus = await Bus.connect(gateway.nats.settings(), "test")
    try:
        await bus.ensure_stream(subjects.AUDIT_STREAM, [subjects.audits("gw")])
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:

            async def all_known() -> bool:
                url = f"{gateway.core.urls['metadata']}/api/v3/device/all?limit=100"
                return len((await http.get(url)).json().get("devices") or []) >= len(NAMES)

            await until(all_known, "the valves are in core-metadata", timeout_s=START_S)
            yield Owner(gateway, bus, http)
    finally:  # whatever failed: a connection that is left open fails a later test
        await bus.close()
