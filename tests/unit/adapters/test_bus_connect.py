"""What answers at the broker's address may be no broker: that is told, and a link outlives it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from edgeagents.adapters.bus import Bus
from edgeagents.errors import UnavailableError
from edgeagents.settings import BusSettings
from tests.nats import until

INFO = b'INFO {"server_id": "a", "version": "2.10.0", "max_payload": 1048576, "headers": true}\r\n'


class Server:
    """Greets each connection with the next of its words, the last for all that follow; a PING gets its PONG."""

    def __init__(self, *words: bytes) -> None:
        self.words = list(words)
        self.greeted = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.serving: list[asyncio.Task[None] | None] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.serving.append(asyncio.current_task())
        self.greeted += 1
        writer.write(self.words.pop(0) if len(self.words) > 1 else self.words[0])
        try:
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
        except (OSError, ValueError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*words: bytes) -> AsyncIterator[Server]:
    server = Server(*words)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for writer in server.writers:
            writer.close()
        await listening.wait_closed()
        await asyncio.gather(*(task for task in server.serving if task is not None))


@pytest.mark.parametrize(
    ("greeting", "cause"),
    [
        (b"INFO []\r\n", "no NATS server"),
        (b"INFO 3\r\n", "no NATS server"),
        (b"INFO " + b"x" * (1 << 17), "no NATS server"),
        (b'INFO {"connect_urls": [3, "["]}\r\n', "no NATS server"),
        (b"INFO {nope\r\n", "json parse error"),
        (b"HTTP/1.1 400 Bad\r\n", "empty response"),
        (INFO.replace(b"}", b', "tls_required": true}'), r"it asks for TLS \(\w"),
    ],
)
async def test_a_server_that_is_no_broker_of_ours_is_told_in_words(greeting: bytes, cause: str) -> None:
    async with serving(greeting) as server:
        settings = BusSettings(nats_url=server.url, connect_timeout_s=0.5)
        with pytest.raises(UnavailableError, match=f"no connection: .*{cause}"):
            await Bus.connect(settings, "x")


async def test_a_link_comes_back_after_something_else_took_the_brokers_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(INFO, b"INFO []\r\n", INFO) as server:
        bus = await Bus.connect(BusSettings(nats_url=server.url), "x")
        came_back: list[Callable[[], None] | None] = []
        bus.on_reconnect(lambda: came_back.append(None))
        server.writers[0].close()
        await until(lambda: came_back != [], 20)
        assert server.greeted == 3
        await bus.close()
