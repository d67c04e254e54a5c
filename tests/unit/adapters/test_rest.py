"""What httpx's failures mean: certainly not sent, or no definite answer."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from edgeagents.adapters.answers import MOST_BYTES
from edgeagents.adapters.rest import FixedAddress, Rest, check_items, make_http
from edgeagents.errors import (
    ConflictError,
    DeviceSilentError,
    LockedError,
    NotFoundError,
    UnauthorisedError,
    UnavailableError,
    UpstreamError,
)


class Moving(FixedAddress):
    """An address that notes when it was given up."""

    forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


def failing(error: type[httpx.RequestError]) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("broken", request=request)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_a_refused_connection_was_certainly_not_sent(error: type[httpx.RequestError]) -> None:
    address = Moving("http://x:1")
    with pytest.raises(UnavailableError, match="x at http://x:1 cannot be reached") as caught:
        await Rest("x", address, failing(error)).call("PUT", "/y", silent=DeviceSilentError)
    assert not isinstance(caught.value, DeviceSilentError)
    assert address.forgotten == 1


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError])
async def test_a_broken_connection_leaves_the_answer_open(error: type[httpx.RequestError]) -> None:
    with pytest.raises(DeviceSilentError):
        await Rest("x", Moving("http://x:1"), failing(error)).call("PUT", "/y", silent=DeviceSilentError)


async def test_a_server_that_trickles_its_answer_meets_the_deadline() -> None:
    gone = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()
            gone.set()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with make_http() as http:
            with pytest.raises(UnavailableError, match=r"no answer to GET /slow in 0\.2 s"):
                await Rest("slow", FixedAddress(url), http).call("GET", "/slow", timeout_s=0.2)
        await asyncio.wait_for(gone.wait(), 5)


class Endless(httpx.AsyncByteStream):
    """A body without end, which counts what was read of it."""

    def __init__(self) -> None:
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1 << 20
            yield b" " * (1 << 20)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(("silent", "error"), [(UnavailableError, UpstreamError), (DeviceSilentError,) * 2])
async def test_an_answer_without_end_is_given_up(
    status: int, silent: type[UnavailableError], error: type[Exception]
) -> None:
    body = Endless()
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(status, stream=body)))
    with pytest.raises(error, match="x at http://x: the answer is longer than 32 MB"):
        await Rest("x", FixedAddress("http://x"), http).call("GET", "/y", silent=silent)
    assert body.sent == MOST_BYTES + (1 << 20)


async def test_an_answer_that_is_packed_unasked_is_not_unpacked() -> None:
    asked = list[str]()
    packed = gzip.compress(gzip.compress(b" " * (MOST_BYTES + 1)))  # some kilobytes: unpacked they would fill memory

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Accept-Encoding"])
        return httpx.Response(200, stream=Once(packed), headers={"Content-Encoding": "gzip, gzip"})

    rest = Rest("x", FixedAddress("http://x"), httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    with pytest.raises(UpstreamError, match="the answer is compressed \\('gzip, gzip'\\), unasked"):
        await rest.call("GET", "/y")
    assert asked == ["identity"]


class Once(httpx.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), 4096):
            yield self.body[start : start + 4096]


async def test_a_host_that_cannot_be_looked_up_was_certainly_not_asked() -> None:
    address = Moving("http://xn--:1")
    with pytest.raises(UnavailableError, match="x at http://xn--:1 cannot be reached") as caught:
        await Rest("x", address, make_http()).call("PUT", "/y", silent=DeviceSilentError)
    assert not isinstance(caught.value, DeviceSilentError)
    assert address.forgotten == 1


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotFoundError), (409, ConflictError), (423, LockedError), (500, UpstreamError)]
)
async def test_a_status_becomes_its_error_with_edgexs_text(status: int, error: type[Exception]) -> None:
    body = {"apiVersion": "v3", "message": "so it is", "statusCode": status}
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(status, json=body)))
    with pytest.raises(error, match="x: GET /y: so it is"):
        await Rest("x", FixedAddress("http://x"), http).call("GET", "/y")


def test_the_first_failed_item_of_several_is_raised() -> None:
    with pytest.raises(ConflictError, match="there already"):
        check_items([{"statusCode": 201}, {"statusCode": 409, "message": "there already"}], "add")
    with pytest.raises(UpstreamError):
        check_items({"statusCode": 200}, "add")
    with pytest.raises(UpstreamError):
        check_items([{}], "add")


class Numbered:
    """Tokens `t0`, `t1`, ...: the next one after each that is forgotten."""

    def __init__(self) -> None:
        self.number = 0

    async def bearer(self) -> SecretStr:
        return SecretStr(f"t{self.number}")

    def forget(self, used: SecretStr) -> None:
        assert used.get_secret_value() == f"t{self.number}"
        self.number += 1


def guarded(good: str, seen: list[str]) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization", ""))
        return httpx.Response(200 if seen[-1] == f"Bearer {good}" else 401, json={"message": "no"})

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_a_token_that_expired_is_renewed_and_the_call_repeated_once() -> None:
    seen: list[str] = []
    rest = Rest("x", FixedAddress("http://x"), guarded("t1", seen), tokens=Numbered())
    await rest.call("PUT", "/y", body={"a": 1})
    await rest.call("GET", "/y")
    assert seen == ["Bearer t0", "Bearer t1", "Bearer t1"]


async def test_a_token_that_never_counts_is_an_error_after_the_second_try() -> None:
    seen: list[str] = []
    with pytest.raises(UnauthorisedError):
        await Rest("x", FixedAddress("http://x"), guarded("other", seen), tokens=Numbered()).call("GET", "/y")
    assert seen == ["Bearer t0", "Bearer t1"]


async def test_a_token_given_for_one_service_wins_and_is_not_renewed() -> None:
    seen: list[str] = []
    rest = Rest("x", FixedAddress("http://x"), guarded("t1", seen), token=SecretStr("own"), tokens=Numbered())
    with pytest.raises(UnauthorisedError):
        await rest.call("GET", "/y")
    assert seen == ["Bearer own"]


async def test_without_a_token_in_time_nothing_is_sent() -> None:
    class Hanging(Numbered):
        async def bearer(self) -> SecretStr:
            await asyncio.Event().wait()
            raise AssertionError

    seen: list[str] = []
    rest = Rest("x", FixedAddress("http://x"), guarded("t0", seen), tokens=Hanging())
    with pytest.raises(UnavailableError, match="no token of our own in time") as raised:
        await rest.call("PUT", "/y", timeout_s=0.05, silent=DeviceSilentError)
    assert not isinstance(raised.value, DeviceSilentError)
    assert seen == []
