"""Contract net, the initiator's side: call for proposals, sealed bids, award, report.

    Calling  -> Awarding -> Awarded -> Working -> Closed
       ^           |           |
       +-----------+-----------+      the winner gave no sign, or gave it back: call again, without it

Bids are closed early, once all invited have answered. The best bid wins and is credited what the second best would
have cost (the owner's `reserve` when there is none), so that a bidder fares best with the truth. Whether an award
took effect, and how the work ended, is read in the ledger (`task_ledger.py`), never believed on somebody's word; it
is asked again, on a tick, until it answers. Where the deadline comes first, the end is `unknown` until it does. The
ledger's clock and the initiator's are never compared. The participant's side is in `contract_net_participant.py`.

Leaves out on purpose: who is able to do what (the roster's part), and what a bid is made of (`services/agent`).

Source: FIPA SC00029H; Smith 1980; Vickrey 1961 for the price.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from edgeagents.model.cooperation import Award
from edgeagents.model.message import MAX_TTL_S
from edgeagents.protocol.conversation import (
    ASK_AGAIN_S,
    ConversationEffect,
    Heard,
    Recovered,
    Refuse,
    Save,
    Tell,
    Tick,
    act,
    admitted,
    is_over,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.sealed_bids import Terms, bid_problem, price_of, ranked, terms_problem
from edgeagents.protocol.task_ledger import (
    ENDED,
    AwardTask,
    CloseTask,
    Entry,
    LedgerAnswer,
    LedgerRequest,
    ReadTask,
    ReopenTask,
)


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
    """The ledger was asked to name the winner; it is asked again at `again_s`. `problem`: why it has not, so far."""

    bidding: Calling
    winner: str
    price: float
    again_s: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Awarded:
    """The winner was told; it has until `until_s` to take the task in the ledger, which is read at `again_s`."""

    bidding: Calling
    epoch: int
    winner: str
    price: float
    until_s: float
    again_s: float


@dataclass(frozen=True, slots=True)
class Working:
    """The task is the winner's; how it ends is read in the ledger at `again_s`, or once the winner reports."""

    bidding: Calling
    epoch: int
    winner: str
    price: float
    again_s: float


@dataclass(frozen=True, slots=True)
class Closed:
    """It has ended, and why; `asked`: what the ledger has not answered yet, its answer is still heard.

    `unknown`: the deadline passed before the ledger said how it ended.
    """

    status: Literal["done", "failed", "unplaced", "unknown"]
    reasons: tuple[str, ...]
    winner: str = ""
    price: float = 0.0
    asked: CloseTask | None = None


Placed: TypeAlias = Awarding | Awarded | Working
Live: TypeAlias = Calling | Placed
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
        case Closed(asked=CloseTask()), LedgerSaid(answer):
            return _corrected(state, answer.entry)
        case Closed(asked=CloseTask() as close), Recovered():
            return state, [AskLedger(close)]
        case Closed(), _:
            return state, []
        case Planned(terms), Begin(now_s, epoch):
            return _begun(terms, now_s, epoch)
        case Planned(terms), Recovered(now_s):
            begun, effects = _begun(terms, now_s, 0)
            return begun, [*effects, *([AskLedger(ReadTask(terms.call.task))] if isinstance(begun, Calling) else [])]
        case Planned(), _:
            return state, []
        case _, Begin():
            return state, []
        case _, Heard():
            return _heard(state, event)
        case _, LedgerSaid(answer) if answer.entry.task == _task(state) and answer.entry.status in ENDED:
            return _ended(state, answer.entry)
        case _, _ if is_over(event.now_s, _terms(state).deadline_s):
            return _over(state)
        case _, LedgerSaid(answer, now_s):
            return _ledger_said(state, answer, now_s)
        case _, Recovered(now_s):
            return _recovered(state, now_s)
        case Calling(), Tick(now_s):
            return _counted_out(state, now_s) if is_over(now_s, state.until_s) else (state, [])
        case _, Tick(now_s):
            return _asked_again(state, now_s) if is_over(now_s, state.again_s) else (state, [])


def _bidding(state: Live) -> Calling:
    return state if isinstance(state, Calling) else state.bidding


def _terms(state: Live) -> Terms:
    return _bidding(state).terms


def _task(state: Live) -> str:
    return _terms(state).call.task


def _epoch(state: Live) -> int:
    """Return the newest epoch that the state knows of."""
    return state.bidding.epoch if isinstance(state, Awarding) else state.epoch


def _begun(terms: Terms, now_s: float, epoch: int) -> Result:
    problem = terms_problem(terms)
    if problem is None and not now_s < terms.deadline_s:
        problem = f"the deadline of {terms.call.task!r} had passed before it was called for"
    if problem is not None:
        return Closed("unplaced", (problem,)), []
    state, effects = _call(Calling(terms, epoch, frozenset(terms.invited), 0.0), now_s)
    return state, [*effects, StartTimer(terms.deadline_s - now_s)]


def _call(state: Calling, now_s: float) -> Result:
    """Return the state in which bids are awaited anew, and the calls; closed when there is nobody left to call."""
    terms = state.terms
    if not state.asked:
        text = f"nobody is left to do {terms.call.task!r}: is an agent with skill {terms.call.skill!r} up?"
        return _unplaced(state, text)
    until_s = min(now_s + terms.bid_s, terms.deadline_s)
    state = replace(state, until_s=until_s, bids={}, refused=frozenset())
    return state, [Save(), *_calls(state, now_s), StartTimer(until_s - now_s)]


def _calls(state: Calling, now_s: float) -> list[Effect]:
    # Called again it is later: who is asked now plans with the time that is left now.
    task_left_s = min(max(0.0, state.terms.deadline_s - now_s), MAX_TTL_S)
    call = state.terms.call.model_copy(update={"epoch": state.epoch, "left_s": task_left_s})
    left_s = min(max(0.0, state.until_s - now_s), state.terms.bid_s)
    said = act("cfp", call.task, call=call, reply_by_s=left_s)
    return [Tell(agent, said) for agent in sorted(state.asked - set(state.bids) - state.refused)]


def _recovered(state: Live, now_s: float) -> Result:
    """Ask the ledger first of all; who was called gets the whole time again, as nobody heard its answers."""
    end, read = StartTimer(_terms(state).deadline_s - now_s), AskLedger(ReadTask(_task(state)))
    if isinstance(state, Calling):
        until_s = min(now_s + state.terms.bid_s, state.terms.deadline_s)
        state = replace(state, until_s=until_s)
        return state, [Save(), read, *_calls(state, now_s), StartTimer(until_s - now_s), end]
    state, again = _later(state, now_s, ASK_AGAIN_S)
    return state, [read, again, end]


# --- what comes in ---------------------------------------------------------------------------------


def _heard(state: Live, heard: Heard) -> Result:
    bidding = _bidding(state)
    # Ten thousand that are invited would be a long list to look through for each.
    members = bidding.asked if heard.sender in bidding.asked else bidding.terms.invited
    counts, refused = admitted(heard, _task(state), members, bidding.heard)
    if counts is not bidding.heard:
        bidding = replace(bidding, heard=counts)
        state = bidding if isinstance(state, Calling) else replace(state, bidding=bidding)
    if refused:
        return state, [*refused]
    if isinstance(state, Calling):
        return _bid_or_refusal(state, heard)
    if isinstance(state, Awarding):
        return state, [Refuse(heard.sender, "late", "bids are closed")]
    if heard.sender != state.winner:
        return state, [Refuse(heard.sender, "late", f"bids are closed, {state.winner!r} has won")]
    if isinstance(state, Awarded) and heard.act.performative == "refuse":
        return state, [AskLedger(ReopenTask(_task(state), state.epoch))]
    # Whatever the winner says of it, the ledger knows.
    return state, [AskLedger(ReadTask(_task(state)))]


def _bid_or_refusal(state: Calling, heard: Heard) -> Result:
    said, sender = heard.act, heard.sender
    is_repeated = sender in state.bids or sender in state.refused
    problem = bid_problem(heard, state.asked, state.epoch, state.until_s, is_repeated=is_repeated)
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


# --- award -----------------------------------------------------------------------------------------


def _counted_out(state: Calling, now_s: float) -> Result:
    terms, order = state.terms, ranked(state.bids, state.terms.reserve)
    if not order:
        silent = sorted(state.asked - set(state.bids) - state.refused)
        text = f"no bid for {terms.call.task!r} of at most {terms.reserve:g} in {terms.bid_s:g} s"
        told = f"{text}; {len(silent)} of {len(state.asked)} gave no answer"
        return _unplaced(state, f"{told}: is an agent with skill {terms.call.skill!r} up?")
    text = f"{order[0][1]} bid {order[0][0]:g}, the best of {len(order)}"
    awarding = Awarding(
        replace(state, reasons=(*state.reasons, text)), order[0][1], price_of(order, terms.reserve), now_s + ASK_AGAIN_S
    )
    return awarding, [Save(), _award_request(awarding), StartTimer(ASK_AGAIN_S)]


def _award_request(state: Awarding) -> AskLedger:
    return AskLedger(AwardTask(_task(state), state.bidding.epoch, state.winner, _terms(state).take_s))


def _asked_again(state: Placed, now_s: float) -> Result:
    """Ask the ledger once more: answers get lost, and a winner may have nobody who hears its report."""
    if isinstance(state, Awarding):
        ask, after_s = _award_request(state), ASK_AGAIN_S
    elif isinstance(state, Awarded) and is_over(now_s, state.until_s):
        ask, after_s = AskLedger(ReopenTask(_task(state), state.epoch)), ASK_AGAIN_S
    else:
        ask, after_s = AskLedger(ReadTask(_task(state))), _reading_s(_terms(state))
    state, again = _later(state, now_s, after_s)
    return state, [ask, again]


def _reading_s(terms: Terms) -> float:
    """Return how often the ledger is read while others are at work; a winner hears its award as often at most."""
    return max(ASK_AGAIN_S, terms.take_s / 8)


def _later(state: Placed, now_s: float, after_s: float) -> tuple[Placed, StartTimer]:
    """Return the state with the time of its next question, and the timer for it; a tick before that asks nothing."""
    again_s = now_s + after_s
    if isinstance(state, Awarded) and not is_over(now_s, state.until_s):
        again_s = min(again_s, state.until_s)
    return replace(state, again_s=again_s), StartTimer(again_s - now_s)


def _ledger_said(state: Live, answer: LedgerAnswer, now_s: float) -> Result:
    """Follow an answer; one that is older than what is known already, or of another task, says nothing."""
    entry = answer.entry
    if entry.task != _task(state) or entry.epoch < _epoch(state):
        return state, []
    match entry.status:
        case "taken" if not isinstance(state, Working):
            return _working(state, entry, now_s)
        case "awarded" if isinstance(state, Awarded) and (entry.epoch, entry.winner) == (state.epoch, state.winner):
            return state, [_tell_award(state, now_s)]  # the first word may have been lost
        case "awarded" if isinstance(state, Awarding) and entry.epoch > _epoch(state) and entry.winner == state.winner:
            return _award_stands(state, entry, now_s)
        case "open" if entry.epoch > _epoch(state) and not isinstance(state, Working):
            return _again(state, entry.epoch, now_s)
        case "open" if isinstance(state, Awarding) and answer.problem:
            return replace(state, problem=answer.problem), []
        case _:
            return state, []


def _award_stands(state: Awarding, entry: Entry, now_s: float) -> Result:
    # Its time counts from here on our clock: on the ledger's it began before, so nothing is taken back too early.
    until_s = min(now_s + _terms(state).take_s, _terms(state).deadline_s)
    awarded = Awarded(state.bidding, entry.epoch, entry.winner, state.price, until_s, now_s)
    awarded_, again = _later(awarded, now_s, _reading_s(_terms(state)))
    return awarded_, [Save(), _tell_award(awarded, now_s), again]


def _tell_award(state: Awarded, now_s: float) -> Tell:
    award = Award(task=_task(state), epoch=state.epoch, price=state.price)
    left_s = min(max(0.0, state.until_s - now_s), _terms(state).take_s)
    return Tell(state.winner, act("accept-proposal", award.task, award=award, reply_by_s=left_s))


def _again(state: Calling | Awarding | Awarded, epoch: int, now_s: float) -> Result:
    bidding = replace(_bidding(state), epoch=epoch)
    if isinstance(state, Awarded):
        took = f"{state.winner} did not take it in {bidding.terms.take_s:g} s, or gave it back"
        reasons = (*bidding.reasons, f"{took}: called again without it")
        bidding = replace(bidding, asked=bidding.asked - {state.winner}, reasons=reasons)
    return _call(bidding, now_s)


def _working(state: Calling | Awarding | Awarded, entry: Entry, now_s: float) -> Result:
    # Only now: before, a loser might still have been needed.
    bidding, winner = _bidding(state), entry.winner
    losers = [agent for agent in sorted(bidding.bids) if agent != winner]
    told = act("reject-proposal", _task(state), reason=f"{winner} has taken it")
    price = state.price if isinstance(state, (Awarding, Awarded)) and state.winner == winner else 0.0
    after_s = _reading_s(bidding.terms)
    working = Working(bidding, entry.epoch, winner, price, now_s + after_s)
    return working, [Save(), *(Tell(agent, told) for agent in losers), StartTimer(after_s)]


# --- end -------------------------------------------------------------------------------------------


def _close(state: Live) -> CloseTask:
    return CloseTask(_task(state), _epoch(state), "", "failed")


def _unplaced(state: Calling, text: str) -> Result:
    close = _close(state)
    return Closed("unplaced", (*state.reasons, text), asked=close), [Save(), AskLedger(close)]


def _over(state: Live) -> Result:
    """End it at the deadline, as far as we know; the ledger has the last word on it."""
    text, close = f"the deadline of {_task(state)!r} has passed", _close(state)
    if isinstance(state, Calling):
        return _unplaced(state, text)
    if isinstance(state, Awarding) and state.problem:
        text = f"{text}, and the ledger has not named {state.winner}: {state.problem}"
    elif isinstance(state, Working):
        text = f"{text}, and {state.winner} has not ended it: the ledger says how it does"
    closed = Closed("unknown", (*state.bidding.reasons, text), state.winner, state.price, close)
    return closed, [Save(), AskLedger(close)]


def _ended(state: Live, entry: Entry) -> Result:
    """Return the end that the ledger told before we had to."""
    winner, price = ("", 0.0) if isinstance(state, Calling) else (state.winner, state.price)
    return _corrected(Closed("unknown", _bidding(state).reasons, winner, price, _close(state)), entry)


def _corrected(state: Closed, entry: Entry) -> Result:
    """Return the end as the ledger has it."""
    if state.asked is None or entry.task != state.asked.task:
        return state, []
    told = f"the ledger says that {entry.winner or 'nobody'} has it {entry.status}"
    price = state.price if entry.winner == state.winner else 0.0
    if state.status == "unplaced" and entry.status == "failed" and not entry.winner:
        return replace(state, asked=None), [Save()]
    if entry.status in ENDED:
        status: Literal["done", "failed", "unplaced"] = entry.status if entry.winner else "unplaced"
        return Closed(status, (*state.reasons, told), entry.winner, price), [Save()]
    if state.status == "unplaced" and entry.status == "taken":
        return Closed("unknown", (*state.reasons, told), entry.winner, price, state.asked), [Save()]
    return state, []
