"""The embedded core as a process: start, end, death and rebirth, tokens, bad input; with a real broker."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from edgeagents.adapters.bus import Bus
from tests.embedded_core import WAIT_S, EmbeddedCore, add_lamp, count, envelope, event, until
from tests.nats import NatsServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "core"


@pytest.fixture
def core(folder: Path, nats_server: NatsServer) -> Iterator[EmbeddedCore]:
    running = EmbeddedCore(folder, nats_server.url).start().linked()
    yield running
    running.kill()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
        yield client


# --- start and end ----------------------------------------------------------------------------------


async def test_all_four_answer_once_it_says_ready_and_it_ends_at_once(
    core: EmbeddedCore, http: httpx.AsyncClient
) -> None:
    async def says_that_it_is_connected() -> bool:
        if core.ready["bus"] != "connected":  # it had half a second for that: started anew
            core.kill()
            core.start()
        return bool(core.ready["bus"] == "connected")

    await until(says_that_it_is_connected)
    for name, url in core.urls.items():
        answer = (await http.get(f"{url}/api/v3/ping")).json()
        assert answer["serviceName"] == f"core-{name}"
    code, took_s = core.stop()
    assert code == 0
    assert took_s < 9


def run_core(folder: Path, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeagents.embedded.core", "--state", str(folder), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


def test_taken_port_is_an_error_that_names_port_and_flag(core: EmbeddedCore, tmp_path: Path) -> None:
    port = core.urls["data"].rsplit(":", 1)[1]
    ended = run_core(tmp_path / "other", "--keeper-port", "0", "--metadata-port", "0", "--data-port", port)
    assert ended.returncode == 1
    assert f"port {port}" in ended.stderr
    assert "--data-port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_state_folder_in_use_is_an_error_that_names_it(core: EmbeddedCore) -> None:
    flags = [part for name in core.urls for part in (f"--{name}-port", "0")]
    ended = run_core(core.folder / "state", *flags)
    assert ended.returncode == 1
    assert str(core.folder / "state") in ended.stderr


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--keeper-port", "70000"], "--keeper-port"),
        (["--request-timeout-s", "soon"], "--request-timeout-s"),
        (["--tokens", "/nowhere/tokens"], "/nowhere/tokens"),
    ],
)
def test_wrong_setting_is_an_error_that_names_it(tmp_path: Path, flags: list[str], told: str) -> None:
    ended = run_core(tmp_path, *flags)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_mistyped_variable_is_refused(tmp_path: Path) -> None:
    ended = run_core(tmp_path, EDGEAGENTS_CORE_KEEPER_PROT="1")
    assert ended.returncode == 1
    assert "EDGEAGENTS_CORE_KEEPER_PORT" in ended.stderr


def test_wrong_variable_of_the_bus_is_named_as_it_is(tmp_path: Path) -> None:
    ended = run_core(tmp_path, EDGEAGENTS_EDGEX_BUS="carrier-pigeon")
    assert ended.returncode == 1
    assert "EDGEAGENTS_EDGEX_BUS" in ended.stderr


async def test_core_services_are_registered_and_say_goodbye(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    async def statuses() -> dict[str, str]:
        found = (await http.get(f"{core.urls['keeper']}/api/v3/registry/all?deregistered=true")).json()
        return {row["serviceId"]: row["status"] for row in found["registrations"]}

    assert await statuses() == {"core-metadata": "UP", "core-data": "UP", "core-command": "UP"}
    core.stop()
    with sqlite3.connect(core.folder / "state" / "keeper.sqlite") as database:
        rows = database.execute("SELECT body FROM registrations").fetchall()
    database.close()
    assert {json.loads(body)["status"] for (body,) in rows} == {"HALT"}


# --- state ------------------------------------------------------------------------------------------


async def test_all_that_was_acknowledged_is_there_after_a_kill(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    await add_lamp(core, http, "http://127.0.0.1:1")
    keys = f"{core.urls['keeper']}/api/v3/kvs/key/edgex/v4/app-x"
    acknowledged: list[int] = []

    async def write() -> None:
        for number in range(10_000):
            await http.put(f"{keys}/N{number}", json={"value": number})
            acknowledged.append(number)
            if number == 30:
                busy.set()

    busy = asyncio.Event()
    posted = await http.post(
        f"{core.urls['data']}/api/v3/event/device-lamp/lamp/lamp-1/Power", json={"apiVersion": "v3", "event": event()}
    )
    assert posted.status_code == 201
    writing = asyncio.create_task(write())
    await busy.wait()
    core.kill()
    with pytest.raises(httpx.HTTPError):
        await writing

    core.start()
    rows = (await http.get(f"{keys}?plaintext=true")).json()["response"]
    kept = {row["key"].rsplit("/N", 1)[1]: row["value"] for row in rows}
    assert kept.items() >= {(str(number), str(number)) for number in acknowledged}
    assert (await http.get(f"{core.urls['metadata']}/api/v3/device/name/lamp-1")).json()["device"]["name"] == "lamp-1"
    assert await count(core, http) == 1


async def test_common_configuration_is_ready_and_keeps_the_owners_changes(
    core: EmbeddedCore, http: httpx.AsyncClient
) -> None:
    root = "/api/v3/kvs/key/edgex/v4/core-common-config-bootstrapper"
    interval = f"{root}/all-services/Writable/Telemetry/Interval"

    async def value(path: str) -> str:
        return str((await http.get(f"{core.urls['keeper']}{path}?plaintext=true")).json()["response"][0]["value"])

    assert await value(f"{root}/IsCommonConfigReady") == "true"
    await http.put(core.urls["keeper"] + interval, json={"value": "7s"})
    core.stop()
    core.urls = {}  # other ports this time
    core.start()
    assert await value(interval) == "7s"
    assert await value(f"{root}/app-services/Clients/core-metadata/Port") == core.urls["metadata"].rsplit(":", 1)[1]


async def test_oldest_events_go_when_there_are_too_many(
    folder: Path, nats_server: NatsServer, bus: Bus, http: httpx.AsyncClient
) -> None:
    core = EmbeddedCore(folder, nats_server.url, "--max-events", "10").start().linked()
    try:
        sent = [event() for _ in range(50)]
        for one in sent:
            await bus.publish("edgex.events.device.device-lamp.lamp.lamp-1.Power", envelope({"event": one}))

        async def all_kept() -> bool:
            url = f"{core.urls['data']}/api/v3/event/all?limit=1"
            newest = (await http.get(url)).json()["events"]
            return bool(newest) and newest[0]["id"] == sent[-1]["id"]

        await until(all_kept)
        assert await count(core, http) == 10
        assert (await http.get(f"{core.urls['data']}/api/v3/reading/count")).json()["count"] == 10
    finally:
        core.kill()


# --- tokens -----------------------------------------------------------------------------------------


async def test_core_command_demands_a_token_when_it_has_any(
    folder: Path, nats_server: NatsServer, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text('# who may command\n\nguard: s3cret-of-the-guard\nowner: "s3cret-own"\n')
    core = EmbeddedCore(folder, nats_server.url, "--tokens", str(tokens)).start()
    try:
        url = f"{core.urls['command']}/api/v3/device/name/lamp-1/Power"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret-of-the-guard"}):
            for method in ("GET", "PUT"):
                response = await http.request(method, url, headers=headers, json={})
                assert response.status_code == 401
                assert response.json()["statusCode"] == 401
                assert response.headers["x-correlation-id"]
        for token in ("s3cret-of-the-guard", "s3cret-own"):
            response = await http.get(url, headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == 404  # let in; there is no such device
        for path in ("ping", "version"):
            assert (await http.get(f"{core.urls['command']}/api/v3/{path}")).status_code == 200
        assert (await http.get(f"{core.urls['command']}/api/v3/%70ing/../device/all")).status_code == 401
        assert (await http.get(f"{core.urls['metadata']}/api/v3/device/all")).status_code == 200
    finally:
        core.kill()


# --- bad input --------------------------------------------------------------------------------------


async def test_bad_bodies_are_answers(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    metadata, keeper, data = core.urls["metadata"], core.urls["keeper"], core.urls["data"]
    deep = b"[" * 200_000
    huge = b" " * (26 << 20)
    cases: list[tuple[str, str, bytes, set[int]]] = [
        ("POST", f"{metadata}/api/v3/device", deep, {500}),
        ("POST", f"{metadata}/api/v3/device", huge, {413}),
        ("POST", f"{metadata}/api/v3/device", b"null", {500}),
        ("POST", f"{metadata}/api/v3/device", b"[1]", {500}),
        ("POST", f"{metadata}/api/v3/device", b'[{"apiVersion":"v3","device":{"name":7}}]', {400}),
        ("POST", f"{metadata}/api/v3/deviceprofile/uploadfile", b"x", {400}),
        ("PUT", f"{keeper}/api/v3/kvs/key/a", b'{"value": NaN}', {500}),
        ("PUT", f"{keeper}/api/v3/kvs/key/a", b'{"value": "\\ud800"}', {500}),
        ("PUT", f"{keeper}/api/v3/kvs/key/a", b"[]", {400}),
        ("POST", f"{keeper}/api/v3/registry", b'{"apiVersion":"v3","registration":[]}', {400}),
        ("POST", f"{data}/api/v3/event/s/p/d/r", b"\xff", {500}),
        ("GET", f"{data}/api/v3/event/all?limit=0x1", b"", {400}),
        ("GET", f"{data}/api/v3/event/start/5/end/4", b"", {400}),
        ("GET", f"{data}/api/v3/event/start/{10**18}0/end/9", b"", {400}),
        ("GET", f"{data}/api/v3/reading/all?aggregateFunc=MEDIAN", b"", {400}),
        ("GET", f"{data}/nowhere", b"", {404}),
        ("DELETE", f"{data}/api/v3/ping", b"", {405}),
    ]
    for method, url, body, statuses in cases:
        response = await http.request(method, url, content=body)
        assert response.status_code in statuses, (method, url, body[:40], response.text[:300])
        assert response.json()["statusCode"] == response.status_code
        assert response.json()["message"]
    assert "Traceback" not in core.log()
