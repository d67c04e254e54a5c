"""EdgeX's own acceptance tests of application services, case by case, against an agent.

EdgeX tests its application services with Robot Framework suites (edgex-taf, functionalTest/API/app-service). These
need a companion library that is not published as a package, so the cases are written anew here: suites `info` and
`secrets` whole, of `trigger` those that need no function of a configurable pipeline but its filters. The cases of a
secure EdgeX are in the tests of secure mode.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.errors import NotFoundError
from tests.contract.agents import AgentProcess, running_agent
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab
from tests.contract.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONGEST_ANSWER_S = 1.2  # the suites' own limit
Case = Callable[[Edgex, AgentProcess], Awaitable[None]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def agent(
    edgex: Edgex, nats_url: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AgentProcess]:
    """An agent whose events come by HTTP."""
    folder: Path = tmp_path_factory.mktemp("taf")
    config = {"Trigger": {"Type": "http"}}
    async with running_agent(edgex, nats_url, folder, lab.profile, config) as started:
        yield started


# --- suite info ----------------------------------------------------------------------------------


async def told(agent: AgentProcess, path: str) -> dict[str, Any]:
    """Return an answer that came with 200, as JSON, of this version and in time."""
    began = time.monotonic()
    answer = await agent.ask("GET", path)
    assert time.monotonic() - began < LONGEST_ANSWER_S
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = answer.json()
    assert body["apiVersion"] == "v3"
    return body


async def info_ping(edgex: Edgex, agent: AgentProcess) -> None:
    body = await told(agent, "/ping")
    assert body["timestamp"]
    assert body["serviceName"] == agent.key


async def info_version(edgex: Edgex, agent: AgentProcess) -> None:
    body = await told(agent, "/version")
    assert body["version"].startswith("4.0.")
    assert body["sdk_version"]


async def info_config(edgex: Edgex, agent: AgentProcess) -> None:
    assert (await told(agent, "/config"))["config"]


# --- suite secrets -------------------------------------------------------------------------------


def secret(name: str, *pairs: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v3", "secretName": name, "secretData": list(pairs)}


async def secret_is_stored(edgex: Edgex, agent: AgentProcess) -> None:
    name = edgex.name("taf")
    pairs = ({"key": "username", "value": "user"}, {"key": "password", "value": "pass"})
    answer = await agent.ask("POST", "/secret", secret(name, *pairs))
    assert (answer.status_code, answer.json()) == (201, {"apiVersion": "v3", "statusCode": 201})
    root = f"edgex/v4/{agent.key}/Writable/InsecureSecrets/{name}"
    kept = await edgex.keeper.get(root)
    assert {key.removeprefix(f"{root}/"): value for key, value in kept.items()} == {
        "SecretName": name, "SecretData/username": "user", "SecretData/password": "pass",
    }  # fmt: skip


async def refused(edgex: Edgex, agent: AgentProcess, name: str, *pairs: dict[str, str]) -> None:
    answer = await agent.ask("POST", "/secret", secret(name, *pairs))
    assert (answer.status_code, answer.json()["statusCode"]) == (400, 400)
    assert answer.json()["message"]
    if name:
        with pytest.raises(NotFoundError):
            await edgex.keeper.get(f"edgex/v4/{agent.key}/Writable/InsecureSecrets/{name}")


async def secret_of_no_name_is_refused(edgex: Edgex, agent: AgentProcess) -> None:
    await refused(edgex, agent, "", {"key": "username", "value": "user"})


async def secret_without_a_key_is_refused(edgex: Edgex, agent: AgentProcess) -> None:
    await refused(edgex, agent, edgex.name("taf"), {"value": "user"})
    await refused(edgex, agent, edgex.name("taf"), {"key": "", "value": "user"})


async def secret_without_a_value_is_refused(edgex: Edgex, agent: AgentProcess) -> None:
    await refused(edgex, agent, edgex.name("taf"), {"key": "username"})
    await refused(edgex, agent, edgex.name("taf"), {"key": "username", "value": ""})


INFO: tuple[Case, ...] = (info_ping, info_version, info_config)
SECRETS: tuple[Case, ...] = (
    secret_is_stored, secret_of_no_name_is_refused, secret_without_a_key_is_refused,
    secret_without_a_value_is_refused,
)  # fmt: skip


@pytest.mark.parametrize("case", [*INFO, *SECRETS], ids=lambda case: case.__name__)
async def test_suites_info_and_secrets(edgex: Edgex, agent: AgentProcess, case: Case) -> None:
    await case(edgex, agent)


# --- suite trigger -------------------------------------------------------------------------------


def event(device: str, profile: str) -> dict[str, Any]:
    now = time.time_ns()
    said = {"origin": now, "deviceName": device, "profileName": profile}
    reading = {"id": "82eb2e26-0f24-48aa-ae4c-de9dac3fb9bc", "resourceName": "Level", "valueType": "Uint8"}
    return {
        "apiVersion": "v3", "id": "78900e50-3a15-4d0f-9d5a-0f24da3fb9bc", "sourceName": "Level", **said,
        "readings": [reading | said | {"value": "7"}],
    }  # fmt: skip


@pytest.mark.parametrize("content", ["{bad", "[]", "{}", '{"apiVersion":"v3","event":{"readings":[]}}', ""])
async def test_trigger_without_an_event_is_400(agent: AgentProcess, content: str) -> None:
    answer = await agent.ask("POST", "/trigger", content=content)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert "unable to decode" in answer.text


async def test_trigger_of_raw_data_is_422_for_what_needs_an_event(edgex: Edgex, lab: Lab, agent: AgentProcess) -> None:
    key = f"edgex/v4/{agent.key}/Writable/Pipeline/TargetType"
    body = {"apiVersion": "v3", "requestId": "", "event": event(lab.device, lab.profile)}

    async def is_refused() -> bool:
        answer = await agent.ask("POST", "/trigger", body)
        return answer.status_code == 422 and answer.headers["content-type"].startswith("text/plain")

    await edgex.keeper.put(key, "raw")
    try:
        await until(is_refused, "raw data is refused", timeout_s=1.0)
    finally:
        await edgex.keeper.put(key, "event")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def triggers(edgex: Edgex, nats_url: str, request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """The stream that keeps what is posted, which a guard makes where one runs."""
    if request.config.getoption("keeper", default=None) and not edgex.target.is_mqtt:
        pytest.skip("would make a stream in the broker of an EdgeX that is not ours")
    settings = edgex.target.settings(nats_url)
    bus = await Bus.connect(settings, "taf")
    try:
        await bus.ensure_stream(
            subjects.TRIGGERS_STREAM, subjects.stream_subjects(settings.gateway)[subjects.TRIGGERS_STREAM]
        )
        yield
    finally:
        await bus.close()


@pytest.mark.parametrize("filtered", ["FilterByDeviceName", ""])
async def test_trigger_answers_200_and_nothing_whether_or_not_the_device_is_filtered_out(
    edgex: Edgex, lab: Lab, agent: AgentProcess, triggers: None, filtered: str
) -> None:
    """An agent has no response data: what EdgeX's suite expects of an event that a filter stops holds for all."""
    pipeline = f"edgex/v4/{agent.key}/Writable/Pipeline"
    names = f"{pipeline}/Functions/FilterByDeviceName/Parameters/DeviceNames"
    await edgex.keeper.put(names, edgex.name("other") if filtered else "")

    async def is_set() -> bool:
        shown = (await agent.ask("GET", "/config")).json()["config"]["Writable"]["Pipeline"]["Functions"]
        return bool(shown["FilterByDeviceName"]["Parameters"]["DeviceNames"]) is bool(filtered)

    await until(is_set, "the filter is in force", timeout_s=1.0)
    body = {"apiVersion": "v3", "requestId": "", "event": event(lab.device, lab.profile)}
    answer = await agent.ask("POST", "/trigger", body)
    assert (answer.status_code, answer.content) == (200, b"")
