"""All network IO: NATS, EdgeX over HTTP and its bus, OpenBao, web servers, files."""

import sys

# httpx imports its own command line where it can, and with it click, rich and pygments: 60 ms and 4 MB of every
# service. Without this module httpx goes without it, as it does where they are not installed.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
