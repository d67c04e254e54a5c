"""Peers on a calm network: no task twice, at least half the optimum, and nobody is blocked."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.cooperation import Claim, Claims, PeerVote
from edgeagents.protocol.bundles import MOST_CHANGES, MOST_CLAIMS, Batch, Bidding, Ended, Planned, step
from edgeagents.protocol.conversation import Begin, Heard, Recovered, Refuse, Tell, Tick, act
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


@settings(max_examples=CASES)
@given(st.lists(values, min_size=2, max_size=2), st.sets(st.sampled_from(TASKS), max_size=2))
def test_one_that_bids_beyond_measure_takes_its_share_alone(rows: list[list[int]], wanted: set[str]) -> None:
    tables = {f"p{n}": dict(zip(TASKS, map(float, row), strict=True)) for n, row in enumerate(rows)}
    scores: dict[str, Any] = {
        peer: (lambda own, task, t=table: diminishing(t, own, task)) for peer, table in tables.items()
    }
    scores["mallory"] = lambda own, task: 1e9 if task in wanted else 0.0
    society = peers_with(scores, TASKS, 2)
    society.calm(END_S + 1)
    found = owners(society)
    assert {task for task, who in found if who == "mallory"} == wanted
    rest = [task for task in TASKS if task not in wanted]
    reached = sum(bundle_value(t, tuple(task for task, who in found if who == peer)) for peer, t in tables.items())
    best = 0.0
    for whose in itertools.product(tables, repeat=len(rest)):
        shares = {peer: tuple(t for t, who in zip(rest, whose, strict=True) if who == peer) for peer in tables}
        if max(map(len, shares.values())) <= 2:
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


def final_words(scores: dict[str, float], lost: set[tuple[str, str]]) -> dict[str, Any]:
    """Return peers of a batch of one task that vote after each has told its frozen bid; `lost`: who did not hear whom.

    Acts of the bidding are lost altogether; `liar` is among the peers and says nothing.
    """
    peers = (*scores, "liar")
    states: dict[str, Any] = {}

    def at(peer: str, event: Any) -> list[Tell]:
        states[peer], effects = step(states[peer], event, lambda own, task: scores[peer])
        return [effect for effect in effects if isinstance(effect, Tell) and effect.to in scores]

    for peer in scores:
        states[peer] = Planned(Batch(BATCH, peer, peers, ("t",), 1, 1.0, 4.0, 6.0, 9.0))
        at(peer, Begin(0.0))
    for now_s in (4.0, 6.0):
        said = [(peer, tell) for peer in scores for tell in at(peer, Tick(now_s))]
        for peer, tell in said:
            if now_s > 4.0 or (tell.to, peer) not in lost:
                at(tell.to, Heard(peer, tell.act, now_s + 0.1))
    return states


def test_a_vote_for_each_of_two_peers_makes_no_second_owner_where_they_hear_each_other() -> None:
    """Nor what a majority without the peer itself says: it has voted for the one that bid more."""
    states = final_words({"a": 5.0, "b": 1.0, "c": 0.0, "d": 0.0}, {("c", "a"), ("d", "a")})
    owners_of = []
    for peer in ("a", "b"):
        claims = Claims(number=1, phase="voting", votes=(PeerVote(task="t", peer=peer),))
        state = step(states[peer], Heard("liar", act("inform", BATCH, claims=claims), 7.0), lambda own, task: 0.0)[0]
        ended: Any = step(state, Tick(9.0), lambda own, task: 0.0)[0]
        owners_of.append((ended.mine, ended.reasons))
    assert owners_of == [
        (("t",), ("t: 3 of 5 voted for us",)),
        ((), ("t: 3 of 5 voted for us, not we",)),
    ]


def test_one_that_bids_and_withdraws_all_the_time_silences_nobody() -> None:
    scores = table_of(anna=[5.0, 1.0, 0.0], bert=[1.0, 5.0, 0.0], liar=[0.0, 0.0, 0.0])
    society = peers_with(scores)
    society.network.clear()
    society.crash("liar")
    for number in range(MOST_CLAIMS):
        bids = tuple(Claim(task=task, score=1e9) for task in ("t0", "t1")) if number % 2 == 0 else ()
        said = act("inform", BATCH, claims=Claims(number=number + 1, phase="bidding", claims=bids))
        for peer in ("anna", "bert"):
            society.inject("liar", peer, said)
    society.calm(END_S + 1)
    assert owners(society) == [("t0", "anna"), ("t1", "bert")]
    told = [packet for packet in society.sent if packet.sender == "anna"]
    assert len(told) <= 2 * (10 * (1 + MOST_CHANGES)), "what it costs others has a bound"
    assert society.refusals["too-many"] == 0, "nobody honest has come near its limit"


def test_frozen_bids_and_votes_of_one_that_has_said_far_too_much_are_heard_once() -> None:
    state: Any = bidding()
    for _ in range(MOST_CLAIMS):
        state = step(state, Heard("bert", act("inform", BATCH), 1.0), lambda own, task: 1.0)[0]
    effects: Any = step(state, Heard("bert", claims("t0"), 1.0), lambda own, task: 1.0)[1]
    assert [effect.cause for effect in effects] == ["too-many"]
    for phase, at_s in (("final", 4.5), ("voting", 6.5)):
        votes = (PeerVote(task="t1", peer="anna"),)
        told = Claims(number=9 if phase == "final" else 10, phase=phase, claims=(), votes=votes)  # type: ignore[arg-type]
        state = step(state, Heard("bert", act("inform", BATCH, claims=told), at_s), lambda own, task: 1.0)[0]
        effects = step(state, Heard("bert", act("inform", BATCH, claims=told), at_s), lambda own, task: 1.0)[1]
        assert [effect.cause for effect in effects] == ["too-many"], phase
    assert state.votes["bert"] == {"t1": "anna"}


def test_words_not_known_here_are_counted_and_strangers_get_no_answer() -> None:
    shout = claims("t0").model_copy(update={"performative": "shout"})
    state: Any = bidding()
    assert step(state, Heard("mallory", shout, 1.0), lambda own, task: 1.0)[1] == [
        Refuse("mallory", "not-invited", f"'mallory' takes no part in {BATCH!r}")
    ]
    answers = 0
    for _ in range(MOST_CLAIMS + 9):
        state, effects = step(state, Heard("bert", shout, 1.0), lambda own, task: 1.0)
        answers += sum(isinstance(effect, Tell) for effect in effects)
    assert answers == MOST_CLAIMS
    assert state.heard == {"bert": MOST_CLAIMS + 9}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tasks": ("21 C",)}, "'21 C' is no name"),
        ({"tasks": ("t", "t")}, "named twice"),
        ({"tasks": tuple(f"t{n}" for n in range(1025))}, "at most 1024"),
        ({"again_s": math.nan}, "a time above 0"),
        ({"again_s": 0.0}, "a time above 0"),
        ({"end_s": math.inf}, "the time for bids is over"),
        ({"close_s": math.nan}, "the time for bids is over"),
    ],
)
def test_a_batch_that_no_act_can_carry_or_that_never_ends_is_an_answer(changed: dict[str, Any], reason: str) -> None:
    batch = Batch(**{**batch_fields(), **changed})
    found, effects = step(Planned(batch), Begin(0.0), lambda own, task: 1.0)
    assert isinstance(found, Ended)
    assert reason in found.reasons[0]
    assert effects == []


def batch_fields() -> dict[str, Any]:
    return {
        "conversation": BATCH, "me": "anna", "peers": ("anna", "bert"), "tasks": ("t0",), "capacity": 1,
        "again_s": 1.0, "close_s": 4.0, "vote_s": 6.0, "end_s": 9.0,
    }  # fmt: skip


@pytest.mark.parametrize(("score", "told"), [(math.inf, 1e9), (2e9, 1e9), (3.0, 3.0), (math.nan, None), (-1.0, None)])
def test_a_score_that_no_act_can_carry_is_capped_or_none(score: float, told: float | None) -> None:
    state: Any = step(Planned(Batch(**batch_fields())), Begin(0.0), lambda own, task: score)[0]
    assert state.bundle == (() if told is None else (("t0", told),))


def test_one_that_was_down_when_it_should_have_begun_begins_when_it_is_back() -> None:
    state, effects = step(Planned(Batch(**batch_fields())), Recovered(1.0), lambda own, task: 1.0)
    assert isinstance(state, Bidding)
    assert any(isinstance(effect, Tell) for effect in effects)
