"""One look at the owner's files, beside what core-metadata knows.

Source: docs/agents.md, docs/site.md.
"""

import asyncio
from pathlib import Path
from typing import Final

import httpx

from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.files import AgentFiles, agent_files, load_site
from edgeagents.adapters.keeper import KeeperClient, RegistryAddress
from edgeagents.adapters.rest import Rest
from edgeagents.errors import ConfigurationError, EdgeAgentsError
from edgeagents.model.device import Device, Profile
from edgeagents.model.site import Site
from edgeagents.protocol.diagnosis.files import FileFacts

ALL_S: Final = 8.0  # for all pages of all devices and profiles


async def look_at_files(http: httpx.AsyncClient, keeper_url: str, site_file: Path, agents_dir: Path) -> FileFacts:
    """Return what the files say, and the devices and profiles there are."""
    (files, folder_problem), (site, site_problem) = await asyncio.to_thread(_read, site_file, agents_dir)
    problems = [*folder_problem, *files.wrong.values(), *files.doubled.values()]
    devices, profiles = await known_devices(http, keeper_url)
    return FileFacts(files.agents, tuple(problems), site, site_problem, devices, profiles)


def _read(site_file: Path, agents_dir: Path) -> tuple[tuple[AgentFiles, list[str]], tuple[Site | None, str]]:
    found: tuple[AgentFiles, list[str]]
    try:
        found = agent_files(agents_dir), []
    except ConfigurationError as error:
        found = AgentFiles({}, {}, {}, {}), [str(error)]
    try:
        return found, (load_site(site_file), "")
    except ConfigurationError as error:
        return found, (None, str(error))


async def known_devices(
    http: httpx.AsyncClient, keeper_url: str
) -> tuple[dict[str, Device] | None, dict[str, Profile]]:
    """Return core-metadata's devices and profiles by name; None when it does not tell."""
    metadata = MetadataClient(
        Rest("core-metadata", RegistryAddress(KeeperClient(keeper_url, http), "core-metadata"), http)
    )
    try:
        async with asyncio.timeout(ALL_S):
            devices, profiles = await asyncio.gather(metadata.devices(), metadata.profiles())
    except (EdgeAgentsError, TimeoutError):
        return None, {}
    return {item.name: item for item in devices}, {item.name: item for item in profiles}
