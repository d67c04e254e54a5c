"""The house in site time: the clock, catching up, commands and state that outlive a crash."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagents.errors import ConfigurationError, StoreError
from edgeagents.settings import SiteTime
from services.world.home import STEP_S, Home
from services.world.simulation import Simulation, decode, encode, read_file, write_file
from tests.unit.services.world.test_outside import at

START = at("2026-01-20T06:00:00")


class Wall:
    """A wall clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def simulation(path: Path | None, wall: Wall, factor: float = 60.0, seed: int = 7) -> Simulation:
    return Simulation(seed, SiteTime(START, 1_000.0, factor), path, now=wall)


def test_the_house_follows_site_time() -> None:
    wall = Wall()
    home = simulation(None, wall)
    assert home.home.site_s == START
    wall.now_s += 10
    home.tick(60.0)
    assert home.home.site_s == START + 600
    assert home.lag_s == 0
    assert home.around.site_s == home.home.site_s


def test_after_a_stall_it_catches_up_in_small_portions() -> None:
    wall = Wall()
    home = simulation(None, wall)
    wall.now_s += 3600  # two and a half days of site time
    home.tick(budget_s=0.0)
    assert 0 < home.home.site_s - START <= 500
    ticks = 1
    while home.lag_s >= STEP_S:
        home.tick(budget_s=0.005)
        ticks += 1
    assert ticks > 10
    assert home.home.site_s == START + 216_000


async def test_a_command_is_stored_before_it_is_answered(tmp_path: Path) -> None:
    wall = Wall()
    home = simulation(tmp_path / "home.json", wall)
    await home.command([("setpoints_c", 21.5, "living"), ("ventilation_level", 2, "")])
    # As after kill -9: nothing but the file.
    again = simulation(tmp_path / "home.json", wall)
    assert again.home.controls.setpoints_c[0] == 21.5
    assert again.home.controls.ventilation_level == 2


async def test_the_house_goes_on_from_its_stored_state(tmp_path: Path) -> None:
    wall = Wall()
    first = simulation(tmp_path / "home.json", wall)
    wall.now_s += 30
    first.tick(60.0)
    await first.save()
    wall.now_s += 5
    second = simulation(tmp_path / "home.json", wall)
    assert second.home == first.home
    second.tick(60.0)
    undisturbed = simulation(None, Wall())
    undisturbed._now = wall
    undisturbed.tick(60.0)
    assert second.home == undisturbed.home


@pytest.mark.parametrize("off_s", [-3600.0, 30 * 86_400.0])
async def test_a_state_of_another_time_is_taken_over_at_the_present(
    tmp_path: Path, off_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    stored = replace(Home(site_s=START - off_s), air_c=(10.0, 11.0, 12.0, 13.0))
    write_file(tmp_path / "home.json", encode(stored, 7))
    home = simulation(tmp_path / "home.json", Wall())
    assert home.home.site_s == START
    assert home.home.air_c == (10.0, 11.0, 12.0, 13.0)
    assert "of another time" in caplog.text


async def test_a_command_that_cannot_be_stored_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    wall = Wall()
    home = Simulation(7, SiteTime(START, 1_000.0, 60.0), None, now=wall)
    home._path = tmp_path / "blocked" / "home.json"
    before = home.home.controls
    with pytest.raises(StoreError, match="is the disk full"):
        await home.command([("heat_pump_on", False, "")])
    assert home.home.controls == before


async def test_commands_at_once_are_all_kept(tmp_path: Path) -> None:
    home = simulation(tmp_path / "home.json", Wall())
    rooms = ("living", "bedroom", "kitchen", "office")
    await asyncio.gather(*(home.command([("setpoints_c", 21 + i, room)]) for i, room in enumerate(rooms)))
    assert simulation(tmp_path / "home.json", Wall()).home.controls.setpoints_c == (21.0, 22.0, 23.0, 24.0)


async def test_while_it_runs_the_state_is_stored_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.world.simulation.SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("services.world.simulation.TICK_S", 0.001)
    wall, path = Wall(), tmp_path / "home.json"
    home = simulation(path, wall)
    running = asyncio.create_task(home.run())
    wall.now_s += 10
    async with asyncio.timeout(5):
        while (stored := read_file(path, 7)) is None or stored.site_s < START + 600:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_full_disk_is_told_once_and_the_house_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("services.world.simulation.SAVE_EVERY_S", 0.0)
    monkeypatch.setattr("services.world.simulation.TICK_S", 0.001)
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    wall = Wall()
    home = Simulation(7, SiteTime(START, 1_000.0, 60.0), None, now=wall)
    home._path = tmp_path / "blocked" / "home.json"
    running = asyncio.create_task(home.run())
    async with asyncio.timeout(5):
        while home.home.site_s < START + 3000:
            wall.now_s += 1
            await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert caplog.text.count("would not survive a crash") == 1


def test_encoded_houses_come_back() -> None:
    home = Home(site_s=START, flow_c=33.25)
    assert decode(encode(home, 3), 3) == home


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no house"),
        (b"[]", "no house"),
        (b'{"version": 1, "seed": 7, "home": {"site_s": 1}}', "no house"),
        (b'{"version": 1, "seed": 7, "home": {"controls": {}, "score": {}, "what": 1}}', "no house"),
        (b'{"version": 99}', "version 99 instead of 1"),
        (encode(Home(site_s=1.0), 8), "a house of seed 8 instead of 7"),
    ],
)
def test_a_file_that_holds_no_house_of_ours_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "home.json"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_file(path, 7)
    assert str(path) in str(caught.value)
    assert "remove it to begin a new house" in str(caught.value)


@pytest.mark.parametrize(("back_s", "is_rebased"), [(3600.0, True), (0.5, False)])
async def test_a_clock_set_back_does_not_make_the_house_stand_still(
    tmp_path: Path, back_s: float, is_rebased: bool
) -> None:
    wall = Wall()
    house = simulation(tmp_path / "home.json", wall)
    wall.now_s += 30
    house.tick(60.0)
    before_s = house.home.site_s
    wall.now_s -= back_s
    house.tick(60.0)
    assert (house.home.site_s < before_s) is is_rebased
    wall.now_s += 30
    house.tick(60.0)
    assert house.lag_s < 10.0
