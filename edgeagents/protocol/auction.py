"""Sequential single-item auction of a batch of tasks, then a bounded re-auction; the auctioneer's side.

    Planned -> Asking (auction, then re-auction) -> Awarding -> Working -> Allotted

The auctioneer asks what sets of tasks would cost each agent, and remembers the answers. In each round of the auction
the task and the agent with the best bid meet; then tasks are transferred or swapped while that makes the whole better,
at most `most_moves` times (`plan_search.py`). For the sum a bid is what a task adds to its agent's cost: twice the best
possible sum at most where costs are paths in a metric. For the makespan it is what the agent's whole work would cost.

An agent that does not answer in time is left out of what follows, so silence blocks nobody. One that takes its time has
its share of it: after that it keeps what it has, and bids only for what no other can do. Once the time for answers is
over, the plan so far is awarded (`auction_awards.py`). `auction_bidder.py` is the other side.

Source: Lagoudakis et al. 2005 (bidding rules and their bounds); Koenig et al. 2006; Nanjanath and Gini 2010.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from edgeagents.model.cooperation import MOST_ITEMS, Bundle, Inquiry
from edgeagents.protocol import auction_awards
from edgeagents.protocol.auction_awards import Allotted, Awarding, Working
from edgeagents.protocol.contract_net import LedgerSaid
from edgeagents.protocol.conversation import (
    MOST_ACTS,
    Begin,
    Heard,
    Recovered,
    RefusalCause,
    Refuse,
    Save,
    Tell,
    Tick,
    act,
    answered,
    counted,
    is_over,
    objection,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.lots import Lot, lot_problem
from edgeagents.protocol.plan_search import Search, decided, noted, search_of, settled, without
from edgeagents.protocol.plans import INFEASIBLE, Tasks, Want, costs_of

MOST_INQUIRY_BYTES: Final = 65_536  # a quarter of what an act may have: its answer is larger
MOST_ROUNDS: Final = 4096


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was sent yet."""

    lot: Lot


@dataclass(frozen=True, slots=True)
class Asking:
    """Answers of `waiting` are awaited until `until_s`.

    Args:
        lot: what is auctioned.
        search: all that is known and decided so far.
        share_s: how much of the time for answers is each agent's own.
        round: counts the questions.
        asked: the sets that each agent was asked for in this round.
        waiting: those that have not answered yet.
        until_s: when they are left out.
        since_s: until when time was put down to agents.
        spent: how much of it each has spent; what several were waited for at once is shared among them.
        heard: how many acts of each sender answered nothing that was asked.
    """

    lot: Lot
    search: Search
    share_s: float
    round: int = 0
    asked: Mapping[str, tuple[Tasks, ...]] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    until_s: float = 0.0
    since_s: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)
    heard: Mapping[str, int] = field(default_factory=dict)


State: TypeAlias = Planned | Asking | auction_awards.State


Event: TypeAlias = Begin | Heard | Tick | LedgerSaid | Recovered
Effect: TypeAlias = auction_awards.Effect
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case ((Awarding() | Working() | Allotted()), _):
            return auction_awards.step(state, event)
        case Planned(lot), (Begin(now_s) | Recovered(now_s)):
            return _begun(lot, now_s)
        case Planned(), Heard(sender=sender):
            return state, [Refuse(sender, "late", "nothing is asked here")]
        case Asking(), (Tick(now_s) | Recovered(now_s)) if is_over(now_s, state.lot.deadline_s):
            text = f"the deadline of {state.lot.conversation!r} has passed while costs were asked for"
            return _nobodys(state, text)
        case Asking(), (Tick(now_s) | Recovered(now_s)) if is_over(now_s, state.lot.ask_until_s):
            return _award(state, now_s)
        case Asking(), Heard():
            return _heard(state, event)
        case Asking(), Tick(now_s) if is_over(now_s, state.until_s) and state.waiting:
            return _without_the_silent(state, now_s)
        case Asking(), Recovered(now_s):
            # Who was asked may have answered while nobody listened: a whole answer's time again.
            return _asked(replace(state, since_s=now_s), now_s)
        case _:
            return state, []


def _begun(lot: Lot, now_s: float) -> Result:
    problem = lot_problem(lot, now_s)
    if problem is not None:
        return Allotted({}, tuple(sorted(lot.tasks)), (problem,)), []
    search = search_of(lot.tasks, lot.agents, lot.objective, lot.most_moves)
    share_s = (lot.ask_until_s - now_s) / len(search.plan)
    return _go_on(Asking(lot, search, share_s, since_s=now_s), now_s)


# --- asking ----------------------------------------------------------------------------------------


def _go_on(state: Asking, now_s: float) -> Result:
    """Decide all that is known enough, then ask for what is not; award when nothing is left to decide."""
    if is_over(now_s, state.lot.ask_until_s) or state.round >= MOST_ROUNDS:
        return _award(state, now_s)
    resting = [agent for agent, spent_s in state.spent.items() if spent_s > state.share_s]
    search, want = decided(state.search, resting)
    state = replace(state, search=search)
    return _ask(state, want, now_s) if want else _award(state, now_s)


def _ask(state: Asking, want: Want, now_s: float) -> Result:
    asked = {agent: _that_fit(bundles) for agent, bundles in want.items()}
    return _asked(replace(state, round=state.round + 1, asked=asked, waiting=frozenset(asked), since_s=now_s), now_s)


def _that_fit(bundles: tuple[Tasks, ...]) -> tuple[Tasks, ...]:
    """Return the first of some sets, as many as an inquiry may hold; the rest is asked for in the next round.

    The size is that of an answer in JSON, the longest form; a single set fits whatever its names (`MOST_LOT`).
    """
    size = 0
    for count, bundle in enumerate(bundles[:MOST_ITEMS]):
        size += 64 + sum(len(task) + 4 for task in bundle)
        if size > MOST_INQUIRY_BYTES and count:
            return bundles[:count]
    return bundles[:MOST_ITEMS]


def _asked(state: Asking, now_s: float) -> Result:
    until_s = min(now_s + state.lot.answer_s, state.lot.ask_until_s)
    left_s, tells = max(0.0, until_s - now_s), []
    for agent in sorted(state.waiting):
        inquiry = Inquiry(round=state.round, bundles=tuple(Bundle(tasks=bundle) for bundle in state.asked[agent]))
        tells.append(Tell(agent, act("cfp", state.lot.conversation, inquiry=inquiry, reply_by_s=left_s)))
    return replace(state, until_s=until_s), [Save(), *tells, StartTimer(left_s)]


def _heard(state: Asking, heard: Heard) -> Result:
    sender, lot = heard.sender, state.lot
    if sender not in lot.agents:
        return state, [Refuse(sender, "not-invited", f"{sender!r} takes no part in {lot.conversation!r}")]
    refused = objection(heard, lot.conversation, lot.agents)
    if refused is None and heard.act.performative == "refuse" and sender in state.search.plan:
        text = f"{sender} refused: {heard.act.reason or 'no reason'}"
        return _left_out(state, [sender], text, heard.now_s)
    problem = None if refused is not None else _quote_problem(state, heard)
    if refused is None and problem is None:
        # It answers what was asked, so it is no flood: there are as many as questions.
        state = _spent(_noted(state, heard), heard.now_s, state.waiting)
        return (state, []) if state.waiting else _go_on(state, heard.now_s)
    is_flood = state.heard.get(sender, 0) >= MOST_ACTS
    state = replace(state, heard=counted(state.heard, sender))
    if is_flood:
        text = f"more than {MOST_ACTS} acts of {sender!r} that answer nothing in one auction"
        return state, [Refuse(sender, "too-many", text)]
    if refused is not None:
        return state, [*answered(refused, heard)]
    return state, [Refuse(sender, *problem)] if problem is not None else []


def _quote_problem(state: Asking, heard: Heard) -> tuple[RefusalCause, str] | None:
    quote = heard.act.quote
    if heard.act.performative != "propose":
        return "out-of-turn", f"{heard.act.performative} is no answer to what was asked"
    if quote is None:
        return "no-content", "a proposal without a quote"
    if quote.round != state.round or heard.sender not in state.asked:
        return "stale-epoch", f"a quote for round {quote.round}, this is round {state.round}"
    if heard.sender not in state.waiting:
        return "repeated", f"{heard.sender!r} has answered already: the first word counts"
    if any(not 0 <= item.cost < INFEASIBLE for item in quote.costs):
        return "no-number", "a cost is a finite number, 0 or more"
    return None


def _noted(state: Asking, heard: Heard) -> Asking:
    """Return the state with a quote's costs; what was asked and not quoted cannot be done."""
    quote, sender = heard.act.quote, heard.sender
    told = {tuple(sorted(item.tasks)): item.cost for item in quote.costs} if quote is not None else {}
    own = {bundle: told.get(bundle, INFEASIBLE) for bundle in state.asked[sender]}
    return replace(state, search=noted(state.search, sender, own), waiting=state.waiting - {sender})


def _spent(state: Asking, now_s: float, waiting: frozenset[str]) -> Asking:
    """Return the state with the time since the last answer put down to those that were waited for."""
    part_s = max(0.0, now_s - state.since_s) / max(1, len(waiting))
    spent = {**state.spent, **{agent: state.spent.get(agent, 0.0) + part_s for agent in sorted(waiting)}}
    return replace(state, spent=spent, since_s=max(now_s, state.since_s))


def _without_the_silent(state: Asking, now_s: float) -> Result:
    names = sorted(state.waiting)
    return _left_out(state, names, f"no answer in {state.lot.answer_s:g} s: {', '.join(names)}", now_s)


def _left_out(state: Asking, names: list[str], text: str, now_s: float) -> Result:
    """Go on without some agents; what was theirs is auctioned again."""
    waiting = state.waiting - set(names)
    state = replace(state, search=without(state.search, names, text), waiting=waiting)
    if not state.search.plan:
        return _nobodys(state, "nobody is left")
    return (state, [Save()]) if waiting else _go_on(state, now_s)


def _award(state: Asking, now_s: float) -> Result:
    """Award what was decided; what could not be is left."""
    search = settled(state.search)
    plan = {agent: tasks for agent, tasks in search.plan.items() if tasks}
    reasons = search.reasons
    if search.open and is_over(now_s, state.lot.ask_until_s):
        reasons = (*reasons, f"the time for answers was over: {', '.join(search.open)}")
    if not plan:
        return _nobodys(replace(state, search=replace(search, reasons=reasons)), "nobody can do any of what is left")
    text = f"{search.moves} transfers and swaps; costs {costs_of(plan, search.costs)}"
    return auction_awards.begun(state.lot, plan, (*reasons, text), now_s)


def _nobodys(state: Asking, text: str) -> Result:
    return Allotted({}, tuple(sorted(state.lot.tasks)), (*state.search.reasons, text)), [Save()]
