"""What httpx's failures mean: certainly not sent, or no definite answer."""

import asyncio

import httpx
import pytest

from edgeagents.adapters.rest import FixedAddress, Rest, check_items, make_http
from edgeagents.errors import (
    ConflictError,
    DeviceSilentError,
    LockedError,
    NotFoundError,
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
