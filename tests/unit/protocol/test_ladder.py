"""Each rung of the ladder: what it settles, what it leaves to the next, and why."""

import math
from dataclasses import replace
from typing import Any

import pytest

from edgeagents.model.cooperation import Ballot
from edgeagents.protocol.conversation import MOST_ACTS, Begin, Heard, Recovered, Save, Tell, Tick, act
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
    assert "lock: high, low are forbidden: window open" in found.reasons
    found = settled(ANNA, BERT, forbidden={"low": "window open", "high": "rain"})
    assert {"lock: low is forbidden: window open", "lock: high is forbidden: rain"} < set(found.reasons)
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


def told_by(effects: Any) -> list[tuple[str, str, str]]:
    """Return who was told what."""
    said = [(effect.to, effect.act) for effect in effects if isinstance(effect, Tell)]
    return [(to, it.performative, it.offer.outcome if it.offer else it.reason) for to, it in said]


@pytest.mark.parametrize(
    ("parties", "others", "word"),
    [
        ((ANNA, BERT), {"forbidden": {"low": "no", "high": "no"}}, ("inform", "off")),
        ((party("anna", "high", quiet_s=1.0), BERT), {}, ("inform", "high")),
        ((ANNA, party("bert", "off", "health")), {}, ("inform", "off")),
        ((ANNA, BERT), {}, ("inform", "low")),
        ((party("anna", "high", disagreement=0.95), BERT), {"safe": "off"}, ("inform", "off")),
        ((party("anna", "high", disagreement=0.95), BERT), {}, ("cancel", "fallback: a human decides")),
    ],
    ids=["lock", "lease", "priority", "nash", "fallback", "human"],
)
def test_all_parties_are_told_the_outcome_and_again_after_a_restart_and_when_they_ask(
    parties: Any, others: Any, word: tuple[str, str]
) -> None:
    state, effects = step(Planned(Dispute("c", parties, ("off", "low", "high"), **others)), Begin(0.0))
    everybody = [("anna", *word), ("bert", *word)]
    assert told_by(effects) == everybody
    assert effects[0] == Save()
    assert told_by(step(state, Recovered(1.0))[1]) == everybody
    lost = act("not-understood", "c")
    assert told_by(step(state, Heard("bert", lost, 1.0))[1]) == [], "or two would answer each other for ever"
    answers = 0
    for number in range(2000):
        asked = act("inform", "c").model_copy(update={"performative": ("inform", "shout")[number % 2]})
        state, again = step(state, Heard("bert", asked, 2.0))
        answers += bool(told_by(again))
        assert told_by(step(state, Heard("mallory", asked, 2.0))[1]) == []
    assert answers == MOST_ACTS


def test_after_a_vote_all_are_told() -> None:
    society = society_of(dispute_of(WORTHS, is_private=True, most_turns=1), WORTHS)
    society.calm(END_S + 1)
    found = society.parties["lead"].state
    assert found.rung == "vote"
    sent = [packet for packet in society.sent if packet.sender == "lead"][-3:]
    assert [(packet.to, packet.content.offer.outcome) for packet in sent] == [(name, found.option) for name in WORTHS]


def test_a_lost_word_of_the_table_leaves_no_party_with_another_outcome() -> None:
    society = society_of(dispute_of(WORTHS, is_private=True), WORTHS)
    lost = 0
    for _ in range(500):
        places = [
            place
            for place, packet in enumerate(society.network)
            if packet.to == "anna" and packet.content.performative == "inform"
        ]
        if places:
            society.drop(places[0])
            lost += 1
            break
        society.deliver(0)
    society.calm(END_S + 1)
    assert lost == 1
    assert [society.parties[name].state.outcome for name in WORTHS] == [society.parties["lead"].state.option] * 3


def test_who_was_restarted_before_it_began_begins() -> None:
    state, effects = step(Planned(Dispute("c", (ANNA, BERT), ("off", "low", "high"))), Recovered(5.0))
    assert isinstance(state, Settled)
    assert state.rung == "nash"
    assert effects


def test_who_tells_what_are_no_utilities_has_no_veto() -> None:
    """Four options and two voters: each would have one."""
    worth = {"off": 1.0, "low": -1.0, "high": 0.5, "max": 0.5}
    parties = (party("anna", "high", worth=None), party("bert", "off", worth=worth))
    dispute = Dispute("c", parties, ("off", "low", "high", "max"), most_turns=1)
    state = step(step(Planned(dispute), Begin(0.0))[0], Tick(1.0))[0]
    for name, ranking in (("anna", ("high", "low", "max", "off")), ("bert", ("off",))):
        ballot = Ballot(ranking=ranking, vetoed=("off",) if name == "anna" else ("high",))
        state = step(state, Heard(name, act("inform", "c", ballot=ballot), 1.5))[0]
    assert isinstance(state, Settled)
    assert (state.option, state.rung) == ("high", "vote")
    assert "vote: vetoes of bert do not count" in state.reasons


def test_more_private_options_than_a_ballot_holds_end_at_the_last_safe_state() -> None:
    options = tuple(f"o{number}" for number in range(2000))
    parties = (party("anna", "o1", worth=None), party("bert", "o2", worth=None))
    state = step(Planned(Dispute("c", parties, options, safe="o0")), Begin(0.0))[0]
    assert isinstance(state, Bargaining)
    state = step(state, Tick(1.0))[0]
    assert isinstance(state, Settled)
    assert (state.option, state.rung) == ("o0", "fallback")
    assert "vote: 2000 options: a ballot holds 1024" in state.reasons


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"turn_s": math.nan}, "turn_s: a duration is above 0"),
        ({"offers_s": math.inf}, "offers_s: a duration is above 0"),
        ({"vote_s": 1e6}, "vote_s: a duration is above 0"),
        ({"hold_s": math.nan}, "hold_s: a number of seconds"),
        ({"rule": "copeland"}, "rule: 'copeland' is none of"),
        ({"options": ("off", "21 C")}, "options: '21 C' is no word"),
        ({"conversation": "c 1"}, "conversation: 'c 1' is no word"),
        ({"safe": "all off"}, "safe: 'all off' is no word"),
        ({"parties": (party("anna", "high", "urgent"), BERT)}, "anna is of no class that is known: 'urgent'"),
        ({"parties": (party("anna", "high", quiet_s=math.nan), BERT)}, "since no time that is known: nan"),
    ],
)
def test_what_no_rung_could_work_with_falls_to_a_human_at_once(others: Any, reason: str) -> None:
    dispute = Dispute("c", (ANNA, party("bert", "off", worth=None)), ("off", "high"))
    found = step(Planned(replace(dispute, **others)), Begin(0.0))[0]
    assert isinstance(found, Settled)
    assert (found.rung, found.option) == ("fallback", "")
    assert reason in found.reasons[0]


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
