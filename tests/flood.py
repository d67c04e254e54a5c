"""`python -m tests.flood PORT COUNT silent|dribbling`: connections of one address that say nothing, or a byte at times.

Opened anew when they are ended, until this process is. In a process of its own, so that it slows nobody who measures.
"""

import asyncio
import contextlib
import resource
import sys
from typing import Final

ADDRESS: Final = "127.0.0.2"
REQUEST: Final = b"GET /api/v3/ping HTTP/1.1\r\nX-Long: " + b"x" * 500


async def flood(port: int, count: int, *, dribbles: bool) -> None:
    """Keep so many connections to a port of this machine open, or on their way."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(_one(port, dribbles=dribbles))


async def _one(port: int, *, dribbles: bool) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
            for byte in REQUEST:
                if writer.transport.is_closing():
                    break
                if dribbles:
                    writer.write(bytes([byte]))
                await asyncio.sleep(0.2)
            writer.transport.abort()
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    asyncio.run(flood(int(sys.argv[1]), int(sys.argv[2]), dribbles=sys.argv[3] == "dribbling"))
