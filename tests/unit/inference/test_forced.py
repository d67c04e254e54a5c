"""Tokens that a constraint puts behind a choice: the same text however many they are, and they hold nobody up."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.inference.generate import Request, Written
from tests.unit.inference.rows import END, logits_of
from tests.unit.inference.runs import PIECE, Run, answer, prompt, talkative


class Between:
    """Puts two tokens behind each that is chosen, and one before all; `left` may be chosen."""

    def __init__(self, left: int) -> None:
        self.left = left

    def begin(self) -> list[int]:
        return [60]

    def mask(self, logits: Any) -> None:
        logits[END] = -math.inf

    def accept(self, token: int) -> list[int]:
        self.left -= 1
        return [61, 62]

    @property
    def can_end(self) -> bool:
        return self.left == 0

    is_over = can_end


def between(number: int, choices: int) -> tuple[int, ...]:
    """Return what a text alone would be, each token computed by itself."""
    tokens = [*prompt(number), 60]
    for _ in range(choices):
        logits = logits_of(tokens)
        logits[END] = -math.inf
        tokens += [int(logits.argmax()), 61, 62]
    return tuple(tokens[len(prompt(number)) :])


def test_tokens_that_follow_in_any_case_are_computed_with_the_others_and_change_nothing() -> None:
    run = Run()
    for number in range(5):
        run.loop.submit(Request(f"r{number}", prompt(number), most_tokens=30, constraint=Between(3 + number % 2)))
    run.loop.submit(Request("plain", prompt(7), most_tokens=12))
    ended = run.finish()
    for number in range(5):
        found = ended[f"r{number}"]
        assert (found.tokens, found.reason, found.is_capped) == (between(number, 3 + number % 2), "stop", False)
        forced = [item.is_forced for item in run.said if isinstance(item, Written) and item.name == f"r{number}"]
        assert forced == [True, *[False, True, True] * (3 + number % 2)]
    assert ended["plain"].tokens == answer(prompt(7), 12)[0]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 9])
def test_a_text_that_is_cut_off_before_its_constraint_holds_is_marked(most: int) -> None:
    run = Run()
    run.loop.submit(Request("a", prompt(1), most_tokens=most, constraint=Between(3)))
    ended = run.finish()["a"]
    assert (ended.reason, ended.is_capped, ended.tokens) == ("length", True, between(1, 3)[:most])


class Spells(Between):
    """Puts as many tokens behind each choice as is said of it."""

    def __init__(self, *runs: int) -> None:
        super().__init__(len(runs))
        self.runs = list(runs)

    def accept(self, token: int) -> list[int]:
        self.left -= 1
        return spelled(self.runs.pop(0))


def spelled(length: int) -> list[int]:
    return [61 + place % 60 for place in range(length)]


def spells(number: int, *runs: int) -> tuple[int, ...]:
    """Return what a text alone would be."""
    tokens = [*prompt(number), 60]
    for length in runs:
        logits = logits_of(tokens)
        logits[END] = -math.inf
        tokens += [int(logits.argmax()), *spelled(length)]
    return tuple(tokens[len(prompt(number)) :])


def begun(run: Run, *names: str) -> None:
    """Step until something of each of these is written."""
    while not set(names) <= {item.name for item in run.said if isinstance(item, Written)}:
        run.step()


def test_a_long_run_is_computed_a_piece_a_step_while_the_others_go_on() -> None:
    run = Run(length=400)
    for name, number in (("a", 1), ("b", 2)):
        run.loop.submit(Request(name, talkative(number, 10, 60), most_tokens=60))
    begun(run, "a", "b")
    run.loop.submit(Request("long", prompt(3), most_tokens=300, constraint=Spells(200, 3)))
    for _ in range(200 // PIECE):
        computed, said = run.rows.computed, len(run.said)
        run.step()
        assert run.rows.computed - computed <= PIECE + 3
        assert Counter(item.name for item in run.said[said:])["a"] == 1
    assert any(item.name == "long" for item in run.said)
    ended = run.finish()
    assert (ended["long"].tokens, ended["long"].reason) == (spells(3, 200, 3), "stop")
    for name, number in (("a", 1), ("b", 2)):
        assert ended[name].tokens == answer(talkative(number, 10, 60), 60)[0]


@pytest.mark.parametrize("why", ["cancelled", "budget"])
def test_a_text_that_catches_up_ends_at_the_next_piece_when_it_has_to(why: str) -> None:
    run = Run(length=400)
    run.loop.submit(Request("long", prompt(3), most_tokens=300, constraint=Spells(200, 3), end_s=5.0))
    run.loop.submit(Request("other", talkative(1), most_tokens=20))
    begun(run, "long")
    run.step()
    run.step()
    computed = run.rows.computed
    if why == "cancelled":
        run.loop.cancel("long")
    run.now_s = 5.0 if why == "budget" else 0.0
    run.step()
    assert run.ended()["long"].reason == why
    assert run.rows.computed - computed <= PIECE + 1, "what the other one needs"
    assert run.finish()["other"].tokens == answer(talkative(1), 20)[0]


def test_a_prompt_and_texts_that_catch_up_take_turns() -> None:
    run = Run(length=400)
    for number in (1, 2):
        run.loop.submit(Request(f"long{number}", prompt(number), most_tokens=300, constraint=Spells(160, 3)))
    begun(run, "long1", "long2")
    run.loop.submit(Request("short", prompt(4, 4 * PIECE), most_tokens=5))
    before = run.rows.computed
    for _ in range(3 * 4):
        run.step()
    assert any(item.name == "short" for item in run.said), "every third piece is its own"
    assert run.rows.computed - before <= 3 * 4 * (PIECE + 3)
    ended = run.finish()
    assert [ended[f"long{number}"].tokens for number in (1, 2)] == [spells(number, 160, 3) for number in (1, 2)]


def test_short_runs_of_all_texts_are_computed_in_the_step_they_came_in() -> None:
    run = Run()
    for number in range(3):
        run.loop.submit(Request(f"r{number}", prompt(number), most_tokens=50, constraint=Between(16)))
    begun(run, "r0", "r1", "r2")
    for _ in range(3):
        said = len(run.said)
        run.step()
        assert Counter(item.name for item in run.said[said:]) == {"r0": 3, "r1": 3, "r2": 3}


def test_a_failure_while_a_text_catches_up_is_its_own() -> None:
    run = Run(length=400)
    run.loop.submit(Request("long", prompt(3), most_tokens=300, constraint=Spells(200, 3)))
    run.loop.submit(Request("other", talkative(1), most_tokens=20))
    begun(run, "long", "other")
    run.rows.failing = 1
    run.step()
    assert run.ended()["long"].reason == "failed"
    assert run.finish()["other"].tokens == answer(talkative(1), 20)[0]


happenings = st.lists(
    st.one_of(
        st.tuples(st.just("forced"), st.lists(st.sampled_from([0, 1, 2, 3, 7, 8, 9, 16, 17, 40]), max_size=4)),
        st.tuples(st.just("plain"), st.integers(1, 30)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.integers(1, 9)),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(what=happenings, rows=st.integers(1, 5))
def test_whoever_catches_up_beside_whom_each_text_is_its_own(what: list[Any], rows: int) -> None:
    run, expected = Run(rows, length=300), dict[str, tuple[int, ...]]()
    for number, (kind, value) in enumerate(what):
        name = f"r{len(expected)}"
        if kind == "forced":
            expected[name] = spells(number, 5, *value)
            run.loop.submit(Request(name, prompt(number), most_tokens=250, constraint=Spells(5, *value)))
        elif kind == "plain":
            expected[name] = answer(prompt(number, value), 20)[0]
            run.loop.submit(Request(name, prompt(number, value), most_tokens=20))
        elif kind == "cancel":
            run.loop.cancel(f"r{value}")
        else:
            for _ in range(value):
                run.step()
    ended = run.finish()
    assert set(ended) == set(expected)
    for name, item in ended.items():
        assert item.tokens == expected[name][: len(item.tokens)]
        assert item.reason == "cancelled" or item.tokens == expected[name]
