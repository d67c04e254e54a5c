"""What an agent asks the stream for, and what of it concerns it."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.event_publisher import event_topic
from edgeagents.model.agent import AgentDefinition, Recent
from edgeagents.model.device import Device, Event, Reading, make_reading
from edgeagents.settings import BusSettings, SiteTime
from edgeagents.subjects import topic_to_subject
from services.agent.inputs import Inputs, event_filters, is_from, is_watched
from services.agent.perception import Twin


def agent(*watches: dict[str, Any]) -> AgentDefinition:
    """Return an agent that watches this."""
    return AgentDefinition.model_validate({"name": "a", "watches": watches})


def filters(*watches: dict[str, Any]) -> list[str]:
    """Return the filters of such an agent."""
    return event_filters(agent(*watches), "edgex", cast(Bus, SimpleNamespace(settings=BusSettings())))


def matches(pattern: str, subject: str) -> bool:
    """Say whether NATS would deliver a subject to a filter."""
    want, have = pattern.split("."), subject.split(".")
    if want[-1] == ">":
        want, have = want[:-1], have[: len(want) - 1] if len(have) >= len(want) else []
    return len(want) == len(have) and all(a in ("*", b) for a, b in zip(want, have, strict=True))


def overlap(one: str, other: str) -> bool:
    """Say whether some subject fits both filters: a consumer must not have such two."""
    left, right = one.split("."), other.split(".")
    for index in range(max(len(left), len(right))):
        a, b = (part[index] if index < len(part) else None for part in (left, right))
        if ">" in (a, b):
            return a is not None and b is not None
        if a is None or b is None or ("*" not in (a, b) and a != b):
            return False
    return True


def test_watching_by_profile_narrows_the_filter() -> None:
    assert filters({"profile": "Sensor"}, {"profile": "Sensor", "resources": ["CO2"]}, {"profile": "Valve"}) == [
        "edgex.events.device.*.Sensor.>", "edgex.events.device.*.Valve.>",
    ]  # fmt: skip


def test_watching_by_device_narrows_the_filter() -> None:
    assert filters({"device": "hall"}) == ["edgex.events.device.*.*.hall.>"]
    assert filters({"device": "hall", "profile": "Sensor"}) == ["edgex.events.device.*.Sensor.hall.>"]
    assert filters({"device": "x", "profile": "y"}, {"profile": "Sensor"}) == [
        "edgex.events.device.*.Sensor.>", "edgex.events.device.*.y.x.>",
    ]  # fmt: skip


def test_watching_resources_narrows_the_filter_as_far_as_their_names() -> None:
    assert filters({"profile": "Sensor", "resources": ["CO2", "T"]}) == [
        "edgex.events.device.*.Sensor.*.CO2", "edgex.events.device.*.Sensor.*.T",
    ]  # fmt: skip
    assert filters({"label": "room", "resources": ["T"]}) == ["edgex.events.device.*.*.*.T"]
    assert filters({"device": "hall", "resources": ["T"]}) == ["edgex.events.device.*.*.hall.T"]


def test_a_dot_may_part_levels_on_an_edgex_that_speaks_nats() -> None:
    bus = cast(Bus, SimpleNamespace(settings=BusSettings(edgex_bus="nats-core")))
    watched = agent({"profile": "Sensor", "resources": ["T"]})
    assert event_filters(watched, "edgex", bus) == ["edgex.events.device.*.Sensor.>"]


def test_watches_that_overlap_are_asked_for_without_resources_or_as_one() -> None:
    both = ({"profile": "A", "resources": ["T"]}, {"profile": "A", "device": "hall"})
    assert filters(*both) == ["edgex.events.device.*.A.>"]
    assert filters({"profile": "A"}, {"device": "hall"}) == ["edgex.events.device.>"]


def test_many_names_are_asked_for_as_one_filter() -> None:
    few = [{"device": f"d{number}", "resources": ["T"]} for number in range(100)]
    assert len(filters(*few)) == 100
    assert filters(*few, *({"device": f"e{number}"} for number in range(100))) == ["edgex.events.device.>"]


@pytest.mark.parametrize("watch", [{"device": "sensor-*"}, {"label": "room"}])
def test_watching_otherwise_takes_all_device_events(watch: dict[str, Any]) -> None:
    assert filters(watch, {"profile": "Sensor"}) == ["edgex.events.device.>"]


def test_a_topic_within_what_is_watched_anyway_is_no_filter_of_its_own() -> None:
    topic = "events/device/svc/Sensor/hall/CO2"
    assert filters({"topic": topic}, {"profile": "Sensor"}) == ["edgex.events.device.*.Sensor.>"]
    assert filters({"topic": topic}, {"topic": "rules/agents"}) == [
        "edgex.events.device.svc.Sensor.hall.CO2", "edgex.rules.agents",
    ]  # fmt: skip


def test_names_are_asked_for_however_publishers_write_them() -> None:
    found = filters({"profile": "Room-Sensor 2"})
    for spelling in ("Room-Sensor%202", "Room%2DSensor%202"):
        assert any(matches(item, f"edgex.events.device.svc.{spelling}.hall.CO2") for item in found), spelling


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("lamp", "lamp"),
        ("lamp-1", "lamp%2D1"),
        ("Sensor_00:15:8d:01", "Sensor%5F00:15:8d:01"),
        ("cam@1", "cam@1"),
        ("Küche:1", "K%C3%BCche:1"),
        ("a:b", "a:b"),
        ("R&D=1", "R&D=1"),
        ("x=1-y", "x=1%2Dy"),
        ("50%", "50%25"),
        ("pump(1)", "pump%281%29"),
        ("lamp 1", "lamp%201"),
        ("o'neil", "o%27neil"),
        ("a,b", "a%2Cb"),
        ("a;b-c", "a%3Bb%2Dc"),
        ("a$b~c", "a$b%7Ec"),
        ("Temp/1", "Temp%2F1"),
        ("x+y.z", "x%2By%2Ez"),
    ],
)
def test_names_that_edgex_escapes_are_asked_for(name: str, escaped: str) -> None:
    spellings = [escaped] if any(letter in "/+ " for letter in name) else [escaped, name]
    for level in spellings:
        subject = topic_to_subject(f"edgex/events/device/svc/{level}/{level}/{level}")
        for watch in ({"profile": name}, {"device": name}, {"profile": name, "resources": [name]}):
            found = filters(watch)
            assert any(matches(item, subject) for item in found), (watch, subject)
            assert "edgex.events.device.>" not in found


names = st.sampled_from(["R&D=1-x", "Sensor", "Room-Sensor", "a.b", "Küche 1", "x~y", "50%", "a/b", "Sensor+"])
watches = st.one_of(
    names.map(lambda name: {"profile": name}),
    names.map(lambda name: {"device": name}),
    st.tuples(names, names).map(lambda pair: {"profile": pair[0], "device": pair[1]}),
    st.tuples(names, st.sampled_from(["CO2", "T-1"])).map(lambda pair: {"profile": pair[0], "resources": [pair[1]]}),
    names.map(lambda name: {"device": name, "resources": ["CO2"]}),
    st.just({"label": "room"}),
    st.just({"topic": "rules/agents"}),
    st.sampled_from(["Sensor", "Room-Sensor"]).map(lambda name: {"topic": f"events/device/svc/{name}/Sensor/CO2"}),
)


@given(st.lists(watches, min_size=1, max_size=5), names, names)
def test_filters_never_overlap_and_let_all_that_is_watched_through(
    watched: list[dict[str, Any]], profile: str, device: str
) -> None:
    found = filters(*watched)
    for index, one in enumerate(found):
        assert not [other for other in found[index + 1 :] if overlap(one, other)], found
    event = sample(device, profile)
    topic = event_topic("svc", event)
    if is_watched(agent(*watched), event, topic, cache()):
        assert any(matches(item, topic_to_subject(f"edgex/{topic}")) for item in found)


def sample(device: str = "hall", profile: str = "Sensor", source: str = "CO2") -> Event:
    """Return an event."""
    reading = Reading(value_type="Int32", value="1", resource_name=source, device_name=device, origin=1)
    return Event(
        id="e", device_name=device, profile_name=profile, source_name=source, origin=1, readings=(reading,)
    )  # fmt: skip


def cache(*devices: Device) -> DeviceCache:
    """Return what core-metadata knows."""
    known = {device.name: device for device in devices}
    return cast(DeviceCache, SimpleNamespace(device=known.get))


HALL = Device(name="hall", profile_name="Sensor", labels=("room",))


@pytest.mark.parametrize(
    ("watch", "event", "topic", "watched"),
    [
        ({"profile": "Sensor"}, sample(), "events/device/x", True),
        ({"profile": "Valve"}, sample(), "events/device/x", False),
        ({"device": "ha*"}, sample(), "events/device/x", True),
        ({"label": "room"}, sample(), "events/device/x", True),
        ({"label": "cellar"}, sample(), "events/device/x", False),
        ({"label": "room"}, sample("unknown"), "events/device/x", False),
        ({"profile": "Sensor"}, sample("unknown"), "events/device/x", True),
        ({"profile": "Sensor", "resources": ["CO2"]}, sample(), "events/device/x", True),
        ({"profile": "Sensor", "resources": ["Noise"]}, sample(), "events/device/x", False),
        ({"topic": "rules/agents"}, sample(), "rules/agents", True),
        ({"topic": "rules/agents"}, sample(), "events/device/x", False),
        ({"profile": "Sensor"}, sample(), "rules/agents", False),
    ],
)
def test_only_what_the_file_asks_for_is_watched(watch: dict[str, Any], event: Event, topic: str, watched: bool) -> None:
    assert is_watched(agent(watch), event, topic, cache(HALL)) is watched


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("events/device/device-world-home/Room-Sensor/sensor-hall/Presence", True),
        ("events/device/any/Any/sensor-hall/CO2", False),
        ("events/device/any/Any/sensor%2Dhall/Presence", True),
        ("rules/agents", False),
    ],
)
def test_an_event_topic_names_its_resource(topic: str, expected: bool) -> None:
    assert is_from(topic, {("sensor-hall", "Presence")}) is expected


DAY_NS = 86_400 * 10**9
NOW_S = 20_480 * 86_400.0  # a Tuesday, at midnight


class Stream:
    """Two weeks of a presence and a temperature, a reading each half hour; somebody is there from eight to ten."""

    settings = BusSettings()
    base = "edgex"

    def __init__(self) -> None:
        self.decoded: list[str] = []
        self.stored = [
            StoredMessage(
                f"edgex.events.device.s.Sensor.hall.{source}", str(at_ns).encode(), {}, "e", 2 * index + half + 1, at_ns
            )
            for index in range(14 * 48)
            for half, source in enumerate(("Presence", "Temperature"))
            for at_ns in [round(NOW_S * 1e9) - (14 * 48 - index) * DAY_NS // 48]
        ]

    async def acknowledged(self, stream: str, durable: str) -> int:
        """Return the last sequence that was handled before the start: two events are left."""
        return len(self.stored) - 2

    async def read(
        self, stream: str, subjects: list[str], *, name: str, start_s: float
    ) -> AsyncIterator[StoredMessage]:
        """Yield what was stored since then."""
        for message in self.stored:
            if message.time_ns >= start_s * 1e9:
                yield message

    async def event(self, topic: str, data: bytes, headers: Any) -> Event:
        """Return the event of a message."""
        source, at_ns = topic.split("/")[-1], int(data)
        self.decoded.append(source)
        kind, value = ("Bool", 8.0 <= at_ns % DAY_NS / 3.6e12 < 10.0) if source == "Presence" else ("Float64", 20.0)
        reading = make_reading("hall", "Sensor", source, kind, value, at_ns, reading_id="r")
        return Event(
            id=f"{source}{at_ns}", device_name="hall", profile_name="Sensor", source_name=source, origin=at_ns,
            readings=(reading,),
        )  # fmt: skip


async def test_habits_are_learned_again_from_weeks_of_the_stream_and_nothing_else_of_them_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.agent.inputs.time", SimpleNamespace(time=lambda: NOW_S))
    presence, stream = ("hall", "Presence"), Stream()
    devices = cast(DeviceCache, SimpleNamespace(device=lambda name: None))
    inputs = Inputs(cast(Bus, stream), cast(EdgexBus, stream), agent({"profile": "Sensor"}), devices)
    twin = Twin(SiteTime(), {presence}, 3600.0, {presence})

    weeks = await inputs.replay(twin, 14 * 86_400.0, {presence}, until_wall_s=3600.0)
    hour = await inputs.replay(twin, 3600.0)

    assert weeks == stream.decoded.count("Presence") - hour // 2
    assert hour == 2  # an hour ago, of both; those half an hour old come as new events
    usual = Recent.model_validate({"of": "hall/Presence", "over": "14d", "take": "usual", "ahead": "1h"})
    shares = [twin.recent(usual, NOW_S + hour * 3600.0) for hour in (6.5, 7.5, 9.0, 10.6)]
    assert [item.value for item in shares if item is not None] == [0.0, 1.0, 1.0, 0.0]


class Feed(Stream):
    """A stream of events of some sources that ends."""

    def __init__(self, *sources: str) -> None:
        super().__init__()
        self.acked: list[int] = []
        self.changed: list[Any] = []
        at_ns = round(NOW_S * 1e9)
        self.stored = [
            Told(f"edgex.events.device.s.Sensor.hall.{source}", str(at_ns).encode(), {}, "edgex-events", number, at_ns)
            for number, source in enumerate(sources, 1)
        ]
        for message in self.stored:
            message.acked = self.acked

    async def consume(self, stream: str, durable: str, filters: list[str], **options: Any) -> AsyncIterator[Any]:
        """Yield all there is."""
        for message in self.stored:
            yield message


class Told(SimpleNamespace):
    """A stored message that notes its acknowledgement."""

    acked: list[int]

    def __init__(self, subject: str, data: bytes, headers: Any, stream: str, sequence: int, time_ns: int) -> None:
        super().__init__(
            subject=subject, data=data, headers=headers, stream=stream, sequence=sequence, time_ns=time_ns
        )  # fmt: skip

    async def ack(self) -> None:
        """Note it."""
        self.acked.append(self.sequence)


async def test_what_the_topic_says_is_not_watched_is_acknowledged_unread() -> None:
    feed = Feed("Presence", "Temperature", "Presence")
    labels: dict[str, Device] = {"hall": HALL}
    devices = cast(DeviceCache, SimpleNamespace(device=labels.get, on_change=feed.changed.append))
    watched = agent({"label": "room", "resources": ["Presence"]}, {"topic": "rules/agents"})
    inputs = Inputs(cast(Bus, feed), cast(EdgexBus, feed), watched, devices)
    await inputs.run_events()
    assert (feed.decoded, feed.acked, inputs.queue.qsize()) == (["Presence", "Presence"], [2], 2)
    assert inputs.counts == {"received": 3, "filtered": 1}
    # A device that lost its label is not watched any more, once that is known.
    labels["hall"] = Device(name="hall", profile_name="Sensor")
    for on_change in feed.changed:
        on_change(None)
    await inputs.run_events()
    assert feed.acked == [2, 1, 2, 3]


async def test_a_label_given_between_the_replay_and_the_first_event_counts() -> None:
    feed = Feed("Presence")
    known: dict[str, Device] = {}
    devices = cast(DeviceCache, SimpleNamespace(device=known.get, on_change=feed.changed.append))
    inputs = Inputs(cast(Bus, feed), cast(EdgexBus, feed), agent({"label": "room"}), devices)
    assert not inputs._may_be_watched("edgex/events/device/s/Sensor/hall/Presence")  # as the replay asks
    known["hall"] = HALL
    await inputs.run_events()
    assert (inputs.queue.qsize(), feed.acked) == (1, [])
