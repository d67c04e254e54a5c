"""What the guard knows of its devices: from events, newest wins, no clock ahead is believed."""

import pytest

from edgeagents.protocol.gate import PastSet
from edgeagents.settings import SiteTime
from services.guard.picture import LivePicture
from tests.unit.services.guard.rig import SITE_S, Rig, event

KEY = ("valve", "Setpoint")


def reading(rig: Rig) -> tuple[object, float]:
    """Return value and site time of the setpoint."""
    sample = rig.picture.view.readings[KEY]
    return sample.value, sample.site_s


def test_the_newest_reading_counts_whatever_order_they_come_in(rig: Rig) -> None:
    for value, origin_s in (("20", -10), ("21", -5), ("18", -20), ("22", -5)):
        rig.picture.see(event("valve", "Setpoint", value, SITE_S + origin_s))
    assert reading(rig) == (22.0, SITE_S - 5)


def test_a_reading_from_the_future_is_of_now_and_keeps_nothing_out(rig: Rig) -> None:
    rig.picture.see(event("valve", "Setpoint", "20", SITE_S + 1e6))
    assert reading(rig) == (20.0, SITE_S)
    rig.clocks.wall += 10**9
    rig.picture.see(event("valve", "Setpoint", "21", SITE_S + 1))
    assert reading(rig) == (21.0, SITE_S + 1)


def test_unreadable_readings_are_left_out_and_counted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    good = event("valve", "Setpoint", "20")
    bad = good.model_copy(update={"readings": (good.readings[0].model_copy(update={"value": "warm"}),)})
    for _ in range(3):
        rig.picture.see(bad)
    assert rig.picture.view.readings == {}
    assert rig.picture.unreadable == {"valve": 3}
    assert caplog.text.count("reading of valve/Setpoint") == 1


def test_past_sets_come_back_from_the_ledger_and_odd_ones_stop_nothing(rig: Rig) -> None:
    for resource, value, site_s in (
        ("Setpoint", "21", 5.0),
        ("Setpoint", "warm", 6.0),
        ("Gone", "1", 7.0),
        ("Setpoint", "22", 8.0),
    ):
        rig.ledger.went_out("valve", resource, "air", value, site_s)
    rig.ledger.went_out("gone", "Setpoint", "air", "1", 9.0)
    rig.picture.load(rig.ledger, rig.devices, 5.5)
    assert {key: list(past) for key, past in rig.picture.view.sets.items()} == {KEY: [PastSet("air", 22.0, 8.0)]}


def test_a_set_that_was_refused_is_taken_back(rig: Rig) -> None:
    first, second = PastSet("air", 21.0, 5.0), PastSet("air", 22.0, 6.0)
    for past in (first, second):
        rig.picture.went_out(KEY, past)
    rig.picture.took_back(KEY, first)
    rig.picture.took_back(KEY, first)
    assert list(rig.picture.view.sets[KEY]) == [second]


def test_as_many_sets_are_kept_as_the_owners_rates_count() -> None:
    picture = LivePicture(SiteTime(), kept_sets=3)
    for number in range(5):
        picture.went_out(KEY, PastSet("air", float(number), float(number)))
    assert [past.value for past in picture.view.sets[KEY]] == [2.0, 3.0, 4.0]
