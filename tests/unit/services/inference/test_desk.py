"""Whatever an agent asks, it gets one answer, and everybody else is served on."""

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.model_shelf import Shelf
from edgeagents.inference.engine import Engine, Prepared
from edgeagents.model.completion import MOST_REQUEST_BYTES, CompletionRequest
from edgeagents.permissions import agent_user, inbox
from services.inference import desk as desk_module
from services.inference.desk import Desk


class Answers:
    """Stands for a bus; keeps what was answered."""

    settings = SimpleNamespace(gateway="gw")

    def __init__(self, error: Exception | None = None) -> None:
        self.found, self.error = list[dict[str, Any]](), error

    async def respond(self, message: BusMessage, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.found.append(json.loads(data))


class Broken:
    """Stands for an engine with a fault."""

    digest = "d" * 64

    def prepare(self, request: CompletionRequest) -> Prepared:
        raise KeyError("a bug")


def asked(body: bytes = b'{"messages":[{"role":"user","content":"x"}]}', agent: str = "air") -> BusMessage:
    return BusMessage(subjects.inference("gw", agent), body, {}, f"{inbox(agent_user(agent))}.x")


async def answered(bus: Answers, *messages: BusMessage) -> Desk:
    async with asyncio.TaskGroup() as tasks:
        shelf = cast(Shelf, SimpleNamespace(engine=lambda: cast(Engine, Broken())))
        desk = Desk(cast(Bus, bus), shelf, tasks)
        for message in messages:
            await desk._take(message)
    return desk


async def test_a_fault_is_told_as_one_counted_and_ends_nothing() -> None:
    bus = Answers()
    desk = await answered(bus, asked(), asked(agent="heat"))
    assert [item["status"] for item in bus.found] == [500, 500]
    assert desk.refused == {500: 2}
    assert not +desk._working


async def test_an_answer_that_cannot_be_sent_ends_nothing() -> None:
    desk = await answered(Answers(RuntimeError("a bug")), asked())
    assert not +desk._working


async def test_a_question_that_is_too_long_is_refused_before_it_is_read() -> None:
    bus = Answers()
    await answered(bus, asked(b" " * (MOST_REQUEST_BYTES + 1)), asked(b"{"))
    assert sorted(item["status"] for item in bus.found) == [400, 413]


async def test_questions_are_read_beside_the_loop_one_at_a_time_of_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    here, reading, most, threads = threading.get_ident(), [0], [0], set[int]()

    class Slow:
        @staticmethod
        def model_validate_json(data: bytes) -> CompletionRequest:
            reading[0] += 1
            most[0] = max(most[0], reading[0])
            threads.add(threading.get_ident())
            found = CompletionRequest.model_validate_json(data)
            reading[0] -= 1
            return found

    monkeypatch.setattr(desk_module, "CompletionRequest", Slow)
    await answered(Answers(), *[asked() for _ in range(8)])
    assert most == [1]
    assert here not in threads


@pytest.mark.parametrize(
    "slot",
    [{"highest": 10**2000}, {"values": ["1"] * 60_000}, {"values": ["1" * 2000]}],
    ids=["number", "many", "long"],
)
async def test_menus_beyond_all_devices_are_refused(slot: dict[str, Any]) -> None:
    options = {"slots": [{"device": "d", "resource": "r", "kind": "Int64", **slot}]}
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "options": options}, separators=(",", ":"))
    bus = Answers()
    await answered(bus, asked(body.encode()))
    assert bus.found[0]["status"] == 400
