"""Alternating offers, a party's side: accept, or offer something else, with utilities that stay its own.

    Waiting -> Waiting … -> Ended

Tactics: `boulware`, `linear`, `conceder` give in with time; `micro` gives in one step whenever the others did. All
accept what is worth at least what they would offer next, and never what is worth less than no agreement. Its last word
is said again after 1, 2, 4 … s until the table says more: so a party learns what was agreed, though a message was lost.

Source: Faratin, Sierra and Jennings 1998 (time-dependent tactics); de Jonge 2022 (MiCRO); Baarslag 2014 (AC_next).
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.cooperation import Offer, Performative
from edgeagents.protocol.conversation import (
    MOST_ACTS,
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
from edgeagents.protocol.limits import REPEATS, is_number

Tactic: TypeAlias = Literal["boulware", "linear", "conceder", "micro"]
EXPONENTS: Final[Mapping[str, float]] = {"boulware": 0.2, "linear": 1.0, "conceder": 5.0}
TACTICS: Final[tuple[Tactic, ...]] = ("boulware", "linear", "conceder", "micro")
DEFAULT_TACTIC: Final[Tactic] = (
    "boulware"  # the largest share of the best Nash product among our own (bench-negotiation)
)
MOST_REMEMBERED: Final = 4096
AGAIN_S: Final = 1.0  # after which a last word is said again first


@dataclass(frozen=True, slots=True)
class Taste:
    """What outcomes are worth to a party: those worth at least its disagreement, the best first."""

    outcomes: tuple[str, ...]
    utilities: tuple[float, ...]
    table: Mapping[str, float]

    @property
    def best(self) -> float:
        """The most there is to have."""
        return self.utilities[0]

    def of(self, outcome: str) -> float | None:
        """Return what an outcome is worth, None when it is worth less than no agreement."""
        return self.table.get(outcome)


def taste_of(worth: Mapping[str, float], disagreement: float) -> Taste:
    """Return a party's taste.

    Raises:
        InvalidInputError: a utility that is negative or no number, or nothing that is worth as much as no agreement.
    """
    for outcome, utility in worth.items():
        if not 0 <= utility <= 1e6:
            raise InvalidInputError(f"outcome {outcome!r}: a utility is a number from 0 to 1e6, not {utility}")
    kept = sorted(((-utility, outcome) for outcome, utility in worth.items() if utility >= disagreement))
    if not kept:
        raise InvalidInputError("no outcome is worth as much as no agreement: there is nothing to negotiate")
    table = {outcome: -utility for utility, outcome in kept}
    return Taste(tuple(table), tuple(table.values()), table)


@dataclass(frozen=True, slots=True)
class Chair:
    """Where and until when a party sits, and how it gives in.

    Args:
        me: its name.
        table: who runs the table.
        conversation: names the negotiation.
        tactic: how it gives in.
        most_turns: of the table; with time or turns gone it gives in to its least.
        begun_s, deadline_s: on its own clock.
        least: what no agreement is worth to it.
    """

    me: str
    table: str
    conversation: str
    tactic: Tactic
    most_turns: int
    begun_s: float
    deadline_s: float
    least: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Its next turn is awaited; `conceded` of its best outcomes were offered, `seen` are the others' offers.

    `last` is its last word, about `offered`, which stood then; it was said `said` times and is due again at `again_s`.
    """

    chair: Chair
    conceded: int = 0
    seen: frozenset[str] = frozenset()
    turn: int = -1
    last: str = ""
    offered: str = ""
    said: int = 0
    again_s: float = 0.0
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """What the table says was agreed; empty: nothing, and why."""

    outcome: str
    reason: str


State: TypeAlias = Waiting | Ended
Event: TypeAlias = Heard | Tick | Recovered
Effect: TypeAlias = ConversationEffect
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event, taste: Taste) -> Result:
    """Return the next state and what must be done about it; the taste never leaves the party."""
    if isinstance(state, Ended):
        return state, [Refuse(event.sender, "late", "it is over here")] if isinstance(event, Heard) else []
    chair = state.chair
    problem = _chair_problem(chair)
    if problem:
        return Ended("", problem), [Save()]
    if is_over(event.now_s, chair.deadline_s):
        return Ended("", "our deadline passed"), [Save()]
    match event:
        case Recovered(now_s):
            state, effects = _spoken(replace(state, said=0), now_s) if state.last else (state, [])
            return state, [*effects, StartTimer(chair.deadline_s - now_s)]
        case Tick(now_s) if state.last and is_over(now_s, state.again_s):
            return _spoken(state, now_s)
        case Heard():
            return _heard(state, event, taste)
        case _:
            return state, []


def _chair_problem(chair: Chair) -> str:
    for name in ("begun_s", "deadline_s", "least"):
        if not is_number(getattr(chair, name)):
            return f"{name} is no number, but {getattr(chair, name)!r:.40}"
    return "" if chair.tactic in TACTICS else f"no tactic {chair.tactic!r} is known here: {', '.join(TACTICS)}"


def _spoken(state: Waiting, now_s: float) -> Result:
    """Say the last word, and again twice as much later as the time before."""
    wait_s = min(AGAIN_S * 2.0 ** min(state.said, 20), state.chair.deadline_s - now_s)
    return replace(state, said=state.said + 1, again_s=now_s + wait_s), [_said(state), StartTimer(max(0.0, wait_s))]


def with_taste(taste: Taste) -> Callable[[Any, Any], Result]:
    """Return `step` with a party's own taste, as the runner calls it."""
    return lambda state, event: step(state, event, taste)


def _heard(state: Waiting, heard: Heard, taste: Taste) -> Result:
    chair, said = state.chair, heard.act
    most = MOST_ACTS + REPEATS * chair.most_turns
    counts, refused = admitted(heard, chair.conversation, (chair.table,), state.heard, most)
    state = replace(state, heard=counts)
    if refused:
        return state, [*refused]
    match said.performative:
        case "inform" if said.offer is not None:
            return Ended(said.offer.outcome, said.reason or "agreed"), [Save()]
        case "cancel":
            return Ended("", said.reason or "the table was cleared"), [Save()]
        case "cfp" | "propose":
            return _turn(state, heard, taste)
        case _:
            return state, [Refuse(heard.sender, "out-of-turn", f"{said.performative} means nothing here now")]


def _turn(state: Waiting, heard: Heard, taste: Taste) -> Result:
    offered = heard.act.offer
    turn = offered.round if offered is not None else 0
    if turn == state.turn and state.last:
        return state, [_said(state)]  # asked again: it was lost
    if turn <= state.turn:
        return state, [Refuse(heard.sender, "stale-epoch", f"turn {turn} is over")]
    state = replace(state, turn=turn, offered=offered.outcome if offered is not None else "", said=0)
    # What it would have offered before it heard this one, or has offered already, it takes.
    bar = taste.utilities[max(next_place(state, taste, heard.now_s), state.conceded - 1)]
    if offered is not None and len(state.seen) < MOST_REMEMBERED:
        state = replace(state, seen=state.seen | {offered.outcome})
    place = next_place(state, taste, heard.now_s)
    worth = taste.of(offered.outcome) if offered is not None else None
    if offered is not None and worth is not None and worth >= bar:
        state = replace(state, last=offered.outcome)
    else:
        state = replace(state, last=taste.outcomes[place], conceded=max(state.conceded, place + 1))
    after, effects = _spoken(state, heard.now_s)
    return after, [Save(), *effects]


def _said(state: Waiting) -> Tell:
    chair = state.chair
    performative: Performative = "accept-proposal" if state.last == state.offered else "propose"
    offer = Offer(round=state.turn, outcome=state.last)
    return Tell(chair.table, act(performative, chair.conversation, offer=offer))


def next_place(state: Waiting, taste: Taste, now_s: float) -> int:
    """Return which of its outcomes, the best first, a party would offer now."""
    chair, last = state.chair, len(taste.outcomes) - 1
    if chair.tactic == "micro":
        if state.conceded <= len(state.seen):
            return min(state.conceded, last)  # the others gave in as often as we did: one step more
        return _again(state, last)
    target = taste.best - (taste.best - _least(chair, taste)) * pressure(chair, state.turn, now_s)
    # The last one that is worth at least the target.
    return max(0, bisect_right(taste.utilities, -target, key=lambda utility: -utility) - 1)


def _again(state: Waiting, last: int) -> int:
    """Return an earlier offer, each in its turn: one may suit the others now."""
    return min(state.turn % max(1, state.conceded), last)


def _least(chair: Chair, taste: Taste) -> float:
    return max(chair.least, taste.utilities[-1])


def pressure(chair: Chair, turn: int, now_s: float) -> float:
    """Return how far a time-dependent tactic has given in, from 0 to 1."""
    by_time = (now_s - chair.begun_s) / max(1e-9, chair.deadline_s - chair.begun_s)
    by_turn = turn / max(1, chair.most_turns - 2)
    return float(min(1.0, max(0.0, by_time, by_turn)) ** (1.0 / EXPONENTS[chair.tactic]))
