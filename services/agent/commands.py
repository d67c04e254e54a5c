"""A decision's intents -> leases and commands, and each command followed to its outcome.

The agent judges its own intents by the same gate as the guard, to save the trip; the guard's word counts.

Source: design.md sections 3.4 and 3.5.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.errors import ForbiddenError, InvalidInputError, TheirError
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.message import (
    MAX_TTL_S,
    MAX_VALUE_CHARS,
    Cause,
    Command,
    CommandId,
    Epoch,
    LeaseReply,
    Outcome,
    SessionWelcome,
)
from edgeagents.model.site import ResourceRule, Site
from edgeagents.model.values import Value, format_value, parse_value
from edgeagents.protocol import gate
from edgeagents.settings import SiteTime
from services.agent.bidding import Declined
from services.agent.command_ids import asked_command_id, command_id
from services.agent.leases import Leases
from services.agent.outbox import Outbox
from services.agent.perception import Twin
from services.agent.session import GuardSession

log = logging.getLogger(__name__)

FIRST_HOLD_BACK_S: Final = 5.0
LONGEST_HOLD_BACK_S: Final = 300.0
MOST_LOGGED_CHARS: Final = 200
NEVER_S: Final = 900_000_000.0
_NO_LEASE: Final = Epoch(generation=0, revision=0)


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
        """Prepare; its session, once kept, makes it able to command."""
        self._agent = agent
        self._devices = devices
        self._twin = twin
        self._site_time = site_time
        self._incarnation = incarnation
        self._memory = _Memory()
        self._outbox = Outbox(bus, agent.name)
        self.session = GuardSession(bus, agent.name, incarnation)
        self.leases = Leases(bus, self.session, agent.name, incarnation)
        self._judged_by: tuple[SessionWelcome, Site, AgentDefinition] | None = None  # what that welcome means
        self._awaited: dict[CommandId, asyncio.Future[Outcome]] = {}
        # What was settled about a resource, and what comes of a wish whose lease another holds (conflicts.py).
        self.standing: Callable[[Intent, bool], Intent | str] = lambda intent, is_errand: intent
        self.on_held: Callable[[Intent, LeaseReply], None] = lambda intent, reply: None
        self.on_ended: Callable[[Outcome], None] = lambda outcome: None
        self.counts: Counter[str] = Counter()

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
        welcome = self.session.welcome
        if welcome is None:
            return Declined("no-session", "no session with the guard")
        if welcome.mode != "act":
            return Declined("observe", "mode observe")
        paused = self.session.barred(intent.device)
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
        welcome = self.session.welcome
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
            epoch=self.leases.epochs.get(key, _NO_LEASE),
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
                await self._outbox.store(command, order.decided_s, self._leased_again)
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
        given_back = self.leases.given_back[key]
        reply = await self.leases.take(key)
        if reply.epoch is None:
            self.on_held(order.intent, reply)
            return Given(order.intent, held_back=reply.reason or "no lease")
        if self.leases.given_back[key] != given_back:  # while we asked: else we took back what is another's to give
            await self.leases.release(key)
            return Given(order.intent, held_back="its lease was given back meanwhile", is_lost=True)
        if order.errand is not None and not order.errand.is_wanted():
            return Given(order.intent, held_back="what it was for is over: left undone")
        return command if reply.epoch == command.epoch else command.model_copy(update={"epoch": reply.epoch})

    async def _leased_again(self, command: Command) -> Command:
        """Return a command that could not be stored yet under the lease there is by now.

        Raises:
            ForbiddenError: there is none.
        """
        reply = await self.leases.take((command.device, command.resource))
        if reply.epoch is None:
            raise ForbiddenError(reply.reason or "no lease")
        return command.model_copy(update={"epoch": reply.epoch})

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

    def quiet_s(self, key: gate.Key, site_s: float) -> float | None:
        """Return since when a lease of ours was not used, site seconds; None: we hold none."""
        if key not in self.leases.epochs:
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
        self.leases.forget(key)
        held = self._memory.held_back.setdefault(memory_key, _HeldBack(0.0))
        held.until_s = time.monotonic() + held.next_s
        held.next_s = min(held.next_s * 2, LONGEST_HOLD_BACK_S)
        text = f"{outcome.value[:MOST_LOGGED_CHARS]}: {outcome.status}: {outcome.reason[:MOST_LOGGED_CHARS]}"
        log.warning("%s/%s = %s", *key, text)

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
