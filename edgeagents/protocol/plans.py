"""Who does which tasks, and whether another way is better: the arithmetic of the auction, from known costs alone.

What is looked at grows with the cube of the tasks: swaps are made among `MOST_SWAP_TASKS` at most, chains and rings of
three where there are `MOST_THREES` at most, transfers always.

Source: Lagoudakis et al. 2005 for the bidding rules (BidSumPath, BidMaxPath).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

Objective: TypeAlias = Literal["sum", "makespan"]
Tasks: TypeAlias = tuple[str, ...]
"""Names, sorted: one set of tasks has one spelling."""
Plan: TypeAlias = Mapping[str, Tasks]
Costs: TypeAlias = Mapping[str, Mapping[Tasks, float]]
"""What each agent said that each set would cost it; infinite: it cannot be done."""
Hop: TypeAlias = tuple[str, str, str]
"""A task, whose it was, whose it becomes."""
Hops: TypeAlias = tuple[Hop, ...]
Want: TypeAlias = Mapping[str, tuple[Tasks, ...]]

INFEASIBLE: Final = math.inf
LEAST_GAIN: Final = 1e-9  # relative; less is rounding
MOST_SWAP_TASKS: Final = 64
MOST_THREES: Final = 50_000


def with_task(tasks: Tasks, task: str) -> Tasks:
    """Return a set with one task more."""
    return tuple(sorted((*tasks, task)))


def without_task(tasks: Tasks, task: str) -> Tasks:
    """Return a set with one task less."""
    return tuple(name for name in tasks if name != task)


def may_swap(plan: Plan) -> bool:
    """Say whether the tasks are few enough for swaps, and for what they ask of the agents."""
    return sum(map(len, plan.values())) <= MOST_SWAP_TASKS


def useful_bundles(plan: Plan, open_: Tasks, may_move: bool) -> dict[str, set[Tasks]]:
    """Return the sets that the next decision depends on, by agent."""
    useful: dict[str, set[Tasks]] = {}
    for agent, own in plan.items():
        useful[agent] = bundles = {own, *(with_task(own, task) for task in open_)}
        if not open_ and may_move:
            others = [task for name, tasks in plan.items() if name != agent for task in tasks]
            bundles |= {with_task(own, task) for task in others}
            bundles |= {without_task(own, task) for task in own}
            if may_swap(plan):
                bundles |= {with_task(without_task(own, mine), task) for mine in own for task in others}
    return useful


def wanted_bundles(plan: Plan, costs: Costs, open_: Tasks, may_move: bool) -> dict[str, tuple[Tasks, ...]]:
    """Return which costs have to be asked for before the next decision; empty when all are known."""
    want: dict[str, tuple[Tasks, ...]] = {}
    for agent, bundles in useful_bundles(plan, open_, may_move).items():
        missing = tuple(sorted(bundles - costs.get(agent, {}).keys()))
        if missing:
            want[agent] = missing
    return want


def cost_of(costs: Costs, agent: str, tasks: Tasks) -> float:
    """Return what an agent said that a set would cost it; infinite where it said nothing."""
    return costs.get(agent, {}).get(tasks, INFEASIBLE)


def best_bid(plan: Plan, costs: Costs, open_: Tasks, objective: Objective) -> tuple[str, str, float] | None:
    """Return the agent and the open task that fit best, and the bid; None when nobody is known to be able to do any.

    Equal bids are parted by what the task adds, then by name, the same everywhere.
    """
    bids = []
    for agent, own in plan.items():
        before = cost_of(costs, agent, own)
        for task in open_:
            after = cost_of(costs, agent, with_task(own, task))
            if after < INFEASIBLE and before < INFEASIBLE:
                bid = after if objective == "makespan" else after - before
                bids.append((bid, after - before, agent, task))
    if not bids:
        return None
    bid, _, agent, task = min(bids)
    return agent, task, bid


def team_cost(loads: Mapping[str, float], objective: Objective) -> tuple[float, ...]:
    """Return what is to be least, compared from the left: the sum, or the largest load, then the next, and so on."""
    return (math.fsum(loads.values()),) if objective == "sum" else tuple(sorted(loads.values(), reverse=True))


def better(plan: Plan, costs: Costs, objective: Objective) -> tuple[Plan, str] | None:
    """Return the plan after the best transfer or swap of tasks, in words too; None when none makes it better."""
    loads = {agent: costs[agent][own] for agent, own in plan.items()}
    changed = _Changed(plan, costs)
    best, found = team_cost(loads, objective), None
    for hops in _moves(plan):
        cost = team_cost({**loads, **changed.loads(hops)}, objective)
        if _is_less(cost, best):
            best, found = cost, hops
    if found is None:
        return None
    text = ", ".join(f"{task} from {agent} to {other}" for task, agent, other in found)
    return {**plan, **{agent: changed.tasks(agent, *parts) for agent, parts in _parts(found).items()}}, text


def _parts(hops: Hops) -> dict[str, tuple[str, str]]:
    """Return what each agent of a move gives and what it gets; empty: nothing."""
    parts: dict[str, tuple[str, str]] = {}
    for task, agent, other in hops:
        parts[agent] = (task, parts.get(agent, ("", ""))[1])
        parts[other] = (parts.get(other, ("", ""))[0], task)
    return parts


class _Changed:
    """What each agent has, and what that costs it, after it gave one task and got another: looked up once each."""

    def __init__(self, plan: Plan, costs: Costs):
        self.plan, self.costs = plan, costs
        self.known: dict[tuple[str, str, str], float] = {}

    def tasks(self, agent: str, given: str, got: str) -> Tasks:
        left = without_task(self.plan[agent], given) if given else self.plan[agent]
        return with_task(left, got) if got else left

    def loads(self, hops: Hops) -> dict[str, float]:
        loads = {}
        for agent, (given, got) in _parts(hops).items():
            cost = self.known.get((agent, given, got))
            if cost is None:
                cost = cost_of(self.costs, agent, self.tasks(agent, given, got))
                self.known[agent, given, got] = cost
            loads[agent] = cost
        return loads


def _moves(plan: Plan) -> Iterator[Hops]:
    """Yield each transfer, swap, and chain or ring of three: each agent gives one task at most, and gets one at most.

    So what every agent would have is one of the sets that `wanted_bundles` asks for. Of many tasks fewer are yielded.
    """
    count, swaps = sum(map(len, plan.values())), may_swap(plan)
    threes = swaps and count * count * (len(plan) + count / 3) <= MOST_THREES
    for first, own in plan.items():
        for second, its in plan.items():
            if second == first:
                continue
            for task in own:
                step = (task, first, second)
                yield (step,)
                for other in its if swaps else ():
                    if first < second:
                        yield step, (other, second, first)
                    if threes:
                        yield from _onward(plan, step, other)


def _onward(plan: Plan, step: Hop, other: str) -> Iterator[Hops]:
    _, first, second = step
    for third, theirs in plan.items():
        if third in (first, second):
            continue
        yield step, (other, second, third)
        if first < second and first < third:  # a ring is one, wherever it begins
            for task in theirs:
                yield step, (other, second, third), (task, third, first)


def _is_less(cost: tuple[float, ...], best: tuple[float, ...]) -> bool:
    for one, other in zip(cost, best, strict=True):
        if one == other:
            continue
        if not math.isclose(one, other, rel_tol=LEAST_GAIN):
            return one < other
    return False


def costs_of(plan: Plan, costs: Costs) -> str:
    """Return what each agent's part of a plan costs, in words."""
    return ", ".join(f"{agent} {costs[agent][own]:g}" for agent, own in plan.items() if own) or "none"
