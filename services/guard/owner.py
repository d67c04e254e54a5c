"""The owner's files together with core-metadata: what the gate judges by, and what each agent is told of it.

The guard takes permissions, interlocks and risk classes from read-only files, never from keeper or a message.

Source: design.md sections 2 and 3.8.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.files import agent_files, load_site
from edgeagents.errors import ConfigurationError
from edgeagents.model.agent import AgentDefinition, Rate
from edgeagents.model.message import SiteEntry
from edgeagents.model.site import Site
from edgeagents.protocol.fitting import file_problems, site_problems
from edgeagents.protocol.gate import Rules
from services.guard.streams import DAY_S

log = logging.getLogger(__name__)

MOST_TOLD_CHARS: Final = 300  # of what is wrong with a file, to its agent
UNREAD: Final = "until then its agent has no permissions"


@dataclass(frozen=True, slots=True)
class Owner:
    """What the owner wrote down: `site.yaml` as it was at the start, the agents' files as they are (`folder.py`).

    Args:
        site: the owner's `site.yaml`.
        agents: by name.
        doubled: names that two files declare, with what to do: such an agent has no permissions, all others go on.
        paths: by name, which file declares it.
        unread: files of which nobody knows what they say, with what is wrong: they give nobody anything, and what may
            hang on them goes the safe way.
    """

    site: Site
    agents: dict[str, AgentDefinition]
    doubled: dict[str, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    unread: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def read(cls, site_file: Path, agents_folder: Path) -> "Owner":
        """Return what the files say; an agent file that is wrong keeps its own agent out, and no other.

        Raises:
            ConfigurationError: `site.yaml` is missing or wrong, there is no folder, or no agent file in it is right; it
                is named with field and remedy.
        """
        site, files = load_site(site_file), agent_files(agents_folder)
        for problem in files.wrong.values():
            if not files.agents:
                raise ConfigurationError(problem)
            log.error("%s: %s", problem, UNREAD)
        for problem in files.doubled.values():
            log.error("%s: until then this agent has no permissions", problem)
        return cls(site, files.agents, files.doubled, files.paths, files.wrong)

    def take_over(
        self, agents: Mapping[str, AgentDefinition], doubled: Mapping[str, str], unread: Mapping[Path, str]
    ) -> None:
        """Have what the agents' files say now count from here on."""
        self.agents.clear()  # in place: others hold it
        self.agents.update(agents)
        self.doubled.clear()
        self.doubled.update(doubled)
        self.unread.clear()
        self.unread.update(unread)

    def rules(self, devices: DeviceCache) -> Rules:
        """Return what the gate judges by now."""
        return Rules(
            self.site, self.agents, devices.devices_by_name, devices.profiles_by_name, has_unread=bool(self.unread)
        )

    def may_have_file(self, agent: str) -> bool:
        """Say whether an agent that does not count may still have a file, only that nobody knows what it says."""
        return agent in self.doubled or (agent not in self.agents and bool(self.unread))

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
    def keeps_s(self) -> float:
        """How far back past commands have to be kept, in site seconds: a rate may look at them that counts tomorrow.

        A day at least, for files that come; without end while one cannot be read, whose rates may look back as far.
        """
        return math.inf if self.unread else max(self.longest_s, DAY_S)

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
            return self._absence(agent)
        return "; ".join(file_problems(definition, devices.devices_by_name, devices.profiles_by_name))

    def _absence(self, agent: str) -> str:
        """Return why an agent does not count: the file of its name is wrong, no other agent is told of one."""
        for path, problem in self.unread.items():
            if path.stem == agent:
                return f"{problem[:MOST_TOLD_CHARS]}: {UNREAD}"
        if self.unread:
            return f"no agent file that can be read declares {agent!r}: the guard's log says which one is wrong"
        return f"no agent file declares {agent!r}: add it to the guard's agents folder"

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
        if known is None:
            devices.miss()  # the next request may find it
        if definition is None or known is None:
            return f"no agent {agent!r}" if definition is None else f"core-metadata knows no device {device!r}"
        if definition.mode != "act":
            return f"agent {agent!r} is in mode observe"
        if not any(entry.resource == resource and entry.fits(known) for entry in definition.may):
            return f"agent {agent!r} has no permission for {device}/{resource}"
        return ""
