"""Auto events: durations, thresholds, following the devices there are."""

import asyncio
from typing import Any

import pytest

from edgeagents.adapters.auto_events import AutoEvents, has_changed, parse_interval_s
from edgeagents.errors import InvalidInputError, LockedError
from edgeagents.model.device import Event, make_reading
from edgeagents.model.values import Value
from tests.unit.adapters.device_fakes import lamp, until


def event(*values: Value, kind: str = "Float64") -> Event:
    readings = tuple(
        make_reading("lamp", "p", f"r{index}", kind, value, 1, reading_id=f"{index}")
        for index, value in enumerate(values)
    )
    return Event(id="e", device_name="lamp", profile_name="p", source_name="s", origin=1, readings=readings)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1ms", 0.001), ("500ms", 0.5), ("10s", 10), ("1m30s", 90), ("1.5h", 5400), (".5s", 0.5), ("2m0.5s", 120.5)],
)
def test_go_durations_are_read(text: str, seconds: float) -> None:
    assert parse_interval_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "10", "10 s", "-5s", "s", "5s!", "1us", "0s", "0" * 63 + "5s"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="interval"):
        parse_interval_s(text)


@pytest.mark.parametrize(
    ("before", "now", "threshold", "changed"),
    [
        (event(20.0), event(20.0), 0.0, False),
        (event(20.0), event(20.1), 0.0, True),
        (event(20.0), event(20.5), 0.5, False),
        (event(20.0), event(20.6), 0.5, True),
        (event(20.0), event(19.4), 0.5, True),
        (event(1.0, 2.0), event(1.0, 2.5), 0.1, True),
        (event(True, kind="Bool"), event(False, kind="Bool"), 5.0, True),
        (event("a", kind="String"), event("a", kind="String"), 0.0, False),
        (event(1.0), event(None), 5.0, True),
        (event(float("nan")), event(float("nan")), 0.0, True),
        (event(1.0), event(1.0, 2.0), 5.0, True),
    ],
)
def test_numbers_change_beyond_the_threshold_and_others_at_all(
    before: Event, now: Event, threshold: float, changed: bool
) -> None:
    assert has_changed(before, now, threshold) is changed


class Plant:
    """What auto events read and where they go."""

    def __init__(self) -> None:
        self.value = 20.0
        self.error: Exception | None = None
        self.published: list[Event] = []
        self.reads = 0
        self.news = asyncio.Condition()

    async def read(self, device: str, source: str) -> Event:
        self.reads += 1
        async with self.news:
            self.news.notify_all()
        if self.error is not None:
            raise self.error
        return event(self.value).model_copy(update={"device_name": device, "source_name": source})

    async def reads_reach(self, count: int) -> None:
        async with asyncio.timeout(5), self.news:
            await self.news.wait_for(lambda: self.reads >= count)


def auto(**changes: Any) -> dict[str, Any]:
    return {"interval": "5ms", "sourceName": "Temp"} | changes


async def test_an_interval_publishes_again_and_again_and_stops_with_its_device() -> None:
    plant = Plant()
    async with asyncio.TaskGroup() as tasks:
        events = AutoEvents(plant.read, plant.published.append, tasks)
        events.follow([lamp(auto_events=[auto()])])
        await plant.reads_reach(4)
        events.follow([])
    assert len(plant.published) >= 3
    assert {item.source_name for item in plant.published} == {"Temp"}


async def test_on_change_publishes_the_first_value_and_then_only_changes() -> None:
    plant = Plant()
    async with asyncio.TaskGroup() as tasks:
        events = AutoEvents(plant.read, plant.published.append, tasks)
        events.follow([lamp(auto_events=[auto(onChange=True, onChangeThreshold=0.5)])])
        await plant.reads_reach(4)
        plant.value = 20.4
        await plant.reads_reach(plant.reads + 3)
        assert [item.readings[0].decoded() for item in plant.published] == [20.0]
        plant.value = 20.6
        await plant.reads_reach(plant.reads + 3)
        events.stop()
    assert [item.readings[0].decoded() for item in plant.published] == [20.0, 20.6]


async def test_a_device_that_cannot_be_read_is_told_once_and_read_again(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant()
    plant.error = LockedError("device lamp locked")
    async with asyncio.TaskGroup() as tasks:
        events = AutoEvents(plant.read, plant.published.append, tasks)
        events.follow([lamp(auto_events=[auto()])])
        await plant.reads_reach(4)
        plant.error = None
        await plant.reads_reach(plant.reads + 2)
        events.stop()
    assert plant.published
    assert caplog.text.count("device lamp locked") == 1


async def test_only_a_device_whose_plan_changed_starts_anew() -> None:
    plant = Plant()

    def count(device: str) -> int:
        return sum(item.device_name == device for item in plant.published)

    async with asyncio.TaskGroup() as tasks:
        events = AutoEvents(plant.read, plant.published.append, tasks)
        slow, quick = lamp(name="slow", auto_events=[auto(interval="1h")]), lamp(name="quick", auto_events=[auto()])
        events.follow([slow, quick])
        await until(lambda: count("slow") == 1 and count("quick") >= 1)
        events.follow([slow.model_copy(update={"labels": ("moved",)}), quick])
        await until(lambda: count("quick") >= 5)
        assert count("slow") == 1
        events.follow([slow.model_copy(update={"auto_events": quick.auto_events}), quick])
        await until(lambda: count("slow") >= 3)
        events.stop()


async def test_an_interval_nobody_can_read_is_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    plant = Plant()
    async with asyncio.TaskGroup() as tasks:
        events = AutoEvents(plant.read, plant.published.append, tasks)
        events.follow([lamp(auto_events=[auto(interval="soon"), auto()])])
        await plant.reads_reach(1)
        events.stop()
    assert "interval 'soon' is no duration" in caplog.text
