"""Events reach the stream in order and once, through an outage; what cannot be kept is counted."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.event_publisher import EventPublisher, EventSink, StreamSink, TopicSink, event_topic
from edgeagents.adapters.events import decode_message
from edgeagents.errors import TooLargeError, UnavailableError
from edgeagents.journal import Journal, read_journal
from edgeagents.model.device import Event, make_reading
from edgeagents.model.envelope import EventMessage
from edgeagents.settings import BusSettings
from edgeagents.subjects import subject_to_topic
from tests.unit.adapters.device_fakes import MemoryBus, MemoryTransport, until


def event(number: int, device: str = "lamp", source: str = "Temp") -> Event:
    reading = make_reading(device, "p.v1", source, "Float64", 20.5, 5, reading_id="r")
    return Event(
        id=f"e{number}", device_name=device, profile_name="p.v1", source_name=source, origin=5, readings=(reading,)
    )


@contextlib.asynccontextmanager
async def running(sink: EventSink, **options: object) -> AsyncIterator[EventPublisher]:
    publisher = EventPublisher("device-lamps", sink, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(publisher.run())
    yield publisher
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_events_are_stored_in_order_under_their_own_id(tmp_path: Path) -> None:
    bus = MemoryBus(BusSettings())
    journal = Journal.open(tmp_path / "world.jsonl")
    async with running(StreamSink(bus), journal=journal) as publisher:  # type: ignore[arg-type]
        for number in range(5):
            publisher.offer(event(number), "correlation")
        assert await publisher.drain(5)
    journal.close()
    assert [message_id for _, _, message_id in bus.stored] == ["e0", "e1", "e2", "e3", "e4"]
    subject, envelope, _ = bus.stored[0]
    assert subject == "edgex.events.device.device-lamps.p//v1.lamp.Temp"
    assert envelope["correlationID"] == "correlation"
    lines = read_journal(tmp_path / "world.jsonl")
    assert [(line["kind"], line["id"], line["stream_seq"], line["subject"]) for line in lines] == [
        ("event", f"e{number}", number + 1, subject) for number in range(5)
    ]
    assert all(line["origin_ns"] == 5 and line["published_ns"] > 5 for line in lines)
    assert (publisher.published, publisher.resent, publisher.gaps, publisher.waiting) == (5, 0, 0, 0)


async def test_what_was_not_acknowledged_is_sent_again_before_the_next() -> None:
    bus = MemoryBus(BusSettings())
    bus.failures = [UnavailableError("no acknowledgement"), UnavailableError("no acknowledgement")]
    async with running(StreamSink(bus)) as publisher:  # type: ignore[arg-type]
        publisher.offer(event(1))
        publisher.offer(event(2))
        assert await publisher.drain(5)
    assert bus.attempts == ["e1", "e1", "e1", "e2"]
    assert (publisher.published, publisher.resent) == (2, 2)


async def test_a_full_backlog_gives_up_the_oldest_and_counts_the_gap(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bus = MemoryBus(BusSettings())
    bus.is_connected = False
    journal = Journal.open(tmp_path / "world.jsonl")
    async with running(StreamSink(bus), journal=journal, backlog=3) as publisher:  # type: ignore[arg-type]
        publisher.offer(event(0))
        await until(lambda: publisher.resent)
        for number in range(1, 6):
            publisher.offer(event(number))
        assert (publisher.gaps, publisher.waiting) == (2, 4)
        assert not await publisher.drain(0.01)
        bus.is_connected = True
        assert await publisher.drain(5)
    assert [message_id for _, _, message_id in bus.stored] == ["e0", "e3", "e4", "e5"]
    assert caplog.text.count("is lost: backlog full") == 1
    gaps = [line["id"] for line in read_journal(tmp_path / "world.jsonl") if line["kind"] == "gap"]
    assert gaps == ["e1", "e2"]
    journal.close()


async def test_an_event_that_can_never_be_sent_does_not_hold_up_the_others() -> None:
    bus = MemoryBus(BusSettings())
    bus.failures = [TooLargeError("beyond max_payload")]
    async with running(StreamSink(bus)) as publisher:  # type: ignore[arg-type]
        publisher.offer(event(1))
        publisher.offer(event(2))
        assert await publisher.drain(5)
    assert [message_id for _, _, message_id in bus.stored] == ["e2"]
    assert publisher.gaps == 1


async def test_without_a_stream_events_are_published_plainly(tmp_path: Path) -> None:
    transport, bus = MemoryTransport(), MemoryBus(BusSettings(edgex_bus="nats-core"))
    journal = Journal.open(tmp_path / "j.jsonl")
    async with running(TopicSink(bus, EdgexBus(transport)), journal=journal) as publisher:  # type: ignore[arg-type]
        transport.is_down = True
        publisher.offer(event(1))
        await asyncio.sleep(0)
        transport.is_down = False
        assert await publisher.drain(5)
    journal.close()
    assert [topic for topic, _ in transport.published] == ["edgex/events/device/device-lamps/p.v1/lamp/Temp"]
    assert bus.stored == []
    assert read_journal(tmp_path / "j.jsonl")[0]["stream_seq"] is None


@pytest.mark.parametrize(("device", "source"), [("a b", "P.*"), ("lamp/1", "x+y#z"), ("100%", "caf\u00e9 >")])
async def test_any_name_can_be_carried_and_comes_back(device: str, source: str) -> None:
    bus = MemoryBus(BusSettings())
    async with running(StreamSink(bus)) as publisher:  # type: ignore[arg-type]
        publisher.offer(event(1, device, source))
        assert await publisher.drain(5)
    subject, envelope, _ = bus.stored[0]
    message = decode_message(subject_to_topic(subject), json.dumps(envelope).encode())
    assert isinstance(message, EventMessage)
    assert (message.event.device_name, message.event.source_name) == (device, source)


def test_plain_names_stand_in_topics_as_they_are() -> None:
    assert event_topic("device-x", event(1, "lamp-1", "a_b.c~d")) == "events/device/device-x/p.v1/lamp-1/a_b.c~d"
