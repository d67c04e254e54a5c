"""Each rung of the ladder: what it settles, what it leaves to the next, and why."""

import math
from typing import Any

import pytest

from edgeagents.protocol.conversation import Begin
from edgeagents.protocol.ladder import Bargaining, Dispute, Party, Planned, Polling, Settled, step
from tests.unit.protocol.test_ladder_property import END_S, dispute_of, society_of

WORTHS = {
    "anna": {"off": 0.4, "low": 0.9, "high": 1.0},
    "bert": {"off": 1.0, "low": 0.8, "high": 0.1},
    "carl": {"off": 0.5, "low": 0.6, "high": 0.7},
}


def party(agent: str, way: str, priority: Any = "comfort", **others: Any) -> Party:
    return Party(agent, priority, way, **({"worth": WORTHS[agent], "disagreement": 0.3} | others))


def settled(*parties: Party, **others: Any) -> Any:
    return step(Planned(Dispute("c", parties, ("off", "low", "high"), **others)), Begin(0.0))[0]


ANNA, BERT = party("anna", "high"), party("bert", "off")


def test_what_the_gate_forbids_is_no_option() -> None:
    found = settled(ANNA, BERT, forbidden={"low": "window open", "high": "window open"})
    assert (found.option, found.rung) == ("off", "lock")
    assert "lock: high is forbidden: window open" in found.reasons
    found = settled(ANNA, BERT, forbidden=dict.fromkeys(("off", "low", "high"), "no"), safe="off")
    assert (found.option, found.rung) == ("", "fallback"), "not even the last safe state, where it is forbidden"


@pytest.mark.parametrize(
    ("quiet_s", "holder", "other", "option", "rung"),
    [
        (10.0, "comfort", "comfort", "high", "lease"),
        (10.0, "health", "comfort", "high", "lease"),
        (10.0, "comfort", "health", "off", "priority"),
        (900.0, "comfort", "comfort", "low", "nash"),
        (900.0, "comfort", "economy", "high", "priority"),
        (None, "economy", "comfort", "off", "priority"),
        (None, "comfort", "comfort", "low", "nash"),
    ],
)
def test_lease_and_priority_decide_with_hysteresis(
    quiet_s: float | None, holder: Any, other: Any, option: str, rung: str
) -> None:
    found = settled(party("anna", "high", holder, quiet_s=quiet_s), party("bert", "off", other))
    assert (found.option, found.rung) == (option, rung)


def test_a_way_that_is_forbidden_is_not_had_by_lease_or_class() -> None:
    found = settled(party("anna", "high", "safety", quiet_s=1.0), BERT, forbidden={"high": "no"})
    assert (found.option, found.rung) == ("low", "nash")
    assert any("its way 'high' is not possible" in reason for reason in found.reasons)


def test_when_nothing_suits_all_the_last_safe_state_counts_or_a_human() -> None:
    picky = party("anna", "high", disagreement=0.95)
    assert settled(picky, BERT, safe="off").option == "off"
    found = settled(picky, BERT)
    assert (found.option, found.rung, found.reasons[-1]) == ("", "fallback", "fallback: a human decides")


@pytest.mark.parametrize(
    ("worth", "reason"),
    [
        (None, "anna keeps them private"),
        ({"off": 1.0}, "anna says nothing of 'low'"),
        ({"off": 1.0, "low": -1.0, "high": 0.0}, "not -1.0"),
        ({"off": 1.0, "low": math.nan, "high": 0.0}, "not nan"),
    ],
)
def test_utilities_that_are_private_or_none_are_left_to_offers_with_the_reason(worth: Any, reason: str) -> None:
    state = settled(party("anna", "high", worth=worth), BERT)
    assert isinstance(state, Bargaining)
    assert reason in state.reasons[-1]


def test_private_parties_agree_at_the_table() -> None:
    society = society_of(dispute_of(WORTHS, is_private=True), WORTHS)
    society.calm(END_S + 1)
    found = society.parties["lead"].state
    assert (found.option, found.rung) == ("low", "offers")
    assert [society.parties[name].state.outcome for name in WORTHS] == ["low"] * 3


def test_one_that_is_silent_at_the_table_leads_to_a_vote_of_the_others() -> None:
    society = society_of(dispute_of(WORTHS, is_private=True), WORTHS)
    society.crash("carl")
    society.calm(END_S + 1)
    found = society.parties["lead"].state
    assert (found.option, found.rung) == ("off", "vote"), "two ballots, a tie of all: the safest"
    assert "offers: carl gave no answer on turn 2" in found.reasons
    assert any("no ballot of carl" in reason for reason in found.reasons)


def test_what_a_known_party_would_lose_by_is_not_voted_on() -> None:
    dispute = Dispute("c", (ANNA, party("bert", "off", worth=None)), ("off", "low", "high"), most_turns=1)
    state = step(Planned(dispute), Begin(0.0))[0]
    assert isinstance(state, Bargaining)
    from edgeagents.protocol.conversation import Tick

    state = step(state, Tick(1.0))[0]
    assert isinstance(state, Polling)
    hard = Dispute("c", (party("anna", "high", disagreement=0.95), party("bert", "off", worth=None)), ("off", "high"))
    state = step(step(Planned(hard), Begin(0.0))[0], Tick(1.0))[0]
    assert isinstance(state, Polling)
    assert state.poll.poll.options == ("high",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parties", "options", "reason"),
    [
        ((ANNA, BERT), (), "options: there must be some"),
        ((ANNA, BERT), ("off", "off"), "options: there must be some, each once"),
        ((), ("off", "low"), "parties: there must be some"),
        ((ANNA, ANNA), ("off", "low"), "parties: there must be some, each once"),
        ((party("anna", "off", quiet_s=1.0), party("bert", "low", quiet_s=1.0)), ("off", "low"), "two hold the lease"),
    ],
)
def test_a_dispute_that_makes_no_sense_falls_to_a_human_with_its_reason(
    parties: Any, options: Any, reason: str
) -> None:
    found = step(Planned(Dispute("c", parties, options)), Begin(0.0))[0]
    assert isinstance(found, Settled)
    assert (found.rung, found.option) == ("fallback", "")
    assert reason in found.reasons[0]
