"""One day of each controller as lines of small blocks, for a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.bench.home_run import Controller, Minute, lead_in, run
from tests.bench.home_schedule import Schedule, ScheduleController

BLOCKS: Final = "▁▂▃▄▅▆▇█"
COLUMNS: Final = 96  # a quarter of an hour each
LINES: Final[Mapping[str, tuple[Callable[[Minute], float], float, float]]] = {
    "price, EUR/kWh": (lambda item: item.around.price, 0.15, 0.45),
    "outdoors, °C": (lambda item: item.around.outdoor_c, -10.0, 30.0),
    "people at home": (lambda item: float(sum(item.around.people)), 0.0, 2.0),
    "coldest used room, °C": (
        lambda item: min(
            (air for air, here in zip(item.home.air_c, item.around.people, strict=True) if here), default=20.0
        ),
        19.0,
        22.0,
    ),
    "water, °C": (lambda item: item.home.flow_c, 25.0, 50.0),
    "heat pump, W": (lambda item: item.home.heat_pump_w, 0.0, 2500.0),
    "ventilation": (lambda item: float(item.home.controls.ventilation_level), 0.0, 3.0),
}


def chart(
    seed: int, season: str, controllers: Mapping[str, Callable[[int, str, Schedule], Controller]], schedule: Schedule
) -> str:
    """Return the first day of a season under each controller, one line a quantity, a quarter of an hour a column."""
    history = lead_in(seed, season, 2, ScheduleController(schedule))
    texts = [f"{season}, seed {seed}, Monday 0 to 24 o'clock"]
    for name, make in controllers.items():
        minutes: list[Minute] = []
        run(seed, season, 1, history, make(seed, season, schedule), minutes.append)
        texts.append(name)
        texts += [
            f"  {heading:22} {line([of(item) for item in minutes], low, high)} {low:g} to {high:g}"
            for heading, (of, low, high) in LINES.items()
        ]
    return "\n".join(texts)


def line(values: Sequence[float], low: float, high: float) -> str:
    """Return values as `COLUMNS` blocks, each the mean of its share, from `low` to `high`."""
    size = max(1, len(values) // COLUMNS)
    means = [sum(values[start : start + size]) / size for start in range(0, size * (len(values) // size), size)]
    return "".join(BLOCKS[min(7, max(0, int((mean - low) / (high - low) * 8.0)))] for mean in means)
