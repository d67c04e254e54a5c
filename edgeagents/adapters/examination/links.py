"""One look at the links to other gateways, through the broker, which knows which of them are up.

Source: NATS monitoring (`leafz`), JetStream wire API (ADR-8).
"""

import json
from pathlib import Path
from typing import Any

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.leaf_nodes import LINKS, account_of, gateways_if_any
from edgeagents.errors import ConfigurationError, EdgeAgentsError, UnavailableError
from edgeagents.model.gateways import Gateways
from edgeagents.protocol.diagnosis.links import CopyFacts, LinkFacts, LinksFacts
from edgeagents.protocol.diagnosis.shapes import items, mapping, whole
from edgeagents.settings import BusSettings

ANSWER_S = 3.0
CLIENT = "edgeagents-doctor"


async def look_at_links(settings: BusSettings, gateways_file: Path | None) -> LinksFacts:
    """Return how the links of a gateway stand; nothing for one without the file."""
    try:
        gateways = gateways_if_any(gateways_file, settings.gateway)
    except ConfigurationError as error:
        return LinksFacts(problem=str(error))
    if gateways is None:
        return LinksFacts()
    try:
        bus = await Bus.connect(settings, CLIENT)
    except EdgeAgentsError as error:
        return LinksFacts(gateways, silent=str(error))
    try:
        return LinksFacts(gateways, links=await _links(bus, gateways), copies=await _copies(bus, gateways))
    except UnavailableError as error:
        return LinksFacts(gateways, silent=str(error))
    finally:
        await bus.close()


async def _links(bus: Bus, gateways: Gateways) -> dict[str, LinkFacts]:
    body = await _asked(bus, LINKS)
    by_account = {str(row.get("account")): row for row in items(mapping(body.get("data")).get("leafs"))}
    found = {name: by_account.get(account_of(name)) for name in gateways.peers}
    return {
        name: LinkFacts(str(row.get("rtt", "")), whole(row.get("in_msgs")), whole(row.get("out_msgs")))
        for name, row in found.items()
        if row is not None
    }


async def _copies(bus: Bus, gateways: Gateways) -> dict[str, CopyFacts]:
    names = [subjects.mirror_stream(stream, peer) for peer, found in gateways.peers.items() for stream in found.keeps]
    return {name: _copy(await _asked(bus, f"$JS.API.STREAM.INFO.{name}")) for name in names}


def _copy(body: dict[str, Any]) -> CopyFacts:
    mirror = mapping(body.get("mirror"))
    problem = mapping(body.get("error") or mirror.get("error")).get("description", "")
    return CopyFacts(whole(mapping(body.get("state")).get("messages")), whole(mirror.get("lag")), str(problem))


async def _asked(bus: Bus, subject: str) -> dict[str, Any]:
    answer = await bus.request(subject, b"", timeout_s=ANSWER_S)
    try:
        body = json.loads(answer.data)
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{subject}: no JSON came back") from error
    return body if isinstance(body, dict) else {}
