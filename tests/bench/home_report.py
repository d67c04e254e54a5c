"""From results to figures: means over seeds, paired differences to the schedule with their 95 % interval, goals."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from tests.bench.home_run import Result

COST_GOAL_PERCENT: Final = 15.0
BASELINE: Final = "schedule"
HEADINGS: Final = {
    "discomfort_k_h": "discomfort, K h",
    "energy_kwh": "electricity, kWh",
    "cost_eur": "cost, EUR",
    "switches": "commands",
    "stale_air_ppm_h": "air above 1000 ppm, ppm h",
    "walls_kwh": "heat left in walls, kWh",
}
# Student's t, two-sided 95 %, by degrees of freedom.
_T: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
    2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Paired:
    """A mean over seeds, and the mean difference to the schedule in the same houses.

    `half_width` is half the width of the difference's 95 % interval; None with one seed, which has none.
    """

    mean: float
    difference: float
    half_width: float | None


def compare(cases: Sequence[Mapping[str, Result]]) -> dict[str, dict[str, Paired]]:
    """Return for each controller and figure the mean and the paired difference to the schedule."""
    rows = [{name: asdict(result) for name, result in case.items()} for case in cases]
    return {
        name: {key: _paired([row[name][key] for row in rows], [row[BASELINE][key] for row in rows]) for key in HEADINGS}
        for name in rows[0]
    }


def _paired(values: Sequence[float], baseline: Sequence[float]) -> Paired:
    off = [value - base for value, base in zip(values, baseline, strict=True)]
    return Paired(round(statistics.fmean(values), 4), round(statistics.fmean(off), 4), half_width(off))


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of the 95 % interval of a mean, by Student's t; None for a single value."""
    if len(values) < 2:
        return None
    quantile = _T[len(values) - 2] if len(values) - 2 < len(_T) else 1.96
    return round(quantile * statistics.stdev(values) / math.sqrt(len(values)), 4)


def goals(found: Mapping[str, Mapping[str, Paired]]) -> dict[str, dict[str, Any]]:
    """Return the goals with what was reached, over all seasons."""
    agents, schedule = found["agents"], found[BASELINE]
    saving = 100.0 * (1.0 - agents["cost_eur"].mean / schedule["cost_eur"].mean)
    result: dict[str, dict[str, Any]] = {
        "cost_saving_percent": {
            "value": round(saving, 2), "goal": COST_GOAL_PERCENT, "met": saving >= COST_GOAL_PERCENT,
        }
    }  # fmt: skip
    for name, key in (("discomfort_not_more", "discomfort_k_h"), ("stale_air_not_more", "stale_air_ppm_h")):
        off = agents[key].difference
        result[name] = {"value": off, "goal": 0.0, "met": off <= 0.0}
    for name, key in (("negotiated_less_cost_eur", "cost_eur"), ("negotiated_less_discomfort_k_h", "discomfort_k_h")):
        if "negotiated" in found:  # the same agents, beside priority classes
            less = round(agents[key].mean - found["negotiated"][key].mean, 4)
            result[name] = {"value": less, "goal": 0.0, "met": less > 0.0}
    return result


def tables(found: Mapping[str, Mapping[str, Mapping[str, Paired]]]) -> Iterable[Table]:
    """Yield one table a season, and one for all, for people."""
    for part, by_name in found.items():
        table = Table("", *by_name, title=f"{part}: mean over seeds (paired difference to the schedule, ± 95 %)")
        for key, heading in HEADINGS.items():
            table.add_row(heading, *(_cell(rows[key], name) for name, rows in by_name.items()))
        yield table


def _cell(value: Paired, name: str) -> str:
    if name == BASELINE:
        return f"{value.mean:.2f}"
    width = "" if value.half_width is None else f" ± {value.half_width:.2f}"
    return f"{value.mean:.2f} ({value.difference:+.2f}{width})"
