"""A cancellation that comes in the same turn as an answer, or as an error, is not lost."""

import asyncio

import pytest

from edgeagents.adapters.streams import finished


@pytest.mark.parametrize("error", [None, OSError("nobody answers")])
async def test_a_cancellation_in_the_turn_of_the_answer_is_heard(error: OSError | None) -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(finished(asyncio.wait_for(answer, 5)))
    await asyncio.sleep(0)
    if error is None:
        answer.set_result(1)
    else:
        answer.set_exception(error)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_a_cancellation_answer_and_error_come_through() -> None:
    async def answer() -> int:
        return 1

    async def fail() -> int:
        raise OSError("nobody answers")

    assert await finished(answer()) == 1
    with pytest.raises(OSError, match="nobody answers"):
        await finished(fail())
