"""Settles conflicts over NATS: a thin shell around `negotiator.py` that takes them in, carries acts and keeps time.

Nothing is kept on disk: a coordinator that is killed leaves each conflict to the parties' own timers, and what was
settled stands in the audit. Who may take part, in which class, and who may give which value is read from the owner's
files, never from what an agent says of itself.

Source: design.md section 5; docs/conflicts.md.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, InvalidInputError, NotFoundError, TooManyAttemptsError
from edgeagents.model.agent import MOST_OPTIONS, AgentDefinition
from edgeagents.model.cooperation import MOST_PARTIES, Act, Dispute, DisputeTold
from edgeagents.model.skill import Aim
from edgeagents.protocol.conversation import Begin, Heard, Refuse, Tell, Tick
from edgeagents.protocol.effects import StartTimer
from services.coordinator import negotiator
from services.coordinator.eligibility import Site, device_problem, permission_problem
from services.coordinator.roster import Run

log = logging.getLogger(__name__)


MOST_LISTED: Final = MOST_OPTIONS + 2  # what an agent could live with, what it wants, and how things are
MOST_OPEN: Final = 256
MOST_OF_ONE: Final = 20  # conflicts that one agent may ask to settle within `WINDOW_S`
WINDOW_S: Final = 10.0
MOST_KEPT: Final = 1_000
MOST_AUDITED: Final = 50  # refusals a minute that are written down; all are counted
AS_PROTOBUF: Final = {CONTENT_TYPE: wire.PROTOBUF}


@dataclass(frozen=True, slots=True)
class Terms:
    """How conflicts are settled here: seconds to answer, of a holder's peace (site), and of an outcome (wall)."""

    answer_s: float = 0.5
    hold_s: float = 120.0
    stands_s: float = 10.0


@dataclass(slots=True)
class Open:
    """A conflict under way; times are monotonic."""

    state: negotiator.State
    case: negotiator.Case
    began_s: float
    began_unix_ns: int
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class Mediator:
    """Settles conflicts between agents of this gateway."""

    def __init__(
        self,
        bus: Bus,
        audit: Audit,
        site: Callable[[], Site],
        alive: Callable[[], Mapping[str, Run]],
        terms: Terms,
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Prepare.

        Args:
            bus: connected.
            audit: where settlements and refusals are written down.
            site: the owner's files and devices, as they are now.
            alive: agents that are there, by name.
            terms: how conflicts are settled.
            tasks: holds what is under way.
        """
        self._bus = bus
        self._audit = audit
        self._site = site
        self._alive = alive
        self._terms = terms
        self._tasks = tasks
        self._open: dict[str, Open] = {}
        self._asked: dict[str, deque[float]] = {}
        self._audited: deque[float] = deque(maxlen=MOST_AUDITED)
        self.ended: OrderedDict[str, dict[str, Any]] = OrderedDict()  # as clients see them, oldest first
        self.counts: Counter[str] = Counter()

    # --- what comes in ---------------------------------------------------------------------------

    async def file(self, claimant: str, dispute: Dispute) -> DisputeTold:
        """Take a conflict in and ask its parties; return under which name it is settled, or why it is not."""
        try:
            case = self._case(claimant, dispute)
        except EdgeAgentsError as error:
            self.refused(claimant, "conflict", f"{dispute.device}/{dispute.resource}: {error}")
            return DisputeTold(problem=str(error)[:2_000])
        if isinstance(case, str):  # it is being settled already, with this agent as a party
            self.counts["joined"] += 1
            return DisputeTold(conversation=case, ends_s=self._open[case].case.ends_s)
        self.counts["filed"] += 1
        now_s = time.monotonic()
        item = Open(negotiator.Planned(case), case, now_s, time.time_ns())
        self._open[case.conversation] = item
        await self._step(item, Begin(now_s))
        return DisputeTold(conversation=case.conversation, ends_s=case.ends_s)

    def _case(self, claimant: str, dispute: Dispute) -> negotiator.Case | str:
        """Return a conflict to be settled, or the name of the one that is about the same already.

        Raises:
            EdgeAgentsError: it cannot be settled here, and why.
        """
        for name, item in self._open.items():
            same = (item.case.dispute.device, item.case.dispute.resource) == (dispute.device, dispute.resource)
            if same and claimant in item.case.parties:
                return name
            if same:
                raise InvalidInputError(f"conflict {name} over it is under way: ask again when it has ended")
        self._check_flood(claimant)
        site = self._site()
        parties = self._parties(claimant, dispute, site)
        if not dispute.others:  # it hangs on all that are there and could have it so
            dispute = dispute.model_copy(update={"others": parties[1:]})
        able, problems = _able(dispute, parties, site)
        forbidden = {
            option: problems[option] for option in dispute.options
            if not any(option in able[name] for name in parties)
        }  # fmt: skip
        return negotiator.Case(
            conversation=f"conflict-{secrets.token_hex(8)}", dispute=dispute, claimant=claimant, parties=parties,
            priorities={name: site.agents[name].priority for name in parties}, able=able, forbidden=forbidden,
            answer_s=self._terms.answer_s, hold_s=self._terms.hold_s, stands_s=self._terms.stands_s,
        )  # fmt: skip

    def _check_flood(self, claimant: str) -> None:
        now_s = time.monotonic()
        asked = self._asked.setdefault(claimant, deque(maxlen=MOST_OF_ONE))
        if len(asked) == MOST_OF_ONE and now_s - asked[0] < WINDOW_S:
            raise TooManyAttemptsError(f"{MOST_OF_ONE} conflicts of {claimant} in {WINDOW_S:g} s", WINDOW_S)
        if len(self._open) >= MOST_OPEN:
            raise TooManyAttemptsError(f"{MOST_OPEN} conflicts are under way", 1.0)
        asked.append(now_s)

    def _parties(self, claimant: str, dispute: Dispute, site: Site) -> tuple[str, ...]:
        """Return the claimant, whom it names, and who else could want something there; five at most.

        Raises:
            InvalidInputError: what was asked is no conflict between agents that negotiate about it.
        """
        others = tuple(name for name in dispute.others if name != claimant)
        if len(others) >= MOST_PARTIES or len(set(others)) != len(others):
            raise InvalidInputError(f"it names {len(others)} others: {MOST_PARTIES - 1} at most, each once")
        if len(dispute.options) > MOST_LISTED:
            raise InvalidInputError(f"{len(dispute.options)} options: {MOST_LISTED} at most are looked at")
        if len(set(dispute.options)) != len(dispute.options):
            raise InvalidInputError("an option stands there twice")
        if dispute.wanted not in dispute.options:
            raise InvalidInputError(f"what is wanted, {dispute.wanted!r}, is none of the options")
        for name in (claimant, *others):
            problem = _party_problem(name, dispute, site, needs_permission=name != claimant)
            if problem:
                raise InvalidInputError(problem)
        alive = self._alive()
        beside = [
            name for name in sorted(site.agents)
            if name in alive and name not in (claimant, *others) and not _party_problem(name, dispute, site)
        ]  # fmt: skip
        if not others and not beside:
            raise InvalidInputError(
                f"nobody who is there negotiates about {dispute.device}/{dispute.resource} and may command it"
            )
        return (claimant, *others, *beside)[:MOST_PARTIES]

    async def heard(self, sender: str, said: Act) -> bool:
        """Take an act in; False when it belongs to no conflict that is known here."""
        item = self._open.get(said.conversation)
        if item is None:
            if said.conversation not in self.ended:
                return False
            self.counts["refused_late"] += 1
            return True
        self.counts["acts_heard"] += 1
        await self._step(item, Heard(sender, said, time.monotonic()))
        return True

    def refused(self, sender: str, cause: str, text: str) -> None:
        """Count what was not accepted, and write the first ones of each minute down."""
        self.counts[f"refused_{cause}"] += 1
        now_s = time.monotonic()
        if len(self._audited) == MOST_AUDITED and now_s - self._audited[0] < 60:
            return
        self._audited.append(now_s)
        plain = text[:500].encode(errors="backslashreplace").decode()
        self._audit.append("conflict-refused", sender=sender, cause=cause, text=plain)

    # --- what follows ----------------------------------------------------------------------------

    async def _step(self, item: Open, event: negotiator.Event) -> None:
        """Carry one event's effects out, in order; what was settled goes to the audit before anybody is told."""
        try:
            item.state, effects = negotiator.step(item.state, event)
        except Exception:  # a word of one may not end the service of all: said, counted, its parties end by themselves
            self.counts["unexpected"] += 1
            log.exception("%s: not settled", item.case.conversation)
            self._drop(item)
            return
        if isinstance(item.state, negotiator.Ended) and item.case.conversation in self._open:
            self._settled(item, item.state)
        for effect in effects:
            match effect:
                case Tell(to, said):
                    await self._send(to, said)
                case Refuse(sender, cause, text):
                    if cause == "late":
                        self.counts["refused_late"] += 1
                    else:
                        self.refused(sender, cause, f"{item.case.conversation}: {text}")
                case StartTimer(after_s):
                    loop = asyncio.get_running_loop()
                    item.timers.append(loop.call_later(max(0.0, after_s), self._tick, item))

    def _tick(self, item: Open) -> None:
        if item.case.conversation in self._open:
            self._tasks.create_task(self._step(item, Tick(time.monotonic())), name=f"tick {item.case.conversation}")

    def close(self) -> None:
        """Leave what is under way to its parties' own timers, as if we had been killed."""
        for item in list(self._open.values()):
            self._drop(item)

    def _drop(self, item: Open) -> None:
        self._open.pop(item.case.conversation, None)
        for timer in item.timers:
            timer.cancel()

    def _settled(self, item: Open, state: negotiator.Ended) -> None:
        self._drop(item)
        took_s = time.monotonic() - item.began_s
        self.counts[f"settled_{state.verdict.rung}"] += 1
        self._audit.append("conflict", **settled_body(state, took_s))
        self.ended[item.case.conversation] = shown(state, item.began_unix_ns, took_s)
        if len(self.ended) > MOST_KEPT:
            self.ended.popitem(last=False)

    async def _send(self, to: str, said: Act) -> None:
        subject = subjects.act(self._bus.settings.gateway, to, subjects.COORDINATOR)
        try:
            await self._bus.publish(subject, wire.encode(said), AS_PROTOBUF)
        except EdgeAgentsError as error:  # whoever misses it ends by its own deadline
            self.counts["acts_lost"] += 1
            log.warning("not told: %s", error)
        else:
            self.counts["acts_sent"] += 1

    # --- who looks on ----------------------------------------------------------------------------

    def listed(self, limit: int) -> list[dict[str, Any]]:
        """Return conflicts settled since this start, the newest first."""
        return list(reversed(self.ended.values()))[:limit]

    def record(self, name: str) -> dict[str, Any]:
        """Return a settled conflict.

        Raises:
            NotFoundError: none of that name was settled since this start.
        """
        if name not in self.ended:
            raise NotFoundError(f"no conflict {name!r} was settled since this start: `edgeagents why` asks the audit")
        return self.ended[name]


def _party_problem(name: str, dispute: Dispute, site: Site, *, needs_permission: bool = True) -> str:
    """Return why one can be no party of a conflict, by the owner's files; empty when it can.

    Who asks needs no permission: it may want a resource let be that is coupled with its own.
    """
    agent = site.agents.get(name)
    if agent is None:
        return f"no agent {name[:64]!r} has a file here"
    if agent.negotiates is None or not agent.negotiates.covers(dispute.device, dispute.resource):
        return f"agent {name!r} does not negotiate about {dispute.device}/{dispute.resource}: see its `negotiates`"
    device = site.devices.get(dispute.device)
    if device is None:
        return f"core-metadata knows no device {dispute.device[:64]!r}"
    if needs_permission and not any(entry.resource == dispute.resource and entry.fits(device) for entry in agent.may):
        return f"agent {name!r} has no permission for {dispute.device}/{dispute.resource}"
    return ""


def _able(dispute: Dispute, parties: Sequence[str], site: Site) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Return which options each party may give by the owner's files and the profile, and why some may not."""
    able: dict[str, set[str]] = {name: set() for name in parties}
    problems: dict[str, str] = {}
    for option in dispute.options:
        for name in parties:
            problem = _option_problem(site.agents[name], dispute, option, site)
            if problem:
                problems[option] = problem
            else:
                able[name].add(option)
    return {name: frozenset(options) for name, options in able.items()}, problems


def _option_problem(agent: AgentDefinition, dispute: Dispute, option: str, site: Site) -> str:
    aim = Aim(dispute.device, dispute.resource, option)
    return device_problem(aim, site) or permission_problem(agent, aim, site)


# --- what is kept of it ----------------------------------------------------------------------------


def settled_body(state: negotiator.Ended, took_s: float) -> dict[str, Any]:
    """Return the audit's record of a settlement: parties, utilities, rung, runner-up, reasons."""
    case, verdict, answers = state.case, state.verdict, state.answers
    parties = []
    for name in case.parties:
        found = answers.appraisals.get(name)
        said = "bargains" if found else "gives way" if name in answers.yielded else "not heard"
        parties.append({
            "agent": name, "priority": case.priorities[name], "said": said,
            **({} if found is None else {
                "way": found.way, "holds": found.holds, "disagreement": found.disagreement,
                "worth": {item.option: round(item.utility, 6) for item in found.worths},
            }),
        })  # fmt: skip
    return {
        "conflict": case.conversation, "device": case.dispute.device, "resource": case.dispute.resource,
        "by": case.claimant, "wanted": case.dispute.wanted, "because": case.dispute.because,
        "options": list(case.dispute.options), "forbidden": dict(case.forbidden), "parties": parties,
        "value": verdict.value, "winner": verdict.winner, "rung": verdict.rung, "runner_up": verdict.runner_up,
        "reasons": list(verdict.reasons), "stands_s": case.stands_s if verdict.stands else 0.0,
        "took_ms": round(1e3 * took_s, 3),
    }  # fmt: skip


def shown(state: negotiator.Ended, began_unix_ns: int, took_s: float) -> dict[str, Any]:
    """Return a settled conflict as clients see it, in EdgeX's way of writing."""
    body = settled_body(state, took_s)
    return {
        "id": body["conflict"], "deviceName": body["device"], "resourceName": body["resource"], "askedBy": body["by"],
        "wanted": body["wanted"], "because": body["because"], "options": body["options"],
        "forbidden": body["forbidden"], "parties": body["parties"], "value": body["value"], "winner": body["winner"],
        "rung": body["rung"], "runnerUp": body["runner_up"], "reasons": body["reasons"],
        "standsS": body["stands_s"], "began": began_unix_ns, "tookMs": body["took_ms"],
    }  # fmt: skip
