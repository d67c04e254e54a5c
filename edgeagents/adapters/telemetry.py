"""Traces through a gateway: W3C trace context in and out of HTTP and NATS, spans for OpenTelemetry.

Off by default: nothing is recorded and nothing leaves the gateway unless the owner names a collector. Even then
off, a `traceparent` that came in goes on with whatever follows from it, beside EdgeX's correlation id.
Exporters and providers stand in `otel.py`, imported only when they are wanted. MQTT 3.1.1 has no headers: a trace
ends where a message goes over it.

Source: W3C Trace Context (2021); OpenTelemetry specification, trace API.
"""

import asyncio
import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes: TypeAlias = Mapping[str, str | int | float | bool]
Headers: TypeAlias = Mapping[str, str]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_SHAPE: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MAX_STATE: Final = 512  # what the standard asks everybody to pass on at least
_EMPTY: Final[Headers] = {}


class Span:
    """A piece of work. This one is not recorded: it passes a trace on, or does nothing at all."""

    __slots__ = ("_before", "headers")

    def __init__(self, headers: Headers = _EMPTY) -> None:
        """Pass `headers` on inside the `with` block; without any, leave what is carried as it is."""
        self.headers = headers
        self._before: Token[Span] | None = None

    def __enter__(self) -> "Span":
        if self.headers:
            self._before = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            _current.reset(self._before)
            self._before = None
        self.end(error)

    def note(self, attributes: Attributes) -> None:
        """Add what is known only now."""

    def rename(self, name: str) -> None:
        """Give it a better name."""

    def end(self, error: BaseException | str | None = None) -> None:
        """Say that the work is over; with `error`, why it failed. For a span that is not used with `with`."""


class _Nothing(Span):
    """Lets nothing inside follow from what was carried outside."""

    __slots__ = ()

    def __enter__(self) -> Span:
        self._before = _current.set(_NOTHING)
        return self


class _Recorded(Span):
    """A span that goes to the collector."""

    __slots__ = ("_otel",)

    def __init__(self, otel: "OtelSpan") -> None:
        context = otel.get_span_context()
        headers = {TRACEPARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
        if context.trace_state:
            headers[TRACESTATE] = context.trace_state.to_header()
        super().__init__(headers)
        self._otel = otel

    def note(self, attributes: Attributes) -> None:
        self._otel.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._otel.update_name(name)

    def end(self, error: BaseException | str | None = None) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            from opentelemetry.trace import Status, StatusCode

            self._otel.set_status(Status(StatusCode.ERROR, str(error)[:500] or type(error).__name__))
        self._otel.end()


_NOTHING: Final = Span()
_current: ContextVar[Span] = ContextVar("span", default=_NOTHING)
_tracer: "Tracer | None" = None


def use(tracer: "Tracer | None") -> None:
    """Record spans with `tracer` from now on; None: record nothing."""
    global _tracer
    _tracer = tracer


def is_on() -> bool:
    """Say whether spans are recorded."""
    return _tracer is not None


def span(
    name: str,
    attributes: Attributes = _EMPTY,
    *,
    kind: Kind = "internal",
    parent: Headers | None = None,
    is_root: bool = False,
) -> Span:
    """Return a span to be used with `with`, or to be ended by hand; near to free when nothing is recorded.

    Args:
        name: of few kinds: no ids in it.
        attributes: what to know about this one.
        kind: which side of a message or request it is.
        parent: headers of the message or request it follows from; None: what is carried now.
        is_root: begin a trace of its own, linked to what is carried now.
    """
    if _tracer is None:
        return _NOTHING if parent is None or is_root else carry(parent)
    return _start(_tracer, name, attributes, kind, parent, is_root)


def carry(headers: Headers | None) -> Span:
    """Return what, used with `with`, lets everything inside follow from a message or request, without a span."""
    found = trace_of(headers) if headers else _EMPTY
    if found:
        return Span(found)
    # A task that was started within somebody's request works for others later.
    return _NOTHING if _current.get() is _NOTHING else _Nothing()


def inject(headers: Headers | None = None) -> Headers | None:
    """Return headers with the trace that is carried now; the same ones when there is none."""
    carried = _current.get().headers
    if not carried:
        return headers
    return {**headers, **carried} if headers else carried


def carried() -> Headers:
    """Return the trace that is carried now as headers, empty without one; to be kept with queued work."""
    return _current.get().headers


def note(attributes: Attributes) -> None:
    """Add to the span that is under way now what is known only now."""
    _current.get().note(attributes)


def trace_of(headers: Headers) -> Headers:
    """Return the trace that headers name, as headers; empty when they name none that is valid."""
    text = headers.get(TRACEPARENT) or headers.get("Traceparent")
    if not text:
        return _EMPTY
    parts = _SHAPE.fullmatch(text)
    if parts is None or parts[1] == "ff" or (parts[5] and parts[1] == "00"):
        return _EMPTY
    if not int(parts[2], 16) or not int(parts[3], 16):
        return _EMPTY
    state = headers.get(TRACESTATE) or headers.get("Tracestate") or ""
    plain = state.isascii() and state.isprintable() and len(state) <= _MAX_STATE
    return {TRACEPARENT: text, TRACESTATE: state} if state and plain else {TRACEPARENT: text}


def _start(
    tracer: "Tracer", name: str, attributes: Attributes, kind: Kind, parent: Headers | None, is_root: bool
) -> Span:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span

    above = _context(_current.get().headers if parent is None else trace_of(parent))
    links = None
    if is_root:
        cause = get_current_span(above).get_span_context()
        links = [Link(cause)] if cause.is_valid else None
        above = Context()
    return _Recorded(tracer.start_span(name, above, kind=SpanKind[kind.upper()], attributes=attributes, links=links))


def _context(headers: Headers) -> "Context":
    """Return OpenTelemetry's word for a trace that came as headers."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

    parts = _SHAPE.fullmatch(headers.get(TRACEPARENT, ""))
    if parts is None:
        return Context()
    state = TraceState.from_header([headers[TRACESTATE]]) if TRACESTATE in headers else None
    came = SpanContext(int(parts[2], 16), int(parts[3], 16), True, TraceFlags(int(parts[4], 16)), state)
    return set_span_in_context(NonRecordingSpan(came), Context())
