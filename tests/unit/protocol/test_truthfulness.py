"""What a lie brings in the contract net: the price that its own steps come to, never more than with the truth."""

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.cooperation import Bid, CallForProposals
from edgeagents.protocol import contract_net
from edgeagents.protocol.contract_net import Awarding, Calling, Planned, Terms
from edgeagents.protocol.conversation import Heard, act
from tests.unit.protocol.society_machine import CASES, PATIENT

pytestmark = PATIENT
RESERVE = 12.0
costs = st.integers(0, 14).map(float)


def credited(bids: dict[str, float]) -> tuple[str, float]:
    """Return who wins, and what it is credited, when these bids are heard; nobody where all are above the reserve."""
    call = CallForProposals(task="t", skill="s")
    terms = Terms(call, tuple(bids), 1.0, 2.0, 20.0, RESERVE)
    state: Any = contract_net.step(Planned(terms), contract_net.Begin(0.0))[0]
    for agent, cost in bids.items():
        if isinstance(state, Calling):
            state = contract_net.step(state, Heard(agent, act("propose", "t", bid=Bid(cost=cost)), 0.5))[0]
    return (state.winner, state.price) if isinstance(state, Awarding) else ("", 0.0)


@settings(max_examples=CASES)
@given(costs, costs, st.lists(costs, max_size=3))
def test_a_bidder_fares_best_with_the_truth(cost: float, lie: float, others: list[float]) -> None:
    rest = {f"b{number}": other for number, other in enumerate(others)}

    def gain(bid: float) -> float:
        winner, price = credited({"anna": bid, **rest})
        return price - cost if winner == "anna" else 0.0

    assert gain(lie) <= gain(cost) + 1e-9
    assert gain(cost) >= -1e-9, "the truth never costs anything"


@settings(max_examples=CASES)
@given(st.dictionaries(st.sampled_from(["anna", "bert", "carl"]), costs, min_size=1))
def test_the_winner_has_the_least_cost_and_is_credited_what_the_second_would_have_cost(bids: dict[str, float]) -> None:
    ranking = sorted((cost, agent) for agent, cost in bids.items() if cost <= RESERVE)
    winner, price = credited(bids)
    if not ranking:
        assert winner == ""
        return
    assert winner == ranking[0][1]
    assert math.isclose(price, ranking[1][0] if len(ranking) > 1 else RESERVE)
