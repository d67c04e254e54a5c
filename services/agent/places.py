"""Whose tasks take which of an agent's places, and make it busier for whom. Pure.

What agents lead is bounded for all of them together, for each alone, and in time: who asks for much and then goes away,
or was stolen, keeps nobody else from us for long, and the coordinator not at all.

Source: docs/leading.md ("Who goes away").
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from edgeagents.protocol import contract_net_participant as participant
from edgeagents.subjects import COORDINATOR

MOST_CONVERSATIONS: Final = 512  # of the coordinator's; further calls are not answered: it asks others
MOST_OF_PEERS: Final = 128  # of all agents that lead together, beside the coordinator's
MOST_OF_ONE: Final = 64  # of one agent that leads
QUIET_S: Final = 20.0  # bids have 1 s, taking 5 s: an agent that leads and says nothing for so long does so no more


def room_problem(leader: str, held: Iterable[str]) -> str:
    """Return why no further conversation of a leader is begun; empty when it is.

    Args:
        leader: who calls.
        held: who leads each conversation that is remembered.
    """
    counts = Counter(held)
    if leader == COORDINATOR:
        return "no room" if counts[COORDINATOR] >= MOST_CONVERSATIONS else ""
    if counts[leader] >= MOST_OF_ONE:
        return f"no room: {counts[leader]} tasks of {leader} are remembered here"
    of_peers = counts.total() - counts[COORDINATOR]
    return f"no room: {of_peers} tasks that agents lead are remembered here" if of_peers >= MOST_OF_PEERS else ""


def makes_busier(state: participant.State, leader: str, who_asks: str) -> bool:
    """Say whether a task counts as load in a bid: what agents lead never for the coordinator.

    What was awarded and is not taken yet counts for who leads it alone, and the coordinator's for everybody.

    Args:
        state: of the task's conversation.
        leader: who leads it.
        who_asks: who is to get the bid.
    """
    if who_asks == COORDINATOR != leader:
        return False
    is_near = leader in (who_asks, COORDINATOR)
    return isinstance(state, participant.Performing) or (is_near and isinstance(state, participant.Taking))
