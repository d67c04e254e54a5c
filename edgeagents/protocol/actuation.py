"""One device's commands, one at a time: intent, SET, proof, outcome.

    Idle -> Intending -> Setting -> Proving -> Idle, with a `Finish` on each way out
                             \\-> Blocked    when a SET got no definite answer: it may still take effect

A blocked device takes no further command: core-command has no fence, so a straggler would put effects out of
order. How it is released again is left out here on purpose; it needs quarantine and agreeing reads.

Source: design.md sections 3.7 and 3.8.
"""

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edgeagents.model.message import Command, CommandKind, Outcome, OutcomeStatus
from edgeagents.model.site import Proof
from edgeagents.model.values import Value, same_value
from edgeagents.protocol.effects import ActuationEffect, Block, Finish, Read, Set, StartTimer, StoreIntent

FIRST_READ_AGAIN_S: Final = 0.05
LONGEST_READ_AGAIN_S: Final = 1.0


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
    """

    command: Command
    wanted: Value
    kind: CommandKind
    proof: Proof | None
    deadline_s: float
    sequence: int
    approver: str = ""


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
class Blocked:
    """A SET got no definite answer."""

    reason: str


State: TypeAlias = Idle | Intending | Setting | Proving | Blocked


@dataclass(frozen=True, slots=True)
class Begin:
    """Carry this out."""

    work: Work


@dataclass(frozen=True, slots=True)
class IntentStored:
    """The intent is on disk; `problem` says why the command is not covered any more (lease lost), or is empty."""

    now_s: float
    problem: str = ""


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
class SetSilent:
    """No definite answer: the effect may still come."""

    text: str


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


Event: TypeAlias = Begin | IntentStored | IntentLost | SetDone | SetRefused | SetSilent | ReadDone | ReadFailed | Tick


def step(state: State, event: Event) -> tuple[State, list[ActuationEffect]]:
    """Return the next state and what must be done about it.

    An event that does not fit the state changes nothing: it is a late or repeated answer.
    """
    match state, event:
        case Idle(), Begin(work):
            return Intending(work), [StoreIntent(work.command)]
        case Blocked(reason), Begin(work):
            return state, [_finish(work, "refused", f"device is blocked: {reason}")]
        case Intending(work), IntentLost(text):
            return Idle(), [_finish(work, "failed", f"intent not stored, so nothing was set: {text}")]
        case Intending(work), IntentStored(now_s, problem):
            return _intent_stored(work, now_s, problem)
        case Setting(work), SetRefused(text):
            return Idle(), [_finish(work, "failed", text)]
        case Setting(work), SetSilent(text):
            reason = f"command {work.command.id} got no definite answer: {text}"
            return Blocked(reason), [Block(work.command.device, reason), _finish(work, "uncertain", text)]
        case Setting(work), SetDone(now_s):
            return _set_done(work, now_s)
        case Proving(), ReadDone() | ReadFailed() | Tick():
            return _proving(state, event)
        case _:
            return state, []


def _intent_stored(work: Work, now_s: float, problem: str) -> tuple[State, list[ActuationEffect]]:
    if now_s > work.deadline_s:
        return Idle(), [_finish(work, "expired", "deadline passed before it could be set")]
    if problem:
        return Idle(), [_finish(work, "refused", problem)]
    return Setting(work), [Set(work.command, work.wanted)]


def _set_done(work: Work, now_s: float) -> tuple[State, list[ActuationEffect]]:
    if work.proof is None:
        return Idle(), [_finish(work, "unproven", "set; site.yaml names nothing to read back")]
    return Proving(work, now_s + work.proof.wait), [Read(work.command.device, work.proof.resource)]


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
    return Idle(), [_finish(work, "failed", f"not proven in {proof.wait:g} s: {problem}", last or None)]


def _say(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _finish(work: Work, status: OutcomeStatus, reason: str, read_back: str | None = None) -> Finish:
    command = work.command
    return Finish(
        Outcome(
            command_id=command.id, device=command.device, resource=command.resource, status=status, reason=reason,
            value=command.value, read_back=read_back, epoch=command.epoch, sequence=work.sequence,
            approver=work.approver,
        )
    )  # fmt: skip
