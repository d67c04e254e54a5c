"""The shipped agents with a mediator, in lock-step: conflicts are settled by the real code, in the minute they arise.

Real are the agents' bargaining and agreements and the coordinator's negotiator, with its ordinary terms; left out is
what carries their messages. The same files without a mediator are `home_agents.py`'s.
"""

from collections import Counter
from dataclasses import replace

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import Decision, Intent, Sample
from edgeagents.model.cooperation import Act, Dispute
from edgeagents.model.skill import Aim
from edgeagents.model.values import parse_value
from edgeagents.protocol import gate, lease
from edgeagents.protocol.conversation import Begin, Heard, act
from edgeagents.protocol.effects import StoreLease
from edgeagents.protocol.eligibility import Site, permission_problem
from services.agent import agreements
from services.agent.agreements import Agreement, AskAnew, HeldBack, Instead, Party
from services.agent.bargaining import Bargaining, Stance, load_bargaining, word_of
from services.agent.conflicts import PEACE_S
from services.coordinator import negotiator
from services.coordinator.app import CoordinatorSettings
from services.coordinator.case import Case, Verdict
from services.world.home import Home
from services.world.outside import Scene
from tests.bench.home_agents import HOME, Agents, Thinker
from tests.bench.home_run import Change

HOLD_S, STANDS_S = (
    float(CoordinatorSettings.model_fields[name].default) for name in ("conflict_hold_s", "conflict_stands_s")
)


class Negotiating(Agents):
    """The shipped agents, their guard and a mediator as one controller of the house."""

    def __init__(self, seed: int, start_s: float) -> None:
        """Wire the shipped files for a house of this seed that is run from `start_s` on."""
        super().__init__(seed, start_s)
        self._by_name = {thinker.agent.name: thinker for thinker in self.thinkers}
        self._bargaining: dict[str, Bargaining] = {}
        for name, thinker in self._by_name.items():
            found = load_bargaining(thinker.agent, HOME / "agents" / f"{name}.yaml")
            if found is not None:
                self._bargaining[name] = found
        self._agreed: dict[tuple[str, gate.Key], Agreement] = {}
        self._to_give: dict[gate.Key, tuple[str, Agreement]] = {}
        self.settled: list[tuple[float, gate.Key, Verdict]] = []
        self.rungs: Counter[str] = Counter()

    def tick(self, home: Home, around: Scene) -> list[Change]:
        """Let every agent see this minute's events, settle what they disagree on, and give what was agreed."""
        changes = super().tick(home, around)
        for key, (name, agreement) in list(self._to_give.items()):
            changes += self._agreed_given(name, key, agreement, home.site_s)
        return changes

    def _give(self, thinker: Thinker, intent: Intent, decision: Decision, site_s: float) -> list[Change]:
        """Carry a wish out as it was settled with others; what another holds is settled first."""
        name, key = thinker.agent.name, (intent.device, intent.resource)
        agreement = self._agreed.get((name, key))
        match agreements.ruling(agreement, word_of(intent.value), site_s):
            case HeldBack():
                self.counts["stood back"] += 1
                return []
            case AskAnew(others, _):
                del self._agreed[name, key]
                return self._settle(name, others, intent, site_s) or self._given(thinker, intent, decision, site_s)
            case Instead(word, _):
                if word == self._present(thinker, key):
                    return []
                intent = replace(intent, value=self._value(key, word))
        is_ours = agreement is not None and agreement.is_ours and site_s < agreement.until_s
        if not is_ours and self._waits_until_settled(thinker, key):
            others = tuple(party for party, found in self._bargaining.items() if party != name and key in found.terms)
            return self._settle(name, others, intent, site_s)
        refused = self.counts["no lease"]
        changes = self._given(thinker, intent, decision, site_s)
        held = self._table.current(key)
        if self.counts["no lease"] > refused and held is not None and held.session is not None:
            changes += self._settle(name, (held.session.agent,), intent, site_s)
        return changes

    # --- the mediator ------------------------------------------------------------------------------

    def _settle(self, name: str, others: tuple[str, ...], intent: Intent, site_s: float) -> list[Change]:
        """Settle a conflict that an agent asks about; what was agreed is given at once if the gate allows."""
        key = (intent.device, intent.resource)
        if not all(key in self._bargaining[party].terms for party in (name, *others) if party in self._bargaining):
            return []
        stance = replace(self._stance(name, key, site_s), wants=word_of(intent.value))
        dispute = Dispute(
            device=key[0], resource=key[1], wanted=stance.wants, options=self._bargaining[name].options(key, stance),
            others=others,
        )  # fmt: skip
        verdict = self._verdict(self._case(name, dispute, site_s), site_s)
        self.rungs[verdict.rung] += 1
        self.settled.append((site_s, key, verdict))
        said = negotiator.outcome(self._case(name, dispute, site_s), verdict).settlement
        assert said is not None
        everybody = dispute.model_copy(update={"others": (name, *others)})
        for party in everybody.others:
            agreement = agreements.agreed("bench", Party(everybody, site_s + 1.0), said, party, site_s)
            self._agreed.pop((party, key), None)
            if agreement is None:
                continue
            self._agreed[party, key] = agreement
            if agreement.is_ours:
                self._to_give[key] = (party, agreement)
            else:
                self._let_go(party, key, site_s)
        found = self._to_give.get(key)
        return self._agreed_given(found[0], key, found[1], site_s) if found is not None and verdict.winner else []

    def _case(self, name: str, dispute: Dispute, site_s: float) -> Case:
        parties = (name, *dispute.others)
        agents = {party: self._by_name[party].agent for party in parties}
        site = Site(agents, self._devices, self._profiles)
        able = {
            party: frozenset(
                option for option in dispute.options
                if not permission_problem(agent, Aim(dispute.device, dispute.resource, option), site)
            )
            for party, agent in agents.items()
        }  # fmt: skip
        holder, quiet_s = self._holder((dispute.device, dispute.resource), site_s)
        return Case(
            "bench", dispute, name, parties, {party: agent.bargains_as for party, agent in agents.items()}, able,
            classes={party: agent.priority for party, agent in agents.items()},
            holder=holder, quiet_s=quiet_s, hold_s=HOLD_S, stands_s=STANDS_S,
        )  # fmt: skip

    def _holder(self, key: gate.Key, site_s: float) -> tuple[str, float]:
        """Return who holds a resource, empty: nobody, and for how long it has not used it, as the guard tells it."""
        held = self._table.current(key)
        if held is None or held.session is None:
            return "", 0.0
        return held.session.agent, max(0.0, site_s - held.used_site_s)

    def _verdict(self, case: Case, site_s: float) -> Verdict:
        state, _ = negotiator.step(negotiator.Planned(case), Begin(0.0))
        for party in case.parties:
            state, _ = negotiator.step(state, Heard(party, self._answer(party, case, site_s), 0.0))
        assert isinstance(state, negotiator.Ended), state
        return state.verdict

    def _answer(self, name: str, case: Case, site_s: float) -> Act:
        """Return what an agent says to the mediator, as `services/agent/conflicts.py` does."""
        key = (case.dispute.device, case.dispute.resource)
        stance = self._stance(name, key, site_s)
        if name == case.claimant:
            stance = replace(stance, wants=case.dispute.wanted)
        if not stance.wants or name not in self._bargaining:
            self._let_go(name, key, site_s)
            return act("refuse", case.conversation)
        twin = self._by_name[name].twin
        try:
            found = self._bargaining[name].appraisal(key, case.dispute.options, stance, twin, site_s)
        except InvalidInputError as error:
            return act("failure", case.conversation, reason=str(error))
        return act("inform", case.conversation, appraisal=found)

    def _stance(self, name: str, key: gate.Key, site_s: float) -> Stance:
        thinker = self._by_name[name]
        fired = {(item.intent.device, item.intent.resource): item.intent.value for item in
                 thinker.rules.evaluate(thinker.twin, site_s)}  # fmt: skip
        held = self._table.current(key)
        is_ours = held is not None and held.session == thinker.session
        sets = thinker.sets.get(key)
        quiet_s = (site_s - sets[-1].site_s if sets else 1e9) if is_ours else None
        wants, present = word_of(fired.get(key)), self._present(thinker, key)
        if not wants and quiet_s is not None and quiet_s <= PEACE_S:
            wants = present  # silent rules leave it as it is
        return Stance(wants, present, quiet_s)

    def _present(self, thinker: Thinker, key: gate.Key) -> str:
        sample: Sample | None = thinker.twin.latest(key)
        return "" if sample is None else word_of(sample.value)

    def _value(self, key: gate.Key, word: str) -> bool | int | float | str:
        found = parse_value(self._resource(key).properties.value_type, word)
        assert isinstance(found, (bool, int, float, str))
        return found

    # --- what follows ------------------------------------------------------------------------------

    def _let_go(self, name: str, key: gate.Key, site_s: float) -> None:
        """Have an agent give its lease back, if it has it."""
        self._table, effects = lease.step(self._table, lease.Released(self._by_name[name].session, key))
        for effect in effects:
            if isinstance(effect, StoreLease):
                self._sequence += 1
                recorded = lease.Recorded(effect.record, self._sequence, "economy", site_s)
                self._table, _ = lease.step(self._table, recorded)

    def _agreed_given(self, name: str, key: gate.Key, agreement: Agreement, site_s: float) -> list[Change]:
        """Have the winner give what was agreed, as soon as its gate lets it pass, while it stands."""
        thinker = self._by_name[name]
        is_over = self._agreed.get((name, key)) is not agreement or (agreement.others and site_s >= agreement.until_s)
        if is_over or self._present(thinker, key) == agreement.word:
            self._to_give.pop(key, None)
            return []
        intent = Intent(*key, self._value(key, agreement.word), "agreed", "conflict")
        decision = Decision("agreed", (intent,), "rule", 1.0, {}, self._wall_ns)
        changes = self._given(thinker, intent, decision, site_s)
        if changes or not agreement.others:  # who is not bound follows its rules
            self._to_give.pop(key, None)
        return changes
