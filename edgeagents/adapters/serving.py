"""A listening socket of our own and uvicorn on it.

The socket is bound first, so that a port that is taken is an answer with a remedy instead of a log line, and
a service that may move to another port knows its address before it registers.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from edgeagents.errors import ConfigurationError

RESERVED: Final = range(59700, 60000)  # EdgeX's own services, and ours with a fixed port


def bind(host: str, port: int, *, key: str, others: range | None = None) -> socket.socket:
    """Return a socket that has the port; connections wait in its queue until a server accepts them.

    Args:
        host: name or address to bind to.
        port: wanted.
        key: service key, for messages.
        others: tried when the port is taken, then any free port outside EdgeX's; None: only `port`.

    Raises:
        ConfigurationError: the port is taken, or cannot be bound here; names setting and remedy.
    """
    bound = _bind_first(host, [port], key)
    if bound is not None:
        return bound
    if others is None:
        raise ConfigurationError(
            f"port {port} on {host!r} is taken: set Service/Port (keeper: edgex/v4/{key}/Service/Port; at the first "
            "start: SERVICE_PORT) to a free port, or stop what listens there"
        )
    bound = _bind_first(host, [candidate for candidate in others if candidate != port], key)
    while bound is None:
        candidate = _bind_first(host, [0], key)
        if candidate is None:
            raise ConfigurationError(f"no free port on {host!r} for {key}")
        if candidate.getsockname()[1] in RESERVED:
            candidate.close()
        else:
            bound = candidate
    return bound


def _bind_first(host: str, ports: Sequence[int], key: str) -> socket.socket | None:
    for port in ports:
        try:
            return _bind_one(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise ConfigurationError(
                f"cannot bind {host!r} port {port}: {error.strerror or error}: is Service/Host a name of this machine? "
                f"Service/ServerBindAddr=0.0.0.0 binds all (keeper: edgex/v4/{key}/Service)"
            ) from error
    return None


def _bind_one(host: str, port: int) -> socket.socket:
    # IPv4 first: EdgeX's services look for each other there.
    found = sorted(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE),
        key=lambda item: item[0] != socket.AF_INET,
    )
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Linux lets two sockets with SO_REUSEADDR bind one port until one of them listens: so claim it at once.
        sock.listen(socket.SOMAXCONN)
    except (OSError, OverflowError):
        sock.close()
        raise
    sock.set_inheritable(False)
    return sock


class WebServer(uvicorn.Server):
    """uvicorn without signal handlers of its own; `listening` is set once it accepts connections."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None = None) -> None:
        """Serve `app`, with `tls` over HTTPS; a shutdown waits 2 s for open requests."""
        # The peer is who connects: a header that anybody may write must not give a caller another address.
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=2, ws="none", proxy_headers=False,
        )  # fmt: skip
        super().__init__(config)
        if tls is not None:
            config.load()
            config.ssl = tls
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self.listening.set()


@contextlib.asynccontextmanager
async def listening(
    app: ASGIApp, sock: socket.socket, tasks: asyncio.TaskGroup, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve HTTP, or with `tls` HTTPS, inside the block; open requests get a moment at its end."""
    server = WebServer(app, tls)
    task = tasks.create_task(server.serve([sock]), name="web server")
    ready = asyncio.create_task(server.listening.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=5)
