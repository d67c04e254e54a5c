"""One device's commands, one at a time: intent, SET, proof, outcome.

    Idle -> Intending -> Setting -> Proving -> Idle, with a `Finish` on each way out
                            \\-> Quarantined    when nobody knows whether the SET had, or will have, its effect

core-command has no fence and no timeout towards the device's service: a SET without a definite answer may take
effect at any time. Its device then takes no further command until a read shows that the effect is there, or until
quarantine is over and two reads agree, or so many do not that it changes by itself. A SET that the guard had written
down before it was killed is found out about in the same way. An absolute value that is not there may be set once
more; a step or a toggle may not.

What takes effect after that is another matter: `protocol/overrides.py` finds and corrects it.

Source: design.md sections 3.7 and 3.8.
"""

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edgeagents.model.message import CauseKind, Command, CommandKind, Outcome, OutcomeStatus
from edgeagents.model.site import Proof
from edgeagents.model.values import Value, same_value
from edgeagents.protocol.effects import (
    ActuationEffect,
    Block,
    Finish,
    Read,
    Release,
    Set,
    StartTimer,
    StoreIntent,
    WakeLater,
)

FIRST_READ_AGAIN_S: Final = 0.05
LONGEST_READ_AGAIN_S: Final = 1.0
AGREEING_READS: Final = 2
CHANGING_READS: Final = 8  # each unlike the one before: no two will ever agree
BETWEEN_AGREEING_S: Final = 0.2
DEFAULT_QUARANTINE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Work:
    """A command that passed the gate.

    Args:
        command: its value in EdgeX's canonical text.
        wanted: the value itself.
        kind: what repeating it would do.
        proof: how to know it happened; None: it cannot be known.
        deadline_s: on the guard's monotonic clock.
        sequence: place in the command stream.
        approver: who let it pass; empty when nobody had to.
        before: what the proof resource showed when the intent was written down; None: not known.
        quarantine_s: how long the device is left alone after a SET without a definite answer.
        is_repeated: it was set again already; no third time.
    """

    command: Command
    wanted: Value
    kind: CommandKind
    proof: Proof | None
    deadline_s: float
    sequence: int
    approver: str = ""
    before: Value = None
    quarantine_s: float = DEFAULT_QUARANTINE_S
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is under way."""


@dataclass(frozen=True, slots=True)
class Intending:
    """The intent is being written down."""

    work: Work


@dataclass(frozen=True, slots=True)
class Setting:
    """core-command was asked to set; its answer is awaited."""

    work: Work


@dataclass(frozen=True, slots=True)
class Proving:
    """The SET was answered; the device is read until it shows the value or `until_s` is over."""

    work: Work
    until_s: float
    again_s: float = FIRST_READ_AGAIN_S
    last: str = ""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Nobody knows whether a SET had its effect, or still will have.

    Args:
        work: the command.
        reason: in words.
        until_s: earliest end, on the guard's monotonic clock.
        again_s: pause before the next read.
        seen: what the last read showed, as a value and as text.
        agreeing: how many reads in a row showed it.
        seen_s: when the last of them was made.
        is_told: its outcome was told: the device could not be read when quarantine was over.
        changing: how many reads in a row showed another value than the one before.
    """

    work: Work
    reason: str
    until_s: float
    again_s: float = FIRST_READ_AGAIN_S
    seen: tuple[Value, str] = (None, "")
    agreeing: int = 0
    seen_s: float = 0.0
    is_told: bool = False
    changing: int = 0


State: TypeAlias = Idle | Intending | Setting | Proving | Quarantined


@dataclass(frozen=True, slots=True)
class Begin:
    """Carry this out."""

    work: Work


@dataclass(frozen=True, slots=True)
class Recovered:
    """The intent of this was on disk when the guard was killed; find out, for at least until `until_s`.

    `is_told`: its outcome was told before, only its device is not released yet.
    """

    work: Work
    reason: str
    until_s: float
    is_told: bool = False


@dataclass(frozen=True, slots=True)
class IntentStored:
    """The intent is on disk; `problem` says why the command is not covered any more (lease lost), or is empty."""

    now_s: float
    problem: str = ""
    cause: CauseKind = ""


@dataclass(frozen=True, slots=True)
class IntentLost:
    """The intent could not be stored: then nothing may be actuated."""

    text: str


@dataclass(frozen=True, slots=True)
class SetDone:
    """core-command said yes."""

    now_s: float


@dataclass(frozen=True, slots=True)
class SetRefused:
    """core-command or the device service said no, or the request was never sent: no effect."""

    text: str


@dataclass(frozen=True, slots=True)
class SetStopped:
    """The last look before sending found that it may not go out any more; nothing was sent."""

    status: OutcomeStatus
    text: str
    cause: CauseKind = ""


@dataclass(frozen=True, slots=True)
class SetSilent:
    """No definite answer: the effect may still come."""

    text: str
    now_s: float


@dataclass(frozen=True, slots=True)
class ReadDone:
    """The proof resource was read."""

    value: Value
    text: str
    now_s: float


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """The proof resource could not be read."""

    text: str
    now_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """The timer ran out."""

    now_s: float


Event: TypeAlias = (
    Begin
    | Recovered
    | IntentStored
    | IntentLost
    | SetDone
    | SetRefused
    | SetStopped
    | SetSilent
    | ReadDone
    | ReadFailed
    | Tick
)


def step(state: State, event: Event) -> tuple[State, list[ActuationEffect]]:
    """Return the next state and what must be done about it.

    An event that does not fit the state changes nothing: it is a late or repeated answer.
    """
    match state, event:
        case Idle(), Begin(work):
            return Intending(work), [StoreIntent(work.command)]
        case Idle(), Recovered(work, reason, until_s, is_told):
            return _doubted(work, reason, until_s, is_told)
        case Intending(work), IntentLost(text):
            return _ended(work, "failed", f"intent not stored, so nothing was set: {text}", "storage")
        case Intending(work), IntentStored():
            return _intent_stored(work, event)
        case Setting(work), SetStopped(status, text, cause):
            return _ended(work, status, text, cause)
        case Setting(work), SetRefused(text):
            return _ended(work, "failed", text, "device")
        case Setting(work), SetSilent(text, now_s):
            reason = f"command {work.command.id} got no definite answer: {text}"
            return _doubted(work, reason, now_s + work.quarantine_s)
        case Setting(work), SetDone(now_s):
            return _set_done(work, now_s)
        case Proving(), ReadDone() | ReadFailed() | Tick():
            return _proving(state, event)
        case Quarantined(), ReadDone() | ReadFailed() | Tick():
            return _quarantined(state, event)
        case _:
            return state, []


def _intent_stored(work: Work, stored: IntentStored) -> tuple[State, list[ActuationEffect]]:
    if stored.now_s > work.deadline_s:
        return _ended(work, "expired", "deadline passed before it could be set", "late")
    if stored.problem:
        return _ended(work, "refused", stored.problem, stored.cause)
    return Setting(work), [Set(work.command, work.wanted)]


def _ended(work: Work, status: OutcomeStatus, reason: str, cause: CauseKind) -> tuple[State, list[ActuationEffect]]:
    """End a command that had no effect; one that is set again may have had it the first time."""
    if not work.is_repeated:
        return Idle(), [_finish(work, status, reason, cause=cause)]
    text = f"no definite answer at first, and not set again: {reason}"
    return Idle(), [Release(work.command.device), _finish(work, "uncertain", text, cause=cause)]


def _set_done(work: Work, now_s: float) -> tuple[State, list[ActuationEffect]]:
    release: list[ActuationEffect] = [Release(work.command.device)] if work.is_repeated else []
    if work.proof is None:
        return Idle(), [*release, _finish(work, "unproven", "set; site.yaml names nothing to read back")]
    return Proving(work, now_s + work.proof.wait), [*release, Read(work.command.device, work.proof.resource)]


def _proving(state: Proving, event: ReadDone | ReadFailed | Tick) -> tuple[State, list[ActuationEffect]]:
    work, proof = state.work, state.work.proof
    if proof is None:
        raise AssertionError("Proving without a proof")
    read = Read(work.command.device, proof.resource)
    match event:
        case Tick():
            return state, [read]
        case ReadDone(value, text, _) if same_value(value, work.wanted, proof.tolerance):
            return Idle(), [_finish(work, "proven", f"{proof.resource} reads {_say(value)}", text)]
        case ReadDone(value, last, now):
            problem = f"{proof.resource} reads {_say(value)}, wanted {_say(work.wanted)}"
        case ReadFailed(problem, now):
            last = state.last
    if now < state.until_s:
        again = min(state.again_s * 2, LONGEST_READ_AGAIN_S)
        return replace(state, again_s=again, last=last), [StartTimer(min(state.again_s, state.until_s - now))]
    text = f"not proven in {proof.wait:g} s: {problem}"
    return Idle(), [_finish(work, "failed", text, last or None, cause="proof")]


# --- quarantine ----------------------------------------------------------------------------------


def _doubted(work: Work, reason: str, until_s: float, is_told: bool = False) -> tuple[State, list[ActuationEffect]]:
    block = Block(work.command.device, reason)
    if work.proof is not None or is_told:
        return Quarantined(work, reason, until_s, is_told=is_told), [block, WakeLater(0.0)]
    # Nothing will ever tell: its agent need not wait for that.
    told = _finish(work, "uncertain", f"{reason}; site.yaml names nothing that tells its effect")
    return Quarantined(work, reason, until_s, is_told=True), [block, told, WakeLater(0.0)]


def _quarantined(state: Quarantined, event: ReadDone | ReadFailed | Tick) -> tuple[State, list[ActuationEffect]]:
    proof = state.work.proof
    match event:
        case Tick(now_s) if proof is None and now_s < state.until_s:
            return state, [WakeLater(state.until_s - now_s)]
        case Tick() if proof is None:
            return _released(state, "uncertain", state.reason)
        case Tick() if proof is not None:
            return state, [Read(state.work.command.device, proof.resource)]
        case ReadDone(value, text, now_s) if proof is not None:
            return _seen(state, proof, value, text, now_s)
        case ReadFailed(text, now_s):
            return _unreadable(state, text, now_s)
        case _:
            return state, []


def _seen(
    state: Quarantined, proof: Proof, value: Value, text: str, now_s: float
) -> tuple[State, list[ActuationEffect]]:
    work = state.work
    is_wanted = same_value(value, work.wanted, proof.tolerance)
    if is_wanted and work.before is not None and not same_value(work.before, work.wanted, proof.tolerance):
        # It was not so before: the SET did it, so nothing of it can come any more.
        return _released(state, "proven", f"{proof.resource} reads {_say(value)}", text, settles=True)
    agrees = state.agreeing > 0 and same_value(value, state.seen[0], proof.tolerance)
    if agrees and now_s - state.seen_s < BETWEEN_AGREEING_S:
        return _again(state, now_s)
    changing = 0 if agrees else state.changing + 1
    agreeing = state.agreeing + 1 if agrees else 1
    state = replace(state, seen=(value, text), agreeing=agreeing, seen_s=now_s, changing=changing)
    if now_s >= state.until_s and changing > CHANGING_READS:
        return _released(state, "uncertain", f"{state.reason}; {proof.resource} keeps no value", text)
    if now_s < state.until_s or state.agreeing < AGREEING_READS:
        return _again(state, now_s)
    if is_wanted:
        return _released(state, "proven", f"{proof.resource} reads {_say(value)}", text)
    if _may_repeat(state, proof, value, now_s):
        return Intending(replace(work, is_repeated=True)), [StoreIntent(work.command)]
    told = f"{state.reason}; {state.agreeing} reads agree: {proof.resource} reads {_say(value)}"
    return _released(state, "failed" if work.kind == "absolute" else "uncertain", told, text)


def _may_repeat(state: Quarantined, proof: Proof, value: Value, now_s: float) -> bool:
    """Say whether a value may be set once more: absolute, in time, and nothing has changed since the intent."""
    work = state.work
    is_unchanged = work.before is not None and same_value(value, work.before, proof.tolerance)
    return (
        work.kind == "absolute"
        and not work.is_repeated
        and not state.is_told
        and now_s <= work.deadline_s
        and is_unchanged
    )


def _unreadable(state: Quarantined, text: str, now_s: float) -> tuple[State, list[ActuationEffect]]:
    state = replace(state, agreeing=0)
    if now_s < state.until_s or state.is_told:
        return _again(state, now_s)
    # Its agent has waited long enough; the device stays alone until two reads agree.
    told = _finish(state.work, "uncertain", f"{state.reason}; it cannot be read either: {text}")
    held, effects = _again(replace(state, is_told=True), now_s)
    return held, [told, *effects]


def _again(state: Quarantined, now_s: float) -> tuple[State, list[ActuationEffect]]:
    pause_s = max(state.again_s, BETWEEN_AGREEING_S if state.agreeing else 0.0)
    if state.agreeing and now_s < state.until_s:
        pause_s = min(pause_s, max(BETWEEN_AGREEING_S, state.until_s - now_s))
    return replace(state, again_s=min(state.again_s * 2, LONGEST_READ_AGAIN_S)), [WakeLater(pause_s)]


def _released(
    state: Quarantined, status: OutcomeStatus, reason: str, read_back: str | None = None, *, settles: bool = False
) -> tuple[State, list[ActuationEffect]]:
    effects: list[ActuationEffect] = [Release(state.work.command.device)]
    if not state.is_told:
        cause: CauseKind = "" if status == "proven" else "proof"
        effects.append(replace(_finish(state.work, status, reason, read_back, cause=cause), settles=settles))
    return Idle(), effects


def _say(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _finish(
    work: Work, status: OutcomeStatus, reason: str, read_back: str | None = None, *, cause: CauseKind = ""
) -> Finish:
    command = work.command
    return Finish(
        Outcome(
            command_id=command.id, device=command.device, resource=command.resource, status=status, reason=reason,
            value=command.value, read_back=read_back, epoch=command.epoch, sequence=work.sequence,
            approver=work.approver, cause_kind=cause,
        )
    )  # fmt: skip
