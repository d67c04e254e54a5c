"""Sequential single-item auction of a batch of tasks, then a bounded re-auction; the auctioneer's side.

    Planned -> Asking (auction, then re-auction) -> Awarding -> Allotted

The auctioneer asks what sets of tasks would cost each agent, and remembers the answers. In each round of the auction
the task and the agent with the best bid meet; then tasks are transferred or swapped while that makes the whole better,
at most `most_moves` times. For the sum a bid is what a task adds to its agent's cost: twice the best possible sum at
most where costs are paths in a metric. For the makespan it is what the agent's whole work would then cost; all is done
once more from bids for the sum, and the better plan counts.

An agent that does not answer in time is left out of what follows, so silence blocks nobody. Awards take effect in the
ledger alone (`task_ledger.py`); what nobody has taken in time is open again. `auction_bidder.py` is the other side.

Source: Lagoudakis et al. 2005 (bidding rules and their bounds); Koenig et al. 2006; Nanjanath and Gini 2010.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from edgeagents.model.cooperation import MOST_ITEMS, Award, Bundle, Inquiry
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import (
    MOST_ACTS,
    Begin,
    ConversationEffect,
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
from edgeagents.protocol.plans import (
    INFEASIBLE,
    Costs,
    Objective,
    Plan,
    Want,
    best_bid,
    better,
    costs_of,
    team_cost,
    wanted_bundles,
)
from edgeagents.protocol.task_ledger import AwardTask, LedgerAnswer, ReadTask, ReopenTask


@dataclass(frozen=True, slots=True)
class Lot:
    """A batch to be shared out.

    Args:
        conversation: names the batch.
        tasks: their names, with the epoch each has in the ledger.
        agents: who may bid.
        objective: what shall be least: the sum of all costs, or the largest one.
        answer_s: how long one answer may take.
        take_s: how long a winner may take to take its task.
        deadline_s: when all is over, on the auctioneer's clock.
        most_moves: transfers and swaps of the re-auction.
    """

    conversation: str
    tasks: Mapping[str, int]
    agents: tuple[str, ...]
    objective: Objective
    answer_s: float
    take_s: float
    deadline_s: float
    most_moves: int = 30


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was sent yet."""

    lot: Lot


@dataclass(frozen=True, slots=True)
class Asking:
    """Answers of `waiting` are awaited until `until_s`; `costs` is all that is known so far."""

    lot: Lot
    plan: Plan
    costs: Costs
    open: tuple[str, ...]
    round: int = 0
    asked: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    until_s: float = 0.0
    moves: int = 0
    heard: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    first: Plan | None = None  # what the first start came to, while the second one is tried


@dataclass(frozen=True, slots=True)
class Awarding:
    """The plan stands; each winner has until `until_s` to take its tasks in the ledger."""

    lot: Lot
    plan: Plan
    until_s: float
    reasons: tuple[str, ...]
    taken: frozenset[str] = frozenset()
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Allotted:
    """It has ended: whose each task is, what is left, and why."""

    plan: Plan
    unplaced: tuple[str, ...]
    reasons: tuple[str, ...]


State: TypeAlias = Planned | Asking | Awarding | Allotted


Event: TypeAlias = Begin | Heard | Tick | LedgerSaid | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Planned(lot), Begin(now_s):
            return _begun(lot, now_s)
        case ((Planned() | Allotted()), Heard(sender=sender)):
            return state, [Refuse(sender, "late", "nothing is asked here")]
        case ((Planned() | Allotted()), _):
            return state, []
        case _, (Tick(now_s) | Recovered(now_s) | LedgerSaid(_, now_s)) if is_over(now_s, state.lot.deadline_s):
            return _over(state)
        case Asking(), Heard():
            return _heard(state, event)
        case Asking(), Tick(now_s) if is_over(now_s, state.until_s) and state.waiting:
            return _without_the_silent(state, now_s)
        case Asking(), Recovered(now_s):
            return _asked(state, now_s)
        case Awarding(), Heard():
            return _heard_of_award(state, event)
        case Awarding(), LedgerSaid(answer, now_s):
            return _ledger_said(state, answer, now_s)
        case Awarding(), Tick(now_s) if is_over(now_s, state.until_s):
            return _over(state)
        case Awarding(), Recovered(now_s):
            return state, [*_award_requests(state), StartTimer(max(0.0, state.until_s - now_s))]
        case _:
            return state, []


def _begun(lot: Lot, now_s: float) -> Result:
    if not lot.tasks or not lot.agents or not now_s < lot.deadline_s:
        text = "no tasks" if not lot.tasks else "no agents" if not lot.agents else "the deadline had passed before"
        return Allotted({}, tuple(sorted(lot.tasks)), (text,)), []
    state = Asking(lot, dict.fromkeys(sorted(lot.agents), ()), {}, tuple(sorted(lot.tasks)))
    state_after, effects = _go_on(state, now_s)
    return state_after, [*effects, StartTimer(lot.deadline_s - now_s)]


# --- asking ----------------------------------------------------------------------------------------


def _go_on(state: Asking, now_s: float) -> Result:
    """Decide all that is known enough, then ask for what is not; award when nothing is left to decide."""
    while True:
        want = wanted_bundles(state.plan, state.costs, state.open, state.moves < state.lot.most_moves)
        if want:
            return _ask(state, want, now_s)
        following = (_bid_won(state) if state.open else _moved(state)) or _second_start(state)
        if following is None:
            return _award(_best_of_both(state), now_s)
        state = following


def _second_start(state: Asking) -> Asking | None:
    """Return the state with all tasks open again, to be bid for as for the sum; None when that is not worth a try.

    A makespan has many local optima, and most costs are known by now.
    """
    lot = state.lot
    if lot.objective == "sum" or not lot.most_moves or state.first is not None or state.open or len(state.plan) < 2:
        return None
    plan: Plan = dict.fromkeys(state.plan, ())
    reasons = (*state.reasons, "all once more, from bids for the sum")
    return replace(state, plan=plan, open=tuple(sorted(lot.tasks)), moves=0, first=state.plan, reasons=reasons)


def _best_of_both(state: Asking) -> Asking:
    """Return the state with the better of the plans of both starts."""
    if state.first is None:
        return state
    first, second = (
        team_cost({agent: state.costs[agent][own] for agent, own in plan.items()}, state.lot.objective)
        for plan in (state.first, state.plan)
    )
    if state.open or first <= second:
        return replace(state, plan=state.first, open=(), reasons=(*state.reasons, "the first plan was the better one"))
    return state


def _ask(state: Asking, want: Want, now_s: float) -> Result:
    asked = {agent: bundles[:MOST_ITEMS] for agent, bundles in want.items()}
    until_s = min(now_s + state.lot.answer_s, state.lot.deadline_s)
    state = replace(state, round=state.round + 1, asked=asked, waiting=frozenset(asked), until_s=until_s)
    return _asked(state, now_s)


def _asked(state: Asking, now_s: float) -> Result:
    left_s = max(0.0, state.until_s - now_s)
    tells = []
    for agent in sorted(state.waiting):
        inquiry = Inquiry(round=state.round, bundles=tuple(Bundle(tasks=bundle) for bundle in state.asked[agent]))
        tells.append(Tell(agent, act("cfp", state.lot.conversation, inquiry=inquiry, reply_by_s=left_s)))
    return state, [Save(), *tells, StartTimer(left_s)]


def _bid_won(state: Asking) -> Asking | None:
    """Return the state after the best bid of a round, None when nobody can do any of the open tasks."""
    objective = state.lot.objective if state.first is None else "sum"
    best = best_bid(state.plan, state.costs, state.open, objective)
    if best is None:
        return None
    agent, task, bid = best
    plan = {**state.plan, agent: tuple(sorted((*state.plan[agent], task)))}
    left = tuple(name for name in state.open if name != task)
    return replace(state, plan=plan, open=left, reasons=(*state.reasons, f"{task} to {agent} for {bid:g}"))


def _moved(state: Asking) -> Asking | None:
    """Return the state after the best transfer or swap, None when there is none, or enough were made."""
    if state.moves >= state.lot.most_moves:
        return None
    found = better(state.plan, state.costs, state.lot.objective)
    if found is None:
        return None
    plan, text = found
    return replace(state, plan=plan, moves=state.moves + 1, reasons=(*state.reasons, text))


def _heard(state: Asking, heard: Heard) -> Result:
    refused = objection(heard, state.lot.conversation, state.lot.agents)
    if refused is not None:
        return state, [*answered(refused, heard)]
    sender = heard.sender
    if state.heard.get(sender, 0) >= MOST_ACTS:
        return state, [Refuse(sender, "too-many", f"more than {MOST_ACTS} acts of {sender!r} in one auction")]
    state = replace(state, heard=counted(state.heard, sender))
    if heard.act.performative == "refuse" and sender in state.plan:
        return _left_out(state, [sender], f"{sender} refused: {heard.act.reason or 'no reason'}", heard.now_s)
    problem = _quote_problem(state, heard)
    if problem is not None:
        return state, [Refuse(sender, *problem)]
    state = _noted(state, heard)
    return (state, []) if state.waiting else _go_on(state, heard.now_s)


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
    costs = {**state.costs, sender: {**state.costs.get(sender, {}), **own}}
    return replace(state, costs=costs, waiting=state.waiting - {sender})


def _without_the_silent(state: Asking, now_s: float) -> Result:
    names = sorted(state.waiting)
    return _left_out(state, names, f"no answer in {state.lot.answer_s:g} s: {', '.join(names)}", now_s)


def _left_out(state: Asking, names: list[str], text: str, now_s: float) -> Result:
    """Go on without some agents; what was theirs is auctioned again."""
    back = tuple(task for name in names for task in state.plan.get(name, ()))
    plan = {agent: tasks for agent, tasks in state.plan.items() if agent not in names}
    reasons = (*state.reasons, f"{text}: left out")
    waiting = state.waiting - set(names)
    state = replace(
        state, plan=plan, open=tuple(sorted((*state.open, *back))), reasons=reasons, waiting=waiting, first=None
    )
    if not plan:
        return Allotted({}, state.open, (*reasons, "nobody is left")), [Save()]
    return (state, [Save()]) if waiting else _go_on(state, now_s)


# --- awarding --------------------------------------------------------------------------------------


def _award(state: Asking, now_s: float) -> Result:
    text = f"{state.moves} transfers and swaps; costs {costs_of(state.plan, state.costs)}"
    plan = {agent: tasks for agent, tasks in state.plan.items() if tasks}
    awarding = Awarding(state.lot, plan, min(now_s + state.lot.take_s, state.lot.deadline_s), (*state.reasons, text))
    if not plan:
        return Allotted({}, state.open, (*state.reasons, "nobody can do any of what is left")), [Save()]
    return awarding, [Save(), *_award_requests(awarding), StartTimer(state.lot.take_s)]


def _award_requests(state: Awarding) -> Iterator[AskLedger]:
    for agent, tasks in state.plan.items():
        for task in tasks:
            if task not in state.taken:
                yield AskLedger(AwardTask(task, state.lot.tasks[task], agent, state.lot.take_s))


def _ledger_said(state: Awarding, answer: LedgerAnswer, now_s: float) -> Result:
    entry = answer.entry
    if entry.winner not in state.plan or entry.task not in state.plan[entry.winner]:
        return state, []
    if entry.status == "awarded":
        award = Award(task=entry.task, epoch=entry.epoch)
        left_s = max(0.0, state.until_s - now_s)
        said = act("accept-proposal", state.lot.conversation, award=award, reply_by_s=left_s)
        return state, [Tell(entry.winner, said)]
    if entry.status == "open" or entry.task in state.taken:
        return state, []
    state = replace(state, taken=state.taken | {entry.task})
    return _over(state) if all(state.taken >= set(tasks) for tasks in state.plan.values()) else (state, [Save()])


def _heard_of_award(state: Awarding, heard: Heard) -> Result:
    refused = objection(heard, state.lot.conversation, state.lot.agents)
    if refused is not None:
        return state, [*answered(refused, heard)]
    award, sender = heard.act.award, heard.sender
    if award is None or award.task not in state.plan.get(sender, ()):
        return state, [Refuse(sender, "late", "bids are closed")]
    if state.heard.get(sender, 0) >= MOST_ACTS:
        return state, [Refuse(sender, "too-many", f"more than {MOST_ACTS} acts of {sender!r}")]
    return replace(state, heard=counted(state.heard, sender)), [AskLedger(ReadTask(award.task))]


def _over(state: Asking | Awarding) -> Result:
    if isinstance(state, Asking):
        text = f"the deadline of {state.lot.conversation!r} has passed while costs were asked for"
        return Allotted({}, tuple(sorted(state.lot.tasks)), (*state.reasons, text)), [Save()]
    plan = {agent: tuple(task for task in tasks if task in state.taken) for agent, tasks in state.plan.items()}
    plan = {agent: tasks for agent, tasks in plan.items() if tasks}
    left = tuple(sorted(set(state.lot.tasks) - state.taken))
    not_taken = [task for tasks in state.plan.values() for task in tasks if task not in state.taken]
    reasons = (*state.reasons, f"not taken in time: {', '.join(not_taken)}") if not_taken else state.reasons
    reopen = [AskLedger(ReopenTask(task, state.lot.tasks[task] + 1)) for task in not_taken]
    return Allotted(plan, left, reasons), [Save(), *reopen]
