"""An answer that goes on piece by piece, as it comes: streams of changes, texts that a model writes.

No more than a piece is in memory. Whoever asked and goes away ends it, so nothing is written on for nobody; who
answers nothing for too long, or takes nothing in, is hung up on.

Source: ASGI, HTTP connection scope; server-sent events (WHATWG HTML, section 9.2).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
from starlette.types import Receive, Send

_BACK: Final = ("content-type", "x-correlation-id", "retry-after")


@dataclass(frozen=True, slots=True)
class Question:
    """A request that is passed on; `wait_s` bounds the wait for each piece of the answer."""

    method: str
    url: str
    body: bytes
    headers: Mapping[str, str]
    wait_s: float


async def pass_on(http: httpx.AsyncClient, question: Question, receive: Receive, send: Send) -> None:
    """Send what is answered to whoever asked, until it ends or they go away.

    An answer that breaks off once it has begun is left without its end, which is how HTTP says so.

    Raises:
        httpx.HTTPError, httpx.InvalidURL, TimeoutError: nothing was answered: whoever asked can still be told.
    """
    begun = asyncio.Event()
    passing = asyncio.ensure_future(_pieces(http, question, send, begun))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({passing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if passing.done() and not begun.is_set():
            passing.result()
    finally:
        for task in (passing, gone):
            task.cancel()
        await asyncio.gather(passing, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pieces(http: httpx.AsyncClient, question: Question, send: Send, begun: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(question.wait_s) as limit,
        http.stream(
            question.method, question.url, content=question.body, headers=question.headers, timeout=question.wait_s
        ) as answer,
    ):
        back = [(name.encode(), answer.headers[name].encode()) for name in _BACK if name in answer.headers]
        begun.set()
        await send({"type": "http.response.start", "status": answer.status_code, "headers": back})
        async for piece in answer.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            limit.reschedule(loop.time() + question.wait_s)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
