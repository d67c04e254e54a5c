"""Alternating offers, the table's side: whose turn it is, which offer stands, and the one agreement there is.

    Planned -> Seated -> Agreed | Parted

The table sees offers, never utilities. In turn each party accepts the offer that stands or makes another; once all
others have accepted one it is agreed. Only what the table has recorded is agreed, so there is one agreement at most,
whatever is lost. Who stays silent on its turn, or says it is enough, ends it: nobody waits. Who asks after the end is
told again what was agreed. The parties' side is in `negotiator.py`.

Source: Rubinstein 1982; Aydogan et al. 2017 (stacked alternating offers for more than two).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from edgeagents.model.cooperation import Act, Offer
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol.conversation import (
    MOST_ACTS,
    Begin,
    ConversationEffect,
    Heard,
    Recovered,
    RefusalCause,
    Refuse,
    Save,
    Tell,
    Tick,
    act,
    admitted,
    is_over,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.limits import DAY_S, REPEATS, deadline_problem, duration_problem, word_problem


@dataclass(frozen=True, slots=True)
class Table:
    """What is negotiated.

    Args:
        conversation: names it.
        parties: in the order of their turns.
        outcomes: what may be offered.
        turn_s: how long one turn may take.
        most_turns: after so many it ends without agreement.
        deadline_s: and then, too, on the table's clock; a day away at most.
    """

    conversation: str
    parties: tuple[str, ...]
    outcomes: frozenset[str]
    turn_s: float
    most_turns: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was sent yet."""

    table: Table


@dataclass(frozen=True, slots=True)
class Seated:
    """The party whose turn it is has until `until_s`; `offer` stands, made by `by` and accepted by some."""

    table: Table
    turn: int
    until_s: float
    offer: str = ""
    accepted: tuple[str, ...] = ()
    heard: Mapping[str, int] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """Whose turn it is."""
        return self.table.parties[self.turn % len(self.table.parties)]


@dataclass(frozen=True, slots=True)
class Agreed:
    """All accepted this."""

    table: Table
    outcome: str
    turns: int
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parted:
    """There is no agreement, and why."""

    reasons: tuple[str, ...]
    turns: int


State: TypeAlias = Planned | Seated | Agreed | Parted


Event: TypeAlias = Begin | Heard | Tick | Recovered
Effect: TypeAlias = ConversationEffect
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Planned(table), (Begin(now_s) | Recovered(now_s)):
            problem = _table_problem(table, now_s)
            if problem:
                return Parted((problem,), 0), [Save()]
            seated = _turned(Seated(table, -1, now_s), now_s)
            return seated, [Save(), *_ask(seated, now_s), StartTimer(table.deadline_s - now_s)]
        case Agreed(), Heard():
            return _asked_again(state, event)
        case Agreed(table, outcome), Recovered():
            return state, [Tell(party, _result(table, outcome)) for party in table.parties]
        case ((Planned() | Parted()), Heard(sender=sender)):
            return state, [Refuse(sender, "late", "nobody sits here")]
        case Seated(), (Tick(now_s) | Recovered(now_s)) if is_over(now_s, min(state.until_s, state.table.deadline_s)):
            late = "the deadline has passed" if now_s >= state.table.deadline_s else f"{state.speaker} gave no answer"
            return _parted(state, f"{late} on turn {state.turn}")
        case Seated(), Recovered(now_s):
            return state, [*_ask(state, now_s), StartTimer(max(0.0, state.table.deadline_s - now_s))]
        case Seated(), Heard():
            return _heard(state, event)
        case _:
            return state, []


def _table_problem(table: Table, now_s: float) -> str:
    problem = deadline_problem(table.deadline_s, now_s) or duration_problem(turn_s=table.turn_s)
    if problem:
        return problem
    if not (isinstance(table.most_turns, int) and table.most_turns > 0):
        return f"most_turns: a whole number above 0, not {table.most_turns!r:.40}"
    if len(set(table.parties)) != len(table.parties) or len(table.parties) < 2:
        return "two parties or more, each once"
    if not table.outcomes:
        return "there is nothing to agree on"
    return word_problem("outcomes", sorted(table.outcomes)) or word_problem("conversation", (table.conversation,))


def _turned(state: Seated, now_s: float) -> Seated:
    return replace(state, turn=state.turn + 1, until_s=min(now_s + state.table.turn_s, state.table.deadline_s))


def _ask(state: Seated, now_s: float) -> list[Effect]:
    """Return the word to the party whose turn it is: the offer that stands, or that it may begin."""
    left_s = min(DAY_S, max(0.0, state.until_s - now_s))
    if state.offer:
        offer = Offer(round=state.turn, outcome=state.offer)
        said = act("propose", state.table.conversation, offer=offer, reply_by_s=left_s)
    else:
        said = act("cfp", state.table.conversation, reply_by_s=left_s)
    return [Tell(state.speaker, said), StartTimer(left_s)]


def _heard(state: Seated, heard: Heard) -> Result:
    table, sender = state.table, heard.sender
    counts, refused = admitted(
        heard, table.conversation, table.parties, state.heard, MOST_ACTS + REPEATS * table.most_turns
    )
    state = replace(state, heard=counts)
    if refused:
        return state, [*refused]
    problem = _problem(state, heard)
    if problem is not None:
        return state, [Refuse(sender, *problem)]
    offer = heard.act.offer
    if heard.act.performative == "refuse" or offer is None:
        return _parted(state, f"{sender} left: {heard.act.reason or 'no reason'}")
    if heard.act.performative == "accept-proposal":
        accepted = (*state.accepted, sender)
        if len(accepted) == len(table.parties):
            agreed = Agreed(table, state.offer, state.turn + 1, state.heard)
            told = _result(table, state.offer)
            return agreed, [Save(), *(Tell(party, told) for party in table.parties)]
    else:
        accepted = (sender,)
    after = _turned(replace(state, offer=offer.outcome, accepted=accepted), heard.now_s)
    if after.turn >= table.most_turns:
        return _parted(after, f"no agreement in {table.most_turns} turns")
    return after, [Save(), *_ask(after, heard.now_s)]


def _asked_again(state: Agreed, heard: Heard) -> Result:
    """Answer one that may not have heard how it ended."""
    table = state.table
    counts, refused = admitted(
        heard, table.conversation, table.parties, state.heard, MOST_ACTS + REPEATS * table.most_turns
    )
    state = replace(state, heard=counts)
    if refused or heard.act.performative == "not-understood":  # told once more it would be answered once more
        return state, [*refused]
    return state, [Refuse(heard.sender, "late", "it is agreed"), Tell(heard.sender, _result(table, state.outcome))]


def _problem(state: Seated, heard: Heard) -> tuple[RefusalCause, str] | None:
    said = heard.act
    if heard.now_s >= state.until_s:
        return "late", "the turn is over"
    if heard.sender != state.speaker:
        return "out-of-turn", f"it is the turn of {state.speaker!r}"
    if said.performative == "refuse":
        return None
    if said.performative not in ("propose", "accept-proposal"):
        return "out-of-turn", f"{said.performative} is no answer to an offer"
    if said.offer is None:
        return "no-content", f"{said.performative} without an offer"
    if said.offer.round != state.turn:
        return "stale-epoch", f"an answer to turn {said.offer.round}, this is turn {state.turn}"
    if said.offer.outcome not in state.table.outcomes:
        return "unknown-name", f"{said.offer.outcome!r} is not among the outcomes"
    if said.performative == "accept-proposal" and said.offer.outcome != state.offer:
        return "not-allowed", f"{said.offer.outcome!r} is not what stands: that is {state.offer!r}"
    return None


def _result(table: Table, outcome: str) -> Act:
    return act("inform", table.conversation, offer=Offer(outcome=outcome))


def _parted(state: Seated, reason: str) -> Result:
    told = act("cancel", state.table.conversation, reason=reason[:MAX_REASON_CHARS])
    return Parted((reason,), state.turn), [Save(), *(Tell(party, told) for party in state.table.parties)]
