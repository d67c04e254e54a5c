"""Settles conflicts over NATS: a thin shell around `negotiator.py` that takes them in, carries acts and keeps time.

Nothing is kept on disk: a coordinator that is killed leaves each conflict to the parties' own timers, and what was
settled stands in the audit. Who may take part, in which class, and who may give which value is read from the owner's
files, who holds the resource is the guard's word (`holders.py`): neither is taken from what an agent says of itself.

Source: design.md section 5; docs/conflicts.md.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.timers import call_after
from edgeagents.audit import Audit, Refusals
from edgeagents.errors import ConflictError, EdgeAgentsError, InvalidInputError, NotFoundError, TooManyAttemptsError
from edgeagents.model.agent import MOST_OPTIONS
from edgeagents.model.cooperation import MOST_PARTIES, Act, Dispute, DisputeTold
from edgeagents.protocol.conversation import Begin, Heard, Refuse, Tell, Tick
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.eligibility import Site
from edgeagents.protocol.roster import Run
from services.coordinator import negotiator
from services.coordinator.case import Case
from services.coordinator.holders import AskGuard, Held
from services.coordinator.partaking import able, options_of, party_problem, with_files_options, without_locked
from services.coordinator.releases import Releases
from services.coordinator.settlements import settled_body, shown
from services.coordinator.standing import Outcome, Standing

log = logging.getLogger(__name__)


MOST_LISTED: Final = MOST_OPTIONS + 2  # what an agent could live with, what it wants, and how things are
OLD_S: Final = 2.0  # a question that was on its way for longer is not settled: things may be otherwise by now
MOST_OPEN: Final = 256
MOST_OF_ONE: Final = 20  # conflicts that one agent may ask to settle within `WINDOW_S`
WINDOW_S: Final = 10.0
MOST_KEPT: Final = 1_000


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
    case: Case
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
        holder: AskGuard,
        check_serving: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            bus: connected.
            audit: where settlements and refusals are written down.
            site: the owner's files and devices, as they are now.
            alive: agents that are there, by name.
            terms: how conflicts are settled.
            tasks: holds what is under way.
            holder: says how a device's resource stands at the guard, and which of these options are locked, or raises.
            check_serving: raises while this coordinator does not serve.
        """
        self._bus = bus
        self._audit = audit
        self._site = site
        self._alive = alive
        self._terms = terms
        self._tasks = tasks
        self._holder = holder
        self._check_serving = check_serving
        self._standing = Standing()
        self._open: dict[str, Open] = {}
        self._asked: dict[str, deque[float]] = {}
        self.ended: OrderedDict[str, dict[str, Any]] = OrderedDict()  # as clients see them, oldest first
        self.counts: Counter[str] = Counter()
        self._refusals = Refusals(audit, "conflict-refused", self.counts)
        self._releases = Releases(
            self._standing, holder, audit, tasks, self._send, self.refused, self.counts, self.ended
        )

    # --- what comes in ---------------------------------------------------------------------------

    async def file(self, claimant: str, dispute: Dispute) -> DisputeTold:
        """Take a conflict in and ask its parties; return under which name it is settled, or why it is not."""
        try:
            self._check_now(dispute)
            _check_form(claimant, dispute)
            case: Case | str = self._joined(claimant, dispute)
            if not case:
                self._check_flood(claimant)
                held = await self._holder(dispute.device, dispute.resource, options_of(dispute, self._site()))
                for name, reason in held.barred.items():
                    await self._releases.left((dispute.device, dispute.resource), name, reason)
                await self._check_winner(dispute)
                case = self._case(claimant, dispute, held)
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

    def _check_now(self, dispute: Dispute) -> None:
        self._check_serving()
        age_s = (time.time_ns() - dispute.sent_unix_ns) / 1e9 if dispute.sent_unix_ns else 0.0
        if abs(age_s) > OLD_S:
            raise InvalidInputError(f"it was asked {age_s:.0f} s ago, {OLD_S:g} s at most: ask again")

    def _joined(self, claimant: str, dispute: Dispute) -> str:
        """Return the name of the conflict about the same that this agent is a party of; empty when there is none.

        Raises:
            InvalidInputError: others are settling it.
        """
        for name, item in self._open.items():
            same = (item.case.dispute.device, item.case.dispute.resource) == (dispute.device, dispute.resource)
            if same and claimant in item.case.parties:
                return name
            if same:
                raise InvalidInputError(f"conflict {name} over it is under way: ask again when it has ended")
        return ""

    async def _check_winner(self, dispute: Dispute) -> None:
        """Free the parties of what stands, where its winner can give it no more by its owner's file."""
        key = (dispute.device, dispute.resource)
        stands = self._standing.on(key, time.monotonic())
        problem = "" if stands is None else party_problem(stands.winner, dispute, self._site())
        if stands is not None and problem:
            await self._releases.left(key, stands.winner, problem)

    def _case(self, claimant: str, dispute: Dispute, held: Held) -> Case | str:
        """Return a conflict to be settled, or the name of the one that is about the same already.

        Raises:
            EdgeAgentsError: it cannot be settled here, and why.
        """
        joined = self._joined(claimant, dispute)  # another may have asked while the guard was asked
        if joined:
            return joined
        if claimant in held.barred:
            raise InvalidInputError(f"{claimant} takes no part: {held.barred[claimant]}")
        site, now_s = self._site(), time.monotonic()
        stands = self._standing.on((dispute.device, dispute.resource), now_s)
        if stands is not None and stands.winner != claimant:
            raise ConflictError(f"{stands.conflict} stands for {stands.until_s - now_s:.0f} s more: ask again then")
        parties = self._parties(claimant, dispute, held, site)
        # It hangs on whom it names (nobody: on all that are there and could have it so), and on the holder.
        others = [held.agent, *(dispute.others or parties[1:])]
        hangs_on = tuple(name for name in dict.fromkeys(others) if name in parties[1:])
        dispute = with_files_options(dispute.model_copy(update={"others": hangs_on}), parties, site)
        is_judged = held.judged >= set(dispute.options)
        dispute, locked = without_locked(dispute, held.locked)
        may, problems = able(dispute, parties, site)
        return Case(
            conversation=f"conflict-{secrets.token_hex(8)}", dispute=dispute, claimant=claimant, parties=parties,
            priorities={name: site.agents[name].bargains_as for name in parties}, able=may, problems=problems,
            classes={name: site.agents[name].priority for name in parties},
            locked=locked, is_judged=is_judged, holder=held.agent, quiet_s=held.quiet_s,
            barred={name: reason for name, reason in held.barred.items() if name in parties},
            answer_s=self._terms.answer_s, stands_s=self._terms.stands_s,
            # Who won has used it by that: asking anew, it may not keep it by the lease alone.
            hold_s=self._terms.hold_s if stands is None else 0.0,
        )  # fmt: skip

    def _check_flood(self, claimant: str) -> None:
        now_s = time.monotonic()
        asked = self._asked.setdefault(claimant, deque(maxlen=MOST_OF_ONE))
        if len(asked) == MOST_OF_ONE and now_s - asked[0] < WINDOW_S:
            raise TooManyAttemptsError(f"{MOST_OF_ONE} conflicts of {claimant} in {WINDOW_S:g} s", WINDOW_S)
        if len(self._open) >= MOST_OPEN:
            raise TooManyAttemptsError(f"{MOST_OPEN} conflicts are under way", 1.0)
        asked.append(now_s)

    def _parties(self, claimant: str, dispute: Dispute, held: Held, site: Site) -> tuple[str, ...]:
        """Return the claimant, the holder, whom it names, and who else could want something there; five at most.

        Those that may command nothing there come last: they take nobody's place.

        Raises:
            InvalidInputError: what was asked is no conflict between agents that negotiate about it.
        """
        holder = held.agent
        others = tuple(name for name in dict.fromkeys((holder, *dispute.others)) if name not in ("", claimant))
        if len(others) >= MOST_PARTIES:
            raise InvalidInputError(
                f"it hangs on {len(others)} others, the holder included: {MOST_PARTIES - 1} at most"
            )
        for name in (claimant, *others):
            problem = party_problem(name, dispute, site, needs_permission=name != claimant)
            if problem:
                raise InvalidInputError(f"{problem}, and holds it now" if name == holder else problem)
        alive = self._alive()
        beside = [
            name for name in sorted(site.agents)
            if name in alive and name not in (claimant, *others) and not party_problem(name, dispute, site)
        ]  # fmt: skip
        if not others and not beside:
            raise InvalidInputError(
                f"nobody who is there negotiates about {dispute.device}/{dispute.resource} and may command it"
            )
        seats = sorted((*others, *beside), key=lambda name: name in held.barred)
        return (claimant, *seats)[:MOST_PARTIES]

    async def heard(self, sender: str, said: Act) -> bool:
        """Take an act in; False when it belongs to no conflict that is known here."""
        item = self._open.get(said.conversation)
        if item is None:
            if said.performative == "cancel":  # a party of what stands may command nothing there any more
                key = self._standing.named(said.conversation, time.monotonic())
                if key is not None:
                    self._releases.ask(key, sender, time.monotonic())
                    return True
            if said.conversation not in self.ended:
                return False
            self.counts["refused_late"] += 1
            return True
        self.counts["acts_heard"] += 1
        await self._step(item, Heard(sender, said, time.monotonic()))
        return True

    def is_asked(self, sender: str) -> bool:
        """Say whether an agent is asked in a conflict now and has not answered: what it says then is about that."""
        return any(
            isinstance(item.state, negotiator.Asking)
            and sender in item.case.parties and sender not in item.state.answers.speakers
            for item in self._open.values()
        )  # fmt: skip

    def refused(self, sender: str, cause: str, text: str) -> None:
        """Count what was not accepted, and write the first ones of each minute down."""
        self._refusals.add(sender, cause, text)

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
                    item.timers.append(call_after(after_s, self._tick, item))

    def _tick(self, item: Open) -> None:
        if item.case.conversation in self._open:
            self._tasks.create_task(self._step(item, Tick(time.monotonic())), name=f"tick {item.case.conversation}")

    def close(self) -> None:
        """Leave what is under way to its parties' own timers, as if we had been killed."""
        self._releases.close()
        for item in list(self._open.values()):
            self._drop(item)

    def _drop(self, item: Open) -> None:
        self._open.pop(item.case.conversation, None)
        for timer in item.timers:
            timer.cancel()

    def _settled(self, item: Open, state: negotiator.Ended) -> None:
        self._drop(item)
        now_s, case, verdict = time.monotonic(), item.case, state.verdict
        took_s = now_s - item.began_s
        stands = verdict.winner and verdict.stands
        bound = tuple(name for name in case.parties if name in state.answers.appraisals)
        outcome = Outcome(case.conversation, verdict.winner, now_s + case.stands_s, bound) if stands else None
        self._standing.settled((case.dispute.device, case.dispute.resource), outcome)
        for name, found in state.answers.appraisals.items():
            self.counts["claims_ignored"] += found.holds and name != case.holder
        self.counts[f"settled_{state.verdict.rung}"] += 1
        self._audit.append("conflict", **settled_body(state, took_s))
        self.ended[item.case.conversation] = shown(state, item.began_unix_ns, took_s)
        if len(self.ended) > MOST_KEPT:
            self.ended.popitem(last=False)

    async def _send(self, to: str, said: Act) -> None:
        subject = subjects.act(self._bus.settings.gateway, to, subjects.COORDINATOR)
        try:
            await self._bus.publish(subject, wire.encode(said), wire.AS_PROTOBUF)
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


def _check_form(claimant: str, dispute: Dispute) -> None:
    """Return if what was asked can be looked at.

    Raises:
        InvalidInputError: it names too many, or its options are none.
    """
    others = [name for name in dispute.others if name != claimant]
    if len(others) >= MOST_PARTIES or len(set(others)) != len(others):
        raise InvalidInputError(f"it names {len(others)} others: {MOST_PARTIES - 1} at most, each once")
    if len(dispute.options) > MOST_LISTED:
        raise InvalidInputError(f"{len(dispute.options)} options: {MOST_LISTED} at most are looked at")
    if len(set(dispute.options)) != len(dispute.options):
        raise InvalidInputError("an option stands there twice")
    if dispute.wanted not in dispute.options:
        raise InvalidInputError(f"what is wanted, {dispute.wanted!r}, is none of the options")
