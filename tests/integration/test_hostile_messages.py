"""Messages that nats-server takes and stores, and that would break a plain client at every redelivery."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.errors import InvalidInputError, UnavailableError
from tests.contract.waiting import until
from tests.nats import NatsServer


@contextlib.asynccontextmanager
async def raw(server: NatsServer) -> AsyncIterator[asyncio.StreamWriter]:
    """Yield a connection that speaks the protocol by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    yield writer
    writer.write(b"PING\r\n")
    while not (await reader.readline()).startswith(b"PONG"):
        continue
    writer.close()
    await writer.wait_closed()


def publish(subject: bytes, data: bytes, headers: bytes = b"", reply: bytes = b"") -> bytes:
    """Return a PUB or HPUB line with its payload."""
    to = subject + (b" " + reply if reply else b"")
    if headers:
        return b"HPUB %s %d %d\r\n%s%s\r\n" % (to, len(headers), len(headers) + len(data), headers, data)
    return b"PUB %s %d\r\n%s\r\n" % (to, len(data), data)


HOSTILE = {
    "a subject that is not UTF-8": publish(b"gw.commands.\xff\xfe.air", b"x"),
    "a reply subject that is not UTF-8": publish(b"gw.commands.dev.air", b"x", reply=b"\xff\xfe"),
    "a status header: consumer deleted": publish(
        b"gw.commands.dev.air", b"", b"NATS/1.0\r\nStatus: 409\r\nDescription: Consumer Deleted\r\n\r\n"
    ),
    "a status line: no messages": publish(b"gw.commands.dev.air", b"", b"NATS/1.0 404 No Messages\r\n\r\n"),
    "a status header: heartbeat": publish(b"gw.commands.dev.air", b"", b"NATS/1.0\r\nStatus: 100\r\n\r\n"),
    "a status line that is not UTF-8": publish(b"gw.commands.dev.air", b"x", b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
    "header lines without colons": publish(b"gw.commands.dev.air", b"x", b"NATS/1.0\r\nno colon\r\n\r\n"),
    "header names that are not UTF-8": publish(b"gw.commands.dev.air", b"x", b"NATS/1.0\r\n\xff: \xfe\r\n\r\n"),
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_consumer_gets_past_it(nats_server: NatsServer, bus: Bus, message: bytes) -> None:
    await bus.ensure_stream(subjects.COMMANDS_STREAM, [subjects.commands("gw")])
    async with raw(nats_server) as writer:
        for _ in range(3):
            writer.write(message)
        writer.write(publish(b"gw.commands.dev.air", b"after"))
    found: list[StoredMessage] = []
    async with asyncio.timeout(60):
        async for stored in bus.consume(subjects.COMMANDS_STREAM, "guard", [subjects.commands("gw")]):
            await stored.ack()
            found.append(stored)
            if stored.data == b"after":
                break
    assert len(found) == await bus.last_sequence(subjects.COMMANDS_STREAM), "each was seen, none is left for later"
    read = bus.read(subjects.COMMANDS_STREAM, [subjects.commands("gw")], name="check")
    assert [item.data async for item in read][-1] == b"after"


async def test_a_name_that_is_not_utf_8_is_no_name_of_ours(nats_server: NatsServer, bus: Bus) -> None:
    await bus.ensure_stream(subjects.COMMANDS_STREAM, [subjects.commands("gw")])
    async with raw(nats_server) as writer:
        writer.write(HOSTILE["a subject that is not UTF-8"])

    async def held() -> list[StoredMessage]:  # the broker stores it without a word to whoever sent it
        read = bus.read(subjects.COMMANDS_STREAM, [subjects.commands("gw")], name="check")
        return [item async for item in read]

    (stored,) = await until(held, "it is stored", timeout_s=30)
    assert stored.subject == r"gw.commands.\xff\xfe.air"
    with pytest.raises(InvalidInputError):
        subjects.parse_command(stored.subject)


async def test_nothing_is_kept_for_later_while_the_link_is_down(nats_server: NatsServer, bus: Bus) -> None:
    """A command that is sent when the link is back would be carried out late."""
    await bus.ensure_stream(subjects.COMMANDS_STREAM, [subjects.commands("gw")])
    nats_server.kill()
    await until(lambda: not bus.is_connected, "the link is down", timeout_s=30)
    with pytest.raises(UnavailableError, match="link to nats is down"):
        await bus.store("gw.commands.dev.air", b"late")
    nats_server.start()
    await until(lambda: bus.is_connected, "the link is back", timeout_s=30)
    await bus.store("gw.commands.dev.air", b"in time")
    read = bus.read(subjects.COMMANDS_STREAM, [subjects.commands("gw")], name="check")
    assert [item.data async for item in read] == [b"in time"]
