"""A whole gateway as one process tree on this machine: broker, embedded core, world, guard, agents.

Used by `make demo` and by the tests that kill its parts. Everything it keeps lies in one folder.

Source: design.md section 8.
"""

import asyncio
import json
import logging
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.files import load_agents
from edgeagents.adapters.leaf_nodes import gateways_if_any
from edgeagents.adapters.ports import free_port
from edgeagents.adapters.streams import ACK_WAIT_S
from edgeagents.embedded.addresses import move_ports
from edgeagents.embedded.full_store import FullStore
from edgeagents.embedded.nats import find_nats_server, write_config, write_private
from edgeagents.embedded.supervisor import Child, Supervisor
from edgeagents.errors import NotFoundError, UnavailableError
from edgeagents.model.agent import AgentDefinition
from edgeagents.permissions import (
    INFERENCE_USER,
    agent_user,
    for_agent,
    for_coordinator,
    for_edgex,
    for_everything,
    for_inference,
)
from edgeagents.settings import BusSettings

log = logging.getLogger(__name__)

GATEWAY: Final = "home"
PLACE_FILE: Final = "gateway.json"
# What was under way to a process when it died comes again after the wait for its acknowledgement.
STOP_TRIES: Final = 5  # of an agent that does not answer in time
SETTLE_S: Final = ACK_WAIT_S + 15.0
INFERENCE_PORT: Final = 59743
# They import much, and much of it the same: they are forked from one process that has imported it.
FORKED: Final = (
    "edgeagents.embedded.core",
    "services.agent",
    "services.coordinator",
    "services.guard",
    "services.world",
)
IMPORTED: Final = (
    "edgeagents.quick_start", "uvloop", "edgeagents.embedded.core", "services.agent.app", "services.coordinator.app",
    "services.guard.app", "services.world.app",
)  # fmt: skip
PREFERRED_PORTS: Final = {
    "nats": 4222, "keeper": 59890, "metadata": 59881, "data": 59880, "command": 59882, "guard": 59740, "world": 59980,
    "coordinator": 59741,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and where.

    Args:
        folder: state, logs, journals, secrets; private to its owner.
        profiles: folder of the scenario: site.yaml, agents/, profiles/, devices/.
        factor: site seconds in one wall second.
        site_start_s: site time at the start, seconds since the epoch.
        seed: of the world.
        played: agents that have a file but no process: whoever runs the plan plays them.
        sync_always: the broker acknowledges what is on disk, not what is about to be.
        ports: taken where they are free, by name; else any others.
        coordinator: whether tasks can be given.
        adapt: what becomes of a child before it is started, such as a tracer in front of it.
        model: folder of the language model that `start_model` serves; none: there is none.
        gateway: its name.
        gateways_file: the owner's gateways.yaml; None: it has no peers.
        forks: services are forked from one process that has imported what they share; False: each imports for itself,
            as it does in a container.
    """

    folder: Path
    profiles: Path
    factor: float
    site_start_s: float
    seed: int = 1
    scenario: str = "home"
    played: frozenset[str] = frozenset()
    sync_always: bool = True
    ports: Mapping[str, int] = field(default_factory=lambda: PREFERRED_PORTS)
    coordinator: bool = False
    adapt: Callable[[Child], Child] = lambda child: child
    model: Path | None = None
    gateway: str = GATEWAY
    gateways_file: Path | None = None
    forks: bool = True


@dataclass(slots=True)
class Gateway:
    """A running gateway; `start`, then `ready`, at last `stop`."""

    plan: Plan
    ports: dict[str, int] = field(default_factory=dict)
    agents: dict[str, AgentDefinition] = field(default_factory=dict)
    passwords: dict[str, Path] = field(default_factory=dict)
    supervisor: Supervisor = field(init=False)
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        """Prepare; nothing runs yet."""
        self.supervisor = Supervisor(self.plan.folder / "log", FORKED if self.plan.forks else (), IMPORTED)
        self.http = httpx.AsyncClient(timeout=5.0, trust_env=False)  # its own children: no proxy is for them

    # --- start and stop --------------------------------------------------------------------------

    def start(self) -> None:
        """Prepare and start all processes; they find each other in any order."""
        for child in self.prepare().values():
            self.supervisor.start(child)

    def prepare(self) -> dict[str, Child]:
        """Choose ports, write secrets and return all processes by name; they find each other in whatever order."""
        folder = self.plan.folder
        self.agents = load_agents(self.plan.profiles / "agents")
        for name, preferred in {"coordinator": 0, **self.plan.ports}.items():
            self.ports[name] = free_port(preferred, set(self.ports.values()))
        name, linked = self.plan.gateway, gateways_if_any(self.plan.gateways_file, self.plan.gateway)
        peers = list(linked.peers) if linked is not None else []
        users = {
            "owner": for_everything(),
            "guard": for_everything(),
            subjects.COORDINATOR: for_coordinator(name),
            "edgex": for_edgex(name, services=[f"device-world-{self.plan.scenario}"]),
            **{
                agent_user(agent): for_agent(name, agent, peers=peers, leads=definition.leads)
                for agent, definition in self.agents.items()
            },
        }
        if self.plan.model is not None:
            self.ports["inference"] = free_port(INFERENCE_PORT, set(self.ports.values()))
            users[INFERENCE_USER] = for_inference(name)
        config, self.passwords = write_config(
            folder / "nats", self.ports["nats"], users, sync_always=self.plan.sync_always, gateways=linked
        )
        self._write_tokens()
        self._write_place()
        own = {"app-guard": self.ports["guard"], "app-coordinator": self.ports["coordinator"]}
        own[f"device-world-{self.plan.scenario}"] = self.ports["world"]
        own |= {"app-inference": self.ports["inference"]} if self.plan.model is not None else {}
        move_ports(folder / "core", own)
        is_stuck = FullStore(folder / "log" / "nats.log", folder / "nats")
        children = [Child("nats", [find_nats_server(), "-c", str(config)], is_stuck=is_stuck), *self._children()]
        return {child.name: self.plan.adapt(child) for child in children}

    def start_model(self) -> None:
        """Start the service of the language model, if the plan has one: once all else is up, since it takes seconds."""
        if self.plan.model is None:
            return
        environment = self._environment(INFERENCE_USER) | {
            "SERVICE_PORT": str(self.ports["inference"]),
            "EDGEAGENTS_INFERENCE_MODEL": str(self.plan.model.resolve()),
        }
        child = Child("inference", [sys.executable, "-m", "services.inference"], environment)
        self.supervisor.start(self.plan.adapt(child))

    async def stop(self) -> None:
        """End all processes."""
        await self.http.aclose()
        await self.supervisor.stop()

    def _write_place(self) -> None:
        """Write down where everything is, for `edgeagents … --folder`."""
        plan = self.plan
        place = {
            "gateway": plan.gateway, "nats": f"nats://127.0.0.1:{self.ports['nats']}", "user": "owner",
            "password_file": str(self.passwords["owner"].resolve()), "keeper": self.url("keeper"),
            "guard": self.url("guard"), "coordinator": self.url("coordinator"),
            "site_file": str((plan.profiles / "site.yaml").resolve()),
            "agents_dir": str((plan.profiles / "agents").resolve()),
            "guard_dir": str((plan.folder / "guard").resolve()),
            "store_dir": str((plan.folder / "nats" / "jetstream").resolve()),
        }  # fmt: skip
        if plan.model is not None:
            place["inference"] = self.url("inference")
        if plan.gateways_file is not None:
            place["gateways_file"] = str(plan.gateways_file.resolve())
        (plan.folder / PLACE_FILE).write_text(json.dumps(place, indent=1) + "\n")

    def _write_tokens(self) -> None:
        folder = self.plan.folder / "secrets"
        folder.mkdir(parents=True, exist_ok=True)
        tokens = {name: secrets.token_urlsafe(24) for name in ("guard", "owner", "approver")}
        for name, token in tokens.items():
            write_private(folder / f"{name}.token", token + "\n")
        write_private(folder / "command.tokens", f"guard: {tokens['guard']}\nowner: {tokens['owner']}\n")
        write_private(folder / "approvers", f"owner: {tokens['approver']}\n")

    def _environment(self, user: str) -> dict[str, str]:
        now_s = time.time()
        return {
            "EDGEX_SECURITY_SECRET_STORE": "false",
            "EDGEX_CONFIG_PROVIDER": f"keeper.http://127.0.0.1:{self.ports['keeper']}",
            "EDGEX_USE_REGISTRY": "true",
            "EDGEAGENTS_GATEWAY": self.plan.gateway,
            "EDGEAGENTS_NATS_URL": f"nats://127.0.0.1:{self.ports['nats']}",
            "EDGEAGENTS_NATS_USER": user,
            "EDGEAGENTS_NATS_PASSWORD_FILE": str(self.passwords[user]),
            "EDGEAGENTS_SITE_TIME_START_S": repr(self.plan.site_start_s),
            "EDGEAGENTS_SITE_TIME_WALL_START_S": repr(now_s),
            "EDGEAGENTS_SITE_TIME_FACTOR": repr(self.plan.factor),
            "SERVICE_HOST": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        }

    def _children(self) -> list[Child]:
        plan, ports, python = self.plan, self.ports, sys.executable
        secrets_folder = plan.folder / "secrets"
        edgex = self._environment("edgex")
        guard = self._environment("guard")
        journal = {"EDGEAGENTS_JOURNAL_DIR": str(plan.folder / "journal")}
        linked = {"EDGEAGENTS_GUARD_GATEWAYS_FILE": str(plan.gateways_file)} if plan.gateways_file else {}
        core = [python, "-m", "edgeagents.embedded.core", "--state", str(plan.folder / "core")]
        core += ["--tokens", str(secrets_folder / "command.tokens")]
        for name in ("keeper", "metadata", "data", "command"):
            core += [f"--{name}-port", str(ports[name])]
        world = [python, "-m", "services.world", "--scenario", plan.scenario]
        # A scenario's folder may be a copy with other devices in it.
        own = {f"DEVICE_{name.upper()}DIR": str(plan.profiles / name) for name in ("profiles", "devices")}
        own = own if (plan.profiles / "devices").is_dir() else {}
        children = [
            Child("core", core, edgex),
            Child(
                "guard",
                [python, "-m", "services.guard"],
                guard
                | linked
                | {
                    "SERVICE_PORT": str(ports["guard"]),
                    "EDGEAGENTS_GUARD_SITE_FILE": str(plan.profiles / "site.yaml"),
                    "EDGEAGENTS_GUARD_AGENTS_DIR": str(plan.profiles / "agents"),
                    "EDGEAGENTS_GUARD_STATE_DIR": str(plan.folder / "guard"),
                    "EDGEAGENTS_GUARD_APPROVERS_FILE": str(secrets_folder / "approvers"),
                    "EDGEAGENTS_GUARD_COMMAND_TOKEN_FILE": str(secrets_folder / "guard.token"),
                },
            ),
            Child(
                "world",
                world,
                edgex
                | journal
                | own
                | {
                    "SERVICE_PORT": str(ports["world"]),
                    "EDGEAGENTS_WORLD_STATE_DIR": str(plan.folder / "world"),
                    "EDGEAGENTS_WORLD_SEED": str(plan.seed),
                },
            ),
        ]
        if plan.coordinator:
            own_settings = {
                "SERVICE_PORT": str(ports["coordinator"]),
                "EDGEAGENTS_COORDINATOR_AGENTS_DIR": str(plan.profiles / "agents"),
            }
            environment = self._environment(subjects.COORDINATOR) | own_settings
            children.append(Child("coordinator", [python, "-m", "services.coordinator"], environment))
        for name in self.running:
            path = next(iter(sorted((plan.profiles / "agents").glob(f"{name}.y*ml"))))
            environment = self._environment(agent_user(name)) | journal | {"EDGEAGENTS_AGENT_FILE": str(path)}
            children.append(Child(f"agent-{name}", [python, "-m", "services.agent"], environment))
        return children

    # --- what runs -------------------------------------------------------------------------------

    @property
    def running(self) -> list[str]:
        """Names of the agents that are processes."""
        return [name for name in self.agents if name not in self.plan.played]

    def url(self, service: str) -> str:
        """Return the base address of a service with a port of its own."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def token(self, name: str) -> str:
        """Return a secret this run made: `owner` (core-command), `approver` (the guard)."""
        return (self.plan.folder / "secrets" / f"{name}.token").read_text().strip()

    async def agent_urls(self) -> dict[str, str]:
        """Return each agent's base address, from keeper's registry."""
        body = await self._get(f"{self.url('keeper')}/api/v3/registry/all")
        found = {item["serviceId"]: f"http://{item['host']}:{item['port']}" for item in body.get("registrations", [])}
        return {name: found[f"app-agent-{name}"] for name in self.running if f"app-agent-{name}" in found}

    async def connect(self) -> Bus:
        """Return a bus connection as the owner of this gateway."""
        settings = BusSettings(
            gateway=self.plan.gateway,
            nats_url=f"nats://127.0.0.1:{self.ports['nats']}",
            nats_user="owner",
            nats_password_file=self.passwords["owner"],
        )
        return await Bus.connect(settings, "owner")

    async def ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every agent has a session with the guard, and the world is all there and publishes.

        Raises:
            UnavailableError: something did not come up; its last words are told.
        """
        until_s = time.monotonic() + timeout_s
        missing = "everything"
        while time.monotonic() < until_s:
            missing = await self._missing()
            if not missing:
                return
            await asyncio.sleep(0.1)
        name = missing.split(":")[0]
        raise UnavailableError(f"not up in {timeout_s:g} s: {missing}\n{self.supervisor.log_tail(name)}")

    async def _missing(self) -> str:
        try:
            guard = await self._get(f"{self.url('guard')}/api/v3/guard")
            world = await self._get(f"{self.url('world')}/api/v3/world")
            addresses = await self.agent_urls()
            modes = {name: (await self._get(f"{url}/api/v3/agent")).get("mode") for name, url in addresses.items()}
        except UnavailableError as error:
            return str(error)
        for name in self.running:
            # Both sides say so: the guard still shows the session of an agent that was killed a moment ago.
            if name not in guard.get("sessions", []) or modes.get(name, "no session") == "no session":
                return f"agent-{name}: no session with the guard"
        if self.plan.coordinator and not (await self.state("coordinator", "/api/v3/coordinator")).get("isServing"):
            return "coordinator: does not serve tasks"
        if not world.get("provisioned"):  # those that are there already publish
            return "world: not all of its devices are in core-metadata yet"
        return "" if world.get("counters", {}).get("published", 0) > 0 else "world: publishes nothing"

    async def state(self, service: str, path: str) -> dict[str, Any]:
        """Return the JSON object a service shows, an empty one while it is away."""
        try:
            return await self._get(f"{self.url(service)}{path}")
        except UnavailableError:
            return {}

    async def _get(self, url: str) -> dict[str, Any]:
        try:
            answer = await self.http.get(url)
            answer.raise_for_status()
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            service = next((name for name, port in self.ports.items() if f":{port}/" in url), "agent")
            raise UnavailableError(f"{service}: {url}: {error or type(error).__name__}") from error
        return body if isinstance(body, dict) else {}

    async def stop_deciding(self) -> None:
        """Have all agents stop deciding; they go on consuming and following their commands."""
        for name, url in (await self.agent_urls()).items():
            problem = ""
            for _ in range(STOP_TRIES):
                try:
                    answer = await self.http.post(f"{url}/api/v3/deciding/off")
                    answer.raise_for_status()
                    break
                except httpx.HTTPError as error:
                    problem = str(error) or type(error).__name__
                    await asyncio.sleep(0.1)
            else:
                log.warning("agent %s does not stop deciding: %s", name, problem)

    async def settle(self, bus: Bus, timeout_s: float = SETTLE_S) -> None:
        """Wait until nothing is under way at the guard, and no agent has an event or an outcome before it.

        Args:
            bus: connected as the owner.
            timeout_s: after so long what is not done counts as lost.
        """
        until_s = time.monotonic() + timeout_s
        late = set(self.running)
        while time.monotonic() < until_s:
            # Once caught up is enough: later events need not be seen any more.
            late = {name for name in late if not await self._is_caught_up(bus, name)}
            guard = await self.state("guard", "/api/v3/guard")
            if not late and guard.get("waiting") == 0 and not await self._pending():
                return
            await asyncio.sleep(0.1)

    async def _is_caught_up(self, bus: Bus, agent: str) -> bool:
        try:
            return await bus.is_caught_up(subjects.EVENTS_STREAM, subjects.agent_durable(agent))
        except (NotFoundError, UnavailableError):
            return False

    async def _pending(self) -> int:
        """Return how many commands agents wait for; an agent that is away counts as one."""
        count = 0
        for url in (await self.agent_urls()).values():
            try:
                count += int((await self._get(f"{url}/api/v3/agent")).get("pending", 0))
            except UnavailableError:
                count += 1
        return count
