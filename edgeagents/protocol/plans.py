"""Who does which tasks, and whether another way is better: the arithmetic of the auction, from known costs alone.

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


def with_task(tasks: Tasks, task: str) -> Tasks:
    """Return a set with one task more."""
    return tuple(sorted((*tasks, task)))


def without_task(tasks: Tasks, task: str) -> Tasks:
    """Return a set with one task less."""
    return tuple(name for name in tasks if name != task)


def wanted_bundles(plan: Plan, costs: Costs, open_: Tasks, may_move: bool) -> dict[str, tuple[Tasks, ...]]:
    """Return which costs have to be asked for before the next decision; empty when all are known."""
    want: dict[str, tuple[Tasks, ...]] = {}
    for agent, own in plan.items():
        bundles = {own, *(with_task(own, task) for task in open_)}
        if not open_ and may_move:
            others = [task for name, tasks in plan.items() if name != agent for task in tasks]
            bundles |= {with_task(own, task) for task in others}
            bundles |= {without_task(own, task) for task in own}
            bundles |= {with_task(without_task(own, mine), task) for mine in own for task in others}
        known = costs.get(agent, {})
        missing = tuple(sorted(bundle for bundle in bundles if bundle not in known))
        if missing:
            want[agent] = missing
    return want


def best_bid(plan: Plan, costs: Costs, open_: Tasks, objective: Objective) -> tuple[str, str, float] | None:
    """Return the agent and the open task that fit best, and the bid; None when nobody can do any.

    Equal bids are parted by what the task adds, then by name, the same everywhere.
    """
    bids = []
    for agent, own in plan.items():
        before = costs[agent][own]
        for task in open_:
            after = costs[agent][with_task(own, task)]
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
    best, found = team_cost(loads, objective), None
    for hops in _moves(plan):
        after = _after(plan, hops)
        cost = team_cost({**loads, **{agent: costs[agent][tasks] for agent, tasks in after.items()}}, objective)
        if _is_less(cost, best):
            text = ", ".join(f"{task} from {agent} to {other}" for task, agent, other in hops)
            best, found = cost, ({**plan, **after}, text)
    return found


def _after(plan: Plan, hops: Hops) -> dict[str, Tasks]:
    """Return what the agents of a move have after it."""
    after: dict[str, Tasks] = {}
    for task, agent, other in hops:
        after[agent] = without_task(after.get(agent, plan[agent]), task)
        after[other] = with_task(after.get(other, plan[other]), task)
    return after


def _moves(plan: Plan) -> Iterator[Hops]:
    """Yield each transfer, swap, and chain or ring of three: each agent gives one task at most, and gets one at most.

    So what every agent would have is one of the sets that `wanted_bundles` asks for.
    """
    for first, own in plan.items():
        for second, its in plan.items():
            if second == first:
                continue
            for task in own:
                step = (task, first, second)
                yield (step,)
                for other in its:
                    if first < second:
                        yield step, (other, second, first)
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
