"""Contract net, the participant's side: a call becomes a bid or a refusal; an award is taken in the ledger, then done.

    Listening -> Estimating -> Bidding -> Taking -> Performing -> Ended

What is awarded counts only once the ledger says it is taken by us, under the epoch of the award. One that was
restarted reads the ledger before it acts. Its shell starts it with `Recovered`, the first time, too.
Each ends by its own deadline, whatever the initiator does.

Source: FIPA SC00029H; design.md section 5.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import Award, Bid, CallForProposals, Report
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
from edgeagents.protocol.task_ledger import CloseTask, Entry, ReadTask, TakeTask

ASK_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Setting:
    """Who we are, whose calls we hear, and when it is over for us, on our own clock."""

    me: str
    initiator: str
    conversation: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Listening:
    """A call is awaited."""

    setting: Setting


@dataclass(frozen=True, slots=True)
class Estimating:
    """What the task would cost is being computed."""

    setting: Setting
    call: CallForProposals
    until_s: float


@dataclass(frozen=True, slots=True)
class Bidding:
    """A bid was sent; the award is awaited."""

    setting: Setting
    call: CallForProposals
    cost: float


@dataclass(frozen=True, slots=True)
class Taking:
    """An award came; the ledger was asked whether the task is ours."""

    setting: Setting
    award: Award


@dataclass(frozen=True, slots=True)
class Performing:
    """The task is ours; `is_sure`: the ledger was read since the last start."""

    setting: Setting
    award: Award
    is_sure: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over for us, and why."""

    status: Literal["done", "failed", "not-mine"]
    reasons: tuple[str, ...]
    price: float = 0.0


Live: TypeAlias = Listening | Estimating | Bidding | Taking | Performing
State: TypeAlias = Live | Ended


@dataclass(frozen=True, slots=True)
class Estimated:
    """What it would cost; None: we cannot, or will not, and why."""

    cost: float | None
    now_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Performed:
    """How the work ended."""

    status: Literal["done", "failed"]
    now_s: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Compute what this would cost; the answer comes back as `Estimated`."""

    call: CallForProposals


@dataclass(frozen=True, slots=True)
class Perform:
    """Do the task, under this epoch; repeated after a restart, with the same ids of commands."""

    award: Award


Event: TypeAlias = Heard | Estimated | LedgerSaid | Performed | Tick | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger | Estimate | Perform
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    if isinstance(state, Ended):
        return state, [Refuse(event.sender, "late", "it is over here")] if isinstance(event, Heard) else []
    if isinstance(event, (Tick, Recovered, LedgerSaid)) and is_over(event.now_s, state.setting.deadline_s):
        return _over(state)
    match state, event:
        case _, Heard():
            return _heard(state, event)
        case Estimating(), Estimated(cost, now_s, reason):
            return _estimated(state, cost, now_s, reason)
        case Estimating(setting), Tick(now_s) if is_over(now_s, state.until_s):
            return Listening(setting), []
        case Taking(setting, award), Tick():
            return state, [_take(setting, award), StartTimer(ASK_AGAIN_S)]
        case Performing(_, award, False), Tick():
            return state, [AskLedger(ReadTask(award.task)), StartTimer(ASK_AGAIN_S)]
        case Taking(), LedgerSaid(answer):
            return _taken(state, answer.entry, answer.problem)
        case Performing(setting, award, False), LedgerSaid(answer):
            if _is_mine(setting, award, answer.entry):
                return Performing(setting, award), [Perform(award)]
            return Ended("not-mine", (f"the ledger says {answer.entry.status}, after a restart",)), [Save()]
        case Performing(setting, award, True), Performed(status):
            told = act("inform" if status == "done" else "failure", setting.conversation, report=_report(award, status))
            close = AskLedger(CloseTask(award.task, award.epoch, setting.me, status))
            return Ended(status, (f"the work is {status}",), award.price), [
                Save(),
                close,
                Tell(setting.initiator, told),
            ]
        case _, Recovered(now_s):
            state, effects = _recovered(state)
            return state, [*effects, StartTimer(state.setting.deadline_s - now_s)]
        case _:
            return state, []


def _report(award: Award, status: Literal["done", "failed"]) -> Report:
    return Report(task=award.task, epoch=award.epoch, status=status)


def _heard(state: Live, heard: Heard) -> Result:
    setting, said = state.setting, heard.act
    refused = objection(heard, setting.conversation, (setting.initiator,))
    if refused is not None:
        return state, [*answered(refused, heard)]
    if heard.now_s >= setting.deadline_s:
        return state, [Refuse(heard.sender, "late", "it is over here")]
    match said.performative:
        case "cfp":
            return _called(state, heard)
        case "accept-proposal":
            return _awarded(state, heard)
        case "reject-proposal" | "cancel" if isinstance(state, (Listening, Estimating, Bidding)):
            reason = said.reason or f"{heard.sender} said {said.performative}"
            return Ended("not-mine", (reason,)), [Save()]
        case _:
            return state, [Refuse(heard.sender, "out-of-turn", f"{said.performative} means nothing here now")]


def _called(state: Live, heard: Heard) -> Result:
    call = heard.act.call
    if call is None:
        return state, [Refuse(heard.sender, "no-content", "a call without a task")]
    if isinstance(state, Bidding) and call.epoch == state.call.epoch:
        return state, [_bid(state)]  # the first one may have been lost
    if isinstance(state, (Taking, Performing)) or (isinstance(state, Bidding) and call.epoch < state.call.epoch):
        return state, [Refuse(heard.sender, "stale-epoch", f"a call of epoch {call.epoch}: there was a later one")]
    if not heard.act.reply_by_s > 0:
        return state, [Refuse(heard.sender, "late", "the time for bids is over already")]
    estimating = Estimating(state.setting, call, heard.now_s + heard.act.reply_by_s)
    return estimating, [Estimate(call), StartTimer(heard.act.reply_by_s)]


def _estimated(state: Estimating, cost: float | None, now_s: float, reason: str) -> Result:
    setting = state.setting
    if now_s > state.until_s:
        return Listening(setting), []
    if cost is None:
        told = act("refuse", setting.conversation, reason=reason)
        return Listening(setting), [Tell(setting.initiator, told)]
    bidding = Bidding(setting, state.call, cost)
    return bidding, [Save(), _bid(bidding), StartTimer(max(0.0, setting.deadline_s - now_s))]


def _bid(state: Bidding) -> Tell:
    bid = Bid(cost=state.cost, epoch=state.call.epoch)
    return Tell(state.setting.initiator, act("propose", state.setting.conversation, bid=bid))


def _awarded(state: Live, heard: Heard) -> Result:
    award = heard.act.award
    if award is None:
        return state, [Refuse(heard.sender, "no-content", "an award of nothing")]
    if isinstance(state, (Taking, Performing)):
        return state, [Refuse(heard.sender, "repeated", f"the award of epoch {state.award.epoch} is being seen to")]
    if not isinstance(state, Bidding):
        return state, [Refuse(heard.sender, "out-of-turn", "an award of something we did not bid for")]
    if award.epoch <= state.call.epoch or award.task != state.call.task:
        return state, [Refuse(heard.sender, "stale-epoch", f"an award of epoch {award.epoch} for another call")]
    setting = state.setting
    return Taking(setting, award), [Save(), _take(setting, award), StartTimer(ASK_AGAIN_S)]


def _take(setting: Setting, award: Award) -> AskLedger:
    return AskLedger(TakeTask(award.task, award.epoch, setting.me))


def _is_mine(setting: Setting, award: Award, entry: Entry) -> bool:
    return (entry.status, entry.winner, entry.epoch) == ("taken", setting.me, award.epoch)


def _taken(state: Taking, entry: Entry, problem: str) -> Result:
    setting, award = state.setting, state.award
    if _is_mine(setting, award, entry):
        told = act("inform", setting.conversation, award=award)
        return Performing(setting, award), [Save(), Perform(award), Tell(setting.initiator, told)]
    if entry.task == award.task and problem:
        # It may be called for again: what was lost is this award alone.
        return Listening(setting), [Save()]
    return state, []


def _recovered(state: Live) -> tuple[Live, list[Effect]]:
    setting = state.setting
    match state:
        case Taking(_, award):
            return state, [_take(setting, award), StartTimer(ASK_AGAIN_S)]
        case Performing(_, award):
            return Performing(setting, award, is_sure=False), [AskLedger(ReadTask(award.task)), StartTimer(ASK_AGAIN_S)]
        case Estimating():
            return Listening(setting), []
        case _:
            return state, []


def _over(state: Live) -> Result:
    if isinstance(state, Performing):
        award, setting = state.award, state.setting
        close = AskLedger(CloseTask(award.task, award.epoch, setting.me, "failed"))
        return Ended("failed", ("our deadline passed before the work was done",)), [Save(), close]
    return Ended("not-mine", (f"our deadline passed while {type(state).__name__.lower()}",)), [Save()]
