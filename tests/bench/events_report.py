"""From stamps to figures: quantiles, medians over passes, the parts of the way, goals and tables."""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from tests.bench.events_traffic import Marks, Pass

AGENT: Final = "agent"
PEER: Final = "peer"
RATE_GOAL: Final = 0.5  # of the peer's events/s
DECISION_GOAL: Final = 1.5  # times the peer's p99
SET_GOAL_MS: Final = 20.0
SET_GOAL_RATE: Final = "1000"
# Part of the way -> the stamps it lies between.
PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "publish -> stored": ("sent_ns", "stored_ns"),
    "stored -> command on NATS": ("stored_ns", "decided_ns"),
    "command on NATS -> SET": ("decided_ns", "set_ns"),
}
# With traces on there are more: spans tell when agent and guard began.
TRACED_PARTS: Final[Sequence[str]] = (
    "publish -> stored", "stored -> agent", "agent -> command on NATS", "command on NATS -> guard's lane",
    "lane -> SET sent (gate, intent)", "SET sent -> device service",
)  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return p50 and p99 of milliseconds, None of none."""
    return {name: rounded(quantile(values, share)) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}


def rounded(value: float) -> float | None:
    """Return a figure with as many digits as anybody reads, None for NaN: JSON has none."""
    return None if math.isnan(value) else round(value, 3)


def figures_of(found: Pass) -> dict[str, Any]:
    """Return what one pass says: latencies to the decision and to the SET, the parts, events/s, what is missing."""
    marks = list(found.marks.values())
    row: dict[str, Any] = {
        "events_per_s": round(found.sent / found.took_s, 1) if found.took_s else None,
        "marked": len(marks),
        "missed": found.missed,
        "decision": spread(_between(marks, "sent_ns", "decided_ns")),
    }
    if any(item.set_ns for item in marks):
        row["set"] = spread(_between(marks, "sent_ns", "set_ns"))
        row["without_set"] = sum(1 for item in marks if not item.set_ns)
        row["parts"] = {name: spread(_between(marks, *ends)) for name, ends in PARTS.items()}
    return row


def _between(marks: Iterable[Marks], begin: str, end: str) -> list[float]:
    ends = [(getattr(item, begin), getattr(item, end)) for item in marks]
    return [(later - earlier) / 1e6 for earlier, later in ends if earlier and later]


def traced_parts(marks: Mapping[int, Marks], begins: Mapping[int, Mapping[str, int]]) -> dict[str, Any]:
    """Return p50 and p99 of each part of the way from spans and stamps, over the events that have all of them.

    Args:
        marks: by number of the event.
        begins: by number, when each span of its trace began, by name, wall nanoseconds.
    """
    rows: list[list[float]] = []
    for number, mark in marks.items():
        spans = begins.get(number, {})
        ends = [
            mark.sent_ns, mark.stored_ns, spans.get("decide", 0), mark.decided_ns, spans.get("command", 0),
            spans.get("set", 0), mark.set_ns,
        ]  # fmt: skip
        if all(ends):
            rows.append([(later - earlier) / 1e6 for earlier, later in itertools.pairwise(ends)])
    return {name: spread([row[at] for row in rows]) for at, name in enumerate(TRACED_PARTS)} | {"events": len(rows)}


def medians(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over passes, objects within objects; None where no pass has it."""
    found: dict[str, Any] = {}
    for key in {key: None for row in rows for key in row}:
        values = [row[key] for row in rows if row.get(key) is not None]
        if values and isinstance(values[0], Mapping):
            found[key] = medians(values)
        else:
            found[key] = round(statistics.median(values), 3) if values else None
    return found


def goals(agent: Mapping[str, Any], peer: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the goals with what was reached; without a peer those that need one are neither met nor missed."""
    set_ms = _at(agent, "rates", SET_GOAL_RATE, "set", "p99_ms")
    rate = _ratio(_at(agent, "events_per_s"), _at(peer, "events_per_s"))
    shared = [name for name in agent.get("rates", {}) if name.isdigit()]
    ratios = [
        _ratio(_at(agent, "rates", name, "decision", "p99_ms"), _at(peer, "rates", name, "decision", "p99_ms"))
        for name in shared
    ]
    known = [ratio for ratio in ratios if ratio is not None]
    worst = max(known) if known else None
    return {
        "events_per_s_ratio": _goal(rate, RATE_GOAL, None if rate is None else rate >= RATE_GOAL),
        "decision_p99_ratio": _goal(worst, DECISION_GOAL, None if worst is None else worst <= DECISION_GOAL),
        "set_p99_ms": _goal(set_ms, SET_GOAL_MS, None if set_ms is None else set_ms <= SET_GOAL_MS),
    }


def _goal(value: float | None, goal: float, met: bool | None) -> dict[str, Any]:
    return {"value": None if value is None else rounded(value), "goal": goal, "met": met}


def _at(row: Any, *path: str) -> Any:
    for key in path:
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def tables(figures: Mapping[str, Any], parts: Mapping[str, Any]) -> Iterable[Table]:
    """Yield the tables for people: rates and latencies, parts of the way, what it costs."""
    yield _latencies(figures)
    yield from (_parts(name, row) for name, row in parts.items())
    yield _costs(figures)


def _latencies(figures: Mapping[str, Any]) -> Table:
    table = Table("", "events/s", "decision p50", "p99", "SET p50", "p99", title="medians over passes, ms")
    for who, row in figures.items():
        if row is None:
            continue
        table.add_row(f"{who}, as many as it takes", _say(row["events_per_s"]), "", "", "", "")
        for name, at in row["rates"].items():
            cells = [at["events_per_s"], *(_at(at, of, what) for of in ("decision", "set") for what in _QUANTILES)]
            table.add_row(f"{who}, {name}/s", *(_say(cell) for cell in cells))
    return table


_QUANTILES: Final = ("p50_ms", "p99_ms")


def _parts(name: str, row: Mapping[str, Any]) -> Table:
    table = Table("", "p50", "p99", title=f"where the time goes at {name}/s, ms ({row['events']} events traced)")
    for part in TRACED_PARTS:
        table.add_row(part, *(_say(row[part][what]) for what in _QUANTILES))
    return table


def _costs(figures: Mapping[str, Any]) -> Table:
    table = Table("", "CPU, %", "RSS, MB", "private, MB", title="what it costs (CPU: of one core)")
    for who, row in figures.items():
        for name, at in (row or {}).get("rates", {}).items():
            for process, cost in at.get("cost", {}).items():
                cells = (cost["cpu_percent"], cost["rss_mb"], cost["private_mb"])
                table.add_row(f"{who} at {name}/s: {process}", *(_say(cell) for cell in cells))
    return table


def _say(value: Any) -> str:
    return "–" if value is None else f"{value:,.1f}" if isinstance(value, float) and value >= 100 else f"{value:g}"
