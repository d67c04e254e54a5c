"""Reading a stream while somebody stands still: all of it comes, or it is said that it does not."""

import asyncio
from typing import Any

import pytest

from edgeagents.adapters import streams
from edgeagents.adapters.bus import Bus
from edgeagents.errors import UnavailableError
from tests.contract.waiting import until
from tests.nats import NatsServer


@pytest.fixture
async def stream(bus: Bus) -> Bus:
    """A bus with a stream `s` of ten messages."""
    await bus.ensure_stream("s", ["s.>"])
    for number in range(10):
        await bus.store("s.a", b"%d" % number)
    return bus


def pulled(bus: Bus, monkeypatch: pytest.MonkeyPatch, *, loses: bool = False) -> list[float]:
    """Have what a reader's first pull brings come after its time; return how long each pull would wait.

    Args:
        bus: that reads.
        monkeypatch: undoes it.
        loses: what came of it meanwhile is gone, as with a link that broke.
    """
    bind, waited = bus.js.pull_subscribe_bind, list[float]()

    async def bound(*args: Any, **options: Any) -> Any:
        subscription = await bind(*args, **options)
        fetch = subscription.fetch

        async def fetched(batch: int, timeout: float) -> Any:
            waited.append(timeout)
            if len(waited) > 1:
                return await fetch(batch, timeout=timeout)
            pulling, queue = asyncio.ensure_future(fetch(batch, timeout=timeout)), subscription._sub._pending_queue
            await asyncio.sleep(0)  # it has asked
            pulling.cancel()
            await until(lambda: queue.qsize() >= 10, "it has come, too late")
            while loses and not queue.empty():
                queue.get_nowait()
            raise TimeoutError

        subscription.fetch = fetched
        return subscription

    monkeypatch.setattr(bus.js, "pull_subscribe_bind", bound)
    return waited


async def test_what_came_while_the_reader_stood_still_is_read(stream: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = pulled(stream, monkeypatch)
    found = [message.data async for message in stream.read("s", [], name="r")]
    assert found == [b"%d" % number for number in range(10)]
    assert len(waited) == 2


async def test_what_broke_off_with_the_link_is_not_taken_for_the_end(
    stream: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_PULL_S", 0.1)
    pulled(stream, monkeypatch, loses=True)
    with pytest.raises(UnavailableError, match="reading stream s"):
        async with asyncio.timeout(30):
            [message async for message in stream.read("s", [], name="r")]


async def test_of_two_readers_of_one_name_none_takes_a_part_for_the_whole(
    stream: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_PULL_S", 0.2)
    for number in range(10, 1500):
        await stream.publish("s.a", b"%d" % number)

    async def are_stored() -> bool:
        return await stream.last_sequence("s") == 1500

    await until(are_stored, "all are stored")
    whole = [b"%d" % number for number in range(1500)]

    async def read(bus: Bus) -> str:
        try:
            found = [message.data async for message in bus.read("s", [], name="r")]
        except UnavailableError:
            return "told"
        assert found == whole, f"{len(found)} messages, {len(set(found))} of them different"
        return "whole"

    other = await Bus.connect(nats_server.settings(), "other")
    try:
        for wait_ms in range(0, 40, 4):
            first = asyncio.create_task(read(stream))
            await asyncio.sleep(wait_ms / 1000)
            await read(other)
            await first
    finally:
        await other.close()


async def test_what_is_delivered_again_is_not_counted_twice(stream: Bus, nats_server: NatsServer) -> None:
    for number in range(10, 2000):
        await stream.store("s.a", b"%d" % number)
    whole, seen = [b"%d" % number for number in range(2000)], list[bytes]()
    try:
        async for message in stream.read("s", [], name="r"):
            seen.append(message.data)
            if len(seen) == 700:
                nats_server.kill()
                nats_server.start()
    except UnavailableError:
        assert seen == whole[: len(seen)], "until it was told"
    else:
        assert seen == whole
