"""How sure a model was."""

import math

import pytest

from edgeagents.model.completion import Completion


def test_confidence_is_the_geometric_mean_of_what_was_chosen() -> None:
    assert Completion(log_probability=2 * math.log(0.5), free_tokens=2).confidence == pytest.approx(0.5)


@pytest.mark.parametrize("log_probability", [math.nan, -math.inf])
def test_a_probability_that_is_none_is_no_confidence(log_probability: float) -> None:
    assert Completion(log_probability=log_probability, free_tokens=3).confidence == 0.0


def test_an_answer_that_broke_off_is_worth_nothing() -> None:
    assert Completion(is_capped=True).confidence == Completion(ending="failed").confidence == 0.0


def test_shares_add_up_to_one_in_the_order_of_the_texts() -> None:
    shares = Completion(scores=(-1.0, -2.0)).shares()
    assert sum(shares) == pytest.approx(1.0)
    assert shares[0] / shares[1] == pytest.approx(math.e)
