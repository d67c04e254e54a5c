"""`python -S -m edgeagents.adapters.health URL`: ends with 0 when a service answers with a success in 2 s, else with 1.

`… health FILE /PATH` asks for a path where the service itself wrote down that it listens (`EDGEAGENTS_PLACE_FILE`).

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
        with socket.create_connection((host.strip("[]"), int(port)), WAIT_S) as connection:
            connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: {place}\r\n\r\n".encode())
            # The status line comes first, and whole: `HTTP/1.1 200 …`.
            return connection.recv(12)[9:10] == b"2"
    except (OSError, ValueError):
        return False


def url_in(file: str, path: str) -> str:
    """Return the URL of a path at the `host:port` that a file holds; one that nothing answers when there is none."""
    try:
        with open(file, encoding="ascii") as place:  # pathlib takes longer to import than all this
            return f"http://{place.read().strip()}{path}"
    except (OSError, UnicodeDecodeError):
        return ""


if __name__ == "__main__":
    sys.exit(not is_healthy(sys.argv[1] if len(sys.argv) == 2 else url_in(*sys.argv[1:3])))
