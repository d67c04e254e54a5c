"""The folder of agent files while the guard runs: a new, changed or removed file counts some seconds later.

Looked at every `LOOK_S`, and read once it has kept still for one look, so that a file that is being written is not
taken for a wrong one. The checks are those of the start. A file that cannot be read leaves in force what it said
before, which is logged once and shown on the guard's page, where `doctor` finds it; where that is not known, since it
was wrong when the guard started, it gives nobody anything. Who may command no longer loses its leases. The broker's
users are not made here: they are `edgeagents credentials`' business.

Source: design.md sections 2 and 3.8.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.files import AgentFiles, Looks, agent_files, looks_of
from edgeagents.errors import ConfigurationError, StoreError, UnavailableError
from edgeagents.model.agent import AgentDefinition
from services.guard.jobs import Means
from services.guard.owner import UNREAD, Owner
from services.guard.streams import fit_streams

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Known:
    """What counts of the agent files.

    Args:
        agents: by name, as written.
        paths: by name, where; also of a file that is wrong now and does not count.
        doubled: names that two files declare, with what to do: neither counts.
        wrong: files that cannot be read, with what is wrong; what they said before counts on.
        unread: those of them of which nobody knows what they say, or whether it counts.
        rivals: by name, all files that declare it, or did before they were wrong, where they are several.
    """

    agents: Mapping[str, AgentDefinition]
    paths: Mapping[str, Path]
    doubled: Mapping[str, str] = field(default_factory=dict)
    wrong: Mapping[Path, str] = field(default_factory=dict)
    unread: Mapping[Path, str] = field(default_factory=dict)
    rivals: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """Names of agents that are new, that say something else, and that are gone."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.added or self.changed or self.removed)


def taken_in(known: Known, found: AgentFiles) -> tuple[Known, Change]:
    """Return what counts once a folder was read again, and what is different about it."""
    agents, paths, doubled = dict(found.agents), dict(found.paths), dict(found.doubled)
    rivals = {name: set(several) for name, several in found.rivals.items()}
    claims = {(name, path) for name, path in known.paths.items()}
    claims |= {(name, path) for name, several in known.rivals.items() for path in several}
    for name, path in sorted(claims):
        if path not in found.wrong:
            continue
        rivals.setdefault(name, {paths[name]} if name in paths else set()).add(path)
        if name in agents:
            # What is wrong may be a moment's: until the owner mends or removes it, nobody knows which one is meant.
            doubled[name] = (
                f"{path} declared agent {name!r} and is wrong now, {paths[name]} declares it: keep one of them"
            )
            del agents[name]
        elif name in known.agents and name not in doubled:
            agents[name] = known.agents[name]
        paths[name] = path  # at the next look, too
    counted = {paths[name] for name in agents}
    unread = {path: problem for path, problem in found.wrong.items() if path not in counted}
    change = Change(
        tuple(sorted(agents.keys() - known.agents.keys())),
        tuple(sorted(name for name in agents.keys() & known.agents.keys() if agents[name] != known.agents[name])),
        tuple(sorted(known.agents.keys() - agents.keys())),
    )
    several = {name: tuple(sorted(which)) for name, which in rivals.items() if len(which) > 1}
    return Known(agents, paths, doubled, found.wrong, unread, several), change


class AgentFolder:
    """Watches the folder; `on_change` has what counts now take effect."""

    def __init__(self, folder: Path, known: Known, on_change: Callable[[Known, Change], Awaitable[None]]) -> None:
        """Begin with what was read at the start."""
        self._folder = folder
        self._on_change = on_change
        self.known = known

    async def run(self) -> None:
        """Watch for ever."""
        seen: Looks | None = None
        read: Looks | None = None
        while True:
            looks = await asyncio.to_thread(looks_of, self._folder)
            if looks == seen and looks != read:
                read = looks
                await self._read()
            seen = looks
            await asyncio.sleep(LOOK_S)

    async def _read(self) -> None:
        try:
            found = await asyncio.to_thread(agent_files, self._folder)
            if self.known.agents and not (found.agents or found.doubled or found.wrong):
                raise ConfigurationError(f"{self._folder}: no agent file at all: is the volume mounted?")
        except ConfigurationError as error:
            # A volume that is not mounted is not the owner's word that there are no agents.
            known = replace(self.known, wrong={self._folder: str(error)})
            change = Change()
        else:
            known, change = taken_in(self.known, found)
        for path, problem in known.wrong.items():
            if self.known.wrong.get(path) != problem:
                is_unread = path in known.unread
                log.error("%s: %s", problem, UNREAD if is_unread else "what was known before counts on")
        for name, problem in known.doubled.items():
            if self.known.doubled.get(name) != problem:
                log.error("%s: until then this agent has no permissions", problem)
        self.known = known
        if change:
            log.warning("agent files: added %s, changed %s, removed %s", *map(_listed, _parts(change)))
        await self._on_change(known, change)


def _parts(change: Change) -> tuple[tuple[str, ...], ...]:
    return change.added, change.changed, change.removed


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


async def have_effect(means: Means, bus: Bus, known: Known, change: Change) -> None:
    """Have what the agents' files say now count in the guard: permissions, modes, leases, streams."""
    owner, wanted = means.owner, Owner(means.owner.site, dict(known.agents))
    if wanted.longest_s > owner.longest_s or wanted.most_sets > owner.most_sets:
        # First: a rate that looks further back must not find an empty past.
        since_s = means.clocks.site() - wanted.longest_s
        rows = await means.on_disk(lambda: list(means.ledger.past_sets(since_s)))
        means.picture.widen(rows, means.devices, wanted.most_sets)
    owner.take_over(known.agents, known.doubled, known.unread)
    means.desk.judge_anew()
    try:
        await means.orders.take_over()
    except StoreError as error:
        log.error("agent files: %s", error)
    await means.desk.end_unpermitted()
    try:
        await fit_streams(bus, len(known.agents) + len(known.unread))  # nothing of theirs goes for want of room
    except UnavailableError as error:
        log.error("agent files: %s", error)
    if change:
        means.audit.append("agent-files", added=change.added, changed=change.changed, removed=change.removed)
    for name in (*change.added, *change.changed):
        await means.desk.call(name)
