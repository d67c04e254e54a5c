"""Agent and guard each continue the trace of the message they work on, and hand it on."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from edgeagents.adapters import otel, telemetry
from edgeagents.adapters.bus import StoredMessage
from edgeagents.adapters.otel import TelemetrySettings
from edgeagents.journal import Journal
from edgeagents.model.agent import Decision, Intent
from edgeagents.model.device import Event, Reading
from edgeagents.model.message import Cause, Command, CommandId, Epoch, Outcome
from edgeagents.settings import SiteTime
from services.agent.loop import AgentLoop, EventInput, OutcomeInput
from services.agent.perception import Twin
from services.guard.jobs import Job, Means
from services.guard.lanes import Lane

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
INCOMING = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Record every span of this process in memory."""
    exporter = InMemorySpanExporter()
    running = otel.set_up(TelemetrySettings(), "test", spans=exporter)
    yield exporter
    running.close()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Return the recorded spans by their names."""
    return {span.name: span for span in exporter.get_finished_spans()}


def follows(span: ReadableSpan, parent: str) -> bool:
    """Say whether a span is of the trace and follows from a span of that id."""
    above = f"{span.parent.span_id:016x}" if span.parent else ""
    return (f"{span.context.trace_id:032x}", above) == (TRACE, parent)


def message(headers: dict[str, str]) -> StoredMessage:
    """Return a message of a stream."""
    return StoredMessage("s", b"", headers, "edgex-events", 7, 1)


class Wanting:
    """A stage that always wants the lamp on."""

    name = "rule"

    def is_awake(self, view: Any, touched: Any, site_s: float) -> bool:
        """Say yes."""
        return True

    def decide(self, observation: Any, twin: Any) -> Decision:
        """Return the decision."""
        intent = Intent("lamp", "Power", True, "it is dark", "dark")
        return Decision(id="d-1", intents=(intent,), stage="rule", confidence=1.0, inputs={}, data_origin_ns=1)


class Commander:
    """Keeps the trace that commands would go out with."""

    def __init__(self) -> None:
        self.carried: list[str] = []
        self.ended_with: list[str] = []

    async def give(self, decision: Decision, cause: Cause, site_s: float) -> list[Any]:
        """Keep what is carried."""
        self.carried.append(telemetry.carried().get("traceparent", ""))
        return []

    def ended(self, outcome: Outcome) -> None:
        """Take an outcome."""
        self.ended_with.append(outcome.status)

    def forget_overdue(self) -> None:
        """Have nothing to forget."""


def a_loop(commander: Commander) -> AgentLoop:
    """Return the loop of an agent that always wants the lamp on."""
    twin = Twin(SiteTime(), {("lamp", "Power")}, 3600.0)
    agent, audit = SimpleNamespace(name="comfort", mode="act"), SimpleNamespace(append=lambda *_, **__: None)
    return AgentLoop(
        cast(Any, agent), twin, [cast(Any, Wanting())], cast(Any, commander), cast(Any, audit), Journal(), lambda: 10.0
    )


async def test_an_agents_decision_and_its_command_continue_the_events_trace(spans: InMemorySpanExporter) -> None:
    reading = Reading(
        device_name="lamp", resource_name="Power", profile_name="p", value_type="Bool", value="false", origin=1
    )
    event = Event(id="e", device_name="lamp", profile_name="p", source_name="Power", origin=1, readings=(reading,))
    commander = Commander()
    loop = a_loop(commander)
    await loop.handle(EventInput(message(INCOMING), event))
    decide = by_name(spans)["decide"]
    assert follows(decide, CALLER)
    assert (decide.attributes or {})["decision"] == "d-1"
    assert commander.carried == [f"00-{TRACE}-{decide.context.span_id:016x}-01"]
    assert loop.processing_time.count == 1


async def test_an_outcome_ends_the_trace_at_its_agent(spans: InMemorySpanExporter) -> None:
    outcome = Outcome(command_id=CommandId("c"), device="lamp", resource="Power", status="proven")
    commander = Commander()
    loop = a_loop(commander)
    await loop.handle(OutcomeInput(message(INCOMING), outcome))
    assert follows(by_name(spans)["outcome"], CALLER)
    assert (commander.ended_with, loop.processing_time.count) == (["proven"], 0)


async def test_the_guard_continues_a_commands_trace_to_its_outcome(spans: InMemorySpanExporter) -> None:
    told: list[str] = []
    clocks = SimpleNamespace(now=lambda: 100.0, site=lambda: 100.0, wall_ns=lambda: 1)
    ledger = SimpleNamespace(finish=lambda *_: None)
    with ThreadPoolExecutor(1) as executor:
        means = SimpleNamespace(
            clocks=clocks, ledger=ledger, executor=executor, audit=SimpleNamespace(append=lambda *_, **__: None),
            overrides=SimpleNamespace(is_doubted=lambda key: False),
            tell=lambda agent, outcome: told.append(telemetry.carried()["traceparent"]),
        )  # fmt: skip
        means.on_disk = lambda function, *arguments: Means.on_disk(cast(Means, means), function, *arguments)
        lane = Lane(cast(Means, means), lambda agent: None, lambda key, was_read: None)
        command = Command(
            id=CommandId("c-1"), device="lamp", resource="Power", value="true", incarnation="i",
            epoch=Epoch(generation=1, revision=1), ttl_s=5, cause=Cause(stream="s", sequence=1),
        )  # fmt: skip
        lane.queue.put_nowait(Job(command, "comfort", 1, 99.0, 0.0, trace=INCOMING))
        running = asyncio.create_task(lane.run())
        await lane.queue.join()
        running.cancel()
    found = by_name(spans)
    work, outcome = found["command"], found["outcome"]
    assert follows(work, CALLER)
    assert follows(outcome, f"{work.context.span_id:016x}")
    assert ((work.attributes or {})["edgex.correlation_id"], (outcome.attributes or {})["status"]) == ("c-1", "expired")
    assert told == [f"00-{TRACE}-{outcome.context.span_id:016x}-01"]
