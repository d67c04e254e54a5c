"""Alternating offers: tactics give in as they should, one agreement at most, and nobody below its least."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.model.cooperation import Offer
from edgeagents.protocol import negotiation, negotiator
from edgeagents.protocol.conversation import MOST_ACTS, Begin, Heard, Recovered, Refuse, Tell, Tick, act
from edgeagents.protocol.limits import REPEATS
from edgeagents.protocol.negotiation import Agreed, Parted, Planned, Seated, Table
from edgeagents.protocol.negotiator import Chair, Ended, Tactic, Waiting, next_place, pressure, taste_of, with_taste
from tests.society import Party, Society, classes
from tests.unit.protocol.society_machine import CASES, PATIENT

pytestmark = PATIENT
TACTICS: tuple[Tactic, ...] = ("boulware", "linear", "conceder", "micro")
CLASSES = classes(negotiation, negotiator)
Worths = dict[str, dict[str, float]]


def negotiated(worths: Worths, tactics: Any, turns: int = 60, least: float = 0.2) -> Society:
    """Return a negotiation that has run its course on a calm network."""
    outcomes = frozenset(next(iter(worths.values())))
    table = Table("n", tuple(worths), outcomes, 1.0, turns, 100.0)
    parties = [Party("table", Planned(table), negotiation.step, CLASSES)]
    for (name, worth), tactic in zip(worths.items(), tactics, strict=True):
        chair = Chair(name, "table", "n", tactic, turns, 0.0, 100.0, least)
        parties.append(Party(name, Waiting(chair), with_taste(taste_of(worth, least)), CLASSES))
    society = Society(parties)
    for name in worths:
        society.start(name, Recovered(0.0))
    society.start("table", Begin(0.0))
    society.calm(101.0)
    return society


worths_of_two = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8).map(
    lambda rows: {
        "anna": {f"o{n}": row[0] for n, row in enumerate(rows)} | {"easy": 0.5},
        "bert": {f"o{n}": row[1] for n, row in enumerate(rows)} | {"easy": 0.5},
    }
)


@settings(max_examples=CASES)
@given(worths_of_two, st.tuples(st.sampled_from(TACTICS), st.sampled_from(TACTICS)))
def test_an_agreement_is_the_same_for_all_and_nobody_loses_by_it(worths: Worths, tactics: Any) -> None:
    society = negotiated(worths, tactics)
    state = society.parties["table"].state
    told = {society.parties[name].state.outcome for name in worths}
    if isinstance(state, Agreed):
        assert told == {state.outcome}
        assert all(worth[state.outcome] >= 0.2 for worth in worths.values())
    else:
        assert isinstance(state, Parted)
        assert told == {""}


@settings(max_examples=CASES)
@given(worths_of_two)
def test_two_that_give_in_step_by_step_always_agree_when_all_suits_both(worths: Worths) -> None:
    assert isinstance(negotiated(worths, ("micro", "micro"), least=0.0).parties["table"].state, Agreed)


def chair(tactic: Tactic) -> Chair:
    return Chair("anna", "table", "n", tactic, 102, 0.0, 1e9)


def test_time_dependent_tactics_give_in_early_evenly_or_late() -> None:
    halfway = {tactic: pressure(chair(tactic), 50, 0.0) for tactic in ("boulware", "linear", "conceder")}
    assert halfway["boulware"] < 0.05 < 0.49 < halfway["linear"] < 0.51 < 0.85 < halfway["conceder"]
    for tactic in ("boulware", "linear", "conceder"):
        ways = [pressure(chair(tactic), turn, 0.0) for turn in range(101)]
        assert (ways[0], ways[-1]) == (0.0, 1.0)
        assert ways == sorted(ways)
        assert pressure(chair(tactic), 0, 1e9) == 1.0, "time that is gone counts as turns that are gone"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(0, 100), st.sampled_from(TACTICS[:3]))
def test_an_offer_is_worth_at_least_its_target_and_no_more_than_needed(
    utilities: list[float], turn: int, tactic: Tactic
) -> None:
    taste = taste_of({f"o{n}": value for n, value in enumerate(utilities)}, 0.0)
    place = next_place(Waiting(chair(tactic), turn=turn), taste, 0.0)
    low, high = min(utilities), max(utilities)
    target = high - (high - low) * pressure(chair(tactic), turn, 0.0)
    assert taste.utilities[place] >= target - 1e-12
    assert place + 1 == len(utilities) or taste.utilities[place + 1] < target + 1e-12


def test_micro_gives_in_one_step_for_each_of_the_others() -> None:
    taste = taste_of({f"o{n}": 1.0 - n / 10 for n in range(10)}, 0.0)
    seen = frozenset({"x", "y"})
    assert next_place(Waiting(chair("micro")), taste, 0.0) == 0
    assert next_place(Waiting(chair("micro"), conceded=2, seen=seen), taste, 0.0) == 2
    assert next_place(Waiting(chair("micro"), conceded=3, seen=seen, turn=7), taste, 0.0) < 3, "not before they do"


def test_ten_thousand_outcomes_are_negotiated() -> None:
    random_ = random.Random(1)
    worths = {name: {f"o{n}": random_.random() for n in range(10_000)} for name in ("anna", "bert")}
    society = negotiated(worths, ("boulware", "boulware"), turns=12)
    outcome = society.parties["table"].state.outcome
    assert [society.parties[name].state.outcome for name in worths] == [outcome, outcome]
    assert all(worth[outcome] > 0.5 for worth in worths.values()), "near the front, where there are so many"


@pytest.mark.parametrize(
    ("worth", "problem"),
    [
        ({}, "nothing to negotiate"),
        ({"o": 0.1}, "nothing to negotiate"),
        ({"o": -0.1}, "not -0.1"),
        ({"o": math.nan}, "not nan"),
        ({"o": math.inf}, "not inf"),
    ],
)
def test_a_taste_that_makes_no_sense_is_refused(worth: dict[str, float], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        taste_of(worth, 0.2)


NO_TIME = "turn_s: a duration is above 0 and at most 86400 s, not {}"
TABLE = Table("n", ("anna", "bert"), frozenset({"o", "p"}), 1.0, 10, 9.0)


def seated(offer: str = "") -> Seated:
    state: Any = negotiation.step(Planned(TABLE), Begin(0.0))[0]
    if offer:
        said = act("propose", "n", offer=Offer(outcome=offer))
        state = negotiation.step(state, Heard("anna", said, 0.1))[0]
    assert isinstance(state, Seated)
    return state


@pytest.mark.parametrize(
    ("said", "sender", "now_s", "cause"),
    [
        (act("propose", "n", offer=Offer(round=1, outcome="z")), "bert", 0.2, "unknown-name"),
        (act("accept-proposal", "n", offer=Offer(round=1, outcome="p")), "bert", 0.2, "not-allowed"),
        (act("propose", "n", offer=Offer(round=0, outcome="o")), "bert", 0.2, "stale-epoch"),
        (act("propose", "n", offer=Offer(round=1, outcome="o")), "anna", 0.2, "out-of-turn"),
        (act("inform", "n"), "bert", 0.2, "out-of-turn"),
        (act("propose", "n"), "bert", 0.2, "no-content"),
        (act("propose", "n", offer=Offer(round=1, outcome="o")), "bert", 5.0, "late"),
        (act("propose", "n", offer=Offer(round=1, outcome="o")), "mallory", 0.2, "not-invited"),
        (act("propose", "n").model_copy(update={"performative": "shout"}), "bert", 0.2, "unknown-performative"),
    ],
)
def test_what_is_no_answer_at_the_table_is_refused_with_its_reason(
    said: Any, sender: str, now_s: float, cause: str
) -> None:
    state = seated("o")
    after, effects = negotiation.step(state, Heard(sender, said, now_s))
    assert [effect.cause for effect in effects if isinstance(effect, Refuse)] == [cause]
    assert isinstance(after, Seated)
    assert (after.turn, after.offer) == (1, "o")


def test_one_that_leaves_ends_it_and_all_are_told() -> None:
    state, effects = negotiation.step(seated("o"), Heard("bert", act("refuse", "n", reason="enough"), 0.2))
    assert state == Parted(("bert left: enough",), 1)
    assert len(effects) == 3


def test_one_that_asks_after_the_end_is_told_again_what_was_agreed() -> None:
    accept = act("accept-proposal", "n", offer=Offer(round=1, outcome="o"))
    state, _ = negotiation.step(seated("o"), Heard("bert", accept, 0.2))
    assert isinstance(state, Agreed)
    assert (state.outcome, state.turns) == ("o", 2)
    answers = 0
    for number in range(2000):
        sender = ("bert", "mallory")[number % 2]
        state, effects = negotiation.step(state, Heard(sender, accept, 0.3))
        answers += [effect.act.offer for effect in effects if isinstance(effect, Tell)] == [Offer(outcome="o")]
    assert answers == MOST_ACTS + REPEATS * TABLE.most_turns - 1, "not for ever, and no stranger"
    told = negotiation.step(state, Recovered(0.4))[1]
    assert [effect.to for effect in told if isinstance(effect, Tell)] == ["anna", "bert"], "told, then crashed: again"


def test_a_party_whose_word_or_whose_answer_was_lost_says_it_again_and_learns_what_was_agreed() -> None:
    """Only anna's word that the table hears a fourth time comes through, and only its second answer."""
    table: Any = seated("o")
    anna: Any = Waiting(Chair("anna", "table", "n", "micro", 10, 0.0, 9.0))
    taste = taste_of({"p": 1.0, "o": 0.9}, 0.0)
    table = replace(table, turn=2, offer="p", accepted=("bert",), until_s=8.0)
    asked = act("propose", "n", offer=Offer(round=2, outcome="p"))
    anna, effects = negotiator.step(anna, Heard("table", asked, 0.2), taste)
    said = [effect.act for effect in effects if isinstance(effect, Tell)]
    times = []
    for tenth in range(3, 90):
        now_s = tenth / 10
        anna, effects = negotiator.step(anna, Tick(now_s), taste)
        for again in [effect.act for effect in effects if isinstance(effect, Tell)]:
            times.append(now_s)
            assert again == said[0]
            if len(times) < 2:
                continue
            table, answers = negotiation.step(table, Heard("anna", again, now_s))
            if len(times) == 3:
                (told,) = [effect.act for effect in answers if isinstance(effect, Tell)]
                anna, _ = negotiator.step(anna, Heard("table", told, now_s), taste)
    assert times == [pytest.approx(1.2), pytest.approx(3.2), pytest.approx(7.2)]
    assert anna == Ended("p", "agreed")


def test_one_who_waits_long_for_its_turn_does_not_use_up_what_it_may_say() -> None:
    taste, waiting = taste_of({"o": 1.0}, 0.0), Waiting(Chair("anna", "table", "n", "micro", 10, 0.0, 86_400.0))
    state: Any = negotiator.step(waiting, Heard("table", act("cfp", "n"), 0.0), taste)[0]
    said = 0
    for now_s in range(1, 86_400):
        state, effects = negotiator.step(state, Tick(float(now_s)), taste)
        said += sum(isinstance(effect, Tell) for effect in effects)
    assert 10 < said < 20


def test_a_flood_is_counted_and_bounded_on_both_sides_of_the_table() -> None:
    shout = act("cfp", "n").model_copy(update={"performative": "shout"})
    table: Any = seated()
    party: Any = Waiting(chair("micro"))
    answers, limits = [0, 0], (MOST_ACTS + REPEATS * TABLE.most_turns, MOST_ACTS + REPEATS * 102)
    for _ in range(2000):
        table, told = negotiation.step(table, Heard("bert", shout, 0.1))
        party, said = negotiator.step(party, Heard("table", shout, 0.1), taste_of({"o": 1.0}, 0.0))
        answers[0] += any(isinstance(effect, Tell) for effect in told)
        answers[1] += any(isinstance(effect, Tell) for effect in said)
        assert not any(isinstance(it, Tell) for it in negotiation.step(table, Heard("mallory", shout, 0.1))[1])
    assert tuple(answers) == limits
    assert (table.heard["bert"], party.heard["table"]) == limits


@pytest.mark.parametrize(("now_s", "state"), [(0.5, Seated), (9.5, Parted)])
def test_who_was_restarted_before_it_began_begins(now_s: float, state: type) -> None:
    assert isinstance(negotiation.step(Planned(TABLE), Recovered(now_s))[0], state)


@pytest.mark.parametrize("field", ["begun_s", "deadline_s", "least"])
def test_a_party_whose_times_are_no_numbers_ends_with_its_reason(field: str) -> None:
    waiting = Waiting(replace(chair("micro"), **{field: math.nan}))
    state = negotiator.step(waiting, Tick(1.0), taste_of({"o": 1.0}, 0.0))[0]
    assert state == Ended("", f"{field} is no number, but nan")


def test_a_tactic_nobody_knows_is_an_answer() -> None:
    waiting = Waiting(chair("stubborn"))  # type: ignore[arg-type]
    state = negotiator.step(waiting, Recovered(1.0), taste_of({"o": 1.0}, 0.0))[0]
    assert state == Ended("", "no tactic 'stubborn' is known here: boulware, linear, conceder, micro")


def test_one_that_leaves_with_very_many_words_is_told_of_with_fewer() -> None:
    state, effects = negotiation.step(seated("o"), Heard("bert", act("refuse", "n", reason="x" * 2000), 0.2))
    assert isinstance(state, Parted)
    assert {len(effect.act.reason) for effect in effects if isinstance(effect, Tell)} == {2000}


def test_a_party_believes_the_table_alone() -> None:
    taste = taste_of({"o": 1.0}, 0.0)
    agreed = act("inform", "n", offer=Offer(outcome="o"))
    state, effects = negotiator.step(Waiting(chair("micro")), Heard("bert", agreed, 1.0), taste)
    assert isinstance(effects[0], Refuse)
    assert isinstance(state, Waiting)
    assert negotiator.step(state, Heard("table", agreed, 1.0), taste)[0] == Ended("o", "agreed")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (Table("n", ("anna",), frozenset({"o"}), 1.0, 9, 9.0), "two parties or more, each once"),
        (Table("n", ("anna", "anna"), frozenset({"o"}), 1.0, 9, 9.0), "two parties or more, each once"),
        (Table("n", ("anna", "bert"), frozenset(), 1.0, 9, 9.0), "there is nothing to agree on"),
        (Table("n", ("anna", "bert"), frozenset({"o"}), 1.0, 9, 0.0), "the deadline had passed before"),
        (Table("n", ("anna", "bert"), frozenset({"o"}), 1.0, 9, math.nan), "the deadline is no number, but nan"),
        (Table("n", ("anna", "bert"), frozenset({"o"}), math.nan, 9, 9.0), NO_TIME.format(math.nan)),
        (Table("n", ("anna", "bert"), frozenset({"o"}), 1e6, 9, 9.0), NO_TIME.format(1e6)),
        (
            Table("n", ("anna", "bert"), frozenset({"o"}), 1.0, math.nan, 9.0),  # type: ignore[arg-type]
            "most_turns: a whole number above 0, not nan",
        ),
        (
            Table("n", ("anna", "bert"), frozenset({"21 C"}), 1.0, 9, 9.0),
            "outcomes: '21 C' is no word that can be told: 1 to 64 letters, digits and . _ : -",
        ),
    ],
)
def test_a_table_that_makes_no_sense_is_an_answer(table: Table, reason: str) -> None:
    assert negotiation.step(Planned(table), Begin(0.0))[0] == Parted((reason,), 0)
