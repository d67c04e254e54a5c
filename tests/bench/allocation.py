"""How good the allocation protocols are: against the exact optimum, on random metric routing; decisions a second.

    make bench-allocation ARGS="--seeds 100"

Four robots, nine tasks; a robot's cost is its best path through its tasks. Contract net calls for one task after the
other, the auction takes all at once, peers bid for bundles; the optimum is found by looking at every way to share out.
The last line is JSON.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgeagents.model.cooperation import Ballot, Bid, CallForProposals
from edgeagents.protocol import auction, bundles, contract_net
from edgeagents.protocol.assignment import assign
from edgeagents.protocol.auction_bidder import quoted
from edgeagents.protocol.conversation import Begin, Heard, Tell, Tick, act
from edgeagents.protocol.nash import nash
from edgeagents.protocol.plans import Objective
from edgeagents.protocol.voting import count
from tests.bench.allocation_routing import Routing, random_routing

MEAN_GOAL: Final = 1.03
P95_GOAL: Final = 1.25
Plan = dict[str, tuple[str, ...]]


def by_contract_net(routing: Routing) -> Plan:
    """Return who does what when each task is called for alone, in the order of their names: the protocol itself."""
    plan: Plan = dict.fromkeys(routing.robots, ())
    for task in routing.names:
        call = CallForProposals(task=task, skill="s")
        planned = contract_net.Planned(contract_net.Terms(call, tuple(plan), 1.0, 1.0, 9.0))
        state: Any = contract_net.step(planned, contract_net.Begin(0.0))[0]
        for robot, own in plan.items():
            cost = routing.cost(robot, (*own, task)) - routing.cost(robot, own)
            state = contract_net.step(state, Heard(robot, act("propose", task, bid=Bid(cost=max(0.0, cost))), 0.1))[0]
        assert isinstance(state, contract_net.Awarding), state
        plan[state.winner] = (*plan[state.winner], task)
    return plan


def by_auction(routing: Routing, objective: Objective, most_moves: int) -> Plan:
    """Return who does what after an auction: the protocol itself, its acts answered at once."""
    lot = auction.Lot("b", dict.fromkeys(routing.tasks, 0), tuple(routing.robots), objective, 1.0, 1.0, 9.0, most_moves)
    state, effects = auction.step(auction.Planned(lot), Begin(0.0))
    while isinstance(state, auction.Asking):
        following: list[Any] = []
        for effect in effects:
            if isinstance(effect, Tell) and effect.act.inquiry is not None:
                robot = effect.to
                quote = quoted(effect.act.inquiry, lambda tasks, robot=robot: routing.cost(robot, tasks))  # type: ignore[misc]
                state, more = auction.step(state, Heard(robot, act("propose", "b", quote=quote), 0.1))
                following += more
        effects = following
    assert isinstance(state, auction.Awarding)
    return {robot: state.plan.get(robot, ()) for robot in routing.robots}


def by_bundles(routing: Routing) -> Plan:
    """Return who does what after peers bid for bundles; a task is worth what a detour of 200 m would leave of it."""
    peers = tuple(routing.robots)
    states: dict[str, Any] = {}
    scores = {
        peer: lambda own, task, peer=peer: max(
            0.001, 200.0 - (routing.cost(peer, (*own, task)) - routing.cost(peer, own))
        )
        for peer in peers
    }
    pending: list[tuple[str, str, Any]] = []

    def feed(peer: str, event: Any) -> None:
        states[peer], effects = bundles.step(states[peer], event, scores[peer])
        pending.extend((peer, effect.to, effect.act) for effect in effects if isinstance(effect, Tell))

    for peer in peers:
        states[peer] = bundles.Planned(bundles.Batch("b", peer, peers, routing.names, 9, 1.0, 4.0, 6.0, 9.0))
        feed(peer, Begin(0.0))
    for now_s in (0.5, 4.0, 6.0, 9.0):
        for peer in peers if now_s > 1 else ():
            feed(peer, Tick(now_s))
        while pending:
            sender, to, said = pending.pop(0)
            feed(to, Heard(sender, said, now_s + 0.1))
    return {peer: states[peer].mine for peer in peers}


PROTOCOLS: Final[dict[str, Callable[[Routing], Plan]]] = {
    "contract net, one by one": by_contract_net,
    "auction, sum": lambda routing: by_auction(routing, "sum", 0),
    "auction, makespan": lambda routing: by_auction(routing, "makespan", 0),
    "auction + re-auction, sum": lambda routing: by_auction(routing, "sum", 30),
    "auction + re-auction, makespan": lambda routing: by_auction(routing, "makespan", 30),
    "bundles of peers": by_bundles,
}


def compare(seeds: int, progress: Progress) -> dict[str, dict[str, list[float]]]:
    """Return for each protocol makespan and sum over the optimum's, seed by seed."""
    ratios: dict[str, dict[str, list[float]]] = {name: {"makespan": [], "sum": []} for name in PROTOCOLS}
    for seed in progress.track(range(seeds), description="instances"):
        routing = random_routing(seed)
        best = routing.optimum()
        for name, protocol in PROTOCOLS.items():
            plan = protocol(routing)
            assert sorted(task for own in plan.values() for task in own) == list(routing.names), name
            costs = [routing.cost(robot, own) for robot, own in plan.items()]
            ratios[name]["makespan"].append(max(costs) / best["makespan"])
            ratios[name]["sum"].append(sum(costs) / best["sum"])
    return ratios


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return mean, 95th percentile and worst."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]
    return {"mean": round(statistics.fmean(ordered), 4), "p95": round(p95, 4), "worst": round(ordered[-1], 4)}


def assignment_is_optimal(size: int = 100) -> tuple[bool, float]:
    """Return whether an assignment costs what another solver's does, and how long it took, ms."""
    from ortools.graph.python import linear_sum_assignment

    random_ = random.Random(1)
    costs = [[float(random_.randrange(10_000)) for _ in range(size)] for _ in range(size)]
    begun = time.perf_counter()
    found = assign(costs)
    took_ms = 1000 * (time.perf_counter() - begun)
    judge = linear_sum_assignment.SimpleLinearSumAssignment()
    for row, own in enumerate(costs):
        for column, cost in enumerate(own):
            judge.add_arc_with_cost(row, column, int(cost))
    assert judge.solve() == judge.OPTIMAL
    return judge.optimal_cost() == found.total, round(took_ms, 2)


def rates(for_s: float) -> dict[str, float]:
    """Return decisions a second of the pure code."""
    random_ = random.Random(1)
    call = CallForProposals(task="t", skill="s")
    agents = tuple(f"a{n}" for n in range(10))
    said = {agent: act("propose", "t", bid=Bid(cost=random_.random())) for agent in agents}
    ballots = [Ballot(ranking=tuple(random_.sample("abcd", 4))) for _ in range(10)]
    rows = [tuple(random_.random() for _ in range(3)) for _ in range(100)]

    def contract() -> None:
        state: Any = contract_net.Planned(contract_net.Terms(call, agents, 1.0, 1.0, 9.0))
        state = contract_net.step(state, contract_net.Begin(0.0))[0]
        for agent in agents:
            state = contract_net.step(state, Heard(agent, said[agent], 0.1))[0]

    jobs: dict[str, Callable[[], object]] = {
        "contract nets of 10 bids": contract,
        "Borda counts of 10 ballots": lambda: count("abcd", ballots),
        "Nash points of 100 outcomes": lambda: nash(rows, (0.1, 0.1, 0.1)),
    }
    return {name: round(_rate(job, for_s)) for name, job in jobs.items()}


def _rate(job: Callable[[], object], for_s: float) -> float:
    # A processor's time: others may use the machine, too.
    done, begun = 0, time.process_time()
    while (passed := time.process_time() - begun) < for_s:
        job()
        done += 1
    return done / passed


def goals(found: dict[str, dict[str, dict[str, float]]], is_optimal: bool) -> dict[str, dict[str, Any]]:
    """Return the goals with what was reached."""
    reached = found["auction + re-auction, makespan"]["makespan"]
    bound = found["auction, sum"]["sum"]["worst"]
    return {
        "makespan_mean": {"value": reached["mean"], "goal": MEAN_GOAL, "met": reached["mean"] <= MEAN_GOAL},
        "makespan_p95": {"value": reached["p95"], "goal": P95_GOAL, "met": reached["p95"] <= P95_GOAL},
        "sum_worst": {"value": bound, "goal": 2.0, "met": bound <= 2.0},
        "assignment_100_optimal": {"value": is_optimal, "goal": True, "met": is_optimal},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show a table, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-allocation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100, help="random instances")
    parser.add_argument("--rate-s", type=float, default=2.0, help="how long each rate is measured")
    options, begun = parser.parse_args(argv), time.monotonic()
    console = Console(stderr=True, width=120)
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        ratios = compare(options.seeds, progress)
    found = {name: {key: summary(values) for key, values in rows.items()} for name, rows in ratios.items()}
    table = Table("over the optimum", "makespan mean", "p95", "worst", "sum mean", "p95", "worst")
    for name, rows in found.items():
        table.add_row(name, *(f"{rows[key][part]:.3f}" for key in ("makespan", "sum") for part in rows[key]))
    console.print(table)
    is_optimal, took_ms = assignment_is_optimal()
    report = {
        "bench": "allocation", "goals": goals(found, is_optimal), "seeds": options.seeds, "over_optimum": found,
        "assignment_100_ms": took_ms, "decisions_per_s": rates(options.rate_s),
        "took_s": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
