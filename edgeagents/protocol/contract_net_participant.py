"""Contract net, the participant's side: a call becomes a bid or a refusal; an award is taken in the ledger, then done.

    Listening -> Estimating -> Bidding -> Taking -> Performing -> Reporting -> Ended

What is awarded counts only once the ledger says it is taken by us, this very incarnation, under the epoch of the
award; how the work ended counts once the ledger has that, and until then it is told again. One that was restarted
reads the ledger before it acts. Its shell starts it with `Recovered`, the first time, too.
Each ends by its own deadline, whatever the initiator does. A cancel ends all that was not begun; what was begun is to
be abandoned, which the shell does unless a command is stored already, and that is then reported as any end of work.

Source: FIPA SC00029H; design.md section 5.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from edgeagents.model.cooperation import Award, Bid, CallForProposals, Report
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
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
    is_time,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.sealed_bids import MOST_COST
from edgeagents.protocol.task_ledger import ENDED, CloseTask, Entry, LedgerAnswer, ReadTask, TakeTask


@dataclass(frozen=True, slots=True)
class Setting:
    """Who we are, whose calls we hear, and when it is over for us, on our own clock.

    `incarnation` is this copy's own: two copies of one agent are two. Whoever comes back with the saved state of one
    goes on as that one. `accepted_unix_ns`: when the initiator took the task in, as its call says; 0: it does not.
    """

    me: str
    initiator: str
    conversation: str
    deadline_s: float
    incarnation: str
    accepted_unix_ns: int = 0


@dataclass(frozen=True, slots=True)
class Listening:
    """A call is awaited; `heard`: how many acts the initiator has sent, here and in all that follows."""

    setting: Setting
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Estimating:
    """What the task would cost is being computed."""

    setting: Setting
    call: CallForProposals
    until_s: float
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Bidding:
    """A bid was sent; the award is awaited."""

    setting: Setting
    call: CallForProposals
    cost: float
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Taking:
    """An award came; the ledger was asked whether the task is ours, and is asked again at `again_s`."""

    setting: Setting
    award: Award
    again_s: float
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Performing:
    """The task is ours; `is_sure`: the ledger was read since the last start, else it is read again at `again_s`."""

    setting: Setting
    award: Award
    is_sure: bool = True
    again_s: float = 0.0
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Reporting:
    """The work has ended; the ledger was told so, and is told again at `again_s` until it has it."""

    setting: Setting
    award: Award
    status: Literal["done", "failed"]
    again_s: float
    heard: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over for us, and why."""

    status: Literal["done", "failed", "not-mine"]
    reasons: tuple[str, ...]
    price: float = 0.0


Asking: TypeAlias = Taking | Performing | Reporting
Live: TypeAlias = Listening | Estimating | Bidding | Asking
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


@dataclass(frozen=True, slots=True)
class Abandon:
    """Do not begin what can still be left undone; how the work ended comes back as `Performed` all the same."""

    reason: str


Event: TypeAlias = Heard | Estimated | LedgerSaid | Performed | Tick | Recovered
Effect: TypeAlias = ConversationEffect | AskLedger | Estimate | Perform | Abandon
Result: TypeAlias = tuple[State, list[Effect]]


def called_again(state: State, call: CallForProposals) -> Literal["same", "anew", "busy"]:
    """Return what a call is for the conversation of its name: its own, another task's, or one's that has to wait.

    An initiator that keeps its ledger in memory counts epochs from 0 after each start, and a task may get the name of a
    former one: only when it was accepted tells them apart. What was not taken is then forgotten; what was is finished.
    """
    if isinstance(state, Ended):
        return "same"
    known, told = state.setting.accepted_unix_ns, call.accepted_unix_ns
    if not known or not told or known == told:
        return "same"
    return "busy" if isinstance(state, (Performing, Reporting)) else "anew"


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    if isinstance(state, Ended):
        return state, [Refuse(event.sender, "late", "it is over here")] if isinstance(event, Heard) else []
    if not is_time(state.setting.deadline_s):
        return Ended("not-mine", (f"our deadline is {state.setting.deadline_s}: no time",)), [Save()]
    match state, event:
        case ((Taking() | Performing() | Reporting()), LedgerSaid(answer, now_s)):
            after, effects = _ledger_said(state, answer, now_s)
            if isinstance(after, Ended) or not is_over(now_s, state.setting.deadline_s):
                return after, effects
            return _over(state)
        case _, (Tick(now_s) | Recovered(now_s)) if is_over(now_s, state.setting.deadline_s):
            return _over(state)
        case _, Heard():
            return _heard(state, event)
        case Estimating(), Estimated(cost, now_s, reason):
            return _estimated(state, cost, now_s, reason)
        case Estimating(setting), Tick(now_s) if is_over(now_s, state.until_s):
            return Listening(setting, state.heard), []
        case Performing(setting, award, True), Performed(status, now_s):
            reporting = Reporting(setting, award, status, now_s, state.heard)
            asked, effects = _asked(reporting, now_s)
            return asked, [Save(), *effects]
        case ((Taking() | Reporting() | Performing(is_sure=False)), Tick(now_s)) if is_over(now_s, state.again_s):
            return _asked(state, now_s)
        case _, Recovered(now_s):
            state, effects = _recovered(state, now_s)
            return state, [*effects, StartTimer(state.setting.deadline_s - now_s)]
        case _:
            return state, []


def _recovered(state: Live, now_s: float) -> tuple[Live, list[Effect]]:
    match state:
        case Taking() | Reporting():
            return _asked(state, now_s)
        case Performing():
            return _asked(replace(state, is_sure=False), now_s)
        case Estimating(setting):
            return Listening(setting, state.heard), []
        case _:
            return state, []


def _over(state: Live) -> Result:
    """End at our deadline; what is ours and not done has failed, and what was told of it is told once more."""
    match state:
        case Performing():
            return Ended("failed", ("our deadline passed before the work was done",)), [Save(), _close(state, "failed")]
        case Reporting(status=status):
            reasons = (f"the work is {status}", "our deadline passed before the ledger had that")
            return Ended(status, reasons), [Save(), _close(state, status)]
        case _:
            return Ended("not-mine", (f"our deadline passed while {type(state).__name__.lower()}",)), [Save()]


# --- acts ------------------------------------------------------------------------------------------


def _heard(state: Live, heard: Heard) -> Result:
    setting, said = state.setting, heard.act
    counts, refused = admitted(heard, setting.conversation, (setting.initiator,), {setting.initiator: state.heard})
    state = replace(state, heard=counts[setting.initiator])
    if refused:
        return state, [*refused]
    if heard.now_s >= setting.deadline_s:
        return state, [Refuse(heard.sender, "late", "it is over here")]
    match said.performative:
        case "cfp":
            return _called(state, heard)
        case "accept-proposal":
            return _awarded(state, heard)
        case "reject-proposal" if isinstance(state, (Listening, Estimating, Bidding)):
            return Ended("not-mine", (said.reason or f"{heard.sender} said {said.performative}",)), [Save()]
        case "cancel" if not isinstance(state, Reporting):
            return _cancelled(state, said.reason or f"{heard.sender} said {said.performative}")
        case _:
            return state, [Refuse(heard.sender, "out-of-turn", f"{said.performative} means nothing here now")]


def _cancelled(state: Live, reason: str) -> Result:
    """End what was not begun: a cancel is told once the ledger has it, so an answer `taken` that is on its way is old.

    Of work that is under way nobody but its shell knows whether it can still be left undone.
    """
    match state:
        case Performing(is_sure=True):
            return state, [Abandon(reason)]
        case Performing():  # restarted, and nothing is done again: how it stood before, nobody knows
            return Ended("failed", (reason,)), [Save()]
        case _:
            return Ended("not-mine", (reason,)), [Save()]


def _called(state: Live, heard: Heard) -> Result:
    call, left_s = heard.act.call, heard.act.reply_by_s
    if call is None:
        return state, [Refuse(heard.sender, "no-content", "a call without a task")]
    if isinstance(state, Bidding) and call.epoch == state.call.epoch:
        return state, [_bid(state)]  # the first one may have been lost
    if not isinstance(state, (Listening, Estimating, Bidding)) or (
        not isinstance(state, Listening) and call.epoch < state.call.epoch
    ):
        return state, [Refuse(heard.sender, "stale-epoch", f"a call of epoch {call.epoch}: there was a later one")]
    if not left_s > 0:
        return state, [Refuse(heard.sender, "late", "the time for bids is over already")]
    estimating = Estimating(state.setting, call, heard.now_s + left_s, state.heard)
    if isinstance(state, Estimating) and call == state.call:
        return estimating, [StartTimer(left_s)]  # it is being computed
    return estimating, [Estimate(call), StartTimer(left_s)]


def _estimated(state: Estimating, cost: float | None, now_s: float, reason: str) -> Result:
    setting = state.setting
    if now_s > state.until_s:
        return Listening(setting, state.heard), []
    if cost is not None and not 0 <= cost <= MOST_COST:
        cost, reason = None, f"what it would cost came to {cost}: no cost"
    if cost is None:
        told = act("refuse", setting.conversation, reason=reason[:MAX_REASON_CHARS])
        return Listening(setting, state.heard), [Tell(setting.initiator, told)]
    bidding = Bidding(setting, state.call, cost, state.heard)
    return bidding, [Save(), _bid(bidding), StartTimer(max(0.0, setting.deadline_s - now_s))]


def _bid(state: Bidding) -> Tell:
    bid = Bid(cost=state.cost, epoch=state.call.epoch)
    return Tell(state.setting.initiator, act("propose", state.setting.conversation, bid=bid))


def _awarded(state: Live, heard: Heard) -> Result:
    award = heard.act.award
    if award is None:
        return state, [Refuse(heard.sender, "no-content", "an award of nothing")]
    if isinstance(state, (Taking, Performing, Reporting)):
        return state, [Refuse(heard.sender, "repeated", f"the award of epoch {state.award.epoch} is being seen to")]
    if not isinstance(state, Bidding):
        return state, [Refuse(heard.sender, "out-of-turn", "an award of something we did not bid for")]
    if award.epoch <= state.call.epoch or award.task != state.call.task:
        return state, [Refuse(heard.sender, "stale-epoch", f"an award of epoch {award.epoch} for another call")]
    taking, effects = _asked(Taking(state.setting, award, heard.now_s, state.heard), heard.now_s)
    return taking, [Save(), *effects]


# --- the ledger ------------------------------------------------------------------------------------


def _asked(state: Asking, now_s: float) -> tuple[Asking, list[Effect]]:
    """Return the state with what it asks of the ledger, and when it will ask again."""
    match state:
        case Taking(setting, award):
            ask = AskLedger(TakeTask(award.task, award.epoch, setting.incarnation))
        case Performing(_, award):
            ask = AskLedger(ReadTask(award.task))
        case Reporting(status=status):
            ask = _close(state, status)
    return replace(state, again_s=now_s + ASK_AGAIN_S), [ask, StartTimer(ASK_AGAIN_S)]


def _close(state: Performing | Reporting, status: Literal["done", "failed"]) -> AskLedger:
    return AskLedger(CloseTask(state.award.task, state.award.epoch, state.setting.me, status))


def _ledger_said(state: Asking, answer: LedgerAnswer, now_s: float) -> Result:
    """Follow an answer; one of another task, or from before our award, says nothing."""
    entry, award = answer.entry, state.award
    if entry.task != award.task or entry.epoch < award.epoch:
        return state, []
    me, incarnation = state.setting.me, state.setting.incarnation
    was_ours = (entry.winner, entry.epoch, entry.incarnation) == (me, award.epoch, incarnation)
    if was_ours and entry.status in ENDED:
        return _ended(state, entry)
    is_anothers = not was_ours and (entry.epoch > award.epoch or entry.status in ("taken", *ENDED))
    match state:
        case Taking(setting) if was_ours and entry.status == "taken":
            told = act("inform", setting.conversation, award=award)
            performing = Performing(setting, award, heard=state.heard)
            return performing, [Save(), Perform(award), Tell(setting.initiator, told)]
        case Taking(setting) if answer.problem:
            # It may be called for again: what was lost is this award alone.
            return Listening(setting, state.heard), [Save()]
        case Performing(is_sure=False) if was_ours and entry.status == "taken":
            return replace(state, is_sure=True), [Perform(award)]
        case Performing(is_sure=False) | Reporting() if is_anothers:
            return Ended("not-mine", (f"the ledger says {entry.status}, and not by us",)), [Save()]
        case _:
            return state, []


def _ended(state: Asking, entry: Entry) -> Result:
    """End as the ledger has it, and tell the initiator, which may read it there."""
    setting, award = state.setting, state.award
    status: Literal["done", "failed"] = "done" if entry.status == "done" else "failed"
    reasons: tuple[str, ...] = (f"the ledger has it {status}",)
    if isinstance(state, Reporting):
        reasons = (f"the work is {state.status}", *reasons)
    report = Report(task=award.task, epoch=award.epoch, status=status)
    told = act("inform" if status == "done" else "failure", setting.conversation, report=report)
    return Ended(status, reasons, award.price if status == "done" else 0.0), [Save(), Tell(setting.initiator, told)]
