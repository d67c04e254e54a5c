"""Metrics as EdgeX tells of them: the recorded messages, the live settings, and bad settings."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgeagents.adapters.config import Tree
from edgeagents.adapters.defaults import common_defaults
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.metrics import (
    KEPT_VALUES,
    PIPELINE_TAG,
    Counter,
    Gauge,
    Histogram,
    Metrics,
    Reporter,
    TelemetryPlan,
    Timer,
    otel_name,
    plan_of,
    to_wire,
)
from edgeagents.errors import ConfigurationError
from tests.nats import until
from tests.recordings import bus_lines
from tests.unit.adapters.device_fakes import MemoryTransport


def config_of(**telemetry: Any) -> LiveConfig:
    """Return the configuration of an app service with this `Writable/Telemetry`."""
    return LiveConfig("app-x", "app", common_defaults("app"), private={"Writable": {"Telemetry": telemetry}})


def change(config: LiveConfig, **telemetry: Any) -> None:
    """Change `Writable/Telemetry` as a write in keeper does."""
    for name, value in telemetry.items():
        config.set_local(f"Writable/Telemetry/{name}", value)


@asynccontextmanager
async def reporting(metrics: Metrics, config: LiveConfig) -> AsyncIterator[MemoryTransport]:
    """Report inside the block, onto a bus in memory."""
    transport = MemoryTransport()
    task = asyncio.create_task(Reporter(metrics, EdgexBus(transport), config).run())
    yield transport
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def told(transport: MemoryTransport, count: int) -> list[tuple[str, Tree]]:
    """Wait until so many metrics were told; return topic and payload of each."""
    async with asyncio.timeout(5), transport.news:
        await transport.news.wait_for(lambda: len(transport.published) >= count)
    return [(topic, envelope.payload) for topic, envelope in transport.published]


# --- what is told --------------------------------------------------------------------------------


@pytest.mark.recordings
def test_a_counter_and_a_timer_are_written_as_edgex_writes_them() -> None:
    recorded: dict[str, Any] = {}
    for message in bus_lines():
        if message.subject.startswith("edgex.telemetry."):
            payload = json.loads(message.data)["payload"]
            recorded.setdefault(payload["name"], payload)
    counter, timer = Counter(), Timer()
    for took_ns in [87651, 2217859, 300000]:
        counter.add()
        timer.update(took_ns)
    ours = {
        "MessagesReceived": to_wire(counter, "MessagesReceived", "app-rules-engine", {}, {}, 1),
        "PipelineMessageProcessingTime": to_wire(
            timer, "PipelineMessageProcessingTime", "app-rules-engine", {}, PIPELINE_TAG, 1
        ),
    }
    assert ours.keys() == recorded.keys()
    for name, body in ours.items():
        theirs = recorded[name]
        assert list(body) == list(theirs)
        assert [item["name"] for item in body["fields"]] == [item["name"] for item in theirs["fields"]]
        assert body["tags"] == theirs["tags"]
        for own, their in zip(body["fields"], theirs["fields"], strict=True):
            assert type(own["value"]) is type(their["value"])


def test_figures_of_a_timer_are_those_of_its_values() -> None:
    timer = Timer()
    for value in [2, 4, 4, 4, 5, 5, 7, 9]:
        timer.update(value)
    assert dict(timer.fields()) == {
        "timer-count": 8, "timer-min": 2, "timer-max": 9, "timer-mean": 5.0, "timer-stddev": 2.0,
        "timer-variance": 4.0,
    }  # fmt: skip


def test_a_histogram_forgets_old_values_but_counts_all() -> None:
    histogram = Histogram()
    histogram.update(1_000_000)
    for _ in range(KEPT_VALUES):
        histogram.update(3)
    figures = dict(histogram.fields())
    assert (figures["histogram-count"], figures["histogram-max"]) == (KEPT_VALUES + 1, 3)


def test_a_metric_without_values_is_zero() -> None:
    assert set(dict(Timer().fields()).values()) == {0}
    assert Counter().fields() == [("counter-count", 0)]


def test_a_gauge_of_a_fraction_has_its_own_field_name() -> None:
    whole, fraction = Gauge(), Gauge(lambda: 0.5)
    whole.set(7)
    assert whole.fields() == [("gauge-value", 7)]
    assert fraction.fields() == [("gaugeFloat64-value", 0.5)]


def test_tags_of_the_owner_and_of_the_metric_follow_the_service() -> None:
    body = to_wire(Counter(), "M", "app-x", {"site": "north"}, {"pipeline": "p"}, 5)
    assert body["tags"] == [
        {"name": "service", "value": "app-x"}, {"name": "site", "value": "north"}, {"name": "pipeline", "value": "p"},
    ]  # fmt: skip
    assert body["timestamp"] == 5


# --- registry ------------------------------------------------------------------------------------


def test_a_metric_asked_for_twice_is_the_same_one() -> None:
    metrics = Metrics()
    metrics.counter("M", {"a": "1", "b": "2"}).add()
    assert metrics.counter("M", {"b": "2", "a": "1"}).count == 1
    assert metrics.counter("M", {"a": "2"}).count == 0
    assert metrics.timer("T") is metrics.timer("T")


def test_metrics_of_one_name_are_of_one_kind() -> None:
    metrics = Metrics()
    metrics.counter("M", {"a": "1"})
    with pytest.raises(ValueError, match="not of kind Timer"):
        metrics.timer("M", {"a": "2"})


@pytest.mark.parametrize(
    ("edgex", "word"),
    [("MessagesReceived", "edgeagents.messages_received"), ("a-b.c", "edgeagents.a_b_c"), ("X2Y", "edgeagents.x2_y")],
)
def test_names_are_written_as_opentelemetry_writes_them(edgex: str, word: str) -> None:
    assert otel_name(edgex) == word


# --- settings ------------------------------------------------------------------------------------


def test_a_name_matches_by_prefix_and_the_longest_prefix_counts() -> None:
    plan = TelemetryPlan(1.0, {"Pipeline": True, "PipelineMessages": False, "Messages": True, "": True})
    assert plan.published_as("PipelineErrors-p1") == "Pipeline"
    assert plan.published_as("PipelineMessagesProcessed") == ""
    assert plan.published_as("MessagesReceived") == "Messages"
    assert plan.published_as("Other") == ""


def test_what_stands_in_keeper_as_text_is_understood_and_nonsense_is_off() -> None:
    plan = plan_of({"Interval": "1m30s", "Metrics": {"A": "true", "B": "nonsense", "C": None}, "Tags": {"n": 1}})
    assert plan == TelemetryPlan(90.0, {"A": True, "B": False, "C": False}, {"n": "1"})


@pytest.mark.parametrize("section", [{}, {"Interval": "0s"}, {"Interval": ""}, {"Metrics": "x", "Tags": None}])
def test_no_interval_means_never(section: Tree) -> None:
    assert plan_of(section) == TelemetryPlan()


def test_an_interval_is_never_so_short_that_it_floods_the_bus() -> None:
    assert plan_of({"Interval": "1ns"}).interval_s == 0.1


def test_an_interval_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no duration"):
        plan_of({"Interval": "often"})


# --- the reporter --------------------------------------------------------------------------------


async def test_enabled_metrics_are_told_every_interval_under_their_configured_name() -> None:
    metrics = Metrics()
    metrics.counter("MyEvents-north").add(2)
    metrics.counter("YourEvents")
    config = config_of(Interval="100ms", Metrics={"MyEvents": True}, Tags={"site": "north"})
    async with reporting(metrics, config) as transport:
        found = await told(transport, 2)
    assert {topic for topic, _ in found} == {"edgex/telemetry/app-x/MyEvents"}
    body = found[0][1]
    assert (body["name"], body["fields"]) == ("MyEvents", [{"name": "counter-count", "value": 2}])
    assert {"name": "site", "value": "north"} in body["tags"]


async def test_a_metric_switched_on_and_an_interval_set_in_keeper_count_at_once() -> None:
    metrics, config = Metrics(), config_of(Interval="0s", Metrics={"MessagesReceived": False})
    metrics.counter("MessagesReceived")
    async with reporting(metrics, config) as transport:
        change(config, Metrics={"MessagesReceived": True})
        change(config, Interval="100ms")
        assert len(await told(transport, 1)) >= 1
        change(config, Interval="0s")
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await told(transport, len(transport.published) + 1)


async def test_a_bad_interval_leaves_the_former_one_in_force(caplog: pytest.LogCaptureFixture) -> None:
    metrics, config = Metrics(), config_of(Interval="100ms", Metrics={"MessagesReceived": True})
    metrics.counter("MessagesReceived")
    async with reporting(metrics, config) as transport:
        await told(transport, 1)
        change(config, Interval="often")
        await told(transport, len(transport.published) + 2)
    assert "'often' is no duration" in caplog.text


async def test_a_link_that_is_down_is_said_once_and_metrics_flow_again_after(caplog: pytest.LogCaptureFixture) -> None:
    metrics, config = Metrics(), config_of(Interval="100ms", Metrics={"M": True})
    metrics.counter("M1")
    metrics.counter("M2")
    transport = MemoryTransport()
    transport.is_down = True
    reporter = Reporter(metrics, EdgexBus(transport), config)
    task = asyncio.create_task(reporter.run())
    with caplog.at_level(logging.WARNING):
        await until(lambda: "is not told" in caplog.text)
        transport.is_down = False
        await told(transport, 2)
    task.cancel()
    assert caplog.text.count("is not told") == 1
