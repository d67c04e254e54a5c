"""A guard's parts in memory around a real ledger: a valve, a pump, an agent that may set them, and clocks by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from edgeagents.adapters import wire
from edgeagents.adapters.command_route import Commands
from edgeagents.adapters.device_cache import Change, DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import NotFoundError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Event, Profile, make_reading
from edgeagents.model.message import Cause, Command, CommandId, Epoch, LeaseRecord, Outcome
from edgeagents.model.site import Site
from edgeagents.model.values import parse_value
from edgeagents.protocol.lease import LeaseTable, Recorded, step
from edgeagents.settings import SiteTime
from services.guard.approvals import Approvals
from services.guard.desk import LeaseDesk
from services.guard.jobs import Job, Means
from services.guard.lanes import Lanes
from services.guard.ledger import Ledger
from services.guard.orders import Orders
from services.guard.overrides import Overrides
from services.guard.owner import Owner
from services.guard.picture import LivePicture

SITE_S = 50_000.0
PROFILE = Profile.model_validate({
    "name": "Valve",
    "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float64", "readWrite": "RW", "minimum": 5, "maximum": 30}},
        {"name": "Open", "properties": {"valueType": "Bool", "readWrite": "RW"}},
        {"name": "Count", "properties": {"valueType": "Int32", "readWrite": "RW"}},
        {"name": "Enabled", "properties": {"valueType": "Bool", "readWrite": "RW"}},
    ],
})  # fmt: skip
SITE: dict[str, Any] = {
    "resources": [
        {"profile": "Valve", "resource": "Setpoint", "risk_class": "A", "kind": "absolute",
         "proof": {"resource": "Setpoint", "tolerance": 0.1, "wait": 1}},
        {"profile": "Valve", "resource": "Open", "risk_class": "A", "proof": {"resource": "Open", "wait": 1}},
        {"profile": "Valve", "resource": "Count", "risk_class": "A"},
        {"profile": "Valve", "resource": "Enabled", "risk_class": "C", "approval_wait": 60,
         "proof": {"resource": "Enabled", "wait": 1}},
    ],
    "interlocks": [
        {"name": "one-open", "forbid": {"device": "valve", "resource": "Open", "equals": True},
         "during": {"device": "pump", "resource": "Open", "equals": True}, "max_age": 600},
    ],
}  # fmt: skip
AGENTS: list[dict[str, Any]] = [
    {"name": name, "mode": mode, "priority": priority, "watches": [{"profile": "Valve"}],
     "may": [{"profile": "Valve", "resource": item["resource"]} for item in SITE["resources"]]}
    for name, mode, priority in (
        ("air", "act", "comfort"), ("heat", "act", "health"), ("eye", "observe", "comfort"),
    )
]  # fmt: skip


class Clocks:
    """Three clocks that stand still."""

    def __init__(self) -> None:
        self.now_s, self.site_s, self.wall = 100.0, SITE_S, int(SITE_S * 1e9)

    def now(self) -> float:
        return self.now_s

    def site(self) -> float:
        return self.site_s

    def wall_ns(self) -> int:
        return self.wall


class FakeCommands:
    """core-command: `values` is what devices show; `set_does` and `get_does` may do something else first."""

    def __init__(self) -> None:
        self.on_its_way: Callable[[], None] | None = None  # what happens before a SET is sent
        self.values: dict[tuple[str, str], str] = {}
        self.log: list[str] = []
        self.set_does: Callable[[str], Any] | None = None
        self.get_does: Callable[[str], Any] | None = None
        self.is_deaf = False  # answers yes and does nothing

    async def set(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "",
        last_look: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        if self.on_its_way is not None:
            self.on_its_way()
        if last_look is not None:
            last_look()
        self.log.append(f"set {device}/{command} {values[command]} ({correlation_id})")
        if self.set_does is not None:
            answer = self.set_does(correlation_id)
            if asyncio.iscoroutine(answer):
                await answer
        if not self.is_deaf:
            self.values[device, command] = values[command]

    async def get(self, device: str, command: str, *, correlation_id: str = "") -> Event:
        self.log.append(f"get {device}/{command}")
        if self.get_does is not None:
            self.get_does(command)
        if (device, command) not in self.values:
            raise NotFoundError(f"no reading of {device}/{command}")
        return event(device, command, self.values[device, command])

    @property
    def sets(self) -> list[str]:
        """The ids of all SETs, in order."""
        return [line.partition("(")[2].rstrip(")") for line in self.log if line.startswith("set")]


def event(device: str, resource: str, text: str, origin_s: float = SITE_S, profile: Profile = PROFILE) -> Event:
    """Return an event of one reading, as a device service publishes it."""
    kind = next(item.properties.value_type for item in profile.device_resources if item.name == resource)
    origin_ns = int(origin_s * 1e9)
    reading = make_reading(device, "Valve", resource, kind, parse_value(kind, text), origin_ns, reading_id="r")
    return Event(
        id=f"{device}-{resource}-{origin_ns}", device_name=device, profile_name="Valve", source_name=resource,
        origin=origin_ns, readings=(reading,),
    )  # fmt: skip


class _Desk:
    """The rig's leases as they are when they are looked at."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig
        self.used = rig.used.append

    @property
    def table(self) -> LeaseTable:
        return self._rig.table

    async def call(self, agent: str) -> None:
        self._rig.called.append(agent)

    def reads(self, agent: str) -> str:
        return self._rig.reads


def ends_at(sequence: int) -> Callable[[], Awaitable[int]]:
    """Return what tells where the command stream ends."""

    async def last() -> int:
        return sequence

    return last


def owner_of(agents: Sequence[Mapping[str, Any]], site: Site) -> Owner:
    """Return what the owner wrote down."""
    definitions = [AgentDefinition.model_validate(item) for item in agents]
    return Owner(site, {item.name: item for item in definitions})


class Rig:
    """All that lanes work with; `outcomes` is what was told, `records` what was audited."""

    def __init__(self, folder: Path, site: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.clocks = Clocks()
        self.commands = FakeCommands()
        self.outcomes: list[tuple[str, Outcome]] = []
        self.records: list[dict[str, Any]] = []
        self.owner = owner_of(AGENTS, Site.model_validate(SITE if site is None else site))
        self.called: list[str] = []
        self.reads = wire.PROTOBUF  # what agents are told of outcomes in
        self.known = {name: Device(name=name, profile_name="Valve") for name in ("valve", "pump", "fan")}
        self.profiles = {"Valve": PROFILE}
        self.watchers: list[Any] = []
        self.is_ready = True
        self.missed = 0  # devices that were named and are not there
        self.table = LeaseTable(1)
        self.ledger = Ledger(folder)
        self.executor = ThreadPoolExecutor(1)
        self.orders = Orders(self.ledger, self.executor, self.owner)
        self.picture = LivePicture(SiteTime(), self.clocks.wall_ns)
        self.approvals = Approvals({"ann": "a-token-of-ann-000"}, self.clocks.now, self.clocks.wall_ns)
        self.used: list[tuple[str, str]] = []
        self.overrides = self._overrides()

    def _overrides(self) -> Overrides:
        audit = cast(Audit, SimpleNamespace(append=self._append))
        found = Overrides(
            self.ledger, self.executor, self.owner, self.devices, audit, self.clocks.now, self.clocks.site
        )
        self.ended: list[tuple[tuple[str, str], str]] = []

        async def end_lease(key: tuple[str, str], reason: str) -> None:
            self.ended.append((key, reason))

        found.end_lease = end_lease
        found.load()
        self.picture.on_reading = found.seen
        return found

    @property
    def means(self) -> Means:
        """Return the means; the desk and the cache are views of this rig."""
        desk = cast(LeaseDesk, _Desk(self))
        audit = cast(Audit, SimpleNamespace(append=self._append))
        return Means(
            self.ledger, self.executor, self.owner, self.devices, self.picture, desk, cast(Commands, self.commands),
            audit, self.clocks, lambda agent, outcome: self.outcomes.append((agent, outcome)), self._all_told,
            self.approvals.park, self.orders, self.overrides,
        )  # fmt: skip

    @property
    def devices(self) -> DeviceCache:
        """Return what core-metadata knows, live."""

        def profile_of(name: str) -> Profile | None:
            return self.profiles.get(self.known[name].profile_name) if name in self.known else None

        return cast(DeviceCache, SimpleNamespace(
            device=self.known.get, miss=self._miss, profile_of=profile_of, devices_by_name=self.known,
            profiles_by_name=self.profiles, is_ready=self.is_ready, on_change=self.watchers.append,
        ))  # fmt: skip

    def _miss(self) -> None:
        self.missed += 1

    async def _all_told(self) -> None:
        """Nothing waits here: outcomes are told at once."""

    def add_device(self, device: Device) -> None:
        """Have core-metadata tell of a device that is new."""
        self.known[device.name] = device
        for watcher in self.watchers:
            watcher(Change("device", "add", device.name))

    def remove_device(self, name: str) -> None:
        """Have core-metadata tell of a device that is gone."""
        del self.known[name]
        for watcher in self.watchers:
            watcher(Change("device", "delete", name))

    def change_profile(self, profile: Profile) -> None:
        """Have core-metadata tell of a profile that changed."""
        self.profiles[profile.name] = profile
        for watcher in self.watchers:
            watcher(Change("profile", "update", profile.name))

    def _append(self, kind: str, **body: Any) -> None:
        self.records.append({"kind": kind, **body})

    def grant(
        self, agent: str = "air", *, sequence: int = 1, device: str = "valve", resource: str = "Setpoint"
    ) -> Epoch:
        """Give a lease to an agent, its record at a place in the stream."""
        record = LeaseRecord(device=device, resource=resource, agent=agent, incarnation="i1", generation=1)
        self.table, _ = step(self.table, Recorded(record, sequence))
        return Epoch(generation=1, revision=sequence)

    def job(
        self, name: str = "c-1", value: str = "21", *, agent: str = "air", sequence: int = 10,
        epoch: Epoch | None = None, device: str = "valve", resource: str = "Setpoint", deadline_s: float = 110.0,
        **changes: Any,
    ) -> Job:  # fmt: skip
        """Return a command of an agent on its way, written into the ledger."""
        fields: dict[str, Any] = {
            "id": CommandId(name), "device": device, "resource": resource, "value": value, "incarnation": "i1",
            "epoch": epoch or Epoch(generation=1, revision=1), "ttl_s": 10.0,
            "cause": Cause(stream="edgex-events", sequence=1, event_id="e"), "because": "cold",
        }  # fmt: skip
        command = Command(**(fields | changes))
        self.ledger.receive(command, agent, sequence, 1.0)
        return Job(command, agent, sequence, deadline_s, SITE_S)

    def told(self) -> dict[str, tuple[str, str]]:
        """Return status and reason of each outcome, by command id."""
        found = {outcome.command_id: (outcome.status, outcome.reason) for _, outcome in self.outcomes}
        assert len(found) == len(self.outcomes), "one outcome for each command"
        return {str(name): value for name, value in found.items()}

    def causes(self) -> dict[str, str]:
        """Return the words for code with which outcomes say why a command was not carried out, by its id."""
        return {outcome.command_id: outcome.cause_kind for _, outcome in self.outcomes}

    @contextlib.asynccontextmanager
    async def lanes(self) -> AsyncIterator[Lanes]:
        """Yield running lanes; at the end of the block all that is queued is done."""
        async with asyncio.TaskGroup() as tasks:
            lanes = Lanes(self.means, tasks)
            yield lanes
            await lanes.stop(10)

    async def run(self, *jobs: Job) -> dict[str, tuple[str, str]]:
        """Carry commands out, and return how they ended."""
        async with self.lanes() as lanes:
            for job in jobs:
                await lanes.put(job)
        return self.told()

    def restart(self, agents: Sequence[Mapping[str, Any]] = ()) -> None:
        """Open the same volume again, as after a crash: what was in memory is gone. `agents` are changed files."""
        self.close()
        changed = {item["name"]: item for item in agents}
        self.owner = owner_of([changed.get(item["name"], item) for item in AGENTS], self.owner.site)
        self.ledger = Ledger(self.folder)
        self.executor = ThreadPoolExecutor(1)
        self.orders = Orders(self.ledger, self.executor, self.owner)
        self.picture = LivePicture(SiteTime(), self.clocks.wall_ns)
        self.overrides = self._overrides()
        self.outcomes.clear()

    def close(self) -> None:
        """Close the ledger."""
        self.executor.shutdown(wait=True)
        self.ledger.close()
