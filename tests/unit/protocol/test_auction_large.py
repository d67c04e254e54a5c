"""Auctions of many tasks, of slow agents and of little time: what does not fit is sliced, only what is late is left."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.adapters import wire
from edgeagents.model.cooperation import Act
from edgeagents.protocol import auction, plans
from edgeagents.protocol.auction import Allotted, Asking, Awarding, Lot, Planned, step
from edgeagents.protocol.auction_bidder import quoted
from edgeagents.protocol.conversation import Begin, Heard, Recovered, Refuse, Tell, Tick, act
from tests.unit.protocol.society_machine import CASES, PATIENT
from tests.unit.protocol.test_auction_property import line_cost

pytestmark = PATIENT
BATCH = "t-1"
STARTS = {"anna": 0.0, "bert": 20.0, "mallory": 39.0}
Cost = Any  # (agent, tasks) -> cost


def places(count: int, name: str = "t{:03}") -> dict[str, float]:
    return {name.format(number): float(number * 7 % 40) for number in range(count)}


def lot_of(tasks: dict[str, float], starts: dict[str, float], deadline_s: float, **more: Any) -> Lot:
    fields = {"objective": "sum", "answer_s": 1.0, "take_s": 2.0, **more}
    return Lot(BATCH, dict.fromkeys(tasks, 0), tuple(starts), deadline_s=deadline_s, **fields)


def held(
    lot: Lot, cost: Cost, slow: dict[str, float] | None = None, kind: str = wire.PROTOBUF
) -> tuple[Any, list[int]]:
    """Return what asking came to when all answer, each after its time, and how large each act was."""
    state, effects = step(Planned(lot), Begin(0.0))
    now_s, sizes = 0.0, list[int]()

    def sent(said: Act) -> Act:
        data = wire.encode(said, kind)
        sizes.append(len(data))
        return wire.decode(Act, data, kind)

    while isinstance(state, Asking):
        tells = [effect for effect in effects if isinstance(effect, Tell)]
        assert tells, "somebody is asked, or it is over"
        began_s = now_s
        for tell in sorted(tells, key=lambda tell: (slow or {}).get(tell.to, 0.0)):
            now_s = began_s + (slow or {}).get(tell.to, 0.0)
            state = step(state, Tick(now_s))[0]
            inquiry = sent(tell.act).inquiry
            if not isinstance(state, Asking) or inquiry is None:
                break
            quote = quoted(inquiry, lambda tasks, agent=tell.to: cost(agent, tasks))  # type: ignore[misc]
            state, effects = step(state, Heard(tell.to, sent(act("propose", BATCH, quote=quote)), now_s))
            assert not any(isinstance(effect, Refuse) for effect in effects)
    return state, sizes


@pytest.mark.parametrize("kind", [wire.PROTOBUF, wire.JSON])
def test_inquiries_and_quotes_of_many_long_names_fit_into_a_message(kind: str) -> None:
    """50 tasks with names of 64 letters would be 1.4 MB at once: nobody could read it, all would count as silent."""
    starts = {**STARTS, "carl": 12.0}
    tasks = places(50, "t{:03}-" + "x" * 59)
    state, sizes = held(
        lot_of(tasks, starts, 1000.0, most_moves=2), lambda agent, own: line_cost(starts[agent], tasks, own), kind=kind
    )
    assert max(sizes) <= auction.MOST_INQUIRY_BYTES < wire.MAX_MESSAGE_BYTES
    assert isinstance(state, Awarding)
    assert sorted(task for own in state.plan.values() for task in own) == sorted(tasks)
    assert len(state.plan) > 1
    assert not any("left out" in reason for reason in state.reasons)


def test_answers_to_what_was_asked_are_no_flood_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auction, "MOST_ACTS", 5)
    state, _ = held(lot_of(places(20), {"anna": 0.0}, 100.0, most_moves=0), lambda agent, own: float(len(own)))
    assert isinstance(state, Awarding)
    assert len(state.plan["anna"]) == 20


def test_one_that_answers_late_each_time_and_wants_all_gets_its_share_of_the_time_alone() -> None:
    tasks = places(25)

    def cost(agent: str, own: tuple[str, ...]) -> float:
        return 0.0 if agent == "mallory" else line_cost(STARTS[agent], tasks, own)

    state, _ = held(lot_of(tasks, STARTS, 20.0), cost, {"mallory": 0.99})
    assert isinstance(state, Awarding)
    assert sorted(task for own in state.plan.values() for task in own) == sorted(tasks)
    assert {"anna", "bert"} < set(state.plan)


def test_what_nobody_else_can_do_waits_for_one_that_has_had_its_share() -> None:
    tasks = places(12)

    def cost(agent: str, own: tuple[str, ...]) -> float:
        return float(len(own)) if agent == "mallory" else plans.INFEASIBLE

    state, _ = held(lot_of(tasks, STARTS, 20.0, most_moves=0), cost, {"mallory": 0.9})
    assert isinstance(state, Awarding)
    assert sorted(state.plan["mallory"]) == sorted(tasks)


def test_what_was_decided_when_the_time_for_answers_is_over_is_awarded() -> None:
    tasks = places(25)
    state, _ = held(lot_of(tasks, {"anna": 0.0}, 20.0), lambda agent, own: float(len(own)), {"anna": 0.9})
    assert isinstance(state, Awarding)
    assert 15 <= len(state.plan["anna"]) < 25
    assert any(reason.startswith("the time for answers was over: ") for reason in state.reasons)


def test_a_whole_first_plan_counts_when_time_runs_out_in_the_second_start() -> None:
    tasks = places(9)
    lot = lot_of(tasks, STARTS, 1000.0, objective="makespan")
    whole: list[Asking] = []

    def cost(agent: str, own: tuple[str, ...]) -> float:
        return line_cost(STARTS[agent], tasks, own)

    state, effects = step(Planned(lot), Begin(0.0))
    while isinstance(state, Asking) and not whole:
        for tell in [effect for effect in effects if isinstance(effect, Tell)]:
            assert tell.act.inquiry is not None
            quote = quoted(tell.act.inquiry, lambda own, agent=tell.to: cost(agent, own))  # type: ignore[misc]
            state, effects = step(state, Heard(tell.to, act("propose", BATCH, quote=quote), 0.5))
        if isinstance(state, Asking) and state.search.first is not None and state.search.open:
            whole.append(state)
    assert whole, "the second start has questions of its own"
    after = step(whole[0], Tick(lot.ask_until_s))[0]
    assert isinstance(after, Awarding)
    assert sorted(task for own in after.plan.values() for task in own) == sorted(tasks)


def test_an_auctioneer_that_was_down_for_a_moment_waits_for_answers_again() -> None:
    state, effects = step(Planned(lot_of(places(2), {"anna": 0.0, "bert": 1.0}, 30.0)), Begin(0.0))
    state, effects = step(state, Recovered(1.5))
    assert [effect.act.reply_by_s for effect in effects if isinstance(effect, Tell)] == [1.0, 1.0]
    state = step(state, Tick(2.0))[0]
    assert isinstance(state, Asking)
    assert set(state.search.plan) == {"anna", "bert"}


def test_one_that_was_down_when_it_should_have_begun_begins_when_it_is_back() -> None:
    lot = lot_of(places(2), {"anna": 0.0}, 30.0)
    assert step(Planned(lot), Recovered(1.0)) == step(Planned(lot), Begin(1.0))


def test_strangers_get_no_answer_and_members_only_so_many() -> None:
    shout = act("propose", BATCH).model_copy(update={"performative": "shout"})
    state: Any = step(Planned(lot_of(places(2), {"anna": 0.0}, 30.0)), Begin(0.0))[0]
    state, effects = step(state, Heard("mallory", shout, 0.1))
    assert [type(effect) for effect in effects] == [Refuse]
    answers = 0
    for _ in range(auction.MOST_ACTS + 9):
        state, effects = step(state, Heard("anna", shout, 0.1))
        answers += sum(isinstance(effect, Tell) for effect in effects)
    assert answers == auction.MOST_ACTS
    assert state.heard == {"anna": auction.MOST_ACTS + 9}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tasks": {f"t{n}": 0 for n in range(257)}}, "at most 256 of each"),
        ({"agents": ("21 C",)}, "'21 C' is no name"),
        ({"deadline_s": float("nan")}, "the deadline had passed"),
        ({"deadline_s": float("inf")}, "the deadline had passed"),
        ({"deadline_s": 3.0}, "no time to ask"),
        ({"answer_s": float("nan")}, "above 0"),
        ({"take_s": 90_000.0, "deadline_s": 1e6}, "at most 86400"),
        ({"objective": "least"}, "means nothing here"),
    ],
)
def test_a_lot_that_cannot_be_auctioned_is_an_answer(changed: dict[str, Any], reason: str) -> None:
    fields = {
        "conversation": BATCH, "tasks": {"t": 0}, "agents": ("anna",), "objective": "sum", "answer_s": 1.0,
        "take_s": 2.0, "deadline_s": 9.0,
    }  # fmt: skip
    found, effects = step(Planned(Lot(**{**fields, **changed})), Begin(0.0))
    assert isinstance(found, Allotted)
    assert reason in found.reasons[0]
    assert effects == []


def test_of_many_tasks_only_so_many_moves_are_looked_at() -> None:
    def plan(count: int) -> plans.Plan:
        return {f"r{n}": tuple(f"t{k:03}" for k in range(n, count, 4)) for n in range(4)}

    def kinds(count: int) -> set[int]:
        return {len(hops) for hops in plans._moves(plan(count))}

    assert [kinds(count) for count in (9, 40, 64, 65, 256)] == [{1, 2, 3}, {1, 2, 3}, {1, 2}, {1}, {1}]
    assert max(sum(1 for _ in plans._moves(plan(count))) for count in (9, 40, 48, 64, 256)) <= plans.MOST_THREES
    wanted = plans.wanted_bundles(plan(256), {}, (), may_move=True)
    assert max(map(len, wanted.values())) <= 2 * 256


@settings(max_examples=CASES)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.floats(1e3, 1e6))
def test_one_that_prices_itself_out_leaves_what_a_team_without_it_would_do(at: list[int], factor: float) -> None:
    tasks, starts = {f"t{number}": float(place) for number, place in enumerate(at)}, {**STARTS, "mallory": 60.0}

    def cost(agent: str, own: tuple[str, ...]) -> float:
        return line_cost(starts[agent], tasks, own) * (factor if agent == "mallory" else 1.0)

    honest = {agent: start for agent, start in starts.items() if agent != "mallory"}
    with_it = held(lot_of(tasks, starts, 99.0, most_moves=2), cost)[0]
    without_it = held(lot_of(tasks, honest, 99.0, most_moves=2), cost)[0]
    assert with_it.plan == without_it.plan
