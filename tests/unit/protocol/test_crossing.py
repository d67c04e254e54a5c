"""What came from another gateway is acted on while it is true, and refused by cause when it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.cooperation import Act
from edgeagents.protocol.crossing import AHEAD_S, Fresh, Refused, judge, received, stamp

NOW_NS = 1_800_000_000_000_000_000
ACT = Act(performative="cfp", conversation="c", reply_by_s=3.0)


@pytest.mark.parametrize(
    ("age_s", "cause"),
    [(0.0, None), (4.9, None), (5.1, "stale"), (60.0, "stale"), (-1.9, None), (-2.1, "ahead"), (-1e6, "ahead")],
)
def test_age_decides_by_the_owners_bound(age_s: float, cause: str | None) -> None:
    found = judge(stamp(NOW_NS - int(age_s * 1e9)), NOW_NS, 5.0)
    if cause is None:
        assert found == Fresh(pytest.approx(max(0.0, age_s)))
    else:
        assert isinstance(found, Refused)
        assert found.cause == cause


@pytest.mark.parametrize("sent", ["", "now", "1e9", "-5", "١٢", "9" * 21, " 5", "0x10"])
def test_what_is_no_time_counts_as_undated(sent: str) -> None:
    found = judge(sent, NOW_NS, 5.0)
    assert isinstance(found, Refused)
    assert found.cause == "undated"


@given(st.text(), st.integers(min_value=0, max_value=2**63), st.floats(min_value=0.001, max_value=600))
def test_any_text_is_judged_and_nothing_old_or_far_ahead_is_fresh(sent: str, now_ns: int, oldest_s: float) -> None:
    found = judge(sent, now_ns, oldest_s)
    if isinstance(found, Fresh):
        assert 0 <= found.age_s <= oldest_s
        assert int(sent) <= now_ns + AHEAD_S * 1e9


def test_the_way_is_taken_off_a_deadline() -> None:
    assert received(ACT, 1.0) == ACT.model_copy(update={"reply_by_s": 2.0})
    assert received(ACT.model_copy(update={"reply_by_s": 0.0}), 4.0) == ACT.model_copy(update={"reply_by_s": 0.0})
    late = received(ACT, 3.0)
    assert isinstance(late, Refused)
    assert late.cause == "stale"
