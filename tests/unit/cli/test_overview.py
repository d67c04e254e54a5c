"""`status`, `agents`, `devices`: one shape for people and programs, whatever is away."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeagents.cli import overview
from edgeagents.cli.place import Place
from edgeagents.cli.survey import DeviceFacts, agent_body, device_rows, guard_body
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Profile, Reading
from edgeagents.model.site import Site
from edgeagents.protocol.diagnosis.files import FileFacts
from edgeagents.protocol.diagnosis.services import AgentFacts, GuardFacts
from tests.nats import free_port
from tests.unit.cli.command import run

GUARD = GuardFacts("http://g", state={
    "generation": 7, "waiting": 1, "sessions": ["air"], "modes": {"air": "observe"}, "outcomes": {"proven": 3},
    "blocked": {"pump": "silent"}, "paused": [{"scope": "device", "name": "valve", "by": "ann"}],
    "overrides": [{"deviceName": "lamp", "resourceName": "On", "value": "true"}],
    "leases": [{"deviceName": "valve", "resourceName": "Setpoint", "agent": "air"}], "volumeFull": True,
})  # fmt: skip
AIR = AgentFacts("air", "http://a", state={
    "mode": "act", "counts": {"events": 9, "decisions": 4}, "commands": {"published": 2, "held_back": 1}, "pending": 1,
    "waitsFor": ["device 'x'"],
})  # fmt: skip
STATUS = {
    "gateway": "home", "broker": {"state": "up", "text": "nats://n"}, "edgex": {"state": "away", "text": "no keeper"},
    "links": [{"link": "link to south", "state": "down", "text": "down: both gateways work on"}],
    "coordinator": {"state": "up", "text": "http://c: 2 tasks under way"},
    "model": {"state": "waits", "text": "http://m: no language model"},
    "guard": guard_body(GUARD), "agents": [agent_body(AIR, GUARD), agent_body(AgentFacts("heat"), GUARD)],
}  # fmt: skip
VALVE = Profile.model_validate({"name": "Valve", "deviceResources": [
    {"name": "Setpoint", "properties": {"valueType": "Float32", "readWrite": "RW", "units": "°C"}},
    {"name": "Battery", "properties": {"valueType": "Int8", "readWrite": "R"}}]})  # fmt: skip
AGENT = {"name": "air", "watches": [{"profile": "Valve"}], "may": [{"profile": "Valve", "resource": "Setpoint"}]}


def facts() -> DeviceFacts:
    site = Site.model_validate({"resources": [{"profile": "Valve", "resource": "Setpoint", "risk_class": "B"}]})
    files = FileFacts(
        {"air": AgentDefinition.model_validate(AGENT)}, (), site, "",
        {"valve": Device(name="valve", profile_name="Valve"), "lamp": Device(name="lamp", profile_name="Gone")},
        {"Valve": VALVE},
    )  # fmt: skip
    newest = Reading.model_validate({"valueType": "Float32", "value": "2.1e+01", "origin": 5})
    return DeviceFacts(files, GUARD, {("valve", "Setpoint"): newest})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(place: Place) -> dict[str, Any]:
        return STATUS

    async def devices(place: Place) -> DeviceFacts:
        return facts()

    monkeypatch.setattr(overview, "read_status", status)
    monkeypatch.setattr(overview, "read_devices", devices)
    monkeypatch.setenv("COLUMNS", "160")


def test_an_agents_mode_is_the_guards_word_and_one_that_is_not_there_says_so() -> None:
    air, heat = STATUS["agents"]
    assert (air["mode"], air["session"], air["heldBack"]) == ("observe", True, 1)
    assert (heat["mode"], heat["session"]) == ("unknown", False)
    assert "not registered" in heat["problem"]


def test_a_guard_that_is_away_has_every_field_all_the_same() -> None:
    body = guard_body(GuardFacts("http://g", "cannot be reached"))
    assert body.keys() == guard_body(GUARD).keys()
    assert (body["problem"], body["paused"], body["outcomes"]) == ("cannot be reached", [], {})


@pytest.mark.parametrize("odd", [{}, {"scope": 3}])
def test_a_guard_that_answers_in_another_shape_is_shown_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]
) -> None:
    facts = GuardFacts("http://g", state={"paused": [odd], "overrides": [odd], "outcomes": {"\x1b[2J": "\x1b[1A"}})

    async def status(place: Place) -> dict[str, Any]:
        return {**STATUS, "guard": guard_body(facts), "links": [{"link": "link to [/b]", "state": "up", "text": ""}]}

    monkeypatch.setattr(overview, "read_status", status)
    done = run(capsys, "status")
    assert (done.code, "paused: " in done.out, "link to [/b]" in done.out, "\x1b" in done.out) == (0, True, True, False)


def test_a_lease_of_another_shape_is_nobodys() -> None:
    odd = GuardFacts("http://g", state={"leases": [{"deviceName": []}, 3]})
    assert {row["lease"] for row in device_rows(replace(facts(), guard=odd))} == {""}


@pytest.mark.usefixtures("told")
def test_status_is_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "status").out
    for words in ("home", "no keeper", "generation 7", "proven 3", "paused: device valve, by ann",
                  "blocked: pump: silent", "set by hand: lamp/On = true", "waits for device 'x'",
                  "link to south", "both gateways work on", "volume is full: only safety commands",
                  "2 tasks under way", "no language model"):  # fmt: skip
        assert words in out
    assert len(out.splitlines()) < 24


@pytest.mark.usefixtures("told")
def test_status_and_agents_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "status", "--json").out) == STATUS
    assert json.loads(run(capsys, "agents", "--json").out) == {"agents": STATUS["agents"]}


def test_a_device_row_says_who_may_command_it_and_who_holds_it() -> None:
    setpoint, battery = device_rows(facts())
    assert setpoint == {
        "device": "valve", "profile": "Valve", "resource": "Setpoint", "adminState": "UNLOCKED",
        "operatingState": "UP", "value": 21.0, "units": "°C", "originNs": 5, "mayCommand": ["air"], "riskClass": "B",
        "lease": "air",
    }  # fmt: skip
    assert (battery["value"], battery["mayCommand"], battery["riskClass"], battery["lease"]) == (None, [], "", "")


@pytest.mark.usefixtures("told")
def test_devices_are_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = [line for line in run(capsys, "devices").out.splitlines() if "Setpoint" in line]
    assert line.split() == ["valve", "Setpoint", "21", "°C", "1970-01-01", "00:00:00.000", "air", "B", "air"]
    assert json.loads(run(capsys, "devices", "--json").out)["devices"] == device_rows(facts())


def test_where_nothing_runs_status_says_what_is_away_and_devices_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    away = f"127.0.0.1:{free_port()}"
    words = ["--nats", f"nats://{away}", "--keeper", f"http://{away}", "--guard", f"http://{away}",
             "--coordinator", f"http://{away}", "--inference", f"http://{away}",
             "--agents-dir", str(tmp_path), "--site-file", str(tmp_path / "s.yaml")]  # fmt: skip
    body = json.loads(run(capsys, "status", "--json", *words).out)
    assert (body["broker"]["state"], body["edgex"]["state"]) == ("away", "away")
    assert "cannot be reached" in body["guard"]["problem"]
    assert (body["coordinator"]["state"], body["model"]["state"]) == ("waits", "waits")
    done = run(capsys, "devices", *words)
    assert done.code == 1
    assert "edgeagents doctor" in done.err
    assert run(capsys, "events", *words).code == 1
