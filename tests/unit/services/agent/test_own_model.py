"""An agent with a model of its own: rules first, the model when it is there, a plain word when it cannot be."""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagents.errors import ConfigurationError, UnavailableError
from edgeagents.model.agent import Thinks
from edgeagents.model.answer import parse_answer
from edgeagents.model.completion import ChatMessage, CompletionRequest
from edgeagents.model.options import Options, Slot
from services.agent.app import thinker_of
from tests.tiny_model import tiny_model

OPTIONS = Options(slots=(Slot(device="lamp", resource="On", kind="Bool"),), most_text=12)
THINKS = Thinks.model_validate({"by": "process"})
AGENT: Any = SimpleNamespace(name="air")
ANSWERS: Any = SimpleNamespace(options=lambda: OPTIONS, give_up=lambda question, problem: None)
WAIT_S = 60


def service_of(tasks: asyncio.TaskGroup) -> Any:
    return SimpleNamespace(tasks=tasks, settings=SimpleNamespace(gateway="gw"), bus=None)


async def test_it_is_asked_in_the_agents_process_as_soon_as_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEAGENTS_AGENT_FILE", str(tmp_path / "air.yaml"))
    monkeypatch.setenv("EDGEAGENTS_AGENT_MODEL", str(tmp_path / "tiny"))
    tiny_model(tmp_path)
    wanted = CompletionRequest(
        messages=(ChatMessage(role="user", content="it is dark"),), options=OPTIONS, budget_s=30, most_tokens=150
    )
    async with asyncio.TaskGroup() as tasks:
        thinker = await thinker_of(service_of(tasks), AGENT, THINKS, ANSWERS)
        with pytest.raises(UnavailableError, match="is being loaded"):
            await thinker._client.complete(wanted)
        done = None
        async with asyncio.timeout(WAIT_S):
            while done is None:
                try:
                    done = await thinker._client.complete(wanted)
                except UnavailableError:
                    await asyncio.sleep(0.05)
        parse_answer(done.text, OPTIONS)
        for task in asyncio.all_tasks():
            if task.get_name() == "model":
                task.cancel()


async def test_without_the_library_the_agent_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEAGENTS_AGENT_FILE", str(tmp_path / "air.yaml"))
    monkeypatch.setitem(sys.modules, "edgeagents.inference.engine", None)
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(ConfigurationError, match=r"pip install .*inference"):
            await thinker_of(service_of(tasks), AGENT, THINKS, ANSWERS)
