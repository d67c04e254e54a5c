"""Waiting for what an EdgeX does in its own time: a condition that becomes true, a message that comes."""

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from edgeagents.errors import UnavailableError
from edgeagents.model.envelope import EdgexMessage

# Real disks and processes stand still for seconds at times; nothing here waits for what is not to come.
WAIT_S = 30.0
_AGAIN_S = 0.02


async def until(check: Callable[[], Any], what: str, *, timeout_s: float = WAIT_S) -> Any:
    """Return what `check()`, plain or async, gives once it is true; fail, saying `what`, when it is not in time.

    A broker or a service that did not answer for once is asked again while there is time.
    """
    last: Any = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    last = check()
                    if inspect.isawaitable(last):
                        last = await last
                    if last:
                        return last
                except UnavailableError as error:
                    last = error
                await asyncio.sleep(_AGAIN_S)
    raise AssertionError(f"not in {timeout_s:g} s: {what}; last: {last!r}")


async def busy() -> NoReturn:
    """Keep the loop busy, for ever: its clock is looked at all the time."""
    while True:  # noqa: ASYNC110 - to be busy is what it is for
        await asyncio.sleep(0)


@dataclass
class Seen:
    """The messages that came since the watch began."""

    messages: list[Any] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def note(self, message: EdgexMessage) -> None:
        """Keep a message."""
        self.messages.append(message)
        self._news.set()

    async def first(self, wanted: Callable[[Any], bool] = lambda _: True, *, timeout_s: float = WAIT_S) -> Any:
        """Return the first message that is wanted, waiting for it."""
        return (await self.some(1, wanted, timeout_s=timeout_s))[0]

    async def some(
        self, count: int, wanted: Callable[[Any], bool] = lambda _: True, *, timeout_s: float = WAIT_S
    ) -> list[Any]:
        """Return the first `count` messages that are wanted, waiting for them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(found := [message for message in self.messages if wanted(message)]) < count:
                    self._news.clear()
                    await self._news.wait()
                return found[:count]
        raise AssertionError(f"not {count} such messages in {timeout_s:g} s, but {self.messages}")

    def count(self, wanted: Callable[[Any], bool]) -> int:
        """Return how many such messages came so far."""
        return sum(1 for message in self.messages if wanted(message))
