"""What a conflict is while it is settled: what was asked of whom, what was heard, what comes of it. Values alone.

Source: docs/conflicts.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edgeagents.model.agent import Priority
from edgeagents.model.cooperation import Appraisal, Dispute
from edgeagents.protocol.ladder import Rung

VOTE_S: Final = 1.0  # and as long for offers: parties that tell their utilities do not haggle, they leave at once


@dataclass(frozen=True, slots=True)
class Case:
    """A conflict as it was taken in.

    Args:
        conversation: names it.
        dispute: what was asked; its `options` are what may come of it, its `others` whom it hangs on.
        claimant: who asked.
        parties: the claimant, whom it named, and who else may command the resource and is there.
        priorities: the classes in which they bargain, from the owner's files.
        classes: their classes at the guard, where these are others.
        able: which options each of them may command, by the owner's files.
        problems: why an option may not be commanded by one of them.
        locked: values that are no options: the owner's interlocks forbid them now, by the guard's word, and why.
        is_judged: whether the guard put all options to the interlocks; False: it judges the command alone.
        holder: who holds the lease, by the guard's word; empty: nobody.
        quiet_s: for how long the holder has not used it, by the guard's word, site seconds.
        barred: parties that may command nothing there, by the owner's order, and why; the guard's word.
        answer_s: how long they have to answer.
        hold_s: how long a holder keeps what it used lately, site seconds.
        stands_s: how long an outcome stands, wall seconds.
    """

    conversation: str
    dispute: Dispute
    claimant: str
    parties: tuple[str, ...]
    priorities: Mapping[str, Priority]
    able: Mapping[str, frozenset[str]]
    problems: Mapping[str, str] = field(default_factory=dict)
    locked: Mapping[str, str] = field(default_factory=dict)
    is_judged: bool = True
    holder: str = ""
    quiet_s: float = 0.0
    barred: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, Priority] = field(default_factory=dict)
    answer_s: float = 0.5
    hold_s: float = 120.0
    stands_s: float = 10.0

    @property
    def ends_s(self) -> float:
        """Return the longest that it can take."""
        return self.answer_s + 2 * VOTE_S


@dataclass(frozen=True, slots=True)
class Answers:
    """What was heard: appraisals, and why others gave none; `heard` counts acts.

    Who is `out` is no party, by the owner's order: the guard named it, or it says so itself.
    """

    appraisals: Mapping[str, Appraisal] = field(default_factory=dict)
    out: Mapping[str, str] = field(default_factory=dict)
    yielded: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    heard: Mapping[str, int] = field(default_factory=dict)

    @property
    def speakers(self) -> frozenset[str]:
        """Return from whom nothing more is awaited."""
        return frozenset({*self.appraisals, *self.out, *self.yielded, *self.failed})

    def without(self, party: str, reason: str) -> "Answers":
        """Return what is left once a party is out, whatever it has said before."""
        return replace(
            self,
            appraisals={name: said for name, said in self.appraisals.items() if name != party},
            yielded={name: why for name, why in self.yielded.items() if name != party},
            failed={name: why for name, why in self.failed.items() if name != party},
            out={**self.out, party: reason},
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done (empty: nothing, all goes on as it was), by whom, and why."""

    value: str
    winner: str
    rung: Rung
    reasons: tuple[str, ...]
    runner_up: str = ""
    stands: bool = True  # False: nobody else wants anything there, so nobody is bound
