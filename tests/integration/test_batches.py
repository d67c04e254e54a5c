"""Batches into a stream of the real broker: all or none, behind a known end."""

import pytest

from edgeagents.adapters.batches import MOST_MESSAGES, ensure_batch_stream, store_together
from edgeagents.adapters.bus import Bus
from edgeagents.errors import ConflictError, TooLargeError, UnavailableError


async def stream(bus: Bus) -> None:
    """Make the stream that the tests write."""
    await ensure_batch_stream(bus, "tasks", ["gw.tasks.*"], max_age_s=60, max_bytes=1 << 20, max_per_subject=1)


async def kept(bus: Bus) -> dict[str, bytes]:
    """Return what the stream holds."""
    return {message.subject: message.data async for message in bus.read("tasks", [], name="look")}


async def test_a_batch_is_stored_as_one_and_the_newest_of_each_subject_is_kept(bus: Bus) -> None:
    await stream(bus)
    last = await store_together(bus, [("gw.tasks.a", b"1"), ("gw.tasks.b", b"2"), ("gw.tasks.c", b"3")], 0)
    assert last == 3
    assert await store_together(bus, [("gw.tasks.a", b"4")], last) == 4
    await stream(bus)  # made again, it keeps what it has
    assert await kept(bus) == {"gw.tasks.a": b"4", "gw.tasks.b": b"2", "gw.tasks.c": b"3"}


async def test_who_does_not_know_the_streams_end_writes_nothing(bus: Bus) -> None:
    await stream(bus)
    last = await store_together(bus, [("gw.tasks.a", b"1")], 0)
    with pytest.raises(ConflictError):
        await store_together(bus, [("gw.tasks.a", b"2"), ("gw.tasks.b", b"2")], last - 1)
    assert await kept(bus) == {"gw.tasks.a": b"1"}


async def test_a_batch_that_is_refused_in_part_is_refused_whole(bus: Bus) -> None:
    await stream(bus)
    with pytest.raises(UnavailableError):
        await store_together(bus, [("gw.tasks.a", b"1"), ("gw.nowhere", b"2")], 0)
    assert await kept(bus) == {}
    with pytest.raises(TooLargeError):
        await store_together(bus, [("gw.tasks.a", b"1")] * (MOST_MESSAGES + 1), 0)
    with pytest.raises(TooLargeError):
        await store_together(bus, [], 0)
