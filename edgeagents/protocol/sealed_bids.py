"""The rules of sealed bids: on which terms one may call, what counts as a bid, which is the best, and its price.

Leaves out who says what when: `contract_net.py`.

Source: FIPA SC00029H; Vickrey 1961 for the price.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from edgeagents.model.cooperation import CallForProposals
from edgeagents.protocol.conversation import Heard, RefusalCause, is_duration, is_time

MOST_COST: Final = 1e9


@dataclass(frozen=True, slots=True)
class Terms:
    """What is called for.

    Args:
        call: the task; its name is the conversation's, too.
        invited: who may bid.
        bid_s: how long bids may take.
        take_s: how long the winner may take to take it.
        deadline_s: when all is over, on the initiator's clock.
        reserve: the most that it may cost; a higher bid is none.
    """

    call: CallForProposals
    invited: tuple[str, ...]
    bid_s: float
    take_s: float
    deadline_s: float
    reserve: float = MOST_COST


def terms_problem(terms: Terms) -> str | None:
    """Return why nothing can be called for on such terms, None when it can."""
    for name, value in (("bid_s", terms.bid_s), ("take_s", terms.take_s)):
        if not is_duration(value):
            return f"{name} of {terms.call.task!r} is {value}: a time above 0, a day at most"
    if not is_time(terms.deadline_s):
        return f"the deadline of {terms.call.task!r} is {terms.deadline_s}: no time"
    if not 0 <= terms.reserve <= MOST_COST:
        return f"the reserve of {terms.call.task!r} is {terms.reserve}: from 0 to {MOST_COST:g}"
    return None


def bid_problem(
    heard: Heard, asked: Set[str], epoch: int, until_s: float, *, is_repeated: bool
) -> tuple[RefusalCause, str] | None:
    """Return why an act is no answer to a call, None when it is one.

    Args:
        heard: what came in, of somebody who is invited.
        asked: who may still give a bid.
        epoch: of the call.
        until_s: when bids are closed.
        is_repeated: its sender has given a bid, or refused.
    """
    said, sender = heard.act, heard.sender
    if sender not in asked:
        return "not-allowed", f"{sender!r} gave an award back, or let it pass: it is not called again"
    if is_repeated:
        return "repeated", f"{sender!r} has answered already: the first word counts"
    if heard.now_s > until_s:
        return "late", f"it came {heard.now_s - until_s:.3f} s after bids were closed"
    if said.performative == "refuse":
        return None
    if said.performative != "propose":
        return "out-of-turn", f"{said.performative} is no answer to a call for proposals"
    if said.bid is None:
        return "no-content", "a proposal without a bid"
    if said.bid.epoch != epoch:
        return "stale-epoch", f"a bid for epoch {said.bid.epoch}, this is epoch {epoch}"
    if not 0 <= said.bid.cost <= MOST_COST:
        return "no-number", f"{said.bid.cost} is no cost"
    return None


def ranked(bids: Mapping[str, float], reserve: float) -> list[tuple[float, str]]:
    """Return the bids that are not above the reserve, the best first; the name breaks ties, same everywhere."""
    return sorted((cost, agent) for agent, cost in bids.items() if cost <= reserve)


def price_of(order: list[tuple[float, str]], reserve: float) -> float:
    """Return what the first of some ranked bids is credited: the second best cost, the reserve when there is none."""
    return order[1][0] if len(order) > 1 else reserve
