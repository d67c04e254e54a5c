"""What was settled about a resource, and what that means for a wish of ours. Pure: values in, values out.

While an outcome stands, its winner gives the agreed value whatever it wishes; the others leave the resource alone for
a moment, in which the winner takes the lease: from then on the guard's lease keeps them back, not a word.
Once its time is over the others are free; the winner asks again before it departs from it, so that a compromise is not
followed by a tug of war. Nothing here forces anybody: the guard's leases and its gate judge each command as ever.

Source: design.md section 5; docs/conflicts.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import Dispute, Settlement
from edgeagents.protocol.gate import Key

LONGEST_S: Final = 3_600.0  # no outcome binds us longer, whatever we are told
BACK_S: Final = (
    10.0  # so long a loser asks for nothing; then its wish asks the guard as ever, and a dead winner's lease is free
)
# Where a class or a lease decided, the winner has its own way and may change its mind: nobody binds those above.
BARGAINED: Final = ("nash", "offers", "vote")
Cause: TypeAlias = Literal["not-party", "late", "other-resource", "unknown-option", "unknown-winner"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """An outcome that stands.

    Args:
        conflict: its name.
        word: the agreed value.
        is_ours: whether it is ours to give.
        others: the other parties, whoever gives it first; empty: we are not bound.
        until_s: as long as it stands, on the party's own clock.
        back_s: until when a loser asks not even the guard, on the same clock.
        asked: whether it is being asked anew, its time being over.
    """

    conflict: str
    word: str
    is_ours: bool
    others: tuple[str, ...]
    until_s: float
    back_s: float = 0.0
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Party:
    """Our part in a conflict that is being settled.

    Args:
        dispute: as we were asked; its `others` are all parties.
        until_s: our own deadline, after it nothing comes of it.
        is_bound: we bargain; who gave way, or cannot say, hears the outcome as news.
    """

    dispute: Dispute
    until_s: float
    is_bound: bool = True


@dataclass(frozen=True, slots=True)
class Free:
    """Nothing stands in the way."""


@dataclass(frozen=True, slots=True)
class Instead:
    """The agreed value is given instead."""

    word: str
    reason: str


@dataclass(frozen=True, slots=True)
class HeldBack:
    """It is left undone, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class AskAnew:
    """What was agreed is over, and ours: ask the others before departing from it."""

    others: tuple[str, ...]
    reason: str


Ruling: TypeAlias = Free | Instead | HeldBack | AskAnew


def ruling(agreement: Agreement | None, word: str, now_s: float) -> Ruling:
    """Return what an agreement on its resource means for a wish of ours.

    Args:
        agreement: the newest one on the resource, None: there is none.
        word: the value that is wished for, in words.
        now_s: on the clock of `until_s`.
    """
    if agreement is None:
        return Free()
    name, stands = agreement.conflict, now_s < agreement.until_s
    if not agreement.is_ours:
        is_back = now_s < agreement.back_s
        return HeldBack(f"stands back: {name} gave it to {agreement.others[0]}") if is_back else Free()
    if word == agreement.word or not agreement.others:
        return Free()
    if stands:
        return Instead(agreement.word, f"agreed in {name}")
    if agreement.asked:
        return HeldBack(f"asks anew before it departs from {name}")
    return AskAnew(agreement.others, f"asks anew before it departs from {name}")


def asked_anew(agreement: Agreement) -> Agreement:
    """Return an agreement whose parties are being asked anew."""
    return replace(agreement, asked=True)


def problem(party: Party | None, said: Settlement, now_s: float) -> tuple[Cause, str] | None:
    """Return why a settlement has no effect on us, None when it has.

    Args:
        party: our part in that conflict; None: we have none.
        said: what we were told.
        now_s: on our own clock.
    """
    if party is None:
        return "not-party", "a settlement of a conflict that we have no part in"
    if now_s >= party.until_s:
        return "late", "a settlement after our own deadline"
    dispute = party.dispute
    if (said.device, said.resource) != (dispute.device, dispute.resource):
        return "other-resource", f"it is about {said.device}/{said.resource}, not what we were asked about"
    if not said.winner:
        return None
    if said.winner not in dispute.others:
        return "unknown-winner", f"{said.winner!r} is no party"
    if said.value not in dispute.options:
        return "unknown-option", f"{said.value!r} is none of the options"
    return None


def agreed(conflict: str, party: Party, said: Settlement, me: str, now_s: float) -> Agreement | None:
    """Return what stands from now on by a settlement that has an effect; None: nothing does, all goes on as it was."""
    if not said.winner:
        return None
    is_ours = said.winner == me
    is_bound = said.stands_s > 0 and (not is_ours or said.rung in BARGAINED)
    others = tuple(name for name in party.dispute.others if name != me) if is_bound else ()
    ordered = tuple(sorted(others, key=lambda name: name != said.winner))  # whoever gives it comes first
    until_s = now_s + min(said.stands_s, LONGEST_S)
    return Agreement(conflict, said.value, is_ours, ordered, until_s, min(until_s, now_s + BACK_S))


def left(parts: Mapping[str, Party], agreements: Mapping[Key, Agreement], barred: Callable[[str], str],
         now_s: float) -> dict[str, str]:  # fmt: skip
    """Return the conflicts that we are out of by the owner's order, and why: those we bargain in, those we agreed in.

    Args:
        parts: our parts in what is being settled, by conflict.
        agreements: what stands, by resource.
        barred: says why we may command nothing at a device; empty: we may.
        now_s: on our own clock.
    """
    open_ = {name: party.dispute.device for name, party in parts.items() if party.is_bound and now_s < party.until_s}
    agreed_ = {item.conflict: key[0] for key, item in agreements.items() if now_s < item.until_s}
    found = {name: barred(device) for name, device in {**open_, **agreed_}.items()}
    return {name: reason for name, reason in found.items() if reason}


def key_of(dispute: Dispute) -> Key:
    """Return the device resource that a conflict is about."""
    return dispute.device, dispute.resource
