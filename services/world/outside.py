"""What the house cannot change: weather, sun, the price of electricity, where people are, which windows they open.

Everything here is a pure function of a seed and the site time, so a run can stop anywhere and go on the same.
Days and hours are those of the site's own clock; its offset from UTC is left out on purpose.

Source: Kasten and Czeplak 1980 for irradiance under clouds; Cooper 1969 for the sun's declination.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

ROOMS: Final = ("living", "bedroom", "kitchen", "office")
PEOPLE: Final = ("ada", "ben")
LATITUDE_DEGREES: Final = 48.0
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
_AWAY: Final = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """The surroundings at one moment; tuples are in the order of `ROOMS`."""

    site_s: float
    outdoor_c: float
    irradiance_w_m2: float
    price: float
    next_price: float
    people: tuple[int, ...]
    windows_open: tuple[bool, ...]
    household_w: float


def scene(seed: int, site_s: float) -> Scene:
    """Return the surroundings at a site time."""
    people = people_in_rooms(seed, site_s)
    return Scene(
        site_s=site_s,
        outdoor_c=outdoor_c(seed, site_s),
        irradiance_w_m2=irradiance_w_m2(seed, site_s),
        price=price(seed, site_s),
        next_price=price(seed, site_s + HOUR_S),
        people=people,
        windows_open=tuple(is_window_open(seed, room, site_s) for room in ROOMS),
        household_w=household_w(seed, site_s, people),
    )


@lru_cache(maxsize=16_384)
def chance(seed: int, *key: int | str) -> float:
    """Return a number from 0 up to 1 that depends on nothing but its arguments."""
    digest = hashlib.blake2b(repr((seed, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def noise(seed: int, name: str, site_s: float, period_s: float) -> float:
    """Return smooth noise from -1 to 1 that forgets itself after about `period_s`."""
    knot, rest = divmod(site_s / period_s, 1.0)
    ease = rest * rest * (3.0 - 2.0 * rest)
    left, right = chance(seed, name, int(knot)), chance(seed, name, int(knot) + 1)
    return 2.0 * (left + ease * (right - left)) - 1.0


def hour_of_day(site_s: float) -> float:
    """Return the hour, from 0 up to 24, with its fraction."""
    return (site_s % DAY_S) / HOUR_S


def is_weekend(site_s: float) -> bool:
    """Say whether it is Saturday or Sunday (the epoch began on a Thursday)."""
    return (int(site_s // DAY_S) + 3) % 7 >= 5


def _season(site_s: float) -> float:
    """Return 0 in the cold of late January, 1 in late July."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * ((site_s / DAY_S) % 365.25 - 24) / 365.25)


def outdoor_c(seed: int, site_s: float) -> float:
    """Return the outdoor temperature: season, time of day, weather fronts of days, gusts of hours."""
    season = _season(site_s)
    daily = (2.0 + 3.5 * season) * math.cos(2 * math.pi * (hour_of_day(site_s) - 15.0) / 24.0)
    fronts = 4.5 * noise(seed, "front", site_s, 2.5 * DAY_S)
    return 0.5 + 18.5 * season + daily + fronts + 0.6 * noise(seed, "gust", site_s, 2 * HOUR_S)


def cloud_cover(seed: int, site_s: float) -> float:
    """Return the share of the sky that is covered, 0 to 1."""
    return min(1.0, max(0.0, 0.55 + 0.65 * noise(seed, "cloud", site_s, 5 * HOUR_S)))


def irradiance_w_m2(seed: int, site_s: float) -> float:
    """Return the global horizontal irradiance."""
    day = (site_s / DAY_S) % 365.25
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day) / 365.25)
    latitude, hour_angle = math.radians(LATITUDE_DEGREES), math.radians(15 * (hour_of_day(site_s) - 12))
    height = math.sin(latitude) * math.sin(declination)
    height += math.cos(latitude) * math.cos(declination) * math.cos(hour_angle)
    clear_sky = max(0.0, 910.0 * height - 30.0)
    covered: float = cloud_cover(seed, site_s) ** 3.4
    return clear_sky * (1.0 - 0.75 * covered)


def price(seed: int, site_s: float) -> float:
    """Return the price of a kWh in euro, constant within an hour: morning and evening peaks, cheap at midday."""
    start = math.floor(site_s / HOUR_S) * HOUR_S
    hour = hour_of_day(start)
    peaks = 0.09 * math.exp(-(((hour - 8) / 2.0) ** 2)) + 0.13 * math.exp(-(((hour - 19) / 2.2) ** 2))
    midday = 0.10 * _season(start) * math.exp(-(((hour - 13) / 2.8) ** 2))
    surprise = 0.04 * (2 * chance(seed, "price", int(start // HOUR_S)) - 1)
    return round(max(0.05, 0.24 + peaks - midday + surprise), 4)


def people_in_rooms(seed: int, site_s: float) -> tuple[int, ...]:
    """Return how many people are in each room."""
    places = [place(seed, person, site_s) for person in PEOPLE]
    return tuple(places.count(room) for room in ROOMS)


def place(seed: int, person: str, site_s: float) -> str:
    """Return the room a person is in, empty when out or in a corridor."""
    hour = hour_of_day(site_s)
    found = "bedroom"
    for start, room in _day_plan(seed, person, int(site_s // DAY_S), is_weekend(site_s)):
        if hour < start:
            break
        found = room
    return found


@lru_cache(maxsize=64)
def _day_plan(seed: int, person: str, day: int, weekend: bool) -> tuple[tuple[float, str], ...]:
    """Return (hour, room) in order: from when a person is where."""

    def about(hour: float, spread: float, what: str) -> float:
        return hour + spread * (2 * chance(seed, person, day, what) - 1)

    if weekend:
        afternoon = _AWAY if chance(seed, person, day, "trip") < 0.6 else "living"
        plan = [
            (about(8.2, 0.5, "wake"), "kitchen"), (about(9.7, 0.4, "morning"), "living"),
            (about(12.4, 0.2, "lunch"), "kitchen"), (about(13.6, 0.3, "trip at"), afternoon),
            (about(16.8, 0.6, "back"), "living"), (about(18.4, 0.3, "dinner"), "kitchen"),
            (about(19.5, 0.2, "evening"), "living"), (about(23.2, 0.4, "bed"), "bedroom"),
        ]  # fmt: skip
    elif person == "ben" and chance(seed, person, day, "home office") < 0.6:
        plan = [
            (about(6.8, 0.3, "wake"), "kitchen"), (about(8.3, 0.3, "work"), "office"),
            (about(12.3, 0.3, "lunch"), "kitchen"), (about(13.1, 0.2, "work again"), "office"),
            (about(17.3, 0.4, "rest"), "living"), (about(18.4, 0.3, "dinner"), "kitchen"),
            (about(19.4, 0.2, "evening"), "living"), (about(22.6, 0.4, "bed"), "bedroom"),
        ]  # fmt: skip
    else:
        plan = [
            (about(6.4, 0.3, "wake"), "kitchen"), (about(7.6, 0.3, "leave"), _AWAY),
            (about(17.4, 0.6, "back"), "living"), (about(18.5, 0.2, "dinner"), "kitchen"),
            (about(19.4, 0.2, "evening"), "living"), (about(22.5, 0.4, "bed"), "bedroom"),
        ]  # fmt: skip
    return tuple(plan)


def is_window_open(seed: int, room: str, site_s: float) -> bool:
    """Say whether somebody at home is airing this room now: by day, a few minutes every few hours."""
    block = int(site_s // (2 * HOUR_S))
    if chance(seed, "airing", room, block) > 0.35:
        return False
    start = block * 2 * HOUR_S + 0.8 * 2 * HOUR_S * chance(seed, "airing at", room, block)
    cold = outdoor_c(seed, start) < 8.0
    lasts_s = (300.0 if cold else 900.0) * (1.0 + chance(seed, "airing for", room, block))
    awake = 6.5 <= hour_of_day(start) <= 22.0
    return awake and start <= site_s < start + lasts_s and any(place(seed, person, start) for person in PEOPLE)


def household_w(seed: int, site_s: float, people: tuple[int, ...]) -> float:
    """Return the electric power of what nobody here controls: fridge, stand-by, cooking, laptops."""
    fridge = 110.0 if chance(seed, "fridge", int(site_s // 900)) < 0.4 else 5.0
    hour = hour_of_day(site_s)
    cooks = people[ROOMS.index("kitchen")] > 0 and (11.8 <= hour < 13.0 or 18.0 <= hour < 19.3)
    return 90.0 + fridge + 45.0 * sum(people) + (1300.0 if cooks else 0.0)
