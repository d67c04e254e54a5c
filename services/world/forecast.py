"""What services outside the house foretell: weather some hours ahead, and the day-ahead prices of electricity.

A forecast is issued each hour. Its error grows with the horizon and fades slowly from issue to issue, as those of
weather services do: about 0.5 K one hour ahead and 1.3 K half a day ahead (standard deviation), clouds likewise.
Prices are those of the auction: exact, but only known for the hours that were traded; those of the next day are out
at 13 o'clock.

Source: verification scores that weather services publish for 2 m temperature; EPEX day-ahead auction.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from services.world.outside import DAY_S, HOUR_S, irradiance_w_m2, noise, outdoor_c, price

AUCTION_HOUR: Final = 13
HORIZONS_H: Final = (3, 6, 12)
PRICE_HORIZONS_H: Final = (2, 3, 4)
MEAN_H: Final = 12
_ERROR_MEMORY_S: Final = 8 * HOUR_S
_TO_UNIT: Final = 2.0  # our noise has a standard deviation of 0.5


def outdoor_error_c(hours: float) -> float:
    """Return the standard deviation of a temperature forecast, in kelvin, so many hours ahead."""
    return 0.4 + 0.075 * hours


def outdoor_forecast_c(seed: int, site_s: float, hours: int) -> float:
    """Return what the weather service said last for the outdoor temperature `hours` from now, in degrees Celsius."""
    issued_s = math.floor(site_s / HOUR_S) * HOUR_S
    off = _TO_UNIT * noise(seed, "outdoor forecast", issued_s, _ERROR_MEMORY_S)
    return round(outdoor_c(seed, site_s + hours * HOUR_S) + outdoor_error_c(hours) * off, 1)


def irradiance_forecast_w_m2(seed: int, site_s: float, hours: int) -> float:
    """Return what the weather service said last for the sun on a level surface `hours` from now, in W/m²."""
    issued_s = math.floor(site_s / HOUR_S) * HOUR_S
    off = _TO_UNIT * noise(seed, "cloud forecast", issued_s, _ERROR_MEMORY_S)
    share = min(1.6, max(0.2, 1.0 + (0.10 + 0.02 * hours) * off))
    return round(irradiance_w_m2(seed, site_s + hours * HOUR_S) * share, 0)


def known_until_s(site_s: float) -> float:
    """Return until when prices are known: the end of today, from 13 o'clock on the end of tomorrow."""
    day = math.floor(site_s / DAY_S)
    is_out = site_s - day * DAY_S >= AUCTION_HOUR * HOUR_S
    return (day + 1 + is_out) * DAY_S


def price_ahead(seed: int, site_s: float, hours: int) -> float:
    """Return the price in euro a kWh `hours` from now; that of the last hour known when it is not traded yet."""
    return price(seed, min(site_s + hours * HOUR_S, known_until_s(site_s) - 1.0))


def mean_price_ahead(seed: int, site_s: float) -> float:
    """Return the mean price in euro a kWh of this hour and those that follow, `MEAN_H` at most, as far as known."""
    start_s = math.floor(site_s / HOUR_S) * HOUR_S
    hours = min(MEAN_H, int((known_until_s(site_s) - start_s) // HOUR_S))
    return round(math.fsum(price(seed, start_s + hour * HOUR_S) for hour in range(hours)) / hours, 4)


POINTS: Final[Mapping[str, Callable[[int, float], float]]] = {
    **{f"outdoor-in-{hours}h": partial(outdoor_forecast_c, hours=hours) for hours in HORIZONS_H},
    **{f"irradiance-in-{hours}h": partial(irradiance_forecast_w_m2, hours=hours) for hours in HORIZONS_H},
    **{f"price-in-{hours}h": partial(price_ahead, hours=hours) for hours in PRICE_HORIZONS_H},
    "price-mean-12h": mean_price_ahead,
}  # each by the name of its point: seed and site time -> value
