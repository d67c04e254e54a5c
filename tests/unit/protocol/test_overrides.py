"""Who changed a device: nobody, a SET of ours that came late, or a hand; in any order of events."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.values import Value
from edgeagents.protocol.overrides import (
    CALM_READINGS,
    LATE_S,
    MOST_LATE,
    MOST_MOVING,
    STEADY_READINGS,
    Confirm,
    Confirmed,
    Correct,
    Correcting,
    Done,
    Doubtful,
    Effect,
    Event,
    Moving,
    Over,
    Overridden,
    Restless,
    Seen,
    Sending,
    Shifted,
    Tick,
    TookEffect,
    Void,
    Watch,
    step,
)

KEY = ("valve", "Setpoint")


def confirmed(value: Value, now_s: float = 10.0, site_s: float = 1000.0, **changes: Any) -> Confirmed:
    """Return what the guard read itself."""
    fields: dict[str, Any] = {"tolerance": 0.1, "stand_back_s": 1800.0, "may_set": True}
    return Confirmed(KEY, value, now_s=now_s, site_s=site_s, **(fields | changes))


def run(*events: Event, watch: Watch | None = None) -> tuple[Watch, list[Effect]]:
    """Return the state after some events, and what the last one led to."""
    now, effects = watch or Watch(), list[Effect]()
    for event in events:
        now, effects = step(now, event)
    return now, effects


PROVEN = run(Sending(KEY), Done(KEY, 21.0))[0]


def test_a_reading_as_expected_means_nothing() -> None:
    assert run(Seen(KEY, 21.05, 0.1), watch=PROVEN)[1] == []


def test_another_one_is_confirmed_once_and_then_is_a_hand() -> None:
    watch, effects = run(Seen(KEY, 17.0, 0.1), watch=PROVEN)
    assert effects == [Confirm(KEY)]
    assert run(Seen(KEY, 16.0, 0.1), watch=watch)[1] == [], "asked already"
    watch, (effect,) = run(confirmed(17.0), watch=watch)
    assert isinstance(effect, Overridden)
    assert (effect.override.value, effect.override.until_site_s) == (17.0, 2800.0)
    assert watch.overrides == {KEY: effect.override}
    assert run(Seen(KEY, 17.0), watch=watch)[1] == []
    again, (effect,) = run(Seen(KEY, 18.0), confirmed(18.0, site_s=2000.0), watch=watch)
    assert again.overrides[KEY].until_site_s == 3800.0, "by hand again"


def test_a_stale_reading_is_nothing() -> None:
    watch, effects = run(Seen(KEY, 17.0), confirmed(21.0), watch=PROVEN)
    assert (effects, watch.overrides, watch.of(KEY).is_doubted) == ([], {}, False)


def test_while_a_set_of_ours_is_under_way_no_reading_means_anything() -> None:
    watch, effects = run(Sending(KEY), Seen(KEY, 23.0), watch=PROVEN)
    assert effects == []
    assert run(Void(KEY), Seen(KEY, 21.0), watch=watch)[1] == []
    assert run(Void(KEY), Seen(KEY, 23.0), watch=watch)[1] == [Confirm(KEY)]


def test_a_value_is_known_once_it_was_steady_and_what_changes_by_itself_never_is() -> None:
    watch, _ = run(*[Seen(KEY, 5)] * STEADY_READINGS)
    assert run(Seen(KEY, 6), watch=watch)[1] == [Confirm(KEY)]
    watch, _ = run(*[Seen(KEY, value) for value in (1, 2, 3, 4, 5, 6)])
    assert run(Seen(KEY, 7), watch=watch)[1] == []


MOVED: list[Event] = [Seen(KEY, 17.0), Moving(KEY)]


def test_what_was_seen_to_change_by_itself_is_known_only_after_many_readings_and_told_of_once() -> None:
    watch, effects = run(*MOVED * MOST_MOVING, watch=PROVEN)
    assert effects == [Restless(KEY)]
    assert not watch.of(KEY).is_doubted
    assert run(*[Seen(KEY, 5)] * STEADY_READINGS, Seen(KEY, 6), watch=watch)[1] == []
    calm, _ = run(*[Seen(KEY, 5)] * CALM_READINGS, watch=watch)
    watch, effects = run(Seen(KEY, 6), watch=calm)
    assert effects == [Confirm(KEY)]
    assert run(Moving(KEY), *MOVED * MOST_MOVING, watch=watch)[1] == []


def test_who_plays_with_a_switch_and_then_leaves_it_has_set_it() -> None:
    watch, effects = run(*MOVED * (MOST_MOVING - 1), watch=PROVEN)
    assert (effects, watch.of(KEY).is_known) == ([], True)
    watch, _ = run(Seen(KEY, 17.0), confirmed(17.0), watch=watch)
    assert watch.overrides[KEY].value == 17.0
    assert run(*MOVED * (MOST_MOVING - 1), watch=watch)[0].of(KEY).is_known, "counted anew"


def test_once_a_set_of_ours_is_proven_a_hand_is_seen_again_at_once() -> None:
    watch, _ = run(*MOVED * MOST_MOVING, Sending(KEY), Done(KEY, 23.0), watch=PROVEN)
    assert run(Seen(KEY, 17.0), watch=watch)[1] == [Confirm(KEY)]
    assert run(*[Seen(KEY, 17.0)] * 5, confirmed(17.0), watch=watch)[0].overrides[KEY].value == 17.0


def test_what_may_come_late_is_reckoned_with_also_when_it_changes_by_itself() -> None:
    watch, _ = run(Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0), *MOVED * MOST_MOVING, watch=PROVEN)
    assert [item.value for item in watch.of(KEY).late] == [23.0]


def test_a_straggler_is_corrected_to_what_was_wanted_after_it() -> None:
    watch, _ = run(Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0), Sending(KEY), Done(KEY, 24.0), watch=PROVEN)
    watch, effects = run(Seen(KEY, 23.0), confirmed(23.0), watch=watch)
    assert effects == [Correct(KEY, 24.0, 23.0)]
    assert watch.overrides == {}
    assert [item.value for item in watch.of(KEY).late] == [23.0], "it is found again if it cannot be corrected"
    watch, _ = run(Sending(KEY), Done(KEY, 24.0, settled=(24.0, 23.0)), watch=watch)
    assert watch.of(KEY).late == (), "one SET has one effect"
    assert isinstance(run(Seen(KEY, 23.0), confirmed(23.0), watch=watch)[1][0], Overridden), "this is a hand"


def test_two_sets_of_one_value_are_two_and_a_third_that_is_proven_ends_neither() -> None:
    doubtful = [Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0)] * 2
    watch, _ = run(*doubtful, Sending(KEY), Done(KEY, 23.0), Sending(KEY), Done(KEY, 24.0), watch=PROVEN)
    for _ in range(2):
        watch, effects = run(Seen(KEY, 23.0), confirmed(23.0), watch=watch)
        assert effects == [Correct(KEY, 24.0, 23.0)]
        watch, _ = run(Sending(KEY), Done(KEY, 24.0, settled=(23.0,)), watch=watch)
    assert isinstance(run(Seen(KEY, 23.0), confirmed(23.0), watch=watch)[1][0], Overridden), "this is a hand"


def test_a_correction_is_under_way_and_reckoned_with_before_it_goes_out() -> None:
    watch, _ = run(Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0), Sending(KEY), Done(KEY, 24.0), watch=PROVEN)
    watch, effects = run(Seen(KEY, 23.0), confirmed(23.0), Correcting(KEY, 24.0, 11.0), watch=watch)
    assert effects == []
    known = watch.of(KEY)
    assert (known.under_way, known.is_doubted, known.value) == (1, False, 24.0)
    assert [(item.value, item.is_newest) for item in known.late] == [(23.0, False), (24.0, True)]
    assert run(Seen(KEY, 23.0), watch=watch)[1] == [], "no reading means anything while it is under way"
    assert run(Void(KEY), watch=watch)[0].of(KEY).under_way == 0, "one SET ends it"


@pytest.mark.parametrize("hand", [True, False])
def test_one_that_nothing_came_after_is_taken_as_it_is(hand: bool) -> None:
    watch, _ = run(Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0), watch=PROVEN)
    if hand:  # the owner's value is newer than it
        watch, _ = run(Seen(KEY, 19.0), confirmed(19.0), watch=watch)
    effects = run(Seen(KEY, 23.0), confirmed(23.0), watch=watch)[1]
    assert effects == ([Correct(KEY, 19.0, 23.0)] if hand else [TookEffect(KEY, 23.0)])


def test_what_may_not_be_set_again_is_written_down_only() -> None:
    watch, _ = run(Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0), Sending(KEY), Done(KEY, 24.0), watch=PROVEN)
    assert run(Seen(KEY, 23.0), confirmed(23.0, may_set=False), watch=watch)[1] == [TookEffect(KEY, 23.0)]


def test_nobody_reckons_with_a_straggler_for_ever_nor_with_any_number_of_them() -> None:
    watch, _ = run(Sending(KEY), Doubtful(KEY, 23.0, 21.0, 0.0), Sending(KEY), Done(KEY, 24.0), watch=PROVEN)
    later = LATE_S + 1
    assert isinstance(run(Seen(KEY, 23.0), confirmed(23.0, now_s=later), watch=watch)[1][0], Overridden)
    assert run(Tick(later, 0.0), watch=watch)[0].of(KEY).late == ()
    for number in range(50):
        watch, _ = run(Sending(KEY), Doubtful(KEY, float(number), 21.0, 0.0), watch=watch)
    assert len(watch.of(KEY).late) == MOST_LATE


def test_agents_stand_back_until_the_owners_time_is_over_and_a_set_clock_changes_nothing() -> None:
    watch, _ = run(Seen(KEY, 17.0), confirmed(17.0), watch=PROVEN)
    assert run(Tick(0.0, 2799.0), watch=watch)[1] == []
    assert run(Tick(0.0, 2800.0), watch=watch) == (Watch(watch.expected, {}), [Over(KEY)])
    moved, _ = run(Shifted(-3600.0), watch=watch)
    assert run(Tick(0.0, -801.0), watch=moved)[1] == []
    assert run(Tick(0.0, -800.0), watch=moved)[1] == [Over(KEY)]


values = st.sampled_from([17.0, 21.0, 23.0, None])
events = st.one_of(
    st.builds(Seen, st.just(KEY), values),
    st.just(Sending(KEY)),
    st.builds(Done, st.just(KEY), st.sampled_from([21.0, 23.0]), st.booleans()),
    st.just(Void(KEY)),
    st.builds(Doubtful, st.just(KEY), st.sampled_from([21.0, 23.0]), values, st.just(0.0)),
    st.builds(confirmed, st.sampled_from([17.0, 21.0, 23.0]), st.sampled_from([0.0, 10.0, 700.0])),
    st.just(Moving(KEY)),
    st.builds(Tick, st.sampled_from([0.0, 700.0]), st.sampled_from([0.0, 1500.0, 5000.0])),
    st.builds(Shifted, st.sampled_from([-3600.0, 3600.0])),
)


@given(st.lists(events, max_size=40))
def test_in_any_order_of_events_the_guard_sets_nothing_that_was_not_wanted_and_blames_nobody_for_its_own(
    sequence: list[Event],
) -> None:
    watch, wanted, possible = Watch(), set[Value](), set[Value]()
    for event in sequence:
        before = watch
        watch, effects = step(watch, event)
        match event:
            case Seen():
                wanted.add(event.value)  # a steady reading is what the owner has
            case Done() | Doubtful():
                possible.add(event.value)
                wanted.add(event.value if isinstance(event, Done) else event.shown)
        for effect in effects:
            match effect:
                case Confirm():
                    assert not before.of(KEY).under_way
                    assert before.of(KEY).is_known
                case Correct(_, value, straggler):
                    assert value in wanted
                    assert straggler in possible
                    assert value != straggler
                case Overridden(_, override):
                    assert isinstance(event, Confirmed)
                    assert not before.of(KEY).under_way
                    late = [item.value for item in before.of(KEY).late if item.until_s >= event.now_s]
                    assert override.value not in late
                    wanted.add(override.value)
                case TookEffect(_, value):
                    assert value in possible
                    wanted.add(value)  # the newest wanted, or left as it is
        assert watch.of(KEY).under_way >= 0
