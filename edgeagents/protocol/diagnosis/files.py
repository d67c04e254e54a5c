"""The owner's files: do they parse, do they fit the devices there are and each other?

Source: docs/agents.md, docs/site.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Profile
from edgeagents.model.finding import Finding, failed, ok, skipped, warning
from edgeagents.model.site import Site
from edgeagents.protocol.fitting import absences, file_problems, site_absences, site_problems, undeclared

_COME: Final = "add it in EdgeX: who waits for it goes on by itself; or correct the file"
MOST: Final = 5  # of one kind are told


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was read; where `devices` is None, core-metadata did not tell.

    Args:
        agents: by name, those that count.
        problems: of agent files that do not parse, or declare one name twice, or the folder that is not there.
        site: None where it does not parse (`site_problem`).
        devices: by name.
        profiles: by name.
    """

    agents: Mapping[str, AgentDefinition] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    site: Site | None = None
    site_problem: str = ""
    devices: Mapping[str, Device] | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)


def file_findings(facts: FileFacts) -> list[Finding]:
    """Return how agent files and site.yaml stand."""
    remedy = "correct the file (the guard sees it by itself), then restart the agent"
    found = [failed("agent files", text, remedy) for text in facts.problems]
    if not facts.problems:
        found.append(_agents(facts.agents))
    if facts.site is None:
        found.append(failed("site.yaml", facts.site_problem, "correct it, then restart the guard"))
    if facts.devices is None:
        return [*found, skipped("devices", "core-metadata does not tell which devices there are")]
    return [*found, *_fit(facts, facts.devices), *_devices(facts, facts.devices), *_permissions(facts, facts.devices)]


def _agents(agents: Mapping[str, AgentDefinition]) -> Finding:
    if not agents:
        return warning("agent files", "there is none", "write one: docs/agents.md shows how")
    return ok("agent files", f"{len(agents)}: {', '.join(sorted(agents))}")


def _fit(facts: FileFacts, devices: Mapping[str, Device]) -> list[Finding]:
    remedy = "correct the file, or the device's profile"
    found = [
        failed("agent files", f"{name}: {text}", f"{remedy}: until then the guard refuses this agent")
        for name, agent in facts.agents.items()
        for text in file_problems(agent, devices, facts.profiles)
    ]
    if facts.site is not None:
        texts = site_problems(facts.site, devices, facts.profiles)
        found += [failed("site.yaml", text, f"{remedy}: until then the gate refuses it") for text in texts]
        if not texts:
            found.append(
                ok("site.yaml", f"{len(facts.site.resources)} resources, {len(facts.site.interlocks)} interlocks")
            )
    return found


def _devices(facts: FileFacts, devices: Mapping[str, Device]) -> list[Finding]:
    missing = {f"agent {name}": absences(agent, devices) for name, agent in facts.agents.items()}
    missing["site.yaml"] = site_absences(facts.site, devices) if facts.site is not None else []
    found = [
        warning("devices", f"{who} names what core-metadata does not know: {_some(texts)}", _COME)
        for who, texts in missing.items()
        if texts
    ]
    locked = sorted(name for name, device in devices.items() if device.admin_state == "LOCKED")
    down = sorted(name for name, device in devices.items() if device.operating_state == "DOWN")
    if locked:
        found.append(warning("devices", f"locked: {_some(locked)}", "unlock them in EdgeX: commands are refused"))
    if down:
        found.append(warning("devices", f"down: {_some(down)}", "see their device service's log"))
    return found or [ok("devices", f"{len(devices)} devices, {len(facts.profiles)} profiles, nothing named is missing")]


def _permissions(facts: FileFacts, devices: Mapping[str, Device]) -> list[Finding]:
    if facts.site is None:
        return [skipped("permissions", "there is no site.yaml to compare with")]
    site = facts.site
    found = [
        warning("permissions", f"{name}: {_some(texts)}", "declare it in site.yaml, or take it out of the agent's file")
        for name, agent in facts.agents.items()
        if (texts := undeclared(agent, site, devices))
    ]
    return found or [ok("permissions", "site.yaml declares all that agents may command")]


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more
