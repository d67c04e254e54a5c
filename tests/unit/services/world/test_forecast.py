"""Forecasts: exact where a market says so, off by more the farther ahead where the weather is concerned."""

import statistics

import pytest

from services.world.forecast import (
    POINTS,
    irradiance_forecast_w_m2,
    known_until_s,
    mean_price_ahead,
    outdoor_error_c,
    outdoor_forecast_c,
    price_ahead,
)
from services.world.outside import DAY_S, HOUR_S, irradiance_w_m2, outdoor_c, price

MONDAY_S = 20465 * DAY_S


def errors(hours: int) -> list[float]:
    """Return the forecast's errors over a year."""
    times = [MONDAY_S + index * 7 * HOUR_S for index in range(1250)]
    return [outdoor_forecast_c(3, at, hours) - outdoor_c(3, at + hours * HOUR_S) for at in times]


def test_a_temperature_forecast_is_fair_and_worse_the_farther_ahead() -> None:
    spreads = []
    for hours in (3, 6, 12):
        off = errors(hours)
        assert abs(statistics.fmean(off)) < 0.1
        assert statistics.pstdev(off) == pytest.approx(outdoor_error_c(hours), rel=0.12)
        spreads.append(statistics.pstdev(off))

    assert spreads == sorted(spreads)


def test_a_forecast_stays_until_the_next_issue() -> None:
    one, other = MONDAY_S + 10.0, MONDAY_S + 3500.0
    off = [outdoor_forecast_c(1, at, 6) - outdoor_c(1, at + 6 * HOUR_S) for at in (one, other)]

    assert off[0] == pytest.approx(off[1], abs=0.11)  # both rounded to a tenth


def test_there_is_no_sun_at_night_in_any_forecast() -> None:
    assert irradiance_forecast_w_m2(1, MONDAY_S + 21 * HOUR_S, 3) == 0.0
    assert irradiance_forecast_w_m2(1, MONDAY_S + 9 * HOUR_S, 3) > 0.0
    assert irradiance_w_m2(1, MONDAY_S + 12 * HOUR_S) > 0.0


@pytest.mark.parametrize(("hour", "days"), [(0.0, 1), (12.99, 1), (13.0, 2), (23.5, 2)])
def test_prices_of_tomorrow_are_known_from_one_in_the_afternoon(hour: float, days: int) -> None:
    assert known_until_s(MONDAY_S + hour * HOUR_S) == MONDAY_S + days * DAY_S


def test_prices_ahead_are_those_that_will_be_paid() -> None:
    noon_s = MONDAY_S + 12 * HOUR_S

    assert price_ahead(5, noon_s, 3) == price(5, noon_s + 3 * HOUR_S)
    # Not traded yet: the last hour known stands in.
    assert price_ahead(5, MONDAY_S + 22 * HOUR_S, 4) == price(5, MONDAY_S + 26 * HOUR_S)
    assert price_ahead(5, MONDAY_S + 12 * HOUR_S, 14) == price(5, MONDAY_S + 23 * HOUR_S)


def test_the_mean_price_is_that_of_the_hours_known() -> None:
    evening_s = MONDAY_S + 10 * HOUR_S
    known = [price(5, evening_s + hour * HOUR_S) for hour in range(12)]

    assert mean_price_ahead(5, evening_s + 1234.0) == round(statistics.fmean(known), 4)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_a_forecast_depends_on_nothing_but_seed_and_time(name: str) -> None:
    at = MONDAY_S + 15.3 * HOUR_S

    assert POINTS[name](1, at) == POINTS[name](1, at)
