"""Ports of 127.0.0.1 that are free and stay free until somebody listens there; hosts beside a port."""

import random
import socket
from collections.abc import Collection
from typing import Final

from edgeagents.errors import ConfigurationError

__all__ = ["FREE_PORTS", "free_port", "host_in_url", "is_free"]

# Below what systems give to connections that go out (from 32768, or 49152): there, a port that is free now may be
# somebody's own end of a connection before a server that was told of it listens.
FREE_PORTS: Final = range(20_000, 30_000)

_TRIES: Final = 1_000


def host_in_url(host: str) -> str:
    """Return a host as it stands before `:port`: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def free_port(preferred: int = 0, taken: Collection[int] = ()) -> int:
    """Return a free port on 127.0.0.1: the preferred one if it is, else one of `FREE_PORTS` that is not in `taken`.

    Raises:
        ConfigurationError: none was found.
    """
    candidates = [preferred] if preferred else []
    for port in [*candidates, *random.sample(FREE_PORTS, _TRIES)]:
        if port not in taken and is_free(port):
            return port
    raise ConfigurationError("no free port on 127.0.0.1: is something holding them all?")


def is_free(port: int) -> bool:
    """Say whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
