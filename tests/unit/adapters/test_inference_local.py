"""A question's budget holds from when it is asked: what waits or is prepared too long is refused."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest

from edgeagents.adapters.inference_local import LocalInference, in_turn
from edgeagents.errors import InvalidInputError, TooManyAttemptsError
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.inference.generate import Finished
from edgeagents.inference.request import Request
from edgeagents.model.completion import ChatMessage, CompletionRequest
from tests.nats import until


class Slow:
    """Stands for an engine that prepares when it is let to, and answers at once."""

    digest = "d" * 64

    def __init__(self) -> None:
        self.goes_on, self.budgets, self.now, self.most = threading.Event(), list[float](), 0, 0

    def prepare(self, request: CompletionRequest) -> Prepared:
        self.now += 1
        self.most = max(self.most, self.now)
        assert self.goes_on.wait(30)
        self.now -= 1
        return Prepared((Request("", (1,), 1),), 3, request.budget_s)

    def submit(self, client: str, prepared: Prepared, tell: Sequence[Any]) -> tuple[str, ...]:
        self.budgets.append(prepared.budget_s)
        tell[0](Finished("r", "stop", "warm", (1,), 0))
        return ("r",)


def asked(budget_s: float) -> CompletionRequest:
    return CompletionRequest(messages=(ChatMessage(role="user", content="x"),), budget_s=budget_s)


async def test_what_waits_for_its_turn_or_is_prepared_too_long_is_too_late_and_turns_are_kept() -> None:
    engine = Slow()
    client = LocalInference(lambda: cast(Engine, engine))
    async with asyncio.timeout(20):
        late = await asyncio.gather(*[client.complete(asked(0.05)) for _ in range(3)], return_exceptions=True)
        assert [str(error) for error in late] == ["the language model had no time for it within 0.05 s"] * 3
        assert {type(error) for error in late} == {TooManyAttemptsError}
        waiting = asyncio.create_task(client.complete(asked(30.0)))
        await asyncio.sleep(0.05)
        assert engine.now == 1, "the thread of the first question goes on, and holds its turn"
        engine.goes_on.set()
        assert (await waiting).text == "warm"
    assert engine.most == 1
    assert len(engine.budgets) == 1
    assert 20.0 < engine.budgets[0] < 29.96


async def test_what_is_prepared_long_leaves_asyncios_own_threads_to_others() -> None:
    engine = Slow()
    clients = [LocalInference(lambda: cast(Engine, engine), f"agent {number}") for number in range(40)]
    waiting = [asyncio.create_task(client.complete(asked(30.0))) for client in clients]
    async with asyncio.timeout(20):
        await until(lambda: engine.now > 1)
        assert await asyncio.to_thread(int) == 0
        assert engine.now < len(clients)
        engine.goes_on.set()
        assert {done.text for done in await asyncio.gather(*waiting)} == {"warm"}


async def test_a_fault_is_told_and_the_next_one_has_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    lock, goes_on = asyncio.Lock(), threading.Event()

    def fail() -> None:
        goes_on.wait(30)
        raise InvalidInputError("none")

    left = asyncio.create_task(in_turn(lock, fail))
    await until(lambda: lock.locked())
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    goes_on.set()
    with pytest.raises(InvalidInputError):
        await in_turn(lock, fail)
    assert await in_turn(lock, lambda: 7) == 7
    assert not lock.locked()
    assert not caplog.records
