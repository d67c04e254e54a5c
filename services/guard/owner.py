"""The owner's files together with core-metadata: what the gate judges by, and what each agent is told of it.

The guard takes permissions, interlocks and risk classes from read-only files, never from keeper or a message.

Source: design.md sections 2 and 3.8.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.files import agent_files, load_site
from edgeagents.errors import ConfigurationError
from edgeagents.model.agent import AgentDefinition, Rate
from edgeagents.model.message import SiteEntry
from edgeagents.model.site import Site
from edgeagents.protocol.fitting import file_problems, site_problems
from edgeagents.protocol.gate import Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """What the owner wrote down: `site.yaml` as it was at the start, the agents' files as they are (`folder.py`).

    Args:
        site: the owner's `site.yaml`.
        agents: by name.
        doubled: names that two files declare, with what to do: such an agent has no permissions, all others go on.
        paths: by name, which file declares it.
    """

    site: Site
    agents: dict[str, AgentDefinition]
    doubled: dict[str, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def read(cls, site_file: Path, agents_folder: Path) -> "Owner":
        """Return what the files say.

        Raises:
            ConfigurationError: a file is missing or wrong; it is named with field and remedy.
        """
        site, files = load_site(site_file), agent_files(agents_folder)
        for problem in files.wrong.values():
            raise ConfigurationError(problem)
        for problem in files.doubled.values():
            log.error("%s: until then this agent has no permissions", problem)
        return cls(site, files.agents, files.doubled, files.paths)

    def take_over(self, agents: Mapping[str, AgentDefinition], doubled: Mapping[str, str]) -> None:
        """Have what the agents' files say now count from here on."""
        self.agents.clear()  # in place: others hold it
        self.agents.update(agents)
        self.doubled.clear()
        self.doubled.update(doubled)

    def rules(self, devices: DeviceCache) -> Rules:
        """Return what the gate judges by now."""
        return Rules(self.site, self.agents, devices.devices_by_name, devices.profiles_by_name)

    def is_safety(self, agent: str) -> bool:
        """Say whether an agent's commands are for safety, by its file."""
        definition = self.agents.get(agent)
        return definition is not None and definition.priority == "safety"

    @property
    def rates(self) -> list[Rate]:
        """All rate limits of all agents."""
        return [entry.rate for agent in self.agents.values() for entry in agent.may if entry.rate is not None]

    @property
    def longest_s(self) -> float:
        """How far back, in site seconds, past commands count for a rate or a minimum time."""
        times = [max(rule.minimum_interval, rule.minimum_on, rule.minimum_off) for rule in self.site.resources]
        return max([*times, *(rate.per for rate in self.rates)], default=0.0)

    @property
    def most_sets(self) -> int:
        """How many past commands of one resource count for a rate, of all agents together."""
        counts = [
            max((entry.rate.count for entry in agent.may if entry.rate), default=0) for agent in self.agents.values()
        ]
        return sum(counts)

    def problem(self, agent: str, devices: DeviceCache) -> str:
        """Return why an agent gets no session; empty when it does."""
        definition = self.agents.get(agent)
        if agent in self.doubled:
            return self.doubled[agent]
        if definition is None:
            return f"no agent file declares {agent!r}: add it to the guard's agents folder"
        return "; ".join(file_problems(definition, devices.devices_by_name, devices.profiles_by_name))

    def site_problems(self, devices: DeviceCache) -> list[str]:
        """Return what in `site.yaml` cannot work with the devices there are; the gate refuses what it is about."""
        problems = site_problems(self.site, devices.devices_by_name, devices.profiles_by_name)
        for index, rule in enumerate(self.site.resources):
            unknown = sorted(set(rule.affected) - self.agents.keys() - self.doubled.keys())
            if unknown:
                names = ", ".join(unknown)
                problems.append(f"resources[{index}]: affected: no agent file declares {names}: it never consents")
        return problems

    def part_of(self, agent: str, devices: DeviceCache, names: Collection[str] | None = None) -> tuple[SiteEntry, ...]:
        """Return what `site.yaml` says on the resources an agent may command; of devices with these names, if given."""
        definition, known = self.agents[agent], devices.devices_by_name
        looked = known.values() if names is None else [known[name] for name in names if name in known]
        found: dict[tuple[str, str], SiteEntry] = {}
        for permission in definition.may:
            for device in looked:
                rule = self.site.rule_for(device, permission.resource) if permission.fits(device) else None
                if rule is not None:
                    found[device.name, permission.resource] = SiteEntry(
                        device=device.name,
                        resource=permission.resource,
                        risk_class=rule.risk_class,
                        kind=rule.kind,
                        minimum_interval_s=rule.minimum_interval,
                        approval_wait_s=rule.approval_wait,
                    )
        return tuple(found.values())

    def may_hold(self, agent: str, device: str, resource: str, devices: DeviceCache) -> str:
        """Return why an agent cannot hold the lease of a resource; empty when it can."""
        definition = self.agents.get(agent)
        known = devices.device(device)
        if definition is None or known is None:
            return f"no agent {agent!r}" if definition is None else f"core-metadata knows no device {device!r}"
        if definition.mode != "act":
            return f"agent {agent!r} is in mode observe"
        if not any(entry.resource == resource and entry.fits(known) for entry in definition.may):
            return f"agent {agent!r} has no permission for {device}/{resource}"
        return ""
