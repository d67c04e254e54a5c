"""EdgeX's requests to an agent, passed on: what an agent answers costs the guard no more than it may."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from services.guard import relays as relays_module
from services.guard.relays import MOST_AT_ONCE, MOST_BYTES, Place, Relays


def request(method: str = "GET", path: str = "/api/v3/ping", **headers: str) -> Request:
    """Return a request as it comes over EdgeX's network."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.replace("_", "-").encode(), text.encode("latin-1")) for name, text in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw}
    return Request(scope, receive)


class Agent(httpx.AsyncBaseTransport):
    """An agent that answers with `chunks`, each after a pause."""

    def __init__(self, *chunks: bytes, pause_s: float = 0.0) -> None:
        self.chunks, self.pause_s = chunks, pause_s
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(200, stream=Slowly(self.chunks, self.pause_s))


class Slowly(httpx.AsyncByteStream):
    """Bytes that come with pauses."""

    def __init__(self, chunks: tuple[bytes, ...], pause_s: float) -> None:
        self.chunks, self.pause_s = chunks, pause_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            await asyncio.sleep(self.pause_s)
            yield chunk


async def relays_to(agent: Agent, folder: Path, tasks: asyncio.TaskGroup) -> Relays:
    """Return relays that know one agent."""
    relays = Relays(folder / "agents.json", "127.0.0.1", httpx.AsyncClient(transport=agent), tasks)
    relays._places["air"] = Place("10.0.0.7", 59750, 59751)
    return relays


async def test_what_an_agent_answers_goes_back(tmp_path: Path) -> None:
    agent = Agent(b'{"apiVersion":', b'"v3"}')
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answer = await relays._relay("air", request())
    assert (answer.status_code, answer.body) == (200, b'{"apiVersion":"v3"}')
    assert agent.asked[0].headers["accept-encoding"] == "identity", "a few bytes could unpack into any number"


async def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    agent = Agent(*[b"x" * (MOST_BYTES // 4)] * 100)
    async with asyncio.TaskGroup() as tasks:
        answer = await (await relays_to(agent, tmp_path, tasks))._relay("air", request())
    assert answer.status_code == 502


async def test_a_byte_now_and_then_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays_module, "WAIT_S", 0.1)
    agent = Agent(*[b"x"] * 1000, pause_s=0.02)
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answers = await asyncio.gather(*(relays._relay("air", request()) for _ in range(MOST_AT_ONCE + 2)))
    assert sorted(answer.status_code for answer in answers) == [429] * 2 + [503] * MOST_AT_ONCE
    assert len(agent.asked) == MOST_AT_ONCE


async def test_no_token_reaches_an_agent(tmp_path: Path) -> None:
    agent = Agent(b"{}")
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answer = await relays._relay("air", request(authorization="Bearer eyJ", cookie="a=b", traceparent="00-1-2-01"))
    assert answer.status_code == 200
    assert not {"authorization", "cookie"} & agent.asked[0].headers.keys()
    assert agent.asked[0].headers["traceparent"] == "00-1-2-01"


async def test_a_header_that_is_no_ascii_stays_here(tmp_path: Path) -> None:
    agent = Agent(b"{}")
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answer = await relays._relay("air", request(x_correlation_id="é", accept="text/plain"))
    assert answer.status_code == 200
    assert "x-correlation-id" not in agent.asked[0].headers
    assert agent.asked[0].headers["accept"] == "text/plain"
