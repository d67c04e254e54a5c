"""OpenTelemetry set up in one call: spans and metrics to the owner's collector, metrics for Prometheus.

Nothing leaves the gateway unless the owner names a collector: `EDGEAGENTS_OTEL_ENDPOINT`, or OpenTelemetry's own
`OTEL_EXPORTER_OTLP_ENDPOINT` with its companions (headers, certificates, timeouts). A collector that is away is
said once and costs no more than what is lost meanwhile. Logs stay in the service's own log on purpose.

Source: OpenTelemetry specification, OTLP/HTTP 1.x, environment variables; Prometheus text format.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI, Response
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters import telemetry
from edgeagents.adapters.metrics import Metrics
from edgeagents.settings import PREFIX

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

SCOPE: Final = "edgeagents"
EXPORT_TIMEOUT_S: Final = 3.0
_SHUTDOWN_S: Final = 2.0
_SHUTDOWN_AWAY_S: Final = 0.1


class TelemetrySettings(BaseSettings):
    """What of traces and metrics may leave a service, and where it goes."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}OTEL_", frozen=True, allow_inf_nan=False)

    endpoint: str = Field(
        "", description="OTLP/HTTP collector, e.g. http://collector:4318; empty: OTEL_EXPORTER_OTLP_ENDPOINT, if set"
    )
    prometheus: bool = Field(False, description="answer GET /metrics in Prometheus' text format")
    sample_ratio: float = Field(1.0, ge=0, le=1, description="part of the traces begun here that is recorded")
    metrics_interval_s: float = Field(30.0, ge=1, description="how often metrics go to the collector")

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, text: str) -> str:
        if text and (urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname):
            raise ValueError(f"{text!r} is no address of a collector: write http://host:4318")
        return text.rstrip("/")

    def sends(self, signal: str, environ: Mapping[str, str]) -> bool:
        """Say whether the owner named a collector for `TRACES` or `METRICS`."""
        if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return False
        standard = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return bool(self.endpoint) or any(environ.get(name) for name in standard)


@dataclass
class Telemetry:
    """What was set up for this process; `close` sends the rest and ends it."""

    meter: "Meter | None" = None
    scrape: Callable[[], tuple[bytes, str]] | None = None  # text and content type for Prometheus
    is_away: Callable[[], bool] = lambda: False  # the collector did not answer last time
    _closers: list[Callable[[], Any]] = field(default_factory=list)

    def close(self) -> None:
        """Send what waits, for a moment, and record nothing more."""
        telemetry.use(None)
        _use(Telemetry())
        # A collector that is away must not hold up the end of a service.
        ending = threading.Thread(target=lambda: [closer() for closer in self._closers], daemon=True)
        ending.start()
        ending.join(_SHUTDOWN_AWAY_S if self.is_away() else _SHUTDOWN_S)


_active = Telemetry()


def _use(now: Telemetry) -> None:
    global _active
    _active = now


def set_up(
    settings: TelemetrySettings, service: str, *, version: str = "", spans: "SpanExporter | None" = None
) -> Telemetry:
    """Set this process up as the settings say, and return what ends it; does nothing when they ask for nothing.

    Args:
        settings: the owner's.
        service: service key, told as `service.name`.
        version: told as `service.version`.
        spans: takes every span at once, instead of a collector: for tests and tools.
    """
    made = Telemetry()
    to_collector = settings.sends("TRACES", os.environ)
    readers = _metric_readers(settings, made)
    if not (to_collector or spans or readers):
        return made
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.name": service, "service.version": version or "0"})
    if to_collector or spans:
        provider = _tracer_provider(settings, resource, spans, made)
        made._closers.append(provider.shutdown)
        telemetry.use(provider.get_tracer(SCOPE, version))
    if readers:
        from opentelemetry.sdk.metrics import MeterProvider

        meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        made._closers.append(meters.shutdown)
        made.meter = meters.get_meter(SCOPE, version)
    _use(made)
    return made


@contextlib.contextmanager
def telemetry_of(settings: TelemetrySettings, service: str, version: str = "") -> Iterator[Telemetry]:
    """Have telemetry set up inside the block."""
    made = set_up(settings, service, version=version)
    try:
        yield made
    finally:
        made.close()


def follow(metrics: Metrics, app: FastAPI) -> None:
    """Let OpenTelemetry read a service's metrics, and Prometheus fetch them, as far as this process is set up so."""
    if _active.meter is not None:
        metrics.attach(_active.meter)
    scrape = _active.scrape
    if scrape is not None:

        @app.get("/metrics", tags=["common"])
        def prometheus() -> Response:
            """Return all metrics in Prometheus' text format."""
            text, content_type = scrape()
            return Response(text, media_type=content_type)


def _tracer_provider(
    settings: TelemetrySettings, resource: "Resource", spans: "SpanExporter | None", made: Telemetry
) -> "TracerProvider":
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    sampler = ParentBased(TraceIdRatioBased(settings.sample_ratio))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    if spans is not None:
        provider.add_span_processor(SimpleSpanProcessor(spans))
    else:
        exporter = _quiet(_span_exporter(settings), made)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return provider


def _span_exporter(settings: TelemetrySettings) -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(  # without an address it reads OpenTelemetry's own variables
        f"{settings.endpoint}/v1/traces" if settings.endpoint else None,
        timeout=EXPORT_TIMEOUT_S if settings.endpoint else None,
    )


def _metric_readers(settings: TelemetrySettings, made: Telemetry) -> "list[MetricReader]":
    readers: list[MetricReader] = []
    if settings.sends("METRICS", os.environ):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        metrics = OTLPMetricExporter(  # without an address it reads OpenTelemetry's own variables
            f"{settings.endpoint}/v1/metrics" if settings.endpoint else None,
            timeout=EXPORT_TIMEOUT_S if settings.endpoint else None,
        )
        readers.append(PeriodicExportingMetricReader(metrics, settings.metrics_interval_s * 1000))
    if settings.prometheus:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        readers.append(PrometheusMetricReader(registry=registry))
        made.scrape = lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
    return readers


def _quiet(exporter: "SpanExporter", made: Telemetry) -> "SpanExporter":
    """Return an exporter that says once that the collector is away, and once that it is back."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it says so at each attempt

    class Quiet(SpanExporter):
        is_away = False

        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = exporter.export(spans)
            failed = result is not SpanExportResult.SUCCESS
            if failed and not self.is_away:
                log.warning("traces and metrics do not reach the collector: is it up, is its address right?")
            elif self.is_away and not failed:
                log.warning("traces reach the collector again")
            self.is_away = failed
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return exporter.force_flush(timeout_millis)

    quiet = Quiet()
    made.is_away = lambda: quiet.is_away
    return quiet
