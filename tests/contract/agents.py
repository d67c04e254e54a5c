"""Our services as processes of their own beside an EdgeX: what has to be shown from outside is shown on them.

An agent without a guard beside it has no session: it decides nothing and leaves no trace in the broker.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from edgeagents.adapters.config import merge
from tests.contract.edgex import Edgex
from tests.contract.running import own_service_section
from tests.contract.waiting import until
from tests.nats import free_port

START_S = 30.0
STOP_S = 15.0


@dataclass
class AgentProcess:
    """A running agent, or a guard."""

    key: str
    url: str
    log: Path
    _process: asyncio.subprocess.Process
    _http: httpx.AsyncClient

    async def ask(self, method: str, path: str, body: Any = None, content: str | None = None) -> httpx.Response:
        """Return its answer to a request below `/api/v3`."""
        given: dict[str, Any] = {"json": body} if content is None and body is not None else {"content": content}
        return await self._http.request(method, f"{self.url}/api/v3{path}", **given)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def terminate(self) -> int:
        """Send SIGTERM; return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_S):
            return await self._process.wait()


@asynccontextmanager
async def running_agent(
    edgex: Edgex, nats_url: str, folder: Path, profile: str, config: Mapping[str, Any] | None = None
) -> AsyncIterator[AgentProcess]:
    """Run an agent that watches devices of a profile while the context is open.

    Args:
        edgex: beside which it runs.
        nats_url: its broker.
        folder: for its files and its log.
        profile: of the devices that it watches.
        config: its own part of the configuration.
    """
    name = edgex.name("agent")
    file = write_agent(folder, {"name": name, "watches": [{"profile": profile}]})
    own = {"EDGEAGENTS_AGENT_FILE": str(file)}
    async with running_process(edgex, nats_url, folder, "agent", f"app-agent-{name}", own, config) as started:
        yield started


def write_agent(folder: Path, definition: Mapping[str, Any]) -> Path:
    """Write an agent's file into a folder; return its path."""
    file = folder / f"{definition['name']}.yaml"
    file.write_text(json.dumps(definition))  # JSON is YAML
    return file


@asynccontextmanager
async def running_process(
    edgex: Edgex, nats_url: str, folder: Path, service: str, key: str, environ: Mapping[str, str],
    config: Mapping[str, Any] | None = None,
) -> AsyncIterator[AgentProcess]:  # fmt: skip
    """Run a service of ours while the context is open.

    Args:
        edgex: beside which it runs.
        nats_url: its broker.
        folder: for its configuration and its log.
        service: `agent`, `guard` or `coordinator`.
        key: its service key.
        environ: its own variables.
        config: its own part of the configuration.
    """
    log_path = folder / f"{key}.log"
    (folder / key).mkdir()
    own = merge({"Service": own_service_section(edgex) | {"Port": free_port()}}, config or {})
    (folder / key / "configuration.yaml").write_text(json.dumps(own))
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{service}", *_flags(edgex), f"-cd={folder / key}",
            env=_environ(edgex, nats_url) | dict(environ), stderr=log,
        )  # fmt: skip
    try:
        url = f"http://{edgex.target.host}:{own['Service']['Port']}"
        started = AgentProcess(key, url, log_path, process, edgex.http)
        await until(lambda: _answers(edgex, started), f"{key} starts (see {log_path})", timeout_s=START_S)
        yield started
    finally:
        if process.returncode is None:
            await started.terminate()


def _flags(edgex: Edgex) -> list[str]:
    provider = edgex.target.keeper_url.replace("http://", "keeper.http://")
    hosts = (edgex.target.host, edgex.other_host, edgex.target.bind)
    return [f"-cp={provider}", "-r", *([f"-rsh={','.join(hosts)}"] if edgex.other_host else [])]


def _environ(edgex: Edgex, nats_url: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEAGENTS_", "EDGEX_"))}
    settings = edgex.target.settings(nats_url)
    own = {
        f"EDGEAGENTS_{name.upper()}": str(getattr(settings, name))
        for name in ("gateway", "nats_url", "edgex_bus", "edgex_format", "edgex_base")
    }
    return clean | own | {"EDGEX_SECURITY_SECRET_STORE": "false"}


async def _answers(edgex: Edgex, agent: AgentProcess) -> bool:
    assert agent._process.returncode is None, agent.log.read_text()[-3000:]
    known = {item.service_id for item in await edgex.keeper.registrations()}
    if agent.key not in known:
        return False
    return (await agent.ask("GET", "/ping")).status_code == 200
