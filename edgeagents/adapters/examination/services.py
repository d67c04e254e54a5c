"""One look at guard and agents: what they show over HTTP, and who answers by their names on the broker.

Source: design.md section 2; NATS ADR-32.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.keeper import KeeperClient, Registration
from edgeagents.adapters.micro import instances
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.errors import EdgeAgentsError, UnavailableError
from edgeagents.protocol.diagnosis.services import AgentFacts, GuardFacts
from edgeagents.settings import BusSettings

SLOW_S: Final = 3.0  # for those that did not answer at once


def agent_key(name: str) -> str:
    """Return an agent's service key in EdgeX."""
    return f"app-agent-{name}"


async def look_at_guard(http: httpx.AsyncClient, url: str) -> GuardFacts:
    """Return what the guard shows of itself."""
    try:
        return GuardFacts(url, state=await _state(Rest("guard", FixedAddress(url), http), "/api/v3/guard"))
    except EdgeAgentsError as error:
        return GuardFacts(url, str(error))


async def look_at_agents(
    http: httpx.AsyncClient, keeper_url: str, names: Sequence[str], settings: BusSettings | None
) -> list[AgentFacts]:
    """Return what each agent shows of itself; `settings` None: the broker is not asked who is there."""
    keeper = KeeperClient(keeper_url, http)
    try:
        known = {item.service_id: item for item in await keeper.registrations()}
    except EdgeAgentsError as error:
        return [AgentFacts(name, keeper_url, f"its address is not known: {error}") for name in names]
    counts = await _instances(names, settings)
    return list(
        await asyncio.gather(*(_agent(http, name, known.get(agent_key(name)), counts.get(name)) for name in names))
    )


async def _agent(http: httpx.AsyncClient, name: str, known: Registration | None, count: int | None) -> AgentFacts:
    if known is None:
        return AgentFacts(name, instances=count)
    try:
        state = await _state(Rest(known.service_id, FixedAddress(known.base_url), http), "/api/v3/agent")
    except EdgeAgentsError as error:
        return AgentFacts(name, known.base_url, str(error), instances=count)
    return AgentFacts(name, known.base_url, state=state, instances=count)


async def _state(rest: Rest, path: str) -> dict[str, object]:
    answer = await rest.call("GET", path, timeout_s=3.0)
    if not isinstance(answer, dict):
        raise UnavailableError(f"{rest.name}: {path} is no JSON object: is it ours?")
    return answer


async def _instances(names: Sequence[str], settings: BusSettings | None) -> dict[str, int]:
    """Return how many processes answer by each agent's name; empty when the broker does not let us ask."""
    if settings is None:
        return {}
    try:
        bus = await Bus.connect(settings, "edgeagents-doctor")
    except EdgeAgentsError:
        return {}
    try:
        found = await instances(bus, [agent_key(name) for name in names])
        slow = [key for key, there in found.items() if not there]
        if slow:
            found |= await instances(bus, slow, SLOW_S)
    except EdgeAgentsError:
        return {}
    finally:
        await bus.close()
    return {name: len(found[agent_key(name)]) for name in names}
