"""The agents and the site file we ship fit the devices we ship."""

from pathlib import Path

import pytest

from edgeagents.adapters.files import load_agents, load_site
from edgeagents.adapters.provisioning import load_inventory
from edgeagents.protocol.fitting import file_problems
from services.agent.rules import RuleBook

HOME = Path(__file__).resolve().parents[4] / "edgex-profiles" / "home"
AGENTS = load_agents(HOME / "agents")
INVENTORY = load_inventory(HOME / "profiles", HOME / "devices")
DEVICES = {device.name: device for device in INVENTORY.devices}
PROFILES = {profile.name: profile for profile in INVENTORY.profiles}


def test_three_agents_and_an_assistant_are_shipped() -> None:
    assert set(AGENTS) == {"comfort", "energy", "air", "assistant"}
    assert [name for name, agent in AGENTS.items() if agent.answers] == ["assistant"]


def test_what_the_assistant_may_set_the_owner_declared() -> None:
    site = load_site(HOME / "site.yaml")
    fits = [(entry, device) for entry in AGENTS["assistant"].may for device in DEVICES.values() if entry.fits(device)]
    assert fits
    assert all((rule := site.rule_for(device, entry.resource)) and rule.risk_class != "D" for entry, device in fits)


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_an_agents_permissions_fit_the_profiles(name: str) -> None:
    assert file_problems(AGENTS[name], DEVICES, PROFILES) == []


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_an_agents_rules_name_only_what_there_is(name: str) -> None:
    for device, resource in RuleBook(AGENTS[name], name).keys:
        profile = PROFILES[DEVICES[device].profile_name]
        assert profile.resource(resource) is not None, f"{device}/{resource}"


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_an_agent_may_set_what_its_rules_set_and_the_owner_declared_it(name: str) -> None:
    site = load_site(HOME / "site.yaml")
    agent = AGENTS[name]
    for rule in RuleBook(agent, name).compiled:
        device = DEVICES[rule.key[0]]
        assert any(entry.resource == rule.key[1] and entry.fits(device) for entry in agent.may), rule.key
        declared = site.rule_for(device, rule.key[1])
        assert declared is not None
        assert declared.risk_class == "A"
        assert declared.proof is not None


def test_interlocks_name_only_what_there_is() -> None:
    for lock in load_site(HOME / "site.yaml").interlocks:
        for side in (lock.forbid, lock.during):
            assert PROFILES[DEVICES[side.device].profile_name].resource(side.resource) is not None
