"""A home whose assistant has the real language model, which is killed while it writes an answer."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from tests.contract.waiting import until
from tests.homes import edit, home_with_lamps
from tests.real_model import MODEL, needs_model
from tests.scenarios.test_ask import say

pytestmark = [needs_model, pytest.mark.timeout(400)]
SAID = "my desk lies in darkness over in the study, alas"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a home with the assistant alone, and the model's service; it has time, however busy the machine is."""
    files = home_with_lamps(tmp_path / "files")
    edit(files / "agents" / "assistant.yaml", lambda agent: agent["thinks"].update(budget="12s"))
    played = frozenset(("air", "comfort", "energy"))
    gateway = Gateway(Plan(tmp_path, files, 60.0, WINTER_MORNING_S, played=played, model=MODEL))
    gateway.start()
    try:
        await gateway.ready(100)
        gateway.start_model()
        yield gateway
    finally:
        await gateway.stop()


async def model(gateway: Gateway) -> dict[str, Any]:
    """Return what the model's service says of itself."""
    return await gateway.state("inference", "/api/v3/inference")


async def until_ready(gateway: Gateway) -> None:
    """Wait until the model is there."""

    async def is_ready() -> bool:
        return bool((await model(gateway)).get("ready"))

    await until(is_ready, "the model is there", timeout_s=120)


async def thinking(gateway: Gateway) -> dict[str, int]:
    """Return how often the assistant asked its model, and what came of it."""
    state = await gateway.http.get(f"{(await gateway.agent_urls())['assistant']}/api/v3/agent")
    return dict(state.json()["thinking"])


async def test_a_model_killed_in_the_middle_of_its_answer_is_told_and_missed_by_nothing_else(home: Gateway) -> None:
    await until_ready(home)
    before = await thinking(home)
    asking = asyncio.ensure_future(say(home, SAID, waitSeconds=25))
    async with asyncio.timeout(30):
        while True:
            counts = (await model(home)).get("counts", {})
            if counts.get("requests", 0) > sum(counts.get("endings", {}).values()):
                break
            assert not asking.done(), f"it was answered before anybody could see it being written: {asking.result()}"
            await asyncio.sleep(0.005)
    pid = home.supervisor.pid("inference")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    killed_s = time.monotonic()

    # Meanwhile what needs no model is done and proven as ever.
    lamp = await say(home, "turn on the light in the bedroom")
    assert lamp["kind"] == "done", lamp
    told = await asking
    print(f"told {time.monotonic() - killed_s:.1f} s after the kill: {told['answer']}")
    assert (told["kind"], told["commands"]) == ("not-understood", []), told
    assert "the language model" in told["answer"]
    after = await thinking(home)
    assert after.get("answered", 0) == before.get("answered", 0), "no answer came of it"
    assert sum(after.get(word, 0) - before.get(word, 0) for word in ("late", "away")) == 1, (before, after)

    # It comes back by itself, and is asked again.
    await until_ready(home)
    again = await say(home, SAID, waitSeconds=25, requestId="again")
    last, written = await thinking(home), ("answered", "capped", "illegal")  # what a stock model says may be of no use
    assert sum(last.get(word, 0) - after.get(word, 0) for word in written) == 1, (again, after, last)
