"""core-keeper's registry: who is registered, and whether keeper finds them alive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from edgeagents.adapters.keeper import Registration
from edgeagents.adapters.serving import WebServer, bind
from tests.contract.edgex import Edgex, Reply
from tests.contract.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def entry(name: str, port: int = 59799, host: str = "127.0.0.1", **changes: Any) -> dict[str, Any]:
    """Return a registration; by default of a service that keeper asks too seldom to matter here."""
    check = {"interval": "10m", "path": "/api/v3/ping", "type": "http"}
    return {"serviceId": name, "host": host, "port": port, "HealthCheck": check, **changes}


async def send(edgex: Edgex, method: str, registration: dict[str, Any]) -> Reply:
    return await edgex.ask("core-keeper", method, "/registry", {"apiVersion": "v3", "registration": registration})


async def read(edgex: Edgex, name: str) -> dict[str, Any]:
    answer = await edgex.ask("core-keeper", "GET", f"/registry/serviceId/{name}")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.body["registration"]
    return found


@pytest.fixture
def name(edgex: Edgex) -> str:
    """The id of a service that is not registered."""
    return edgex.name("app-registry")


async def test_added_service_is_read_back(edgex: Edgex, name: str) -> None:
    answer = await send(edgex, "POST", entry(name))
    assert (answer.status, answer.body) == (201, {"apiVersion": "v3", "statusCode": 201, "serviceName": name})
    found = await read(edgex, name)
    assert found.pop("created") <= found.pop("modified")
    assert found == entry(name, status="UNKNOWN")


async def test_service_that_is_registered_is_not_added_again(edgex: Edgex, name: str) -> None:
    await send(edgex, "POST", entry(name))
    answer = await send(edgex, "POST", entry(name))
    assert (answer.status, answer.message) == (409, f"registry with service id '{name}' already exists")


async def test_update_replaces_a_registration_and_answers_nothing(edgex: Edgex, name: str) -> None:
    await send(edgex, "POST", entry(name))
    answer = await send(edgex, "PUT", entry(name, port=59798))
    assert (answer.status, answer.body) == (204, None)
    assert (await read(edgex, name))["port"] == 59798


async def test_service_that_is_not_registered_is_404(edgex: Edgex, name: str) -> None:
    for answer in (
        await edgex.ask("core-keeper", "GET", f"/registry/serviceId/{name}"),
        await send(edgex, "PUT", entry(name)),
        await edgex.ask("core-keeper", "DELETE", f"/registry/serviceId/{name}"),
    ):
        assert (answer.status, answer.body["statusCode"]) == (404, 404)


async def test_service_that_said_goodbye_is_listed_only_when_asked_for(edgex: Edgex, name: str) -> None:
    await send(edgex, "POST", entry(name))
    assert name in await listed(edgex)
    assert (await send(edgex, "PUT", entry(name, status="HALT"))).status == 204
    assert name not in await listed(edgex)
    assert (await listed(edgex, deregistered="true"))[name] == "HALT"
    assert (await read(edgex, name))["status"] == "HALT"


async def listed(edgex: Edgex, **query: str) -> dict[str, str]:
    answer = await edgex.ask("core-keeper", "GET", "/registry/all", query=query or None)
    found = {item["serviceId"]: item["status"] for item in answer.body["registrations"]}
    assert answer.body["totalCount"] == len(found)
    return found


async def test_deleted_service_is_gone(edgex: Edgex, name: str) -> None:
    await send(edgex, "POST", entry(name))
    answer = await edgex.ask("core-keeper", "DELETE", f"/registry/serviceId/{name}")
    assert (answer.status, answer.body) == (204, None)
    assert name not in await listed(edgex, deregistered="true")


async def test_unknown_status_becomes_unknown(edgex: Edgex, name: str) -> None:
    await send(edgex, "POST", entry(name, status="SLEEPY"))
    assert (await read(edgex, name))["status"] == "UNKNOWN"


async def test_registration_without_its_parts_is_refused_and_all_are_named(edgex: Edgex, name: str) -> None:
    answer = await send(edgex, "POST", {"serviceId": name})
    assert answer.status == 400
    for missing in ("Host", "Port", "HealthCheck.Interval", "HealthCheck.Path", "HealthCheck.Type"):
        assert f"AddRegistrationRequest.Registration.{missing} field is required" in answer.message


async def test_our_client_registers_anew_what_was_registered_before(edgex: Edgex, name: str) -> None:
    own = Registration.model_validate(entry(name))
    await edgex.keeper.register(own)
    await edgex.keeper.halt(own)
    await edgex.keeper.register(own.model_copy(update={"port": 59798}))
    found = await edgex.keeper.registration(name)
    assert (found.port, found.status) == (59798, "UNKNOWN")


# --- health --------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(edgex: Edgex, status: int = 200) -> AsyncIterator[int]:
    """Answer keeper's question with a status while the context is open; yields the port."""
    app = FastAPI()

    @app.get("/alive", status_code=status)
    async def alive() -> None:
        return None

    sock = bind(edgex.target.bind, 0, key="alive")
    server = WebServer(app)
    task = asyncio.create_task(server.serve([sock]))
    await server.listening.wait()
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        sock.close()


async def test_service_is_unknown_then_up_then_down(edgex: Edgex, name: str) -> None:
    check = {"interval": "1s", "path": "/alive", "type": "http"}
    async with answering(edgex) as port:
        await send(edgex, "POST", entry(name, port, edgex.target.host, HealthCheck=check))
        assert (await read(edgex, name))["status"] == "UNKNOWN"
        await until(lambda: has_status(edgex, name, "UP"), "keeper finds it up")
    await until(lambda: has_status(edgex, name, "DOWN"), "keeper finds it down")


async def test_service_that_answers_with_an_error_is_down(edgex: Edgex, name: str) -> None:
    check = {"interval": "200ms", "path": "/alive", "type": "http"}
    async with answering(edgex, 503) as port:
        await send(edgex, "POST", entry(name, port, edgex.target.host, HealthCheck=check))
        await until(lambda: has_status(edgex, name, "DOWN"), "keeper finds it down")


async def test_service_that_said_goodbye_is_not_asked_any_more(edgex: Edgex, name: str) -> None:
    check = {"interval": "200ms", "path": "/alive", "type": "http"}
    async with answering(edgex) as port:
        own = entry(name, port, edgex.target.host, HealthCheck=check)
        other = entry(edgex.name("app-registry"), port, edgex.target.host, HealthCheck=check)
        await send(edgex, "POST", own)
        await until(lambda: has_status(edgex, name, "UP"), "keeper finds it up")
        await send(edgex, "PUT", own | {"status": "HALT"})
        # Another one of the same interval is asked meanwhile.
        await send(edgex, "POST", other)
        await until(lambda: has_status(edgex, other["serviceId"], "UP"), "keeper finds the other up")
    await until(lambda: has_status(edgex, other["serviceId"], "DOWN"), "keeper finds the other down")
    assert (await read(edgex, name))["status"] == "HALT"


async def has_status(edgex: Edgex, name: str, status: str) -> bool:
    return bool((await read(edgex, name))["status"] == status)
