"""Streams on a real nats-server: stored or told, read to the end, delivered through kill -9."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.errors import (
    ConflictError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from tests.nats import NatsServer, until


async def take(
    messages: AsyncGenerator[StoredMessage, None], count: int, *, acknowledge: bool = True
) -> list[StoredMessage]:
    """Return the next messages of a consumer, and end its following."""
    taken = []
    async with contextlib.aclosing(messages):
        async for message in messages:
            taken.append(message)
            if acknowledge:
                await message.ack()
            if len(taken) == count:
                break
    return taken


async def everything(messages: AsyncIterator[StoredMessage]) -> list[bytes]:
    """Return the data of all that a stream holds."""
    return [message.data async for message in messages]


@pytest.fixture
async def stream(bus: Bus) -> Bus:
    """A connection whose server has a stream `s` on `s.>`."""
    await bus.ensure_stream("s", ["s.>"])
    return bus


# --- storing -------------------------------------------------------------------------------------


async def test_a_stored_message_has_the_next_sequence(stream: Bus) -> None:
    assert [await stream.store("s.a", b"1"), await stream.store("s.b", b"2")] == [1, 2]


async def test_an_unexpected_last_sequence_is_a_conflict_and_stores_nothing(stream: Bus) -> None:
    assert await stream.store("s.a", b"1", expected_last=0) == 1
    await stream.store("s.b", b"another subject does not count")
    assert await stream.store("s.a", b"2", expected_last=1) == 3
    for wrong in (0, 1, 9):
        with pytest.raises(ConflictError, match=r"s\.a"):
            await stream.store("s.a", b"3", expected_last=wrong)
    assert await everything(stream.read("s", ["s.a"], name="r")) == [b"1", b"2"]


async def test_a_second_message_of_one_id_is_dropped(stream: Bus) -> None:
    first = await stream.store("s.a", b"1", message_id="id-1")
    assert await stream.store("s.a", b"again", message_id="id-1") == first
    assert await stream.store("s.a", b"2", message_id="id-2") == first + 1
    assert await everything(stream.read("s", [], name="r")) == [b"1", b"2"]


async def test_headers_are_kept(stream: Bus) -> None:
    await stream.store("s.a", b"1", {"Content-Type": "application/json", "X-Correlation-ID": "ä"})
    stored = await stream.last("s", "s.a")
    assert stored is not None
    assert (stored.headers["Content-Type"], stored.headers["X-Correlation-ID"]) == ("application/json", "ä")


async def test_storing_where_no_stream_listens_says_so_at_once(bus: Bus) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(UnavailableError, match="no stream captures it"):
            await bus.store("nowhere.a", b"1", timeout_s=600)


async def test_more_bytes_than_the_broker_takes_are_too_large(stream: Bus) -> None:
    big = bytes(2 * 1024 * 1024)
    for call in (stream.store("s.a", big), stream.publish("s.a", big)):
        with pytest.raises(TooLargeError, match="max_payload"):
            await call


async def test_a_stream_is_brought_to_new_subjects_and_limits_and_keeps_its_messages(stream: Bus) -> None:
    await stream.store("s.a", b"1")
    await stream.ensure_stream("s", ["s.>", "t.>"], max_per_subject=1, max_age_s=60)
    await stream.store("t.a", b"2")
    await stream.store("t.a", b"3")
    assert await everything(stream.read("s", [], name="r")) == [b"1", b"3"]


async def test_overlapping_streams_are_refused_by_name(stream: Bus) -> None:
    with pytest.raises(UnavailableError, match=r"stream other: .*overlap"):
        await stream.ensure_stream("other", ["s.a"])


@pytest.mark.parametrize("gateway", ["gw", "edgex", "home.one"])
async def test_all_streams_of_a_gateway_stand_side_by_side(bus: Bus, gateway: str) -> None:
    for name, captured in subjects.stream_subjects(gateway).items():
        await bus.ensure_stream(name, captured)
    command = subjects.command(gateway, "lamp 1", "comfort")
    event = subjects.topic_to_subject("edgex/events/device/svc/p.v1/lamp/Power")
    for subject in (command, event, subjects.audit(gateway, "guard", "i-1"), subjects.dead_letter(gateway, "app-x")):
        assert await bus.store(subject, b"1") == 1


@pytest.mark.parametrize("name", ["lamp 1", "温度", "a.b", "50%", "*", ">", "x" * 100])
async def test_any_name_makes_a_subject_a_durable_and_a_key_that_nats_takes(bus: Bus, name: str) -> None:
    await bus.ensure_stream("c", [subjects.commands("gw")])
    await bus.store(subjects.command("gw", name, name), b"1")
    (message,) = await take(bus.consume("c", subjects.agent_durable(name), [subjects.command("gw", name, name)]), 1)
    assert subjects.parse_command(message.subject) == (name, name)
    keys = await bus.js.create_key_value(bucket=subjects.LEASES_BUCKET)
    await keys.put(subjects.lease_key(name, name), b"2")
    assert (await keys.get(subjects.lease_key(name, name))).value == b"2"


# --- reading -------------------------------------------------------------------------------------


async def test_the_last_message_of_a_subject_or_none(stream: Bus) -> None:
    assert await stream.last("s", "s.a") is None
    await stream.store("s.a", b"1")
    await stream.store("s.a", b"2")
    await stream.store("s.b", b"3")
    found = await stream.last("s", "s.a")
    assert found is not None
    assert (found.data, found.sequence, found.subject, found.stream) == (b"2", 2, "s.a", "s")
    assert await stream.last_sequence("s") == 3


async def test_the_newest_message_of_all_subjects_of_a_pattern_or_none(stream: Bus) -> None:
    assert await stream.newest("s", "s.*.level") is None
    for subject in ("s.a.level", "s.b.level", "s.b.other"):
        await stream.store(subject, subject.encode())
    found = await stream.newest("s", "s.*.level")
    assert found is not None
    assert (found.data, found.sequence, found.subject, found.stream) == (b"s.b.level", 2, "s.b.level", "s")


async def test_reading_ends_with_what_the_stream_holds(stream: Bus) -> None:
    assert await everything(stream.read("s", [], name="r")) == []
    await asyncio.gather(*(stream.store(f"s.{number % 2}", b"%d" % number) for number in range(1203)))
    assert len(await everything(stream.read("s", [], name="r"))) == 1203
    assert len(await everything(stream.read("s", ["s.0"], name="r"))) == 602
    assert len(await everything(stream.read("s", ["s.0", "s.1"], name="r"))) == 1203
    assert len(await everything(stream.read("s", [], name="r", start_sequence=1200))) == 4
    assert len(await everything(stream.read("s", [], name="r", last_per_subject=True))) == 2
    assert await everything(stream.read("s", ["s.9"], name="r")) == []
    assert await everything(stream.read("s", [], name="r", start_sequence=5000)) == []


async def test_reading_from_a_time_on(stream: Bus) -> None:
    await stream.store("s.a", b"1")
    await stream.store("s.a", b"2")
    second = (await take(stream.read("s", [], name="r"), 2))[1]
    assert await everything(stream.read("s", [], name="r", start_s=second.time_ns / 1e9 - 1e-6)) == [b"2"]
    assert await everything(stream.read("s", [], name="r", start_s=second.time_ns / 1e9 + 3600)) == []


async def test_a_reading_broken_off_does_not_disturb_the_next_one(stream: Bus) -> None:
    for number in range(5):
        await stream.store("s.a", b"%d" % number)
    reading = stream.read("s", [], name="r")
    async for _ in reading:
        break
    assert len(await everything(stream.read("s", [], name="r"))) == 5
    await reading.aclose()
    assert len(await everything(stream.read("s", [], name="r"))) == 5


async def test_reading_ends_although_limits_drop_messages_meanwhile(stream: Bus) -> None:
    for number in range(600):
        await stream.store("s.a", b"%d" % number)
    seen = 0
    async with asyncio.timeout(30):
        async for _ in stream.read("s", [], name="r"):
            seen += 1
            if seen == 1:
                await stream.js.purge_stream("s")
    assert seen == 500  # what the first pull had brought


async def test_reading_a_stream_that_is_not_there_is_not_found(bus: Bus) -> None:
    with pytest.raises(NotFoundError, match="stream nope"):
        await everything(bus.read("nope", [], name="r"))
    with pytest.raises(NotFoundError, match="stream nope"):
        await bus.last_sequence("nope")
    with pytest.raises(NotFoundError, match="consumer d of stream nope"):
        await bus.acknowledged("nope", "d")


# --- consuming -----------------------------------------------------------------------------------


async def test_what_is_not_acknowledged_comes_again(stream: Bus) -> None:
    await stream.store("s.a", b"1")
    await stream.store("s.a", b"2")
    messages = stream.consume("s", "d", ["s.>"], ack_wait_s=0.3)
    first, second = await take(messages, 2, acknowledge=False)
    assert (first.deliveries, second.deliveries) == (1, 1)
    await second.ack()
    await second.ack()  # a repeat is harmless
    (again,) = await take(stream.consume("s", "d", ["s.>"], ack_wait_s=0.3), 1)
    assert (again.data, again.sequence) == (b"1", first.sequence)
    assert again.deliveries >= 2  # it may have been sent once more to a follower that had just ended


async def test_a_durable_goes_on_where_it_stopped(stream: Bus, nats_server: NatsServer) -> None:
    for number in range(4):
        await stream.store("s.a", b"%d" % number)
    await take(stream.consume("s", "d", ["s.>"], batch=1), 2)
    await stream.flush()
    assert await stream.acknowledged("s", "d") == 2
    other = await Bus.connect(nats_server.settings(), "other")
    assert [message.data for message in await take(other.consume("s", "d", ["s.>"], batch=1), 2)] == [b"2", b"3"]
    await other.close()


async def test_a_new_durable_may_start_with_what_comes_now(stream: Bus) -> None:
    await stream.store("s.a", b"old")
    messages = stream.consume("s", "d", ["s.>"], deliver_new=True)
    waiting = asyncio.create_task(take(messages, 1))
    await consumer_of(stream, "s", "d")
    await stream.store("s.a", b"new")
    assert [message.data for message in await waiting] == [b"new"]


async def consumer_of(bus: Bus, stream: str, durable: str) -> None:
    """Wait until a stream has a consumer."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(NotFoundError):
                await bus.acknowledged(stream, durable)
                return
            await asyncio.sleep(0.01)


async def test_a_consumer_waits_for_its_stream_and_says_so_once(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    waiting = asyncio.create_task(take(bus.consume("late", "d", ["late.>"]), 1))
    await until(lambda: "late" in caplog.text)
    await bus.ensure_stream("late", ["late.>"])
    await bus.store("late.a", b"1")
    assert [message.data for message in await waiting] == [b"1"]
    assert caplog.text.count("trying again") == 1


async def test_a_consumer_that_was_deleted_is_made_again(stream: Bus) -> None:
    messages = stream.consume("s", "d", ["s.>"])
    await stream.store("s.a", b"1")
    await take(messages, 1)
    await stream.js.delete_consumer("s", "d")
    sequence = await stream.store("s.a", b"2")
    async with asyncio.timeout(15):
        seen = [message.sequence for message in await take(stream.consume("s", "d", ["s.>"]), 2)]
    assert seen == [1, sequence]


async def test_every_stored_message_is_seen_through_a_kill_and_a_restart(stream: Bus, nats_server: NatsServer) -> None:
    seen: dict[int, bytes] = {}
    stored: dict[int, bytes] = {}
    has_some = asyncio.Event()

    async def follow() -> None:
        async for message in stream.consume("s", "d", ["s.>"]):
            seen[message.sequence] = message.data
            await message.ack()
            has_some.set()

    async def store(number: int) -> None:
        while True:
            with contextlib.suppress(UnavailableError):
                sequence = await stream.store("s.a", b"%d" % number, message_id=f"m{number}", timeout_s=1)
                stored[sequence] = b"%d" % number
                return
            await asyncio.sleep(0.02)  # a link that is down refuses at once

    following = asyncio.create_task(follow())
    for number in range(30):
        await store(number)
        if number in (9, 19):
            await has_some.wait()
            await asyncio.to_thread(nats_server.kill)
            await asyncio.to_thread(nats_server.start)
    await until(lambda: seen == stored, 30)
    assert sorted(stored.values(), key=int) == [b"%d" % number for number in range(30)]
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_cancelling_a_consumer_ends_it_even_when_a_message_comes_in_the_same_turn(stream: Bus) -> None:
    for number in range(20):
        arrived = asyncio.Event()

        async def follow(durable: str = f"d{number}", arrived: asyncio.Event = arrived) -> None:
            async for message in stream.consume("s", durable, ["s.>"], deliver_new=True):
                await message.ack()
                arrived.set()

        following = asyncio.create_task(follow())
        await consumer_of(stream, "s", f"d{number}")
        await stream.store("s.a", b"1")
        await arrived.wait()
        storing = asyncio.create_task(stream.store("s.a", b"2"))
        await asyncio.sleep(0.0001 * number)
        following.cancel()
        await asyncio.wait({following}, timeout=5)
        assert following.cancelled()
        await storing


async def test_closing_ends_a_consumer_without_an_error(stream: Bus) -> None:
    following = asyncio.create_task(take(stream.consume("s", "d", ["s.>"]), 1))
    await consumer_of(stream, "s", "d")
    await stream.close()
    async with asyncio.timeout(10):
        assert await following == []


async def test_a_connection_that_the_server_ends_for_good_is_told(
    stream: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    following = asyncio.create_task(take(stream.consume("s", "d", ["s.>"]), 1))
    await consumer_of(stream, "s", "d")
    await stream.client._process_err("'Maximum Connections Exceeded'")  # what nats-py does with such an -ERR
    async with asyncio.timeout(10):
        await stream.closed.wait()
        with pytest.raises(UnavailableError, match="consumer d of stream s: the connection is closed"):
            await following
    assert "the server closed the connection" in caplog.text
