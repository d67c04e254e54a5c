"""A device service with EdgeX in memory: both doors, states, events, journal, shutdown."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from edgeagents.adapters.device_service import DeviceService, DeviceServiceSettings, serve_devices
from edgeagents.adapters.provisioning import Inventory
from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.journal import read_journal
from edgeagents.model.device import Device, Profile
from edgeagents.model.envelope import Envelope
from tests.unit.adapters.device_fakes import LAMP_PROFILE, LampDriver, lamp, memory_service, until

PROFILE = Profile.model_validate(LAMP_PROFILE)
SYSTEM = "edgex/system-events/core-metadata"


@dataclass
class Rig:
    """A running service, its driver and its neighbours."""

    fake: SimpleNamespace
    devices: DeviceService
    driver: LampDriver
    http: httpx.AsyncClient
    journal: Path

    async def ask(self, verb: str, command: str, payload: Any = None, **fields: Any) -> Envelope:
        """Ask over the bus and return the answer."""
        request_id = fields.pop("request_id", f"r{len(self.fake.transport.published)}")
        envelope = Envelope(payload, "correlation", request_id, **fields)
        topic = f"edgex/device/command/request/device-lamps/{fields.get('device', 'lamp')}/{command}/{verb}"
        await self.fake.transport.publish(topic, envelope)
        found = await self.fake.transport.first(f"edgex/response/device-lamps/{request_id}")
        answer: Envelope = found[-1][1]
        return answer

    async def tell(self, kind: str, action: str, details: dict[str, Any]) -> None:
        """Send a system event of core-metadata."""
        body = {"type": kind, "action": action, "source": "core-metadata", "owner": "device-lamps", "details": details}
        await self.fake.transport.publish(f"{SYSTEM}/{kind}/{action}/device-lamps", Envelope(body))

    def stored(self) -> list[dict[str, Any]]:
        """Return the events in the stream."""
        return [body["payload"]["event"] for _, body, _ in self.fake.bus.stored]

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return what the journal says."""
        return [line for line in read_journal(self.journal) if line["kind"] == kind]


@contextlib.asynccontextmanager
async def rig(tmp_path: Path, *, ready: bool = True, **settings: Any) -> AsyncIterator[Rig]:
    driver = LampDriver()
    own = DeviceServiceSettings(journal_dir=tmp_path, **settings)
    async with memory_service() as fake:
        fake.metadata.known_profiles["lamp-profile"] = PROFILE
        fake.metadata.known_devices |= {"lamp": lamp(), "stranger": lamp(name="stranger", service_name="device-other")}
        if ready:
            await fake.devices.load()
        async with serve_devices(fake.service, driver, Inventory((PROFILE,)), settings=own) as devices:
            transport = httpx.ASGITransport(app=fake.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://device/api/v3/device/name") as http:
                yield Rig(fake, devices, driver, http, tmp_path / "device-lamps.jsonl")


# --- REST ----------------------------------------------------------------------------------------


async def test_rest_get_answers_an_event_and_publishes_it_only_when_asked(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        answer = await it.http.get("/lamp/Level", headers={"X-Correlation-Id": "c1"})
        body = answer.json()
        assert (answer.status_code, body["statusCode"], body["apiVersion"]) == (200, 200, "v3")
        assert [reading["value"] for reading in body["event"]["readings"]] == ["40"]
        assert answer.headers["X-Correlation-ID"] == "c1"
        pushed = (await it.http.get("/lamp/State", params={"ds-pushevent": "true"})).json()
        await until(it.stored)
        assert [event["id"] for event in it.stored()] == [pushed["event"]["id"]]
        quiet = await it.http.get("/lamp/Level", params={"ds-returnevent": "false"})
        assert (quiet.status_code, quiet.content) == (200, b"")


async def test_rest_put_sets_publishes_and_writes_down(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        answer = await it.http.put("/lamp/State", json={"Power": "OFF", "Level": 70}, headers={"X-Correlation-Id": "c"})
        assert (answer.status_code, answer.json()) == (200, {"apiVersion": "v3", "statusCode": 200})
        assert it.driver.written == [("lamp", {"Power": False, "Level": 70}, "c")]
        await until(it.stored)
        assert {r["resourceName"]: r["value"] for r in it.stored()[0]["readings"]} == {"Power": "false", "Level": "70"}
        assert [
            (line["correlation"], line["device"], line["resource"], line["value"], line["applied"])
            for line in it.lines("set")
        ] == [("c", "lamp", "Power", "false", True), ("c", "lamp", "Level", "70", True)]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/lamp/Nope", "", 404, "Regex DeviceResource Nope not found"),
        ("GET", "/nobody/Level", "", 404, "device nobody not found"),
        ("GET", "/stranger/Level", "", 404, "device stranger not found"),
        ("GET", "/lamp/Secret", "", 405, "no readable resources matched with Secret"),
        ("GET", "/lamp/Level?ds-pushevent=maybe", "", 400, "invalid query parameter, maybe has to be true or false"),
        ("PUT", "/lamp/Temp", '{"Temp": 1}', 405, "DeviceResource Temp is marked as read-only"),
        ("PUT", "/lamp/Level", '{"Level": 101}', 400, "out of maximum value 100"),
        ("PUT", "/lamp/Level", '{"Level": "much"}', 400, 'strconv.ParseUint: parsing "much": invalid syntax'),
        ("PUT", "/lamp/Level", "{bad", 400, "failed to parse request body"),
        ("PUT", "/lamp/Level", "[1]", 400, "failed to parse request body"),
        ("PUT", "/lamp/Secret", "", 400, "not found in request body"),
        ("PUT", "/lamp/Broken", "{}", 500, "not defined"),
    ],
)
async def test_refusals_over_rest_have_edgex_status_and_body(
    tmp_path: Path, method: str, path: str, body: str, status: int, text: str
) -> None:
    async with rig(tmp_path) as it:
        answer = await it.http.request(method, path, content=body)
        assert (answer.status_code, answer.json()["statusCode"]) == (status, status)
        assert text in answer.json()["message"]
        assert it.driver.written == []


async def test_a_refused_set_is_written_down_as_not_applied(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await it.http.put("/lamp/Level", json={"Level": 101})
        (line,) = it.lines("set")
        assert (line["resource"], line["value"], line["applied"]) == ("Level", "101", False)
        assert "out of maximum" in line["error"]
        assert it.devices.counters.refused == 1


# --- bus -----------------------------------------------------------------------------------------


async def test_bus_get_and_set_answer_under_the_same_ids(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        answer = await it.ask("get", "Level")
        assert (answer.error_code, answer.correlation_id) == (0, "correlation")
        assert answer.payload["requestId"] == answer.request_id
        assert answer.payload["event"]["readings"][0]["value"] == "40"
        done = await it.ask("set", "Level", {"Level": "7"})
        assert (done.error_code, done.payload) == (0, None)
        assert it.driver.values["Level"] == 7
        assert it.driver.written[0][2] == "correlation"


async def test_bus_queries_are_obeyed(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        answer = await it.ask("get", "Level", query_params={"ds-returnevent": "false", "ds-pushevent": "true"})
        assert (answer.error_code, answer.payload) == (0, None)
        await until(it.stored)
        bad = await it.ask("get", "Level", query_params={"ds-pushevent": "maybe"})
        assert (bad.error_code, bad.content_type) == (1, "text/plain")


async def test_bus_errors_are_text(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        answer = await it.ask("set", "Level", {"Level": "maybe"})
        assert (answer.error_code, answer.content_type) == (1, "text/plain")
        assert answer.payload.startswith("failed to create CommandValue -> failed to convert set parameter maybe")


@pytest.mark.parametrize("request_id", ["", "a/b", "#", "x" * 65])
async def test_a_request_that_cannot_be_answered_is_left_alone(tmp_path: Path, request_id: str) -> None:
    async with rig(tmp_path) as it:
        topic = "edgex/device/command/request/device-lamps/lamp/Level/set"
        await it.fake.transport.publish(topic, Envelope({"Level": "7"}, "c", request_id))
        assert (await it.ask("get", "Level")).error_code == 0
        assert it.driver.written == []


async def test_an_answer_that_cannot_be_sent_does_not_end_the_service(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.driver.hold = asyncio.Event()
        topic = "edgex/device/command/request/device-lamps/lamp/Level/get"
        await it.fake.transport.publish(topic, Envelope(None, "c", "r1"))
        it.fake.transport.is_down = True
        it.driver.hold.set()
        await until(lambda: it.devices.counters.gets)
        it.fake.transport.is_down = False
        assert (await it.ask("get", "Level")).error_code == 0


async def test_validation_asks_the_driver_and_checks_what_edgex_needs(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:

        async def validate(number: int, **changes: Any) -> Envelope:
            payload = {"apiVersion": "v3", "requestId": "x", "device": lamp(**changes).to_wire()}
            await it.fake.transport.publish("edgex/device-lamps/validate/device", Envelope(payload, "c", f"v{number}"))
            found = await it.fake.transport.first(f"edgex/response/device-lamps/v{number}")
            answer: Envelope = found[-1][1]
            return answer

        accepted = await validate(1)
        assert (accepted.error_code, accepted.payload) == (0, None)
        blank = await validate(2, name="two words")
        assert (blank.error_code, "cannot be part of a topic" in blank.payload) == (1, True)
        never = await validate(3, auto_events=[{"interval": "soon", "sourceName": "Level"}])
        assert "auto event of Level" in never.payload
        it.driver.reason = "no such address"
        assert (await validate(4)).payload == "no such address"


# --- states and devices --------------------------------------------------------------------------


async def test_locked_and_down_devices_answer_423_until_they_are_free_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await it.tell("device", "update", lamp(admin_state="LOCKED").to_wire())
        assert (await it.http.get("/lamp/Level")).status_code == 423
        assert "device lamp locked" in (await it.ask("set", "Level", {"Level": 1})).payload
        await it.tell("device", "update", lamp(operating_state="DOWN").to_wire())
        assert (await it.http.put("/lamp/Level", json={"Level": 1})).status_code == 423
        await it.tell("device", "update", lamp().to_wire())
        assert (await it.http.put("/lamp/Level", json={"Level": 1})).status_code == 200


async def test_a_locked_service_locks_all_its_devices(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        service = {"name": "device-lamps", "baseAddress": "http://x", "adminState": "LOCKED"}
        await it.tell("deviceservice", "update", service)
        answer = await it.http.get("/lamp/Level")
        assert (answer.status_code, answer.json()["message"]) == (423, "service locked")
        await it.tell("deviceservice", "update", service | {"adminState": "UNLOCKED"})
        assert (await it.http.get("/lamp/Level")).status_code == 200


async def test_a_service_that_core_metadata_holds_locked_starts_locked(tmp_path: Path) -> None:
    driver = LampDriver()
    async with memory_service() as fake:
        async with serve_devices(fake.service, driver, settings=DeviceServiceSettings()) as devices:
            await until(lambda: fake.metadata.known_services)
            assert not devices.is_locked
        known = fake.metadata.known_services["device-lamps"]
        fake.metadata.known_services["device-lamps"] = known.model_copy(update={"admin_state": "LOCKED"})
        async with serve_devices(fake.service, driver, settings=DeviceServiceSettings()) as devices:
            await until(lambda: devices.is_locked)


async def test_what_it_brings_is_all_there_once_the_last_device_is_in_core_metadata(tmp_path: Path) -> None:
    async with memory_service() as fake:
        go_on, add = asyncio.Event(), fake.metadata.add_device

        async def slow(device: Device) -> None:
            if device.name == "lamp-2":
                await go_on.wait()
            await add(device)

        fake.metadata.add_device = slow
        inventory = Inventory((PROFILE,), (lamp(), lamp(name="lamp-2")))
        settings = DeviceServiceSettings(journal_dir=tmp_path)
        async with serve_devices(fake.service, LampDriver(), inventory, settings=settings) as devices:
            await until(lambda: "lamp" in fake.metadata.known_devices)
            assert not devices.is_provisioned
            go_on.set()
            await until(lambda: devices.is_provisioned)
            assert "lamp-2" in fake.metadata.known_devices


async def test_a_device_assigned_over_rest_is_served_and_reports_by_itself(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        auto = [{"interval": "5ms", "onChange": True, "sourceName": "Level"}]
        added = lamp(name="lamp-2", auto_events=auto)
        await it.tell("device", "add", added.to_wire())
        assert (await it.http.get("/lamp-2/Level")).status_code == 200
        await until(it.stored)
        it.driver.values["Level"] = 41
        await until(lambda: len(it.stored()) >= 2)
        assert [event["readings"][0]["value"] for event in it.stored()] == ["40", "41"]
        assert {event["deviceName"] for event in it.stored()} == {"lamp-2"}
        await it.tell("device", "delete", added.to_wire())
        assert (await it.http.get("/lamp-2/Level")).status_code == 404


async def test_before_core_metadata_was_read_no_device_is_called_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeagents.adapters.device_service._CACHE_WAIT_S", 0.01)
    async with rig(tmp_path, ready=False) as it:
        assert (await it.http.get("/lamp/Level")).status_code == 503
        await it.fake.devices.load()
        assert (await it.http.get("/lamp/Level")).status_code == 200


# --- drivers that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InvalidInputError("the valve is stuck"), 400, "the valve is stuck"),
        (EdgeAgentsError("short circuit"), 500, "error writing Level for lamp -> short circuit"),
    ],
)
async def test_a_drivers_error_is_an_answer(tmp_path: Path, error: Exception, status: int, text: str) -> None:
    async with rig(tmp_path) as it:
        it.driver.error = error
        answer = await it.http.put("/lamp/Level", json={"Level": 1})
        assert (answer.status_code, answer.json()["message"]) == (status, text)
        assert it.lines("set")[0]["applied"] is False


async def test_a_driver_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with rig(tmp_path, driver_timeout_s=0.02) as it:
        it.driver.hold = asyncio.Event()
        answer = await it.http.get("/lamp/Level")
        assert (answer.status_code, answer.json()["message"]) == (
            503, "error reading Level for lamp: no answer in 0.02 s",
        )  # fmt: skip
        it.driver.hold = None
        assert (await it.http.get("/lamp/Level")).status_code == 200


async def test_sets_of_one_device_keep_their_order(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.driver.hold = asyncio.Event()
        topic = "edgex/device/command/request/device-lamps/lamp/Level/set"
        for number in range(5):
            await it.fake.transport.publish(topic, Envelope({"Level": number}, f"c{number}", f"r{number}"))
        it.driver.hold.set()
        await it.fake.transport.first("edgex/response/device-lamps/", 5)
        assert [values["Level"] for _, values, _ in it.driver.written] == [0, 1, 2, 3, 4]


async def test_a_set_is_finished_and_written_down_although_its_caller_went_away(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.driver.hold = asyncio.Event()
        caller = asyncio.create_task(it.devices.set("lamp", "Level", {"Level": 9}, "c"))
        await asyncio.sleep(0)
        caller.cancel()
        it.driver.hold.set()
        await until(lambda: it.lines("set"))
        assert it.lines("set")[0]["applied"] is True
        assert it.driver.values["Level"] == 9


async def test_what_is_under_way_is_finished_before_the_end(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.driver.hold = asyncio.Event()
        caller = asyncio.create_task(it.devices.set("lamp", "Level", {"Level": 9}, "c"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, it.driver.hold.set)
    await caller
    assert it.lines("set")[0]["applied"] is True
    assert [event["sourceName"] for event in it.stored()] == ["Level"]
    assert [topic for topic, _ in it.fake.transport.filters] == [f"{SYSTEM}/#"]  # the cache's own


async def test_configuration_decides_on_transforms_and_units(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        assert "units" in (await it.http.get("/lamp/Level")).json()["event"]["readings"][0]
        it.fake.config["Writable/Reading/ReadingUnits"] = False
        assert "units" not in (await it.http.get("/lamp/Level")).json()["event"]["readings"][0]
        it.fake.config["Device/MaxCmdOps"] = 1
        assert (await it.http.get("/lamp/State")).status_code == 500
