"""Facts of the owner's files -> findings."""

from collections.abc import Sequence
from typing import Any

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Profile
from edgeagents.model.finding import Finding
from edgeagents.model.site import Site
from edgeagents.protocol.diagnosis.files import FileFacts, file_findings

PROFILE = Profile.model_validate(
    {"name": "Valve", "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float32", "readWrite": "RW", "minimum": 5, "maximum": 30}}]}
)  # fmt: skip
AGENT = {"name": "air", "watches": [{"profile": "Valve"}], "may": [{"profile": "Valve", "resource": "Setpoint"}]}
SITE = {"resources": [{"profile": "Valve", "resource": "Setpoint", "risk_class": "A"}]}


def facts(agent: dict[str, Any] = AGENT, site: dict[str, Any] = SITE, **changes: Any) -> FileFacts:
    return FileFacts(**{
        "agents": {"air": AgentDefinition.model_validate(agent)}, "site": Site.model_validate(site),
        "devices": {"valve-1": Device(name="valve-1", profile_name="Valve")}, "profiles": {"Valve": PROFILE}, **changes,
    })  # fmt: skip


def bad(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in findings if finding.level != "ok"]


def test_sound_files_are_ok() -> None:
    findings = file_findings(facts())
    assert bad(findings) == []
    assert [finding.check for finding in findings] == ["agent files", "site.yaml", "devices", "permissions"]


def test_files_that_do_not_parse_or_share_a_name_fail_one_by_one() -> None:
    findings = file_findings(facts(problems=("a.yaml: name: missing", "b and c both declare agent 'x'")))
    assert bad(findings) == [("agent files", "failed"), ("agent files", "failed")]


def test_a_site_file_that_does_not_parse_fails_and_permissions_are_not_judged() -> None:
    sound = facts()
    broken = FileFacts(sound.agents, (), None, "site.yaml: not YAML", sound.devices, sound.profiles)
    findings = file_findings(broken)
    assert bad(findings) == [("site.yaml", "failed"), ("permissions", "skipped")]


def test_a_file_that_contradicts_a_profile_fails() -> None:
    agent = {**AGENT, "may": [{"profile": "Valve", "resource": "Setpoint", "maximum": 99}]}
    [finding] = [item for item in file_findings(facts(agent)) if item.level == "failed"]
    assert "air: may[0]: maximum: 99 is outside" in finding.found
    wrong = {"resources": [{"profile": "Valve", "resource": "Sepoint", "risk_class": "A"}]}
    assert ("site.yaml", "failed") in bad(file_findings(facts(site=wrong)))


def test_a_device_that_is_not_there_yet_is_a_warning_that_says_so() -> None:
    agent = {**AGENT, "watches": [{"device": "valve-9"}]}
    [finding] = [item for item in file_findings(facts(agent)) if item.level == "warning"]
    assert finding.found == "agent air names what core-metadata does not know: device 'valve-9'"
    assert "add it in EdgeX" in finding.remedy


def test_locked_and_down_devices_are_warnings() -> None:
    locked = Device(name="valve-1", profile_name="Valve", admin_state="LOCKED", operating_state="DOWN")
    texts = [item.found for item in file_findings(facts(devices={"valve-1": locked})) if item.level == "warning"]
    assert texts == ["locked: valve-1", "down: valve-1"]


def test_a_permission_the_site_does_not_allow_is_a_warning() -> None:
    [finding] = [item for item in file_findings(facts(site={})) if item.check == "permissions"]
    assert finding.level == "warning"
    assert "valve-1/Setpoint is not declared" in finding.found


def test_without_core_metadata_devices_are_not_judged() -> None:
    assert bad(file_findings(facts(devices=None))) == [("devices", "skipped")]


def test_a_folder_without_agents_is_a_warning() -> None:
    assert ("agent files", "warning") in bad(file_findings(facts(agents={})))


def test_a_long_list_is_cut() -> None:
    agent = {**AGENT, "watches": [{"device": f"v-{number}"} for number in range(9)]}
    [finding] = [item for item in file_findings(facts(agent)) if item.level == "warning"]
    assert finding.found.endswith("device 'v-4' and 4 more")
