"""A server that answers what it is told to, once for each connection, and may go on for ever."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Server:
    """Where it listens, and the beginning of each request that it got."""

    url: str
    asked: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def pouring(head: bytes, piece: bytes = b"") -> Iterator[Server]:
    """Yield a server that sends a head, then `piece` again and again, if there is one, until the block ends."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(f"http://127.0.0.1:{listening.getsockname()[1]}")
        serving = threading.Thread(target=_serve, args=(listening, over, server, head, piece))
        serving.start()
        try:
            yield server
        finally:
            over.set()
            serving.join()


def answer_of(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole answer, as it goes over the wire."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


def _serve(listening: socket.socket, over: threading.Event, server: Server, head: bytes, piece: bytes) -> None:
    listening.settimeout(0.02)
    while not over.is_set():
        with contextlib.suppress(OSError):  # nobody came, or it has left
            client, _ = listening.accept()
            with client:
                client.settimeout(5)
                server.asked.append(client.recv(65536))
                client.sendall(head)
                while piece and not over.is_set():
                    client.sendall(piece)
