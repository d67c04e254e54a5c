"""One look at coordinator and language model: what they show over HTTP, and whether keeper knows of them.

Source: docs/tasks.md, docs/inference.md.
"""

import httpx

from edgeagents.adapters.keeper import KeeperClient
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.errors import EdgeAgentsError
from edgeagents.permissions import BEHIND_DOOR
from edgeagents.protocol.diagnosis.together import SharedFacts

WAIT_S = 3.0


async def look_at_shared(http: httpx.AsyncClient, name: str, url: str, keeper_url: str) -> SharedFacts:
    """Return what `coordinator` or `inference` shows at an address."""
    base = url.rstrip("/")
    try:
        answer = await Rest(name, FixedAddress(base), http).call("GET", f"/api/v3/{name}", timeout_s=WAIT_S)
    except EdgeAgentsError as error:
        return SharedFacts(base, str(error), is_known=await _is_known(http, BEHIND_DOOR[name], keeper_url))
    if not isinstance(answer, dict):
        return SharedFacts(base, f"{name} at {base}: answers with no JSON object: is it ours?", is_known=True)
    return SharedFacts(base, state=answer, is_known=True)


async def _is_known(http: httpx.AsyncClient, key: str, keeper_url: str) -> bool:
    try:
        return any(item.service_id == key for item in await KeeperClient(keeper_url, http).registrations())
    except EdgeAgentsError:
        return False
