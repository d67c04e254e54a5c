"""Start here: the only service that may command devices. Wiring and routes; decisions are in `protocol/`.

Source: design.md section 2.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, get_args

from fastapi import FastAPI
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents import subjects
from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec
from edgeagents.adapters.command_route import Route, commands_by
from edgeagents.adapters.keeper import RegistryAddress
from edgeagents.adapters.leaf_nodes import gateways_if_any
from edgeagents.adapters.metrics import Metrics
from edgeagents.adapters.micro import Endpoint
from edgeagents.adapters.mqtt_bridge import MqttSettings
from edgeagents.adapters.rest import Rest
from edgeagents.adapters.service_doors import ServiceDoors
from edgeagents.adapters.startup import host_of_others
from edgeagents.adapters.token_files import FileToken
from edgeagents.adapters.web_pages import shows
from edgeagents.audit import Audit
from edgeagents.model.gateways import Gateways
from edgeagents.model.message import Outcome, OutcomeStatus
from edgeagents.protocol.gate import Key, NeedsApproval, locked_options
from edgeagents.settings import PREFIX
from services.guard.alone import Alone
from services.guard.approvals import Approvals, read_approvers
from services.guard.bridge import METRICS as BRIDGE_METRICS
from services.guard.bridge import bridge_of
from services.guard.clocks import ClockSteps, SystemClocks
from services.guard.concerns import Concerns
from services.guard.consents import Consents
from services.guard.desk import LeaseDesk
from services.guard.doorkeeper import METRICS as DOOR_METRICS
from services.guard.doorkeeper import DoorSettings, open_door
from services.guard.folder import AgentFolder, Change, Known, have_effect
from services.guard.group_commit import GroupCommit
from services.guard.intake import Intake, Teller
from services.guard.jobs import Job, Means, end
from services.guard.lanes import Lanes
from services.guard.ledger import Entry, Ledger
from services.guard.mirrors import keep_mirrors
from services.guard.notices import SERVICE, Notices, NotificationsAddress
from services.guard.orders import Orders
from services.guard.overrides import Overrides
from services.guard.owner import Owner
from services.guard.past import NOTHING_LOST, Past, acknowledged, reconcile
from services.guard.people import People, add_people_routes
from services.guard.picture import KEPT_SETS, LivePicture
from services.guard.room import Room
from services.guard.shown import GuardState
from services.guard.streams import DAY_S, LIMITS, ensure_streams
from services.guard.task_fence import TaskFence
from services.guard.waiting import forget_unsure, still_due

log = logging.getLogger(__name__)

GRACE_S: Final = 2.0
METRICS: Final = (
    "GuardCommandsReceived",
    "GuardOutcomes",
    "GuardGateTime",
    "GuardLeaseGrants",
    "GuardWaiting",
    "GuardNotices",
    *BRIDGE_METRICS,
    *DOOR_METRICS,
)


class GuardSettings(BaseSettings):
    """Where the guard finds the owner's files and keeps its state."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}GUARD_", frozen=True)

    site_file: Path = Field(Path("site.yaml"), description="the owner's site.yaml")
    agents_dir: Path = Field(Path("agents"), description="folder with one YAML file per agent")
    state_dir: Path = Field(Path("var/guard"), description="the guard's volume: ledger, lock, generation")
    approvers_file: Path | None = Field(None, description="one `name: token` a line; without it nobody can approve")
    command_token_file: Path | None = Field(None, description="token for core-command, where it demands one")
    gateways_file: Path | None = Field(None, description="the owner's gateways.yaml; no such file: no peers")
    command_route: Route = Field("rest", description="bus: device services see the command id as correlation id")


SPEC: Final = ServiceSpec(
    key="app-guard",
    kind="app",
    port=59740,
    config={
        "Writable": {
            "LogLevel": "INFO",
            "InsecureSecrets": {},
            "Telemetry": {"Metrics": dict.fromkeys(METRICS, False)},
        },
        "Service": {"Host": "localhost", "Port": 59740, "StartupMsg": "edgeagents guard", "MaxRequestSize": 64},
        "Clients": {"core-command": {"Protocol": "http", "Host": "localhost", "Port": 59882}},
        "Trigger": {"Type": "edgex-messagebus", "SubscribeTopics": "events/device/#"},
    },
    settings=(GuardSettings, MqttSettings, DoorSettings),
)


@asynccontextmanager
async def build(service: EdgexService) -> AsyncIterator[None]:
    """Wire the guard into a started EdgeX service."""
    settings = GuardSettings()
    owner = Owner.read(settings.site_file, settings.agents_dir)
    gateways = gateways_if_any(settings.gateways_file, service.settings.gateway)
    unread = dict(owner.unread)
    written = Known(dict(owner.agents), dict(owner.paths), dict(owner.doubled), unread, unread)  # before modes by order
    approvals = Approvals(read_approvers(settings.approvers_file), time.monotonic, time.time_ns)
    if settings.command_token_file is not None:
        service.command.use_tokens(FileToken(settings.command_token_file))
    ledger = Ledger(settings.state_dir, keeps_reserve=True)
    executor = GroupCommit(ledger)
    clocks = SystemClocks(service.site_time)
    incarnation = f"{time.time_ns():x}"
    audit = Audit(service.bus, "guard", incarnation)
    orders = Orders(ledger, executor, owner)
    overrides = Overrides(ledger, executor, owner, service.devices, audit, clocks.now, clocks.site)
    picture = LivePicture(service.site_time, clocks.wall_ns, max(KEPT_SETS, owner.most_sets))

    def locked(key: Key, options: Sequence[str]) -> Mapping[str, str]:
        return locked_options(owner.rules(service.devices), key, options, picture.view, clocks.site())

    desk = LeaseDesk(
        service.bus, owner, service.devices, audit, clocks.site, clocks.now, orders, overrides.problem, locked
    )
    overrides.end_lease = desk.end
    alone = Alone(service.bus, incarnation)
    teller = Teller(service.bus, service.settings.gateway)
    notices = _notices(service)
    overrides.notice = notices.by_hand

    consents = Consents(service.bus, owner, service.devices, audit, approvals, clocks.now)
    consents.alone = lambda job, risk_class: notices.wanted(job.agent, job.command, risk_class)
    fence = TaskFence(service.bus, clocks.now)

    def tell(agent: str, outcome: Outcome) -> None:
        teller.tell(agent, outcome)
        notices.ended(agent, outcome, owner.site)

    def park(job: Job, verdict: NeedsApproval) -> str:
        # It may have been paused while the wait was written down.
        problem = orders.problem(job.agent, job.command.device, job.sequence) or approvals.park(job, verdict)
        if not problem and not consents.begin(job, verdict):
            notices.wanted(job.agent, job.command, verdict.risk_class)
        return problem

    doors = ServiceDoors(service.devices.device, service.metadata, service.http)
    means = Means(
        ledger, executor, owner, service.devices, picture, desk,
        commands_by(settings.command_route, service.command, doors), audit, clocks, tell, teller.all_told, park, orders,
        overrides, task_problem=fence.problem,
    )  # fmt: skip
    guard = Guard(service, means, approvals, teller, notices, settings.site_file, alone, ClockSteps(clocks, means))
    guard.files = AgentFolder(settings.agents_dir, written, guard.take_over)
    guard.consents, consents.put = consents, guard.lanes.put
    guard.fence = fence
    _measure(service.metrics, guard)
    _listens(service, guard)
    bridge = await bridge_of(service, MqttSettings())
    guard.gateways = gateways
    guard.start(guard.run(), "guard")
    if bridge is not None:
        guard.start(bridge.run(), "mqtt bridge")
    try:
        async with open_door(service, DoorSettings(), settings.state_dir, audit) as door:
            add_routes(service.app, guard, door)
            yield
    finally:
        await guard.stop()
        executor.shutdown(wait=True)
        ledger.close()


def _notices(service: EdgexService) -> Notices:
    registry = None
    if service.keeper is not None and service.options.use_registry:
        registry = RegistryAddress(service.keeper, SERVICE, host_of_others(service.options))
    rest = Rest(
        SERVICE, NotificationsAddress(service.config, registry), service.http, tokens=service.security.tokens
    )  # fmt: skip
    return Notices(rest, service.key, time.monotonic)


class Guard:
    """The guard's tasks, in the order they can start."""

    def __init__(
        self,
        service: EdgexService,
        means: Means,
        approvals: Approvals,
        teller: Teller,
        notices: Notices,
        site_file: Path,
        alone: Alone,
        steps: ClockSteps,
    ) -> None:
        """Prepare; `run` starts everything. `site_file` is named in messages."""
        self._site_file = site_file
        self.service = service
        self.means = means
        self.approvals = approvals
        self.teller = teller
        self.notices = notices
        self.alone = alone
        self.steps = steps
        self.lanes = Lanes(means, service.tasks)
        self.people = People(
            means, approvals, self.lanes.put, lambda: service.bus.last_sequence(subjects.COMMANDS_STREAM)
        )  # fmt: skip
        self.intake = Intake(service.bus, means, self.lanes, service.site_time, service.dead_letters)
        self.concerns: Concerns | None = None  # once the ledger was read
        self.room = Room(service.bus, lambda: means.owner.agents, means.audit, means.clocks.now, LIMITS)
        self._tasks: list[asyncio.Task[None]] = []
        self._told: set[str] = set()
        self.files: AgentFolder | None = None
        self.gateways: Gateways | None = None
        self.consents: Consents | None = None
        self.fence: TaskFence | None = None

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until `stop`; an exception in it ends the service."""
        self._tasks.append(self.service.tasks.create_task(work, name=name))

    async def stop(self) -> None:
        """Take nothing in any more, give what is under way a moment, tell and write down what there is, and end.

        A command that is not done by then is found out about at the next start, as after a crash.
        """
        for task in self._tasks:
            if task.get_name() not in ("audit", "teller"):
                task.cancel()
        await self.lanes.stop(GRACE_S)
        await self.teller.drain()
        self.people.tell_of_guesses(at_once=True)
        await self.means.audit.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self) -> None:
        """Bring streams, leases and the picture up, settle what a crash left open, then serve for ever."""
        service, means = self.service, self.means
        await ensure_streams(service.bus, service.edgex.base, len(means.owner.agents) + len(means.owner.unread))
        await self.alone.come()
        if self.gateways is not None:
            self.start(keep_mirrors(service.bus, self.gateways), "mirrors")
        self.start(means.audit.run(), "audit")
        generation, last_before, past = await self._generation()
        self.start(self.teller.run(means), "teller")
        self.start(self.notices.run(), "notices")
        means.audit.append("started", generation=generation, site=str(means.owner.site.model_dump_json()))
        await service.devices.wait_ready()
        await self.steps.catch_up()
        service.devices.on_change(lambda change: self._on_devices())
        self._load()
        waiting = await self._settle()
        means.picture.on_event = self.lanes.seen
        self.concerns = Concerns(means.owner, service.devices, means.overrides.resources())
        await means.picture.follow(service.edgex, self.concerns)
        await means.picture.read_back(service.bus, service.edgex)
        self._check_site()
        for job in waiting:  # before what came meanwhile, and when the gate knows what devices show
            await self.lanes.put(job)
        self.start(self.intake.run(last_before, past), "intake")
        self.start(self._housekeeping(), "housekeeping")
        self.start(self.room.run(), "room")
        if self.consents is not None and self.consents.is_wanted:
            self.start(self.consents.run(), "consents")
        if self.files is not None:
            self.start(self.files.run(), "agent files")
        await means.desk.serve()

    def _load(self) -> None:
        """Take in what the ledger says was set, what devices should show, and what may still take effect."""
        means = self.means
        means.picture.load(means.ledger, self.service.devices, means.clocks.site() - means.owner.longest_s)
        means.overrides.load()
        for key, values in means.overrides.late_values().items():
            means.picture.doubt(key, values)
        means.picture.on_reading = means.overrides.seen
        means.picture.knows = lambda name: self.service.devices.device(name) is not None

    async def take_over(self, known: Known, change: Change) -> None:
        """Have what the agents' files say now take effect."""
        await have_effect(self.means, self.service.bus, known, change)
        if self.concerns is not None:
            self.concerns.forget()

    def _on_devices(self) -> None:
        self.means.overrides.forget_rules()
        self.lanes.rounds.forget()
        if self.concerns is not None:
            self.concerns.forget()
        self._check_site()

    async def _generation(self) -> tuple[int, int, Past]:
        """Return the generation in force, where the stream ended before it, and what a lost ledger has to be told."""
        bus, means, ledger = self.service.bus, self.means, self.means.ledger
        last_sequence, floor = ledger.number("last_sequence"), await acknowledged(bus)
        wall_ms = means.clocks.wall_ns() // 1_000_000
        generation = await means.desk.read_back(ledger.number("generation"), last_sequence, wall_ms, floor)
        last_before = await bus.last_sequence(subjects.COMMANDS_STREAM)
        # First: to the next start nothing looks lost any more.
        await forget_unsure(bus, means, is_lost=means.desk.is_lost)
        await means.on_disk(ledger.remember, "generation", generation)
        past = NOTHING_LOST
        if means.desk.is_lost:
            log.warning("state is new, lost or restored: generation %d begins", generation)
            past = await reconcile(bus, means, last_sequence, floor, last_before)
        await self.alone.begin(generation)
        self.start(self.alone.watch(), "alone")
        return generation, last_before, past

    def _unapproved(self, job: Job) -> str:
        """Return why a command that waited does not go out, with what agents said to it."""
        words = self.consents.words(job) if self.consents is not None else ""
        return "nobody approved it in time" + (f"; {words}" if words else "")

    def _check_site(self) -> None:
        """Say, once each, what in site.yaml does not fit the devices there are now; the gate refuses it."""
        for problem in self.means.owner.site_problems(self.service.devices):
            if problem not in self._told:
                self._told.add(problem)
                log.error("%s: %s", self._site_file, problem)

    async def _settle(self) -> list[Job]:
        """Begin with what went out, or may have; return what did not, and still may."""
        unfinished = await self.means.on_disk(self.means.ledger.unfinished)
        waited: list[Entry] = []
        for entry in (*await self.means.on_disk(self.means.ledger.quarantined), *unfinished):
            if entry.phase in ("intent", "done"):
                await self.lanes.put(entry)
            else:
                waited.append(entry)
        return await still_due(self.means, waited)

    async def _housekeeping(self) -> None:
        next_forget_s = 0.0
        while True:
            await asyncio.sleep(0.25)
            self.steps.look()
            for job, why in [(job, self._unapproved(job)) for job in self.approvals.overdue()]:
                await end(self.means, job, "expired", why, "approval")
            for key in await self.means.overrides.tick():
                self.lanes.reckon(key)
            self.lanes.look()
            self.people.tell_of_guesses()
            if self.means.clocks.now() >= next_forget_s:
                next_forget_s = self.means.clocks.now() + 3600
                before_s = self.means.clocks.wall_ns() / 1e9 - 7 * DAY_S
                sets_before_s = self.means.clocks.site() - self.means.owner.keeps_s
                await self.means.on_disk(self.means.ledger.forget, before_s, sets_before_s)


def _measure(metrics: Metrics, guard: Guard) -> None:
    """Tell of what the guard does; `METRICS` are the names, all off until the owner switches them on."""
    metrics.counter("GuardCommandsReceived", read=lambda: guard.intake.counts["received"])
    for status in get_args(OutcomeStatus):
        metrics.counter("GuardOutcomes", {"status": status}, lambda status=status: guard.teller.counts[status])  # type: ignore[misc]
    metrics.add("GuardGateTime", guard.means.gate_time)
    metrics.counter("GuardLeaseGrants", read=lambda: guard.means.desk.grants)
    metrics.gauge("GuardWaiting", read=lambda: guard.lanes.waiting)
    for word in ("sent", "failed", "dropped", "repeated"):
        metrics.counter("GuardNotices", {"notice": word}, lambda word=word: guard.notices.counts[word])  # type: ignore[misc]


def _listens(service: EdgexService, guard: Guard) -> None:
    """Tell NATS tools where the guard listens, and how much came there."""
    gateway, desk = service.settings.gateway, guard.means.desk
    service.micro.endpoints += [
        Endpoint("sessions", subjects.sessions(gateway), lambda: desk.counts["sessions"]),
        Endpoint("leases", subjects.leases(gateway), lambda: desk.counts["leases"]),
        Endpoint("commands", subjects.commands(gateway), lambda: guard.intake.counts["received"]),
    ]


def add_routes(app: FastAPI, guard: Guard, door: Mapping[str, int]) -> None:
    """Add the guard's own routes to the common ones; `door` counts what agents asked of EdgeX, by answer."""

    add_people_routes(app, guard.people, guard.approvals)

    @app.get("/api/v3/guard", **shows(GuardState, "What it does."))
    async def state() -> dict[str, Any]:
        """Tell what the guard does and how it went so far."""
        table = guard.means.desk.table
        return {
            "apiVersion": "v3",
            "statusCode": 200,
            "generation": table.generation,
            "sessions": sorted(session.agent for session in table.heard),
            "leases": [
                {
                    "deviceName": key[0],
                    "resourceName": key[1],
                    "agent": changes[-1].session.agent,
                    "epoch": str(changes[-1].epoch),
                }
                for key, changes in sorted(table.leases.items())
                if changes[-1].session is not None
            ],
            "blocked": await guard.means.on_disk(guard.means.ledger.blocked),
            "overrides": guard.means.overrides.listed(),
            "waiting": guard.lanes.waiting,
            "volumeFull": guard.means.ledger.reserve is not None and guard.means.ledger.reserve.is_full,
            "notTaken": guard.room.cut,
            "wrongFiles": {str(path): text for path, text in guard.files.known.wrong.items()} if guard.files else {},
            "doubledAgents": dict(guard.means.owner.doubled),
            **guard.people.orders(),
            "commands": dict(guard.intake.counts),
            "outcomes": dict(guard.teller.counts),
            "door": dict(door),
            "unreadable": dict(guard.means.picture.unreadable),
            "consents": dict(guard.consents.counts) if guard.consents is not None else {},
            "tasks": dict(guard.fence.counts) if guard.fence is not None else {},
        }
