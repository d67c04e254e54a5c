"""Objects in a bucket of a real broker: whole or not at all, gone without a trace, by its owner alone."""

import base64
import secrets

import pytest

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.objects import Objects, object_stream
from edgeagents.errors import InvalidInputError, NotFoundError, TooLargeError, UnavailableError


async def store_of(bus: Bus) -> Objects:
    store = Objects(bus, "prefixes", wait_s=5)
    await store.ensure(4 << 20)
    return store


async def test_what_was_put_comes_back_and_is_replaced(bus: Bus) -> None:
    store = await store_of(bus)
    await store.ensure(2 << 20)  # is left as it is
    assert await store.names() == set()
    large = secrets.token_bytes(1 << 20)
    await store.put("a.1", large)
    await store.put("b", b"")
    assert await store.names() == {"a.1", "b"}
    assert await store.get("a.1", 2 << 20) == large
    assert await store.get("b", 10) == b""
    await store.put("a.1", b"other")
    assert await store.get("a.1", 10) == b"other"
    held = (await bus.js.stream_info(object_stream("prefixes"))).state.bytes
    assert held < 2_000, "what lay there before is gone"


async def test_what_is_deleted_leaves_nothing(bus: Bus) -> None:
    store = await store_of(bus)
    await store.put("a", b"x" * 300_000)
    await store.delete("a")
    await store.delete("never")
    assert await store.names() == set()
    assert (await bus.js.stream_info(object_stream("prefixes"))).state.messages == 0
    with pytest.raises(NotFoundError, match="prefixes: a: not there"):
        await store.get("a", 10)


async def test_what_is_too_long_or_changed_or_cut_is_not_given(bus: Bus) -> None:
    store = await store_of(bus)
    await store.put("a", b"x" * 300_000)
    with pytest.raises(TooLargeError, match="300000 bytes: at most 1000"):
        await store.get("a", 1000)
    stream = object_stream("prefixes")
    first = await bus.js.get_msg(stream, seq=1)
    await bus.js.delete_msg(stream, 1)
    with pytest.raises(InvalidInputError, match="not all of it"):
        await store.get("a", 1 << 20)
    assert first.subject is not None
    await bus.js.publish(first.subject, b"y" * 128 * 1024)
    with pytest.raises(InvalidInputError, match="not what was put there"):
        await store.get("a", 1 << 20)
    await bus.js.purge_stream(stream, subject=first.subject)
    with pytest.raises(InvalidInputError):
        await store.get("a", 1 << 20)
    assert await bus.js.consumers_info(stream) == [], "nothing waits there"


async def test_what_a_stop_in_the_middle_leaves_is_tidied_away(bus: Bus) -> None:
    store, stream = await store_of(bus), object_stream("prefixes")
    await store.put("a", b"x" * 300_000)
    await store.put("b", b"x" * 1_000)
    await bus.js.publish("$O.prefixes.C.nobodys", b"z" * 1_000)
    note = base64.urlsafe_b64encode(b"a").decode()
    await bus.js.purge_stream(stream, subject=f"$O.prefixes.M.{note}")
    assert await store.tidy() == 2
    assert await store.tidy() == 0
    assert await store.get("b", 1_000) == b"x" * 1_000
    assert (await bus.js.stream_info(stream)).state.messages == 2


async def test_it_tells_how_much_it_takes(bus: Bus) -> None:
    store = await store_of(bus)
    assert await store.room_bytes() == 4 << 20
    await store.put("a", b"x" * (1 << 20))
    assert 2 << 20 < await store.room_bytes() < 3 << 20


async def test_a_full_bucket_and_one_that_is_not_there_are_said(bus: Bus) -> None:
    nowhere = Objects(bus, "nowhere", wait_s=2)
    with pytest.raises(NotFoundError):
        await nowhere.names()
    with pytest.raises((NotFoundError, UnavailableError)):
        await nowhere.put("a", b"x")
    store = await store_of(bus)
    with pytest.raises(UnavailableError, match="prefixes: big"):
        await store.put("big", b"x" * (5 << 20))
    assert await store.names() == set()
    assert (await bus.js.stream_info(object_stream("prefixes"))).state.bytes == 0, "nothing is left of it"


async def test_notes_that_are_none_are_refused(bus: Bus) -> None:
    store = await store_of(bus)
    await bus.js.publish("$O.prefixes.M.YQ==", b"{}")
    with pytest.raises((InvalidInputError, UnavailableError)):
        await store.get("a", 10)
    await store.delete("a")
    assert await store.names() == set()
