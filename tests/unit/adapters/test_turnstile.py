"""Callers who open connections and say nothing, dribble, or ask without end, on real sockets."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from edgeagents.adapters.serving import bind
from edgeagents.adapters.turnstile import Limits, Pace, guarded

QUICK = Limits(of_peer=4, connections=6, request_s=0.3, exchange_s=0.6, per_s=1000.0, burst=1000)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, or with the path's number of bytes; with none at `/slow` for a second."""
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    match scope["path"]:
        case "/slow":
            await asyncio.sleep(1.0)
            answer = PlainTextResponse("late")
        case "/large":
            answer = PlainTextResponse("x" * (32 << 20))
        case "/early":
            answer = PlainTextResponse("no", 401)
        case _:
            answer = PlainTextResponse(await request.body())
    await answer(scope, receive, send)


class Served:
    """A server within limits, and what it counted."""

    def __init__(self, sock: socket.socket, counts: Counter[str]) -> None:
        self.port = sock.getsockname()[1]
        self.counts = counts
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, peer: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect from an address of this machine."""
        found = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(peer, 0))
        self._writers.append(found[1])
        return found

    async def hang_up(self) -> None:
        """End all connections from here."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def answer(self, peer: str = "127.0.0.1") -> int:
        """Ask once, on a connection of its own; return the status."""
        reader, writer = await self.connect(peer)
        writer.write(GET)
        status = int((await reader.readline()).split()[1])
        writer.close()
        await writer.wait_closed()
        return status


@contextlib.asynccontextmanager
async def served(limits: Limits = QUICK) -> AsyncIterator[Served]:
    counts: Counter[str] = Counter()
    with contextlib.closing(bind("127.0.0.1", 0, key="x")) as sock:
        async with asyncio.TaskGroup() as tasks, guarded(app, sock, tasks, counts, limits):
            found = Served(sock, counts)
            try:
                yield found
            finally:
                await found.hang_up()


async def is_hung_up(reader: asyncio.StreamReader, timeout_s: float = 3.0) -> bool:
    """Say whether the server ends a connection in time."""
    try:
        async with asyncio.timeout(timeout_s):
            while await reader.read(1 << 20):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def test_who_asks_as_one_should_is_answered_again_and_again_on_one_connection() -> None:
    async with served() as server, httpx.AsyncClient(trust_env=False) as http:
        for number in range(5):
            found = await http.post(f"http://127.0.0.1:{server.port}/", content=b"n%d" % number)
            assert found.text == f"n{number}"
            await asyncio.sleep(QUICK.request_s / 2)  # together longer than a request may take
        assert not server.counts.total()


async def test_a_peer_has_so_many_connections_and_others_are_not_shut_out() -> None:
    async with served() as server:
        _ = [await server.connect("127.0.0.2") for _ in range(QUICK.of_peer)]
        more, _ = await server.connect("127.0.0.2")
        assert await is_hung_up(more, QUICK.request_s / 2)
        assert server.counts["turned-away"] == 1
        assert await server.answer("127.0.0.3") == 200


async def test_all_peers_together_have_so_many_connections() -> None:
    async with served() as server:
        _ = [await server.connect(f"127.0.0.{2 + number % 3}") for number in range(QUICK.connections)]
        more, _ = await server.connect("127.0.0.9")
        assert await is_hung_up(more, QUICK.request_s / 2)


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"])
async def test_a_request_that_is_not_whole_in_time_ends_its_connection(begun: bytes) -> None:
    async with served() as server:
        reader, writer = await server.connect()
        writer.write(begun)
        assert await is_hung_up(reader)
        assert server.counts["timed-out"] == 1


@pytest.mark.parametrize(
    "head", [GET[:-2], b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
             b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n"],
    ids=["head", "body", "body of what was answered"],
)  # fmt: skip
async def test_a_byte_now_and_then_does_not_make_it_longer(head: bytes) -> None:
    async with served() as server:
        reader, writer = await server.connect()
        writer.write(head)

        async def dribble() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        dribbling = asyncio.create_task(dribble())
        assert await is_hung_up(reader, 4 * QUICK.request_s)
        assert server.counts["timed-out"] == 1
        dribbling.cancel()
        await asyncio.gather(dribbling, return_exceptions=True)


async def test_an_answer_that_nobody_takes_ends_its_connection() -> None:
    async with served() as server:
        _, writer = await server.connect()
        writer.write(GET.replace(b"/ ", b"/large ", 1))
        for _ in range(100):
            if server.counts["timed-out"]:
                break
            await asyncio.sleep(0.05)
        assert server.counts["timed-out"] == 1


async def test_an_answer_that_is_not_made_in_time_ends_its_connection() -> None:
    async with served() as server:
        reader, writer = await server.connect()
        writer.write(GET.replace(b"/ ", b"/slow ", 1))
        assert await is_hung_up(reader, 0.9)
        assert server.counts["timed-out"] == 1


async def test_room_is_given_back_when_connections_end() -> None:
    async with served() as server:
        for _ in range(4 * QUICK.connections):
            assert await server.answer() == 200
        assert not server.counts["turned-away"]


async def test_a_peer_that_asks_too_often_waits_and_no_other_does() -> None:
    limits = Limits(per_s=10.0, burst=2)
    async with served(limits) as server:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for _ in range(6):
            assert await server.answer("127.0.0.2") == 200
        assert loop.time() - began_s > 0.3
        assert server.counts["slowed"] >= 3
        slowed = server.counts["slowed"]
        assert await server.answer("127.0.0.3") == 200
        assert server.counts["slowed"] == slowed


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    pace = Pace(per_s=10.0, burst=3)
    waits = [pace.wait_s("a", 100.0) for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2])
    assert pace.wait_s("b", 100.0) == 0.0
    assert pace.wait_s("a", 101.0) == 0.0, "a second later there is room again"


def test_addresses_that_are_quiet_are_forgotten() -> None:
    pace = Pace(per_s=10.0, burst=3, most=10)
    for number in range(1000):
        pace.wait_s(f"a{number}", float(number))
    assert len(pace._due_s) <= 11
