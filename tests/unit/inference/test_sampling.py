"""Which token comes next."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from edgeagents.inference.sampling import Sampling, choose

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def counted(how: Sampling, logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = LOGITS) -> Counter[int]:
    chance = np.random.default_rng(7)
    return Counter(choose(logits, how, chance)[0] for _ in range(4000))


def test_without_temperature_it_is_the_likeliest_with_its_own_probability() -> None:
    token, log_probability = choose(LOGITS, Sampling(), np.random.default_rng(0))
    assert (token, round(math.exp(log_probability), 5)) == (0, 0.5)


def test_at_temperature_one_tokens_come_as_often_as_they_are_likely() -> None:
    found = counted(Sampling(temperature=1.0))
    assert [round(found[token] / 4000, 1) for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.051)


@pytest.mark.parametrize(
    ("how", "possible"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.6}, {0, 1}),
        ({"top_p": 0.05}, {0}),
        ({"top_p": 5e-324, "min_p": 0.9}, {0}),
        ({"min_p": 0.4}, {0, 1, 2}),
        ({"min_p": 1.0}, {0}),
    ],
)
def test_rules_leave_only_what_is_likely_enough(how: dict[str, float], possible: set[int]) -> None:
    assert set(counted(Sampling(temperature=2.0, **how))) == possible  # type: ignore[arg-type]


def test_what_was_written_is_less_likely_with_a_penalty() -> None:
    logits = np.array([2.0, 1.5, -1.0], np.float32)
    how, chance = Sampling(repetition_penalty=2.0), np.random.default_rng(0)
    assert choose(logits, how, chance, [0])[0] == 1
    assert choose(logits, how, chance, [])[0] == 0
    assert logits.tolist() == [2.0, 1.5, -1.0], "the model's own are left alone"


@given(
    logits=arrays(np.float32, st.integers(1, 40), elements=st.one_of(st.floats(-60, 60, width=32), st.just(-np.inf))),
    how=st.builds(
        Sampling, temperature=st.sampled_from([0.0, 0.01, 1.0, 10.0]), top_k=st.integers(0, 50),
        top_p=st.floats(0.01, 1.0), min_p=st.floats(0.0, 1.0),
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_what_may_not_follow_is_never_chosen_and_the_same_chance_chooses_the_same(
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]], how: Sampling, seed: int
) -> None:
    if not np.isfinite(logits).any():
        logits[0] = 0.0
    first = choose(logits, how, np.random.default_rng(seed))
    assert np.isfinite(logits[first[0]])
    assert first == choose(logits, how, np.random.default_rng(seed))
    assert first[1] <= 1e-5


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"temperature": math.nan}, {"top_p": 0}, {"top_k": -1}, {"x": 1}]
)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling(**wrong)  # type: ignore[arg-type]
