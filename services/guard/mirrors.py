"""Copies of streams between gateways, brought to what the owner's `gateways.yaml` says when the guard starts.

The guard owns the streams, so it offers copies of them, and keeps those of peers. The broker does the copying.

Source: design.md section 7; docs/gateways.md.
"""

import asyncio
import logging
from typing import Final

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.mirrors import keep_copies, offer_copies
from edgeagents.errors import UnavailableError
from edgeagents.model.gateways import Gateways

log = logging.getLogger(__name__)

AGAIN_S: Final = 10.0


async def keep_mirrors(bus: Bus, gateways: Gateways, again_s: float = AGAIN_S) -> None:
    """Offer and keep the copies that the owner wants; a broker that refuses is told of once and asked again."""
    told = ""
    while True:
        try:
            offered, kept = await offer_copies(bus, gateways), await keep_copies(bus, gateways)
        except UnavailableError as error:
            if str(error) != told:
                told = str(error)
                log.warning("copies of streams between gateways: %s: it is tried again", error)
            await asyncio.sleep(again_s)
            continue
        if offered or kept:
            log.info("copies of streams: fed %s; kept %s", ", ".join(offered) or "none", ", ".join(kept) or "none")
        return
