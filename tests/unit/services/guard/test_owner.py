"""The owner's word together with what core-metadata knows."""

from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import ConfigurationError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.site import Site
from services.guard.owner import Owner
from tests.unit.services.guard.rig import AGENTS, SITE, Rig


def owner(site: dict[str, Any] | None = None, **may: Any) -> Owner:
    """Return an owner with one agent; keywords are its one permission."""
    body = AGENTS[0] | ({"may": [{"profile": "Valve", "resource": "Setpoint"} | may]} if may else {})
    return Owner(Site.model_validate(SITE if site is None else site), {"air": AgentDefinition.model_validate(body)})


def test_files_are_read_and_their_mistakes_told(tmp_path: Path) -> None:
    site, agents = tmp_path / "site.yaml", tmp_path / "agents"
    agents.mkdir()
    site.write_text("resources: []\n")
    (agents / "air.yaml").write_text("name: air\nwatches: [{profile: x}]\n")
    assert sorted(Owner.read(site, agents).agents) == ["air"]
    site.write_text("resources: [{resource: x, risk: A}]\n")
    with pytest.raises(ConfigurationError, match=r"site\.yaml: resources\[0\]\.risk: unknown field"):
        Owner.read(site, agents)


def test_a_start_with_one_wrong_file_names_it_and_all_other_agents_work(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site, agents = tmp_path / "site.yaml", tmp_path / "agents"
    agents.mkdir()
    site.write_text("resources: []\n")
    (agents / "air.yaml").write_text("name: air\nwatches: [{profile: x}]\n")
    (agents / "heat.yaml").write_text("name: heat\nwatches: [{profile: x}]\nmode: perhaps\n")
    found = Owner.read(site, agents)
    assert (sorted(found.agents), list(found.unread)) == (["air"], [agents / "heat.yaml"])
    assert f"{agents / 'heat.yaml'}: mode: Input should be" in caplog.text
    assert found.problem("air", rig.devices) == ""
    assert f"{agents / 'heat.yaml'}: mode: Input should be" in found.problem("heat", rig.devices)
    assert str(agents) not in found.problem("evil", rig.devices), "what is in others' files is none of its business"
    assert "no agent file that can be read declares 'evil'" in found.problem("evil", rig.devices)
    assert found.may_hold("heat", "valve", "Setpoint", rig.devices) == "no agent 'heat'"


@pytest.mark.parametrize("others", [[], ["b", "c"]])
def test_a_start_on_which_no_agent_could_work_names_a_wrong_file_and_is_none(tmp_path: Path, others: list[str]) -> None:
    site, agents = tmp_path / "site.yaml", tmp_path / "agents"
    agents.mkdir()
    site.write_text("resources: []\n")
    assert Owner.read(site, agents).agents == {}, "a gateway without agents"
    for name in ("a", *others):
        (agents / f"{name}.yaml").write_text(f"name: [{name}\n")
    with pytest.raises(ConfigurationError, match=r"a\.yaml, line 2: not YAML"):
        Owner.read(site, agents)


def test_while_a_file_cannot_be_read_no_past_is_forgotten_that_its_rates_may_count(rig: Rig) -> None:
    assert owner(rate={"count": 3, "per": "7d"}).keeps_s == 7 * 86_400
    assert owner(resource="Setpoint").keeps_s == 86_400
    found = owner(resource="Setpoint")
    found.take_over(found.agents.copy(), {}, {Path("heat.yaml"): "heat.yaml: not YAML"})
    rig.ledger.went_out("valve", "Setpoint", "heat", "21", 0.0)
    rig.ledger.forget(0.0, 1e12 - found.keeps_s)
    assert len(list(rig.ledger.past_sets(0.0))) == 1


def test_a_name_that_two_files_declare_has_no_permissions_and_all_others_go_on(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site, agents = tmp_path / "site.yaml", tmp_path / "agents"
    agents.mkdir()
    site.write_text("resources: []\n")
    for file, name in (("a", "air"), ("b", "air"), ("c", "heat")):
        (agents / f"{file}.yaml").write_text(f"name: {name}\nwatches: [{{profile: x}}]\n")
    found = Owner.read(site, agents)
    assert sorted(found.agents) == ["heat"]
    problem = found.problem("air", rig.devices)
    assert f"{agents / 'a.yaml'} and {agents / 'b.yaml'} both declare agent 'air'" in problem
    assert problem.split(",")[0] in caplog.text
    assert found.problem("heat", rig.devices) == ""


def test_an_agent_is_told_what_concerns_it_and_no_more(rig: Rig) -> None:
    entries = owner(resource="Setpoint", device="valve", profile="").part_of("air", rig.devices)
    assert [(item.device, item.resource, item.risk_class, item.kind) for item in entries] == [
        ("valve", "Setpoint", "A", "absolute")
    ]
    assert owner({"resources": []}).part_of("air", rig.devices) == ()


def test_who_no_file_declares_gets_no_session_and_no_lease(rig: Rig) -> None:
    assert "no agent file declares 'evil'" in rig.owner.problem("evil", rig.devices)
    assert rig.owner.may_hold("evil", "valve", "Setpoint", rig.devices) == "no agent 'evil'"


def test_a_permission_outside_the_profile_keeps_its_agent_out(rig: Rig) -> None:
    problem = owner(maximum=99).problem("air", rig.devices)
    assert problem == "may[0]: maximum: 99 is outside the profile's range 5.0 to 30.0 of valve/Setpoint: narrow it"
    assert rig.owner.problem("air", rig.devices) == ""


@pytest.mark.parametrize(
    ("agent", "device", "resource", "reason"),
    [
        ("air", "valve", "Setpoint", ""),
        ("eye", "valve", "Setpoint", "agent 'eye' is in mode observe"),
        ("air", "gone", "Setpoint", "core-metadata knows no device 'gone'"),
        ("air", "valve", "Gone", "agent 'air' has no permission for valve/Gone"),
    ],
)
def test_only_who_may_command_may_hold(rig: Rig, agent: str, device: str, resource: str, reason: str) -> None:
    assert rig.owner.may_hold(agent, device, resource, rig.devices) == reason
    assert rig.missed == (device == "gone")


def test_the_past_is_kept_as_long_as_rates_and_minimum_times_count() -> None:
    assert owner(resource="Setpoint").longest_s == 0.0
    assert owner(rate={"count": 3, "per": "7d"}).longest_s == 7 * 86_400
    site = {"resources": [{"profile": "Valve", "resource": "x", "minimum_off": "10d"}]}
    assert owner(site, rate={"count": 700, "per": "1h"}).longest_s == 10 * 86_400
    assert owner(rate={"count": 700, "per": "1h"}).most_sets == 700


def test_problems_of_the_site_file_are_found_against_the_devices_there_are(rig: Rig) -> None:
    assert rig.owner.site_problems(rig.devices) == []
    broken = owner({"resources": [{"profile": "Valve", "resource": "Setpoint", "maximum": 99}]})
    assert len(broken.site_problems(rig.devices)) == 1
