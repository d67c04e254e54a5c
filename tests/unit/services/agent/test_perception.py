"""What an agent makes of events: what is new, what is late, what came before."""

import uuid
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.agent import Observation, Recent
from edgeagents.model.device import Event, make_reading
from edgeagents.model.message import Cause
from edgeagents.model.values import Value
from edgeagents.protocol.gate import Key
from edgeagents.settings import SiteTime
from services.agent.perception import UNCHANGED_S, Twin

CAUSE = Cause(stream="edgex-events", sequence=1)
KEY = ("sensor", "Temperature")


def event(
    value: Value, seconds: float, *, name: str = "", kind: str = "Float64", resource: str = "Temperature"
) -> Event:
    """Return an event of one reading, taken `seconds` after the epoch."""
    origin_ns = int(seconds * 1e9)
    reading = make_reading("sensor", "Sensor", resource, kind, value, origin_ns, reading_id="r")
    return Event(
        id=name or str(uuid.uuid4()), device_name="sensor", profile_name="Sensor", source_name=resource,
        origin=origin_ns, readings=(reading,),
    )  # fmt: skip


@pytest.fixture
def twin() -> Twin:
    return Twin(SiteTime(), {KEY}, keep_s=600)


def see(twin: Twin, *events: Event) -> list[Observation | None]:
    return [twin.observe(item, CAUSE, item.origin / 1e9) for item in events]


def test_a_new_value_is_an_observation(twin: Twin) -> None:
    (observation,) = see(twin, event(20.5, 10))

    assert observation is not None
    assert observation.changed["Temperature"].value == 20.5
    assert twin.latest(KEY) == observation.changed["Temperature"]


def test_an_unchanged_value_is_none_until_some_time_has_passed(twin: Twin) -> None:
    first, again, later = see(twin, event(20.5, 10), event(20.5, 20), event(20.5, 10 + UNCHANGED_S))

    assert first is not None
    assert again is None
    assert later is not None
    assert twin.counts["unchanged"] == 1


@pytest.mark.parametrize(("looked_back", "lowest"), [(None, 20.0), ({KEY}, 20.0), ((), 22.0)])
def test_the_past_is_kept_only_where_a_rule_looks_back(looked_back: Collection[Key] | None, lowest: float) -> None:
    twin = Twin(SiteTime(), {KEY}, keep_s=600, looked_back=looked_back)
    see(twin, event(20.0, 10), event(22.0, 20))

    found = twin.recent(Recent(of="sensor/Temperature", over=20.0, take="minimum"), 25.0)

    assert found is not None
    assert found.value == lowest
    assert twin.readings[KEY].value == 22.0


def test_the_same_event_twice_is_one_observation(twin: Twin) -> None:
    same = event(20.5, 10, name="same")

    assert [bool(item) for item in see(twin, same, same)] == [True, False]
    assert twin.counts["repeated"] == 1


def test_a_late_reading_changes_nothing(twin: Twin) -> None:
    see(twin, event(20.5, 10))

    assert see(twin, event(15.0, 5)) == [None]
    assert twin.counts["late"] == 1
    latest = twin.latest(KEY)
    assert latest is not None
    assert latest.value == 20.5


def test_a_resource_no_rule_looks_at_is_known_but_no_news(twin: Twin) -> None:
    assert see(twin, event(700.0, 10, resource="CO2")) == [None]
    assert twin.latest(("sensor", "CO2")) is not None


def test_an_unreadable_reading_is_counted(twin: Twin) -> None:
    broken = event(1.0, 10)
    broken = broken.model_copy(update={"readings": (broken.readings[0].model_copy(update={"value": "warm"}),)})

    assert see(twin, broken) == [None]
    assert twin.counts["unreadable"] == 1


@pytest.mark.parametrize(
    ("take", "value"), [("mean", 20.0), ("minimum", 18.0), ("maximum", 22.0), ("change", 4.0), ("age", 30.0)]
)
def test_statistics_are_taken_over_the_recent_past(twin: Twin, take: Any, value: float) -> None:
    see(twin, event(5.0, 100), event(18.0, 500), event(20.0, 510), event(22.0, 520))

    sample = twin.recent(Recent(of="sensor/Temperature", over=60, take=take), 550)

    assert sample is not None
    assert sample.value == pytest.approx(value)


TAKES = ("mean", "minimum", "maximum", "change", "age", "trend")


@given(
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from([-0.0, 0.0, 1.0, 2.5]), st.booleans()), max_size=30),
    st.sampled_from([3.0, 10.0, 100.0]), st.sampled_from([None, 0.5]),
)  # fmt: skip
def test_a_statistic_is_the_same_however_often_it_was_asked_for_before(
    steps: list[tuple[float, float, bool]], over: float, otherwise: float | None
) -> None:
    """One twin is asked at each step, time going back too; of the other, which sees the same, only then."""
    now_s, taken = 1000.0, list[tuple[float, float]]()
    asked = Twin(SiteTime(), {KEY}, keep_s=600)
    for past_s, value, is_new in steps:
        now_s += past_s - 5.0
        if is_new:
            asked.set_value(KEY, value, int(now_s * 1e9), now_s)
            taken.append((value, now_s))
        fresh = Twin(SiteTime(), {KEY}, keep_s=600)
        for old, at_s in taken:
            fresh.set_value(KEY, old, int(at_s * 1e9), at_s)
        for take in TAKES:
            recent = Recent(of="sensor/Temperature", over=over, take=take, otherwise=otherwise)  # type: ignore[arg-type]
            assert repr(asked.recent(recent, now_s)) == repr(fresh.recent(recent, now_s))


def test_a_statistic_that_did_not_change_is_the_very_sample_until_time_or_a_reading_changes_it(twin: Twin) -> None:
    see(twin, event(18.0, 500), event(20.0, 510))
    lowest, age = (Recent(of="sensor/Temperature", over=60, take=take) for take in ("minimum", "age"))
    first = twin.recent(lowest, 520)
    assert first is not None
    assert twin.recent(lowest.model_copy(), 540) is first, "by what it asks, not by which object asks"
    assert twin.recent(age, 520) != twin.recent(age, 540)
    later = twin.recent(lowest, 565)
    assert later is not None
    assert (first.value, later.value) == (18.0, 20.0), "the older reading has left the span"
    see(twin, event(20.0, 567))
    newer = twin.recent(lowest, 568)
    assert newer is not None
    assert (newer.value, newer.site_s) == (20.0, 567.0), "as old as the newest reading"


def test_a_statistic_moves_with_a_clock_that_was_set(twin: Twin) -> None:
    see(twin, event(18.0, 500))
    lowest = Recent(of="sensor/Temperature", over=60, take="minimum")
    assert twin.recent(lowest, 520) is not None
    twin.shift(3600 * 10**9)
    moved = twin.recent(lowest, 4120)
    assert moved is not None
    assert (moved.value, moved.site_s) == (18.0, 4100.0)


def test_there_is_no_statistic_of_nothing_or_of_words(twin: Twin) -> None:
    recent = Recent(of="sensor/Temperature", over=60, take="mean")
    assert twin.recent(recent, 0) is None
    twin.set_value(KEY, "warm", 1, 0)
    assert twin.recent(recent, 1) is None


def test_what_was_known_before_does_not_replace_what_is_newer(twin: Twin) -> None:
    see(twin, event(18.0, 500))
    twin.set_value(KEY, 21.0, 499 * 10**9, 499.0)
    newest = twin.latest(KEY)
    assert newest is not None
    assert (newest.value, twin.counts["late"]) == (18.0, 1)
    twin.set_value(KEY, 22.0, 500 * 10**9, 500.0)
    newest = twin.latest(KEY)
    assert newest is not None
    assert newest.value == 22.0


def test_what_is_too_old_is_forgotten(twin: Twin) -> None:
    see(twin, event(18.0, 10), event(20.0, 700))

    sample = twin.recent(Recent(of="sensor/Temperature", over=10_000, take="minimum"), 700)

    assert sample is not None
    assert sample.value == 20.0


def test_history_before_the_start_is_no_observation_but_is_remembered(twin: Twin) -> None:
    old = event(18.0, 10, name="old")
    twin.remember(old, old.origin)

    assert twin.latest(KEY) is not None
    assert see(twin, old) == [None]


def test_a_reading_from_the_future_counts_as_of_now_and_keeps_later_ones_in(twin: Twin) -> None:
    ahead = event(25.0, 10_000)
    assert twin.observe(ahead, CAUSE, 100.0) is not None
    latest = twin.latest(KEY)
    assert latest is not None
    assert latest.site_s == pytest.approx(100.0)
    (later,) = see(twin, event(20.5, 101))
    assert later is not None
    assert later.changed["Temperature"].value == 20.5


def test_the_future_is_seen_in_site_time_too() -> None:
    twin = Twin(SiteTime(start_s=1000.0, wall_start_s=0.0, factor=60.0), {KEY}, keep_s=600)
    twin.observe(event(25.0, 20), CAUSE, 1600.0)  # 20 s wall are 2200 s site, but it is 1600 s
    latest = twin.latest(KEY)
    assert latest is not None
    assert latest.site_s == pytest.approx(1600.0, abs=0.001)
    assert latest.origin_ns == pytest.approx(10_000_000_000, abs=1000)


def test_an_absurd_number_has_no_statistic(twin: Twin) -> None:
    twin.set_value(KEY, 10**400, 1, 0)
    assert twin.recent(Recent(of="sensor/Temperature", over=60, take="mean"), 1) is None


def test_as_many_event_ids_are_remembered_as_there_is_room_for(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.agent.perception.KNOWN_EVENTS", 3)
    see(twin, *(event(float(number), number + 1, name=f"e{number}") for number in range(5)))
    for name in ("e4", "e3", "e2", "e0"):
        see(twin, event(1.0, 1, name=name))
    assert twin.counts["repeated"] == 3
    assert twin.counts["late"] == 1
