"""`python -m edgeagents.adapters.health URL`: ends with 0 when a service answers with a success in 2 s, else with 1.

For the health checks of containers: asked every few seconds, so it imports as little as it can.
"""

import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

WAIT_S = 2.0


def is_healthy(url: str) -> bool:
    """Say whether a GET of `http://host:port/path` is answered with a success."""
    parts = urlsplit(url)
    try:
        connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=WAIT_S)
        connection.request("GET", f"{parts.path}?{parts.query}")
        return 200 <= connection.getresponse().status < 300
    except (OSError, HTTPException, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(not is_healthy(sys.argv[1]))
