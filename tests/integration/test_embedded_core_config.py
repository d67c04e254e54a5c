"""The embedded core's own configuration in keeper: live where EdgeX's is, else from the next start."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from tests.embedded_core import LAMP, WAIT_S, EmbeddedCore, add_lamp, count, envelope, event, until
from tests.nats import NatsServer

ALL = "core-common-config-bootstrapper/all-services"
POST_EVENT = "/api/v3/event/device-lamp/lamp/lamp-1/Power"


@pytest.fixture
def core(tmp_path: Path, nats_server: NatsServer) -> Iterator[EmbeddedCore]:
    running = EmbeddedCore(tmp_path / "core", nats_server.url).start().linked()
    yield running
    running.kill()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=WAIT_S) as client:
        yield client


async def put(core: EmbeddedCore, http: httpx.AsyncClient, path: str, value: Any, query: str = "") -> None:
    url = f"{core.urls['keeper']}/api/v3/kvs/key/edgex/v4/{path}{query}"
    assert (await http.put(url, json={"value": value})).status_code == 200


async def config(core: EmbeddedCore, http: httpx.AsyncClient, service: str) -> dict[str, Any]:
    shown: dict[str, Any] = (await http.get(f"{core.urls[service]}/api/v3/config")).json()["config"]
    return shown


async def heard_all_so_far(bus: Bus) -> None:
    """Return once the core has handled what was published before: its messages come in order."""
    answered = asyncio.Event()

    async def hear(message: BusMessage) -> None:
        answered.set()

    await bus.subscribe("edgex.response.core-command.after", hear)
    await bus.publish("edgex.core.commandquery.request.nobody", envelope(None, "after"))
    await asyncio.wait_for(answered.wait(), WAIT_S)


async def post_profile(core: EmbeddedCore, http: httpx.AsyncClient, method: str, **resource: Any) -> dict[str, Any]:
    """Send the lamp's profile under another name with a further property; return the outcome."""
    properties = {"valueType": "Int8", "readWrite": "R"} | resource
    profile = {"name": "heater", "deviceResources": [{"name": "Heat", "properties": properties}]}
    url = f"{core.urls['metadata']}/api/v3/deviceprofile"
    answer = (await http.request(method, url, json=[{"apiVersion": "v3", "profile": profile}])).json()
    outcome: dict[str, Any] = answer[0] if isinstance(answer, list) else answer
    return outcome


async def test_private_keys_are_in_keeper_and_shown(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    for service in ("metadata", "data", "command"):
        root = f"{core.urls['keeper']}/api/v3/kvs/key/edgex/v4/core-{service}"
        rows = (await http.get(f"{root}?plaintext=true")).json()["response"]
        kept = {row["key"].partition(f"core-{service}/")[2]: row["value"] for row in rows}
        port = core.urls[service].rsplit(":", 1)[1]
        assert {"Writable/LogLevel": "INFO", "Service/Port": port}.items() <= kept.items()
        shown = await config(core, http, service)
        assert (shown["Writable"]["LogLevel"], str(shown["Service"]["Port"])) == ("INFO", port)
    assert (await http.get(f"{core.urls['keeper']}/api/v3/kvs/key/edgex/v4/core-keeper")).status_code == 404


async def test_log_level_counts_at_once_and_for_its_service_alone(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    await add_lamp(core, http, "http://127.0.0.1:1")
    assert "DEBUG" not in core.log()
    await put(core, http, "core-data/Writable/LogLevel", "DEBUG")
    assert (await config(core, http, "data"))["Writable"]["LogLevel"] == "DEBUG"
    await http.post(core.urls["data"] + POST_EVENT, json={"apiVersion": "v3", "event": event()})
    await http.get(f"{core.urls['command']}/api/v3/device/name/lamp-1/Power")
    lines = [line for line in core.log().splitlines() if " DEBUG " in line]
    assert len(lines) == 1
    assert "1 events stored" in lines[0]
    await put(core, http, "core-data/Writable/LogLevel", "SHOUT")
    assert "'SHOUT' is none of" in core.log()


async def test_tree_put_at_once_counts_too(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    await put(core, http, "core-data", {"Writable": {"LogLevel": "WARN", "PersistData": False}}, "?flatten=true")
    shown = (await config(core, http, "data"))["Writable"]
    assert (shown["LogLevel"], shown["PersistData"]) == ("WARN", False)


async def test_private_value_wins_over_the_common_one(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    await put(core, http, f"{ALL}/Writable/Telemetry/Interval", "9s")
    assert (await config(core, http, "data"))["Writable"]["Telemetry"]["Interval"] == "9s"
    await put(core, http, "core-data/Writable/Telemetry/Interval", "4s")
    assert (await config(core, http, "data"))["Writable"]["Telemetry"]["Interval"] == "4s"
    assert (await config(core, http, "metadata"))["Writable"]["Telemetry"]["Interval"] == "9s"


async def test_events_are_not_kept_when_the_owner_says_so(
    core: EmbeddedCore, http: httpx.AsyncClient, bus: Bus
) -> None:
    await put(core, http, "core-data/Writable/PersistData", False)
    posted = await http.post(core.urls["data"] + POST_EVENT, json={"apiVersion": "v3", "event": event()})
    assert posted.status_code == 201
    await bus.publish("edgex.events.device.device-lamp.lamp.lamp-1.Power", envelope({"event": event()}))
    await heard_all_so_far(bus)
    await put(core, http, "core-data/Writable/PersistData", True)
    await http.post(core.urls["data"] + POST_EVENT, json={"apiVersion": "v3", "event": event()})
    assert await count(core, http) == 1


async def test_rules_for_profiles_and_devices_count_at_once(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    writable = "core-metadata/Writable"
    await add_lamp(core, http, "http://127.0.0.1:1")
    await put(core, http, f"{writable}/UoM/Validation", True)
    refused = await post_profile(core, http, "POST", units="parsec")
    assert (refused["statusCode"], refused["message"]) == (400, "DeviceResource Heat units parsec is invalid")
    assert (await post_profile(core, http, "POST", units="C"))["statusCode"] == 201

    await put(core, http, f"{writable}/ProfileChange/StrictDeviceProfileChanges", True)
    assert (await post_profile(core, http, "PUT", units="K"))["statusCode"] == 423
    await put(core, http, f"{writable}/ProfileChange/StrictDeviceProfileDeletes", True)
    assert (await http.delete(f"{core.urls['metadata']}/api/v3/deviceprofile/name/heater")).status_code == 423

    await put(core, http, f"{writable}/MaxDevices", 1)
    device = {"name": "lamp-2", "serviceName": "device-lamp", "profileName": LAMP["name"], "adminState": "UNLOCKED"}
    full = {"apiVersion": "v3", "device": device | {"operatingState": "UP", "protocols": {"p": {}}}}
    url = f"{core.urls['metadata']}/api/v3/device?bypassValidation=true"
    outcome = (await http.post(url, json=[full])).json()[0]
    assert outcome["statusCode"] == 400
    assert "will exceed the maximum limitation '1'" in outcome["message"]


async def test_telemetry_is_told_when_enabled_and_stops_when_not(
    core: EmbeddedCore, http: httpx.AsyncClient, bus: Bus
) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []

    async def hear(message: BusMessage) -> None:
        heard.append((message.subject, json.loads(message.data)["payload"]))

    await bus.subscribe("edgex.telemetry.>", hear)
    await bus.flush()
    await http.post(core.urls["data"] + POST_EVENT, json={"apiVersion": "v3", "event": event()})
    await put(core, http, f"{ALL}/Writable/Telemetry/Interval", "100ms")
    await put(core, http, "core-data/Writable/Telemetry/Tags/Gateway", "gw-1")
    await put(core, http, "core-data/Writable/Telemetry/Metrics/EventsPersisted", True)

    async def told() -> bool:
        return len(heard) >= 2

    await until(told)
    subject, body = heard[-1]
    assert subject == "edgex.telemetry.core-data.EventsPersisted"
    assert (body["name"], body["fields"]) == ("EventsPersisted", [{"name": "counter-count", "value": 1}])
    assert body["tags"] == [{"name": "service", "value": "core-data"}, {"name": "Gateway", "value": "gw-1"}]

    await put(core, http, "core-data/Writable/Telemetry/Metrics/EventsPersisted", False)
    await put(core, http, "core-data/Writable/Telemetry/Metrics/ReadingsPersisted", True)

    async def only_the_other() -> bool:
        return [name.rsplit(".", 1)[1] for name, _ in heard[-3:]] == ["ReadingsPersisted"] * 3

    await until(only_the_other)


async def test_cors_and_limits_count_from_the_next_start(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://page"}
    url = "/api/v3/device/all"
    assert "access-control-allow-origin" not in (await http.get(core.urls["metadata"] + url, headers=origin)).headers
    cors = {"EnableCORS": True, "CORSAllowedOrigin": "https://page", "CORSAllowCredentials": True}
    await put(core, http, f"{ALL}/Service/CORSConfiguration", cors, "?flatten=true")
    await put(core, http, "core-metadata/Service/MaxResultCount", 5)
    await put(core, http, "core-metadata/Service/MaxRequestSize", 1)
    core.stop()
    core.start()
    for service in ("metadata", "data", "command"):
        plain = await http.get(f"{core.urls[service]}/api/v3/ping", headers=origin)
        assert plain.headers["access-control-allow-origin"] == "https://page"
        assert plain.headers["access-control-allow-credentials"] == "true"
        asked = origin | {"Access-Control-Request-Method": "PUT"}
        before = await http.options(f"{core.urls[service]}/api/v3/ping", headers=asked)
        assert before.status_code == 200
        assert "PUT" in before.headers["access-control-allow-methods"]
    assert (await http.get(f"{core.urls['metadata']}{url}?limit=6")).status_code == 400
    assert (await http.get(f"{core.urls['metadata']}{url}?limit=5")).status_code == 200
    assert (await http.post(f"{core.urls['metadata']}/api/v3/device", content=b" " * 1025)).status_code == 413


async def test_request_timeout_of_core_command_is_the_owners(
    tmp_path: Path, nats_server: NatsServer, http: httpx.AsyncClient
) -> None:
    core = EmbeddedCore(tmp_path / "core", nats_server.url).start()
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    try:
        await put(core, http, "core-command/Service/RequestTimeout", "200ms")
        core.stop()
        core.start()
        await add_lamp(core, http, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        answer = await http.get(f"{core.urls['command']}/api/v3/device/name/lamp-1/Power")
        assert answer.status_code == 503
        assert "timeout" in answer.json()["message"]
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()
        core.kill()


async def test_wrong_values_in_keeper_do_not_keep_the_core_from_starting(
    core: EmbeddedCore, http: httpx.AsyncClient
) -> None:
    for path in ("Service/MaxResultCount", "Service/RequestTimeout", "Service/Port", "MaxEventSize"):
        await put(core, http, f"core-data/{path}", "soon")
    await put(core, http, "core-data/Writable/PersistData", "perhaps")
    core.stop()
    core.start()
    shown = await config(core, http, "data")
    assert (shown["Service"]["MaxResultCount"], shown["Writable"]["PersistData"]) == (1024, True)
    assert "Service/MaxResultCount: 'soon' is no int" in core.log()
    assert "Service/RequestTimeout" in core.log()
    posted = await http.post(core.urls["data"] + POST_EVENT, json={"apiVersion": "v3", "event": event()})
    assert posted.status_code == 201


async def test_event_larger_than_core_data_takes_is_refused(core: EmbeddedCore, http: httpx.AsyncClient) -> None:
    await put(core, http, "core-data/MaxEventSize", 1)
    core.stop()
    core.start()
    body = json.dumps({"apiVersion": "v3", "event": event() | {"tags": {"x": "y" * 2000}}})
    answer = await http.post(core.urls["data"] + POST_EVENT, content=body)
    assert (answer.status_code, answer.json()["message"]) == (413, "request size exceed 1 KB")
    assert await count(core, http) == 0
