"""Whatever the pieces a stream of bytes comes in, both parsers hand the same on."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from edgeagents.adapters.nats_parser import MOST_LINE_BYTES, QuickParser


class Client:
    """Keeps what a parser hands on; `on_error` is what an error of the server's does."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.on_error: Any = lambda: None

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.found.append((sid, bytes(subject), bytes(reply), data, headers))

    async def _process_ping(self) -> None:
        self.found.append("ping")

    async def _process_pong(self) -> None:
        self.found.append("pong")

    async def _process_info(self, info: Any) -> None:
        self.found.append(info)

    async def _process_err(self, text: str) -> None:
        self.found.append(text)
        self.on_error()


payloads = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"MSG a 1 3\r\n", b"PING\r\n", b"x\r\nMSG b 2 1"])
)
replies = st.sampled_from([b"", b"_INBOX.x", b"$JS.ACK.s.c.1.2.3.4.5"])


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """Return a message as the server writes it."""
    data, reply = draw(payloads), draw(replies)
    head = b" ".join(filter(None, (b"edgex.a", b"%d" % draw(st.integers(1, 99)), reply)))
    if draw(st.booleans()):
        return b"MSG %b %d\r\n%b\r\n" % (head, len(data), data)
    headers = b"NATS/1.0\r\nA: %b\r\n\r\n" % draw(st.sampled_from([b"", b"1"]))
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (head, len(headers), len(headers) + len(data), headers, data)


lines = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n', b"-ERR 'Slow Consumer'\r\n"])


async def parsed(parser: type[Parser], data: bytes, cuts: list[int]) -> list[Any]:
    """Return what a parser hands on of data that is read in pieces."""
    client = Client()
    reader = parser(client)
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    for begin, end in zip([0, *ends], ends, strict=False):
        await reader.parse(data[begin:end])
    return client.found


@given(st.lists(st.one_of(message(), message(), lines), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_pieces_give_what_nats_py_makes_of_the_whole(said: list[bytes], cuts: list[int]) -> None:
    data = b"".join(said)
    whole = asyncio.run(parsed(Parser, data, []))
    assert asyncio.run(parsed(QuickParser, data, cuts)) == whole
    assert len(whole) == sum(1 for item in said if item != b"+OK\r\n")


async def test_what_is_no_nats_ends_the_connection() -> None:
    for data in (b"HTTP/1.1 400\r\n", b"MSG a 1 x\r\nabc\r\n", b"x" * (MOST_LINE_BYTES + 1)):
        with pytest.raises(ProtocolError):
            await QuickParser(Client()).parse(data)


@given(
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b" \t\r\n")),
    st.integers(0, 9),
    st.integers(1, 40),
)
def test_whatever_a_subject_holds_it_is_one_subject(subject: bytes, size: int, cut: int) -> None:
    data = b"MSG a.%b 7 r.%b %d\r\n%b\r\n" % (subject, subject, size, b"x" * size)
    found = asyncio.run(parsed(QuickParser, data, [cut]))
    assert found == [(7, b"a." + subject, b"r." + subject, b"x" * size, None)]


async def test_white_space_that_a_subject_may_hold_forges_no_message() -> None:
    client = Client()
    await QuickParser(client).parse(b"MSG g.audit.me.x\x0b9\x0breply 1 5\r\nhello\r\n")
    assert client.found == [(1, b"g.audit.me.x\x0b9\x0breply", b"", b"hello", None)]


async def test_a_long_line_that_means_nothing_ends_the_connection_at_once() -> None:
    with pytest.raises(ProtocolError):
        await asyncio.wait_for(QuickParser(Client()).parse(b"WHAT %b\r\n" % (b"x" * 5000)), 5)


async def test_a_subject_as_long_as_mqtt_allows_may_come_in_pieces() -> None:
    client = Client()
    parser = QuickParser(client)
    line = b"MSG %s 1 2\r\nok\r\n" % (b"x" * 65_000)
    for at in range(0, len(line), 4096):
        await parser.parse(line[at : at + 4096])
    assert not parser.buf


async def test_what_followed_an_error_that_ended_the_connection_is_not_read_into_the_next() -> None:
    client = Client()
    reader = QuickParser(client)
    client.on_error = reader.reset
    await reader.parse(b"-ERR 'Stale Connection'\r\nMSG a 1 3\r\nab")
    await reader.parse(b"PING\r\n")
    assert client.found == ["'stale connection'", "ping"]
