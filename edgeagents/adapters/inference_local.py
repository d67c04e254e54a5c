"""A language model in this process, asked from asyncio: by the inference service for all, by an agent for itself.

Leaves out who may ask: `services/inference` knows that by the sender's subject.

Source: design.md section 6.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from edgeagents.errors import TooManyAttemptsError, UnavailableError
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.inference.generate import Finished, Written
from edgeagents.model.completion import Completion, CompletionRequest

Found = TypeVar("Found")
GRACE_S = 2.0  # the engine itself ends what is out of time
# What takes long holds up only what is like it, and not asyncio's own threads. No daemons: a thread that Python ends
# within llguidance takes the process with it.
_PREPARING = ThreadPoolExecutor(4, "prepares for the language model")


@dataclass(slots=True)
class Progress:
    """What is known of a text so far."""

    began_s: float
    first_token_s: float = 0.0
    log_probability: float = 0.0
    free_tokens: int = 0

    def take(self, item: Written) -> None:
        """Take a token in."""
        self.first_token_s = self.first_token_s or time.monotonic() - self.began_s
        if not item.is_forced:
            self.free_tokens += 1
            self.log_probability += item.log_probability

    def completion(self, ended: Finished, prompt_tokens: int, model: str) -> Completion:
        """Return the whole, now that it has ended.

        Raises:
            UnavailableError: it failed.
        """
        if ended.reason == "failed":
            raise UnavailableError(f"the language model could not answer: {ended.error}")
        return Completion(
            text=ended.text, ending=ended.reason, is_capped=ended.is_capped, log_probability=self.log_probability,
            free_tokens=self.free_tokens, tokens=len(ended.tokens), prompt_tokens=prompt_tokens,
            cached_tokens=ended.cached, model=model, first_token_s=self.first_token_s,
            total_s=time.monotonic() - self.began_s,
        )  # fmt: skip


@contextlib.asynccontextmanager
async def within(budget_s: float, began_s: float) -> AsyncGenerator[None, None]:
    """Bound what comes before a text is taken in, seconds by the monotonic clock.

    Raises:
        TooManyAttemptsError: it took longer.
    """
    limit = asyncio.timeout(began_s + budget_s - time.monotonic())
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise no_time(budget_s) from error


def no_time(budget_s: float) -> TooManyAttemptsError:
    """Return what is told to whoever's text was not begun in time."""
    return TooManyAttemptsError(f"the language model had no time for it within {budget_s:.3g} s", max(1.0, budget_s))


async def in_turn(lock: asyncio.Lock, work: Callable[..., Found], *values: Any) -> Found:
    """Return what some work gives that is done in a thread, with others of the same lock one at a time.

    A thread cannot be called off. Whoever waits no longer leaves its lock to it: the next one begins when it has ended.
    """
    await lock.acquire()
    within = contextvars.copy_context()
    working = asyncio.get_running_loop().run_in_executor(_PREPARING, partial(within.run, work, *values))

    def ended(done: asyncio.Future[Found]) -> None:
        lock.release()
        if not done.cancelled():
            done.exception()  # seen, though nobody may wait for it any more

    working.add_done_callback(ended)
    return await asyncio.shield(working)


class LocalInference:
    """Asks an engine in the name of one client; a `LanguageClient`."""

    def __init__(self, engine: Callable[[], Engine], client: str = "local") -> None:
        """Prepare.

        Args:
            engine: returns it, or raises UnavailableError while there is none.
            client: whose share it is.
        """
        self._engine, self._client = engine, client
        self._preparing = asyncio.Lock()  # one at a time: a flood of long prompts holds up its sender alone

    async def complete(self, request: CompletionRequest) -> Completion:
        """Return what was written; see `LanguageClient`."""
        engine, began_s = self._engine(), time.monotonic()
        async with within(request.budget_s, began_s):
            prepared = await in_turn(self._preparing, engine.prepare, request)
        prepared = replace(prepared, budget_s=began_s + request.budget_s - time.monotonic())
        if request.scored:
            return await self._score(engine, prepared, began_s)
        progress = Progress(began_s)
        async with aclosing(self.written(engine, prepared)) as items:
            async for item in items:
                if isinstance(item, Finished):
                    return progress.completion(item, prepared.prompt_tokens, engine.digest)
                progress.take(item)
        raise UnavailableError("the language model ended without an answer")

    async def close(self) -> None:
        """Do nothing: the engine is its owner's to close."""

    async def written(self, engine: Engine, prepared: Prepared) -> AsyncGenerator[Written | Finished, None]:
        """Yield what is written, at last one `Finished`; whoever stops listening cancels it.

        Raises:
            TooManyAttemptsError: refused, see `Admission.submit`.
            UnavailableError: the engine stopped, or is stuck.
        """
        async with aclosing(_items(engine, self._client, prepared)) as items:
            async for _, item in items:
                yield item

    async def _score(self, engine: Engine, prepared: Prepared, began_s: float) -> Completion:
        scores = [0.0] * len(prepared.requests)
        left, cached, tokens = len(scores), 0, 0
        async with aclosing(_items(engine, self._client, prepared)) as items:
            async for place, item in items:
                if isinstance(item, Written):
                    scores[place] += item.log_probability
                    continue
                if item.reason != "stop":
                    raise UnavailableError(f"answers could not be scored: {item.error or item.reason}")
                left, cached, tokens = left - 1, cached + item.cached, tokens + len(item.tokens)
                if not left:
                    break
        return Completion(
            scores=tuple(scores), tokens=tokens, prompt_tokens=prepared.prompt_tokens, cached_tokens=cached,
            model=engine.digest, total_s=time.monotonic() - began_s,
        )  # fmt: skip


async def _items(
    engine: Engine, client: str, prepared: Prepared
) -> AsyncGenerator[tuple[int, Written | Finished], None]:
    """Yield what is told of each text of a request, with its place, until all have ended."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[int, Written | Finished]] = asyncio.Queue()

    def teller(place: int) -> Callable[[Written | Finished], None]:
        def tell(item: Written | Finished) -> None:
            with contextlib.suppress(RuntimeError):  # our loop has ended: nobody listens
                loop.call_soon_threadsafe(queue.put_nowait, (place, item))

        return tell

    names: Sequence[str] = engine.submit(client, prepared, [teller(place) for place in range(len(prepared.requests))])
    left, until_s = len(names), loop.time() + prepared.budget_s + GRACE_S
    try:
        while left:
            try:
                async with asyncio.timeout_at(until_s):
                    place, item = await queue.get()
            except TimeoutError as error:
                raise UnavailableError(
                    f"the language model is stuck: no answer {GRACE_S:g} s after its {prepared.budget_s:g} s"
                ) from error
            left -= isinstance(item, Finished)
            yield place, item
    finally:
        if left:
            engine.cancel(names)
