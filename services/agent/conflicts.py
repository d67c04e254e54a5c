"""The agent's part in conflicts: asks for a settlement, says what options are worth, does what was settled.

A thin shell around `bargaining.py` and `agreements.py`. A wish whose lease another agent holds is brought before the
coordinator; what comes of it takes effect through our own lease and commands alone: who lost gives its lease back and
stands back, who won commands the agreed value by the ordinary way, and the guard judges it. Without a coordinator, or
without an answer in time, everything goes on as if nobody had asked.

Only the coordinator can speak on our subject; a settlement binds only who was asked, on what it was asked, in time.

Source: design.md section 5; docs/conflicts.md.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.timers import call_after
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError, MalformedMessageError, TheirError, UnavailableError
from edgeagents.model.agent import AgentDefinition, Intent
from edgeagents.model.cooperation import Act, Appraisal, Dispute, DisputeTold, Settlement
from edgeagents.model.message import LeaseReply
from edgeagents.protocol.conversation import act
from edgeagents.protocol.couplings import Coupling, Kinds
from edgeagents.protocol.gate import Key
from edgeagents.protocol.voting import ballot_of
from services.agent import agreements, coupled
from services.agent.agreements import AskAnew, HeldBack, Instead, Party
from services.agent.bargaining import Bargaining, Stance, value_of, word_of
from services.agent.commands import Commander
from services.agent.giving import AGREED, Giving
from services.agent.perception import Twin
from services.agent.rules import RuleBook

FILE_S: Final = 2.0
FIRST_AGAIN_S: Final = 2.0  # after a question that came to nothing; doubled each time, up to
LONGEST_AGAIN_S: Final = 60.0
SETTLES_S: Final = 5.0  # after the time to answer is over: our own deadline for a settlement
PEACE_S: Final = 900.0  # site: a holder whose rules are silent keeps it as it is so long, as at the guard by default
LEAVE_AGAIN_S: Final = 6.0  # until we say again that we are out of what stands, where the coordinator says nothing
MOST_LEAVES: Final = 3
MOST_PARTS: Final = 64
MOST_PENDING_BYTES: Final = 1 << 20


@dataclass(slots=True)
class _Again:
    """When a resource may be asked about again."""

    at_s: float = 0.0
    wait_s: float = FIRST_AGAIN_S


class Conflicts:
    """Takes part in conflicts that the coordinator settles."""

    def __init__(
        self, bus: Bus, agent: AgentDefinition, commander: Commander, twin: Twin, rules: RuleBook,
        bargaining: Bargaining, audit: Audit, site_now: Callable[[], float], group: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        """Prepare; `run` takes part. `site_now` returns site seconds, `group` holds what is under way."""
        self._bus = bus
        self._agent = agent
        self._commander = commander
        self._twin = twin
        self._rules = rules
        self._bargaining = bargaining
        self._audit = audit
        self._site_now = site_now
        self._group = group
        self._parts: dict[str, Party] = {}
        self._again: dict[Key, _Again] = {}
        self._filing: set[Key] = set()
        self._left: frozenset[str] = frozenset()  # what we said that we are out of, while it is so
        self._couplings: Sequence[Coupling] = ()
        self._kinds: Kinds = {}
        self._claims: dict[Key, str] = {}  # what we asked for, by what is under way
        self.counts: Counter[str] = Counter()
        self.giving = Giving(commander, twin, audit, site_now, self.counts)

    async def run(self) -> None:
        """Hear the mediator, and have the commander ask us; returns at once, what follows comes by messages."""
        await self._bus.subscribe(
            subjects.act(self._bus.settings.gateway, self._agent.name, subjects.COORDINATOR),
            self._on_act,
            pending_bytes=MOST_PENDING_BYTES,
        )
        self._commander.standing = self.standing
        self._commander.on_held = self.held
        self._commander.on_ended = self.giving.ended
        self._commander.session.on_orders = self.obey

    # --- our own wishes --------------------------------------------------------------------------

    def standing(self, intent: Intent, is_errand: bool) -> Intent | str:
        """Return what is to be wanted instead of a wish, or why it is left undone, by what was settled.

        Args:
            intent: the wish.
            is_errand: it is a task's: never done with another value than was asked for, nor waited with.
        """
        barred = self._commander.session.barred(intent.device)
        if barred:  # it has nothing to settle; held back until the guard tells us that the pause is over
            return barred if self._commander.session.mode == "act" else intent
        key = (intent.device, intent.resource)
        agreement = self.giving.agreements.get(key)
        if agreement is None:
            return self._asked_first(intent, is_errand)
        match agreements.ruling(agreement, word_of(intent.value), time.monotonic()):
            case HeldBack(reason):
                return reason
            case AskAnew() if is_errand:
                return intent
            case AskAnew(others, reason):
                self.giving.agreements[key] = agreements.asked_anew(agreement)
                self._begin_filing(key, intent, others)
                return reason
            case Instead(word, reason):
                if is_errand or word == self.giving.present(key):
                    return reason
                return replace(intent, value=self._commander.value_of(*key, word), because=reason)
            case _:
                return self._asked_first(intent, is_errand)

    def couple(self, couplings: Sequence[Coupling], kinds: Kinds) -> None:
        """Take in what is coupled, by the profiles' tags as core-metadata has them now."""
        self._couplings, self._kinds = couplings, kinds

    def _asked_first(self, intent: Intent, is_errand: bool) -> Intent | str:
        """Return a wish; for what it waits, where its owner lets it have its way only by what is settled."""
        key, terms, now_s = (intent.device, intent.resource), self._agent.negotiates, time.monotonic()
        if is_errand:
            return intent
        is_free = terms is None or key not in self._bargaining.terms or not terms.waits_for_settlement(*key)
        if is_free or intent.rule == AGREED:
            return self._unhindered(intent)
        agreement, again = self.giving.agreements.get(key), self._again.get(key)
        if agreement is not None and now_s < agreement.until_s:
            return self._unhindered(intent) if agreement.is_ours else f"stands back: {agreement.conflict}"
        if again is None or now_s >= again.at_s:
            self._begin_filing(key, intent, ())
        return "waits until it is settled: it commands this only so"

    def _unhindered(self, intent: Intent) -> Intent | str:
        """Return a wish, or for what it waits: a coupled resource that is active is to be settled first."""
        if not self._couplings:
            return intent
        options = {key: terms.options for key, terms in self._bargaining.terms.items()}
        found = coupled.standing_against(intent, self._couplings, self._kinds, self._twin.latest, options)
        if found is None:
            return intent
        agreement, now_s = self.giving.agreements.get(found.key), time.monotonic()
        if agreement is not None and now_s < agreement.back_s:
            return f"stands back: {found.coupling}, by {agreement.conflict}"
        again, stands = self._again.get(found.key), agreement is not None and now_s < agreement.until_s
        if found.key in self._filing or not (stands or (again is not None and now_s < again.at_s)):
            wish = Intent(*found.key, value_of(found.wanted), f"{found.coupling}: {intent.because}", intent.rule)
            self._begin_filing(found.key, wish, ())
            return f"waits until it is settled: {found.coupling}"
        return intent  # nobody settled it, or it stands: the guard decides by leases and interlocks, as ever

    def held(self, intent: Intent, reply: LeaseReply) -> None:
        """Bring a wish whose lease another agent holds before the coordinator, unless that was done a moment ago."""
        key = (intent.device, intent.resource)
        again = self._again.get(key)
        agreement, now_s = self.giving.agreements.get(key), time.monotonic()
        if reply.holder in ("", self._agent.name) or key not in self._bargaining.terms or key in self._filing:
            return
        stands = agreement is not None and now_s < agreement.until_s  # the guard's lease says what it means
        if stands or (again is not None and now_s < again.at_s):
            return
        self._begin_filing(key, intent, (reply.holder,))

    def _begin_filing(self, key: Key, intent: Intent, others: tuple[str, ...]) -> None:
        if key not in self._filing:
            self._filing.add(key)
            self._group.create_task(self._file(key, intent, others), name=f"conflict {key[0]}/{key[1]}")

    async def _file(self, key: Key, intent: Intent, others: tuple[str, ...]) -> None:
        """Ask the coordinator to settle a conflict; whatever comes of that, we may wish again after a while."""
        told, ends_s = "", 0.0
        try:
            stance = replace(self._stance(key), wants=word_of(intent.value))
            if not stance.wants:
                raise InvalidInputError(f"{str(intent.value)[:40]!r} cannot be told in one word")
            dispute = Dispute(
                device=key[0], resource=key[1], wanted=stance.wants, options=self._bargaining.options(key, stance),
                others=others, because=intent.because[:2_000], sent_unix_ns=time.time_ns(),
            )  # fmt: skip
            self._claims[key] = stance.wants
            answer = await self._bus.request(
                subjects.conflict(self._bus.settings.gateway, self._agent.name), wire.encode(dispute), wire.AS_PROTOBUF,
                timeout_s=FILE_S,
            )  # fmt: skip
            said = wire.decode(DisputeTold, answer.data)
            told, ends_s = said.problem, min(said.ends_s, SETTLES_S)
        except (TheirError, ValueError) as error:
            told = str(error)
        if not told:
            self.counts["filed"] += 1
            await asyncio.sleep(ends_s)  # a settlement comes meanwhile, or none does
        else:
            self.giving.count("not_settled", f"{key[0]}/{key[1]}: {told}")
        self._ended_asking(key, is_settled=key in self.giving.agreements)
        if key not in self.giving.agreements:
            self.giving.has_news.set()  # what waited for it is looked at again, also when no event comes

    def _ended_asking(self, key: Key, *, is_settled: bool) -> None:
        self._filing.discard(key)
        self._claims.pop(key, None)
        again = self._again.setdefault(key, _Again())
        again.wait_s = FIRST_AGAIN_S if is_settled else min(2 * again.wait_s, LONGEST_AGAIN_S)
        again.at_s = time.monotonic() + again.wait_s
        agreement = self.giving.agreements.get(key)
        if agreement is not None and agreement.asked:  # nobody answered: what is over binds us no longer
            del self.giving.agreements[key]

    def _stance(self, key: Key) -> Stance:
        """Return how we stand to a resource: what our rules want there now, whether it is so or not."""
        site_s = self._site_now()
        fired = {(item.intent.device, item.intent.resource): item.intent for item in
                 self._rules.evaluate(self._twin, site_s)}  # fmt: skip
        wants = word_of(fired[key].value) if key in fired else self._claims.get(key, "")
        present, quiet_s = self.giving.present(key), self._commander.quiet_s(key, site_s)
        if not wants and quiet_s is not None and quiet_s <= PEACE_S:
            wants = present  # silent rules leave it as it is; so does who did what a task or a person asked for
        return Stance(wants, present, quiet_s)

    # --- what the mediator says ------------------------------------------------------------------

    async def _on_act(self, message: BusMessage) -> None:
        try:
            said = wire.decode(Act, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self.giving.count("acts_rejected", str(error))
            return
        if said.settlement is not None:
            await self._on_settlement(said.conversation, said.settlement)
        elif said.dispute is not None and said.performative == "cfp":
            await self._appraise(said, said.dispute)
        elif said.performative == "cancel":
            self._release(said.conversation, said.reason)
        elif said.conversation in self._parts:
            await self._bargain(said)

    async def _appraise(self, said: Act, dispute: Dispute) -> None:
        """Say what the options are worth to us; who wants nothing there now gives way, and its lease back."""
        key, now_s = agreements.key_of(dispute), time.monotonic()
        self._parts = {name: item for name, item in self._parts.items() if item.until_s > now_s}
        if len(self._parts) >= MOST_PARTS:
            self.giving.count("asked_too_often", f"{MOST_PARTS} conflicts are under way")
            return
        until_s = now_s + min(said.reply_by_s, LONGEST_AGAIN_S) + SETTLES_S
        self.counts["asked"] += 1
        answer = self._answer(said.conversation, key, dispute)
        # Who gives way, or cannot say, is out of it: it hears the outcome as news.
        self._parts[said.conversation] = Party(dispute, until_s, answer.performative == "inform")
        await self._say(answer)

    def _answer(self, conflict: str, key: Key, dispute: Dispute) -> Act:
        barred = self._commander.session.barred(key[0])
        if barred:
            return act("refuse", conflict, reason=barred)
        try:
            stance = self._stance(key)
            if not stance.wants:
                self._let_go(key)
                return act("refuse", conflict, reason="wants nothing there now")
            appraisal = self._bargaining.appraisal(key, dispute.options, stance, self._twin, self._site_now())
            return act("inform", conflict, appraisal=self._without_refused(key, appraisal))
        except (TheirError, ValueError) as error:
            self.giving.count("cannot_say", f"{key[0]}/{key[1]}: {error}")
            return act("failure", conflict, reason=str(error)[:2_000])

    def _without_refused(self, key: Key, said: Appraisal) -> Appraisal:
        """Return what options are worth, those nothing that the guard refused a moment ago: nobody can give them."""
        worths = tuple(
            item.model_copy(update={"utility": 0.0}) if self.giving.is_refused(key, item.option) else item
            for item in said.worths
        )
        return said.model_copy(update={"worths": worths})

    async def _bargain(self, said: Act) -> None:
        """Vote by what options are worth to us; at a table of offers we leave: the mediator knows our utilities."""
        if said.performative not in ("cfp", "propose"):
            return
        dispute = self._parts[said.conversation].dispute
        if said.ballot is None:
            reason = "it has told the mediator what options are worth to it"
            await self._say(act("refuse", said.conversation, reason=reason))
            return
        key, site_s = agreements.key_of(dispute), self._site_now()
        try:
            worth = {option: self._bargaining.worth(key, option, self._twin, site_s) for option in said.ballot.ranking}
        except (TheirError, ValueError) as error:
            self.giving.count("cannot_say", f"{key[0]}/{key[1]}: {error}")
            return
        ballot = ballot_of(worth, self._bargaining.preferences.disagreement, len(dispute.others))
        await self._say(act("inform", said.conversation, ballot=ballot))

    async def _on_settlement(self, conflict: str, said: Settlement) -> None:
        """Take in how a conflict ended, if it is one of ours, and do our part."""
        party, now_s = self._parts.get(conflict), time.monotonic()
        problem = agreements.problem(party, said, now_s)
        if problem is not None or party is None:
            cause, text = problem or ("not-party", "")
            self.giving.count(f"settlements_{cause}", f"{conflict}: {text}")
            if self.counts[f"settlements_{cause}"] == 1:
                self._audit.append("settlement-refused", conflict=conflict, cause=cause, text=text)
            return
        del self._parts[conflict]
        key = agreements.key_of(party.dispute)
        if not party.is_bound:
            self.counts["settled_by_others"] += 1
            return
        self.giving.agreements.pop(key, None)
        agreement = agreements.agreed(conflict, party, said, self._agent.name, now_s)
        part = "none" if agreement is None else "gives it" if agreement.is_ours else "stands back"
        self.counts[f"settled_{part.replace(' ', '_')}"] += 1
        self._audit.append(
            "settlement", conflict=conflict, device=key[0], resource=key[1], value=said.value, winner=said.winner,
            part=part, stands_s=said.stands_s,
        )  # fmt: skip
        if agreement is None:
            return
        self.giving.take(key, agreement)
        if agreement.is_ours:
            self._group.create_task(self.giving.give(key, agreement), name=f"agreed {conflict}")
        else:
            self._let_go(key)

    def obey(self) -> None:
        """Take in that the owner's orders changed: where we may command nothing any more we bind nobody."""
        left = agreements.left(self._parts, self.giving.agreements, self._commander.session.barred, time.monotonic())
        told, self._left = self._left, frozenset(left)
        for conflict, reason in left.items():
            if conflict in told:
                continue
            self.counts["left"] += 1
            if conflict in self._parts:
                self._parts[conflict] = replace(self._parts[conflict], is_bound=False)
            self._audit.append("settlement-left", conflict=conflict, reason=reason)
            self._leave(conflict, reason, MOST_LEAVES)

    def _leave(self, conflict: str, reason: str, times: int) -> None:
        """Tell the coordinator that we are out; of what stands a few times, until it says that it is over.

        What we agreed on counts so long: by our word alone we would be free, and the others bound.
        """
        self._group.create_task(self._say(act("cancel", conflict, reason=reason)), name=f"left {conflict}")
        if times > 1:
            call_after(LEAVE_AGAIN_S, self._left_again, conflict, reason, times - 1)

    def _left_again(self, conflict: str, reason: str, times: int) -> None:
        if conflict in agreements.left({}, self.giving.agreements, self._commander.session.barred, time.monotonic()):
            self._leave(conflict, reason, times)

    def _release(self, conflict: str, reason: str) -> None:
        """Take in that what was settled binds nobody any more: one without whom it is nothing may command no longer."""
        key = next((key for key, item in self.giving.agreements.items() if item.conflict == conflict), None)
        if key is not None:
            del self.giving.agreements[key]
            self.counts["released"] += 1
            self._audit.append("settlement-released", conflict=conflict, device=key[0], resource=key[1], reason=reason)
            self._again.pop(key, None)
            self.giving.has_news.set()

    def _let_go(self, key: Key) -> None:
        """Give the lease back, if it is ours, beside what goes on."""
        self._group.create_task(self._commander.leases.release(key), name=f"let go {key[0]}/{key[1]}")

    async def _say(self, said: Act) -> None:
        subject = subjects.act(self._bus.settings.gateway, subjects.COORDINATOR, self._agent.name)
        try:
            await self._bus.publish(subject, wire.encode(said), wire.AS_PROTOBUF)
        except UnavailableError as error:
            self.giving.count("acts_lost", str(error))
