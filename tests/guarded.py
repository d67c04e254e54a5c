"""A gateway with a real guard in front of real valves, each part a process, and agents that tests play by hand."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import yaml

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.cli.history import History
from edgeagents.errors import NotFoundError, UnavailableError
from edgeagents.model.message import (
    AuditRecord,
    Cause,
    Command,
    CommandId,
    Epoch,
    Heartbeat,
    LeaseReply,
    LeaseRequest,
    Outcome,
    SessionWelcome,
)
from edgeagents.trail import StreamTrail
from tests.contract.waiting import until
from tests.embedded_core import EmbeddedCore
from tests.faults.crash_points import FOLDER
from tests.nats import NatsServer, free_port
from tests.services import START_S, ServiceProcess
from tests.valves import KEY, NAMES

T = TypeVar("T")
ASK_AGAIN_S = 0.1
READ_S = 30.0  # a read of a stream may wait for the disk again and again
GUARD_TOKEN, OWNER_TOKEN, ANN = "guards-own-token-0001", "owners-own-token-0001", "token-of-ann-000001"
# Proofs and quarantines end as soon as a device has said enough: long ones are for a machine that stands still for
# seconds. Whoever waits for the end of one on purpose uses `valve-7` (`Open`, proof) or a valve below 7 (quarantine).
SITE: dict[str, Any] = {
    "resources": [
        {"device": "valve-9", "resource": "Setpoint", "risk_class": "A", "kind": "absolute", "minimum": 10,
         "proof": {"resource": "Setpoint", "tolerance": 0.1, "wait": "10s"}, "quarantine": "8s", "stand_back": "2s"},
        {"device": "valve-8", "resource": "Setpoint", "risk_class": "A", "kind": "absolute", "minimum": 10,
         "proof": {"resource": "Setpoint", "tolerance": 0.1, "wait": "10s"}, "quarantine": "8s"},
        {"profile": "Valve", "resource": "Setpoint", "risk_class": "A", "kind": "absolute", "minimum": 10,
         "proof": {"resource": "Setpoint", "tolerance": 0.1, "wait": "10s"}, "quarantine": "1s"},
        {"device": "valve-7", "resource": "Open", "risk_class": "A", "proof": {"resource": "Open", "wait": "2s"}},
        {"profile": "Valve", "resource": "Open", "risk_class": "A", "proof": {"resource": "Open", "wait": "10s"}},
        {"profile": "Valve", "resource": "Enabled", "risk_class": "C", "approval_wait": "1m",
         "proof": {"resource": "Enabled", "wait": "10s"}},
        {"profile": "Valve", "resource": "Brief", "risk_class": "B", "approval_wait": "200ms"},
    ],
    "interlocks": [
        {"name": "one-open", "forbid": {"device": "valve-1", "resource": "Open", "equals": True},
         "during": {"device": "valve-2", "resource": "Open", "equals": True}, "max_age": "10m"},
    ],
}  # fmt: skip


def agent_file(name: str, **changes: Any) -> dict[str, Any]:
    """Return what an owner writes of an agent that may set everything of a valve."""
    may = [{"profile": "Valve", "resource": word} for word in ("Setpoint", "Open", "Enabled", "Brief")]
    return {"name": name, "mode": "act", "watches": [{"profile": "Valve"}], "may": may, **changes}


AGENTS = [
    agent_file("air"), agent_file("heat", priority="health"), agent_file("eye", mode="observe"),
    agent_file("narrow", priority="safety", may=[{"device": "valve-9", "resource": "Setpoint", "maximum": 20}]),
]  # fmt: skip


class Gateway:
    """Broker, core, valves and guard; `guard` is started and killed by tests as they like."""

    def __init__(self, folder: Path, broker: str = "") -> None:
        """Start broker, core and valves; `broker` is further configuration of the first."""
        self.folder = folder
        for name in ("nats", "agents"):
            (folder / name).mkdir()
        self.nats = NatsServer(folder / "nats", broker)
        self.nats.start()
        (folder / "tokens").write_text(f"guard: {GUARD_TOKEN}\nowner: {OWNER_TOKEN}\n")
        (folder / "guard.token").write_text(GUARD_TOKEN)
        (folder / "approvers").write_text(f"ann: {ANN}\n")
        self.site_file = folder / "site.yaml"
        self.site_file.write_text(yaml.safe_dump(SITE))
        for agent in AGENTS:
            (folder / "agents" / f"{agent['name']}.yaml").write_text(yaml.safe_dump(agent))
        self.core = EmbeddedCore(
            folder / "core", self.nats.url, "--tokens", str(folder / "tokens"), "--request-timeout-s", "3"
        ).start()
        self.valves = ServiceProcess("tests.valves", KEY, self.core, self.nats.url, folder)
        self.guard: ServiceProcess | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def spawn_guard(self, **environ: str) -> ServiceProcess:
        """Start another guard process, not waiting for it."""
        prefix, folder = "EDGEAGENTS_GUARD_", self.folder
        own = {
            "EDGEAGENTS_GATEWAY": "gw", f"{prefix}SITE_FILE": str(self.site_file),
            f"{prefix}AGENTS_DIR": str(folder / "agents"), f"{prefix}STATE_DIR": str(folder / "state"),
            f"{prefix}APPROVERS_FILE": str(folder / "approvers"),
            f"{prefix}COMMAND_TOKEN_FILE": str(folder / "guard.token"), }  # fmt: skip
        key = environ.get("EDGEX_SERVICE_KEY", "app-guard")
        own["SERVICE_PORT"] = str(self.port if key == "app-guard" else free_port())
        module = "tests.faults.one_guard" if FOLDER in environ else "services.guard"
        return ServiceProcess(module, key, self.core, self.nats.url, folder, environ=own | environ)

    def kill_guard(self) -> None:
        """End the guard as a power cut would."""
        if self.guard is not None:
            self.guard.kill()
            self.guard = None

    def lose_volume(self) -> None:
        """Lose all that the guard keeps."""
        shutil.rmtree(self.folder / "state")

    def stop(self) -> None:
        """End everything."""
        self.kill_guard()
        self.valves.kill()
        self.core.kill()
        self.nats.kill()


class Beside:
    """A coordinator and real agents beside a guarded gateway, each a process by its EdgeX key; `stop` ends them."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.port = gateway, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, ServiceProcess] = {}

    @classmethod
    @contextlib.contextmanager
    def on(cls, folder: Path) -> Iterator[Self]:
        """Yield it beside a gateway of its own in a folder; both end with the block."""
        gateway = Gateway(folder)
        found = cls(gateway)
        try:
            yield found
        finally:
            found.stop()
            gateway.stop()

    def coordinate(self, **environ: str) -> None:
        """Start the coordinator, at `url`."""
        self._spawn("services.coordinator", "app-coordinator", SERVICE_PORT=str(self.port),
                    EDGEAGENTS_COORDINATOR_AGENTS_DIR=str(self.gateway.folder / "agents"), **environ)  # fmt: skip

    def act(self, name: str) -> None:
        """Start an agent whose file lies in the gateway's folder."""
        file = str(self.gateway.folder / "agents" / f"{name}.yaml")
        self._spawn("services.agent", f"app-agent-{name}", EDGEAGENTS_AGENT_FILE=file)

    def _spawn(self, module: str, key: str, **environ: str) -> None:
        gateway = self.gateway
        self.processes[key] = ServiceProcess(
            module, key, gateway.core, gateway.nats.url, gateway.folder,
            environ={"EDGEAGENTS_GATEWAY": "gw", **environ},
        )  # fmt: skip

    def stop(self) -> None:
        """End what was started."""
        for process in self.processes.values():
            process.kill()


class Client:
    """What a test sees of a gateway: HTTP, the streams, and agents it plays."""

    def __init__(self, gateway: Gateway, bus: Bus, http: httpx.AsyncClient) -> None:
        self.gateway, self.bus, self.http = gateway, bus, http
        self.valves_url = gateway.valves.ready()

    # --- guard and valves ------------------------------------------------------------------------

    async def start_guard(self) -> None:
        """Start the guard, unless it runs, and wait until it serves agents."""
        before: set[str] | None = None
        if self.gateway.guard is None:
            before = await self._incarnations()
            self.gateway.guard = self.gateway.spawn_guard()

        async def is_up() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await self.http.get(f"{self.gateway.url}/api/v3/ping")).status_code == 200
            return False

        await until(is_up, "the guard answers", timeout_s=START_S)
        await until(self.agent("eye").is_welcome, "the guard serves agents", timeout_s=START_S)
        if before is not None:

            async def is_written_down() -> bool:
                return await self._incarnations() > before

            await until(is_written_down, "its start is in the audit", timeout_s=START_S)

    async def _incarnations(self) -> set[str]:
        try:
            return {record.incarnation for record in await self.audit()}
        except NotFoundError:  # no guard has made the streams yet
            return set()

    async def restart_guard(self) -> None:
        """Kill the guard and start it again."""
        self.gateway.kill_guard()
        await self.start_guard()

    async def state(self) -> dict[str, Any]:
        """Return what the guard shows of itself."""
        found: dict[str, Any] = (await self.http.get(f"{self.gateway.url}/api/v3/guard")).json()
        return found

    async def approvals(self, token: str = ANN) -> httpx.Response:
        """Ask for what waits."""
        return await self.http.get(f"{self.gateway.url}/api/v3/approval", headers=bearer(token))

    async def decide(self, name: str, decision: str, token: str = ANN) -> httpx.Response:
        """Approve or deny."""
        body = {"decision": decision, "reason": "I looked"}
        return await self.http.post(f"{self.gateway.url}/api/v3/approval/{name}", json=body, headers=bearer(token))

    async def control(self, **what: Any) -> dict[str, Any]:
        """Tell the valves how to behave; return what happened to them."""
        if what:
            await self.http.post(f"{self.valves_url}/control", json=what)
        found: dict[str, Any] = (await self.http.get(f"{self.valves_url}/control")).json()
        return found

    async def effects(self, device: str) -> list[tuple[str, Any]]:
        """Return what took effect at a valve, oldest first."""
        lines = (await self.control())["sets"]
        return [(line["resource"], line["value"]) for line in lines if line["device"] == device]

    async def publish_reading(self, device: str, resource: str) -> None:
        """Have a valve publish what it shows, asked again while it or what leads to it has no time."""
        url = f"{self.gateway.core.urls['command']}/api/v3/device/name/{device}/{resource}?ds-pushevent=true"

        async def is_read() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return (await self.http.get(url, headers=bearer(OWNER_TOKEN))).status_code == 200
            return False

        await until(is_read, f"{device}/{resource} is read", timeout_s=READ_S)

    # --- streams ---------------------------------------------------------------------------------

    async def outcomes(self, agent: str) -> list[Outcome]:
        """Return all outcomes told to an agent so far."""

        async def read() -> list[Outcome]:
            found = self.bus.read(subjects.COMMANDS_STREAM, [subjects.outcomes("gw", agent)], name=f"check-{agent}")
            return [wire.decode(Outcome, message.data) async for message in found]

        return await patiently(read)

    async def audit(self, kind: str = "") -> list[AuditRecord]:
        """Return the guard's audit records, of one kind if given."""

        async def read() -> list[AuditRecord]:
            found = self.bus.read(subjects.AUDIT_STREAM, ["gw.audit.guard.*"], name="check-audit")
            return [wire.decode(AuditRecord, message.data) async for message in found]

        return [record for record in await patiently(read) if not kind or record.kind == kind]

    def agent(self, name: str) -> "Agent":
        """Return an agent; each test goes on with the same run of it, as a guard lets few copies live at a time."""
        return Agent(self, name, f"run-of-{name}")


class Agent:
    """One run of an agent, played by a test; keeps its session as long as it is entered."""

    def __init__(self, client: Client, name: str, incarnation: str) -> None:
        self.client, self.bus, self.name, self.incarnation = client, client.bus, name, incarnation
        self.held: list[tuple[str, str]] = []

    async def __aenter__(self) -> "Agent":
        await until(self.is_welcome, f"agent {self.name} has an answer from the guard", timeout_s=START_S)
        self._beats = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._beats
        with contextlib.suppress(UnavailableError):
            for device, resource in self.held:
                await self._asked_for(device, resource, release=True)  # once: the guard may be gone on purpose

    async def welcome(self) -> SessionWelcome:
        """Ask for a session."""
        data = wire.encode(Heartbeat(incarnation=self.incarnation))
        answer = await self.bus.request(subjects.session("gw", self.name), data, timeout_s=2)
        return wire.decode(SessionWelcome, answer.data)

    async def is_welcome(self) -> bool:
        """Say whether the guard answers."""
        with contextlib.suppress(UnavailableError):
            return bool(await self.welcome())
        return False

    async def _beat(self) -> None:
        while True:
            await self.bus.publish(
                subjects.session("gw", self.name), wire.encode(Heartbeat(incarnation=self.incarnation))
            )
            await asyncio.sleep(0.4)

    async def lease(self, device: str, resource: str = "Setpoint", *, release: bool = False) -> LeaseReply:
        """Ask for a lease, or give it back; as an agent does, again where no answer came or none could be given yet."""
        give_up_s = time.monotonic() + READ_S
        while True:
            try:
                reply = await self._asked_for(device, resource, release=release)
            except UnavailableError:
                if time.monotonic() > give_up_s:
                    raise
            else:
                is_put_off = not reply.granted and not reply.holder and reply.retry_after_s > 0
                if not is_put_off or time.monotonic() > give_up_s:
                    return reply
            await asyncio.sleep(ASK_AGAIN_S)

    async def _asked_for(self, device: str, resource: str, *, release: bool) -> LeaseReply:
        request = LeaseRequest(incarnation=self.incarnation, device=device, resource=resource, release=release)
        answer = await self.bus.request(subjects.lease("gw", self.name), wire.encode(request), timeout_s=15)
        reply = wire.decode(LeaseReply, answer.data)
        if reply.granted and (device, resource) not in self.held:
            self.held.append((device, resource))  # given back at the end: the next run need not wait
        return reply

    def command(
        self, device: str, value: str, epoch: Epoch | None, resource: str = "Setpoint", **changes: Any
    ) -> Command:
        """Return a command on fresh data."""
        fields: dict[str, Any] = {
            "id": CommandId(f"{self.name}-{time.time_ns():x}"), "device": device, "resource": resource,
            "value": value, "incarnation": self.incarnation, "epoch": epoch or Epoch(generation=1, revision=1),
            "ttl_s": 30.0, "cause": Cause(stream="edgex-events", sequence=1), "data_origin_ns": time.time_ns(),
        }  # fmt: skip
        return Command(**(fields | changes))

    async def send(self, command: Command, *, by: str = "") -> int:
        """Store a command, on our subject or somebody else's."""
        subject = subjects.command("gw", command.device, by or self.name)
        return await self.bus.store(subject, wire.encode(command), wire.AS_PROTOBUF, timeout_s=30)

    async def outcome(self, command: Command, *, of: str = "", timeout_s: float = 40) -> Outcome:
        """Wait for how a command ends."""

        async def found() -> Outcome | None:
            told = await self.client.outcomes(of or self.name)
            return next((item for item in told if item.command_id == command.id), None)

        result = await until(found, f"an outcome of {command.id}", timeout_s=timeout_s)
        assert isinstance(result, Outcome)
        return result

    async def do(self, device: str, value: str, resource: str = "Setpoint", **changes: Any) -> Outcome:
        """Ask for the lease, command, and return how it ended."""
        reply = await self.lease(device, resource)
        command = self.command(device, value, reply.epoch, resource, **changes)
        await self.send(command)
        return await self.outcome(command)


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Return what a read of a stream gives, begun anew for some time while the broker is not quick enough."""
    give_up_s = time.monotonic() + READ_S
    while True:
        try:
            return await read()
        except UnavailableError:
            if time.monotonic() > give_up_s:
                raise
        await asyncio.sleep(ASK_AGAIN_S)


async def history_of(bus: Bus) -> History:
    """Return what the audit says now, of all writers."""

    async def read() -> History:
        history = History()
        async for entry in (await StreamTrail.open(bus)).entries():
            if entry.record is not None:
                history.take(entry.record)
        return history

    return await patiently(read)


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


@contextlib.asynccontextmanager
async def client_of(gateway: Gateway) -> AsyncIterator[Client]:
    """Yield a connection to a gateway whose valves are known."""
    bus = await Bus.connect(gateway.nats.settings(), "test")
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client = Client(gateway, bus, http)

            async def all_known() -> bool:
                url = f"{gateway.core.urls['metadata']}/api/v3/device/all?limit=100"
                return len((await http.get(url)).json().get("devices") or []) >= len(NAMES)

            await until(all_known, "the valves are in core-metadata", timeout_s=START_S)
            await client.start_guard()
            yield client
    finally:  # whatever failed: a connection that is left open fails a later test
        await bus.close()
