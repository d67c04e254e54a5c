"""HTTP for callers who may be hostile: bounds on connections, on the time of each request, and on their number.

uvicorn has none of them: whoever opens connections and says nothing, or a byte a minute, takes all descriptors of the
process in the end. Here connections are accepted a few at a time, each peer has so many of them, a request has to be
whole, and its answer taken, within a time, and a peer that asks too often waits. Who is over a bound is hung up on
before anything is set up for him, so a flood costs little; it cannot keep others out for longer than a new attempt of
TCP takes, as they share one short queue in the kernel, from which whoever waits is taken in turn.

Leaves out TLS: it is for networks inside one machine.

Source: uvicorn 0.54 `H11Protocol`; pacing as the generic cell rate algorithm (ITU-T I.371).
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeagents.adapters.serving import WebServer

log = logging.getLogger(__name__)

# Connections that wait in the kernel, where they cost us nothing: a twentieth of a second's at the default pace.
BACKLOG: Final = 512
NO_DESCRIPTOR_S: Final = 0.5
_RESET: Final = struct.pack("ii", 1, 0)  # close by RST: nothing lingers


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may take of a server.

    Args:
        connections: of all peers together.
        of_peer: connections of one address.
        accepted: at most so many connections are looked at ...
        turn_s: ... in this time.
        request_s: a request has to be whole after this.
        exchange_s: its answer has to be made, and taken, after this.
        per_s: requests of one address in a second, on average ...
        burst: ... and so many at once.
    """

    connections: int = 512
    of_peer: int = 32
    accepted: int = 100
    turn_s: float = 0.01
    request_s: float = 10.0
    exchange_s: float = 30.0
    per_s: float = 20.0
    burst: int = 100


class Pace:
    """How long requests of an address have to wait so that they keep to a rate."""

    def __init__(self, per_s: float, burst: int, most: int = 1024) -> None:
        """Remember at most about `most` addresses that were busy lately."""
        self._step_s = 1.0 / per_s
        self._ahead_s = burst / per_s
        self._most = most
        self._due_s: dict[str, float] = {}

    def wait_s(self, peer: str, now_s: float) -> float:
        """Return how long a request of `peer` that came now has to wait, seconds; it counts as made."""
        if len(self._due_s) >= self._most:
            self._due_s = {other: due_s for other, due_s in self._due_s.items() if due_s > now_s - self._ahead_s}
        due_s = max(self._due_s.get(peer, 0.0), now_s - self._ahead_s) + self._step_s
        self._due_s[peer] = due_s
        return max(0.0, due_s - now_s)


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with an end to each request and each answer."""

    def __init__(self, limits: Limits, ended: Callable[[], None], counts: Counter[str], **more: Any) -> None:
        """Tell `ended` once, when the connection is gone."""
        super().__init__(**more)
        self._limits = limits
        self._ended = ended
        self._counts = counts
        self._deadline: asyncio.TimerHandle | None = None
        self._answering: object = None  # the request whose answer is waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and wait for a request."""
        super().connection_made(transport)
        self._arm(self._limits.request_s)

    def data_received(self, data: bytes) -> None:
        """Take bytes in; those of a new request begin its time."""
        if self._deadline is None:
            self._arm(self._limits.request_s)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as uvicorn keeps a connection without any."""
        if not self._is_untaken():
            self._disarm()
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        super().connection_lost(exc)
        self._ended()

    def _look(self) -> None:
        """Once a request is whole, the time of its answer begins."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or cycle is self._answering:
            return
        self._answering = cycle
        self._arm(self._limits.exchange_s)

    def _arm(self, after_s: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(after_s, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_untaken(self) -> bool:
        """Say whether some of an answer still waits here for the peer to read it."""
        return self.transport.get_write_buffer_size() > 0

    def _too_late(self) -> None:
        self._deadline = None
        is_answered = self.cycle is not None and self.cycle is self._answering and self.cycle.response_complete
        if is_answered and not self._is_untaken():
            return  # it was taken since
        self._counts["timed-out"] += 1
        self.transport.abort()


class Turnstile:
    """Accepts connections for a server, as many as limits allow."""

    def __init__(self, app: ASGIApp, limits: Limits, counts: Counter[str]) -> None:
        """Serve `app`; `counts` learns of those `turned-away` and `timed-out`."""
        self._limits = limits
        self._counts = counts
        self._peers: Counter[str] = Counter()
        self.server = WebServer(_paced(app, Pace(limits.per_s, limits.burst), counts))

    async def run(self, sock: socket.socket) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        sock.listen(BACKLOG)
        is_told = False
        while True:
            try:
                await self._admit(*await loop.sock_accept(sock))
                # Further ones without the loop's help: who is turned away should cost next to nothing.
                for _ in range(self._limits.accepted - 1):
                    await self._admit(*sock.accept())
                await asyncio.sleep(self._limits.turn_s)
            except BlockingIOError:
                continue  # no more wait
            except OSError as error:
                # No descriptor is free, or the peer is gone already.
                if not is_told:
                    log.warning("no connection accepted: %s (told once)", error)
                    is_told = True
                await asyncio.sleep(NO_DESCRIPTOR_S)

    async def _admit(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        peer = str(address[0])
        if self._peers[peer] >= self._limits.of_peer or self._peers.total() >= self._limits.connections:
            self._counts["turned-away"] += 1
            self._forget_idle(peer)
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()
            return
        self._peers[peer] += 1
        connection.setblocking(False)
        ended = self._ended_once(peer)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._protocol(ended), connection)
        except OSError:  # it hung up meanwhile
            connection.close()
            ended()

    def _protocol(self, ended: Callable[[], None]) -> TimedProtocol:
        return TimedProtocol(
            self._limits, ended, self._counts, config=self.server.config, server_state=self.server.server_state,
            app_state={},
        )  # fmt: skip

    def _ended_once(self, peer: str) -> Callable[[], None]:
        is_over = False

        def ended() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._peers[peer] -= 1
                self._forget_idle(peer)

        return ended

    def _forget_idle(self, peer: str) -> None:
        if not self._peers[peer]:
            del self._peers[peer]


def _paced(app: ASGIApp, pace: Pace, counts: Counter[str]) -> ASGIApp:
    async def paced(scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        wait_s = pace.wait_s(client[0] if client else "", asyncio.get_running_loop().time())
        if wait_s > 0:
            counts["slowed"] += 1
            await asyncio.sleep(wait_s)
        await app(scope, receive, send)

    return paced


@contextlib.asynccontextmanager
async def guarded(
    app: ASGIApp, sock: socket.socket, tasks: asyncio.TaskGroup, counts: Counter[str], limits: Limits | None = None
) -> AsyncIterator[None]:
    """Serve HTTP inside the block, within limits; open requests get a moment at its end."""
    turnstile = Turnstile(app, limits or Limits(), counts)
    serving = tasks.create_task(turnstile.server.serve([]), name="web server")
    accepting = tasks.create_task(turnstile.run(sock), name="turnstile")
    try:
        yield
    finally:
        accepting.cancel()
        turnstile.server.should_exit = True
        await asyncio.wait({serving, accepting}, timeout=5)
