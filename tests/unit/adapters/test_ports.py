"""Ports that nobody else takes before a server listens on them."""

import socket

import pytest

from edgeagents.adapters.ports import FREE_PORTS, free_port
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
