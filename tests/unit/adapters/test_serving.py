"""Ports that are taken, and a server that stops when told to."""

import asyncio
import socket

import httpx
import pytest

from edgeagents.adapters.serving import RESERVED, WebServer, bind
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import ConfigurationError


def test_a_port_that_is_taken_is_named_with_setting_and_remedy() -> None:
    with bind("127.0.0.1", 0, key="app-x") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}.*edgex/v4/app-x/Service/Port.*SERVICE_PORT"):
            bind("127.0.0.1", port, key="app-x")


def test_a_service_that_may_move_takes_another_port_of_its_range() -> None:
    with bind("127.0.0.1", 0, key="a") as first:
        port = first.getsockname()[1]
        others = range(port, port + 20)
        with bind("127.0.0.1", port, key="b", others=others) as second:
            assert second.getsockname()[1] in others
            assert second.getsockname()[1] != port


def test_when_the_whole_range_is_taken_any_port_outside_edgexs_will_do() -> None:
    with bind("127.0.0.1", 0, key="a") as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port, key="b", others=range(port, port + 1)) as second:
            assert second.getsockname()[1] not in RESERVED


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_a_clear_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match="ServerBindAddr"):
        bind(host, 0, key="app-x")


async def test_the_server_answers_and_ends_when_told() -> None:
    sock = bind("localhost", 0, key="app-x")
    assert sock.family == socket.AF_INET
    server = WebServer(make_app(WebContext("app-x", "4.0.0", dict, None)))
    task = asyncio.create_task(server.serve([sock]))
    await asyncio.wait_for(server.listening.wait(), 5)
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"http://localhost:{sock.getsockname()[1]}/api/v3/ping"
        assert (await http.get(url)).json()["serviceName"] == "app-x"
        server.should_exit = True
        await asyncio.wait_for(task, 5)
        with pytest.raises(httpx.ConnectError):
            await http.get(url)
