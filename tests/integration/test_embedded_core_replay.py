"""The embedded core answers the recorded requests as the real EdgeX 4.0.2 did, over HTTP and on the bus.

Values are compared as they stand, except what differs from run to run. What differs on purpose stands with its reason
in `tests/recorded_answers.py`. The requests to an application and a device service are in `test_service_replay.py`.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from edgeagents.adapters.bus import Bus, BusMessage
from tests.embedded_core import EmbeddedCore
from tests.nats import NatsServer
from tests.recorded_answers import VOLATILE, compared, masked, parsed, placed, renamed
from tests.recorded_devices import RecordedDevices
from tests.recordings import BusLine, HttpLine, bus_lines, http_lines

pytestmark = [pytest.mark.recordings]

CORE = ("keeper", "metadata", "data", "command")


@dataclass
class Replay:
    """What the embedded core said: answers by recorded request, and its messages on the bus in order."""

    answers: list[tuple[HttpLine, httpx.Response]] = field(default_factory=list)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    device_requests: list[dict[str, Any]] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)


class Player:
    """Puts the recorded world in place and asks the recorded questions."""

    def __init__(self, core: EmbeddedCore, bus: Bus, http: httpx.AsyncClient) -> None:
        self.replay = Replay(urls=core.urls)
        self.core = core
        self.bus = bus
        self.http = http
        self.devices = RecordedDevices(bus)
        self.lines = bus_lines()

    async def play(self) -> Replay:
        await self.devices.start()
        await self.bus.subscribe("edgex.>", self._hear)
        await self.bus.flush()
        try:
            await self._rebuild()
            for line in core_lines():
                if line.case == "data counts":
                    await self._until_kept()
                await self._ask(line)
                if line.case == "own regex":
                    await self._commands_on_the_bus()
            await self.bus.flush()
        finally:
            self.replay.device_requests = self.devices.requests
            await self.devices.stop()
        return self.replay

    async def _hear(self, message: BusMessage) -> None:
        try:
            self.replay.messages.append((message.subject, json.loads(message.data)))
        except ValueError:
            return  # the recorded malformed request, published below

    async def _rebuild(self) -> None:
        """Register the services that ran and add device-virtual with its profiles and devices, as it did itself."""
        for name, port in (("device-virtual", self.devices.url.rsplit(":", 1)[1]), ("app-rules-engine", "9")):
            check = {"interval": "10s", "path": "/api/v3/ping", "type": "http"}
            row = {"serviceId": name, "host": "localhost", "port": int(port), "HealthCheck": check, "status": "UP"}
            await self._add("keeper", "registry", {"apiVersion": "v3", "registration": row})
        for line in self.lines:
            levels = line.subject.split(".")
            if levels[1] != "system-events" or levels[4] != "add" or "probe" in line.subject:
                continue
            kind = levels[3]
            details = json.loads(line.data)["payload"]["details"]
            given = {key: value for key, value in details.items() if key not in ("created", "modified", "id")}
            if kind == "deviceservice":
                given["baseAddress"] = self.devices.url
            part = {"deviceservice": "service", "deviceprofile": "profile", "device": "device"}[kind]
            await self._add("metadata", kind, [{"apiVersion": "v3", part: given}])
        for line in self.lines:
            if line.subject.startswith("edgex.events.device.") and _origin(line) < _posted_origin():
                await self.bus.publish(line.subject, line.data, line.headers)

    async def _add(self, service: str, path: str, body: Any) -> None:
        response = await self.http.post(f"{self.core.urls[service]}/api/v3/{path}", json=body)
        results = response.json() if response.status_code == 207 else [response.json()]
        assert [result["statusCode"] for result in results] == [201], response.text

    async def _ask(self, line: HttpLine) -> None:
        request = json.loads(json.dumps(line.request).replace("http://localhost:59981", self.devices.url))
        self.devices.answer_as(line)
        url = self.core.urls[line.service] + line.path
        if line.request == "multipart file":
            file = ("profile.yml", self._uploaded_profile(), "application/x-yaml")
            response = await self.http.request(line.method, url, files={"file": file})
        elif isinstance(request, str):
            response = await self.http.request(line.method, url, content=request)
        else:
            response = await self.http.request(line.method, url, json=request)
        if line.case == "registry get, nobody listens":
            response = await self._until_down(url, response)
        self.replay.answers.append((line, response))

    def _uploaded_profile(self) -> bytes:
        """Return the profile that was uploaded, as YAML: what its system event shows of it."""
        event = next(
            line for line in self.lines if line.subject.endswith("deviceprofile.add.core-metadata.probe-sensor")
        )
        details = json.loads(event.data)["payload"]["details"]
        return yaml.safe_dump({key: value for key, value in details.items() if key not in VOLATILE}).encode()

    async def _until_down(self, url: str, response: httpx.Response) -> httpx.Response:
        give_up = time.monotonic() + 20
        while response.json()["registration"]["status"] == "UNKNOWN" and time.monotonic() < give_up:
            await asyncio.sleep(0.05)
            response = await self.http.get(url)
        return response

    async def _until_kept(self) -> None:
        """Wait until the events of the bus are kept: 14 in JSON, one in CBOR, and the two posted."""
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            if (await self.http.get(f"{self.core.urls['data']}/api/v3/event/count")).json()["count"] == 17:
                return
            await asyncio.sleep(0.05)

    async def _commands_on_the_bus(self) -> None:
        """Publish the recorded commands; the device service answers so that core-command answers as recorded."""
        answers = {
            line.subject.rsplit(".", 1)[1]: line for line in self.lines if ".response.core-command." in line.subject
        }
        for request_id, line in answers.items():
            self.devices.answer_bus(request_id, line)
        for line in self.lines:
            if line.subject.startswith(("edgex.core.command.request.", "edgex.core.commandquery.request.")):
                await self.bus.publish(line.subject, line.data)
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            heard = {subject for subject, _ in self.replay.messages if ".response.core-command." in subject}
            if len(heard) == len(answers):
                return
            await asyncio.sleep(0.05)


def core_lines() -> list[HttpLine]:
    """Return the recorded requests to the four core services, in order."""
    return [line for line in http_lines() if line.service in CORE and line.case != "app kv tree"]


def _origin(line: BusLine) -> int:
    found = re.search(rb'"origin":(\d+)', line.data)
    return int(found[1]) if found else 0


def _posted_origin() -> int:
    line = next(line for line in http_lines() if line.case == "data add event")
    return int(line.request["event"]["origin"])


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """The whole recording, played once."""
    http_lines()  # skips here without recordings
    folder: Path = tmp_path_factory.mktemp("replay")
    (folder / "nats").mkdir()
    server = NatsServer(folder / "nats")
    server.start()
    core = EmbeddedCore(
        folder / "core", server.url, "--advertise", "localhost", "--max-event-age-s", "1e9", "--request-timeout-s", "3"
    )

    async def run() -> Replay:
        bus = await Bus.connect(server.settings(), "player")
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
                return await Player(core, bus, http).play()
        finally:
            await bus.close()

    try:
        core.start().linked()
        yield asyncio.run(run())
        assert core.stop()[0] == 0, core.log()
    finally:
        core.kill()
        server.kill()


def names_of(urls: dict[str, str]) -> dict[str, str]:
    """Return this run's addresses with the recorded ones."""
    recorded = {"keeper": 59890, "metadata": 59881, "data": 59880, "command": 59882}
    names = {urls[name]: f"http://localhost:{port}" for name, port in recorded.items()}
    return names | {f'"port":{urls[name].rsplit(":", 1)[1]},': f'"port":{port},' for name, port in recorded.items()}


@pytest.mark.parametrize("service", CORE)
def test_answers_are_those_of_the_real_core(replay: Replay, service: str) -> None:
    wrong = []
    for line, response in replay.answers:
        if line.service != service:
            continue
        told = f"{line.case}: {line.method} {line.path}"
        differs = compared(line.case, renamed(response.text, names_of(replay.urls)), line.answer)
        if response.status_code != line.status:
            wrong.append(f"{told}: status {response.status_code}, not {line.status}: {response.text[:300]}")
        elif differs:
            wrong.append(f"{told}:\n{differs}")
        if response.headers["content-type"] != line.content_type or not response.headers["x-correlation-id"]:
            wrong.append(f"{told}: headers {dict(response.headers)}")
    assert not wrong, "\n".join(wrong)


def test_every_recorded_request_to_the_core_is_replayed(replay: Replay) -> None:
    assert [line.case for line, _ in replay.answers] == [line.case for line in core_lines()]


def _notices(messages: list[tuple[str, dict[str, Any]]], *subjects: str) -> list[Any]:
    return [(subject, masked(placed(body))) for subject, body in messages if re.match("|".join(subjects), subject)]


def _recorded(*subjects: str) -> list[tuple[str, dict[str, Any]]]:
    pattern = re.compile("|".join(subjects))
    return [(line.subject, json.loads(line.data)) for line in bus_lines() if pattern.match(line.subject)]


def test_system_events_are_those_of_the_real_core(replay: Replay) -> None:
    assert _notices(replay.messages, r"edgex\.system-events\.") == _notices(_recorded(r"edgex\.system-events\."), ".*")


def test_validations_ask_as_the_real_core(replay: Replay) -> None:
    probe = r"edgex\.device-probe\.validate"
    assert _notices(replay.messages, probe) == _notices(_recorded(probe), ".*")


def test_configuration_notices_are_those_of_the_real_keeper(replay: Replay) -> None:
    written = {
        line.path.partition("?")[0].removeprefix("/api/v3/kvs/key/")
        for line in http_lines()
        if line.service == "keeper" and line.method in ("PUT", "DELETE") and "/kvs/" in line.path and line.status == 200
    }
    subjects = {"edgex.configs." + key.replace("/", ".") for key in written}
    first = next(i for i, line in enumerate(bus_lines()) if line.subject == "edgex.configs.edgex.v4.app-probe")
    theirs = [(line.subject, json.loads(line.data)) for line in bus_lines()[first:] if line.subject in subjects]
    ours = [(subject, body) for subject, body in replay.messages if subject.startswith("edgex.configs.")]
    assert [(subject, masked(body)) for subject, body in ours] == [(subject, masked(body)) for subject, body in theirs]


def test_posted_events_are_published_on(replay: Replay) -> None:
    theirs = _notices(_recorded(r"edgex\.events\.core\."), ".*")
    # The real one publishes the event that it refuses with 400, too; the embedded core does not.
    assert _notices(replay.messages, r"edgex\.events\.core\.") == theirs[:2]


def test_bus_commands_are_passed_on_and_answered_as_by_the_real_core(replay: Replay) -> None:
    for subject, theirs in _recorded(r"edgex\.device\.command\.request\.", r"edgex\.response\.core-command\."):
        request_id = theirs["requestID"]
        ours = [body for name, body in replay.messages if name == subject and body["requestID"] == request_id]
        assert len(ours) == 1, subject
        assert renamed(json.dumps(masked(ours[0])), names_of(replay.urls)) == json.dumps(masked(theirs)), subject


def test_device_services_are_called_as_by_the_real_core(replay: Replay) -> None:
    lines = [json.loads(text) for text in _http_to_device_service()]
    ours = [request for request in replay.device_requests if "/lamp-1/" in request["path"]]
    assert [(r["method"], r["path"], parsed(r["body"])) for r in ours] == [
        (r["method"], r["path"], parsed(r["body"])) for r in lines
    ]
    assert all(request["headers"]["x-correlation-id"] for request in ours)


def _http_to_device_service() -> list[str]:
    from tests.recordings import folder

    return (folder() / "http-to-device-service.jsonl").read_text().splitlines()
