"""`python -S -m edgeagents.adapters.health URL`: ends with 0 when a service answers with a success in 2 s, else with 1.

For the health checks of containers: asked every few seconds, day and night, so it imports next to nothing.
"""

import socket
import sys

WAIT_S = 2.0


def is_healthy(url: str) -> bool:
    """Say whether a GET of `http://host:port/path` is answered with a success."""
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), WAIT_S) as connection:
            connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: {place}\r\n\r\n".encode())
            # The status line comes first, and whole: `HTTP/1.1 200 …`.
            return connection.recv(12)[9:10] == b"2"
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(not is_healthy(sys.argv[1]))
