"""A gateway in memory: the real guard as `app.py` wires it, beside it a broker, devices, agents and a witness.

Nothing here takes the guard's word: the witness knows what agents sent, what stands in the stream and what reached
the devices, and writes down, as `faults`, what should not have been.
"""

import asyncio
import itertools
import json
import shutil
import tempfile
import traceback
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final, cast

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import BusMessage, StoredMessage
from edgeagents.audit import Audit
from edgeagents.clock import SteppedClock
from edgeagents.errors import DeviceSilentError, LockedError, NotFoundError, UpstreamError
from edgeagents.model.agent import PRIORITIES, AgentDefinition
from edgeagents.model.device import Device, Event, Profile
from edgeagents.model.message import Command, Epoch, Heartbeat, LeaseRecord, LeaseReply, LeaseRequest, Outcome
from edgeagents.model.site import Site
from edgeagents.protocol.gate import Key
from edgeagents.protocol.lease import SESSION_S, Session
from edgeagents.settings import SiteTime
from services.guard.app import Guard
from services.guard.approvals import Approvals
from services.guard.clocks import ClockSteps
from services.guard.desk import LeaseDesk
from services.guard.intake import Teller
from services.guard.jobs import Means
from services.guard.ledger import Ledger
from services.guard.orders import Orders
from services.guard.overrides import Overrides
from services.guard.owner import Owner
from services.guard.picture import LivePicture
from tests.unit.services.guard.bus import Delivered, MemoryBus
from tests.unit.services.guard.hand_loop import HandLoop
from tests.unit.services.guard.rig import PROFILE, event

WALL_S: Final = 1_700_000_000.0
HOLD_S, STAND_BACK_S, WAIT_S, QUARANTINE_S, SILENT_S = 20.0, 30.0, 1.0, 4.0, 3.0
RAM: Final = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
SITE: Final = Site.model_validate({
    "resources": [
        {"profile": "Valve", "resource": "Setpoint", "risk_class": "A", "kind": "absolute", "minimum": 10,
         "proof": {"resource": "Setpoint", "tolerance": 0.1, "wait": WAIT_S},
         "quarantine": QUARANTINE_S, "stand_back": STAND_BACK_S},
        {"profile": "Valve", "resource": "Open", "risk_class": "A", "kind": "toggle",
         "proof": {"resource": "Open", "wait": WAIT_S}, "quarantine": QUARANTINE_S, "stand_back": STAND_BACK_S},
        {"profile": "Valve", "resource": "Count", "risk_class": "A", "quarantine": QUARANTINE_S},
    ],
    "interlocks": [
        {"name": "one-open", "forbid": {"device": "valve", "resource": "Open", "equals": True},
         "during": {"device": "pump", "resource": "Open", "equals": True}, "max_age": 600},
    ],
    "priority_hold": HOLD_S,
})  # fmt: skip
KINDS: Final = {"Setpoint": "absolute", "Open": "toggle", "Count": "step"}
CLASSES: Final = {"air": "comfort", "heat": "health", "save": "economy", "eye": "comfort"}
MAY: Final = {"air": ("Setpoint", "Open", "Count"), "heat": ("Setpoint", "Open"), "save": ("Setpoint", "Open")}
AGENTS: Final = {
    name: AgentDefinition.model_validate({
        "name": name, "mode": "observe" if name == "eye" else "act", "priority": priority,
        "watches": [{"profile": "Valve"}],
        "may": [{"profile": "Valve", "resource": resource} for resource in MAY.get(name, ("Setpoint", "Open"))],
    })
    for name, priority in CLASSES.items()
}  # fmt: skip
DEVICES: Final = {name: Device(name=name, profile_name="Valve") for name in ("valve", "pump", "fan")}
OTHER_SIDE: Final[dict[Key, Key]] = {("valve", "Open"): ("pump", "Open"), ("pump", "Open"): ("valve", "Open")}
_SET_AGAIN: Final = uuid.UUID("5a0c6a3e-2d1f-4b53-9d9b-0d8f6a8f7d52")


def number(text: str) -> float | bool | None:
    """Return what a text stands for on these devices, None when for nothing."""
    words = {"true": True, "1": True, "false": False, "0": False}
    try:
        return float(text)
    except ValueError:
        return words.get(text)


def value_of(resource: str, text: str) -> float | bool | None:
    """Return the value that a text of a resource stands for."""
    if resource == "Open":
        return {"true": True, "1": True, "false": False, "0": False}.get(text)
    return number(text)


@dataclass
class Stored:
    """A command in the stream, as the witness saw it stored."""

    sequence: int
    agent: str
    command: Command
    at_s: float

    @property
    def key(self) -> Key:
        return self.command.device, self.command.resource

    @property
    def value(self) -> float | bool | None:
        return value_of(self.command.resource, self.command.value)


@dataclass
class Sent:
    """A SET that left the guard."""

    at_s: float
    key: Key
    value: float | bool | None
    correlation: str
    how: str
    of: list[Stored] = field(default_factory=list)  # commands it may be of; several agents may use one id
    landed_s: float | None = None


class AtOnce(ThreadPoolExecutor):
    """Calls at once, as the loop does: there is no thread."""

    def submit(self, fn: Any, /, *arguments: Any, **words: Any) -> Any:
        done: Future[Any] = Future()
        done.set_result(fn(*arguments, **words))
        return done


class GuardClocks:
    """The gateway's clocks as the guard reads them: a step is told before a time after it."""

    def __init__(self, gateway: "Gateway") -> None:
        self.site_time = SiteTime()
        self.now = gateway.now
        self.wall = SteppedClock(gateway.wall_ns, gateway.now)

    def site(self) -> float:
        return self.site_time.at_ns(self.wall.wall_ns())

    def wall_ns(self) -> int:
        return self.wall.wall_ns()


class Broker(MemoryBus):
    """The stream of commands with a live consumer; its clock may be set."""

    def __init__(self, loop: HandLoop) -> None:
        super().__init__()
        self.loop = loop
        self.offset_s = 0.0
        self.stored_at: list[int] = []
        self.places: dict[str, int] = {}  # the newest of each subject
        self.arrived: asyncio.Queue[int] = asyncio.Queue()
        self.events: dict[str, Any] = {}  # newest event by device and resource
        self.on_record: Any = None
        self.is_connected = True
        self.js = SimpleNamespace(create_object_store=self._make_bucket)

    async def _make_bucket(self, bucket: str, **options: Any) -> None:
        """The object store is there."""

    def wall_ns(self) -> int:
        return int((WALL_S + self.loop.time() + self.offset_s) * 1e9)

    def put(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Store a message and return its place."""
        self.held.append((subject, data, dict(headers or {})))
        self.stored_at.append(self.wall_ns())
        self.places[subject] = len(self.held)
        return len(self.held)

    def newest_of(self, subject: str) -> int:
        return self.places.get(subject, 0)

    async def ensure_stream(self, name: str, captured: list[str], **options: Any) -> None:
        """Streams are there."""

    async def request(self, subject: str, data: bytes, **_: Any) -> Any:
        """The stream of tasks is there, too, and takes batches; nobody asks for anything else."""
        assert subject == f"$JS.API.STREAM.CREATE.{subjects.TASKS_STREAM}"
        return SimpleNamespace(data=json.dumps({"config": json.loads(data)}).encode())

    async def store(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *,
        expected_last: int | None = None, **more: Any,
    ) -> int:  # fmt: skip
        await asyncio.sleep(0)
        before = len(self.held)
        try:
            return await super().store(subject, data, headers, expected_last=expected_last, **more)
        finally:
            if len(self.held) > before:
                self.stored_at.append(self.wall_ns())
                self.places[subject] = len(self.held)
                if self.on_record is not None:
                    self.on_record(len(self.held), subject, data)

    async def server_time_ns(self, stream: str) -> int:
        return self.wall_ns()

    def message(self, sequence: int) -> StoredMessage:
        subject, data, headers = self.held[sequence - 1]
        return Delivered(subject, data, headers, "commands", sequence, self.stored_at[sequence - 1], acked=self.acked)

    async def consume(
        self, stream: str, durable: str, patterns: list[str], **options: Any
    ) -> AsyncIterator[StoredMessage]:
        while True:
            yield self.message(await self.arrived.get())

    async def read(
        self, stream: str, patterns: list[str], *, name: str, last_per_subject: bool = False
    ) -> AsyncIterator[StoredMessage]:
        if stream == subjects.EVENTS_STREAM:
            for topic in list(self.events):
                yield Delivered(topic, topic.encode(), {}, stream, 1, 0, acked=[])
            return
        async for stored in super().read(stream, patterns, name=name):
            yield stored


class Plant:
    """Devices: `plan` says how the next SETs of a device go.

    do: it is so at once.        slow: in a second.      deaf: "yes", and nothing happens.
    refuse: "no", nothing.       never: silence.         unheard: it is so, but no answer.
    late: silence, and it is so long after.             broken: "failed", but it is so.
    """

    def __init__(self, gateway: "Gateway") -> None:
        self.gateway = gateway
        self.values: dict[Key, str] = {}
        self.by: dict[Key, Sent | None] = {}  # what brought the present value about; None: a hand
        self.plan: dict[str, list[tuple[str, float]]] = defaultdict(list)
        self.is_reporting = True
        self.is_readable = True

    async def set(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "", last_look: Any = None
    ) -> None:
        await asyncio.sleep(0)  # for a connection
        if last_look is not None:
            last_look()
        how, after_s = self.plan[device].pop(0) if self.plan[device] else ("do", 0.0)
        sent = self.gateway.witness.sent((device, command), values[command], correlation_id, how)
        loop = self.gateway.loop
        if how in ("do", "unheard", "broken"):
            self.land(sent, values[command])
        elif how in ("slow", "late"):
            loop.call_later(1.0 if how == "slow" else after_s, self.land, sent, values[command])
        await asyncio.sleep({"slow": 1.0, "never": SILENT_S, "unheard": SILENT_S, "late": SILENT_S}.get(how, 0.0))
        if how in ("never", "unheard", "late"):
            raise DeviceSilentError("no answer")
        if how == "refuse":
            raise LockedError("locked")
        if how == "broken":
            raise UpstreamError("500")

    async def get(self, device: str, command: str, *, correlation_id: str = "") -> Any:
        await asyncio.sleep(0)
        if not self.is_readable:
            raise NotFoundError("no reading")
        return self._event((device, command))

    def land(self, sent: Sent, text: str) -> None:
        """Have a SET take effect."""
        sent.landed_s = self.gateway.loop.time()
        self.values[sent.key], self.by[sent.key] = text, sent
        self.reports(sent.key)

    def by_hand(self, key: Key, text: str, *, is_reported: bool) -> None:
        """Have somebody set it at the device."""
        self.values[key], self.by[key] = text, None
        if is_reported:
            self.publish(key)

    def reports(self, key: Key) -> None:
        if self.is_reporting:
            self.publish(key)

    def publish(self, key: Key) -> None:
        """Have the guard get a reading, if there is one."""
        self.gateway.broker.events["/".join(key)] = found = self._event(key)
        self.gateway.hear(found)

    def _event(self, key: Key) -> Any:
        return event(*key, self.values[key], self.gateway.wall_ns() / 1e9, self.gateway.profile)


class Tasks:
    """A task group that only takes note."""

    def __init__(self, loop: HandLoop) -> None:
        self._loop = loop
        self.all: list[asyncio.Task[Any]] = []

    def create_task(self, work: Coroutine[Any, Any, Any], *, name: str = "") -> "asyncio.Task[Any]":
        self.all.append(self._loop.create_task(work, name=name))
        return self.all[-1]

    def failures(self) -> list[str]:
        """Return what ended tasks, with where it came from."""
        ended = [task for task in self.all if task.done() and not task.cancelled()]
        errors = [error for task in ended if (error := task.exception()) is not None]
        return ["".join(traceback.format_exception(error)) for error in errors]


class Gateway:
    """Broker, devices and the guard, which may be killed and started again."""

    site_rules: ClassVar[Site] = SITE
    agents: ClassVar[dict[str, AgentDefinition]] = AGENTS
    profile: ClassVar[Profile] = PROFILE
    devices: ClassVar[dict[str, Device]] = DEVICES

    def __init__(self) -> None:
        self.loop = HandLoop()
        asyncio.set_event_loop(self.loop)
        self.folder = Path(tempfile.mkdtemp(prefix="guard-", dir=RAM))
        self.wall_offset_s = 0.0
        self.executor = AtOnce(1)
        self.broker, self.plant = Broker(self.loop), Plant(self)
        self.witness = self.make_witness()
        self.broker.on_record = self.witness.stored_by_guard
        self.dead_letters: list[str] = []
        self.inboxes = itertools.count(1)
        self.start()

    def make_witness(self) -> "Witness":
        """Return who looks on."""
        return Witness(self)

    # --- clocks ------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.loop.time()

    def wall_ns(self) -> int:
        return int((WALL_S + self.loop.time() + self.wall_offset_s) * 1e9)

    def site(self) -> float:
        return SiteTime().at(self.wall_ns() / 1e9)

    # --- the guard's process -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the guard as `app.py` does, on the volume there is."""
        self.handler: Any = None
        self.wants: Any = None
        self.is_up = True
        self.ledger, self.tasks, self.on_device = Ledger(self.folder), Tasks(self.loop), []
        self.broker.arrived, self.broker.handlers = asyncio.Queue(), {}
        owner, cache = Owner(self.site_rules, dict(self.agents)), self._cache()
        clocks = GuardClocks(self)
        audit = cast(Audit, SimpleNamespace(append=self.witness.audited, run=_for_ever, drain=_at_once))
        orders = Orders(self.ledger, self.executor, owner)
        overrides = Overrides(self.ledger, self.executor, owner, cache, audit, clocks.now, clocks.site)
        desk = LeaseDesk(
            cast(Any, self.broker), owner, cache, audit, clocks.site, clocks.now, orders, overrides.problem
        )  # fmt: skip
        overrides.end_lease = desk.end
        approvals = Approvals({}, self.now, self.wall_ns)
        teller = Teller(cast(Any, self.broker), "gw")
        means = Means(
            self.ledger, self.executor, owner, cache, LivePicture(SiteTime(), clocks.wall_ns), desk,
            cast(Any, self.plant), audit, clocks, teller.tell, teller.all_told, approvals.park, orders, overrides,
        )  # fmt: skip
        service = SimpleNamespace(
            bus=self.broker, devices=cache, site_time=SiteTime(), tasks=self.tasks, dead_letters=self._dead_letter,
            settings=SimpleNamespace(gateway="gw"),
            edgex=SimpleNamespace(base="edgex", subscribe_events=self._subscribe, event=self._event),
        )  # fmt: skip
        notices = cast(Any, SimpleNamespace(run=_for_ever))
        # That there is one guard only is looked after elsewhere.
        alone = cast(Any, SimpleNamespace(come=_at_once, begin=_at_once, watch=_for_ever))
        steps = ClockSteps(cast(Any, clocks), means)
        self.guard = Guard(cast(Any, service), means, approvals, teller, notices, Path("site.yaml"), alone, steps)
        # Who floods the streams is looked after on a real broker (`tests/integration/test_flood.py`).
        self.guard.room = cast(Any, SimpleNamespace(run=_for_ever))
        self.guard.start(self.guard.run(), "guard")
        self.loop.run()
        assert self.handler is not None, "the guard is up"

    def kill(self) -> None:
        """End the guard where it is; what is on disk stays."""
        if not self.is_up:
            return
        self.is_up = False
        self.ledger.close()
        self.handler = None
        for task in self.tasks.all:
            task.cancel()
        self.loop.run()
        assert all(task.done() for task in self.tasks.all)

    def stop(self) -> None:
        """End the guard as its owner does."""
        self.handler = None
        stopping = self.loop.create_task(self.guard.stop())
        self.loop.run(5.0)
        assert stopping.done()
        self.kill()

    def close(self) -> None:
        """End all, leave nothing."""
        self.kill()
        self.executor.shutdown()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        self.loop.close()
        shutil.rmtree(self.folder)

    def _cache(self) -> Any:
        return SimpleNamespace(
            device=self.devices.get, profile_of=lambda name: self.profile if name in self.devices else None,
            miss=lambda: None, devices_by_name=self.devices, profiles_by_name={"Valve": self.profile},
            wait_ready=_at_once, on_change=self.on_device.append,
        )  # fmt: skip

    async def _dead_letter(self, subject: str, data: bytes, cause: str, text: str) -> None:
        self.dead_letters.append(cause)

    async def _subscribe(self, topic: str, handler: Any, wants: Any) -> None:
        self.handler, self.wants = handler, wants

    async def _event(self, topic: str, data: bytes, headers: Any) -> Any:
        return self.broker.events[data.decode()]

    async def _deliver(self, found: Event) -> None:
        if self.wants(f"edgex/events/device/svc/{found.profile_name}/{found.device_name}/{found.source_name}"):
            self.handler(found)

    def hear(self, found: Any) -> None:
        """Give the guard, if it is up, an event of the message bus."""
        if self.handler is not None:
            self.loop.create_task(self._deliver(found))

    # --- what agents do ------------------------------------------------------------------------------

    def ask(self, subject: str, message: Any) -> BusMessage | None:
        """Send a request to the guard and return its answer, if there is one at once."""
        reply = f"_INBOX.{next(self.inboxes)}"
        handler = self.broker.handler(subject)
        if handler is None:
            return None
        self.loop.create_task(handler(BusMessage(subject, wire.encode(message), {}, reply)))
        self.loop.run()
        return next((answer for answer in reversed(self.broker.answers) if answer.subject == reply), None)

    def beat(self, session: Session) -> None:
        """Send a sign of life; nobody waits for the answer."""
        handler = self.broker.handler(subjects.session("gw", session.agent))
        if handler is not None:
            self.witness.heard(session)
            message = BusMessage(
                subjects.session("gw", session.agent), wire.encode(Heartbeat(incarnation=session.incarnation))
            )
            self.loop.create_task(handler(message))

    def ask_lease(self, session: Session, key: Key, *, release: bool = False) -> None:
        """Ask for a lease, or give it back, and believe the answer."""
        request = LeaseRequest(incarnation=session.incarnation, device=key[0], resource=key[1], release=release)
        self.witness.asked(session, key, release=release)
        answer = self.ask(subjects.lease("gw", session.agent), request)
        reply = wire.decode(LeaseReply, answer.data) if answer is not None else None
        if release:
            self.witness.believed.pop((session, key), None)
        elif reply is not None and reply.granted:
            assert reply.epoch is not None
            self.witness.believed[session, key] = reply.epoch

    def publish(self, command: Command, agent: str) -> int:
        """Store a command and return its place in the stream."""
        sequence = self.broker.put(subjects.command("gw", command.device, agent), wire.encode(command))
        self.witness.stored(sequence, agent, command)
        return sequence

    def deliver(self, sequence: int) -> None:
        """Have the consumer deliver a message."""
        self.broker.arrived.put_nowait(sequence)


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _at_once(*arguments: Any) -> None:
    await asyncio.sleep(0)


class Witness:
    """What was sent, stored and carried out; what should not have been is a fault."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        acting = [agent for agent in gateway.agents.values() if agent.mode == "act"]
        self.may = {(agent.name, item.resource) for agent in acting for item in agent.may}
        self.faults: list[str] = []
        self.commands: dict[int, Stored] = {}
        self.records: dict[Key, list[tuple[int, LeaseRecord]]] = defaultdict(list)
        self.outcomes: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
        self.sets: list[Sent] = []
        self.audit: list[dict[str, Any]] = []
        self.corrections: set[str] = set()
        self.believed: dict[tuple[Session, Key], Epoch] = {}
        self.signs: dict[Session, tuple[float, float]] = {}  # last two signs of life
        self.asks: set[tuple[Session, Key]] = set()
        self.releases: set[tuple[Session, Key]] = set()
        self.used_s: dict[Key, float] = {}
        self.hands: dict[Key, list[tuple[float, float | bool | None]]] = defaultdict(list)
        self.highest: dict[Key, int] = {}

    # --- agents --------------------------------------------------------------------------------------

    def heard(self, session: Session) -> None:
        now_s = self.gateway.now()
        last = self.signs.get(session, (-1e9, -1e9))
        self.signs[session] = (last[1], now_s) if last[1] != now_s else last

    def asked(self, session: Session, key: Key, *, release: bool) -> None:
        if release:
            self.releases.add((session, key))
        else:
            # What is refused by the owner's files is no sign of life to the guard.
            if (session.agent, key[1]) in self.may:
                self.heard(session)
            self.asks.add((session, key))

    def restarted(self) -> None:
        """Take in that holders have their time of grace."""
        for record in [records[-1][1] for records in self.records.values() if records]:
            if record.agent:
                self.heard(Session(record.agent, record.incarnation))

    def may_have_died(self, session: Session) -> bool:
        before_s, last_s = self.signs.get(session, (-1e9, -1e9))
        now_s = self.gateway.now()
        return now_s - (before_s if last_s == now_s else last_s) > SESSION_S

    def stored(self, sequence: int, agent: str, command: Command) -> None:
        self.commands[sequence] = Stored(sequence, agent, command, self.gateway.now())

    # --- the guard -----------------------------------------------------------------------------------

    def audited(self, kind: str, **body: Any) -> None:
        self.audit.append({"kind": kind, **body})
        if kind == "correction":
            self.corrections.add(body["correlation"])
        if kind == "override":
            key = (body["device"], body["resource"])
            value = value_of(key[1], body["value"])
            if value not in [by_hand for _, by_hand in self.hands[key]]:
                self.faults.append(f"{key} = {value} was nobody's hand")

    def stored_by_guard(self, sequence: int, subject: str, data: bytes) -> None:
        if not subject.startswith("gw.commands."):
            outcome = wire.decode(Outcome, data)
            agent = subject.split(".")[2]
            self.outcomes[agent, outcome.command_id].append(outcome)
            return
        record = wire.decode(LeaseRecord, data)
        key = (record.device, record.resource)
        problem = self._record_problem(key, record)
        if problem:
            self.faults.append(f"record {sequence} of {key} for {record.agent!r}: {problem}")
        self.records[key].append((sequence, record))
        self.used_s[key] = self.gateway.now()
        self.gateway.deliver(sequence)

    def _record_problem(self, key: Key, record: LeaseRecord) -> str:
        held = self.records[key][-1][1] if self.records[key] else None
        holder = Session(held.agent, held.incarnation) if held is not None and held.agent else None
        if not record.agent:
            is_over = holder is not None and ((holder, key) in self.releases or self.may_have_died(holder))
            return "" if is_over or self.hands[key] else "ended for no reason"
        session = Session(record.agent, record.incarnation)
        if (session, key) not in self.asks:
            return "nobody asked"
        if (record.agent, key[1]) not in self.may:
            return "not permitted"
        if holder is None or self.may_have_died(holder):
            return ""
        if holder.agent == session.agent:
            return "another copy is alive" if holder != session else "has it already"
        if PRIORITIES.index(CLASSES[session.agent]) > PRIORITIES.index(CLASSES[holder.agent]):  # type: ignore[arg-type]
            return ""
        quiet_s = self.gateway.now() - self.used_s.get(key, 0.0)
        return "" if quiet_s > HOLD_S - 0.01 else f"taken from {holder} after {quiet_s} s"

    # --- what reaches devices ------------------------------------------------------------------------

    def sent(self, key: Key, text: str, correlation: str, how: str) -> Sent:
        now_s, value = self.gateway.now(), value_of(key[1], text)
        sent = Sent(now_s, key, value, correlation, how)
        if correlation in self.corrections:
            if KINDS[key[1]] != "absolute":
                self.faults.append(f"{key}: a {KINDS[key[1]]} was corrected")
        else:
            self._judge(sent)
            if how not in ("refuse", "broken"):
                self.used_s[key] = now_s
        self.sets.append(sent)
        return sent

    def _judge(self, sent: Sent) -> None:
        again = {str(uuid.uuid5(_SET_AGAIN, item.command.id)): item.command.id for item in self.commands.values()}
        name, is_again = again.get(sent.correlation, sent.correlation), sent.correlation in again
        found = [item for item in self.commands.values() if (item.command.id, item.key) == (name, sent.key)]
        problems = {item.sequence: self._problem(item, sent, is_again=is_again) for item in found}
        sent.of = [item for item in found if not problems[item.sequence]]
        if not sent.of:
            self.faults.append(f"SET {sent} is nobody's: {problems}")
            return
        senders = {item.agent for item in sent.of}
        earlier = [item for item in self.sets if (item.correlation, item.key) == (sent.correlation, sent.key)]
        earlier = [item for item in earlier if senders & {stored.agent for stored in item.of}]
        if len(earlier) >= len(senders):
            self.faults.append(f"SET {sent} a second time")
        # One that was stored again under its id is at either place.
        first, last = min(item.sequence for item in sent.of), max(item.sequence for item in sent.of)
        if last < self.highest.get(sent.key, 0):
            self.faults.append(f"SET {sent} of {last} after {self.highest[sent.key]}")
        self.highest[sent.key] = max(first, self.highest.get(sent.key, 0))
        self._interlock(sent)

    def _problem(self, item: Stored, sent: Sent, *, is_again: bool) -> str:
        command, resource = item.command, item.command.resource
        if item.value is None or item.value != sent.value:
            return "another value"
        if resource == "Setpoint" and not 10 <= item.value <= 30:
            return "out of the owner's range"
        if (item.agent, resource) not in self.may:
            return "not permitted"
        if is_again and KINDS[resource] != "absolute":
            return "set again"
        if sent.at_s > item.at_s + command.ttl_s + 1e-6:
            return f"late by {sent.at_s - item.at_s - command.ttl_s} s"
        if self.outcomes.get((item.agent, command.id)):
            return "it had ended"
        before = [entry for entry in self.records[item.key] if entry[0] < item.sequence]
        if not before:
            return "before any lease"
        place, record = before[-1]
        if (record.agent, record.incarnation) != (item.agent, command.incarnation):
            return f"the lease was of {record.agent} {record.incarnation}"
        held = Epoch(generation=record.generation, revision=place)
        return "" if command.epoch == held else f"epoch {command.epoch}, not {held}"

    def _interlock(self, sent: Sent) -> None:
        other = OTHER_SIDE.get(sent.key)
        if other is None or sent.value is not True:
            return
        plant = self.gateway.plant
        is_open = value_of("Open", plant.values[other]) is True and plant.by[other] is not None
        coming = any(
            item.key == other and item.value is True and item.how == "late" and item.landed_s is None
            for item in self.sets
        )
        if is_open or coming:
            self.faults.append(f"{sent} while {other} is open or may open")
