"""An event loop whose time is moved by hand: hours pass in no time, and the same run happens again and again.

Where a real loop would wait, this one moves its clock on to the next timer. Calls into an executor are made at once
and answered in the next round, so there is no thread and no chance in it.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")
BEGIN_S: Final = 100.0


class _Selector(selectors.SelectSelector):
    """Waits for nothing; tells its loop when there is nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Callable[[float | None], None] = lambda timeout: None

    def select(self, timeout: float | None = None) -> list[Any]:
        self.waits(timeout)
        return []


class HandLoop(asyncio.SelectorEventLoop):
    """Time stands still but in `run`."""

    def __init__(self) -> None:
        selector = _Selector()
        self._now_s, self._limit_s = BEGIN_S, BEGIN_S
        self._rounds: int | None = None
        super().__init__(selector)
        selector.waits = self._waits

    def time(self) -> float:
        """Return seconds since some time before this loop began."""
        return self._now_s

    def run(self, for_s: float = 0.0, rounds: int | None = None) -> None:
        """Do all there is to do in the next so many seconds, or only the first so many rounds of it."""
        self._limit_s, self._rounds = self._now_s + for_s, rounds
        self.run_forever()

    def leap(self, by_s: float) -> None:
        """Have time pass in which this process did not run."""
        self._now_s += by_s

    def run_in_executor(self, executor: Any, func: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        """Call at once; the answer is there in the next round."""
        future = self.create_future()
        try:
            self.call_soon(_answer, future, func(*arguments), None)
        except Exception as error:
            self.call_soon(_answer, future, None, error)
        return future

    def _waits(self, timeout: float | None) -> None:
        if self._rounds is not None:
            self._rounds -= 1
            if self._rounds < 0:
                self.stop()
                return
        if timeout is not None and timeout <= 0:
            return
        next_s = float("inf") if timeout is None else self._now_s + timeout
        if next_s > self._limit_s:
            self._now_s = max(self._now_s, self._limit_s)
            self.stop()
        else:
            self._now_s = next_s


def _answer(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
