"""A followed consumer asks for more before it has used up what it asked for, and knows what a request leaves behind."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg
from nats.js import api

from edgeagents.adapters import pull
from edgeagents.adapters.pull import Pull


class Server:
    """The broker's side of one consumer: requests as they came, and messages when the test says so."""

    def __init__(self) -> None:
        self.stats = {"reconnects": 0}
        self.is_connected, self.is_closed = True, False
        self.requests: list[int] = []
        self.consumers = 0
        self._deliver: Any = None

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def add_consumer(self, stream: str, config: api.ConsumerConfig) -> None:
        self.consumers += 1

    async def subscribe(self, subject: str, cb: Any) -> "Server":
        self._deliver = cb
        return self

    def take_at_once(self, subscription: "Server", take: Callable[[Msg], None]) -> Callable[[], None]:
        """Deliver as messages are read."""

        async def deliver(message: Msg) -> None:
            take(message)

        self._deliver = deliver
        return lambda: None

    async def unsubscribe(self) -> None:
        self._deliver = None

    async def publish(self, subject: str, data: bytes, reply: str) -> None:
        self.requests.append(json.loads(data)["batch"])

    async def send(self, count: int = 1, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        for number in range(count):
            await self._deliver(Msg(self, "s", "$JS.ACK.x", str(number).encode(), named or None))  # type: ignore[arg-type]


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def messages(server: Server) -> AsyncGenerator[AsyncGenerator[Msg, None], None]:
    config = api.ConsumerConfig(durable_name="agent-x")
    found = Pull(server, server, "edgex-events", config, 10).follow()  # type: ignore[arg-type]
    yield found
    await found.aclose()


async def begun(messages: AsyncGenerator[Msg, None], server: Server) -> "asyncio.Task[Msg]":
    """Wait for the first message, the request for it having gone out."""
    task = asyncio.ensure_future(anext(messages))
    await requested(server, 1)
    return task


async def some_turns() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def requested(server: Server, count: int, consumers: int = 1) -> None:
    """Wait until so many requests went out, and so many consumers were made."""
    async with asyncio.timeout(10):
        while len(server.requests) < count or server.consumers < consumers:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_what_came_is_handed_on_in_order_without_a_turn_of_the_loop(server: Server, messages: Any) -> None:
    first = await begun(messages, server)
    await server.send(4)
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, "the loop turned")
    assert (await first).data == b"0"
    turns.clear()
    asyncio.get_running_loop().call_soon(turns.append, "the loop turned")

    found = [(await anext(messages)).data for _ in range(3)]

    assert found == [b"1", b"2", b"3"]
    assert turns == []


async def test_who_waits_for_the_consumer_is_told_once_it_is_there(server: Server) -> None:
    created = asyncio.Event()
    config = api.ConsumerConfig(durable_name="agent-x")
    found = Pull(server, server, "edgex-events", config, 10, created).follow()  # type: ignore[arg-type]
    assert not created.is_set()
    first = await begun(found, server)
    assert (created.is_set(), server.consumers) == (True, 1)
    await server.send()
    await first
    await found.aclose()


async def test_more_is_asked_for_once_half_is_used(server: Server, messages: Any) -> None:
    first = await begun(messages, server)
    await server.send(6)
    await first
    for _ in range(4):
        await anext(messages)
    assert server.requests == [10]

    await anext(messages)

    assert server.requests == [10, 10]


async def test_a_request_that_ran_out_counts_as_far_as_it_was_not_used(server: Server, messages: Any) -> None:
    first = await begun(messages, server)
    await server.send(6)
    await first
    for _ in range(5):
        await anext(messages)
    assert server.requests == [10, 10]  # 14 are asked for and not there yet
    waiting = asyncio.ensure_future(anext(messages))

    await server.send(Status="408", Nats_Pending_Messages="4")
    await server.send()
    await waiting
    assert server.requests == [10, 10]  # the second one still stands

    waiting = asyncio.ensure_future(anext(messages))
    await server.send(Status="408")  # an older server does not say how much: nothing is left then
    await server.send()
    await waiting
    assert server.requests == [10, 10, 10]


async def test_heartbeats_keep_a_request_and_silence_renews_it(
    server: Server, messages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "WAKE_S", 0.0)
    now = [100.0]
    monkeypatch.setattr(pull, "time", SimpleNamespace(monotonic=lambda: now[0]))
    first = await begun(messages, server)
    now[0] += pull.LOST_AFTER_S - 0.1
    await server.send(Status="100")
    await some_turns()
    now[0] += pull.LOST_AFTER_S - 0.1
    await some_turns()
    assert server.requests == [10]

    now[0] += 0.2 + pull.LOST_AFTER_S
    await requested(server, 2)

    await server.send()
    assert (await first).data == b"0"


async def test_a_reconnect_renews_the_request(server: Server, messages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "WAKE_S", 0.0)
    first = await begun(messages, server)
    server.stats["reconnects"] = 1

    await requested(server, 2)

    await server.send()
    await first


async def test_a_consumer_that_is_gone_is_made_again(
    server: Server, messages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "AGAIN_S", 0.0)
    first = await begun(messages, server)

    await server.send(Status="409", Description="Consumer Deleted")
    await requested(server, 2, consumers=2)

    await server.send()
    assert (await first).data == b"0"


async def test_a_wait_that_is_cancelled_ends(server: Server, messages: Any) -> None:
    first = await begun(messages, server)

    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_connection_that_is_closed_for_good_is_told(
    server: Server, messages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "WAKE_S", 0.0)
    first = await begun(messages, server)

    server.is_closed = True

    with pytest.raises(nats.errors.ConnectionClosedError):
        await first
