"""Errors below /v1 are OpenAI's, those of the service itself too."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from edgeagents.adapters.middleware import correlation_id
from services.inference.error_pages import OpenAiErrors


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.add_middleware(OpenAiErrors)

    @app.get("/v1/broken")
    async def broken() -> None:
        correlation_id.set("c-1")
        raise RuntimeError("a secret")

    @app.get("/v1/breaks")
    async def breaks() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("a secret")

        return StreamingResponse(parts())

    @app.get("/v1/missing", status_code=404)
    async def missing() -> dict[str, str]:
        return {"message": "no such model"}

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as found:
        yield found


async def test_a_fault_of_the_service_says_so_and_nothing_more(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/broken")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["X-Correlation-ID"] == "c-1"


async def test_a_fault_in_the_middle_of_an_answer_ends_it(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/breaks")).text == "one"


async def test_an_address_that_is_not_there_is_not_called_a_missing_model(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/other")).json()["error"]["code"] == "unknown_url"
    found = (await client.get("/v1/missing")).json()["error"]
    assert (found["code"], found["message"]) == ("model_not_found", "no such model")
    for address in ("/v1", "/v1/"):
        assert (await client.get(address)).json()["error"]["code"] == "unknown_url"


async def test_other_addresses_are_left_alone(client: httpx.AsyncClient) -> None:
    for address in ("/api/v3/other", "/v10", "/v1x/other"):
        assert (await client.get(address)).json() == {"detail": "Not Found"}
