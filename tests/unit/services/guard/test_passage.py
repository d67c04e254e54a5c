"""Answers that go on piece by piece: they end with whoever asked, and nobody is waited for without end."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message

from services.guard.passage import Question, pass_on


class Writer(httpx.AsyncBaseTransport):
    """Answers with pieces; between them it waits for `more`, for ever when that is never set."""

    def __init__(self, *pieces: bytes, headers: dict[str, str] | None = None) -> None:
        self.pieces, self.headers = pieces, headers or {}
        self.more, self.is_closed = asyncio.Event(), False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Pieces(self), headers=self.headers)


class Pieces(httpx.AsyncByteStream):
    """What a writer writes; says when it is closed."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.writer.pieces[0]
        for piece in self.writer.pieces[1:]:
            await self.writer.more.wait()
            yield piece

    async def aclose(self) -> None:
        self.writer.is_closed = True


class Client:
    """Who asked: what it was sent, and when it goes away."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.has_first, self.goes = asyncio.Event(), asyncio.Event()

    async def receive(self) -> Message:
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.has_first.set()


def question(wait_s: float = 5.0) -> Question:
    return Question("GET", "http://10.0.0.8:59743/v1/chat/completions", b"", {}, wait_s)


async def test_pieces_come_while_more_is_written_and_the_end_is_told() -> None:
    writer, client = Writer(b"a", b"b", headers={"retry-after": "2", "set-cookie": "x=y"}), Client()
    async with httpx.AsyncClient(transport=writer) as http, asyncio.TaskGroup() as tasks:
        tasks.create_task(pass_on(http, question(), client.receive, client.send))
        async with asyncio.timeout(5):
            await client.has_first.wait()
        assert client.sent[0]["headers"] == [(b"retry-after", b"2")], "nothing else of the other side's headers"
        assert [message["body"] for message in client.sent[1:]] == [b"a"]
        writer.more.set()
    assert [message["body"] for message in client.sent[1:]] == [b"a", b"b", b""]
    assert [message["more_body"] for message in client.sent[1:]] == [True, True, False]


async def test_a_client_that_goes_away_ends_what_is_written_for_it() -> None:
    writer, client = Writer(b"a", b"b"), Client()
    async with httpx.AsyncClient(transport=writer) as http, asyncio.TaskGroup() as tasks:
        passing = tasks.create_task(pass_on(http, question(), client.receive, client.send))
        async with asyncio.timeout(5):
            await client.has_first.wait()
        client.goes.set()
        async with asyncio.timeout(5):
            await passing
    assert writer.is_closed
    assert client.sent[-1]["more_body"], "it never came to an end"


async def test_a_silence_that_is_too_long_breaks_off() -> None:
    writer, client = Writer(b"a", b"b"), Client()
    async with httpx.AsyncClient(transport=writer) as http:
        await pass_on(http, question(wait_s=0.05), client.receive, client.send)
    assert writer.is_closed
    assert client.sent[-1]["more_body"]


async def test_who_never_answers_is_told_while_it_can_be() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    client = Client()
    async with httpx.AsyncClient(transport=Silent()) as http:
        with pytest.raises(TimeoutError):
            await pass_on(http, question(wait_s=0.05), client.receive, client.send)
    assert client.sent == []
