"""The token loop: each request ends once, with its own text, whatever the others do."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError, TooLargeError, UnavailableError
from edgeagents.inference import generate
from edgeagents.inference.generate import Request, Written
from edgeagents.inference.sampling import Sampling
from tests.unit.inference.rows import END, VOCAB, logits_of
from tests.unit.inference.runs import WORDS, Run, answer, prompt, talkative


def test_a_text_is_what_follows_its_prompt_token_by_token() -> None:
    run = Run()
    run.loop.submit(Request("a", prompt(1), most_tokens=20))
    ended = run.finish()["a"]
    assert (ended.tokens, ended.reason) == answer(prompt(1), 20)
    assert ended.text == bytes(ended.tokens).decode()
    assert "".join(item.text for item in run.said if isinstance(item, Written)) == ended.text


def test_texts_that_are_written_together_are_what_each_would_be_alone() -> None:
    run = Run()
    for number in range(9):
        run.loop.submit(Request(str(number), prompt(number, 3 + 4 * number), most_tokens=5 + number))
    for number, ended in ((int(name), ended) for name, ended in run.finish().items()):
        assert (ended.tokens, ended.reason) == answer(prompt(number, 3 + 4 * number), 5 + number)


def test_running_texts_go_on_while_a_long_prompt_is_computed() -> None:
    run = Run()
    run.loop.submit(Request("short", talkative(3, 4), most_tokens=30))
    run.step()
    run.loop.submit(Request("long", prompt(2, 40), most_tokens=5))
    before = len(run.said)
    for _ in range(4):
        run.step()
    assert [item.name for item in run.said[before:]] == ["short"] * 4, "the long one has 5 pieces"


def test_what_is_kept_of_a_prompt_is_not_computed_again_and_changes_nothing() -> None:
    run = Run()
    constant = prompt(5, 20)
    for name in ("first", "second"):
        before = run.rows.computed
        run.loop.submit(Request(name, constant + prompt(ord(name[0]), 5), most_tokens=6, kept=20))
        ended = run.finish()[name]
        assert (ended.tokens, ended.reason) == answer(constant + prompt(ord(name[0]), 5), 6)
        assert ended.cached == (0 if name == "first" else 20)
        assert run.rows.computed - before == 25 - ended.cached + len(ended.tokens) - (ended.reason == "length")


def test_the_last_piece_of_a_prompt_is_computed_even_when_all_of_it_is_kept() -> None:
    run = Run()
    for name in ("a", "b"):
        run.loop.submit(Request(name, prompt(1, 16), most_tokens=4, kept=16))
        assert run.finish()[name].tokens == answer(prompt(1, 16), 4)[0]
    assert run.ended()["b"].cached == 8


@pytest.mark.parametrize("when", ["waiting", "joining", "running"])
def test_one_that_is_cancelled_ends_at_the_next_token_and_the_others_go_on(when: str) -> None:
    run = Run(rows=2)
    run.loop.submit(Request("other", talkative(1), most_tokens=25))
    if when == "waiting":
        run.loop.submit(Request("third", prompt(3), most_tokens=25))
    run.loop.submit(Request("it", talkative(2, 30 if when == "joining" else 6), most_tokens=25))
    for _ in range(3):
        run.step()
    run.loop.cancel("it")
    run.step()
    assert run.ended()["it"].reason == "cancelled"
    assert bool(run.ended()["it"].tokens) == (when == "running")
    assert run.finish()["other"].tokens == answer(talkative(1), 25)[0]


def test_out_of_time_what_is_written_is_the_answer_and_says_so() -> None:
    run = Run()
    run.loop.submit(Request("a", talkative(1), most_tokens=50, end_s=5.0))
    for _ in range(6):
        run.step()
    run.now_s = 5.0
    ended = run.finish()["a"]
    assert ended.reason == "budget"
    assert ended.tokens == answer(talkative(1), 50)[0][: len(ended.tokens)]
    assert ended.tokens


def test_stop_words_end_an_answer_and_are_not_part_of_it() -> None:
    tokens, _ = answer(prompt(4), 30)
    text = bytes(tokens).decode()
    run = Run()
    run.loop.submit(Request("a", prompt(4), most_tokens=30, stop=(text[5:8], "never")))
    ended = run.finish()["a"]
    assert (ended.reason, ended.text) == ("stop", text[:5])
    assert "".join(item.text for item in run.said if isinstance(item, Written)) == text[:5]


class Only:
    """Three tokens of one kind, then done."""

    def __init__(self, token: int) -> None:
        self.token, self.left = token, 3

    def mask(self, logits: Any) -> None:
        kept = logits[self.token]
        logits[:] = -math.inf
        logits[self.token] = kept

    def begin(self) -> list[int]:
        return []

    def accept(self, token: int) -> list[int]:
        assert token == self.token
        self.left -= 1
        return []

    @property
    def can_end(self) -> bool:
        return self.left == 0

    is_over = can_end


def test_a_constraint_says_what_may_follow_and_when_it_is_complete() -> None:
    run = Run()
    run.loop.submit(Request("a", prompt(1), most_tokens=9, constraint=Only(65), sampling=Sampling(temperature=2.0)))
    ended = run.finish()["a"]
    assert (ended.text, ended.reason) == ("AAA", "stop")


def test_a_given_answer_is_measured_token_by_token() -> None:
    run, given = Run(), (70, 71, 72, END, 73)
    for name in ("a", "b"):
        run.loop.submit(Request(name, prompt(1), most_tokens=5, kept=len(prompt(1)) - 1, spelled=given))
    assert {name: (ended.tokens, ended.reason) for name, ended in run.finish().items()} == dict.fromkeys(
        "ab", (given, "stop")
    )
    chances = [item.log_probability for item in run.said if isinstance(item, Written) and item.name == "a"]
    for place, chance in enumerate(chances):
        logits = logits_of([*prompt(1), *given[:place]])
        total = math.log(sum(math.exp(value - logits.max()) for value in logits))
        assert chance == pytest.approx(float(logits[given[place]] - logits.max()) - total, rel=1e-5)
    assert run.ended()["b"].cached == len(prompt(1)) - 2, "its last piece is two tokens, and computed anew"


def test_questions_that_are_scored_once_push_out_no_constant_part_that_is_used_again() -> None:
    run, constant = Run(budget_bytes=40 * 4), prompt(5, 16)
    for number in range(40):
        if number < 2 or number % 5 == 0:
            run.loop.submit(Request(f"r{number}", constant + prompt(number, 5), most_tokens=3, kept=16))
            assert run.finish()[f"r{number}"].cached == (16 if number else 0)
        whole, computed = prompt(50 + number, 24), run.rows.computed
        for place in range(4):
            run.loop.submit(Request(f"s{number}-{place}", whole, 1, kept=23, spelled=(65 + place,)))
        run.finish()
        assert run.rows.computed - computed == 22 + 4 * 2, "it is computed once for all its texts"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spelled", [(), (70, 71)])
def test_a_model_whose_numbers_are_none_fails_its_text_and_the_loop_goes_on(
    wrong: float, spelled: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sampling = Run(), Sampling(temperature=1.0)
    with monkeypatch.context() as damaged:
        damaged.setattr(run.rows, "_logits", lambda row, length: np.full(VOCAB, wrong, np.float32))
        run.loop.submit(Request("a", prompt(1), most_tokens=3, spelled=spelled, sampling=sampling))
        ended = run.finish()["a"]
    assert (ended.reason, ended.tokens, "no numbers" in ended.error) == ("failed", (), True)
    run.loop.submit(Request("b", prompt(1), most_tokens=3))
    assert run.finish()["b"].reason in ("length", "stop")


def test_what_cannot_be_computed_fails_those_it_was_for_and_the_loop_goes_on() -> None:
    run = Run()
    for name in ("a", "b"):
        run.loop.submit(Request(name, talkative(1), most_tokens=30))
    while not any(isinstance(item, Written) and item.name == "b" for item in run.said):
        run.step()
    run.rows.failing = 1
    run.step()
    assert {name: (ended.reason, "memory" in ended.error) for name, ended in run.ended().items()} == {
        "a": ("failed", True), "b": ("failed", True),
    }  # fmt: skip
    run.loop.submit(Request("c", prompt(1), most_tokens=30))
    assert run.finish()["c"].tokens == answer(prompt(1), 30)[0]


def test_a_name_in_use_an_empty_prompt_and_one_that_does_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.loop.submit(Request("a", prompt(1)[:4], most_tokens=30))
    for request, error in (
        (Request("a", prompt(1), most_tokens=30), InvalidInputError), (Request("b", ()), InvalidInputError),
        (Request("b", prompt(1), most_tokens=0), InvalidInputError),
        (Request("b", prompt(1, 40), most_tokens=25), TooLargeError),
    ):  # fmt: skip
        with pytest.raises(error):
            run.loop.submit(request)
    monkeypatch.setattr(generate, "MOST_WAITING", 1)
    with pytest.raises(UnavailableError, match="try again"):
        run.loop.submit(Request("b", prompt(1), most_tokens=3))
    assert list(run.finish()) == ["a"]


def test_a_character_of_several_tokens_is_handed_on_whole() -> None:
    run = Run()

    class Spelled(Only):
        def __init__(self) -> None:
            super().__init__(0)
            self.tokens = WORDS.encode("温é")

        def mask(self, logits: Any) -> None:
            self.token = self.tokens[0]
            super().mask(logits)

        def accept(self, token: int) -> list[int]:
            self.tokens = self.tokens[1:]
            self.left = len(self.tokens)
            return []

    run.loop.submit(Request("a", prompt(1), most_tokens=9, constraint=Spelled()))
    assert run.finish()["a"].text == "温é"
    assert [item.text for item in run.said if isinstance(item, Written) and item.text] == ["温", "é"]


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"), st.integers(0, 5), st.integers(1, 30), st.integers(1, 20), st.integers(0, 30),
            st.sampled_from([math.inf, 3.0, 9.0]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("fail"), st.integers(1, 2)),
        st.tuples(st.just("time"), st.sampled_from([0.5, 2.0, 5.0])),
        st.tuples(st.just("rest")),
    ),
    max_size=40,
)  # fmt: skip


def carry_out(run: Run, what: Iterable[Any]) -> dict[str, Request]:
    """Do to a loop what is listed; return what was asked of it."""
    asked: dict[str, Request] = {}
    for kind, *rest in what:
        match kind:
            case "submit":
                number, length, most, kept, within_s = rest
                name = f"r{len(asked)}"
                asked[name] = Request(name, prompt(number, length), most, kept=kept, end_s=run.now_s + within_s)
                run.loop.submit(asked[name])
            case "cancel":
                run.loop.cancel(f"r{rest[0]}")
            case "step":
                for _ in range(rest[0]):
                    run.step()
            case "fail":
                run.rows.failing = rest[0]
            case "time":
                run.now_s += rest[0]
            case "rest":
                run.loop.rest()
    return asked


@settings(max_examples=300)
@given(what=steps, rows=st.integers(1, 4), budget=st.sampled_from([0, 40, 200, 10_000]))
def test_whatever_comes_between_each_request_ends_once_with_a_beginning_of_its_own_text(
    what: list[Any], rows: int, budget: int
) -> None:
    run = Run(rows, budget)
    asked = carry_out(run, what)
    ended = run.finish()
    assert set(ended) == set(asked)
    for name, item in ended.items():
        tokens, reason = answer(asked[name].prompt, asked[name].most_tokens)
        assert item.tokens == tokens[: len(item.tokens)]
        if item.reason in ("stop", "length"):
            assert (item.tokens, item.reason) == (tokens, reason)
    assert run.prefixes.size_bytes <= budget
    assert WORDS.tokenizer.get_vocab_size() == VOCAB


def test_rows_are_given_back_while_nothing_is_written_and_never_under_a_text() -> None:
    run = Run()
    run.loop.submit(Request("a", prompt(1, 20), most_tokens=5, kept=16))
    for _ in range(4):
        run.loop.rest()
        run.step()
    assert run.rows.released == 0
    first = run.finish()["a"]
    run.loop.rest()
    assert run.rows.released == 1
    run.loop.submit(Request("b", prompt(1, 20), most_tokens=5, kept=16))
    again = run.finish()["b"]
    assert (again.text, again.cached) == (first.text, 16), "what is kept of prompts is not in rows"


def test_ten_thousand_requests_leave_nothing_behind() -> None:
    run = Run(rows=4, budget_bytes=2000)
    for number in range(10_000):
        run.loop.submit(
            Request(f"r{number}", prompt(number, 4 + number % 9), most_tokens=1 + number % 4, kept=number % 13)
        )
        if number % 3 == 0:
            run.loop.cancel(f"r{number - number % 7}")
        while run.loop.waiting > 8:
            run.step()
    assert len(run.finish()) == 10_000
    held = (run.loop._waiting, run.loop._names, run.loop._cancelled, run.loop._places.all)
    assert not any(held)
    assert run.prefixes.size_bytes <= 2000
