"""Awards of an auction: each task goes to its winner in the ledger, and is watched until it is done.

    Awarding -> Working -> Allotted

The second half of `auction.py`. Awards take effect in the ledger alone (`task_ledger.py`). What may have got lost is
said again every `AGAIN_S`. Once the time to take is over, what is not taken is opened again; whether that was possible
says whose it is. Then the ledger is read until all is done, or the auctioneer's deadline has come.

Source: design.md section 5 ("An award is a compare-and-set in that ledger").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import Award
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import (
    MOST_ACTS,
    Begin,
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
from edgeagents.protocol.lots import Lot
from edgeagents.protocol.plans import Plan
from edgeagents.protocol.task_ledger import (
    AwardTask,
    CloseTask,
    Entry,
    LedgerAnswer,
    LedgerRequest,
    ReadTask,
    ReopenTask,
)

AGAIN_S: Final = 1.0
WATCH_S: Final = 5.0
End: TypeAlias = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Awarding:
    """The plan stands; each winner has until `until_s` to take its tasks in the ledger.

    Args:
        lot: what was auctioned.
        plan: who is to have which tasks.
        reasons: how it came to that.
        until_s: when what is not taken is opened again.
        next_s: when what may have got lost is said again.
        bases: the epoch of each task that its award builds on.
        epochs: that of its award, as far as the ledger has said it.
        taken: tasks that are their winner's.
        lost: tasks that will not be.
        ended: tasks that are over already.
        heard: how many acts of each sender came.
    """

    lot: Lot
    plan: Plan
    reasons: tuple[str, ...]
    until_s: float
    next_s: float
    bases: Mapping[str, int]
    epochs: Mapping[str, int] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    ended: Mapping[str, End] = field(default_factory=dict)
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Working:
    """What was taken is being done; `plan` is that alone."""

    lot: Lot
    plan: Plan
    reasons: tuple[str, ...]
    next_s: float
    epochs: Mapping[str, int]
    ended: Mapping[str, End]
    heard: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Allotted:
    """It has ended: whose each task is, what is left, why, and what was taken and not done by the deadline."""

    plan: Plan
    unplaced: tuple[str, ...]
    reasons: tuple[str, ...]
    undone: tuple[str, ...] = ()


Live: TypeAlias = Awarding | Working
State: TypeAlias = Live | Allotted


Event: TypeAlias = Begin | Heard | Tick | LedgerSaid | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger
Result: TypeAlias = tuple[State, list[Effect]]


def begun(lot: Lot, plan: Plan, reasons: tuple[str, ...], now_s: float) -> Result:
    """Return the state in which a plan is awarded, and the awards; `plan`: only agents that have tasks in it."""
    bases = {task: lot.tasks[task] for tasks in plan.values() for task in tasks}
    return _asked(Awarding(lot, plan, reasons, lot.take_until_s(now_s), now_s, bases), now_s, [Save()])


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Allotted(), Heard(sender=sender):
            return state, [Refuse(sender, "late", "nothing is asked here")]
        case Allotted(), _:
            return state, []
        case _, (Tick(now_s) | Recovered(now_s) | LedgerSaid(_, now_s)) if is_over(now_s, state.lot.deadline_s):
            return _over(state)
        case _, Heard():
            return _heard(state, event)
        case _, LedgerSaid(answer, now_s):
            return _ledger_said(state, answer, now_s)
        case _, Tick(now_s) if is_over(now_s, state.next_s):
            return _asked(state, now_s, [])
        case Awarding(), Recovered(now_s):
            return _asked(_awarded_anew(state, now_s), now_s, [])
        case Working(), Recovered(now_s):
            return _asked(state, now_s, [])
        case _:
            return state, []


def _asked(state: Live, now_s: float, before: list[Effect]) -> Result:
    """Ask the ledger for all that is not settled, and come back for what gets no answer."""
    if isinstance(state, Awarding):
        next_s = now_s + AGAIN_S if is_over(now_s, state.until_s) else min(now_s + AGAIN_S, state.until_s)
    else:
        next_s = now_s + WATCH_S
    next_s = min(next_s, state.lot.deadline_s)
    asks = [AskLedger(request) for request in _requests(state, now_s)]
    return replace(state, next_s=next_s), [*before, *asks, StartTimer(next_s - now_s)]


def _requests(state: Live, now_s: float) -> list[LedgerRequest]:
    if isinstance(state, Working):
        return [ReadTask(task) for task in _owners(state) if task not in state.ended]
    left = [(task, agent) for task, agent in _owners(state).items() if task not in state.taken | state.lost]
    if is_over(now_s, state.until_s):
        return [ReopenTask(task, state.epochs.get(task, state.bases[task] + 1)) for task, _ in left]
    return [AwardTask(task, state.bases[task], agent, state.until_s - now_s) for task, agent in left]


def _owners(state: Live) -> dict[str, str]:
    return {task: agent for agent, tasks in state.plan.items() for task in tasks}


def _awarded_anew(state: Awarding, now_s: float) -> Awarding:
    """Return the state with time to take again, when it ran out while the auctioneer was down."""
    if not is_over(now_s, state.until_s):
        return state
    return replace(state, until_s=state.lot.take_until_s(now_s), bases={**state.bases, **state.epochs})


def _ledger_said(state: Live, answer: LedgerAnswer, now_s: float) -> Result:
    entry = answer.entry
    agent = _owners(state).get(entry.task)
    if agent is None:
        return state, []
    if isinstance(state, Working):
        if entry.status not in ("done", "failed") or entry.task in state.ended:
            return state, []
        return _all_done(replace(state, ended={**state.ended, entry.task: entry.status}))
    if entry.task in state.lost or entry.epoch < state.epochs.get(entry.task, state.bases[entry.task]):
        return state, []  # older than what is known
    if entry.status == "awarded" and entry.winner == agent and entry.task not in state.taken:
        return _awarded(state, entry, now_s)
    before, state = state, _sorted(state, entry, agent, now_s)
    if state == before:
        return state, []
    return _all_settled(state, now_s) if _is_settled(state) else (state, [Save()])


def _awarded(state: Awarding, entry: Entry, now_s: float) -> Result:
    """Tell the winner, each time: its answer is what stops that."""
    state = replace(state, epochs={**state.epochs, entry.task: entry.epoch})
    left_s = state.until_s - now_s
    if left_s <= 0:
        return state, []
    award = Award(task=entry.task, epoch=entry.epoch)
    said = act("accept-proposal", state.lot.conversation, award=award, reply_by_s=left_s)
    return state, [Save(), Tell(entry.winner, said)]


def _sorted(state: Awarding, entry: Entry, agent: str, now_s: float) -> Awarding:
    """Return the state with a task that is its winner's, or will not be."""
    task, is_its = entry.task, entry.winner == agent
    if is_its and entry.status in ("taken", "done", "failed"):
        ended = {**state.ended, task: entry.status} if entry.status != "taken" else state.ended
        epochs = {**state.epochs, task: entry.epoch}
        return replace(state, taken=state.taken | {task}, epochs=epochs, ended=ended)
    if task in state.taken:
        return state
    was_given_back = entry.status == "open" and entry.epoch > state.bases[task]
    if is_over(now_s, state.until_s) or was_given_back or entry.status in ("taken", "done", "failed"):
        return replace(state, lost=state.lost | {task})
    return state


def _is_settled(state: Awarding) -> bool:
    return _owners(state).keys() <= state.taken | state.lost


def _all_settled(state: Awarding, now_s: float) -> Result:
    """Return the state in which what was taken is watched, or the end when there is nothing to watch."""
    plan = {agent: tuple(task for task in tasks if task in state.taken) for agent, tasks in state.plan.items()}
    plan = {agent: tasks for agent, tasks in plan.items() if tasks}
    reasons = state.reasons
    if state.lost:
        reasons = (*reasons, f"not taken in time: {', '.join(sorted(state.lost))}")
    working = Working(state.lot, plan, reasons, now_s, state.epochs, state.ended, state.heard)
    after, effects = _all_done(working)
    return _asked(after, now_s, effects) if isinstance(after, Working) else (after, effects)


def _all_done(state: Working) -> Result:
    owners = _owners(state)
    if not owners.keys() <= state.ended.keys():
        return state, [Save()]
    return _allotted(state, state.reasons), [Save()]


def _allotted(state: Working, reasons: tuple[str, ...]) -> Allotted:
    owners = _owners(state)
    undone = tuple(task for task in owners if state.ended.get(task) != "done")
    texts = tuple(f"{owners[task]} {'failed at' if task in state.ended else 'had not done'} {task}" for task in undone)
    unplaced = tuple(sorted(state.lot.tasks.keys() - owners.keys()))
    return Allotted(state.plan, unplaced, (*reasons, *texts), undone)


def _heard(state: Live, heard: Heard) -> Result:
    sender, own = heard.sender, state.plan.get(heard.sender, ())
    # Of each task one says that it is taken and that it is done; either may come twice.
    most = MOST_ACTS + 4 * len(own)
    counts, refused = admitted(heard, state.lot.conversation, state.lot.agents, state.heard, most)
    state = replace(state, heard=counts)
    if refused:
        return state, [*refused]
    about = heard.act.award or heard.act.report
    if about is None or about.task not in own:
        return state, [Refuse(sender, "late", "bids are closed")]
    return state, [AskLedger(ReadTask(about.task))]  # nobody's word is believed


def _over(state: Live) -> Result:
    """End: the ledger is asked to open what was not taken, and to end what was not done."""
    if isinstance(state, Awarding):
        left = [task for task in _owners(state) if task not in state.taken | state.lost]
        reopen = [AskLedger(request) for request in _requests(state, state.until_s)]
        text = f"the deadline passed before the ledger said whose these are: {', '.join(left)}"
        plan = {agent: tuple(task for task in own if task in state.taken) for agent, own in state.plan.items()}
        plan = {agent: own for agent, own in plan.items() if own}
        reasons = (*state.reasons, *([text] if left else []))
        state = Working(state.lot, plan, reasons, 0.0, state.epochs, state.ended, state.heard)
    else:
        reopen = []
    undone = [task for task in _owners(state) if task not in state.ended]
    closes = [AskLedger(CloseTask(task, state.epochs[task], "", "failed")) for task in undone]
    return _allotted(state, state.reasons), [Save(), *reopen, *closes]
