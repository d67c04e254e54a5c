"""A tiny OTLP/HTTP collector for one test: keeps every span it is sent, on 127.0.0.1."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str]
    failed: str
    began_ns: int = 0
    ended_ns: int = 0


@dataclass
class Collector:
    """What was received; `url` is its address."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    metrics: set[tuple[str, str]] = field(default_factory=set)  # service, name

    def traces(self) -> dict[str, list[Received]]:
        """Return the spans of each trace."""
        found: dict[str, list[Received]] = {}
        for span in list(self.spans):
            found.setdefault(span.trace, []).append(span)
        return found

    def take_spans(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _service(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [
                    Received(
                        service, span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                        {item.key: item.value.string_value for item in span.attributes}, span.status.message,
                        span.start_time_unix_nano, span.end_time_unix_nano,
                    )
                    for span in scope.spans
                ]  # fmt: skip

    def take_metrics(self, body: bytes) -> None:
        """Keep which metrics a request told of."""
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            service = _service(resource.resource.attributes)
            self.metrics |= {(service, item.name) for scope in resource.scope_metrics for item in scope.metrics}


def _service(attributes: object) -> str:
    return next(item.value.string_value for item in attributes if item.key == "service.name")  # type: ignore[attr-defined]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect inside the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            (collector.take_spans if self.path == "/v1/traces" else collector.take_metrics)(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
