"""A rule engine beside the EdgeX under test: eKuiper's REST interface, and an agent with a guard that its rules reach.

Guard and agent have a nats-server of their own, which only hears what EdgeX says: their streams are not for a broker
that is somebody else's. Commands go to core-command by REST, as on any gateway.

Source: eKuiper 2.x, REST API: streams, rules; docs/rules.md.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from nats.aio.client import Client
from nats.aio.msg import Msg

from edgeagents import subjects
from tests.contract.agents import AgentProcess, running_process, write_agent
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab
from tests.contract.waiting import until
from tests.nats import NatsServer

BY_REST, BY_BUS = "Uint8", "Uint16"  # what the agent sets for a rule that came the one way or the other
SOURCE = "Int16"  # what rules select


class Ekuiper:
    """A running eKuiper."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        """Speak to eKuiper at `url`."""
        self.url = url.rstrip("/")
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Return its answer to a request."""
        return await self._http.request(method, f"{self.url}{path}", json=body, timeout=10.0)

    @asynccontextmanager
    async def stream(self, name: str) -> AsyncIterator[str]:
        """Have a stream of EdgeX's events, as the UI's template makes one, while the context is open."""
        sql = f'CREATE STREAM {name} () WITH (FORMAT="JSON", TYPE="edgex")'
        made = await self.ask("POST", "/streams", {"sql": sql})
        assert made.status_code == 201, made.text
        try:
            yield name
        finally:
            await self.ask("DELETE", f"/streams/{name}")

    @asynccontextmanager
    async def rule(self, name: str, sql: str, sink: Mapping[str, Any]) -> AsyncIterator[str]:
        """Have a rule run while the context is open; it is there no more afterwards."""
        made = await self.ask("POST", "/rules", {"id": name, "sql": sql, "actions": [sink]})
        assert made.status_code == 201, made.text
        try:
            await until(lambda: self._runs(name), f"rule {name} runs")
            yield name
        finally:
            await self.ask("DELETE", f"/rules/{name}")
        assert (await self.ask("GET", f"/rules/{name}")).status_code == 404

    async def status(self, name: str) -> dict[str, Any]:
        """Return how a rule does."""
        found: dict[str, Any] = (await self.ask("GET", f"/rules/{name}/status")).json()
        return found

    async def _runs(self, name: str) -> bool:
        return (await self.status(name))["status"] == "running"


@dataclass(frozen=True, slots=True)
class Reached:
    """An agent that commands a device as rules say, with the guard that carries its commands out."""

    agent: AgentProcess
    device: str
    said: str  # the device name that events of rules on the bus have
    bus: Mapping[str, Any]  # where eKuiper finds EdgeX's message bus
    nats_url: str  # its broker, and the guard's
    folder: Path  # `agents/` has the agent's file

    async def proven(self) -> int:
        """Return how many commands were proven so far."""
        return int((await self.agent.ask("GET", "/agent")).json()["commands"].get("proven", 0))

    def by_rest(self) -> dict[str, Any]:
        """Return the sink that posts a rule's result to the agent."""
        return _rest(f"{self.agent.url}/api/v3/rule")

    @staticmethod
    def tasks_by_rest(coordinator: AgentProcess) -> dict[str, Any]:
        """Return the sink that posts a rule's result, a task, to the coordinator."""
        return _rest(f"{coordinator.url}/api/v3/task")

    def by_bus(self, base: str) -> dict[str, Any]:
        """Return the sink that makes an EdgeX event of a rule's result, on the topic that agents watch."""
        return {
            "edgex": {
                **self.bus, "topic": f"{base}/rules/agents", "deviceName": self.said, "messageType": "event",
                "contentType": "application/json", "sendSingle": True,
            }
        }  # fmt: skip


@asynccontextmanager
async def coordinating(edgex: Edgex, reached: Reached) -> AsyncIterator[AgentProcess]:
    """Run a coordinator beside an agent and its guard while the context is open."""
    key = edgex.name("app-coordinator")
    own = {"EDGEAGENTS_COORDINATOR_AGENTS_DIR": str(reached.folder / "agents"), "EDGEX_SERVICE_KEY": key}
    async with running_process(edgex, reached.nats_url, reached.folder, "coordinator", key, own) as coordinator:
        yield coordinator


@asynccontextmanager
async def reached(edgex: Edgex, nats_url: str, lab: Lab, folder: Path) -> AsyncIterator[Reached]:
    """Run guard and agent while the context is open; files, streams and logs lie in `folder`."""
    name, said = edgex.name("agent"), edgex.name("rules")
    agents = folder / "agents"
    agents.mkdir()
    file = write_agent(agents, _definition(name, lab, said))
    site = folder / "site.yaml"
    site.write_text(json.dumps({"resources": [_declared(lab, resource) for resource in (BY_REST, BY_BUS)]}))
    common = await edgex.keeper.get_tree("edgex/v4/core-common-config-bootstrapper/all-services/MessageBus")
    bus = {word.lower(): common[word] for word in ("Type", "Protocol", "Host")} | {"port": int(common["Port"])}
    guard = edgex.name("app-guard")
    of_guard, of_agent = _guard_environ(guard, folder, site, agents), {"EDGEAGENTS_AGENT_FILE": str(file)}
    with _broker(folder) as broker:
        async with (
            _listening(nats_url, broker.url, edgex.target.base),
            running_process(edgex, broker.url, folder, "guard", guard, of_guard),
            running_process(edgex, broker.url, folder, "agent", f"app-agent-{name}", of_agent) as agent,
        ):
            yield Reached(agent, lab.device, said, bus, broker.url, folder)


def _rest(url: str) -> dict[str, Any]:
    sink = {"url": url, "method": "POST", "bodyType": "json", "sendSingle": True, "timeout": 5000}
    return {"rest": sink}


def _definition(name: str, lab: Lab, said: str) -> dict[str, Any]:
    rules = [
        {"name": "by-rest", "given": {"level": "rule/level"}, "when": "level >= 0.0",
         "set": {"device": lab.device, "resource": BY_REST, "value": "=level"}},
        {"name": "by-bus", "given": {"level": f"{said}/level"}, "when": "level >= 0.0",
         "set": {"device": lab.device, "resource": BY_BUS, "value": "=level"}},
    ]  # fmt: skip
    may = [{"device": lab.device, "resource": resource} for resource in (BY_REST, BY_BUS)]
    return {"name": name, "mode": "act", "watches": [{"topic": "rules/agents"}], "rules": rules, "may": may,
            "skills": [{"name": "set", "cost_s": 0.1}]}  # fmt: skip


def _declared(lab: Lab, resource: str) -> dict[str, Any]:
    proof = {"resource": resource, "wait": "3s"}
    return {"device": lab.device, "resource": resource, "risk_class": "A", "kind": "absolute", "proof": proof}


def _guard_environ(key: str, folder: Path, site: Path, agents: Path) -> dict[str, str]:
    prefix = "EDGEAGENTS_GUARD_"
    own = {"SITE_FILE": str(site), "AGENTS_DIR": str(agents), "STATE_DIR": str(folder / "guard")}
    return {f"{prefix}{word}": value for word, value in own.items()} | {"EDGEX_SERVICE_KEY": key}


@contextmanager
def _broker(folder: Path) -> Iterator[NatsServer]:
    (folder / "nats").mkdir()
    server = NatsServer(folder / "nats")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def _listening(source: str, target: str, base: str) -> AsyncIterator[None]:
    """Carry what is said below EdgeX's base, and keeper's notices, from one broker to another; nothing goes back."""
    there, here = Client(), Client()

    async def carry(message: Msg) -> None:
        await here.publish(message.subject, message.data, headers=message.headers)

    await there.connect(source)
    await here.connect(target)
    try:
        for topic_filter in {f"{base}/#", "edgex/configs/#"} if base != "edgex" else {"edgex/#"}:
            await there.subscribe(subjects.topic_to_subject(topic_filter), cb=carry)
        await there.flush()
        yield
    finally:
        await there.close()
        await here.close()
