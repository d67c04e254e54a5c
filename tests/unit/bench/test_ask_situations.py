"""The labelled situations: enough of them, well formed, and the home's rules do what a careful person would."""

import pytest

from tests.bench.ask_situations import Situation, by_rules, judged, play, situations

# Known and told by `make bench-ask`: no rule of the home asks whether a reading can be true.
NOT_RIGHT = {"a sensor that reads ninety degrees"}


def test_there_are_enough_of_every_kind_and_each_has_a_name_of_its_own() -> None:
    found = situations()
    assert len(found) >= 40
    assert len({item.name for item in found}) == len(found)
    assert sum(item.kind == "invalid" for item in found) >= 10
    assert sum(any("一" <= letter <= "鿿" for letter in item.said) for item in found) >= 5
    assert {item.agent for item in found} == {"comfort", "air", "energy", "assistant"}
    assert all(bool(item.said) is not bool(item.event) for item in found)


@pytest.mark.parametrize("situation", situations(), ids=lambda item: item.name)
def test_rules_and_templates_do_what_should_be_done(situation: Situation) -> None:
    found = judged(by_rules(situation), situation)
    assert (found == "right") is (situation.name not in NOT_RIGHT), (found, by_rules(situation))


def test_what_is_not_to_be_looked_at_is_not_decided_on() -> None:
    for name in ("the same message again", "a price in words", "a temperature read half an hour ago"):
        (situation,) = (item for item in situations() if item.name == name)
        assert play(situation).observation is None, name


@pytest.mark.parametrize(
    ("done", "want", "verdict"),
    [
        (set(), "nothing", "right"),
        ({"a/b=1"}, "nothing", "harmful"),
        (set(), "a/b=1", "silent"),
        ({"a/b=1"}, "a/b=1", "right"),
        ({"a/b=1"}, "a/b=1 c/d=2", "wrong"),
        ({"a/b=1", "c/d=3"}, "a/b=1 c/d=2", "harmful"),
        ({"a/b=35.5"}, "a/b=36~2", "right"),
        ({"a/b=33.5"}, "a/b=36~2", "harmful"),
        ({"a/c=36"}, "a/b=36~2", "harmful"),
        ({"a/b=true"}, "a/b=36~2", "harmful"),
    ],
)
def test_verdicts(done: set[str], want: str, verdict: str) -> None:
    assert judged(frozenset(done), Situation("x", "x", "air", want)) == verdict
