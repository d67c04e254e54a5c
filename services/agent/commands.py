"""A decision's intents -> leases and commands, and each command followed to its outcome.

The agent judges its own intents by the same gate as the guard, to save the trip; the guard's word counts.

Source: design.md sections 3.4 and 3.5.
"""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.errors import InvalidInputError, MalformedMessageError, TheirError, UnavailableError
from edgeagents.model.agent import PERSON, AgentDefinition, Decision, Intent
from edgeagents.model.message import (
    MAX_TTL_S,
    MAX_VALUE_CHARS,
    Cause,
    Command,
    CommandId,
    Epoch,
    Heartbeat,
    LeaseReply,
    LeaseRequest,
    Mode,
    Outcome,
    SessionWelcome,
)
from edgeagents.model.site import ResourceRule, Site
from edgeagents.model.values import Value, format_value, parse_value
from edgeagents.permissions import called
from edgeagents.protocol import gate, lease
from edgeagents.settings import SiteTime
from services.agent.bidding import Declined
from services.agent.outbox import Outbox
from services.agent.perception import Twin

log = logging.getLogger(__name__)

REQUEST_S: Final = 2.0
MOST_LEASE_REQUESTS: Final = 32  # at once: the guard hears some 250 a second, and each is to be answered in time
WELCOME_AGAIN_S: Final = 5.0
FIRST_HOLD_BACK_S: Final = 5.0
LONGEST_HOLD_BACK_S: Final = 300.0
NEVER_S: Final = 900_000_000.0
_NO_LEASE: Final = Epoch(generation=0, revision=0)
_COMMANDS: Final = uuid.UUID("b8a6a7a8-40a3-4d5c-8f2e-4f9fd1f0f9c6")


@dataclass(slots=True)
class Pending:
    """A command whose outcome is awaited."""

    command: Command
    published_s: float


@dataclass(slots=True)
class _HeldBack:
    until_s: float
    next_s: float = FIRST_HOLD_BACK_S


@dataclass(frozen=True, slots=True)
class Given:
    """What became of one intent."""

    intent: Intent
    command_id: str = ""
    held_back: str = ""
    is_lost: bool = False  # nobody judged it: no answer came, or the command was not stored
    text: str = ""  # the value as the command has it


@dataclass(frozen=True, slots=True)
class Errand:
    """What a command is given for, where that can be over before the command is.

    Args:
        left_s: the longest that its commands may live, seconds: nothing is done for what is over.
        is_wanted: looked at once more before a command is stored; False: it is left undone.
    """

    left_s: float
    is_wanted: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Order:
    """A wish that passed our own judgement: a command but for its lease, and its device's turn."""

    intent: Intent
    decision: Decision
    command: Command
    decided_s: float
    turn: contextlib.AbstractAsyncContextManager[None]
    errand: Errand | None = None


@dataclass(slots=True)
class _Memory:
    """What the commander remembers between decisions."""

    epochs: dict[gate.Key, Epoch] = field(default_factory=dict)
    pending: dict[CommandId, Pending] = field(default_factory=dict)
    held_back: dict[tuple[gate.Key, str], _HeldBack] = field(default_factory=dict)
    sets: defaultdict[gate.Key, deque[gate.PastSet]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=256))
    )


class Commander:
    """Asks for leases, publishes commands, follows outcomes. One for each run of an agent."""

    def __init__(
        self, bus: Bus, agent: AgentDefinition, devices: DeviceCache, twin: Twin, site_time: SiteTime, incarnation: str
    ) -> None:
        """Prepare; `keep_session` makes it able to command."""
        self._bus = bus
        self._agent = agent
        self._devices = devices
        self._twin = twin
        self._site_time = site_time
        self._incarnation = incarnation
        self._memory = _Memory()
        self._outbox = Outbox(bus, agent.name)
        self.welcome: SessionWelcome | None = None
        self._judged_by: tuple[SessionWelcome, Site, AgentDefinition] | None = None  # what that welcome means
        self.welcomed = asyncio.Event()
        self._asking = asyncio.Lock()
        self._leasing = asyncio.Semaphore(MOST_LEASE_REQUESTS)
        self._session = subjects.session(bus.settings.gateway, agent.name)
        self._beat = wire.encode(Heartbeat(incarnation=incarnation))
        self._told = ""
        self._awaited: dict[CommandId, asyncio.Future[Outcome]] = {}
        self._given_back: Counter[gate.Key] = Counter()  # how often a lease was given back
        self.link_s = 0.0  # how long the guard took to answer last
        # What was settled about a resource, and what comes of a wish whose lease another holds (conflicts.py).
        self.standing: Callable[[Intent, bool], Intent | str] = lambda intent, is_errand: intent
        self.on_held: Callable[[Intent, LeaseReply], None] = lambda intent, reply: None
        self.on_ended: Callable[[Outcome], None] = lambda outcome: None
        self.on_orders: Callable[[], None] = lambda: None  # the owner's orders are not what they were
        self.counts: Counter[str] = Counter()

    # --- session ---------------------------------------------------------------------------------

    async def keep_session(self) -> None:
        """Send heartbeats for ever; ask for the welcome again when called, and now and then anyway.

        Raises:
            UnavailableError: the connection is closed for good.
        """
        await self._bus.subscribe(called(self._agent.name), self._on_call)
        ask_at_s = 0.0
        while True:
            try:
                if time.monotonic() >= ask_at_s:
                    await self._ask()
                    ask_at_s = time.monotonic() + (WELCOME_AGAIN_S if self.welcome else lease.HEARTBEAT_S)
                else:
                    await self._bus.publish(self._session, self._beat, wire.AS_PROTOBUF)
            except (UnavailableError, MalformedMessageError) as error:
                if not self._told:
                    log.warning("agent %s has no session: %s", self._agent.name, error)
                    self._told = str(error)
            await asyncio.sleep(lease.HEARTBEAT_S)

    async def _on_call(self, message: BusMessage) -> None:
        """Ask what the guard says now; nothing in the call itself counts."""
        with contextlib.suppress(UnavailableError, MalformedMessageError):  # then it is asked for in its time
            await self._ask()

    async def _ask(self) -> None:
        async with self._asking:  # a later answer is never overtaken by an earlier one
            asked_s = time.monotonic()
            answer = await self._bus.request(
                self._session, self._beat, wire.AS_PROTOBUF, timeout_s=REQUEST_S
            )  # fmt: skip
            self.link_s = time.monotonic() - asked_s
            self._told = self._welcomed(wire.decode(SessionWelcome, answer.data), self._told)

    @property
    def mode(self) -> Mode:
        """What the guard lets the agent do, `observe` without a session: its word counts, not our file."""
        return self.welcome.mode if self.welcome is not None else "observe"

    def barred(self, device: str) -> str:
        """Return why we may command nothing at a device, by the owner's order as the guard told it; empty: we may."""
        if self.welcome is None or self.mode != "act":
            return "it observes: it commands nothing"
        return next((item.reason for item in self.welcome.paused if item.device in ("", device)), "")

    def _welcomed(self, welcome: SessionWelcome, told: str) -> str:
        before = self.welcome
        if welcome.refused:
            if told != welcome.refused:
                log.error("the guard refuses agent %s: %s", self._agent.name, welcome.refused)
            self.welcome = None
            if before is not None:
                self.on_orders()
            return welcome.refused
        if before is None or (welcome.generation, welcome.mode) != (before.generation, before.mode):
            log.info(
                "agent %s has a session, generation %d, mode %s", self._agent.name, welcome.generation, welcome.mode
            )
        if before is None or welcome.generation != before.generation:
            self._memory.epochs.clear()
        self.welcome = welcome
        self.welcomed.set()
        if before is None or (welcome.mode, welcome.paused) != (before.mode, before.paused):
            self.on_orders()
        return ""

    # --- commands --------------------------------------------------------------------------------

    def give(
        self, decision: Decision, cause: Cause, site_s: float, errand: Errand | None = None
    ) -> Awaitable[list[Given]]:
        """Turn each intent into a stored command, or say why it is held back; one that is under way is left out.

        What is decided is so when this returns: the same wish is under way from then on, and each device has its turn.
        Leases and storing are waited for by whoever awaits the answer.

        Args:
            decision: what the agent wants.
            cause: the message it was decided on.
            site_s: site time of the decision.
            errand: what it is for, if that can be over; `awaited` says how each of its commands ended.
        """
        found: list[Given | _Order] = []
        for ordinal, wish in enumerate(decision.intents):
            intent = self._settled(wish, decision, errand)
            if isinstance(intent, Given):
                found.append(intent)
                continue
            if self.under_way(intent) is not None:
                self.counts["under_way"] += 1
                continue
            try:
                found.append(self._ordered(intent, decision, cause, ordinal, site_s, errand))
            except TheirError as error:
                found.append(Given(intent, held_back=str(error)))
        return self._carried_out(found)

    def _settled(self, wish: Intent, decision: Decision, errand: Errand | None) -> Intent | Given:
        """Return a wish as settled with others, or why it is left undone; what a person asked for binds nobody."""
        if decision.question:
            return wish
        try:
            settled = self.standing(wish, errand is not None)
        except TheirError as error:
            return Given(wish, held_back=str(error))
        return Given(wish, held_back=settled) if isinstance(settled, str) else settled

    async def _carried_out(self, found: Sequence[Given | _Order]) -> list[Given]:
        orders = [item for item in found if isinstance(item, _Order)]
        if len(orders) == 1:
            answers = iter((await self._sent(orders[0]),))
        else:  # each device by itself: its turns keep its order
            answers = iter(await asyncio.gather(*map(self._sent, orders)))
        given = [next(answers) if isinstance(item, _Order) else item for item in found]
        for item in given:
            self.counts["published" if item.command_id else "held_back"] += 1
        return given

    def problem(self, intent: Intent, site_s: float) -> Declined | None:
        """Return why a command for this would not go out now, as far as we can tell; None: it would."""
        welcome = self.welcome
        if welcome is None:
            return Declined("no-session", "no session with the guard")
        if welcome.mode != "act":
            return Declined("observe", "mode observe")
        paused = self.barred(intent.device)
        if paused:
            return Declined("paused", paused)
        try:
            key = (intent.device, intent.resource)
            decision = Decision("", (intent,), "rule", 1.0, {}, 0)
            text = self._problem(key, self._text(key, intent.value), decision, welcome, site_s)
        except InvalidInputError as error:
            text = str(error)
        return Declined("not-possible", text) if text else None

    async def awaited(self, name: CommandId) -> Outcome:
        """Return how a command ended that was given for an errand; whoever gave it asks this at once, and once.

        Raises:
            InvalidInputError: no such command was given for an errand.
        """
        ending = self._awaited.get(name)
        if ending is None:
            raise InvalidInputError(f"command {name!r} was given for no errand, or was asked for before")
        try:
            return await ending
        finally:
            self._awaited.pop(name, None)

    def value_of(self, device: str, resource: str, text: str) -> Value:
        """Return a text as a value of a resource's type.

        Raises:
            InvalidInputError: it is none, or there is no such resource.
        """
        profile = self._devices.profile_of(device)
        found = profile.resource(resource) if profile else None
        if found is None:
            raise InvalidInputError(f"core-metadata knows no {device}/{resource} (yet)")
        return parse_value(found.properties.value_type, text)

    def _ordered(
        self, intent: Intent, decision: Decision, cause: Cause, ordinal: int, site_s: float, errand: Errand | None
    ) -> Given | _Order:
        welcome = self.welcome
        if welcome is None:
            return Given(intent, held_back="no session with the guard")
        if welcome.mode != "act":
            return Given(intent, held_back="mode observe")
        key = (intent.device, intent.resource)
        text = self._text(key, intent.value)
        problem = self._problem(key, text, decision, welcome, site_s)
        if problem:
            return Given(intent, held_back=problem)
        entry = next((item for item in welcome.site if (item.device, item.resource) == key), None)
        wait_s = entry.approval_wait_s if entry is not None and entry.risk_class != "A" else 0.0
        ttl_s = min(self._agent.ttl + wait_s, MAX_TTL_S, MAX_TTL_S if errand is None else errand.left_s)
        if not ttl_s > 0:
            return Given(intent, held_back="the time of what it is for is over")
        command = Command(
            id=self._id(decision, cause, ordinal, key, welcome.generation),
            device=intent.device,
            resource=intent.resource,
            value=text,
            incarnation=self._incarnation,
            epoch=self._memory.epochs.get(key, _NO_LEASE),
            ttl_s=ttl_s,
            cause=cause,
            decision_id=decision.id,
            because=intent.because[:2000],
            data_origin_ns=max(0, decision.data_origin_ns),
            decided_on=self._present(key),
        )
        decided_s = time.monotonic()
        self._memory.pending[command.id] = Pending(command, decided_s)
        if errand is not None:  # before it is stored: its outcome may be quicker than the broker's word
            self._awaited[command.id] = asyncio.get_running_loop().create_future()
        return _Order(intent, decision, command, decided_s, self._outbox.turn(command.device), errand)

    def _id(self, decision: Decision, cause: Cause, ordinal: int, key: gate.Key, generation: int) -> CommandId:
        if decision.question:
            return asked_command_id(self._agent.name, generation, decision.question, *key)
        return command_id(self._agent.name, generation, cause, ordinal)

    async def _sent(self, order: _Order) -> Given:
        """Send what was ordered, in its device's turn, under the lease there is then, unless its time is over."""
        pending, may_be_stored = self._memory.pending, False
        left_s = order.command.ttl_s - (time.monotonic() - order.decided_s)
        try:
            async with asyncio.timeout(left_s) as limit, order.turn:
                command = await self._leased(order)
                if isinstance(command, Given):
                    return self._left_undone(order, command)
                limit.reschedule(None)  # what may be stored is not broken off: the outbox looks after the time
                may_be_stored = True
                await self._outbox.store(command, order.decided_s)
        except TimeoutError:
            text = "neither its turn nor a lease came in time"
            return self._left_undone(order, Given(order.intent, held_back=text, is_lost=True))
        except TheirError as error:
            return self._left_undone(order, Given(order.intent, held_back=str(error), is_lost=True))
        except asyncio.CancelledError:
            self._awaited.pop(order.command.id, None)
            if not may_be_stored:  # else its outcome may come
                pending.pop(order.command.id, None)
            raise
        if command.id in pending:  # else its outcome was quicker
            pending[command.id] = Pending(command, time.monotonic())
        return Given(order.intent, command_id=command.id, text=command.value)

    async def _leased(self, order: _Order) -> Command | Given:
        """Return an order's command under the lease there is, or why it is not sent."""
        command = order.command
        settled = self._settled_otherwise(order)  # it has waited for its turn: by now it may be another's to give
        if settled is not None:
            return settled
        key = (command.device, command.resource)
        given_back = self._given_back[key]
        reply = await self._lease(key)
        if reply.epoch is None:
            self.on_held(order.intent, reply)
            return Given(order.intent, held_back=reply.reason or "no lease")
        if self._given_back[key] != given_back:  # while we asked: else we took back what is another's to give
            await self.release(key)
            return Given(order.intent, held_back="its lease was given back meanwhile", is_lost=True)
        if order.errand is not None and not order.errand.is_wanted():
            return Given(order.intent, held_back="what it was for is over: left undone")
        return command if reply.epoch == command.epoch else command.model_copy(update={"epoch": reply.epoch})

    def _settled_otherwise(self, order: _Order) -> Given | None:
        """Return why an order is left undone by what was settled since it was given, None when it is not."""
        settled = self._settled(order.intent, order.decision, order.errand)
        if isinstance(settled, Given):
            return settled
        if settled.value != order.intent.value:
            return Given(order.intent, held_back="it was settled otherwise meanwhile")
        return None

    def _left_undone(self, order: _Order, given: Given) -> Given:
        """Return what became of an order that was not stored; nothing waits for its outcome any more."""
        self._memory.pending.pop(order.command.id, None)
        self._awaited.pop(order.command.id, None)
        return given

    def under_way(self, intent: Intent) -> Given | None:
        """Return the command that wants the same and whose outcome is awaited, None when there is none."""
        key = (intent.device, intent.resource)
        waiting = {
            item.command.value: item.command.id for item in self._memory.pending.values()
            if (item.command.device, item.command.resource) == key
        }  # fmt: skip
        if not waiting:
            return None
        try:
            text = self._text(key, intent.value)
        except InvalidInputError:
            return None
        return Given(intent, command_id=waiting[text], text=text) if text in waiting else None

    def _present(self, key: gate.Key) -> str | None:
        current = self._twin.latest(key)
        try:
            return None if current is None or current.value is None else self._text(key, current.value)
        except InvalidInputError:  # not of the profile's type
            return None

    def _text(self, key: gate.Key, value: Value) -> str:
        profile = self._devices.profile_of(key[0])
        resource = profile.resource(key[1]) if profile else None
        if resource is None:
            raise InvalidInputError(f"core-metadata knows no {key[0]}/{key[1]} (yet)")
        kind = resource.properties.value_type
        if "int" in kind.lower() and isinstance(value, float) and value.is_integer():
            value = int(value)
        text = format_value(kind, value)
        if len(text) > MAX_VALUE_CHARS:
            raise InvalidInputError(f"a value of {len(text)} characters: {MAX_VALUE_CHARS} fit into a command")
        return text

    def _problem(self, key: gate.Key, text: str, decision: Decision, welcome: SessionWelcome, site_s: float) -> str:
        held = self._memory.held_back.get((key, text))
        if held is not None and time.monotonic() < held.until_s:
            return "held back after a refusal"
        devices = self._devices
        if self._judged_by is None or self._judged_by[0] is not welcome:
            self._judged_by = (welcome, _own_site(welcome), self._agent.model_copy(update={"mode": welcome.mode}))
        _, site, agent = self._judged_by
        rules = gate.Rules(site, {agent.name: agent}, devices.devices_by_name, devices.profiles_by_name)
        picture = gate.Picture(
            self._twin.readings, {key: tuple(self._memory.sets[key])} if key in self._memory.sets else {}
        )
        data_site_s = self._site_time.at_ns(decision.data_origin_ns) if decision.data_origin_ns else site_s
        proposal = gate.Proposal(self._agent.name, *key, text, data_site_s)
        verdict = gate.judge(proposal, rules, picture, site_s)
        return "; ".join(verdict.reasons) if isinstance(verdict, gate.Refused) else ""

    async def _lease(self, key: gate.Key) -> LeaseReply:
        known = self._memory.epochs.get(key)
        if known is not None:
            return LeaseReply(granted=True, epoch=known, holder=self._agent.name)
        request = LeaseRequest(incarnation=self._incarnation, device=key[0], resource=key[1])
        subject = subjects.lease(self._bus.settings.gateway, self._agent.name)
        async with self._leasing:
            answer = await self._bus.request(subject, wire.encode(request), wire.AS_PROTOBUF, timeout_s=REQUEST_S)
        reply = wire.decode(LeaseReply, answer.data)
        if reply.granted and reply.epoch is not None:
            self._memory.epochs[key] = reply.epoch
            return reply
        return reply.model_copy(update={"epoch": None})

    async def hold(self, key: gate.Key) -> bool:
        """Take the lease of a resource without a command; say whether it is ours."""
        try:
            return (await self._lease(key)).epoch is not None
        except TheirError as error:
            log.debug("no lease of %s/%s: %s", *key, error)
            return False

    async def release(self, key: gate.Key) -> None:
        """Give a lease back, so that somebody else can have it; of one that is not ours the guard says so."""
        self._memory.epochs.pop(key, None)
        self._given_back[key] += 1
        request = LeaseRequest(incarnation=self._incarnation, device=key[0], resource=key[1], release=True)
        subject = subjects.lease(self._bus.settings.gateway, self._agent.name)
        try:
            async with self._leasing:
                await self._bus.request(subject, wire.encode(request), wire.AS_PROTOBUF, timeout_s=REQUEST_S)
        except TheirError as error:
            log.warning("the lease of %s/%s is not given back: %s", *key, error)

    def quiet_s(self, key: gate.Key, site_s: float) -> float | None:
        """Return since when a lease of ours was not used, site seconds; None: we hold none."""
        if key not in self._memory.epochs:
            return None
        sets = self._memory.sets.get(key)
        return site_s - sets[-1].site_s if sets else NEVER_S

    async def prepare(self) -> None:
        """Find out what was stored last, so that the first command need not wait for it."""
        await self._outbox.prepare()

    # --- outcomes --------------------------------------------------------------------------------

    def ended(self, outcome: Outcome) -> None:
        """Take in how a command ended."""
        key = (outcome.device, outcome.resource)
        self.counts[outcome.status] += 1
        self.on_ended(outcome)
        self._memory.pending.pop(outcome.command_id, None)
        waiting = self._awaited.get(outcome.command_id)  # whoever awaits it takes it out
        if waiting is not None and not waiting.done():
            waiting.set_result(outcome)
        memory_key = (key, outcome.value)
        if outcome.status in ("proven", "unproven"):
            self._memory.held_back.pop(memory_key, None)
            self._proven(key, outcome)
            return
        # Whatever the reason, the lease may not be what it was; and the same wish at once would only end the same.
        self._memory.epochs.pop(key, None)
        held = self._memory.held_back.setdefault(memory_key, _HeldBack(0.0))
        held.until_s = time.monotonic() + held.next_s
        held.next_s = min(held.next_s * 2, LONGEST_HOLD_BACK_S)
        log.warning("%s/%s = %s: %s: %s", *key, outcome.value, outcome.status, outcome.reason)

    def _proven(self, key: gate.Key, outcome: Outcome) -> None:
        profile = self._devices.profile_of(key[0])
        resource = profile.resource(key[1]) if profile else None
        if resource is None:
            return
        try:
            value = parse_value(resource.properties.value_type, outcome.value)
        except InvalidInputError:
            return
        site_s = self._site_time.at_ns(outcome.finished_unix_ns)
        self._memory.sets[key].append(gate.PastSet(self._agent.name, value, site_s))
        self._twin.set_value(key, value, outcome.finished_unix_ns, site_s)

    def shift(self, by_site_s: float) -> None:
        """Move the times of past commands: the clock behind site time was set."""
        for past in self._memory.sets.values():
            moved = [replace(item, site_s=item.site_s + by_site_s) for item in past]
            past.clear()
            past.extend(moved)

    def forget_overdue(self) -> None:
        """Stop waiting for outcomes that cannot come any more: the guard tells every one, but may have been reset."""
        if not self._memory.pending and not self._memory.held_back:
            return  # asked after each event
        now_s = time.monotonic()
        for name, pending in list(self._memory.pending.items()):
            if now_s - pending.published_s > pending.command.ttl_s + 60:
                del self._memory.pending[name]
                self.counts["without_outcome"] += 1
        for wish, held in list(self._memory.held_back.items()):
            if now_s - held.until_s > LONGEST_HOLD_BACK_S:
                del self._memory.held_back[wish]

    @property
    def pending(self) -> Mapping[CommandId, Pending]:
        """Commands whose outcome is awaited."""
        return self._memory.pending


def command_id(agent: str, generation: int, cause: Cause, ordinal: int) -> CommandId:
    """Return the id of a command: a redelivered message makes the same command, not a second one."""
    return CommandId(str(uuid.uuid5(_COMMANDS, f"{agent}/{generation}/{cause.stream}/{cause.sequence}/{ordinal}")))


def asked_command_id(agent: str, generation: int, question: str, device: str, resource: str) -> CommandId:
    """Return the id of a command that answers a question: asked again, however often stored, it is the same command.

    It hangs on the resource, not on the place among the wishes: what is so by now is no wish any more when a question
    is understood again after a crash, and the others must not take its id. Nor on the value: "warmer" once is one step.

    Args:
        agent: who commands.
        generation: of the guard's state.
        question: `question_name` of what was said.
        device: its name.
        resource: its name.
    """
    source = json.dumps([PERSON, question, device, resource])
    return CommandId(str(uuid.uuid5(_COMMANDS, f"{agent}/{generation}/{source}")))


def _own_site(welcome: SessionWelcome) -> Site:
    """Return the part of site.yaml that the guard told this agent, in the gate's words."""
    return Site(
        resources=tuple(
            ResourceRule(
                device=entry.device,
                resource=entry.resource,
                risk_class=entry.risk_class,
                kind=entry.kind,
                minimum_interval=entry.minimum_interval_s,
            )
            for entry in welcome.site
        ),
        max_data_age=NEVER_S,  # the owner's word on it is not told to agents: the guard looks after it
    )
