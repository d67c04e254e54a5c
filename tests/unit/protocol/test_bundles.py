"""Peers on a calm network: no task twice, at least half the optimum, and nobody is blocked."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.cooperation import Claim, Claims
from edgeagents.protocol.bundles import Batch, Bidding, Ended, Planned, step
from edgeagents.protocol.conversation import Begin, Heard, Refuse, act
from tests.unit.protocol.society_machine import CASES, PATIENT
from tests.unit.protocol.test_bundles_property import BATCH, END_S, owners, peers_with

pytestmark = PATIENT
values = st.lists(st.integers(0, 9), min_size=4, max_size=4)
TASKS = ("t0", "t1", "t2", "t3")


def diminishing(table: dict[str, float], own: tuple[str, ...], task: str) -> float:
    """Return what a task adds: less with each one that is there already, as half of the rest of a day would."""
    return table[task] / 2 ** len(own)


def bundle_value(table: dict[str, float], tasks: tuple[str, ...]) -> float:
    """Return the most that a set of tasks is worth, in its best order."""
    best = sorted((table[task] for task in tasks), reverse=True)
    return sum(value / 2**place for place, value in enumerate(best))


@settings(max_examples=CASES)
@given(st.lists(values, min_size=2, max_size=3), st.integers(1, 4))
def test_the_result_is_free_of_conflicts_and_worth_at_least_half_of_the_best(rows: list[list[int]], most: int) -> None:
    tables = {f"p{n}": dict(zip(TASKS, map(float, row), strict=True)) for n, row in enumerate(rows)}
    scores = {peer: (lambda own, task, t=table: diminishing(t, own, task)) for peer, table in tables.items()}
    society = peers_with(scores, TASKS, most)
    society.calm(END_S + 1)
    found = owners(society)
    tasks = [task for task, _ in found]
    assert len(tasks) == len(set(tasks))
    reached = sum(bundle_value(t, tuple(task for task, who in found if who == peer)) for peer, t in tables.items())
    best = 0.0
    for whose in itertools.product(tables, repeat=len(TASKS)):
        shares = {peer: tuple(t for t, who in zip(TASKS, whose, strict=True) if who == peer) for peer in tables}
        if max(map(len, shares.values())) <= most:
            best = max(best, sum(bundle_value(tables[peer], own) for peer, own in shares.items()))
    assert reached >= best / 2 - 1e-9


def table_of(**rows: list[float]) -> dict[str, Any]:
    """Return score functions by peer, the same whatever a peer has already."""
    tables = {peer: dict(zip(("t0", "t1", "t2"), row, strict=True)) for peer, row in rows.items()}
    return {peer: (lambda own, task, t=table: t[task]) for peer, table in tables.items()}


def test_each_task_goes_to_the_best_bid_and_ties_to_the_first_name() -> None:
    society = peers_with(table_of(anna=[5.0, 3.0, 0.0], bert=[4.0, 3.0, 0.0], carl=[1.0, 1.0, 0.0]))
    society.calm(END_S + 1)
    assert owners(society) == [("t0", "anna"), ("t1", "anna")], "nobody wants t2"


def test_one_that_is_away_blocks_nobody_as_long_as_a_majority_is_there() -> None:
    society = peers_with(table_of(anna=[1.0, 0.0, 0.0], bert=[0.0, 1.0, 0.0], carl=[9.0, 9.0, 9.0]))
    society.network = [packet for packet in society.network if packet.sender != "carl"]
    society.crash("carl")
    society.calm(END_S + 1)
    assert owners(society) == [("t0", "anna"), ("t1", "bert")]


def test_without_a_majority_nothing_is_anybodys() -> None:
    society = peers_with(table_of(anna=[1.0, 1.0, 1.0], bert=[1.0, 1.0, 1.0], carl=[1.0, 1.0, 1.0]))
    for name in ("bert", "carl"):
        society.crash(name)
    society.calm(END_S + 1)
    assert owners(society) == []
    assert "t0: 1 of 3 voted for us, no majority" in society.parties["anna"].state.reasons


def bidding() -> Bidding:
    batch = Batch(BATCH, "anna", ("anna", "bert"), ("t0", "t1"), 1, 1.0, 4.0, 6.0, 9.0)
    state = step(Planned(batch), Begin(0.0), lambda own, task: 1.0)[0]
    assert isinstance(state, Bidding)
    return state


def claims(*tasks: str, score: float = 2.0, number: int = 1) -> Any:
    items = tuple(Claim.model_construct(task=task, score=score) for task in tasks)
    told = Claims.model_construct(number=number, phase="bidding", claims=items, votes=())
    return act("inform", BATCH).model_copy(update={"claims": told})


@pytest.mark.parametrize(
    ("said", "sender", "cause"),
    [
        (claims("t0", "t1"), "bert", "not-allowed"),
        (claims("t9"), "bert", "unknown-name"),
        (claims("t0", score=math.nan), "bert", "no-number"),
        (claims("t0", score=-1.0), "bert", "no-number"),
        (claims("t0"), "anna", "not-allowed"),
        (claims("t0"), "mallory", "not-invited"),
        (act("inform", BATCH), "bert", "no-content"),
        (claims("t0").model_copy(update={"performative": "shout"}), "bert", "unknown-performative"),
    ],
)
def test_what_is_no_claim_is_refused_with_its_reason(said: Any, sender: str, cause: str) -> None:
    state = bidding()
    after, effects = step(state, Heard(sender, said, 1.0), lambda own, task: 1.0)
    assert [effect.cause for effect in effects if isinstance(effect, Refuse)] == [cause]
    assert isinstance(after, Bidding)
    assert (after.bundle, after.told) == (state.bundle, state.told)


def test_an_older_word_than_the_newest_says_nothing() -> None:
    state: Any = bidding()
    state = step(state, Heard("bert", claims("t0", number=5), 1.0), lambda own, task: 1.0)[0]
    assert state.bundle == (("t1", 1.0),)
    after = step(state, Heard("bert", claims("t1", number=4), 1.1), lambda own, task: 1.0)[0]
    assert (after.bundle, after.told) == (state.bundle, state.told)


def test_a_deadline_in_the_past_is_an_answer() -> None:
    batch = Batch(BATCH, "anna", ("anna",), ("t0",), 1, 1.0, 4.0, 6.0, 9.0)
    assert isinstance(step(Planned(batch), Begin(4.0), lambda own, task: 1.0)[0], Ended)
