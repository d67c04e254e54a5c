"""A service's own measurements, and how EdgeX hears of them: `<base>/telemetry/<service>/<metric>`.

Counting is an addition on an object; what is told, how often and with which tags is `Writable/Telemetry`, live
from keeper. The same metrics go to OpenTelemetry when `otel.py` attaches its meter.
Timers and histograms tell of their last 1,028 values (and the count of all), as many as EdgeX's own keep.

Source: edgex-wire.md section 9; telemetry messages in the recordings of EdgeX 4.0.2.
"""

import asyncio
import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from edgeagents.adapters.config import duration_s, parse_bool, to_text
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.errors import ConfigurationError, TheirError

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

log = logging.getLogger(__name__)

KEPT_VALUES: Final = 1028
SHORTEST_INTERVAL_S: Final = 0.1
PIPELINE_TAG: Final = {"pipeline": "default-pipeline"}
_WORD_ENDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9_]+")
Number = int | float
Fields = list[tuple[str, Number]]


class Counter:
    """Counts up; `read` gives the figure where something else counts already."""

    def __init__(self, read: Callable[[], int] | None = None) -> None:
        """Start at 0, or show what `read` returns."""
        self._count = 0
        self._read = read

    @property
    def count(self) -> int:
        """The figure now."""
        return self._count if self._read is None else self._read()

    def add(self, number: int = 1) -> None:
        """Count."""
        self._count += number

    def fields(self) -> Fields:
        """Return EdgeX's names and values."""
        return [("counter-count", self.count)]


class Gauge:
    """A value that goes up and down: whole, or a fraction."""

    def __init__(self, read: Callable[[], Number] | None = None) -> None:
        """Start at 0, or show what `read` returns."""
        self._value: Number = 0
        self._read = read

    @property
    def value(self) -> Number:
        """The value now."""
        return self._value if self._read is None else self._read()

    def set(self, value: Number) -> None:
        """Take a new value."""
        self._value = value

    def fields(self) -> Fields:
        """Return EdgeX's names and values."""
        value = self.value
        return [("gaugeFloat64-value" if isinstance(value, float) else "gauge-value", value)]


class Histogram:
    """How values are spread: count, least, most, mean, deviation."""

    word = "histogram"

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self._values: deque[Number] = deque(maxlen=KEPT_VALUES)
        self.pass_on: Callable[[Number], None] | None = None

    def update(self, value: Number) -> None:
        """Take a value in."""
        self.count += 1
        self._values.append(value)
        if self.pass_on is not None:
            self.pass_on(value)

    def fields(self) -> Fields:
        """Return EdgeX's names and values; all 0 before the first."""
        values = self._values or (0,)
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        figures = (self.count, min(values), max(values), mean, math.sqrt(variance), variance)
        names = ("count", "min", "max", "mean", "stddev", "variance")
        return [(f"{self.word}-{name}", figure) for name, figure in zip(names, figures, strict=True)]


class Timer(Histogram):
    """How long something takes, in ns: `began = time.perf_counter_ns()`, later `timer.since(began)`."""

    word = "timer"

    def since(self, began_ns: int) -> None:
        """Take in the time since `began_ns` of `time.perf_counter_ns()`."""
        self.update(time.perf_counter_ns() - began_ns)


AnyMetric = Counter | Gauge | Histogram
M = TypeVar("M", bound=AnyMetric)
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """All metrics of a service; those of one name differ by their tags and are of one kind."""

    def __init__(self) -> None:
        """Start with none."""
        self._metrics: dict[_Key, AnyMetric] = {}
        self._meter: Meter | None = None

    def counter(
        self, name: str, tags: Mapping[str, str] | None = None, read: Callable[[], int] | None = None
    ) -> Counter:
        """Return the counter of that name and tags, made when it is not there; `read` shows what is counted already."""
        return self._known(name, tags, Counter) or self.add(name, Counter(read), tags)

    def gauge(
        self, name: str, tags: Mapping[str, str] | None = None, read: Callable[[], Number] | None = None
    ) -> Gauge:
        """Return the gauge of that name and tags, made when it is not there."""
        return self._known(name, tags, Gauge) or self.add(name, Gauge(read), tags)

    def timer(self, name: str, tags: Mapping[str, str] | None = None) -> Timer:
        """Return the timer of that name and tags, made when it is not there."""
        return self._known(name, tags, Timer) or self.add(name, Timer(), tags)

    def histogram(self, name: str, tags: Mapping[str, str] | None = None) -> Histogram:
        """Return the histogram of that name and tags, made when it is not there."""
        return self._known(name, tags, Histogram) or self.add(name, Histogram(), tags)

    def add(self, name: str, metric: M, tags: Mapping[str, str] | None = None) -> M:
        """Tell of a metric that lives elsewhere, and return it.

        Raises:
            ValueError: metrics of that name are of another kind.
        """
        if any(type(known) is not type(metric) for known in self.of(name).values()):
            raise ValueError(f"metrics named {name!r} are not of kind {type(metric).__name__}")
        is_first = not self.of(name)
        self._metrics[name, tuple(sorted((tags or {}).items()))] = metric
        if self._meter is not None:
            self._attach(self._meter, name, metric, tags or {}, is_first)
        return metric

    def of(self, name: str) -> dict[tuple[tuple[str, str], ...], AnyMetric]:
        """Return the metrics of a name by their tags."""
        return {tags: metric for (known, tags), metric in list(self._metrics.items()) if known == name}

    def all(self) -> Iterator[tuple[str, dict[str, str], AnyMetric]]:
        """Yield name, tags and metric."""
        for (name, tags), metric in list(self._metrics.items()):
            yield name, dict(tags), metric

    def _known(self, name: str, tags: Mapping[str, str] | None, kind: type[M]) -> M | None:
        found = self._metrics.get((name, tuple(sorted((tags or {}).items()))))
        return found if type(found) is kind else None

    # --- OpenTelemetry ---------------------------------------------------------------------------

    def attach(self, meter: "Meter") -> None:
        """Let OpenTelemetry read these metrics too, and those that come later."""
        self._meter = meter
        seen: set[str] = set()
        for name, tags, metric in self.all():
            self._attach(meter, name, metric, tags, name not in seen)
            seen.add(name)

    def _attach(self, meter: "Meter", name: str, metric: AnyMetric, tags: Mapping[str, str], is_first: bool) -> None:
        word = otel_name(name)
        match metric:
            case Timer():
                seconds = meter.create_histogram(word, unit="s")
                metric.pass_on = lambda value: seconds.record(value / 1e9, dict(tags))
            case Histogram():
                values = meter.create_histogram(word)
                metric.pass_on = lambda value: values.record(value, dict(tags))
            case Counter() if is_first:
                meter.create_observable_counter(word, [lambda options: self._observed(name, options)])
            case Gauge() if is_first:
                meter.create_observable_gauge(word, [lambda options: self._observed(name, options)])

    def _observed(self, name: str, options: "CallbackOptions") -> "list[Observation]":
        from opentelemetry.metrics import Observation

        return [Observation(metric.fields()[0][1], dict(tags)) for tags, metric in self.of(name).items()]


def otel_name(name: str) -> str:
    """Return EdgeX's name as OpenTelemetry writes one: `MessagesReceived` is `edgeagents.messages_received`."""
    return f"edgeagents.{_WORD_ENDS.sub('_', name).lower()}"


# --- what EdgeX hears ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TelemetryPlan:
    """What `Writable/Telemetry` says: how often (0: never), which metrics by prefix of their name, with which tags."""

    interval_s: float = 0.0
    enabled: Mapping[str, bool] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def published_as(self, name: str) -> str:
        """Return the configured name that a metric is told under, empty when it is not to be told."""
        configured = max((prefix for prefix in self.enabled if prefix and name.startswith(prefix)), key=len, default="")
        return configured if self.enabled.get(configured) else ""


def plan_of(section: Mapping[str, Any]) -> TelemetryPlan:
    """Return what a `Writable/Telemetry` section asks for.

    Raises:
        ConfigurationError: `Interval` is no duration.
    """
    interval_s = duration_s(to_text(section.get("Interval", "")))
    metrics, tags = section.get("Metrics") or {}, section.get("Tags") or {}
    return TelemetryPlan(
        interval_s=max(SHORTEST_INTERVAL_S, interval_s) if interval_s else 0.0,
        enabled={str(name): _is_true(value) for name, value in metrics.items()} if isinstance(metrics, Mapping) else {},
        tags={str(name): to_text(value) for name, value in tags.items()} if isinstance(tags, Mapping) else {},
    )


def to_wire(
    metric: AnyMetric, name: str, service: str, common: Mapping[str, str], tags: Mapping[str, str], now_ns: int
) -> dict[str, Any]:
    """Return a metric as EdgeX's telemetry message holds it."""
    told = {"service": service} | dict(common) | dict(tags)
    return {
        "apiVersion": "v3",
        "name": name,
        "fields": [{"name": field_name, "value": value} for field_name, value in metric.fields()],
        "tags": [{"name": tag, "value": value} for tag, value in told.items()],
        "timestamp": now_ns,
    }


class Publisher(Protocol):
    """Takes messages for EdgeX's bus, on topics below the base: `EdgexBus`."""

    async def publish(self, topic: str, payload: Any) -> None:
        """Send one."""


class Reporter:
    """Tells EdgeX's bus of a service's metrics as its configuration asks at each moment."""

    def __init__(self, metrics: Metrics, edgex: Publisher, config: LiveConfig) -> None:
        """Prepare; `run` does the work."""
        self._metrics = metrics
        self._edgex = edgex
        self._config = config
        self._changed = asyncio.Event()
        self._plan = TelemetryPlan()
        self._told_bad = self._told_down = False
        config.watch(self._on_change)

    async def run(self) -> None:
        """Tell every interval, for ever; a changed interval counts from its change."""
        self._read()
        while True:
            interval_s = self._plan.interval_s
            due_s = time.monotonic() + interval_s
            while self._plan.interval_s == interval_s:
                if await self._changed_before(due_s if interval_s else None):
                    self._read()
                else:
                    await self.tell()
                    due_s += interval_s * max(1, math.ceil((time.monotonic() - due_s) / interval_s))

    async def tell(self) -> None:
        """Publish every enabled metric once."""
        plan, now_ns = self._plan, time.time_ns()
        for name, tags, metric in self._metrics.all():
            told = plan.published_as(name)
            if not told:
                continue
            body = to_wire(metric, told, self._config.key, plan.tags, tags, now_ns)
            try:
                await self._edgex.publish(f"telemetry/{self._config.key}/{told}", body)
                self._told_down = False
            except TheirError as error:
                if not self._told_down:
                    log.warning("metric %s is not told: %s (further ones silently)", told, error)
                self._told_down = True

    def _on_change(self, paths: frozenset[str]) -> None:
        if any(path.startswith("Writable/Telemetry") for path in paths):
            self._changed.set()

    async def _changed_before(self, due_s: float | None) -> bool:
        try:
            async with asyncio.timeout(None if due_s is None else max(0.0, due_s - time.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def _read(self) -> None:
        section = self._config.get("Writable/Telemetry", {})
        try:
            self._plan = plan_of(section if isinstance(section, Mapping) else {})
        except ConfigurationError as error:
            log.warning("configuration Writable/Telemetry/Interval: %s: the former value stays", error)


def _is_true(value: Any) -> bool:
    try:
        return parse_bool(to_text(value).strip())
    except ValueError:
        return False
