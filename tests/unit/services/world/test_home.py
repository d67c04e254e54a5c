"""The house as physics: what cools it, what warms it, what it costs; and that steps do not depend on who asks."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.world.home import HOUSE, STEP_S, Controls, Home, advance, change, discomfort_degrees, step
from services.world.outside import ROOMS, Scene
from tests.unit.services.world.test_outside import at

WINTER = at("2026-01-20T00:00:00")


def quiet(**changes: Any) -> Scene:
    """Return a still winter night without people."""
    fields: dict[str, Any] = {
        "site_s": WINTER, "outdoor_c": 0.0, "irradiance_w_m2": 0.0, "price": 0.3, "next_price": 0.3,
        "people": (0, 0, 0, 0), "windows_open": (False,) * 4, "household_w": 0.0,
    }  # fmt: skip
    return Scene(**(fields | changes))


def run(home: Home, around: Scene, hours: float, dt_s: float = STEP_S) -> Home:
    for _ in range(int(hours * 3600 / dt_s)):
        home = step(home, around, dt_s)
    return home


def controlled(**changes: Any) -> Home:
    return Home(site_s=WINTER, controls=Controls(**changes))


def test_a_house_without_heating_cools_towards_the_outside_and_not_below() -> None:
    off = controlled(heat_pump_on=False, ventilation_level=0)
    evening = run(off, quiet(), 12)
    assert all(0 < later < before for later, before in zip(evening.air_c, off.air_c, strict=True))
    assert evening.heat_pump_w == 0
    weeks = run(off, quiet(), 24 * 40, 60.0)
    assert weeks.air_c == pytest.approx((0.0,) * 4, abs=0.2)


def test_the_loss_in_equilibrium_is_the_houses_conductance() -> None:
    warm = run(controlled(setpoints_c=(21.0,) * 4, flow_setpoint_c=45.0, ventilation_level=0), quiet(), 24 * 12, 30.0)
    loss_w = sum(room.loss_w_k * air for room, air in zip(HOUSE, warm.air_c, strict=True))
    assert sum(room.loss_w_k for room in HOUSE) == pytest.approx(150, abs=1)
    assert sum(warm.radiator_w) == pytest.approx(loss_w, rel=0.05)


def test_a_thermostat_brings_its_room_near_the_setpoint_and_closes_above_it() -> None:
    home = run(controlled(setpoints_c=(22.0, 16.0, 22.0, 22.0), flow_setpoint_c=45.0), quiet(), 48)
    assert home.air_c[0] == pytest.approx(22, abs=0.8)
    assert home.air_c[1] < 18
    assert all(0 <= opening <= 100 for opening in home.opening_percent)
    shut = run(replace(home, controls=change(home.controls, "setpoints_c", 19.0, "living")), quiet(), 0.25)
    assert shut.opening_percent[0] < 1


def test_the_same_heat_costs_more_from_hotter_water_and_in_colder_weather() -> None:
    cool = run(controlled(flow_setpoint_c=35.0), quiet(outdoor_c=7.0), 3)
    hot = run(controlled(flow_setpoint_c=55.0), quiet(outdoor_c=7.0), 3)
    cold = run(controlled(flow_setpoint_c=35.0), quiet(outdoor_c=-10.0), 3)
    assert 3.2 < cool.cop < 5.5
    assert hot.cop < cool.cop
    assert cold.cop < cool.cop


def test_the_heat_pump_never_gives_more_than_it_can() -> None:
    home = controlled(setpoints_c=(28.0,) * 4, flow_setpoint_c=55.0)
    for _ in range(1000):
        home = step(home, quiet(outdoor_c=-15.0), STEP_S)
        assert home.heat_pump_w * max(home.cop, 1.0) <= 6000 * 1.25 + 200
        assert home.flow_c < 56


def test_an_open_window_cools_and_airs_its_own_room_most() -> None:
    start = controlled(ventilation_level=0)
    shut = run(start, quiet(people=(0, 2, 0, 0)), 1)
    aired = run(start, quiet(people=(0, 2, 0, 0), windows_open=(False, True, False, False)), 1)
    assert aired.air_c[1] < shut.air_c[1] - 0.5
    assert aired.air_c[1] - shut.air_c[1] < aired.air_c[0] - shut.air_c[0]
    assert aired.co2_ppm[1] < shut.co2_ppm[1] - 200


def test_people_use_up_the_air_and_ventilation_renews_it_at_a_price() -> None:
    asleep = quiet(people=(0, 2, 0, 0))
    levels = [run(controlled(ventilation_level=level), asleep, 8) for level in range(4)]
    ppm = [home.co2_ppm[1] for home in levels]
    assert ppm == sorted(ppm, reverse=True)
    assert ppm[0] > 1800
    assert ppm[3] < 1000
    assert levels[3].meter_w > levels[1].meter_w
    assert all(420 <= value < 5300 for home in levels for value in home.co2_ppm)


def test_the_sun_warms_and_blinds_keep_it_out() -> None:
    noon = quiet(irradiance_w_m2=700.0, outdoor_c=22.0)
    off: dict[str, Any] = {"heat_pump_on": False}
    open_blinds = run(controlled(**off), noon, 4)
    closed = run(controlled(**off, blinds_percent=(100,) * 4), noon, 4)
    assert open_blinds.air_c[0] > closed.air_c[0] + 1
    assert open_blinds.meter_w < 0  # the panels feed in
    assert open_blinds.pv_w > 2000


def test_light_costs_its_power_and_dims() -> None:
    base = step(controlled(), quiet(), STEP_S).meter_w
    full = step(controlled(lights_on=(True, False, False, False)), quiet(), STEP_S).meter_w
    half = step(
        controlled(lights_on=(True, False, False, False), brightness_percent=(50, 100, 100, 100)), quiet(), STEP_S
    ).meter_w
    assert full - base == pytest.approx(60)
    assert half - base == pytest.approx(30)


def test_only_occupied_rooms_count_as_uncomfortable() -> None:
    air = (18.0, 18.0, 27.0, 22.0)
    assert discomfort_degrees(air, (0, 0, 0, 0)) == 0
    assert discomfort_degrees(air, (1, 0, 0, 2)) == 2.0
    assert discomfort_degrees(air, (2, 0, 1, 0)) == pytest.approx(3.5)


def test_the_score_adds_up_energy_cost_and_discomfort() -> None:
    home = controlled(heat_pump_on=False, ventilation_level=3)
    later = run(home, quiet(people=(1, 0, 0, 0)), 1)
    assert later.score.energy_kwh == pytest.approx(0.085, rel=0.01)
    assert later.score.cost == pytest.approx(0.085 * 0.3, rel=0.01)
    assert 0.7 < later.score.comfort_violation_degree_hours < 2.5
    assert later.imported_kwh == pytest.approx(0.085, rel=0.01)


def test_the_same_seed_gives_the_same_house_however_often_it_is_advanced() -> None:
    start = Home(site_s=WINTER)
    at_once = advance(start, 7, WINTER + 7200, 10_000)
    in_parts = start
    for second in range(7, 7208, 7):
        in_parts = advance(in_parts, 7, min(WINTER + second, WINTER + 7200), 3)
    assert in_parts == at_once
    assert at_once.site_s == WINTER + 7200
    assert advance(start, 8, WINTER + 7200, 10_000) != at_once


def test_advance_does_whole_steps_and_no_more_than_it_may() -> None:
    start = Home(site_s=WINTER)
    assert advance(start, 1, WINTER + 9.9, 100) is start
    assert advance(start, 1, WINTER - 500, 100) is start
    assert advance(start, 1, WINTER + 1000, 3).site_s == WINTER + 30


@given(
    outdoor=st.floats(-25, 40), sun=st.floats(0, 1000), level=st.integers(0, 3), flow=st.floats(25, 55),
    setpoints=st.tuples(*[st.floats(5, 28)] * 4), blinds=st.tuples(*[st.integers(0, 100)] * 4),
    windows=st.tuples(*[st.booleans()] * 4), people=st.tuples(*[st.integers(0, 2)] * 4), enabled=st.booleans(),
)  # fmt: skip
def test_no_command_and_no_weather_makes_the_house_absurd(
    outdoor: float, sun: float, level: int, flow: float, setpoints: Any, blinds: Any, windows: Any, people: Any,
    enabled: bool,
) -> None:  # fmt: skip
    controls = Controls(
        setpoints_c=setpoints, heat_pump_on=enabled, flow_setpoint_c=flow, ventilation_level=level,
        blinds_percent=blinds,
    )  # fmt: skip
    around = quiet(outdoor_c=outdoor, irradiance_w_m2=sun, people=people, windows_open=windows)
    home = run(Home(site_s=WINTER, controls=controls), around, 3)
    assert all(-30 < air < 60 for air in (*home.air_c, *home.mass_c))
    assert all(400 <= ppm < 5000 for ppm in home.co2_ppm)
    assert 0 <= home.heat_pump_w < 4500
    assert home.score.energy_kwh >= 0


def test_change_replaces_one_control_and_keeps_its_type() -> None:
    before = Controls()
    after = change(before, "setpoints_c", 21, "kitchen")
    assert after.setpoints_c == (20.0, 18.0, 21.0, 19.0)
    assert isinstance(after.setpoints_c[2], float)
    assert replace(after, setpoints_c=before.setpoints_c) == before
    assert change(before, "heat_pump_on", False).heat_pump_on is False
    assert ROOMS.index("kitchen") == 2


@pytest.mark.parametrize(("point", "room"), [("nothing", ""), ("setpoints_c", "attic"), ("setpoints_c", "")])
def test_a_control_that_is_not_there_is_refused(point: str, room: str) -> None:
    with pytest.raises(KeyError):
        change(Controls(), point, 1, room)
