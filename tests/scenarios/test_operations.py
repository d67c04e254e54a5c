"""A whole home seen by its owner's tools; and one whose files name what is not there, or name one agent twice."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from edgeagents.adapters.micro import ask, instances
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import PREFERRED_PORTS, Gateway, Plan
from tests.contract.waiting import until
from tests.scenarios.conftest import ANSWER_S, ROOT, Deadline, patient

CELLAR = {
    "name": "cellar",
    "mode": "observe",
    "watches": [{"device": "sensor-cellar"}],
    "rules": [
        {
            "name": "warm", "given": {"t": "sensor-cellar/Temperature"}, "when": "t > 30.0",
            "set": {"device": "ventilation", "resource": "Level", "value": 3},
        }
    ],
    "may": [{"profile": "Ventilation-Unit", "resource": "Level"}],
}  # fmt: skip


def said(gateway: Gateway, process: str) -> str:
    """Return the log of one of a gateway's processes."""
    return (gateway.plan.folder / "log" / f"{process}.log").read_text()


async def edgeagents(gateway: Gateway, *words: str) -> tuple[int, str]:
    """Run the command on a gateway's folder; return exit code and what it printed."""
    command = [sys.executable, "-m", "edgeagents.cli", *words, "--folder", str(gateway.plan.folder)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode()


async def findings(gateway: Gateway) -> tuple[int, list[dict[str, str]]]:
    """Return the doctor's exit code, and what it found that is not ok, but for the model that is missing here."""
    code, out = await edgeagents(gateway, "doctor", "--json")
    odd = [item for item in json.loads(out)["findings"] if item["level"] != "ok"]
    assert ("language model", "warning") in [(item["check"], item["level"]) for item in odd]
    return code, [item for item in odd if item["check"] != "language model"]


async def comes_true(what: str, holds: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = Deadline(seconds)
    while not await holds():
        assert not deadline.is_over, f"{what}: not in {seconds:g} s"
        await asyncio.sleep(0.1)


async def examined(gateway: Gateway, wanted: Callable[[int, list[dict[str, str]]], bool]) -> list[dict[str, str]]:
    """Return what the doctor finds once it is what is wanted: who was just started may not have answered it yet."""
    deadline = Deadline(60)
    while not wanted(*(found := await findings(gateway))):
        assert not deadline.is_over, found
        await asyncio.sleep(0.1)
    return found[1]


def sound(code: int, found: list[dict[str, str]]) -> bool:
    """Whether the doctor found nothing."""
    return (code, found) == (0, [])


async def test_a_sound_home_is_sound_to_all_tools(gateway: Gateway) -> None:
    assert await examined(gateway, sound) == []

    code, out = await edgeagents(gateway, "status", "--json")
    status = json.loads(out)
    assert (code, status["gateway"], status["broker"]["state"], status["edgex"]["state"]) == (0, "home", "up", "up")
    assert {agent["name"]: agent["session"] for agent in status["agents"]} == {
        "air": True, "assistant": True, "comfort": True, "energy": True,
    }  # fmt: skip

    rows = json.loads((await edgeagents(gateway, "devices", "--json"))[1])["devices"]
    [valve] = [row for row in rows if (row["device"], row["resource"]) == ("radiator-living", "Setpoint")]
    assert ("comfort" in valve["mayCommand"], valve["riskClass"]) == (True, "A")
    assert any(row["originNs"] for row in rows)

    lines = (await edgeagents(gateway, "events", "--json", "--last", "200"))[1].splitlines()
    assert lines
    assert all(json.loads(line)["device"] for line in lines)
    await _events_are_followed_as_they_come(gateway)


async def _events_are_followed_as_they_come(gateway: Gateway) -> None:
    command = ["events", "--follow", "--last", "0", "--json", "--folder", str(gateway.plan.folder)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeagents.cli", *command, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        lines = [await asyncio.wait_for(process.stdout.readline(), 30) for _ in range(5)]
    finally:
        process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(process.wait(), 15)
    origins = [json.loads(line)["originNs"] for line in lines]
    assert all(origin > time.time_ns() - 60_000_000_000 for origin in origins)
    assert code == 0


async def test_every_service_answers_on_the_broker_and_takes_its_log_level_from_keeper(gateway: Gateway) -> None:
    names = ["app-guard", "app-agent-air", "app-agent-comfort", "app-agent-energy", "device-world-home"]
    bus = await gateway.connect()
    try:

        async def one_each() -> bool:
            found = await instances(bus, names, wait_s=2.0)
            assert all(len(found[name]) <= 1 for name in names), found
            return all(found[name] for name in names)

        await comes_true("one instance of each answers", one_each)  # who answers late is asked again
        [stats] = await until(lambda: ask(bus, "STATS", "app-guard", wait_s=2.0), "the guard tells its figures")
        requests = {item["name"]: item["num_requests"] for item in json.loads(stats)["endpoints"]}
        assert requests["sessions"] > 0
    finally:
        await bus.close()
    for key, process in (("app-guard", "guard"), ("app-agent-air", "agent-air")):
        await _a_log_level_put_into_keeper_counts_at_once(gateway, key, process)


async def _a_log_level_put_into_keeper_counts_at_once(gateway: Gateway, key: str, process: str) -> None:
    assert " DEBUG " not in said(gateway, process)
    url = f"{gateway.url('keeper')}/api/v3/kvs/key/edgex/v4/{key}/Writable/LogLevel"
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:

        async def speaks() -> bool:
            for level in ("DEBUG", "TRACE"):  # the second is a change that is told at DEBUG
                assert (await client.put(url, json={"value": level})).status_code == 200
                await asyncio.sleep(0.3)
            return " DEBUG " in said(gateway, process)

        await comes_true("records of level DEBUG", speaks)


@pytest.fixture
async def odd(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a home with one agent more, for a device that is not there."""
    profiles = tmp_path / "owner"
    shutil.copytree(ROOT / "edgex-profiles" / "home", profiles)
    (profiles / "agents" / "cellar.yaml").write_text(yaml.safe_dump(CELLAR))
    ports = dict.fromkeys(PREFERRED_PORTS, 0)  # any: another home may be about to take the usual ones
    gateway = patient(Gateway(Plan(tmp_path, profiles, 60.0, WINTER_MORNING_S, ports=ports)))
    gateway.start()
    try:
        await gateway.ready()
        yield gateway
    finally:
        await gateway.stop()


async def test_an_agent_waits_for_its_device_and_works_as_soon_as_it_is_there(odd: Gateway) -> None:
    wanted = {("devices", "warning"), ("agent cellar", "warning")}
    await examined(odd, lambda code, found: code == 0 and {(item["check"], item["level"]) for item in found} == wanted)
    assert said(odd, "agent-cellar").count("waiting for device 'sensor-cellar'") == 1
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:
        await _add_cellar(client, odd.url("metadata"))
        url = (await odd.agent_urls())["cellar"]

        async def state() -> dict[str, Any]:
            return dict((await client.get(f"{url}/api/v3/agent")).json())

        async def waits_no_more() -> bool:
            return (await state())["waitsFor"] == []

        await comes_true("the agent sees its device", waits_no_more)
        bus = await odd.connect()
        try:
            await bus.store("edgex.events.device.device-cellar.Room-Sensor.sensor-cellar.Temperature", _event(35.0))
        finally:
            await bus.close()

        async def decides() -> bool:
            return bool((await state())["counts"].get("decisions"))

        await comes_true("the agent decides on its device", decides)
    assert "there now: device 'sensor-cellar'" in said(odd, "agent-cellar")
    assert await examined(odd, sound) == []


async def _add_cellar(client: httpx.AsyncClient, metadata: str) -> None:
    service = {"name": "device-cellar", "baseAddress": "http://127.0.0.1:1", "adminState": "UNLOCKED"}
    device = {
        "name": "sensor-cellar", "serviceName": "device-cellar", "profileName": "Room-Sensor",
        "adminState": "UNLOCKED", "operatingState": "UP", "protocols": {"p": {"a": "1"}},
    }  # fmt: skip
    for path, part, given in (("deviceservice", "service", service), ("device", "device", device)):
        url = f"{metadata}/api/v3/{path}?bypassValidation=true"
        answer = await client.post(url, json=[{"apiVersion": "v3", part: given}])
        assert answer.json()[0]["statusCode"] == 201, answer.text


def _event(value: float) -> bytes:
    now = time.time_ns()
    names = {"deviceName": "sensor-cellar", "profileName": "Room-Sensor"}
    reading = {
        **names, "id": str(uuid.uuid4()), "origin": now, "resourceName": "Temperature", "valueType": "Float32",
        "value": str(value),
    }  # fmt: skip
    event = {
        **names, "apiVersion": "v3", "id": str(uuid.uuid4()), "sourceName": "Temperature", "origin": now,
        "readings": [reading],
    }  # fmt: skip
    payload = {"apiVersion": "v3", "requestId": str(uuid.uuid4()), "event": event}
    return json.dumps(
        {"apiVersion": "v3", "correlationID": str(uuid.uuid4()), "payload": payload, "contentType": "application/json"}
    ).encode()


async def test_two_files_of_one_name_stop_that_agent_alone(odd: Gateway) -> None:
    agents = odd.plan.profiles / "agents"
    shutil.copy(agents / "air.yaml", agents / "air-of-yesterday.yaml")
    killed = odd.supervisor.pid("guard")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    async def sessions() -> list[str]:
        return list((await odd.state("guard", "/api/v3/guard")).get("sessions", []))

    async def others_are_back() -> bool:
        return odd.supervisor.pid("guard") not in (None, killed) and {"comfort", "energy", "cellar"} <= {
            *await sessions()
        }

    await comes_true("the other agents have sessions with the new guard", others_are_back)
    assert "air" not in await sessions()
    text = f"{agents / 'air-of-yesterday.yaml'} and {agents / 'air.yaml'} both declare agent 'air': keep one of them"
    assert text in said(odd, "guard")

    async def air_is_told() -> bool:
        return f"the guard refuses agent air: {text}" in said(odd, "agent-air")

    await comes_true("the agent says why", air_is_told)
    wanted = {"agent files", "guard"}
    await examined(
        odd,
        lambda code, found: code == 1 and {item["check"] for item in found if item["level"] == "failed"} == wanted,
    )
