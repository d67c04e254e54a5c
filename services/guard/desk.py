"""Sessions and leases: a thin shell around `protocol/lease.py`. Requests are handled one after the other.

The lease ledger is the command stream itself: each change of holder is a record among the device's commands, and
at start all records are read back. Holders get one session time of grace then.

Source: design.md section 3.4.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from edgeagents import subjects
from edgeagents.adapters import telemetry, wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.device_cache import Change, DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError, StoreError, UnavailableError
from edgeagents.model.message import (
    Barred,
    Epoch,
    Heartbeat,
    LeaseRecord,
    LeaseReply,
    LeaseRequest,
    Locked,
    Message,
    Paused,
    SessionWelcome,
    SiteEntry,
)
from edgeagents.permissions import called
from edgeagents.protocol import lease
from edgeagents.protocol.effects import LeaseEffect, Reply, StoreLease
from edgeagents.protocol.gate import Key
from services.guard.orders import Orders
from services.guard.owner import Owner
from services.guard.reception import Handle, Kind, Reception

log = logging.getLogger(__name__)

CALL_AFTER_S: Final = 0.2  # devices come in crowds: agents are called once for all of them
STALL_S: Final = lease.SESSION_S / 2  # we did not run for so long, between two looks
INBOXES: Final = "_INBOX."
OBSERVES: Final = "it observes: it commands nothing"
MOST_TOLD_CHARS: Final = 300  # of a reason that stands in a list: the whole must fit a message
MOST_REASONS_BYTES: Final = 65_536  # of all reasons in a welcome: what is paused beyond that is named without
M = TypeVar("M", bound=Message)


class LeaseDesk:
    """Grants leases and keeps sessions; `table` is what the lanes check commands against."""

    def __init__(
        self,
        bus: Bus,
        owner: Owner,
        devices: DeviceCache,
        audit: Audit,
        site_now: Callable[[], float],
        now: Callable[[], float],
        orders: Orders,
        stands_back: Callable[[Key], str] = lambda key: "",
        locked: Callable[[Key, Sequence[str]], Mapping[str, str]] = lambda key, options: {},
    ) -> None:
        """Prepare; `read_back` and `serve` do the rest.

        Args:
            bus: where leases are asked for and kept.
            owner: the owner's files.
            devices: core-metadata's.
            audit: where changes of holder are written down.
            site_now: site seconds.
            now: monotonic seconds.
            orders: what the owner paused.
            stands_back: why agents leave a resource alone now; empty when they need not.
            locked: which of these values of a resource the owner's interlocks forbid now, and why.
        """
        self._orders = orders
        self._bus = bus
        self._owner = owner
        self._devices = devices
        self._audit = audit
        self._site_now = site_now
        self._now = now
        self._turn = asyncio.Lock()
        self._stands_back = stands_back
        self._locked = locked
        self.grants = 0
        self.counts: Counter[str] = Counter()
        handlers: dict[Kind, Handle] = {"sessions": self._on_session, "leases": self._on_lease}
        refuse: dict[Kind, Handle] = {"leases": self._on_too_many}
        # The coordinator asks who holds what, and is granted nothing; it is heard by itself, as each agent is.
        self._reception = Reception(bus, lambda: {*owner.agents, subjects.COORDINATOR}, handlers, self.counts, refuse)
        self.table = lease.LeaseTable(generation=0)
        self._reads: dict[str, str] = {}  # content type by agent, as it wrote last
        self.is_lost = False  # whether `read_back` found that state was lost
        self._problems: dict[str, str] = {}  # by agent, until something about devices or the owner's files changes
        self._parts: dict[str, tuple[SiteEntry, ...]] = {}  # what each agent was told that it may command
        self._changed: set[str] = set()  # devices, since agents were called for that
        self._has_news = asyncio.Event()  # of devices
        devices.on_change(self._on_devices)

    async def read_back(self, known_generation: int, last_sequence: int, wall_ms: int, floor: int = 0) -> int:
        """Read all lease records and return the generation in force, higher than any before when state was lost.

        Args:
            known_generation: what the guard's volume says; 0: it is new.
            last_sequence: highest stream sequence the volume remembers; a stream that ends earlier was lost.
            wall_ms: wall clock, for when nothing that is left tells the highest generation before.
            floor: up to which sequence guards acknowledged; a volume that remembers less was lost, or is an old one.
        """
        gateway = self._bus.settings.gateway
        pattern = subjects.lease_records(gateway)
        table, highest, newest = lease.LeaseTable(generation=0), 0, 0
        try:
            async for stored in self._bus.read(subjects.COMMANDS_STREAM, [pattern], name="guard-leases"):
                newest = stored.sequence
                try:
                    record = wire.decode(LeaseRecord, stored.data)
                except MalformedMessageError as error:
                    log.error("lease record %d cannot be read: %s", stored.sequence, error)
                    continue
                highest = max(highest, record.generation)
                if lease.is_start(record):
                    continue
                table, _ = lease.step(table, self._recorded(record, stored.sequence))
            newest = await self._bus.last_sequence(subjects.COMMANDS_STREAM)
        except NotFoundError:
            newest = 0
        is_whole = newest >= last_sequence
        self.is_lost = known_generation < max(highest, 1) or not is_whole or floor > last_sequence
        generation = lease.next_generation(
            highest, known_generation, is_lost=self.is_lost, is_stream_whole=is_whole, wall_ms=wall_ms
        )
        grace = {
            changes[-1].session: self._now() for changes in table.leases.values() if changes[-1].session is not None
        }
        self.table = lease.LeaseTable(generation, grace, table.leases)
        return generation

    async def serve(self) -> None:
        """Answer sessions and lease requests, and end the leases of silent sessions, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reception.serve(tasks), name="reception")
            tasks.create_task(self._call_for_devices(), name="calls")
            # Sessions were read back a while ago, and said what they say to nobody until now: no silence counts yet.
            await self._reception.hears.wait()
            async with self._turn:
                await self._step(lease.Overslept(self._now()), None)
            while True:
                began_s = self._now()
                await asyncio.sleep(lease.HEARTBEAT_S / 2)
                async with self._turn:
                    if self._now() - began_s > STALL_S:
                        await self._step(lease.Overslept(self._now()), None)
                    await self._step(lease.Tick(self._now()), None)
                    await self._end_paused()

    def seen(self, record: LeaseRecord, sequence: int) -> None:
        """Take in a record met in the stream; one whose acknowledgement got lost is learned of this way."""
        if lease.is_start(record):
            return
        self.table, _ = lease.step(self.table, self._recorded(record, sequence))

    async def end(self, key: Key, reason: str) -> None:
        """End whatever lease a resource has; whoever held it must ask again."""
        async with self._turn:
            await self._step(lease.Revoked(key, reason), None)

    def shift(self, by_site_s: float) -> None:
        """Move all site times: the clock behind them was set."""
        self.table, _ = lease.step(self.table, lease.Shifted(by_site_s))

    def used(self, key: Key) -> None:
        """Note that a command went out under the lease of a resource."""
        self.table, _ = lease.step(self.table, lease.Used(key, self._site_now()))

    def judge_anew(self) -> None:
        """Take in that the owner's files have changed: in the same step as they do, before anybody asks again."""
        self._problems.clear()

    async def end_unpermitted(self) -> None:
        """End the leases of who may hold them no longer, by the owner's files as they are now."""
        self._problems.clear()
        for key, changes in list(self.table.leases.items()):
            session = changes[-1].session
            if session is not None and self._owner.may_hold(session.agent, *key, self._devices):
                async with self._turn:
                    await self._step(lease.Released(session, key), None)

    def reads(self, agent: str) -> str:
        """Return the content type in which an agent is told how its commands ended: that of its heartbeats.

        Empty: none was heard yet, so nobody knows from here.
        """
        return self._reads.get(agent, "")

    async def call(self, agent: str) -> None:
        """Have an agent ask for its welcome at once: what it says has changed. An agent that misses it asks later."""
        try:
            await self._bus.publish(called(agent), b"")
        except UnavailableError as error:
            log.warning("agent %s learns its mode later: %s", agent, error)

    def _on_devices(self, change: Change) -> None:
        self._problems.clear()
        if change.kind == "device":
            self._changed.add(change.name)
            self._has_news.set()

    async def _call_for_devices(self) -> None:
        """Call each agent that may command something else since devices changed, for ever: else it learns it later."""
        while True:
            await self._has_news.wait()
            await asyncio.sleep(CALL_AFTER_S)
            self._has_news.clear()
            names, self._changed = self._changed, set()
            for agent, told in list(self._parts.items()):
                if agent not in self._owner.agents:
                    self._parts.pop(agent, None)
                elif set(self._owner.part_of(agent, self._devices, names)) != {e for e in told if e.device in names}:
                    await self.call(agent)
                await asyncio.sleep(0)  # others have their turn

    async def _end_paused(self) -> None:
        """End the leases of what is paused, so that others can take over; a broker that is away is tried again."""
        for key, changes in list(self.table.leases.items()):
            session = changes[-1].session
            if session is not None and self._orders.problem(session.agent, key[0]):
                await self._step(lease.Released(session, key), None)

    async def _on_session(self, agent: str, message: BusMessage) -> None:
        self.counts["sessions"] += 1
        heartbeat = self._decode(message, Heartbeat)
        if heartbeat is None:
            return
        problem = self._problem(agent)
        if agent in self._owner.agents:  # strangers choose their names: they would fill this up
            self._reads[agent] = wire.answers_in(message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        if not problem:
            session = lease.Session(agent, heartbeat.incarnation)
            self.table, _ = lease.step(self.table, lease.Heard(session, self._now()))
            if not lease.is_alive(self.table, session, self._now()):
                problem = f"{lease.MOST_SESSIONS} copies of agent {agent!r} are alive: end some"
        if not message.reply:
            return
        definition = self._owner.agents.get(agent)
        if problem or definition is None:
            refused = problem or self._owner.problem(agent, self._devices)
            await self._answer(message, SessionWelcome(generation=self.table.generation, refused=refused))
            return
        site = self._parts[agent] = self._owner.part_of(agent, self._devices)
        paused = self._paused(agent, {entry.device for entry in site})
        welcome = SessionWelcome(generation=self.table.generation, mode=definition.mode, site=site, paused=paused)
        await self._answer(message, welcome)

    def _paused(self, agent: str, devices: Collection[str]) -> tuple[Paused, ...]:
        """Return what is paused for an agent: all of it, and as many reasons as fit into a message with the rest."""
        found, left = [], MOST_REASONS_BYTES
        for pause in self._orders.concerning(agent, devices):
            reason = str(pause)[:MOST_TOLD_CHARS]
            left -= len(reason.encode())
            found.append(Paused(
                device=pause.name if pause.scope == "device" else "", reason=reason if left >= 0 else "paused"
            ))  # fmt: skip
        return tuple(found)

    def _told(self, key: Key, options: Sequence[str]) -> LeaseReply:
        """Return what the coordinator is told of a resource: who holds it, who may not command it, what is locked."""
        told = lease.told(self.table, key, self._now(), self._site_now())
        locked = self._locked(key, options)
        return told.model_copy(update={
            "barred": self._barred(*key), "judged": bool(options),
            "locked": tuple(Locked(option=name, reason=why[:MOST_TOLD_CHARS]) for name, why in locked.items()),
        })  # fmt: skip

    def _barred(self, device: str, resource: str) -> tuple[Barred, ...]:
        """Return who negotiates about a resource and may command nothing there now, by the owner's order."""
        found = []
        for name, definition in sorted(self._owner.agents.items()):
            if definition.negotiates is None or not definition.negotiates.covers(device, resource):
                continue
            reason = OBSERVES if definition.mode != "act" else self._orders.problem(name, device)
            if reason:
                found.append(Barred(agent=name, reason=reason[:MOST_TOLD_CHARS]))
        return tuple(found)

    def _problem(self, agent: str) -> str:
        """Return why an agent gets no session; asked at every heartbeat, judged once over all devices."""
        if agent not in self._problems:
            self._problems[agent] = self._owner.problem(agent, self._devices)
        return self._problems[agent]

    async def _on_lease(self, agent: str, message: BusMessage) -> None:
        self.counts["leases"] += 1
        request = self._decode(message, LeaseRequest)
        if request is None:
            await self._answer(message, LeaseReply(granted=False, reason="not a lease request"))
            return
        if agent == subjects.COORDINATOR:
            key = (request.device, request.resource)
            await self._answer(message, self._told(key, request.options))
            return
        problem = self._problem(agent)
        problem = problem or self._owner.may_hold(agent, request.device, request.resource, self._devices)
        problem = problem or self._orders.problem(agent, request.device)
        if not problem and not request.release:
            problem = self._stands_back((request.device, request.resource))
        if problem:
            await self._answer(message, LeaseReply(granted=False, reason=problem))
            return
        key, session = (request.device, request.resource), lease.Session(agent, request.incarnation)
        event: lease.LeaseEvent
        if request.release:
            event = lease.Released(session, key)
        else:
            event = lease.Asked(
                session,
                key,
                self._owner.agents[agent].priority,
                self._now(),
                self._site_now(),
                self._owner.site.priority_hold,
            )
        about = {"edgex.device": key[0], "edgex.resource": key[1], "agent": agent}
        with telemetry.span("lease", about, kind="server", parent=message.headers):
            async with self._turn:
                await self._step(event, message)

    async def _on_too_many(self, agent: str, message: BusMessage) -> None:
        reason = f"too many lease requests of {agent} wait: ask again later"
        await self._answer(message, LeaseReply(granted=False, reason=reason, retry_after_s=1.0))

    async def _step(self, event: lease.LeaseEvent, request: BusMessage | None) -> None:
        self.table, effects = lease.step(self.table, event)
        for effect in effects:
            await self._carry_out(effect, request)

    async def _carry_out(self, effect: LeaseEffect, request: BusMessage | None) -> None:
        match effect:
            case Reply(reply):
                if request is not None:
                    await self._answer(request, reply)
            case StoreLease(record):
                await self._store(record, request)

    async def _store(self, record: LeaseRecord, request: BusMessage | None) -> None:
        subject = subjects.command(self._bus.settings.gateway, record.device, subjects.GUARD)
        try:
            sequence = await self._bus.store(subject, wire.encode(record), wire.AS_PROTOBUF)
        except UnavailableError as error:
            # A record stored without acknowledgement is found at the next start; until then nobody has its epoch.
            if request is not None:
                await self._answer(request, LeaseReply(granted=False, reason=str(error), retry_after_s=1.0))
            return
        self.table, _ = lease.step(self.table, self._recorded(record, sequence))
        held = self.table.current((record.device, record.resource))
        epoch = Epoch(generation=record.generation, revision=sequence)
        holder = lease.Session(record.agent, record.incarnation) if record.agent else None
        if held is None or (held.epoch, held.session) != (epoch, holder):
            # Sequences that start anew: somebody emptied the broker under our feet. A restart raises the generation.
            raise StoreError(
                f"stream {subjects.COMMANDS_STREAM} ends at {sequence}, before what it held: starting anew"
            )
        self._audit.append("lease", **record.model_dump(), revision=sequence)
        if request is not None and record.agent:
            self.grants += 1
            await self._answer(request, LeaseReply(granted=True, epoch=epoch, holder=record.agent))

    def _recorded(self, record: LeaseRecord, sequence: int) -> lease.Recorded:
        holder = self._owner.agents.get(record.agent)
        return lease.Recorded(record, sequence, holder.priority if holder else "economy", self._site_now())

    def _decode(self, message: BusMessage, kind: type[M]) -> M | None:
        try:
            return wire.decode(kind, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self.counts["rejected"] += 1
            if self.counts["rejected"] == 1:
                log.warning("%s set aside: %s (further ones are only counted)", message.subject, error)
            return None

    async def _answer(self, message: BusMessage, answer: Message) -> None:
        if not message.reply.startswith(INBOXES):
            return  # we may publish anywhere: nobody is to borrow that
        content_type = wire.answers_in(message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        try:
            await self._bus.respond(message, wire.encode(answer, content_type), {CONTENT_TYPE: content_type})
        except (UnavailableError, InvalidInputError) as error:
            log.warning("no answer on %s: %s", message.subject, error)
