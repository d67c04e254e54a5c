"""Weather, people and prices: the same seed gives the same days, and the days are plausible."""

from datetime import UTC, datetime

import pytest

from services.world.outside import (
    HOUR_S,
    ROOMS,
    chance,
    hour_of_day,
    irradiance_w_m2,
    is_weekend,
    outdoor_c,
    people_in_rooms,
    price,
    scene,
)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def hours(start: str, days: int) -> list[float]:
    return [at(start) + HOUR_S * hour for hour in range(24 * days)]


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    moments = hours("2026-01-20", 3)
    assert [scene(7, moment) for moment in moments] == [scene(7, moment) for moment in moments]
    assert [scene(7, moment) for moment in moments] != [scene(8, moment) for moment in moments]


def test_chance_is_spread_from_0_to_1() -> None:
    drawn = [chance(1, "x", number) for number in range(2000)]
    assert 0 <= min(drawn) < 0.01 < 0.99 < max(drawn) < 1
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.03)


def test_days_of_the_week_and_hours_are_those_of_the_calendar() -> None:
    assert not is_weekend(at("2026-01-23T23:59:00"))  # a Friday
    assert is_weekend(at("2026-01-24T00:00:00"))
    assert is_weekend(at("2026-01-25T23:59:00"))
    assert not is_weekend(at("2026-01-26T00:00:00"))
    assert hour_of_day(at("2026-01-26T18:30:00")) == 18.5


@pytest.mark.parametrize("seed", range(5))
def test_winter_is_cold_and_summer_warm(seed: int) -> None:
    winter = [outdoor_c(seed, moment) for moment in hours("2026-01-10", 20)]
    summer = [outdoor_c(seed, moment) for moment in hours("2026-07-10", 20)]
    assert -6 < sum(winter) / len(winter) < 7
    assert 14 < sum(summer) / len(summer) < 24
    assert min(winter) > -20
    assert max(summer) < 40


def test_the_sun_shines_by_day_alone_and_longer_in_summer() -> None:
    winter = [irradiance_w_m2(3, moment) for moment in hours("2026-01-10", 10)]
    summer = [irradiance_w_m2(3, moment) for moment in hours("2026-06-20", 10)]
    assert all(irradiance_w_m2(3, at(f"2026-06-2{day}T00:30:00")) == 0 for day in range(10))
    assert sum(value > 0 for value in winter) < sum(value > 0 for value in summer)
    assert max(summer) < 1000
    assert sum(summer) > 3 * sum(winter)


def test_the_price_holds_for_an_hour_and_is_highest_in_the_evening() -> None:
    start = at("2026-01-20T10:00:00")
    assert price(1, start) == price(1, start + 3599.9)
    assert scene(1, start).next_price == price(1, start + HOUR_S)
    by_hour = [sum(price(seed, at(f"2026-01-20T{hour:02}:00:00")) for seed in range(50)) / 50 for hour in range(24)]
    assert by_hour.index(max(by_hour)) in (18, 19, 20)
    assert 0.05 <= min(by_hour) < max(by_hour) < 0.6


def test_people_sleep_at_night_and_are_out_on_workdays() -> None:
    days = range(5, 26)
    night = [sum(people_in_rooms(1, at(f"2026-01-{day:02}T03:00:00"))) for day in days]
    bedroom = [people_in_rooms(1, at(f"2026-01-{day:02}T03:00:00"))[ROOMS.index("bedroom")] for day in days]
    noon = [
        sum(people_in_rooms(1, at(f"2026-01-{day:02}T10:00:00")))
        for day in days
        if not is_weekend(at(f"2026-01-{day:02}T10:00:00"))
    ]
    assert night == bedroom == [2] * len(days)
    assert max(noon) <= 1
    assert sum(people_in_rooms(1, at("2026-01-20T21:00:00"))) == 2


def test_windows_are_opened_by_day_for_minutes_while_somebody_is_at_home() -> None:
    minutes = [at("2026-01-19") + 60 * minute for minute in range(7 * 24 * 60)]
    moments = [scene(2, moment) for moment in minutes]
    opened = [moment for moment in moments if any(moment.windows_open)]
    assert 0.01 < len(opened) / len(moments) < 0.3
    assert all(6 < hour_of_day(moment.site_s) < 23 for moment in opened)
