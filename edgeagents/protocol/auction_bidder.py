"""The bidder's side of an auction: says what sets of tasks would cost, takes what it is awarded, does it.

    Member (quotes, takes, performs; one set of tasks each) -> Ended

A task is this bidder's once the ledger says so, under the epoch of the award; after a restart the ledger is read
before anything is done. How it ended is said until the ledger has answered. A bidder cannot know whether an award is on
its way, so it ends by its own deadline alone.

One question is costed at a time: a newer one takes its place, the same one again gets the same answer.

Source: design.md section 5; `auction.py`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import Act, Award, BundleCost, Inquiry, Quote, Report
from edgeagents.protocol.auction import MOST_ROUNDS
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
    answered,
    is_over,
    objection,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.lots import MOST_LOT
from edgeagents.protocol.task_ledger import CloseTask, LedgerAnswer, ReadTask, TakeTask

ASK_AGAIN_S: Final = 0.5
MOST_COST: Final = 1e9  # that an act can carry; what costs more cannot be done
TaskStatus: TypeAlias = Literal["taking", "mine", "doubtful", "done", "failed", "lost"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Who we are, whose auction it is, and when it is over for us, on our own clock.

    `incarnation` is this copy's own, as in the contract net: two copies of one agent are two.
    """

    me: str
    auctioneer: str
    conversation: str
    deadline_s: float
    incarnation: str


@dataclass(frozen=True, slots=True)
class Member:
    """Takes part.

    Args:
        setting: who we are, and in which auction.
        awards: those that came, by task.
        status: where each stands.
        unsaid: tasks whose end the ledger has not confirmed yet.
        round: the newest question.
        quote: the answer to it; None while it is being costed.
        rounds: how many questions were costed.
        next_s: when what got no answer is asked again.
        heard: how many acts were refused.
    """

    setting: Setting
    awards: Mapping[str, Award] = field(default_factory=dict)
    status: Mapping[str, TaskStatus] = field(default_factory=dict)
    unsaid: frozenset[str] = frozenset()
    round: int = -1
    quote: Quote | None = None
    rounds: int = 0
    next_s: float = 0.0
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over for us: what we did, and why it ended."""

    status: Mapping[str, TaskStatus]
    reasons: tuple[str, ...]


State: TypeAlias = Member | Ended


@dataclass(frozen=True, slots=True)
class Costed:
    """What the sets of an inquiry cost; those that cannot be done are left out."""

    quote: Quote


@dataclass(frozen=True, slots=True)
class Performed:
    """How the work on one task ended."""

    task: str
    status: Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class CostBundles:
    """Compute what each set would cost; the answer comes back as `Costed`."""

    inquiry: Inquiry


@dataclass(frozen=True, slots=True)
class Perform:
    """Do a task, under this epoch; repeated after a restart, with the same ids of commands."""

    award: Award


Event: TypeAlias = Begin | Heard | Costed | LedgerSaid | Performed | Tick | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger | CostBundles | Perform
Result: TypeAlias = tuple[State, list[Effect]]


def quoted(inquiry: Inquiry, cost_of: Callable[[tuple[str, ...]], float]) -> Quote:
    """Return the answer to an inquiry; `cost_of`: the cost of a sorted set of tasks, infinite when impossible.

    A cost that is none (below 0, no number, above `MOST_COST`) is told as impossible.
    """
    costs = [(bundle.tasks, cost_of(tuple(sorted(bundle.tasks)))) for bundle in inquiry.bundles]
    told = tuple(BundleCost(tasks=tasks, cost=cost) for tasks, cost in costs if 0 <= cost <= MOST_COST)
    return Quote(round=inquiry.round, costs=told)


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    if isinstance(state, Ended):
        return state, [Refuse(event.sender, "late", "it is over here")] if isinstance(event, Heard) else []
    if not math.isfinite(state.setting.deadline_s):
        return Ended(state.status, (f"our deadline is no time: {state.setting.deadline_s:g}",)), [Save()]
    if not isinstance(event, (Costed, Performed)) and is_over(event.now_s, state.setting.deadline_s):
        return _over(state)
    match event:
        case Heard():
            return _heard(state, event)
        case Costed(quote) if quote.round == state.round and state.quote is None:
            return replace(state, quote=quote), [_told(state, quote)]
        case LedgerSaid(answer):
            return _ledger_said(state, answer)
        case Performed(task, status) if state.status.get(task) == "mine":
            return _performed(state, task, status)
        case Tick(now_s) if is_over(now_s, state.next_s):
            asks = _asks(state)
            again: list[Effect] = [StartTimer(ASK_AGAIN_S)] if asks else []
            return replace(state, next_s=now_s + ASK_AGAIN_S) if asks else state, [*asks, *again]
        case Begin(now_s) | Recovered(now_s):
            return _recovered(state, now_s)
        case _:
            return state, []


def _recovered(state: Member, now_s: float) -> Result:
    """Doubt what was ours until the ledger is read; what was being costed is costed when it is asked again."""
    doubtful: dict[str, TaskStatus] = {task: "doubtful" for task, is_ in state.status.items() if is_ == "mine"}
    round_ = state.round - 1 if state.quote is None and state.round >= 0 else state.round
    state = replace(state, status={**state.status, **doubtful}, round=round_, next_s=0.0)
    return state, [*_asks(state), StartTimer(ASK_AGAIN_S), StartTimer(state.setting.deadline_s - now_s)]


def _told(state: Member, quote: Quote) -> Tell:
    said: Act = act("propose", state.setting.conversation, quote=quote)
    return Tell(state.setting.auctioneer, said)


def _asks(state: Member) -> list[Effect]:
    """Return what the ledger has to be asked: for what is awarded, whether what was ours still is, to note ends."""
    me, asks = state.setting.me, list[Effect]()
    for task, status in state.status.items():
        if status == "taking":
            asks.append(AskLedger(TakeTask(task, state.awards[task].epoch, state.setting.incarnation)))
        elif status == "doubtful":
            asks.append(AskLedger(ReadTask(task)))
        elif task in state.unsaid and status in ("done", "failed"):
            asks.append(AskLedger(CloseTask(task, state.awards[task].epoch, me, status)))
    return asks


def _heard(state: Member, heard: Heard) -> Result:
    setting, said, sender = state.setting, heard.act, heard.sender
    if sender != setting.auctioneer:
        return state, [Refuse(sender, "not-invited", f"{sender!r} does not lead {setting.conversation!r}")]
    refused = objection(heard, setting.conversation, (setting.auctioneer,))
    if refused is None and said.performative == "cfp" and said.inquiry is not None:
        return _inquiry_heard(state, said.inquiry, sender)
    if refused is None and said.performative == "accept-proposal" and said.award is not None:
        return _award_heard(state, said.award, sender)
    if state.heard >= MOST_ACTS:
        return _refused(
            state, Refuse(sender, "too-many", f"more than {MOST_ACTS} acts of {sender!r} that mean nothing")
        )
    if refused is not None:
        return replace(state, heard=state.heard + 1), [*answered(refused, heard)]
    return _refused(state, Refuse(sender, "out-of-turn", f"{said.performative} means nothing here now"))


def _refused(state: Member, refused: Refuse) -> Result:
    return replace(state, heard=state.heard + 1), [refused]


def _inquiry_heard(state: Member, inquiry: Inquiry, sender: str) -> Result:
    if inquiry.round < state.round:
        return _refused(state, Refuse(sender, "stale-epoch", f"round {inquiry.round}, this is {state.round}"))
    if inquiry.round == state.round:
        if state.quote is not None:
            return state, [_told(state, state.quote)]
        return _refused(state, Refuse(sender, "repeated", f"round {inquiry.round} is being costed"))
    if state.rounds >= MOST_ROUNDS:
        return _refused(state, Refuse(sender, "too-many", f"more than {MOST_ROUNDS} questions in one auction"))
    return replace(state, round=inquiry.round, quote=None, rounds=state.rounds + 1), [CostBundles(inquiry)]


def _award_heard(state: Member, award: Award, sender: str) -> Result:
    task, setting = award.task, state.setting
    is_known = task in state.status
    is_newer = is_known and award.epoch > state.awards[task].epoch and state.status[task] in ("taking", "lost")
    if (is_known and not is_newer) or (not is_known and len(state.status) >= MOST_LOT):
        return _refused(state, Refuse(sender, "repeated", f"the award of {task!r} is being seen to"))
    state = replace(state, awards={**state.awards, task: award}, status={**state.status, task: "taking"})
    return state, [Save(), AskLedger(TakeTask(task, award.epoch, setting.incarnation)), StartTimer(ASK_AGAIN_S)]


def _ledger_said(state: Member, answer: LedgerAnswer) -> Result:
    entry, setting = answer.entry, state.setting
    before = state.status.get(entry.task)
    if entry.task in state.unsaid:
        is_said = entry.status in ("done", "failed") or entry.epoch > state.awards[entry.task].epoch
        return (replace(state, unsaid=state.unsaid - {entry.task}), [Save()]) if is_said else (state, [])
    if before not in ("taking", "doubtful"):
        return state, []
    award = state.awards[entry.task]
    ours = ("taken", setting.me, award.epoch, setting.incarnation)
    is_mine = (entry.status, entry.winner, entry.epoch, entry.incarnation) == ours
    if not is_mine and (entry.epoch < award.epoch or (before == "taking" and not answer.problem)):
        return state, []  # an answer to something else, or older than the award
    after: TaskStatus = "mine" if is_mine else "lost"
    state = replace(state, status={**state.status, entry.task: after})
    if not is_mine:
        return state, [Save()]
    told = act("inform", setting.conversation, award=award)
    return state, [Save(), Perform(award), Tell(setting.auctioneer, told)]


def _performed(state: Member, task: str, status: Literal["done", "failed"]) -> Result:
    setting, award = state.setting, state.awards[task]
    report = Report(task=task, epoch=award.epoch, status=status)
    told = act("inform" if status == "done" else "failure", setting.conversation, report=report)
    close = AskLedger(CloseTask(task, award.epoch, setting.me, status))
    state = replace(state, status={**state.status, task: status}, unsaid=state.unsaid | {task})
    return state, [Save(), close, Tell(setting.auctioneer, told), StartTimer(ASK_AGAIN_S)]


def _over(state: Member) -> Result:
    """End, and say in the ledger that what is not done has failed; what is being taken may be ours already."""
    left = [task for task, status in state.status.items() if status in ("taking", "mine", "doubtful")]
    failed: dict[str, TaskStatus] = dict.fromkeys(left, "failed")
    after = replace(state, status={**state.status, **failed}, unsaid=state.unsaid | set(left))
    reason = f"our deadline passed with {len(left)} tasks undone" if left else "our deadline passed, all was done"
    return Ended(after.status, (reason,)), [Save(), *_asks(after)]
