"""What was seen is seen again: the same values, bit for bit, through the text of a record."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError, NotFoundError
from edgeagents.model.agent import Recent, Sample
from edgeagents.model.values import Value
from edgeagents.protocol.chains import link
from edgeagents.protocol.gate import Key
from services.agent.view import FrozenView, SeenView, described_samples, samples_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text() | st.binary(max_size=8)
    | st.sampled_from(["\ud800", "a\x00b", "$bytes", 0.1 + 0.2, -0.0, 21, 21.0, True]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.just("$bytes"), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
samples = st.none() | st.builds(Sample, values, st.integers(0, 2**63), st.floats(0, 1e10))
MEAN = Recent(of="sensor/T", over=60.0, take="mean")
AGE = Recent(of="sensor/T", over=60.0, take="age")


class Counted:
    """A view that counts how often it is asked."""

    def __init__(self, answers: dict[Any, Sample | None]) -> None:
        self.answers, self.asked = answers, 0

    def latest(self, key: Key) -> Sample | None:
        self.asked += 1
        return self.answers.get(key)

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        self.asked += 1
        return self.answers.get((recent.take, site_s))


def through_a_record(described: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader of the audit finds where it was written."""
    found: dict[str, Any] = json.loads(link(None, "a", "i", "decision", {"view": described}, 1).body)["view"]
    return found


def bits(value: Value) -> str:
    """Return a text that two values share only when they are the same, type and bits."""
    return f"{type(value).__name__} {value!r}"


def whole(sample: Sample | None) -> Any:
    """Return a sample so that NaN equals itself and 21 does not equal 21.0."""
    return None if sample is None else (bits(sample.value), sample.origin_ns, repr(sample.site_s))


@given(latest=st.dictionaries(st.tuples(st.text(), st.text()), samples, max_size=4), mean=samples, age=samples)
def test_what_was_seen_is_seen_again_bit_for_bit(
    latest: dict[Key, Sample | None], mean: Sample | None, age: Sample | None
) -> None:
    seen = SeenView(Counted({**latest, ("mean", 5.5): mean, ("age", 5.5): age}))
    before = [whole(seen.latest(key)) for key in latest] + [whole(seen.recent(what, 5.5)) for what in (MEAN, AGE)]
    again = FrozenView(through_a_record(seen.described()))
    after = [whole(again.latest(key)) for key in latest] + [whole(again.recent(what, 5.5)) for what in (MEAN, AGE)]
    assert after == before


@given(st.dictionaries(st.text(), samples.filter(lambda sample: sample is not None), max_size=3))
def test_samples_by_name_read_back(changed: dict[str, Sample]) -> None:
    again = samples_of(through_a_record(described_samples(changed)))
    assert {name: whole(sample) for name, sample in again.items()} == {
        name: whole(sample) for name, sample in changed.items()
    }


def test_a_question_is_asked_once_and_answered_alike() -> None:
    inner = Counted({("s", "T"): Sample(1.0, 2, 3.0), ("mean", 9.0): Sample(4.0, 5, 6.0)})
    seen = SeenView(inner)
    assert {whole(seen.latest(("s", "T"))) for _ in range(3)} == {("float 1.0", 2, "3.0")}
    assert {whole(seen.recent(MEAN, 9.0)) for _ in range(3)} == {("float 4.0", 5, "6.0")}
    assert seen.latest(("s", "none")) is seen.latest(("s", "none")) is None
    assert inner.asked == 3


def test_what_nobody_looked_at_is_not_made_up() -> None:
    seen = SeenView(Counted({}))
    seen.latest(("s", "T"))
    seen.recent(MEAN, 9.0)
    again = FrozenView(seen.described())
    assert again.latest(("s", "T")) is None
    with pytest.raises(NotFoundError, match="did not look at s/U"):
        again.latest(("s", "U"))
    with pytest.raises(NotFoundError, match="did not look at the age of sensor/T"):
        again.recent(AGE, 9.0)
    with pytest.raises(NotFoundError, match="did not look at the mean"):
        again.recent(MEAN, 9.1)


@pytest.mark.parametrize("described", [
    {}, {"latest": []}, {"latest": [["a"]], "recent": []}, {"latest": [["a", "b", 1]], "recent": []},
    {"latest": [["a", "b", 1, "x", 2.0]], "recent": []}, {"latest": 5, "recent": []},
    {"latest": [["a", "b", {"$bytes": "?"}, 1, 1.0]], "recent": []},
    {"latest": [["a", "b", {"c": 1}, 1, 1.0]], "recent": []},
    {"latest": [[[], "b"]], "recent": []}, {"latest": [], "recent": [[1]]},
])  # fmt: skip
def test_a_view_of_another_shape_is_refused(described: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        FrozenView(described)


def test_nan_and_the_largest_double_are_kept() -> None:
    seen = SeenView(Counted({("s", "T"): Sample(math.nan, 1, 1.7976931348623157e308)}))
    seen.latest(("s", "T"))
    again = FrozenView(through_a_record(seen.described())).latest(("s", "T"))
    assert whole(again) == ("float nan", 1, "1.7976931348623157e+308")
