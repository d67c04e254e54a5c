"""The pipeline that the EdgeX UI shows and edits decides which events are perceived and decided on."""

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Event, make_reading
from services.agent.app import follow_pipeline
from services.agent.pipeline import DEFAULT, Pipeline, read_pipeline, topic_fits

TOPIC = "events/device/svc/Sensor/sensor-1/Climate"


def event(device: str = "sensor-1", profile: str = "Sensor") -> Event:
    """Return an event of two readings."""
    readings = tuple(
        make_reading(device, profile, name, "Float64", 20.0, 1, reading_id="r") for name in ("Temperature", "CO2")
    )
    return Event(id="e", device_name=device, profile_name=profile, source_name="Climate", origin=1, readings=readings)


def pipeline(order: str | None = None, topics: str = "events/device/#", **functions: dict[str, str]) -> Pipeline:
    """Return the default pipeline with changes, as somebody makes them in the UI."""
    tree: dict[str, Any] = deepcopy(dict(DEFAULT))
    if order is not None:
        tree["ExecutionOrder"] = order
    for name, parameters in functions.items():
        tree["Functions"].setdefault(name, {"Parameters": {}})["Parameters"].update(parameters)
    return read_pipeline(tree, topics)


def test_the_default_lets_everything_pass_to_the_rules() -> None:
    found = pipeline()

    assert found.run(event(), TOPIC) == event()
    assert found.stages == {"rule"}


def test_every_function_has_a_parameter_so_that_the_ui_can_put_it_back() -> None:
    # Keeper keeps leaves alone, and the UI offers the functions that it finds there.
    functions = DEFAULT["Functions"]
    assert set(functions) == {name.strip() for name in DEFAULT["ExecutionOrder"].split(",")}
    assert all(item["Parameters"] for item in functions.values())


@pytest.mark.parametrize(
    ("function", "parameters", "passes"),
    [
        ("FilterByDeviceName", {"DeviceNames": "sensor-1, sensor-2"}, True),
        ("FilterByDeviceName", {"DeviceNames": "sensor-2"}, False),
        ("FilterByDeviceName", {"DeviceNames": "sensor-1", "FilterOut": "true"}, False),
        ("FilterByProfileName", {"ProfileNames": "Sensor"}, True),
        ("FilterByProfileName", {"ProfileNames": "Valve"}, False),
        ("FilterBySourceName", {"SourceNames": "Climate"}, True),
        ("FilterBySourceName", {"SourceNames": "Climate", "FilterOut": "TRUE"}, False),
        ("FilterByResourceName", {"ResourceNames": "Humidity"}, False),
    ],
)
def test_a_filter_decides_what_passes(function: str, parameters: dict[str, str], passes: bool) -> None:
    assert bool(pipeline(**{function: parameters}).run(event(), TOPIC)) is passes


def test_a_resource_filter_keeps_only_its_readings() -> None:
    kept = pipeline(FilterByResourceName={"ResourceNames": "CO2"}).run(event(), TOPIC)

    assert kept is not None
    assert [reading.resource_name for reading in kept.readings] == ["CO2"]


def test_a_filter_that_is_not_in_the_order_does_nothing() -> None:
    found = pipeline(order="Perceive, Decide", FilterByDeviceName={"DeviceNames": "sensor-2"})

    assert found.run(event(), TOPIC) is not None


def test_without_perceive_nothing_is_taken_in_and_without_decide_nothing_is_decided() -> None:
    assert pipeline(order="FilterByDeviceName").run(event(), TOPIC) is None
    assert pipeline(order="Perceive").stages == frozenset()
    assert pipeline(order="Perceive").run(event(), TOPIC) is not None


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("Decide, Perceive", "then Decide"),
        ("Perceive, FilterByDeviceName", "filters first"),
        ("Perceive, Perceive", "each once"),
        ("Perceive, Compress", "'Compress'"),
    ],
)
def test_an_order_that_cannot_work_is_named(order: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        pipeline(order=order)


def test_a_wrong_parameter_is_named() -> None:
    with pytest.raises(InvalidInputError, match="FilterOut"):
        pipeline(FilterByDeviceName={"DeviceNames": "a", "FilterOut": "maybe"})


@pytest.mark.parametrize(
    ("topics", "passes"),
    [
        ("events/device/#", True),
        ("events/device/+/Sensor/#", True),
        ("events/device/+/Valve/#", False),
        ("rules/agents", False),
    ],
)
def test_subscribed_topics_decide_what_passes(topics: str, passes: bool) -> None:
    assert bool(pipeline(topics=topics).run(event(), TOPIC)) is passes


def test_what_came_by_http_has_no_topic_and_passes() -> None:
    assert pipeline(topics="rules/agents").run(event(), "") is not None


@pytest.mark.parametrize(
    ("pattern", "topic", "fits"),
    [("#", "a/b", True), ("a/#", "a", True), ("a/+", "a/b", True), ("a/+", "a/b/c", False), ("a/b", "a", False)],
)
def test_topic_filters_are_mqtts(pattern: str, topic: str, fits: bool) -> None:
    assert topic_fits(pattern, topic) is fits


class Shown:
    """A configuration as far as a pipeline needs it; `change` tells of a change below a path."""

    def __init__(self, order: str) -> None:
        self.tree: dict[str, Any] = {**deepcopy(DEFAULT), "ExecutionOrder": order}
        self.change: Callable[[frozenset[str]], None] = lambda paths: None

    def get(self, path: str, otherwise: object = None) -> dict[str, Any]:
        return self.tree

    def text(self, path: str) -> str:
        return "#"

    def watch(self, on_change: Callable[[frozenset[str]], None]) -> None:
        self.change = on_change


def test_a_pipeline_that_cannot_be_is_told_once_and_in_short(caplog: pytest.LogCaptureFixture) -> None:
    wrong, other = "x" * 100_000, "Perceive,Perceive"
    config, loop = Shown(wrong), SimpleNamespace(pipeline=Pipeline())
    follow_pipeline(config, loop)  # type: ignore[arg-type]
    for order in (wrong, wrong, other, other, "Perceive", other):
        config.tree["ExecutionOrder"] = order
        config.change(frozenset({"Writable/Pipeline/Functions/Decide/Parameters/Stages"}))
    told = [record.getMessage() for record in caplog.records]
    assert ["(100000 characters)" in text for text in told] == [True, False, False]
    assert max(map(len, told)) < 400
    assert loop.pipeline.stages == frozenset()
