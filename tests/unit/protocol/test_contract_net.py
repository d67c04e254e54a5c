"""Contract net on a calm network: who wins, what it is credited, and what is refused."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.cooperation import Act, Award, Bid, CallForProposals
from edgeagents.protocol.contract_net import AskLedger, Begin, Calling, Closed, Planned, Terms, step
from edgeagents.protocol.contract_net_participant import Bidding, Ended, Performed
from edgeagents.protocol.conversation import MOST_ACTS, Heard, Recovered, Refuse, Tell, Tick, act
from tests.society import Society
from tests.unit.protocol.society_machine import CASES
from tests.unit.protocol.test_contract_net_property import DEADLINE_S, TASK, net, performers

CALL = CallForProposals(task=TASK, skill="carry")


def calling(invited: tuple[str, ...] = ("anna", "bert"), **terms: Any) -> Calling:
    given = {"bid_s": 1.0, "take_s": 2.0, "deadline_s": 20.0} | terms
    state, _ = step(Planned(Terms(CALL, invited, **given)), Begin(0.0))
    assert isinstance(state, Calling)
    return state


def bid(cost: float, epoch: int = 0) -> Act:
    return act("propose", TASK, bid=Bid.model_construct(cost=cost, epoch=epoch))


def causes(effects: list) -> list[str]:
    return [effect.cause for effect in effects if isinstance(effect, Refuse)]


def finish(society: Society) -> Closed:
    """Let all happen, the winner's work too."""
    society.calm(10.0)
    for name in performers(society):
        society.feed(society.parties[name], Performed("done", society.now_s))
    society.calm(DEADLINE_S + 1)
    state = society.parties["lead"].state
    assert isinstance(state, Closed)
    return state


def test_the_cheapest_bid_wins_is_credited_the_second_best_and_all_are_told() -> None:
    society = net({"anna": 3.0, "bert": 2.0, "carl": 7.0})
    found = finish(society)
    assert (found.status, found.winner, found.price) == ("done", "bert", 3.0)
    assert "bert bid 2, the best of 3" in found.reasons
    assert [
        name for name in ("anna", "carl") if society.parties[name].state == Ended("not-mine", ("bert has taken it",))
    ]
    assert society.ledger.of(TASK).status == "done"


def test_bids_are_closed_as_soon_as_all_have_answered() -> None:
    society = net({"anna": 3.0, "bert": None})
    society.calm(0.0)
    assert performers(society) == {"anna"}
    assert society.now_s == 0.0


def test_the_only_bidder_is_credited_the_reserve_and_what_is_above_it_is_no_bid() -> None:
    assert finish(net({"anna": 3.0})).price == 100.0
    found = finish(net({"anna": 101.0}))
    assert found.status == "unplaced"
    assert "no bid for 't-1' of at most 100 in 1 s; 0 of 1 gave no answer" in found.reasons[-1]


def test_equal_bids_are_parted_by_name() -> None:
    assert finish(net({"bert": 2.0, "anna": 2.0, "carl": 2.0})).winner == "anna"


def test_a_winner_that_gives_no_sign_is_passed_over() -> None:
    society = net({"anna": 1.0, "bert": 2.0})
    for _ in range(7):
        society.deliver(0)
        if isinstance(society.parties["anna"].state, Bidding):
            break
    society.crash("anna")
    found = finish(society)
    assert (found.status, found.winner) == ("done", "bert")
    assert any("anna did not take it in 2 s" in reason for reason in found.reasons)


def test_nobody_who_can_is_told_to_a_person() -> None:
    found = finish(net({"anna": None}))
    assert found.status == "unplaced"
    assert found.reasons == (
        "anna refused: battery low",
        "no bid for 't-1' of at most 100 in 1 s; 0 of 1 gave no answer: is an agent with skill 'carry' up?",
    )


@pytest.mark.parametrize(
    ("said", "sender", "cause"),
    [
        (bid(math.nan), "anna", "no-number"),
        (bid(math.inf), "anna", "no-number"),
        (bid(-1.0), "anna", "no-number"),
        (bid(1.0, epoch=3), "anna", "stale-epoch"),
        (bid(1.0), "mallory", "not-invited"),
        (act("propose", TASK), "anna", "no-content"),
        (act("inform", TASK), "anna", "out-of-turn"),
        (act("propose", "t-2", bid=Bid(cost=1.0)), "anna", "other-conversation"),
        (bid(1.0).model_copy(update={"performative": "shout"}), "anna", "unknown-performative"),
        (bid(1.0).model_copy(update={"needs": 9}), "anna", "newer-version"),
    ],
)
def test_what_is_no_bid_is_refused_with_its_reason_and_changes_nobodys_chances(
    said: Act, sender: str, cause: str
) -> None:
    state = calling()
    after, effects = step(state, Heard(sender, said, 0.5))
    assert causes(effects) == [cause]
    assert isinstance(after, Calling)
    assert (after.bids, after.refused) == ({}, frozenset())


def test_the_first_word_counts_and_a_late_one_does_not() -> None:
    state, _ = step(calling(), Heard("anna", bid(5.0), 0.1))
    state, effects = step(state, Heard("anna", bid(1.0), 0.2))
    assert causes(effects) == ["repeated"]
    _, effects = step(state, Heard("bert", bid(1.0), 1.5))
    assert causes(effects) == ["late"]
    state, effects = step(state, Tick(1.0))
    assert any(isinstance(effect, AskLedger) for effect in effects)
    assert causes(step(state, Heard("bert", bid(1.0), 1.6))[1]) == ["late"]


@pytest.mark.parametrize("said", [bid(math.nan), bid(1.0).model_copy(update={"performative": "shout"})])
def test_a_flood_is_counted_and_not_looked_at(said: Act) -> None:
    state: Any = calling()
    answers = 0
    for _ in range(MOST_ACTS):
        state, effects = step(state, Heard("anna", said, 0.1))
        answers += sum(isinstance(effect, Tell) for effect in effects)
    for more in (said, bid(1.0)):
        state, effects = step(state, Heard("anna", more, 0.1))
        assert [(type(effect), *causes([effect])) for effect in effects] == [(Refuse, "too-many")]
    assert answers <= MOST_ACTS
    state, effects = step(state, Heard("bert", bid(1.0), 0.1))
    assert (causes(effects), state.bids) == ([], {"bert": 1.0}), "others are not kept out"


def test_a_stranger_is_refused_and_neither_answered_nor_remembered() -> None:
    state = calling()
    for said in (bid(1.0), bid(1.0).model_copy(update={"performative": "shout"}), act("propose", "t-2")):
        after, effects = step(state, Heard("mallory", said, 0.1))
        assert ([type(effect) for effect in effects], causes(effects)) == ([Refuse], ["not-invited"])
        assert after == state


def test_ten_thousand_bids_are_heard_and_counted_out() -> None:
    names = tuple(f"agent-{number:05}" for number in range(10_000))
    state: Any = calling(names)
    for number, name in enumerate(names):
        state, effects = step(state, Heard(name, bid(float(7 + number % 9)), 0.5))
    assert (state.winner, state.price) == ("agent-00000", 7.0)
    assert len(effects) == 3


def test_a_deadline_in_the_past_is_an_answer() -> None:
    state, effects = step(Planned(Terms(CALL, ("anna",), 1.0, 2.0, 5.0)), Begin(5.0))
    assert effects == []
    assert state == Closed("unplaced", ("the deadline of 't-1' had passed before it was called for",))


def test_an_award_that_nobody_bid_for_is_not_followed() -> None:
    society = net({"anna": None})
    society.inject("lead", "anna", act("accept-proposal", TASK, award=Award(task=TASK, epoch=1)))
    society.calm(5.0)
    assert performers(society) == set()
    assert society.refusals["out-of-turn"] == 1


costs = st.lists(st.integers(0, 30).map(float), min_size=1, max_size=6)


def gained(costs_told: list[float], liar: int, true_cost: float) -> float:
    """Return what one bidder is credited, minus what it costs it, when all have told some costs."""
    names = tuple(f"agent-{number}" for number in range(len(costs_told)))
    state: Any = calling(names, reserve=25.0)
    for name, cost in zip(names, costs_told, strict=True):
        state, _ = step(state, Heard(name, bid(cost), 0.5))
    if isinstance(state, Closed) or state.winner != names[liar]:
        return 0.0
    return float(state.price - true_cost)


@settings(max_examples=CASES)
@given(costs, st.integers(0, 5), st.floats(0, 35))
def test_no_bidder_gains_by_a_bid_that_is_not_its_cost(true_costs: list[float], liar: int, told: float) -> None:
    """Credited minus true cost, when it lies and when it says the truth; others stay as they are."""
    liar %= len(true_costs)
    lied = [*true_costs]
    lied[liar] = told
    honest = gained(true_costs, liar, true_costs[liar])
    assert honest >= 0
    assert gained(lied, liar, true_costs[liar]) <= honest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (name, value)
            for name in ("bid_s", "take_s")
            for value in (math.nan, math.inf, 0.0, -1.0, 86_401.0, 10**400)
        ),
        *(("deadline_s", value) for value in (math.nan, math.inf, 10**400, "noon")),
        *(("reserve", value) for value in (math.nan, math.inf, -1.0)),
    ],
)
def test_terms_that_nothing_can_be_called_for_on_are_an_answer(field: str, value: Any) -> None:
    given: dict[str, Any] = {"bid_s": 1.0, "take_s": 2.0, "deadline_s": 20.0, field: value}
    for event in (Begin(0.0), Recovered(0.0)):
        state, effects = step(Planned(Terms(CALL, ("anna",), **given)), event)
        assert isinstance(state, Closed)
        assert (state.status, effects) == ("unplaced", [])
        assert field.removesuffix("_s") in state.reasons[0]


def test_whoever_is_called_is_told_how_long_it_has() -> None:
    _, effects = step(Planned(Terms(CALL, ("anna",), 1.0, 2.0, 5.0)), Begin(0.0))
    (tell,) = [effect for effect in effects if isinstance(effect, Tell)]
    assert (tell.act.performative, tell.act.reply_by_s, tell.act.call) == (
        "cfp",
        1.0,
        CALL.model_copy(update={"left_s": 5.0}),
    )
