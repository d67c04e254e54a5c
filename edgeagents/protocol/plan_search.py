"""How a batch is shared out from what is known of costs: one bid after the other, then moves while they help.

A value that grows with each answer: `decided` goes on as far as the known costs allow, and says which are missing.
For the makespan all is done once more from bids for the sum, and the better plan counts. Agents that are `resting` bid
only for what no other can do.

Source: Lagoudakis et al. 2005 (bidding rules and their bounds); Koenig et al. 2006; Nanjanath and Gini 2010.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from edgeagents.protocol.plans import (
    MOST_SWAP_TASKS,
    Costs,
    Objective,
    Plan,
    Tasks,
    Want,
    best_bid,
    better,
    cost_of,
    team_cost,
    useful_bundles,
    wanted_bundles,
    with_task,
)


@dataclass(frozen=True, slots=True)
class Search:
    """What was decided so far, and from what.

    Args:
        objective: what shall be least.
        most_moves: transfers and swaps at most, from each start.
        plan: who has which tasks; agents that were left out are not in it.
        open: tasks that nobody has.
        costs: all that is known of them, and of use.
        moves: transfers and swaps since the start.
        first: what the first start came to, while the second one is tried.
        reasons: what was decided, in words.
    """

    objective: Objective
    most_moves: int
    plan: Plan
    open: Tasks
    costs: Costs
    moves: int = 0
    first: Plan | None = None
    reasons: tuple[str, ...] = ()


def search_of(tasks: Collection[str], agents: Collection[str], objective: Objective, most_moves: int) -> Search:
    """Return a search in which nothing is decided or known."""
    return Search(objective, most_moves, dict.fromkeys(sorted(agents), ()), tuple(sorted(tasks)), {})


def decided(search: Search, resting: Collection[str] = ()) -> tuple[Search, Want]:
    """Return the search after all that is known enough, and the costs to ask for; when none, all is decided."""
    while True:
        bidders = _bidders(search, resting)
        want = wanted_bundles(bidders, search.costs, search.open, search.moves < search.most_moves)
        if want:
            return _of_use(search), want
        following = _bid_won(search, bidders) if search.open else _moved(search, bidders)
        if following is None and search.open and len(bidders) < len(search.plan):
            resting = ()  # what none of the others can do
            continue
        following = following or _second_start(search)
        if following is None:
            return _best_of_both(search), {}
        search = following


def settled(search: Search) -> Search:
    """Return the search after all that can be decided without another answer."""
    while search.open and (following := _bid_won(search, search.plan)) is not None:
        search = following
    return _best_of_both(search)


def noted(search: Search, agent: str, costs: Mapping[Tasks, float]) -> Search:
    """Return the search with more costs of an agent."""
    return replace(search, costs={**search.costs, agent: {**search.costs.get(agent, {}), **costs}})


def without(search: Search, names: Collection[str], text: str) -> Search:
    """Return the search without some agents; what was theirs is open again."""
    back = [task for name in names for task in search.plan.get(name, ())]
    first = search.first
    if first is not None:
        is_whole = not any(first.get(name) for name in names)
        first = {agent: tasks for agent, tasks in first.items() if agent not in names} if is_whole else None
    plan = {agent: tasks for agent, tasks in search.plan.items() if agent not in names}
    open_ = tuple(sorted((*search.open, *back)))
    return replace(search, plan=plan, open=open_, first=first, reasons=(*search.reasons, f"{text}: left out"))


def _bidders(search: Search, resting: Collection[str]) -> Plan:
    """Return the plan of those who bid now: all where nobody else is left."""
    return {agent: tasks for agent, tasks in search.plan.items() if agent not in resting} or search.plan


def _count(search: Search) -> int:
    return len(search.open) + sum(map(len, search.plan.values()))


def _of_use(search: Search) -> Search:
    """Return the search of a large batch without costs that no decision needs any more: it is written down often."""
    if _count(search) <= MOST_SWAP_TASKS:
        return search
    useful = useful_bundles(search.plan, search.open, search.moves < search.most_moves)
    costs = {
        agent: {tasks: cost for tasks, cost in search.costs.get(agent, {}).items() if tasks in bundles}
        for agent, bundles in useful.items()
    }
    return replace(search, costs=costs)


def _bid_won(search: Search, bidders: Plan) -> Search | None:
    """Return the search after the best bid of a round, None when nobody can do any of the open tasks."""
    objective = search.objective if search.first is None else "sum"
    best = best_bid(bidders, search.costs, search.open, objective)
    if best is None:
        return None
    agent, task, bid = best
    plan = {**search.plan, agent: with_task(search.plan[agent], task)}
    left = tuple(name for name in search.open if name != task)
    return replace(search, plan=plan, open=left, reasons=(*search.reasons, f"{task} to {agent} for {bid:g}"))


def _moved(search: Search, bidders: Plan) -> Search | None:
    """Return the search after the best transfer or swap, None when there is none, or enough were made."""
    if search.moves >= search.most_moves:
        return None
    found = better(bidders, search.costs, search.objective)
    if found is None:
        return None
    plan, text = found
    return replace(search, plan={**search.plan, **plan}, moves=search.moves + 1, reasons=(*search.reasons, text))


def _second_start(search: Search) -> Search | None:
    """Return the search with all tasks open again, to be bid for as for the sum; None when that is not worth a try.

    A makespan has many local optima, and most costs are known by now.
    """
    if search.objective == "sum" or not search.most_moves or search.first is not None or search.open:
        return None
    if len(search.plan) < 2 or _count(search) > MOST_SWAP_TASKS:
        return None
    plan: Plan = dict.fromkeys(search.plan, ())
    tasks = tuple(sorted(task for own in search.plan.values() for task in own))
    reasons = (*search.reasons, "all once more, from bids for the sum")
    return replace(search, plan=plan, open=tasks, moves=0, first=search.plan, reasons=reasons)


def _best_of_both(search: Search) -> Search:
    """Return the search with the better of the plans of both starts."""
    if search.first is None:
        return search
    first, second = (
        team_cost({agent: cost_of(search.costs, agent, own) for agent, own in plan.items()}, search.objective)
        for plan in (search.first, search.plan)
    )
    if search.open or first <= second:
        reasons = (*search.reasons, "the first plan was the better one")
        return replace(search, plan=search.first, open=(), reasons=reasons)
    return search
