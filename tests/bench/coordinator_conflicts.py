"""How soon a conflict of 2 to 5 agents is settled over a real broker: from the question to the last party's answer."""

import asyncio
import contextlib
import time
from typing import Any, Final

from tests.coordinated import Owner
from tests.disputants import Disputant, PlayedGuard

PARTIES: Final = ("n1", "n2", "n3", "n4", "n5")
CLASSES: Final = dict.fromkeys(PARTIES, "comfort")
VALVES: Final = 9
PACE_S: Final = 0.12  # each asks in turn, none more often than the mediator lets it
THRIFTY: Final = {"19": 0.9, "20": 0.8, "21": 0.5, "22": 0.1}
WARM: Final = {"19": 0.3, "20": 0.6, "21": 0.8, "22": 0.9}


async def settled(owner: Owner, conflicts: int) -> dict[str, Any]:
    """Return p50 and p99 of the time to settle a conflict, milliseconds, by the number of its parties."""
    async with contextlib.AsyncExitStack() as stack:
        agents: list[Disputant] = []
        guard = await PlayedGuard(owner.bus, agents).start()
        stack.push_async_callback(guard.die)
        for number, name in enumerate(PARTIES):
            worth, way = (THRIFTY, "19") if number % 2 else (WARM, "22")
            agents.append(await Disputant(owner.bus, name, worth, way).start())
            stack.push_async_callback(agents[-1].die)
        await owner.bus.flush()
        return {str(count): await _times(agents, count, conflicts) for count in range(2, len(PARTIES) + 1)}


async def _times(agents: list[Disputant], count: int, conflicts: int) -> dict[str, float]:
    took_ms: list[float] = []
    for number in range(conflicts):
        parties = [agents[(number + place) % len(agents)] for place in range(count)]
        parties[1].holds = True
        began_s = time.monotonic()
        key = (f"valve-{1 + number % VALVES}", "Setpoint")
        told = await parties[0].file(*(agent.name for agent in parties[1:]), key=key)
        assert told.conversation, told.problem
        for agent in parties:
            settlement = await agent.end_of(told.conversation)
            assert settlement.winner, agent.reasons[told.conversation]
        took_ms.append(1e3 * (max(agent.settled_s[told.conversation] for agent in parties) - began_s))
        parties[1].holds = False
        await asyncio.sleep(max(0.0, PACE_S - (time.monotonic() - began_s)))
    took_ms.sort()
    return {
        "conflicts": conflicts, "p50_ms": round(took_ms[len(took_ms) // 2], 1),
        "p99_ms": round(took_ms[int(0.99 * (len(took_ms) - 1))], 1),
    }  # fmt: skip
