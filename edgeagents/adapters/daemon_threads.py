"""A few threads for work that may take long and that nobody waits for at the end of the process.

asyncio's own threads are for what is short, and all share them; Python waits for them before it ends. Here what takes
long holds up only what is like it, and the end of the process ends it.
"""

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

Found = TypeVar("Found")


class DaemonThreads:
    """Works off what is given to it, in turn, in so many threads at most, which begin when there is work."""

    def __init__(self, name: str, most: int) -> None:
        """Prepare; no thread runs yet.

        Args:
            name: what they are for.
            most: threads at once.
        """
        self._name, self._most = name, most
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._free = threading.Semaphore(0)  # threads that have nothing to do
        self._threads = 0
        self._lock = threading.Lock()

    def begin(self, work: Callable[..., Found], *values: Any) -> Future[Found]:
        """Return what some work will give, with the caller's context variables."""
        future: Future[Found] = Future()
        self._waiting.put((future, partial(contextvars.copy_context().run, work, *values)))
        with self._lock:
            if not self._free.acquire(blocking=False) and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name} {self._threads}", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            future, work = self._waiting.get()
            if future.set_running_or_notify_cancel():
                try:
                    found = work()
                except BaseException as error:  # noqa: BLE001  # whatever it was, who waits must hear of it
                    future.set_exception(error)
                else:
                    future.set_result(found)
                    del found
            del future, work  # what was large is not kept until the next work comes
            self._free.release()
