"""One look at EdgeX: keeper and the core services it knows, what they are, which version, and what time it is there.

Source: edgex-wire.md sections 3.1, 3.2 and 4.
"""

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from edgeagents.adapters.answers import whole_answer
from edgeagents.adapters.config import READY, parse_bool
from edgeagents.adapters.keeper import KeeperClient, Registration
from edgeagents.errors import EdgeAgentsError, NotFoundError, UpstreamError
from edgeagents.protocol.diagnosis.edgex import CORE, ServiceFacts
from edgeagents.protocol.diagnosis.machine import apart_s

LOOK_S: Final = 5.0  # for ping and version together
MOST_BYTES: Final = 1 << 20  # of either answer: they are some hundred bytes


async def look_at_service(http: httpx.AsyncClient, key: str, url: str, registry: str | None = None) -> ServiceFacts:
    """Return what answers at an address, asked as EdgeX services are asked: ping, then version."""
    base = url.rstrip("/")
    try:
        async with asyncio.timeout(LOOK_S):  # httpx counts each read anew: one byte a second would go on for ever
            began_s = time.time()
            ping = await _got(http, f"{base}/api/v3/ping")
            ahead_s = _ahead_s(ping, began_s, time.time())
            version = await _got(http, f"{base}/api/v3/version")
    except TimeoutError:
        return ServiceFacts(key, base, "away", f"{key} at {base}: no whole answer in {LOOK_S:g} s", registry=registry)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        text = f"{key} at {base}: {str(error) or type(error).__name__}"
        return ServiceFacts(key, base, "away", text, registry=registry)
    except UpstreamError as error:
        return ServiceFacts(key, base, "other", f"{key}: {error}", registry=registry)
    if ping.status_code in (401, 403):
        return ServiceFacts(key, base, "token", f"asks for a token ({ping.status_code})", "", ahead_s, registry)
    name, answer = _json(ping).get("serviceName"), _json(version)
    if not ping.is_success or name != key:
        return ServiceFacts(key, base, "other", f"{key}: {_other(ping, name)}", "", ahead_s, registry)
    said = answer.get("version")
    return ServiceFacts(key, base, "up", "", said if isinstance(said, str) else "", ahead_s, registry)


async def _got(http: httpx.AsyncClient, url: str) -> httpx.Response:
    return await whole_answer(http, http.build_request("GET", url, timeout=3.0), url, MOST_BYTES)


def _other(ping: httpx.Response, name: object) -> str:
    """Return what answers in a service's place."""
    if isinstance(name, str) and name:
        return f"{name} answers there"
    if ping.is_success:
        return "what answers does not say which service it is, as every EdgeX service does"
    return f"answers with status {ping.status_code}, as no EdgeX service does"


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _ahead_s(answer: httpx.Response, began_s: float, ended_s: float) -> float | None:
    """Return how far the clock behind an answer is ahead of ours at least; its Date tells whole seconds, cut off."""
    try:
        there_s = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return apart_s(there_s, began_s, ended_s, 1.0)


async def look_at_keeper(http: httpx.AsyncClient, url: str) -> tuple[ServiceFacts, bool | None]:
    """Return how keeper answers, and whether it has the common configuration; None where it does not say."""
    facts = await look_at_service(http, "core-keeper", url)
    if facts.state != "up":
        return facts, None
    try:
        said = (await KeeperClient(url, http).get(READY)).get(READY, "")
        return facts, parse_bool(said)
    except (NotFoundError, ValueError):
        return facts, False
    except EdgeAgentsError:
        return facts, None


async def look_at_core(http: httpx.AsyncClient, keeper_url: str) -> list[ServiceFacts]:
    """Return how each core service answers, found by keeper's registry."""
    keeper = KeeperClient(keeper_url, http)
    try:
        known = {item.service_id: item for item in await keeper.registrations(halted=True)}
    except EdgeAgentsError:
        return [ServiceFacts(key) for key in CORE]
    return list(await asyncio.gather(*(_core(http, key, known.get(key)) for key in CORE)))


async def _core(http: httpx.AsyncClient, key: str, known: Registration | None) -> ServiceFacts:
    if known is None or known.status == "HALT":
        return ServiceFacts(key, registry=known.status if known is not None else "")
    return await look_at_service(http, key, known.base_url, known.status or "UNKNOWN")
