"""Somebody's hand keeps its value, what changes by itself does not; either is known after a few looks."""

import random

from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.values import Value
from edgeagents.protocol.looks import (
    AGREEING_LOOKS,
    BETWEEN_LOOKS_S,
    BETWEEN_ROUNDS_S,
    FEWEST_LOOKS,
    LOOKING_S,
    ROUNDS,
    Looking,
    Moving,
    Settled,
    State,
    take,
)


def look(*values: Value, expected: Value = 21.0, each_s: float = 0.0) -> tuple[State, int]:
    """Return what is known after some looks, and how many of them were needed."""
    state: State = Looking(expected, 0.1)
    now_s = 0.0
    for number, value in enumerate(values, 1):
        assert isinstance(state, Looking)
        now_s += state.pause_s + each_s
        state = take(state, value, now_s)
        if not isinstance(state, Looking):
            return state, number
    return state, len(values)


def test_a_stale_reading_needs_one_look() -> None:
    assert look(21.05, 17.0) == (Settled(21.05), 1)


def test_another_value_counts_once_many_looks_agree() -> None:
    assert look(*[17.0] * 20) == (Settled(17.0), AGREEING_LOOKS)


def test_of_a_slow_device_fewer_looks_are_enough() -> None:
    assert look(*[17.0] * 20, each_s=LOOKING_S) == (Settled(17.0), FEWEST_LOOKS)


def test_numbers_within_the_tolerance_agree() -> None:
    assert look(*[17.0, 17.05] * 10)[0] == Settled(17.05)


def test_who_is_just_turning_the_knob_is_waited_for() -> None:
    state, _ = look(17.0, 18.0)
    assert isinstance(state, Looking)
    assert state.pause_s == BETWEEN_ROUNDS_S
    assert look(17.0, 18.0, *[19.0] * 20)[0] == Settled(19.0)


def test_a_hand_that_put_it_back_meanwhile_left_nothing() -> None:
    assert look(17.0, 18.0, *[21.0] * 20)[0] == Settled(21.0)


def test_what_is_another_one_at_each_look_moves() -> None:
    assert look(*range(20)) == (Moving(), 2 * ROUNDS)


def test_a_bool_that_comes_back_to_what_was_expected_moves() -> None:
    assert look(False, True, True, False, expected=True) == (Moving(), 4)


def test_a_random_bool_passes_for_a_hand_once_in_some_three_hundred_times() -> None:
    chance = random.Random(7)
    ends = [look(*(chance.random() < 0.5 for _ in range(24)), expected=True)[0] for _ in range(20_000)]
    hands, moving = ends.count(Settled(False)), ends.count(Moving())
    assert 0.001 < hands / moving < 0.006


@given(st.lists(st.sampled_from([17.0, 21.0, 23.0]), min_size=24, max_size=24), st.sampled_from([0.0, 0.2, 2.0]))
def test_it_is_known_after_a_few_looks_whatever_they_show(values: list[float], each_s: float) -> None:
    state, number = look(*values, each_s=each_s)
    assert number <= ROUNDS * AGREEING_LOOKS
    if isinstance(state, Settled):
        assert state.value == values[number - 1]
    else:
        assert isinstance(state, Moving)
        assert len(set(values[:number])) > 1


def test_the_looks_at_a_fast_device_take_less_than_half_a_second() -> None:
    assert (AGREEING_LOOKS - 1) * BETWEEN_LOOKS_S < LOOKING_S
