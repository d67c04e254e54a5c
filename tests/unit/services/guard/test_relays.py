"""EdgeX's requests to an agent, passed on: what an agent answers costs the guard no more than it may."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from edgeagents.errors import ConfigurationError
from services.guard import relays as relays_module
from services.guard.relays import MOST_AT_ONCE, MOST_BYTES, MOST_SLOW, Place, Relays
from services.guard.roads import AGENTS_ROAD


def request(method: str = "GET", path: str = "/api/v3/ping", query: str = "", **headers: str) -> Request:
    """Return a request as it comes over EdgeX's network."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.replace("_", "-").encode(), text.encode("latin-1")) for name, text in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": raw,
    }  # fmt: skip
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
    """Return relays that know one agent, and one coordinator."""
    relays = Relays(folder / "agents.json", "127.0.0.1", httpx.AsyncClient(transport=agent), tasks)
    relays._places["air"] = Place("10.0.0.7", 59750, 59751)
    relays._places["coordinator"] = Place("10.0.0.8", 59741, 59741)
    return relays


async def unheard(message: Message) -> None:
    """Be sent nothing: what is read whole comes back as an answer."""
    raise AssertionError(message)


async def answered(relays: Relays, asked: Request, who: str = "air") -> Response:
    """Return the answer of a request that does not come in pieces."""
    answer = await relays._relay(who, asked, unheard)
    assert answer is not None
    return answer


async def test_what_an_agent_answers_goes_back(tmp_path: Path) -> None:
    agent = Agent(b'{"apiVersion":', b'"v3"}')
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answer = await answered(relays, request())
    assert (answer.status_code, answer.body) == (200, b'{"apiVersion":"v3"}')
    assert agent.asked[0].headers["accept-encoding"] == "identity", "a few bytes could unpack into any number"


async def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    agent = Agent(*[b"x" * (MOST_BYTES // 4)] * 100)
    async with asyncio.TaskGroup() as tasks:
        answer = await answered(await relays_to(agent, tmp_path, tasks), request())
    assert answer.status_code == 502


async def test_a_byte_now_and_then_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = replace(AGENTS_ROAD, routes=tuple(replace(route, wait_s=0.1) for route in AGENTS_ROAD.routes))
    monkeypatch.setattr(relays_module, "road_of", lambda who: hasty)
    agent = Agent(*[b"x"] * 1000, pause_s=0.02)
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answers = await asyncio.gather(*(answered(relays, request()) for _ in range(MOST_AT_ONCE + 2)))
    assert sorted(answer.status_code for answer in answers) == [429] * 2 + [503] * MOST_AT_ONCE
    assert len(agent.asked) == MOST_AT_ONCE


async def test_no_token_reaches_an_agent(tmp_path: Path) -> None:
    agent = Agent(b"{}")
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answer = await answered(relays, request(authorization="Bearer eyJ", cookie="a=b", traceparent="00-1-2-01"))
    assert answer.status_code == 200
    assert not {"authorization", "cookie"} & agent.asked[0].headers.keys()
    assert agent.asked[0].headers["traceparent"] == "00-1-2-01"


async def test_a_header_that_is_no_ascii_stays_here(tmp_path: Path) -> None:
    agent = Agent(b"{}")
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        answer = await answered(relays, request(x_correlation_id="é", accept="text/plain"))
    assert answer.status_code == 200
    assert "x-correlation-id" not in agent.asked[0].headers
    assert agent.asked[0].headers["accept"] == "text/plain"


async def test_who_waits_for_a_proof_takes_no_place_of_keepers_health_check(tmp_path: Path) -> None:
    agent = Agent(b"{}", pause_s=0.2)
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        asked = [tasks.create_task(answered(relays, request("POST", "/api/v3/ask"))) for _ in range(MOST_SLOW + 1)]
        await asyncio.sleep(0)
        ping = await answered(relays, request())
    assert ping.status_code == 200
    assert sorted(task.result().status_code for task in asked) == [200] * MOST_SLOW + [429]


async def test_parameters_go_on_where_a_route_has_some_and_nowhere_else(tmp_path: Path) -> None:
    agent = Agent(b"{}")
    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        await answered(relays, request(path="/api/v3/task/all", query="state=done&limit=5"), "coordinator")
        await answered(relays, request(query="x=y"), "coordinator")
    assert [str(asked.url) for asked in agent.asked] == [
        "http://10.0.0.8:59741/api/v3/task/all?state=done&limit=5", "http://10.0.0.8:59741/api/v3/ping",
    ]  # fmt: skip


async def test_changes_go_back_as_they_come_and_give_their_place_back(tmp_path: Path) -> None:
    agent, sent = Agent(b"event: task\n\n", b": here\n\n"), list[Message]()

    async def keep(message: Message) -> None:
        sent.append(message)

    async with asyncio.TaskGroup() as tasks:
        relays = await relays_to(agent, tmp_path, tasks)
        for _ in range(MOST_SLOW + 1):
            sent.clear()
            assert await relays._relay("coordinator", watching(), keep) is None
    assert sent[0]["status"] == 200
    assert [message["body"] for message in sent[1:]] == [b"event: task\n\n", b": here\n\n", b""]


async def test_a_service_that_cannot_be_reached_is_told_as_such_before_anything_is_sent(tmp_path: Path) -> None:
    class Away(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

    async with asyncio.TaskGroup() as tasks:
        relays = Relays(tmp_path / "agents.json", "127.0.0.1", httpx.AsyncClient(transport=Away()), tasks)
        relays._places["coordinator"] = Place("10.0.0.8", 59741, 59741)
        answer = await relays._relay("coordinator", watching(), unheard)
    assert answer is not None
    assert answer.status_code == 503
    assert b"coordinator at 10.0.0.8:59741" in answer.body


def watching() -> Request:
    """Return the request of a client that stays until all has come."""
    told = request(path="/api/v3/task/watch")
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    return Request(told.scope, receive)


async def test_a_fixed_port_that_somebody_else_has_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(relays_module, "road_of", lambda who: replace(AGENTS_ROAD, port=taken, others=None))
        places = {"coordinator": {"host": "10.0.0.8", "port": 59741, "relay_port": taken}}
        (tmp_path / "agents.json").write_text(json.dumps(places))
        async with asyncio.TaskGroup() as tasks:
            relays = Relays(tmp_path / "agents.json", "127.0.0.1", httpx.AsyncClient(), tasks)
            relays.start()
            with pytest.raises(ConfigurationError, match=str(taken)):
                relays.enter("coordinator", "10.0.0.8", 59741)
            relays.stop()
    assert "EdgeX does not reach coordinator" in caplog.text
