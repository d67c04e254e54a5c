"""Commands that go on until Ctrl-C, and end then, whatever they are waiting for.

`asyncio.run` cancels once. A cancellation that a library loses (`asyncio.wait_for` of Python 3.11 loses one that comes
with its result) would leave the command running, with nobody to tell it again.

Source: bpo-37658; signal handlers of asyncio.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final

AGAIN_S: Final = 0.5
MOST_ROUNDS: Final = 10  # for what runs in the background and should end by itself


def run_until_interrupted(main: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end, or until Ctrl-C; raises what it raises."""
    end = asyncio.run(_guarded(main))
    if end is not None:
        raise end


async def _kept(main: Coroutine[Any, Any, None]) -> SystemExit | None:
    """Await a command; return its exit: raised within a task it would end the loop at once, and be called lost."""
    try:
        await main
    except SystemExit as end:  # rich's, for example, when nobody reads any more
        return end
    return None


async def _guarded(main: Coroutine[Any, Any, None]) -> SystemExit | None:
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    task, waiting = asyncio.create_task(_kept(main)), asyncio.create_task(interrupted.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
    for _ in range(MOST_ROUNDS):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            break
        for other in others:
            other.cancel()
        await asyncio.wait(others, timeout=AGAIN_S)
    return None if task.cancelled() else task.result()
