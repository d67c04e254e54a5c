"""Commands that go on until Ctrl-C end then, also where a cancellation gets lost."""

import asyncio
import contextlib
import gc
import os
import signal

import pytest

from edgeagents.cli.following import run_until_interrupted


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def deaf(times: int, began: list[int]) -> None:
    """Lose so many cancellations, then end at the next one."""
    asyncio.get_running_loop().call_later(0.05, interrupt)
    for _ in range(times):
        began.append(1)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    await asyncio.sleep(60)


@pytest.mark.parametrize("times", [0, 1, 3])
def test_one_ctrl_c_ends_what_loses_cancellations(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setattr("edgeagents.cli.following.AGAIN_S", 0.02)
    began: list[int] = []
    run_until_interrupted(deaf(times, began))
    assert len(began) == times


def test_what_runs_in_the_background_and_loses_one_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagents.cli.following.AGAIN_S", 0.02)
    left: list[asyncio.Task[None]] = []
    began: list[int] = []

    async def main() -> None:
        left.append(asyncio.create_task(deaf(2, began)))
        await asyncio.sleep(60)

    run_until_interrupted(main())
    assert left[0].cancelled()


def test_what_ends_by_itself_returns_and_what_fails_says_so() -> None:
    async def fails() -> None:
        raise ValueError("why")

    run_until_interrupted(asyncio.sleep(0))
    with pytest.raises(ValueError, match="why"):
        run_until_interrupted(fails())


def test_an_exit_within_is_the_commands(caplog: pytest.LogCaptureFixture) -> None:
    async def exits() -> None:
        raise SystemExit(3)

    code: object = None
    try:
        run_until_interrupted(exits())
    except SystemExit as end:  # not kept: asyncio tells of a lost exception once nobody holds its task
        code = end.code
    gc.collect()
    assert code == 3
    assert caplog.records == []
