"""The inference service as a process: any OpenAI client, agents over NATS, and what must be refused."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.inference_client import HttpInference, NatsInference
from edgeagents.errors import InvalidInputError, TooLargeError, TooManyAttemptsError, UnavailableError
from edgeagents.model.answer import CommandAnswer, parse_answer
from edgeagents.model.completion import ChatMessage, CompletionRequest
from edgeagents.model.options import Options, Slot
from edgeagents.permissions import agent_user, inbox
from tests.embedded_core import EmbeddedCore
from tests.nats import NatsServer
from tests.services import ServiceProcess
from tests.tiny_model import NAME, tiny_model

MOST_OF_CLIENT = 12
OPTIONS = Options(
    slots=(
        Slot(device='lamp "é"', resource="On", kind="Bool"),
        Slot(device="radiator", resource="Setpoint", kind="Float32", lowest=140, highest=230, decimals=1),
    ),
    skills=("heating",), most_text=12,
)  # fmt: skip
SCHEMA = {
    "type": "object", "required": ["room", "degrees"], "additionalProperties": False,
    "properties": {"room": {"enum": ["kitchen", "bath"]}, "degrees": {"type": "integer", "minimum": 5, "maximum": 30}},
}  # fmt: skip
TOOL: Any = {"type": "function", "function": {"name": "set_heat", "parameters": SCHEMA}}


def asked(text: str = "It is cold.", **changes: Any) -> CompletionRequest:
    values = {"messages": (ChatMessage(role="user", content=text),), "most_tokens": 200, "budget_s": 60.0} | changes
    return CompletionRequest(**values)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def url(nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the service's address, its model loaded."""
    folder = tmp_path_factory.mktemp("inference")
    core = EmbeddedCore(folder / "core", nats.url).start()
    environ = {
        "EDGEAGENTS_GATEWAY": "gw", "EDGEAGENTS_INFERENCE_MODEL": str(tiny_model(folder)),
        "EDGEAGENTS_INFERENCE_MOST_OF_CLIENT": str(MOST_OF_CLIENT),
    }  # fmt: skip
    service = ServiceProcess("services.inference", "app-inference", core, nats.url, folder, environ=environ)
    try:
        found = service.ready()
        give_up = time.monotonic() + 60
        while httpx.get(f"{found}/api/v3/ready").status_code != 200:
            assert time.monotonic() < give_up, httpx.get(f"{found}/api/v3/ready").text
            time.sleep(0.1)
        yield found
        assert service.stop() == 0, service.log_path.read_text()
    finally:
        if service.process.poll() is None:
            service.kill()
        core.stop()


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


@pytest.fixture
async def bus(nats: NatsServer, url: str) -> AsyncIterator[Bus]:
    found = await Bus.connect(nats.settings(), "agent", inbox=inbox(agent_user("air")))
    yield found
    await found.close()


def messages(text: str = "It is cold.") -> Any:
    return [{"role": "system", "content": "You run a house."}, {"role": "user", "content": text}]


async def test_an_openai_client_lists_the_model_and_gets_an_answer(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [NAME]
    assert (await client.models.retrieve(NAME)).id == NAME
    done = await client.chat.completions.create(
        model=NAME, messages=messages(), max_tokens=7, temperature=0, logprobs=True
    )
    choice = done.choices[0]
    assert (done.model, choice.finish_reason) == (NAME, "length")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) >= 7
    assert done.usage is not None
    assert done.usage.completion_tokens == 7
    again = await client.chat.completions.create(model=NAME, messages=messages(), max_tokens=7, temperature=0)
    assert again.choices[0].message.content == choice.message.content


async def test_a_stream_holds_what_the_whole_answer_holds(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model=NAME, messages=messages("a"), max_tokens=30, temperature=0)
    stream = await client.chat.completions.create(
        model=NAME, messages=messages("a"), max_tokens=30, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


async def test_an_answer_keeps_to_a_json_schema_at_any_temperature(client: openai.AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "heat", "schema": SCHEMA, "strict": True}}
    for seed in range(5):
        done = await client.chat.completions.create(
            model=NAME, messages=messages(), response_format=form, temperature=2, seed=seed
        )
        found = json.loads(done.choices[0].message.content or "")
        assert set(found) == {"room", "degrees"}
        assert 5 <= found["degrees"] <= 30
        assert done.choices[0].finish_reason == "stop"


async def test_a_tool_is_called_with_arguments_of_its_schema_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    done = await client.chat.completions.create(
        model=NAME, messages=messages(), tools=[TOOL], tool_choice="required", temperature=2, seed=1
    )
    assert done.choices[0].finish_reason == "tool_calls"
    assert done.choices[0].message.tool_calls is not None
    call: Any = done.choices[0].message.tool_calls[0]
    assert call.function.name == "set_heat"
    assert json.loads(call.function.arguments)["room"] in ("kitchen", "bath")
    stream = await client.chat.completions.create(
        model=NAME, messages=messages(), tools=[TOOL], tool_choice="required", temperature=2, seed=1, stream=True
    )
    deltas = [chunk.choices[0].delta async for chunk in stream]
    streamed = [item for delta in deltas for item in delta.tool_calls or ()]
    assert [(item.function.name, item.function.arguments) for item in streamed if item.function] == [
        (call.function.name, call.function.arguments)
    ]


async def test_what_cannot_be_fulfilled_is_refused_with_the_right_status(client: openai.AsyncOpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="this gateway has 'tiny'"):
        await client.chat.completions.create(model="gpt-9", messages=messages())
    schema = {"type": "string", "minLength": 5, "maxLength": 2}
    unfulfillable: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="minLength"):
        await client.chat.completions.create(model=NAME, messages=messages(), response_format=unfulfillable)
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model=NAME, messages=messages("x" * 10_000_000))
    assert caught.value.status_code == 413
    assert caught.value.code == "context_length_exceeded"
    async with httpx.AsyncClient(base_url=url) as http:
        for body in (b'{"model":"tiny","messages":[{"role":"user","content":"\xff\xfe"}]}', b"[" * 100_000, b"{}", b""):
            answer = await http.post("/v1/chat/completions", content=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["type"] == "invalid_request_error"
        unknown = (await http.get("/v1/nothing")).json()["error"]
        assert (unknown["code"], bool(unknown["message"])) == ("unknown_url", True)
        for name in ("gpt-9", "others/gpt-9"):
            assert (await http.get(f"/v1/models/{name}")).json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_had_no_time_to_begin_is_refused(client: openai.AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.RateLimitError, match="no time"):
        await client.chat.completions.create(
            model=NAME, messages=messages(), stream=stream, extra_body={"budget_s": 1e-9}
        )


async def test_a_hundred_at_once_are_each_answered_or_told_to_come_again(client: openai.AsyncOpenAI) -> None:
    found = await asyncio.gather(
        *(client.chat.completions.create(model=NAME, messages=messages(f"number {number}"), max_tokens=4)
          for number in range(100)), return_exceptions=True,
    )  # fmt: skip
    refused = [item for item in found if isinstance(item, openai.RateLimitError)]
    answered = [item for item in found if not isinstance(item, BaseException)]
    assert len(answered) >= MOST_OF_CLIENT
    assert len(answered) + len(refused) == 100
    assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)


async def test_a_client_that_goes_away_ends_its_text(client: openai.AsyncOpenAI, url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        before = (await http.get("/api/v3/inference")).json()["counts"]["endings"].get("cancelled", 0)
        schema = {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 10_000,
        }  # so that it does not end by itself
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"model": NAME, "messages": messages(), "max_tokens": 1900, "stream": True, "response_format": form}
        async with http.stream("POST", "/v1/chat/completions", json=body, timeout=30) as answer:
            async for line in answer.aiter_lines():
                if '"content":"[' in line:
                    break
        for _ in range(200):
            if (await http.get("/api/v3/inference")).json()["counts"]["endings"].get("cancelled", 0) > before:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the text was not cancelled")
    assert (await client.chat.completions.create(model=NAME, messages=messages(), max_tokens=1)).choices


async def test_agents_get_legal_answers_over_nats(bus: Bus) -> None:
    air, kinds = NatsInference(bus, "air"), set[type]()
    for seed in range(12):
        done = await air.complete(asked(options=OPTIONS, temperature=2.0, seed=seed))
        assert not done.is_capped
        kinds.add(type(parse_answer(done.text, OPTIONS)))
        assert 0 < done.confidence <= 1
    assert len(kinds) > 1


async def test_an_openai_compatible_server_gives_legal_answers_or_they_are_marked(url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        found = [
            await HttpInference(http, f"{url}/v1", NAME).complete(asked(options=OPTIONS, temperature=2.0, seed=seed))
            for seed in range(12)
        ]
    legal = [done for done in found if not done.is_capped]
    assert len(legal) > 3, "a schema says nothing of letters that cannot be shown; all else it holds to"
    for done in legal:
        parse_answer(done.text, OPTIONS)
        assert 0 < done.confidence <= 1


async def test_answers_are_compared_without_being_written(bus: Bus) -> None:
    texts = ('{"device":"radiator","resource":"Setpoint","value":21.0}', '{"nothing":"all is well"}')
    done = await NatsInference(bus, "air").complete(asked(options=OPTIONS, scored=texts))
    assert len(done.scores) == 2
    assert sum(done.shares()) == pytest.approx(1.0)
    assert isinstance(parse_answer(texts[0], OPTIONS), CommandAnswer)
    with pytest.raises(InvalidInputError, match="may not be set"):
        await NatsInference(bus, "air").complete(
            asked(options=OPTIONS, scored=('{"device":"oven","resource":"On","value":true}',))
        )


async def test_agents_are_refused_what_is_too_long_and_told_what_was_not_in_time(bus: Bus) -> None:
    air = NatsInference(bus, "air")
    with pytest.raises(TooManyAttemptsError, match="no time for it"):
        await air.complete(asked(budget_s=0.0001))
    with pytest.raises(TooLargeError):
        await air.complete(asked("x" * 100_000))
    with pytest.raises(TooLargeError, match="are read"):
        await air.complete(asked("x" * 2_000_000))
    answer = await bus.request(subjects.inference("gw", "air"), b"\xff{", timeout_s=10)
    assert json.loads(answer.data)["status"] == 400


async def test_an_answer_goes_to_the_inbox_of_the_agent_that_asked_and_nowhere_else(bus: Bus) -> None:
    with pytest.raises(UnavailableError, match="no answer"):
        await bus.request(subjects.inference("gw", "comfort"), asked().model_dump_json().encode(), timeout_s=1.0)
