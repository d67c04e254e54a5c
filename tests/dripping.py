"""A server that answers one byte at a time and never comes to an end: no read of it takes long, the whole for ever."""

import contextlib
import socket
import threading
from collections.abc import Iterator

EVERY_S = 0.02


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """Yield the address of such a server, which ends with the block."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=_serve, args=(listening, over))
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            serving.join()


def _serve(listening: socket.socket, over: threading.Event) -> None:
    listening.settimeout(EVERY_S)
    with contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                clients.append(stack.enter_context(listening.accept()[0]))
                clients[-1].sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for client in clients:
                with contextlib.suppress(OSError):  # it has left
                    client.sendall(b"x")
