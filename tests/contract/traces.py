"""What a run leaves in an EdgeX, and its removal: whatever holds the run's word in its name, nothing else."""

from collections.abc import AsyncIterator
from typing import Any

from edgeagents.errors import NotFoundError
from tests.contract.edgex import Edgex

_PAGE = 200
_CONFIGURATION = "edgex/v4"


async def found(edgex: Edgex, word: str) -> dict[str, list[str]]:
    """Return the names that hold a word, by kind; in the order in which they can be removed."""
    registered = [item.service_id for item in await edgex.keeper.registrations(halted=True)]
    return {
        "device": [item async for item in _names(edgex, "/device/all", "devices", word)],
        "deviceprofile": [item async for item in _names(edgex, "/deviceprofile/all", "profiles", word)],
        "deviceservice": [item async for item in _names(edgex, "/deviceservice/all", "services", word)],
        "registration": [name for name in registered if word in name],
        "key": await _keys(edgex, word),
    }  # fmt: skip


async def remove(edgex: Edgex, word: str) -> None:
    """Remove everything whose name holds a word, and the events of devices of such names."""
    traces = await found(edgex, word)
    for kind in ("device", "device", "deviceprofile", "deviceservice"):  # twice: a parent goes after its children
        for name in traces[kind]:
            await edgex.ask("core-metadata", "DELETE", f"/{kind}/name/{name}")
    for name in traces["registration"]:
        await edgex.keeper.remove(name)
    for key in traces["key"]:
        await edgex.keeper.delete(key)
    for name in edgex.names:
        if word in name and await edgex.data.event_count(name):
            await edgex.ask("core-data", "DELETE", f"/event/device/name/{name}")


async def _names(edgex: Edgex, path: str, list_key: str, word: str) -> AsyncIterator[str]:
    offset, total = 0, 1
    while offset < total:
        page: Any = (
            await edgex.ask("core-metadata", "GET", path, query={"offset": str(offset), "limit": str(_PAGE)})
        ).body
        total = page["totalCount"]
        for item in page[list_key] or []:
            if word in item["name"]:
                yield item["name"]
        offset += _PAGE


async def _keys(edgex: Edgex, word: str) -> list[str]:
    try:
        keys = await edgex.keeper.keys(_CONFIGURATION)
    except NotFoundError:
        return []
    # Children before parents: a key that others lie below is not removed alone.
    return sorted((key for key in keys if word in key), key=len, reverse=True)
