"""The auction on a calm network: bounds of the literature, silence and floods that block nobody, refusals."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.cooperation import BundleCost, Quote
from edgeagents.protocol.auction import Allotted, Asking, Lot, Planned, step
from edgeagents.protocol.conversation import MOST_ACTS, Begin, Heard, Refuse, Tick, act
from edgeagents.protocol.plans import best_bid, better, team_cost, wanted_bundles, with_task
from tests.society import Society
from tests.unit.protocol.society_machine import CASES, PATIENT
from tests.unit.protocol.test_auction_property import BATCH, auction_of, line_cost, performed

pytestmark = PATIENT
positions = st.integers(0, 40).map(float)


def run(society: Society) -> Allotted:
    society.calm(10.0)
    state = society.parties["lead"].state
    assert isinstance(state, Allotted), state
    return state


def loads(found: Allotted, starts: dict[str, float], places: dict[str, float]) -> dict[str, float]:
    return {agent: line_cost(start, places, found.plan.get(agent, ())) for agent, start in starts.items()}


def optimum(starts: dict[str, float], places: dict[str, float], objective: Any) -> float:
    """Return the least cost over all ways to share out."""
    best = math.inf
    for owners in itertools.product(starts, repeat=len(places)):
        plan = {agent: tuple(t for t, who in zip(places, owners, strict=True) if who == agent) for agent in starts}
        costs = {agent: line_cost(start, places, plan[agent]) for agent, start in starts.items()}
        best = min(best, team_cost(costs, objective)[0])
    return best


@settings(max_examples=CASES)
@given(st.lists(positions, min_size=1, max_size=3), st.lists(positions, min_size=1, max_size=5))
def test_the_sum_is_at_most_twice_the_optimum_in_a_metric(robots: list[float], tasks: list[float]) -> None:
    """Before any task is transferred: of the auction alone the literature says so."""
    starts = {f"r{number}": place for number, place in enumerate(robots)}
    places = {f"t{number}": place for number, place in enumerate(tasks)}
    plan: dict[str, tuple[str, ...]] = dict.fromkeys(starts, ())
    open_ = tuple(places)
    while open_:
        asked = wanted_bundles(plan, {}, open_, may_move=False)
        costs = {name: {tasks: line_cost(starts[name], places, tasks) for tasks in asked[name]} for name in starts}
        best = best_bid(plan, costs, open_, "sum")
        assert best is not None
        plan[best[0]] = with_task(plan[best[0]], best[1])
        open_ = tuple(task for task in open_ if task != best[1])
    total = sum(line_cost(start, places, plan[name]) for name, start in starts.items())
    assert total <= 2 * optimum(starts, places, "sum") + 1e-9


@pytest.mark.parametrize("objective", ["sum", "makespan"])
def test_tasks_go_where_they_cost_least_and_are_taken(objective: str) -> None:
    starts, places = {"anna": 0.0, "bert": 40.0}, {"t0": 2.0, "t1": 5.0, "t2": 38.0, "t3": 33.0}
    society = auction_of(starts, places, objective)
    found = run(society)
    assert found.plan == {"anna": ("t0", "t1"), "bert": ("t2", "t3")}
    assert found.unplaced == ()
    assert performed(society) == {("anna", "t0"), ("anna", "t1"), ("bert", "t2"), ("bert", "t3")}
    assert any("t0 to anna for 2" in reason for reason in found.reasons)


def test_what_was_auctioned_one_by_one_is_moved_while_that_helps() -> None:
    starts, places = {"anna": 0.0, "bert": 10.0}, {"t0": 4.0, "t1": 20.0, "t2": 7.0}
    found = run(auction_of(starts, places, "makespan"))
    assert max(loads(found, starts, places).values()) == optimum(starts, places, "makespan")


def test_a_makespan_is_tried_from_two_starts_and_the_better_plan_counts() -> None:
    found = run(auction_of({"anna": 0.0, "bert": 10.0}, {"t0": 4.0, "t1": 20.0}, "makespan"))
    assert "all once more, from bids for the sum" in found.reasons
    assert found.reasons[-2] == "the first plan was the better one"
    one = run(auction_of({"anna": 0.0}, {"t0": 4.0}, "makespan"))
    assert "all once more, from bids for the sum" not in one.reasons, "one alone has one plan"


def test_one_that_stays_silent_is_left_out_and_blocks_nobody() -> None:
    society = auction_of({"anna": 0.0, "bert": 1.0}, {"t0": 1.0, "t1": 9.0})
    society.crash("bert")
    found = run(society)
    assert found.plan == {"anna": ("t0", "t1")}
    assert "no answer in 1 s: bert: left out" in found.reasons


def test_a_winner_that_does_not_take_its_task_leaves_it_open() -> None:
    society = auction_of({"anna": 0.0}, {"t0": 1.0})
    while isinstance(society.parties["lead"].state, Asking):
        society.deliver(0)
    society.crash("anna")
    found = run(society)
    assert (found.plan, found.unplaced) == ({}, ("t0",))
    assert "not taken in time: t0" in found.reasons
    assert society.ledger.of("t0").status == "open"


def test_what_nobody_can_carry_is_left() -> None:
    found = run(auction_of({"anna": 0.0, "bert": 5.0}, {"t0": 1.0, "t1": 4.0, "t2": 6.0}, most=1))
    assert sorted(len(tasks) for tasks in found.plan.values()) == [1, 1]
    assert len(found.unplaced) == 1


@pytest.mark.parametrize(
    ("tasks", "agents", "now_s", "reason"),
    [
        ({}, ("anna",), 0.0, "no tasks"),
        ({"t": 0}, (), 0.0, "no agents"),
        ({"t": 0}, ("anna",), 9.0, "the deadline had passed before"),
    ],
)
def test_a_lot_that_makes_no_sense_is_an_answer(tasks: Any, agents: Any, now_s: float, reason: str) -> None:
    found, effects = step(Planned(Lot("b", tasks, agents, "sum", 1.0, 2.0, 9.0)), Begin(now_s))
    assert (found, effects) == (Allotted({}, tuple(tasks), (reason,)), [])


def asking() -> Asking:
    state = step(Planned(Lot(BATCH, {"t": 0}, ("anna", "bert"), "sum", 1.0, 2.0, 9.0)), Begin(0.0))[0]
    assert isinstance(state, Asking)
    return state


def quote(cost: float, round_: int = 1) -> Any:
    costs = (BundleCost.model_construct(tasks=("t",), cost=cost), BundleCost(tasks=(), cost=0.0))
    return act("propose", BATCH).model_copy(update={"quote": Quote.model_construct(round=round_, costs=costs)})


@pytest.mark.parametrize(
    ("said", "sender", "cause"),
    [
        (quote(math.nan), "anna", "no-number"),
        (quote(-1.0), "anna", "no-number"),
        (quote(math.inf), "anna", "no-number"),
        (quote(1.0, 7), "anna", "stale-epoch"),
        (quote(1.0), "mallory", "not-invited"),
        (act("propose", BATCH), "anna", "no-content"),
        (act("inform", BATCH), "anna", "out-of-turn"),
        (quote(1.0).model_copy(update={"performative": "shout"}), "anna", "unknown-performative"),
    ],
)
def test_what_is_no_quote_is_refused_with_its_reason(said: Any, sender: str, cause: str) -> None:
    state = asking()
    after, effects = step(state, Heard(sender, said, 0.5))
    assert [effect.cause for effect in effects if isinstance(effect, Refuse)] == [cause]
    assert isinstance(after, Asking)
    assert (after.search, after.waiting) == (state.search, state.waiting)


def test_the_first_quote_counts_and_a_flood_is_not_looked_at() -> None:
    state: Any = step(asking(), Heard("anna", quote(3.0), 0.1))[0]
    state, effects = step(state, Heard("anna", quote(1.0), 0.2))
    assert effects[0].cause == "repeated"  # type: ignore[union-attr]
    for _ in range(MOST_ACTS):
        state, effects = step(state, Heard("anna", quote(1.0), 0.2))
    assert effects[0].cause == "too-many"  # type: ignore[union-attr]
    state = step(state, Heard("bert", quote(5.0), 0.3))[0]
    assert state.plan["anna"] == ("t",)


def test_one_that_refuses_is_left_out() -> None:
    state: Any = step(asking(), Heard("anna", act("refuse", BATCH, reason="charging"), 0.1))[0]
    assert state.search.reasons == ("anna refused: charging: left out",)
    reasons = state.search.reasons
    state = step(state, Tick(1.0))[0]
    assert state == Allotted({}, ("t",), (*reasons, "no answer in 1 s: bert: left out", "nobody is left"))


def test_no_move_is_made_for_the_sake_of_rounding() -> None:
    costs = {"a": {("t",): 1.0, (): 0.0}, "b": {("t",): 1.0 - 1e-13, (): 0.0}}
    assert better({"a": ("t",), "b": ()}, costs, "sum") is None
