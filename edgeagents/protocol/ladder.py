"""Settles a conflict rung by rung, each with a deadline: it always ends, with its reasons.

    Planned -> (lock, lease, priority, Nash: at once) -> Bargaining -> Polling -> Settled

1. *lock*: what the gate forbids is no option; one that is left alone is the outcome.
2. *lease*: who holds the resource, and used it lately, keeps it from all of its own class and below.
3. *priority*: a class above all others has its way. Together with the lease that is the guard's own hysteresis.
4. *Nash*: the exact bargaining point over the listed options, where all utilities are known.
5. *offers*: alternating offers at a table, where some are private.
6. *vote*: veto, then Borda or another rule. What is worth less than no agreement to a party whose utilities are known
   is not voted on; one that keeps them private may be outvoted. One that told what are no utilities has no veto.
7. *fallback*: the last safe state, or a human.

What settled it stands in the outcome with the reasons of every rung above. All parties are told, and told again when
they ask: `inform` with the option, or `cancel` where a human decides. Commands still pass the guard's gate.

Source: design.md section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import PRIORITIES, Priority
from edgeagents.model.cooperation import Act, Offer
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol import negotiation, voting
from edgeagents.protocol.conversation import (
    Begin,
    ConversationEffect,
    Heard,
    Recovered,
    Refuse,
    Save,
    Tell,
    Tick,
    act,
    admitted,
)
from edgeagents.protocol.limits import duration_problem, is_number, word_problem
from edgeagents.protocol.nash import nash

Rung: TypeAlias = Literal["lock", "lease", "priority", "nash", "offers", "vote", "fallback"]
MOST_LOCKS_TOLD: Final = 8  # causes why options are forbidden that stand among the reasons
RUNGS: Final[tuple[Rung, ...]] = ("lock", "lease", "priority", "nash", "offers", "vote", "fallback")


@dataclass(frozen=True, slots=True)
class Party:
    """One that is concerned.

    Args:
        agent: its name.
        priority: its class, from the owner's file.
        way: the option it would have.
        quiet_s: since when it holds the lease without using it, site seconds; None: it does not hold it.
        worth: what each option is worth to it, by code from the owner's words; None: private.
        disagreement: what no agreement is worth to it.
    """

    agent: str
    priority: Priority
    way: str
    quiet_s: float | None = None
    worth: Mapping[str, float] | None = None
    disagreement: float = 0.0


@dataclass(frozen=True, slots=True)
class Dispute:
    """A conflict to be settled.

    Args:
        conversation: names it.
        parties: all that are concerned, each once.
        options: what could be done, the safest first: that breaks ties.
        forbidden: options that the gate would refuse, and why.
        hold_s: how long a quiet holder keeps its lease (`priority_hold`), site seconds.
        safe: the last safe state; empty: a human decides.
        offers_s: how long offers may take; turn_s: one turn of them; most_turns: how many.
        vote_s: how long ballots may take.
        rule: how ballots are counted.
        quorum: ballots needed.
    """

    conversation: str
    parties: tuple[Party, ...]
    options: tuple[str, ...]
    forbidden: Mapping[str, str] = field(default_factory=dict)
    hold_s: float = 900.0
    safe: str = ""
    offers_s: float = 10.0
    turn_s: float = 1.0
    most_turns: int = 200
    vote_s: float = 2.0
    rule: voting.VotingRule = "borda"
    quorum: int = 1


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was looked at yet."""

    dispute: Dispute


@dataclass(frozen=True, slots=True)
class Bargaining:
    """The parties sit at a table."""

    dispute: Dispute
    table: negotiation.State
    options: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Polling:
    """The parties vote."""

    dispute: Dispute
    poll: voting.State
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be done (empty: a human decides), which rung said so, and why; who is told, in what conversation."""

    option: str
    rung: Rung
    reasons: tuple[str, ...]
    conversation: str = ""
    parties: tuple[str, ...] = ()
    heard: Mapping[str, int] = field(default_factory=dict)


State: TypeAlias = Planned | Bargaining | Polling | Settled


Event: TypeAlias = Begin | Heard | Tick | Recovered
Effect: TypeAlias = ConversationEffect
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Planned(dispute), (Begin(now_s) | Recovered(now_s)):
            return _begun(dispute, now_s)
        case Bargaining(), (Heard() | Tick() | Recovered()):
            table, effects = negotiation.step(state.table, event)
            return _bargained(replace(state, table=table), effects, event.now_s)
        case Polling(), (Heard() | Tick() | Recovered()):
            poll, effects = voting.step(state.poll, event)
            return _polled(replace(state, poll=poll), effects)
        case Settled(), Heard():
            return _asked_again(state, event)
        case Settled(), Recovered():
            return state, _told(state)
        case _, Heard(sender=sender):
            return state, [Refuse(sender, "late", "nothing was begun here")]
        case _:
            return state, []


# --- what is decided at once -----------------------------------------------------------------------


def _begun(dispute: Dispute, now_s: float) -> Result:
    problem = _problem(dispute)
    if problem:
        return _fallen(dispute, (problem,), [])
    left = tuple(option for option in dispute.options if option not in dispute.forbidden)
    reasons = _locks_told(dispute.forbidden)
    if not left:
        return _fallen(dispute, (*reasons, "lock: no option is left"), [])
    if len(left) == 1:
        return _settled(dispute, left[0], "lock", (*reasons, f"lock: only {left[0]} is left"), [])
    for rung, judge in (("lease", _by_lease), ("priority", _by_priority)):
        option, reason = judge(dispute, left)
        reasons = (*reasons, f"{rung}: {reason}")
        if option:
            return _settled(dispute, option, "lease" if rung == "lease" else "priority", reasons, [])
    return _bargain(dispute, left, reasons, now_s)


def _problem(dispute: Dispute) -> str:
    names = [party.agent for party in dispute.parties]
    if not dispute.options or len(set(dispute.options)) != len(dispute.options):
        return "options: there must be some, each once"
    if len(set(names)) != len(names) or not names:
        return "parties: there must be some, each once"
    for party in dispute.parties:
        if party.priority not in PRIORITIES:
            return f"parties: {party.agent} is of no class that is known: {party.priority!r:.40}"
        if party.quiet_s is not None and not (is_number(party.quiet_s) and party.quiet_s >= 0):
            return f"parties: {party.agent} holds the lease since no time that is known: {party.quiet_s!r:.40}"
    if sum(party.quiet_s is not None for party in dispute.parties) > 1:
        return "parties: two hold the lease of one resource"
    if dispute.rule not in voting.RULES:
        return f"rule: {dispute.rule!r:.40} is none of {', '.join(voting.RULES)}"
    if not (is_number(dispute.hold_s) and dispute.hold_s >= 0):
        return f"hold_s: a number of seconds, 0 or more, not {dispute.hold_s!r:.40}"
    return (
        word_problem("options", dispute.options)
        or word_problem("safe", [dispute.safe] if dispute.safe else ())
        or word_problem("conversation", (dispute.conversation,))
        or duration_problem(offers_s=dispute.offers_s, turn_s=dispute.turn_s, vote_s=dispute.vote_s)
    )


def _by_lease(dispute: Dispute, left: Sequence[str]) -> tuple[str, str]:
    holder = next((party for party in dispute.parties if party.quiet_s is not None), None)
    if holder is None:
        return "", "nobody holds it"
    others = [party for party in dispute.parties if party is not holder]
    above = [party.agent for party in others if _class(party) > _class(holder)]
    if above:
        return "", f"{holder.agent} ({holder.priority}) holds it, {', '.join(above)} is of a higher class"
    if holder.quiet_s is None or holder.quiet_s >= dispute.hold_s:
        return "", f"{holder.agent} has not used it for {dispute.hold_s:g} s"
    if holder.way not in left:
        return "", f"{holder.agent} holds it, but its way {holder.way!r} is not possible"
    return holder.way, f"{holder.agent} holds it and used it {holder.quiet_s:g} s ago"


def _by_priority(dispute: Dispute, left: Sequence[str]) -> tuple[str, str]:
    top = max(_class(party) for party in dispute.parties)
    first = [party for party in dispute.parties if _class(party) == top]
    ways = {party.way for party in first}
    names = ", ".join(party.agent for party in first)
    if len(first) == len(dispute.parties):
        return "", f"all are of class {first[0].priority}"
    if len(ways) > 1:
        return "", f"{names} are of one class, {first[0].priority}"
    if first[0].way not in left:
        return "", f"{names} ({first[0].priority}) would have {first[0].way!r}, which is not possible"
    return first[0].way, f"{names} ({first[0].priority}) is above all others"


def _class(party: Party) -> int:
    return PRIORITIES.index(party.priority)


def _bargain(dispute: Dispute, left: tuple[str, ...], reasons: tuple[str, ...], now_s: float) -> Result:
    told = {party.agent: _worth_problem(party, left) for party in dispute.parties}
    unknown = [f"{agent} {problem}" for agent, problem in told.items() if problem]
    if unknown:
        return _offers(dispute, left, (*reasons, f"nash: utilities are not known: {'; '.join(unknown)}"), now_s)
    rows = [[(party.worth or {})[option] for party in dispute.parties] for option in left]
    found = nash(rows, [party.disagreement for party in dispute.parties])
    reasons = (*reasons, f"nash: {found.reason}")
    if found.place is None:
        # Then no vote could find what suits everybody, either.
        return _fallen(dispute, reasons, [])
    return _settled(dispute, left[found.place], "nash", reasons, [])


def _worth_problem(party: Party, left: Sequence[str]) -> str:
    """Return why a party's utilities cannot be bargained with; empty when they can."""
    if party.worth is None:
        return "keeps them private"
    missing = [option for option in left if option not in party.worth]
    if missing:
        return f"says nothing of {missing[0]!r}"
    try:
        nash([[party.worth[option]] for option in left], [party.disagreement])
    except InvalidInputError as error:
        return str(error)
    return ""


# --- what takes time -------------------------------------------------------------------------------


def _offers(dispute: Dispute, left: tuple[str, ...], reasons: tuple[str, ...], now_s: float) -> Result:
    parties = tuple(party.agent for party in dispute.parties)
    table = negotiation.Table(
        dispute.conversation, parties, frozenset(left), dispute.turn_s, dispute.most_turns, now_s + dispute.offers_s
    )
    seated, effects = negotiation.step(negotiation.Planned(table), Begin(now_s))
    return _bargained(Bargaining(dispute, seated, left, reasons), effects, now_s)


def _bargained(state: Bargaining, effects: Sequence[Effect], now_s: float) -> Result:
    match state.table:
        case negotiation.Agreed(_, outcome, turns):
            reason = f"offers: all agreed on {outcome} after {turns} turns"
            settled, _ = _settled(state.dispute, outcome, "offers", (*state.reasons, reason), [])
            return settled, [*effects]  # the table has told them all
        case negotiation.Parted(reasons, _):
            told = (*state.reasons, *(f"offers: {reason}" for reason in reasons))
            return _vote(state.dispute, state.options, told, [*effects], now_s)
        case _:
            return state, [*effects]


def _vote(
    dispute: Dispute, left: Sequence[str], reasons: tuple[str, ...], effects: list[Effect], now_s: float
) -> Result:
    unfit = {option for option in left for party in dispute.parties if _is_below(party, option, left)}
    options = tuple(option for option in left if option not in unfit)
    if unfit:
        reasons = (*reasons, f"vote: worth less than no agreement to somebody: {', '.join(sorted(unfit))}")
    voters = tuple(party.agent for party in dispute.parties)
    liars = frozenset(
        party.agent for party in dispute.parties if party.worth is not None and _worth_problem(party, left)
    )
    poll = voting.Poll(
        dispute.conversation, options, voters, now_s + dispute.vote_s, dispute.rule, dispute.quorum, liars
    )
    polling, more = voting.step(voting.Planned(poll), Begin(now_s))
    return _polled(Polling(dispute, polling, reasons), [*effects, *more])


def _is_below(party: Party, option: str, left: Sequence[str]) -> bool:
    if party.worth is None or _worth_problem(party, left):
        return False
    return party.worth[option] < party.disagreement


def _polled(state: Polling, effects: Sequence[Effect]) -> Result:
    if not isinstance(state.poll, voting.Counted):
        return state, [*effects]
    tally = state.poll.tally
    reasons = (*state.reasons, *(f"vote: {reason}" for reason in tally.reasons))
    if tally.winner is None:
        return _fallen(state.dispute, reasons, [*effects])
    return _settled(state.dispute, tally.winner, "vote", reasons, effects)


# --- how it ends -----------------------------------------------------------------------------------


def _locks_told(forbidden: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line of reasons for each cause why options are forbidden, not for each option; so many lines."""
    by_cause: dict[str, list[str]] = {}
    for option, why in sorted(forbidden.items()):
        by_cause.setdefault(why, []).append(option)
    told = [
        f"lock: {', '.join(options)} {'is' if len(options) == 1 else 'are'} forbidden: {why}"
        for why, options in by_cause.items()
    ]
    more = (f"lock: and for {len(told) - MOST_LOCKS_TOLD} causes more",) if len(told) > MOST_LOCKS_TOLD else ()
    return (*told[:MOST_LOCKS_TOLD], *more)


def _fallen(dispute: Dispute, reasons: tuple[str, ...], effects: Sequence[Effect]) -> Result:
    is_possible = dispute.safe not in dispute.forbidden and not word_problem("safe", (dispute.safe,))
    safe = dispute.safe if is_possible else ""
    text = f"fallback: the last safe state, {safe}" if safe else "fallback: a human decides"
    return _settled(dispute, safe, "fallback", (*reasons, text), effects)


def _settled(dispute: Dispute, option: str, rung: Rung, reasons: tuple[str, ...], effects: Sequence[Effect]) -> Result:
    conversation = "" if word_problem("conversation", (dispute.conversation,)) else dispute.conversation
    parties = tuple(dict.fromkeys(party.agent for party in dispute.parties)) if conversation else ()
    state = Settled(option, rung, reasons, conversation, parties)
    return state, [Save(), *effects, *_told(state)]


def _told(state: Settled) -> list[Effect]:
    return [Tell(party, _outcome(state)) for party in state.parties]


def _outcome(state: Settled) -> Act:
    reason = state.reasons[-1][:MAX_REASON_CHARS]
    if not state.option:
        return act("cancel", state.conversation, reason=reason)
    return act("inform", state.conversation, offer=Offer(outcome=state.option), reason=reason)


def _asked_again(state: Settled, heard: Heard) -> Result:
    """Answer one that may not have heard how it ended."""
    counts, refused = admitted(heard, state.conversation, state.parties, state.heard)
    state = replace(state, heard=counts)
    if refused or heard.act.performative == "not-understood":  # told once more it would be answered once more
        return state, [*refused]
    return state, [Refuse(heard.sender, "late", "it is settled"), Tell(heard.sender, _outcome(state))]
