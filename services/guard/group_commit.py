"""The ledger's one thread: calls in order, and one sync of the disk for all that wait at the moment.

Lanes write at the same time, and a disk's sync takes as long for ten writes as for one. A call returns once its
transaction is on disk, alone or with others; when one of a group fails, the group is undone and each is made again by
itself, so that nobody fails for another.

Source: design.md section 3.7; group commit as in DeWitt et al. 1984.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Any, Final, ParamSpec, TypeVar

from services.guard.ledger import Ledger

P = ParamSpec("P")
T = TypeVar("T")

MOST_TOGETHER: Final = 64


class _Call:
    """One call that waits for its turn."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.future: Future[Any] = Future()

    def made(self) -> Any:
        """Return what the call returns; raises what it raises."""
        return self._work()

    def alone(self) -> None:
        """Make the call, and tell how it ended."""
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001  # as every executor does: it is for whoever waits
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class GroupCommit(Executor):
    """Makes calls of a ledger in a thread of its own, in the order they came; for ledger calls only."""

    def __init__(self, ledger: Ledger) -> None:
        """Start the thread."""
        self._ledger = ledger
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._turn = threading.Lock()  # nothing is queued behind the end
        self._is_shut = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Queue a call; its future is done once what it wrote is on disk.

        Raises:
            RuntimeError: it was shut down before.
        """
        call = _Call(lambda: fn(*args, **kwargs))
        with self._turn:
            if self._is_shut:
                raise RuntimeError("the ledger's thread was shut down: no further call")
            self._calls.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further call and end the thread after those that wait; `cancel_futures`: without them."""
        with self._turn:
            self._is_shut = True
            if cancel_futures:
                for call in self._taken():
                    if call is not None:
                        call.future.cancel()
            self._calls.put(None)
        if wait:
            self._thread.join()

    def _run(self) -> None:
        is_over = False
        while not is_over:
            waiting = [self._calls.get(), *islice(self._taken(), MOST_TOGETHER - 1)]
            is_over = None in waiting
            calls = [call for call in waiting if call is not None and call.future.set_running_or_notify_cancel()]
            if len(calls) < 2 or not self._together(calls):
                for call in calls:
                    call.alone()

    def _taken(self) -> Iterator[_Call | None]:
        """Yield what waits, without waiting: the other thread may take the last one at any moment."""
        while True:
            try:
                yield self._calls.get_nowait()
            except queue.Empty:
                return

    def _together(self, calls: list[_Call]) -> bool:
        """Make calls in one transaction; return False when nothing of it was done."""
        try:
            with self._ledger.together():
                results = [call.made() for call in calls]
        except BaseException:  # noqa: BLE001  # whatever it was comes again, to whom it concerns; the thread lives on
            return False
        for call, result in zip(calls, results, strict=True):
            call.future.set_result(result)
        return True
