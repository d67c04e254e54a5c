"""The bidder's side of an auction: says what sets of tasks would cost, takes what it is awarded, does it.

    Member (quotes, takes, performs; one set of tasks each) -> Ended

A task is this bidder's once the ledger says so, under the epoch of the award; after a restart the ledger is read
before anything is done. It ends by its own deadline, or when all it has taken is done and no award is on its way.

Source: design.md section 5; `auction.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import Act, Award, BundleCost, Inquiry, Quote, Report
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import (
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
from edgeagents.protocol.plans import INFEASIBLE
from edgeagents.protocol.task_ledger import CloseTask, LedgerAnswer, ReadTask, TakeTask

ASK_AGAIN_S: Final = 0.5
MOST_AWARDS: Final = 256
TaskStatus: TypeAlias = Literal["taking", "mine", "doubtful", "done", "failed", "lost"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Who we are, whose auction it is, and when it is over for us, on our own clock."""

    me: str
    auctioneer: str
    conversation: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Member:
    """Takes part; `awards` and where each stands, by task."""

    setting: Setting
    awards: Mapping[str, Award] = field(default_factory=dict)
    status: Mapping[str, TaskStatus] = field(default_factory=dict)


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


Event: TypeAlias = Heard | Costed | LedgerSaid | Performed | Tick | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger | CostBundles | Perform
Result: TypeAlias = tuple[State, list[Effect]]


def quoted(inquiry: Inquiry, cost_of: Callable[[tuple[str, ...]], float]) -> Quote:
    """Return the answer to an inquiry; `cost_of`: the cost of a sorted set of tasks, infinite when impossible."""
    costs = [(bundle.tasks, cost_of(tuple(sorted(bundle.tasks)))) for bundle in inquiry.bundles]
    told = tuple(BundleCost(tasks=tasks, cost=cost) for tasks, cost in costs if cost < INFEASIBLE)
    return Quote(round=inquiry.round, costs=told)


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    if isinstance(state, Ended):
        return state, [Refuse(event.sender, "late", "it is over here")] if isinstance(event, Heard) else []
    if isinstance(event, (Tick, Recovered, LedgerSaid, Heard)) and is_over(event.now_s, state.setting.deadline_s):
        return _over(state)
    match event:
        case Heard():
            return _heard(state, event)
        case Costed(quote):
            said: Act = act("propose", state.setting.conversation, quote=quote)
            return state, [Tell(state.setting.auctioneer, said)]
        case LedgerSaid(answer):
            return _ledger_said(state, answer)
        case Performed(task, status) if state.status.get(task) == "mine":
            return _performed(state, task, status)
        case Tick():
            asks = _asks(state)
            return state, [*asks, *([StartTimer(ASK_AGAIN_S)] if asks else [])]
        case Recovered(now_s):
            doubtful: dict[str, TaskStatus] = {task: "doubtful" for task, is_ in state.status.items() if is_ == "mine"}
            state = replace(state, status={**state.status, **doubtful})
            return state, [*_asks(state), StartTimer(ASK_AGAIN_S), StartTimer(state.setting.deadline_s - now_s)]
        case _:
            return state, []


def _asks(state: Member) -> list[Effect]:
    """Return what the ledger has to be asked: whether what was awarded is ours, and whether what was ours still is."""
    me, asks = state.setting.me, list[Effect]()
    for task, status in state.status.items():
        if status == "taking":
            asks.append(AskLedger(TakeTask(task, state.awards[task].epoch, me)))
        elif status == "doubtful":
            asks.append(AskLedger(ReadTask(task)))
    return asks


def _heard(state: Member, heard: Heard) -> Result:
    setting, said, sender = state.setting, heard.act, heard.sender
    refused = objection(heard, setting.conversation, (setting.auctioneer,))
    if refused is not None:
        return state, [*answered(refused, heard)]
    if said.performative == "cfp" and said.inquiry is not None:
        return state, [CostBundles(said.inquiry)]
    if said.performative == "accept-proposal" and said.award is not None:
        task = said.award.task
        if task in state.status or len(state.status) >= MOST_AWARDS:
            return state, [Refuse(sender, "repeated", f"the award of {task!r} is being seen to")]
        awards, status = {**state.awards, task: said.award}, {**state.status, task: "taking"}
        state = replace(state, awards=awards, status=status)
        return state, [Save(), AskLedger(TakeTask(task, said.award.epoch, setting.me)), StartTimer(ASK_AGAIN_S)]
    return state, [Refuse(sender, "out-of-turn", f"{said.performative} means nothing here now")]


def _ledger_said(state: Member, answer: LedgerAnswer) -> Result:
    entry, setting = answer.entry, state.setting
    before = state.status.get(entry.task)
    if before not in ("taking", "doubtful"):
        return state, []
    award = state.awards[entry.task]
    is_mine = (entry.status, entry.winner, entry.epoch) == ("taken", setting.me, award.epoch)
    if not is_mine and before == "taking" and not answer.problem:
        return state, []  # an answer to something else
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
    return replace(state, status={**state.status, task: status}), [Save(), close, Tell(setting.auctioneer, told)]


def _over(state: Member) -> Result:
    """End, and say in the ledger that what is not done has failed."""
    setting = state.setting
    left = [task for task, status in state.status.items() if status in ("mine", "doubtful")]
    closes = [AskLedger(CloseTask(task, state.awards[task].epoch, setting.me, "failed")) for task in left]
    failed: dict[str, TaskStatus] = dict.fromkeys(left, "failed")
    reason = f"our deadline passed with {len(left)} tasks undone" if left else "our deadline passed, all was done"
    return Ended({**state.status, **failed}, (reason,)), [Save(), *closes]
