"""Ports that nobody else takes before a server listens on them."""

import socket

import pytest

from edgeagents.adapters.keeper import Registration
from edgeagents.adapters.options import read_options
from edgeagents.adapters.ports import FREE_PORTS, free_port, host_in_url
from edgeagents.errors import ConfigurationError


def test_a_free_port_is_the_preferred_one_unless_it_is_taken() -> None:
    preferred = free_port()
    assert free_port(preferred) == preferred
    assert free_port(preferred, {preferred}) != preferred
    with socket.create_server(("127.0.0.1", preferred)):
        assert free_port(preferred) != preferred


def test_a_free_port_is_never_one_that_a_connection_going_out_may_get() -> None:
    ports = {free_port() for _ in range(100)}
    assert len(ports) > 90
    assert max(ports) < 32_768  # the first of Linux's own, net.ipv4.ip_local_port_range
    assert ports <= set(FREE_PORTS)


def test_no_free_port_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no free port"):
        free_port(taken=FREE_PORTS)


@pytest.mark.parametrize(
    ("host", "url"), [("edge", "edge"), ("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("[::1]",) * 2]
)
def test_an_address_of_ipv6_stands_in_brackets_before_a_port(host: str, url: str) -> None:
    assert host_in_url(host) == url
    assert Registration(service_id="x", host=host, port=59881).base_url == f"http://{url}:59881"
    options = read_options("app-x", ["-cp", "keeper.http://k:59890", "-rsh", f"me,{host},0.0.0.0"], {})
    assert options.keeper_url == f"http://{url}:59890"
