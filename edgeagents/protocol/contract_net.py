"""Contract net, the initiator's side: call for proposals, sealed bids, award, report.

    Calling  -> Awarding -> Awarded -> Working -> Closed
       ^           |           |
       +-----------+-----------+      the winner gave no sign, or gave it back: call again, without it

Bids are closed early, once all invited have answered. The best bid wins and is credited what the second best would
have cost (the owner's `reserve` when there is none), so that a bidder fares best with the truth. Whether an award
took effect is read in the ledger (`task_ledger.py`), never believed on somebody's word. The participant's side is in
`contract_net_participant.py`.

Leaves out on purpose: who is able to do what (the roster's part), and what a bid is made of (`services/agent`).

Source: FIPA SC00029H; Smith 1980; Vickrey 1961 for the price.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from edgeagents.model.cooperation import Award, CallForProposals
from edgeagents.protocol.conversation import (
    MOST_ACTS,
    ConversationEffect,
    Heard,
    Recovered,
    RefusalCause,
    Refuse,
    Save,
    Tell,
    Tick,
    act,
    answered,
    counted,
    is_over,
    objection,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.task_ledger import AwardTask, CloseTask, LedgerAnswer, LedgerRequest, ReadTask, ReopenTask


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
    reserve: float = 1e9


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was sent yet."""

    terms: Terms


@dataclass(frozen=True, slots=True)
class Calling:
    """Bids are awaited until `until_s`; `asked` may still give one, `reasons` says what happened so far."""

    terms: Terms
    epoch: int
    asked: frozenset[str]
    until_s: float
    bids: Mapping[str, float] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    heard: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Awarding:
    """The ledger was asked to name the winner."""

    bidding: Calling
    winner: str
    price: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Awarded:
    """The winner was told; it has until `until_s` to take the task in the ledger."""

    bidding: Calling
    epoch: int
    winner: str
    price: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Working:
    """The task is the winner's; its report is awaited."""

    bidding: Calling
    epoch: int
    winner: str
    price: float


@dataclass(frozen=True, slots=True)
class Closed:
    """It has ended, and why."""

    status: Literal["done", "failed", "unplaced"]
    reasons: tuple[str, ...]
    winner: str = ""
    price: float = 0.0


State: TypeAlias = Planned | Calling | Awarding | Awarded | Working | Closed


@dataclass(frozen=True, slots=True)
class Begin:
    """Start; `epoch` is the task's in the ledger."""

    now_s: float
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class LedgerSaid:
    """The ledger has answered."""

    answer: LedgerAnswer
    now_s: float


@dataclass(frozen=True, slots=True)
class AskLedger:
    """Put a request to the ledger; its answer comes back as `LedgerSaid`."""

    request: LedgerRequest


Event: TypeAlias = Begin | Heard | Tick | LedgerSaid | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Closed(), Heard(sender=sender):
            return state, [Refuse(sender, "late", "the call is closed")]
        case Closed(), _:
            return state, []
        case Planned(terms), Begin(now_s, epoch):
            return _begun(terms, now_s, epoch)
        case Planned(), _:
            return state, []
        case _, (Tick(now_s) | Recovered(now_s) | LedgerSaid(_, now_s)) if is_over(now_s, _terms(state).deadline_s):
            return _over(state)
        case _, Heard():
            return _heard(state, event)
        case Calling(), Tick(now_s):
            return _counted_out(state, now_s) if is_over(now_s, state.until_s) else (state, [])
        case Awarded(), Tick(now_s) if is_over(now_s, state.until_s):
            return state, [AskLedger(ReopenTask(_task(state), state.epoch)), StartTimer(state.bidding.terms.take_s)]
        case Awarding(), Tick():
            return state, [_award_request(state), StartTimer(state.bidding.terms.take_s)]
        case ((Awarding() | Awarded() | Working()), LedgerSaid(answer, now_s)):
            return _ledger_said(state, answer, now_s)
        case _, Recovered(now_s):
            return _recovered(state, now_s)
        case _:
            return state, []


def _terms(state: Calling | Awarding | Awarded | Working) -> Terms:
    return state.terms if isinstance(state, Calling) else state.bidding.terms


def _task(state: Calling | Awarding | Awarded | Working) -> str:
    return _terms(state).call.task


def _begun(terms: Terms, now_s: float, epoch: int) -> Result:
    if not now_s < terms.deadline_s:
        return Closed("unplaced", (f"the deadline of {terms.call.task!r} had passed before it was called for",)), []
    state, effects = _call(terms, epoch, frozenset(terms.invited), now_s, ())
    return state, [*effects, StartTimer(terms.deadline_s - now_s)]


def _call(terms: Terms, epoch: int, asked: frozenset[str], now_s: float, reasons: tuple[str, ...]) -> Result:
    """Return the state in which bids are awaited, and the calls; closed when there is nobody left to call."""
    if not asked:
        text = f"nobody is left to do {terms.call.task!r}: is an agent with skill {terms.call.skill!r} up?"
        close = AskLedger(CloseTask(terms.call.task, epoch, "", "failed"))
        return Closed("unplaced", (*reasons, text)), [close]
    until_s = min(now_s + terms.bid_s, terms.deadline_s)
    state = Calling(terms, epoch, asked, until_s, reasons=reasons)
    return state, [Save(), *_calls(state, now_s), StartTimer(until_s - now_s)]


def _calls(state: Calling, now_s: float) -> list[Effect]:
    call = state.terms.call.model_copy(update={"epoch": state.epoch})
    said = act("cfp", call.task, call=call, reply_by_s=max(0.0, state.until_s - now_s))
    return [Tell(agent, said) for agent in sorted(state.asked - set(state.bids) - state.refused)]


# --- what comes in ---------------------------------------------------------------------------------


def _heard(state: Calling | Awarding | Awarded | Working, heard: Heard) -> Result:
    refused = objection(heard, _task(state), _terms(state).invited)
    if refused is not None:
        return state, [*answered(refused, heard)]
    if isinstance(state, Calling):
        return _bid_or_refusal(state, heard)
    if isinstance(state, Awarding):
        return state, [Refuse(heard.sender, "late", "bids are closed")]
    if heard.sender != state.winner:
        return state, [Refuse(heard.sender, "late", f"bids are closed, {state.winner!r} has won")]
    if state.bidding.heard.get(heard.sender, 0) >= MOST_ACTS:
        return state, [Refuse(heard.sender, "too-many", f"more than {MOST_ACTS} acts of {heard.sender!r}")]
    state = replace(state, bidding=replace(state.bidding, heard=counted(state.bidding.heard, heard.sender)))
    if isinstance(state, Awarded) and heard.act.performative == "refuse":
        return state, [AskLedger(ReopenTask(_task(state), state.epoch))]
    # Whatever the winner says of it, the ledger knows.
    return state, [AskLedger(ReadTask(_task(state)))]


def _bid_or_refusal(state: Calling, heard: Heard) -> Result:
    said, sender = heard.act, heard.sender
    if state.heard.get(sender, 0) >= MOST_ACTS:
        return state, [Refuse(sender, "too-many", f"more than {MOST_ACTS} acts of {sender!r} in one call")]
    state = replace(state, heard=counted(state.heard, sender))
    problem = _bid_problem(state, heard)
    if problem is not None:
        return state, [Refuse(sender, *problem)]
    if said.performative == "propose" and said.bid is not None:
        state = replace(state, bids={**state.bids, sender: said.bid.cost})
    else:
        told = f"{sender} refused: {said.reason}" if said.reason else f"{sender} refused"
        state = replace(state, refused=state.refused | {sender}, reasons=(*state.reasons, told))
    if len(state.bids) + len(state.refused) < len(state.asked):
        return state, []
    return _counted_out(state, heard.now_s)


def _bid_problem(state: Calling, heard: Heard) -> tuple[RefusalCause, str] | None:
    said, sender = heard.act, heard.sender
    if sender not in state.asked:
        return "not-allowed", f"{sender!r} gave an award back, or let it pass: it is not called again"
    if sender in state.bids or sender in state.refused:
        return "repeated", f"{sender!r} has answered already: the first word counts"
    if heard.now_s > state.until_s:
        return "late", f"it came {heard.now_s - state.until_s:.3f} s after bids were closed"
    if said.performative == "refuse":
        return None
    if said.performative != "propose":
        return "out-of-turn", f"{said.performative} is no answer to a call for proposals"
    if said.bid is None:
        return "no-content", "a proposal without a bid"
    if said.bid.epoch != state.epoch:
        return "stale-epoch", f"a bid for epoch {said.bid.epoch}, this is epoch {state.epoch}"
    if not math.isfinite(said.bid.cost) or said.bid.cost < 0:
        return "no-number", f"{said.bid.cost} is no cost"
    return None


# --- award -----------------------------------------------------------------------------------------


def ranked(bids: Mapping[str, float], reserve: float) -> list[tuple[float, str]]:
    """Return the bids that are not above the reserve, the best first; the name breaks ties, same everywhere."""
    return sorted((cost, agent) for agent, cost in bids.items() if cost <= reserve)


def _counted_out(state: Calling, now_s: float) -> Result:
    terms, order = state.terms, ranked(state.bids, state.terms.reserve)
    if not order:
        silent = sorted(state.asked - set(state.bids) - state.refused)
        text = f"no bid for {terms.call.task!r} of at most {terms.reserve:g} in {terms.bid_s:g} s"
        told = f"{text}; {len(silent)} of {len(state.asked)} gave no answer"
        close = AskLedger(CloseTask(terms.call.task, state.epoch, "", "failed"))
        return Closed("unplaced", (*state.reasons, f"{told}: is an agent with skill {terms.call.skill!r} up?")), [close]
    price = order[1][0] if len(order) > 1 else terms.reserve
    until_s = min(now_s + terms.take_s, terms.deadline_s)
    text = f"{order[0][1]} bid {order[0][0]:g}, the best of {len(order)}"
    awarding = Awarding(replace(state, reasons=(*state.reasons, text)), order[0][1], price, until_s)
    return awarding, [Save(), _award_request(awarding), StartTimer(terms.take_s)]


def _award_request(state: Awarding) -> AskLedger:
    return AskLedger(AwardTask(_task(state), state.bidding.epoch, state.winner, state.until_s))


def _ledger_said(state: Awarding | Awarded | Working, answer: LedgerAnswer, now_s: float) -> Result:
    entry, bidding = answer.entry, state.bidding
    if entry.task != _task(state):
        return state, []
    match entry.status:
        case "done" | "failed":
            return _closed(
                state, entry.status, f"the ledger says that {entry.winner or 'nobody'} has it {entry.status}"
            )
        case "taken" if not isinstance(state, Working):
            return _working(state, entry.epoch, entry.winner)
        case "awarded" if entry.winner == state.winner and not isinstance(state, Working):
            awarded = Awarded(bidding, entry.epoch, entry.winner, state.price, entry.until_s)
            return awarded, [Save(), _tell_award(awarded, now_s), StartTimer(max(0.0, entry.until_s - now_s))]
        case "open" if isinstance(state, Awarded):
            return _again(state, entry.epoch, now_s)
        case "open" if isinstance(state, Awarding) and entry.epoch == bidding.epoch:
            if now_s < state.until_s:
                return state, [_award_request(state)]
            return _call(bidding.terms, entry.epoch, bidding.asked, now_s, bidding.reasons)
        case "open" if isinstance(state, Awarding):
            return _call(bidding.terms, entry.epoch, bidding.asked, now_s, bidding.reasons)
        case _:
            return state, []


def _tell_award(state: Awarded, now_s: float) -> Tell:
    award = Award(task=_task(state), epoch=state.epoch, price=state.price)
    said = act("accept-proposal", award.task, award=award, reply_by_s=max(0.0, state.until_s - now_s))
    return Tell(state.winner, said)


def _again(state: Awarded, epoch: int, now_s: float) -> Result:
    text = f"{state.winner} did not take it in {state.bidding.terms.take_s:g} s: called again without it"
    asked = state.bidding.asked - {state.winner}
    return _call(state.bidding.terms, epoch, asked, now_s, (*state.bidding.reasons, text))


def _working(state: Awarding | Awarded, epoch: int, winner: str) -> Result:
    # Only now: before, a loser might still have been needed.
    losers = [agent for agent in sorted(state.bidding.bids) if agent != winner]
    told = act("reject-proposal", _task(state), reason=f"{winner} has taken it")
    return Working(state.bidding, epoch, winner, state.price), [Save(), *(Tell(agent, told) for agent in losers)]


def _recovered(state: Calling | Awarding | Awarded | Working, now_s: float) -> Result:
    end = StartTimer(_terms(state).deadline_s - now_s)
    if isinstance(state, Calling):
        return state, [*_calls(state, now_s), StartTimer(max(0.0, state.until_s - now_s)), end]
    return state, [AskLedger(ReadTask(_task(state))), StartTimer(state.bidding.terms.take_s), end]


def _closed(state: Awarding | Awarded | Working, status: Literal["done", "failed"], text: str) -> Result:
    return Closed(status, (*state.bidding.reasons, text), state.winner, state.price), [Save()]


def _over(state: Calling | Awarding | Awarded | Working) -> Result:
    text = f"the deadline of {_task(state)!r} has passed"
    if isinstance(state, Calling):
        close = CloseTask(_task(state), state.epoch, "", "failed")
        return Closed("unplaced", (*state.reasons, text)), [Save(), AskLedger(close)]
    epoch = state.bidding.epoch + 1 if isinstance(state, Awarding) else state.epoch
    told = f"{text}, and {state.winner} has not reported: the ledger says how it ended"
    closed = Closed("failed", (*state.bidding.reasons, told), state.winner, state.price)
    return closed, [Save(), AskLedger(CloseTask(_task(state), epoch, "", "failed"))]
