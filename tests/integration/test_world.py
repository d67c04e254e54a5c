"""The simulated home as a process, on a real broker and the embedded core: seen as core-command and an agent see it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.adapters.events import decode_message
from edgeagents.journal import read_journal
from edgeagents.model.device import Event
from edgeagents.model.envelope import EventMessage
from edgeagents.subjects import subject_to_topic
from tests.nats import NatsServer, free_port

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
SERVICE = "device-world-home"


async def until(condition: Callable[[], Any], what: str, timeout_s: float = START_S) -> Any:
    """Wait until `condition` gives something true, and return that; a coroutine is awaited."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not in {timeout_s:g} s: {what}")


class Home:
    """Broker, core and world of one test."""

    def __init__(self, folder: Path, broker: NatsServer, bus: Bus, http: httpx.AsyncClient) -> None:
        self.folder, self.broker, self.bus, self.http = folder, broker, bus, http
        self.edgex = EdgexBus(NatsTransport(bus))
        self.core: dict[str, str] = {}
        self.port = free_port()
        self.world: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """Where the world answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, *command: str, **env: str) -> "subprocess.Popen[bytes]":
        """Start a child process whose output goes to files named after it."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("EDGEAGENTS_", "EDGEX_"))}
        base = {"EDGEAGENTS_NATS_URL": self.broker.url, "EDGEAGENTS_GATEWAY": "gw"}
        with (self.folder / f"{name}.out").open("ab") as out, (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=out, stderr=log, env=clean | base | env, cwd=ROOT
            )
        self._children.append(process)
        return process

    async def start_core(self) -> None:
        """Start the embedded core and learn its addresses."""
        ports = [word for name in ("keeper", "metadata", "data", "command") for word in (f"--{name}-port", "0")]
        self.start("core", "-m", "edgeagents.embedded.core", "--state", str(self.folder / "core"), *ports)
        line = await until(lambda: (self.folder / "core.out").read_bytes().strip(), "the embedded core")
        self.core = {name: str(address) for name, address in json.loads(line).items()}

    def start_world(self, **env: str) -> None:
        """Start the world; again after it was killed, with the same state, port and clock."""
        self.world = self.start(
            "world", "-m", "services.world", "--scenario", "home",
            **{
                "EDGEX_SECURITY_SECRET_STORE": "false", "EDGEX_USE_REGISTRY": "true",
                "EDGEX_CONFIG_PROVIDER": f"keeper.{self.core['keeper']}", "SERVICE_HOST": "127.0.0.1",
                "SERVICE_PORT": str(self.port), "EDGEAGENTS_SITE_TIME_FACTOR": "60",
                "EDGEAGENTS_JOURNAL_DIR": str(self.folder / "journal"),
                "EDGEAGENTS_WORLD_STATE_DIR": str(self.folder / "state"),
            } | env,
        )  # fmt: skip

    async def page(self) -> dict[str, Any]:
        """Return what the world tells of itself; nothing while it is away."""
        try:
            answer = await self.http.get(f"{self.url}/api/v3/world")
        except httpx.HTTPError:
            return {}
        return dict(answer.json()) if answer.is_success else {}

    async def ready(self) -> None:
        """Wait until every device is in core-metadata and answers, and events flow."""

        async def is_ready() -> bool:
            page = await self.page()
            return len(page.get("devices", [])) >= 21 and page["counters"]["published"] > 0

        await until(is_ready, "a world with all its devices")

    async def published(self, least: int = 1) -> int:
        """Return how many events were published once there are that many."""

        async def enough() -> int:
            count = int((await self.page()).get("counters", {}).get("published", 0))
            return count if count >= least else 0

        return int(await until(enough, f"{least} events"))

    async def command(self, device: str, command: str, values: dict[str, Any] | None = None) -> httpx.Response:
        """Get, or with values set, through core-command."""
        url = f"{self.core['command']}/api/v3/device/name/{device}/{command}"
        return await (self.http.get(url) if values is None else self.http.put(url, json=values))

    async def read(self, device: str, resource: str) -> str:
        """Return the value of one resource."""
        answer = await self.command(device, resource)
        return str(answer.json()["event"]["readings"][0]["value"])

    async def stored(self) -> list[tuple[int, Event]]:
        """Return (sequence, event) of everything in the stream."""
        # A broker that stands still for a moment is asked again.
        (found,) = await until(self._stored_now, "the stream is read")
        return list(found)

    async def _stored_now(self) -> tuple[list[tuple[int, Event]]]:
        found = []
        async for item in self.bus.read(subjects.EVENTS_STREAM, [], name="test-reader"):
            message = decode_message(subject_to_topic(item.subject), item.data, item.headers)
            assert isinstance(message, EventMessage)
            found.append((item.sequence, message.event))
        return (found,)  # true, also where it is empty

    def journal(self, kind: str) -> list[dict[str, Any]]:
        """Return what the world wrote down."""
        return [line for line in read_journal(self.folder / "journal" / "world.jsonl") if line["kind"] == kind]

    def stop(self) -> None:
        """End all children."""
        for process in self._children:
            process.kill()
            process.wait()


@pytest.fixture
async def home(tmp_path: Path, nats_server: NatsServer, bus: Bus) -> AsyncIterator[Home]:
    """A running home whose events are in the stream."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        it = Home(tmp_path, nats_server, bus, http)
        try:
            for name, captured in subjects.stream_subjects("gw").items():
                await bus.ensure_stream(name, captured)
            await it.start_core()
            it.start_world()
            await it.ready()
            yield it
        except BaseException:
            for name in ("core", "world"):
                with contextlib.suppress(OSError):
                    print(f"{name}.log:\n{(tmp_path / f'{name}.log').read_text()[-4000:]}")
            raise
        finally:
            it.stop()


async def test_the_home_is_in_core_metadata_and_reports_into_the_stream(home: Home) -> None:
    metadata = f"{home.core['metadata']}/api/v3"
    service = (await home.http.get(f"{metadata}/deviceservice/name/{SERVICE}")).json()["service"]
    assert service["baseAddress"] == home.url
    devices = (await home.http.get(f"{metadata}/device/service/name/{SERVICE}?limit=-1")).json()["devices"]
    assert len(devices) == 21
    sensor = next(device for device in devices if device["name"] == "sensor-living")
    assert (sensor["profileName"], sensor["labels"]) == ("Room-Sensor", ["room", "living"])
    # Every entry reports when it starts; what does not change reports no more.
    entries = sum(len(device["autoEvents"]) for device in devices)
    count = await home.published(entries)
    events = [event for _, event in await home.stored()]
    assert len(events) >= count
    assert len({event.id for event in events}) == len(events)
    sources = {(event.device_name, event.source_name) for event in events}
    assert {("sensor-living", "Temperature"), ("tariff", "PriceNextHour"), ("light-office", "Switch")} <= sources
    data = (await home.http.get(f"{home.core['data']}/api/v3/event/count/device/name/sensor-living")).json()
    assert data["count"] > 0


async def test_core_command_sets_by_rest_and_by_bus_and_reads_back(home: Home) -> None:
    answer = await home.command("radiator-living", "Setpoint", {"Setpoint": "21.5"})
    assert (answer.status_code, answer.json()) == (200, {"apiVersion": "v3", "statusCode": 200})
    assert float(await home.read("radiator-living", "Setpoint")) == 21.5
    topic = "core/command/request/ventilation/Level/set"
    done = await home.edgex.request(topic, {"Level": 3}, answer_from="core-command", timeout_s=10, correlation_id="c-1")
    assert done.error is None
    got = await home.edgex.request(
        "core/command/request/ventilation/Level/get", None, answer_from="core-command", timeout_s=10
    )
    assert got.event is not None
    assert got.event.readings[0].decoded() == 3
    state = await home.command("light-kitchen", "State", {"Switch": "ON"})
    assert state.status_code == 200
    readings = (await home.command("light-kitchen", "State")).json()["event"]["readings"]
    assert [(item["resourceName"], item["value"]) for item in readings] == [("Switch", "ON"), ("Brightness", "80")]
    sets = {(line["device"], line["resource"]): line for line in home.journal("set")}
    assert sets["ventilation", "Level"]["correlation"] == "c-1"
    assert all(line["applied"] for line in sets.values())

    async def told() -> bool:
        sources = [(event.device_name, event.source_name) for _, event in await home.stored()]
        return ("light-kitchen", "State") in sources

    await until(told, "the event that tells of the SET")


async def test_a_switch_on_the_wall_is_seen_by_the_auto_events_alone(home: Home) -> None:
    body = {"device": "radiator-office", "resource": "Setpoint", "value": 23.5}
    answer = await home.http.post(f"{home.url}/api/v3/world/switch", json=body)
    assert (answer.status_code, answer.json()["value"]) == (200, "23.5")

    async def seen() -> list[Event]:
        events = [event for _, event in await home.stored() if event.device_name == "radiator-office"]
        return [event for event in events if event.source_name == "Setpoint" and event.readings[0].decoded() == 23.5]

    await until(seen, "the auto event that tells of it")
    assert float(await home.read("radiator-office", "Setpoint")) == 23.5
    assert [line["device"] for line in home.journal("hand")] == ["radiator-office"]
    assert home.journal("set") == []


@pytest.mark.parametrize(
    ("device", "command", "values", "status", "text"),
    [
        ("radiator-living", "Setpoint", {"Setpoint": "40"}, 400, "out of maximum value 28"),
        ("radiator-living", "Setpoint", {"Setpoint": "warm"}, 400, 'strconv.ParseFloat: parsing "warm"'),
        ("ventilation", "Level", {"Level": 4}, 400, "out of maximum value 3"),
        ("sensor-living", "Temperature", {"Temperature": 20}, 405, "marked as read-only"),
        ("sensor-living", "Nope", None, 404, "Regex DeviceResource Nope not found"),
    ],
)
async def test_refusals_reach_the_caller_of_core_command(
    home: Home, device: str, command: str, values: dict[str, Any] | None, status: int, text: str
) -> None:
    answer = await home.command(device, command, values)
    assert (answer.status_code, text in answer.json()["message"]) == (status, True), answer.text


async def test_a_device_added_over_rest_is_validated_locked_and_served(home: Home) -> None:
    url = f"{home.core['metadata']}/api/v3/device"

    async def add(name: str, room: str) -> dict[str, Any]:
        device = {
            "name": name, "serviceName": SERVICE, "profileName": "Room-Sensor", "adminState": "UNLOCKED",
            "operatingState": "UP", "protocols": {"home": {"room": room}},
        }  # fmt: skip
        answer = await home.http.post(url, json=[{"apiVersion": "v3", "device": device}])
        return dict(answer.json()[0])

    refused = await add("second-thermometer", "attic")
    assert refused["statusCode"] >= 400
    assert "no room 'attic'" in refused["message"]
    assert (await add("second-thermometer", "office"))["statusCode"] == 201

    async def answers(status: int) -> bool:
        return (await home.command("second-thermometer", "Temperature")).status_code == status

    await until(lambda: answers(200), "the new device")
    await home.http.patch(
        url, json=[{"apiVersion": "v3", "device": {"name": "second-thermometer", "adminState": "LOCKED"}}]
    )
    await until(lambda: answers(423), "the lock")


async def test_after_kill_9_the_house_goes_on_where_it_was(home: Home) -> None:
    await home.command("radiator-office", "Setpoint", {"Setpoint": 23})
    before = await home.page()
    assert home.world is not None
    home.world.kill()
    home.world.wait()
    metadata = f"{home.core['metadata']}/api/v3/device/name/radiator-office"
    modified = (await home.http.get(metadata)).json()["device"]["modified"]
    home.start_world()
    await home.ready()
    log = home.folder / "world.log"
    await until(lambda: log.read_text().count("21 devices in core-metadata") == 2, "core-metadata to be up to date")
    assert (await home.http.get(metadata)).json()["device"]["modified"] == modified
    after = await home.page()
    assert float(await home.read("radiator-office", "Setpoint")) == 23
    assert after["site_s"] >= before["site_s"]
    assert after["score"]["energy_kwh"] >= before["score"]["energy_kwh"] - 0.01  # at most a second of wall time
    assert after["rooms"]["office"]["temperature"] == pytest.approx(before["rooms"]["office"]["temperature"], abs=2)


async def test_events_of_an_outage_are_sent_again_in_order_without_gap_or_double(home: Home) -> None:
    await home.published(50)
    home.broker.kill()

    async def waits() -> bool:
        return int((await home.page())["counters"]["waiting"]) >= 10

    await until(waits, "events that wait for the broker")
    home.broker.start()

    async def flows() -> bool:
        counters = (await home.page())["counters"]
        return counters["waiting"] == 0 and counters["resent"] > 0

    await until(flows, "the backlog to be sent")
    counters = (await home.page())["counters"]
    assert counters["gaps"] == 0
    journal = {line["id"]: line["stream_seq"] for line in home.journal("event")}
    stored = await home.stored()
    ids = [event.id for _, event in stored]
    assert len(set(ids)) == len(ids)
    assert set(ids) >= set(journal)
    assert all(journal[event.id] == sequence for sequence, event in stored if event.id in journal)
    origins = [event.origin for _, event in stored]
    assert origins == sorted(origins)


async def test_sigterm_ends_it_in_order(home: Home) -> None:
    assert home.world is not None
    home.world.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(home.world.wait, 10) == 0
    registry = f"{home.core['keeper']}/api/v3/registry/serviceId/{SERVICE}"
    assert (await home.http.get(registry)).json()["registration"]["status"] == "HALT"


async def test_a_state_file_of_another_house_ends_the_start_with_its_remedy(home: Home) -> None:
    assert home.world is not None
    home.world.send_signal(signal.SIGTERM)
    await asyncio.to_thread(home.world.wait, 10)
    home.start_world(EDGEAGENTS_WORLD_SEED="99")
    assert await asyncio.to_thread(home.world.wait, 20) == 1
    log = (home.folder / "world.log").read_text()
    assert "a house of seed 1 instead of 99: remove it to begin a new house" in log
