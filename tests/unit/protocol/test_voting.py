"""Votes: rules equal to a reference library on random profiles; ballots, quorum, ties, and who blocks nobody."""

import math
import random
from typing import Any

import pytest
import votelib.component.rankscore
import votelib.convert
import votelib.evaluate
import votelib.evaluate.condorcet
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.cooperation import Ballot
from edgeagents.protocol import voting
from edgeagents.protocol.conversation import MOST_ACTS, Begin, Heard, Recovered, Refuse, Tell, Tick, act
from edgeagents.protocol.voting import (
    RULES,
    Counted,
    Planned,
    Poll,
    Polling,
    VotingRule,
    ballot_of,
    count,
    step,
    vetoes,
)
from tests.unit.protocol.society_machine import CASES, PATIENT

pytestmark = PATIENT
OPTIONS = ("a", "b", "c", "d")
rankings = st.permutations(OPTIONS).map(tuple)
profiles = st.lists(rankings, min_size=1, max_size=9)


def ballots(profile: list[tuple[str, ...]], approved: int = 2) -> list[Ballot]:
    return [Ballot(ranking=ranking, approved=ranking[:approved]) for ranking in profile]


def reference(profile: list[tuple[str, ...]], rule: VotingRule) -> set[str]:
    """Return the winners by votelib: all that tie; for Condorcet empty when there is none."""
    votes: dict[Any, int] = {}
    for ranking in profile:
        votes[ranking] = votes.get(ranking, 0) + 1
    if rule == "condorcet":
        pairs = votelib.convert.RankedToCondorcetVotes().convert(votes)
        return set(votelib.evaluate.condorcet.CondorcetWinner().evaluate(pairs))
    if rule == "borda":
        points = votelib.convert.RankedToPositionalVotes(votelib.component.rankscore.Borda(base=0)).convert(votes)
    elif rule == "plurality":
        points = votelib.convert.RankedToFirstPreference().convert(votes)
    else:
        approvals: dict[Any, int] = {}
        for ranking in profile:
            approvals[frozenset(ranking[:2])] = approvals.get(frozenset(ranking[:2]), 0) + 1
        points = votelib.convert.ApprovalToSimpleVotes().convert(approvals)
    best = max(points.values())
    return {option for option, score in points.items() if score == best}


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=CASES)
@given(profiles)
def test_the_winner_is_the_reference_librarys(rule: VotingRule, profile: list[tuple[str, ...]]) -> None:
    found = count(OPTIONS, ballots(profile), rule)
    expected = reference(profile, rule)
    if rule == "condorcet" and not expected:
        assert "Borda, as nobody beats all others" in found.reasons[0]
        expected = reference(profile, "borda")
    assert found.winner == min(expected, key=OPTIONS.index), "ties go to the option that stands first"
    assert (len(expected) > 1) == any("a tie of" in reason for reason in found.reasons)


@settings(max_examples=CASES)
@given(profiles, st.permutations(range(9)))
def test_who_votes_first_makes_no_difference(profile: list[tuple[str, ...]], order: list[int]) -> None:
    shuffled = [profile[place] for place in order if place < len(profile)]
    for rule in RULES:
        assert count(OPTIONS, ballots(profile), rule) == count(OPTIONS, ballots(shuffled), rule)


@given(st.integers(1, 9), st.integers(1, 40))
def test_all_vetoes_together_leave_an_option(voters: int, options: int) -> None:
    assert 0 <= vetoes(options, voters) * voters < options
    assert vetoes(options, voters) > 0 or options <= voters, "with more options than voters each has one"


@settings(max_examples=CASES)
@given(st.integers(2, 6), st.integers(1, 5), st.data())
def test_one_voter_alone_keeps_no_option_from_winning_that_all_others_want_most(
    options: int, voters: int, data: st.DataObject
) -> None:
    """Where it has a veto at all there are more options than voters, and it takes its share of them, no more."""
    names = tuple("abcdef"[:options])
    wanted = data.draw(st.sampled_from(names))
    most = vetoes(options, voters + 1)
    struck = data.draw(st.permutations(names).map(lambda order: tuple(order[:most])))
    others = [Ballot(ranking=(wanted, *(name for name in names if name != wanted)))] * voters
    liar = Ballot(ranking=tuple(name for name in reversed(names) if name != wanted), vetoed=struck)
    assert voting.ballot_problem(liar, names, voters + 1) is None
    found = count(names, [*others, liar], "plurality")
    if voters > 1:
        assert found.winner == wanted or wanted in struck
    assert found.winner is not None
    assert len(found.vetoed) * (voters + 1) < options


def test_with_two_options_nobody_can_veto_what_the_others_want() -> None:
    state = polling(Poll("v", ("off", "heat"), ("anna", "bert", "mallory"), 5.0))
    for name in ("anna", "bert"):
        state, _ = vote(state, name, "heat", "off")
    said = act("inform", "v", ballot=Ballot(ranking=("off",), vetoed=("heat",)))
    state, effects = step(state, Heard("mallory", said, 1.0))
    assert [effect.cause for effect in effects if isinstance(effect, Refuse)] == ["not-allowed"]
    state = step(state, Tick(5.0))[0]
    assert isinstance(state, Counted)
    assert state.tally.winner == "heat"


def test_vetoes_of_a_voter_that_has_none_do_not_count_but_its_ballot_does() -> None:
    poll = Poll("v", ("a", "b", "c"), ("anna", "mallory"), 5.0, without_veto=frozenset({"mallory"}))
    state = polling(poll)
    state, _ = vote(state, "anna", "a", "b", "c")
    state = step(state, Heard("mallory", act("inform", "v", ballot=Ballot(ranking=("b", "c"), vetoed=("a",))), 1.0))[0]
    assert isinstance(state, Counted)
    assert (state.tally.vetoed, state.tally.reasons[0]) == ((), "vetoes of mallory do not count")
    assert state.tally.scores == {"a": 2.0, "b": 3.0, "c": 1.0}


def test_what_is_not_ranked_ranks_last_and_equal() -> None:
    assert count(("a", "b", "c"), [Ballot(ranking=("c",))]).scores == {"a": 0.5, "b": 0.5, "c": 2.0}


def test_what_was_vetoed_does_not_win_however_many_want_it() -> None:
    found = count(("a", "b"), [Ballot(ranking=("a", "b"))] * 5 + [Ballot(ranking=("b", "a"), vetoed=("a",))])
    assert (found.winner, found.vetoed) == ("b", ("a",))
    none = count(("a", "b"), [Ballot(vetoed=("a",)), Ballot(vetoed=("b",))])
    assert (none.winner, none.reasons) == (None, ("vetoed: a, b", "no option is left"))


def test_nobody_votes_and_nothing_to_vote_on_are_answers() -> None:
    assert count(("a",), []).reasons == ("nobody has voted",)
    assert count((), [Ballot()]).reasons == ("there is no option",)
    for rule in RULES:
        assert count(("a", "b"), [Ballot(), Ballot()], rule).reasons == ("nobody has voted",)
    assert count(("a",), [Ballot(ranking=("a",))], "approval").winner is None, "nothing is approved of"
    none = count(("a", "b"), [Ballot(ranking=("a",), vetoed=("a",))], "plurality")
    assert (none.winner, none.reasons) == (None, ("vetoed: a", "by plurality nobody is for any option"))


def test_a_ballot_that_says_nothing_fills_no_quorum() -> None:
    state = step(polling(), Heard("bert", act("inform", "v", ballot=Ballot()), 1.0))[0]
    state = step(vote(state, "anna", "b")[0], Tick(5.0))[0]
    assert isinstance(state, Counted)
    assert (state.tally.winner, state.tally.reasons) == (None, ("no ballot of carl", "1 ballots, 2 are needed"))


@settings(max_examples=CASES)
@given(st.dictionaries(st.sampled_from(OPTIONS), st.floats(0, 1), min_size=2), st.floats(0, 1), st.integers(1, 5))
def test_an_honest_ballot_vetoes_only_what_is_worth_less_than_no_agreement(
    worth: dict[str, float], disagreement: float, voters: int
) -> None:
    ballot = ballot_of(worth, disagreement, voters)
    assert all(worth[name] < disagreement for name in ballot.vetoed)
    assert set(ballot.approved) == {name for name in worth if worth[name] >= disagreement}
    assert voting.ballot_problem(ballot, tuple(worth), voters) is None


WORDLESS = "{}: {} is no word that can be told: 1 to 64 letters, digits and . _ : -"
POLL = Poll("v", ("a", "b", "c"), ("anna", "bert", "carl"), 5.0, quorum=2)


def polling(poll: Poll = POLL) -> Any:
    return step(Planned(poll), Begin(0.0))[0]


def vote(state: Any, sender: str, *ranking: str, now_s: float = 1.0) -> tuple[Any, list[str]]:
    said = act("inform", "v", ballot=Ballot(ranking=ranking))
    state, effects = step(state, Heard(sender, said, now_s))
    return state, [effect.cause for effect in effects if isinstance(effect, Refuse)]


def test_a_vote_ends_early_when_all_have_voted_and_by_its_deadline_else() -> None:
    state = polling()
    for name in ("anna", "bert"):
        state, _ = vote(state, name, "b", "a", "c")
    assert isinstance(state, Polling)
    late = step(state, Tick(5.0))[0]
    assert isinstance(late, Counted)
    assert late.tally.winner == "b"
    assert late.tally.reasons[0] == "no ballot of carl"
    assert isinstance(vote(state, "carl", "c")[0], Counted)


def test_below_the_quorum_nothing_is_decided() -> None:
    state = step(vote(polling(), "anna", "b")[0], Tick(5.0))[0]
    assert isinstance(state, Counted)
    assert (state.tally.winner, state.tally.reasons[1]) == (None, "1 ballots, 2 are needed")


@pytest.mark.parametrize(
    ("said", "sender", "now_s", "cause"),
    [
        (act("inform", "v", ballot=Ballot(ranking=("a", "a"))), "anna", 1.0, "repeated"),
        (act("inform", "v", ballot=Ballot(ranking=("z",))), "anna", 1.0, "unknown-name"),
        (act("inform", "v", ballot=Ballot(vetoed=("a", "b"))), "anna", 1.0, "not-allowed"),
        (act("inform", "v"), "anna", 1.0, "no-content"),
        (act("propose", "v", ballot=Ballot()), "anna", 1.0, "out-of-turn"),
        (act("inform", "v", ballot=Ballot()), "mallory", 1.0, "not-invited"),
        (act("inform", "v", ballot=Ballot()), "anna", 5.0, "late"),
    ],
)
def test_what_is_no_ballot_is_refused_and_its_voter_may_still_vote(
    said: Any, sender: str, now_s: float, cause: str
) -> None:
    state, effects = step(polling(), Heard(sender, said, now_s))
    assert [effect.cause for effect in effects if isinstance(effect, Refuse)] == [cause]
    assert isinstance(state, Polling)
    assert state.ballots == {}


def test_the_first_ballot_counts_and_a_flood_is_not_looked_at() -> None:
    state, _ = vote(polling(), "anna", "a")
    for _ in range(MOST_ACTS):
        state, causes = vote(state, "anna", "b")
    assert causes == ["too-many"]
    assert state.ballots["anna"].ranking == ("a",)
    assert vote(state, "bert", "b")[1] == []


def test_what_nobody_understands_counts_too_and_is_answered_to_voters_alone_and_below_the_limit() -> None:
    state, told = polling(), 0
    said = act("cfp", "v").model_copy(update={"performative": "shout"})
    for number in range(4 * MOST_ACTS):
        state, effects = step(state, Heard(("mallory", "anna")[number % 2], said, 1.0))
        told += sum(isinstance(effect, Tell) for effect in effects)
        assert any(isinstance(effect, Refuse) for effect in effects)
    assert told == MOST_ACTS
    assert state.heard == {"anna": MOST_ACTS}


def test_who_was_restarted_before_it_began_begins() -> None:
    state, effects = step(Planned(POLL), Recovered(1.0))
    assert isinstance(state, Polling)
    assert [effect.to for effect in effects if isinstance(effect, Tell)] == ["anna", "bert", "carl"]
    assert isinstance(step(Planned(POLL), Recovered(9.0))[0], Counted)


def test_a_clock_that_was_set_back_makes_no_call_that_cannot_be_told() -> None:
    _, effects = step(polling(), Recovered(-1e9))
    assert {effect.act.reply_by_s for effect in effects if isinstance(effect, Tell)} == {86_400.0}


@pytest.mark.parametrize(
    ("poll", "reason"),
    [
        (Poll("v", (), ("anna",), 5.0), "there is no option"),
        (Poll("v", ("a",), (), 5.0), "there is no voter"),
        (Poll("v", ("a", "a"), ("anna",), 5.0), "an option stands there twice"),
        (Poll("v", ("a",), ("anna",), 0.0), "the deadline had passed before"),
        (Poll("v", ("a",), ("anna", "bert", "anna"), 5.0), "a voter stands there twice"),
        (Poll("v", tuple(f"o{n}" for n in range(1025)), ("anna",), 5.0), "1025 options: a ballot holds 1024"),
        (Poll("v", ("a",), ("anna",), math.nan), "the deadline is no number, but nan"),
        (Poll("v", ("a",), ("anna",), 1e6), "the deadline is 1e+06 s away: at most 86400 s can be waited for"),
        (Poll("v", ("21 C",), ("anna",), 5.0), WORDLESS.format("options", "'21 C'")),
        (Poll("v 1", ("a",), ("anna",), 5.0), WORDLESS.format("conversation", "'v 1'")),
        (
            Poll("v", ("a",), ("anna",), 5.0, "copeland"),  # type: ignore[arg-type]
            "no rule 'copeland' is known here: borda, plurality, approval, condorcet",
        ),
    ],
)
def test_a_poll_that_makes_no_sense_is_an_answer(poll: Poll, reason: str) -> None:
    state = polling(poll)
    assert isinstance(state, Counted)
    assert state.tally.reasons == (reason,)


def test_ten_thousand_ballots_are_counted() -> None:
    random_ = random.Random(1)
    many = [Ballot(ranking=tuple(random_.sample(OPTIONS, 4))) for _ in range(10_000)]
    assert count(OPTIONS, many).winner in OPTIONS
