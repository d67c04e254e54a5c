"""`make bench-allocation` and `bench-negotiation` in small: their yardsticks are right, and goals can be missed."""

import itertools

import pytest

from tests.bench.allocation import PROTOCOLS, assignment_is_optimal, goals, summary
from tests.bench.allocation_routing import random_routing
from tests.bench.negotiation import goals as negotiation_goals
from tests.bench.negotiation import lied, mediated, play, scored


def test_the_optimum_is_what_looking_at_all_plans_finds() -> None:
    routing = random_routing(3, robots=2, tasks=4)
    sums, spans = [], []
    for owners in itertools.product(routing.robots, repeat=4):
        parts = [tuple(t for t, who in zip(routing.names, owners, strict=True) if who == r) for r in routing.robots]
        costs = [routing.cost(robot, own) for robot, own in zip(routing.robots, parts, strict=True)]
        sums.append(sum(costs))
        spans.append(max(costs))
    assert routing.optimum() == pytest.approx({"sum": min(sums), "makespan": min(spans)})


def test_a_path_is_the_shortest_of_all_orders() -> None:
    routing = random_routing(4, robots=1, tasks=4)
    ways = []
    for order in itertools.permutations(routing.names):
        places = [routing.robots["r0"], *(routing.tasks[task] for task in order)]
        ways.append(sum(((a - c) ** 2 + (b - d) ** 2) ** 0.5 for (a, b), (c, d) in itertools.pairwise(places)))
    assert routing.cost("r0", routing.names) == pytest.approx(min(ways))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_places_each_task_once_and_beats_no_optimum(name: str) -> None:
    routing = random_routing(5, robots=3, tasks=5)
    plan = PROTOCOLS[name](routing)
    assert sorted(task for own in plan.values() for task in own) == list(routing.names)
    costs = [routing.cost(robot, own) for robot, own in plan.items()]
    best = routing.optimum()
    assert sum(costs) >= best["sum"] - 1e-9
    assert max(costs) >= best["makespan"] - 1e-9


def test_goals_can_be_missed() -> None:
    bad = {"makespan": summary([1.0, 2.0]), "sum": summary([2.5])}
    found = goals({"auction + re-auction, makespan": bad, "auction, sum": bad}, is_optimal=False)
    assert not any(goal["met"] for goal in found.values())
    rows = {"mediated": {"nash": 0.9}, "our boulware": {"nash": 0.8}, "negmas micro": {"nash": 0.9}}
    assert not any(goal["met"] for goal in negotiation_goals(rows, 21.0).values())
    assert assignment_is_optimal(10)[0]


DOMAIN = {"rows": [[1.0, 0.1], [0.8, 0.8], [0.1, 1.0], [0.3, 0.3]], "least": [0.2, 0.2]}


def test_a_negotiation_is_scored_against_the_best_there_is() -> None:
    assert mediated(DOMAIN)["agreed"] == 1
    best = scored(DOMAIN, {"agreed": 1, "rounds": 1, "took_s": 0.0})
    assert (best["nash"], best["welfare"], best["pareto_distance"]) == (1.0, 1.0, 0.0)
    none = scored(DOMAIN, {"agreed": None, "rounds": 9, "took_s": 0.0})
    assert (none["nash"], none["agreed"]) == (0.0, 0.0)
    assert scored(DOMAIN, {"agreed": 3, "rounds": 1, "took_s": 0.0})["pareto_distance"] > 0.5
    assert lied(DOMAIN)["other_over_disagreement"] >= 0.0


@pytest.mark.parametrize("tactic", ["boulware", "linear", "conceder", "micro"])
def test_two_of_ours_agree_on_what_suits_both(tactic: str) -> None:
    assert play(DOMAIN, (tactic, tactic), 50)["agreed"] == 1  # type: ignore[arg-type]
