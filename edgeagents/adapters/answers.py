"""Answers over HTTP, read whole up to a size: what sends without end costs a known piece of memory, not all there is.

Source: httpx 0.28, `AsyncClient.stream`.
"""

from typing import Final

import httpx

from edgeagents.errors import UpstreamError

MOST_BYTES: Final = 32 << 20  # an event of EdgeX may carry 16 MB of binary, in base64 22


async def whole_answer(
    http: httpx.AsyncClient, request: httpx.Request, what: str, most_bytes: int = MOST_BYTES
) -> httpx.Response:
    """Return the answer to a request, read to its end.

    Args:
        http: sends it.
        request: built by the same client.
        what: whom an error names.
        most_bytes: of its body.

    Raises:
        UpstreamError: its body is longer, and no more of it was read; or it is compressed, which nobody asked for: a
            kilobyte, packed twice, is unpacked to any size before it is counted.
        httpx.HTTPError: as httpx raises it.
    """
    request.headers["Accept-Encoding"] = "identity"
    answer = await http.send(request, stream=True)
    try:
        if (packed := answer.headers.get("Content-Encoding", "identity").strip().lower()) not in ("", "identity"):
            raise UpstreamError(f"{what}: the answer is compressed ({packed[:40]!r}), unasked: is it the service?")
        parts: list[bytes] = []
        size = 0
        async for part in answer.aiter_bytes():
            size += len(part)
            if size > most_bytes:
                parts.clear()  # the error's traceback would keep them
                raise UpstreamError(f"{what}: the answer is longer than {most_bytes >> 20} MB: is it the service?")
            parts.append(part)
    finally:
        await answer.aclose()
    answer._content = b"".join(parts)  # as `aread` leaves it, which knows no limit
    return answer
