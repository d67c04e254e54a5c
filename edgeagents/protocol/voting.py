"""A vote: veto, then Borda (or plurality, approval, Condorcet); ballots, quorum, ties.

    Planned -> Polling -> Counted

The first ballot of each voter counts. Options that were vetoed are gone; each voter has as many vetoes as leave one
option standing if all use theirs: none where there are no more options than voters, for there one veto would dictate.
So a majority can outvote a voter. Who does not vote, or says nothing, blocks nobody: a quorum is asked of the ballots
that say something. Ties go to the option that stands first, so whoever calls the vote puts the safest first.

Source: Borda 1781; Condorcet 1785 with Borda where nobody beats all others (Black 1958); Moulin 1983 for the number
of vetoes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final, Literal, TypeAlias

from edgeagents.model.cooperation import MOST_ITEMS, Ballot
from edgeagents.protocol.conversation import (
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
from edgeagents.protocol.limits import DAY_S, deadline_problem, word_problem

VotingRule: TypeAlias = Literal["borda", "plurality", "approval", "condorcet"]
RULES: Final[tuple[VotingRule, ...]] = ("borda", "plurality", "approval", "condorcet")


@dataclass(frozen=True, slots=True)
class Poll:
    """What is voted on, by whom, and until when, on the caller's clock.

    Args:
        conversation: names it.
        options: the safest first: that breaks ties.
        voters: each once.
        deadline_s: a day away at most.
        rule: how ballots are counted.
        quorum: ballots needed that say something.
        without_veto: voters whose vetoes do not count.
    """

    conversation: str
    options: tuple[str, ...]
    voters: tuple[str, ...]
    deadline_s: float
    rule: VotingRule = "borda"
    quorum: int = 1
    without_veto: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tally:
    """Who won (None: nobody), what each option scored, what was vetoed, and why."""

    winner: str | None
    scores: Mapping[str, float]
    vetoed: tuple[str, ...]
    reasons: tuple[str, ...]


# --- counting --------------------------------------------------------------------------------------


def vetoes(options: int, voters: int) -> int:
    """Return how many options each voter may veto: all of them together leave one."""
    return max(0, options - 1) // voters if voters else 0


def says_something(ballot: Ballot, rule: VotingRule) -> bool:
    """Say whether there is anything on a ballot that a rule counts."""
    return bool(ballot.vetoed or (ballot.approved if rule == "approval" else ballot.ranking))


def count(options: Sequence[str], ballots: Sequence[Ballot], rule: VotingRule = "borda") -> Tally:
    """Return the winner by a rule, after vetoes.

    Args:
        options: in the order that breaks ties, each once.
        ballots: checked ones (`ballot_problem`).
        rule: how preferences are counted.
    """
    struck = {name for ballot in ballots for name in ballot.vetoed}
    left = [name for name in options if name not in struck]
    vetoed = tuple(name for name in options if name in struck)
    told = (f"vetoed: {', '.join(vetoed)}",) if vetoed else ()
    if not left:
        return Tally(None, {}, vetoed, (*told, "no option is left" if vetoed else "there is no option"))
    voted = [ballot for ballot in ballots if says_something(ballot, rule)]
    if not voted:
        return Tally(None, {}, vetoed, (*told, "nobody has voted"))
    name, scores = _scores(left, voted, rule)
    best = max(scores.values())
    if best == 0 and rule in ("approval", "plurality"):
        return Tally(None, scores, vetoed, (*told, f"by {name} nobody is for any option"))
    tied = [option for option in left if scores[option] == best]
    text = f"{tied[0]} wins by {name} with {best:g} of {len(voted)} ballots"
    ties = (f"a tie of {', '.join(tied)}: the first counts",) if len(tied) > 1 else ()
    return Tally(tied[0], scores, vetoed, (*told, text, *ties))


def _scores(options: Sequence[str], ballots: Sequence[Ballot], rule: VotingRule) -> tuple[str, dict[str, float]]:
    """Return the name of what was counted, and what each option scored."""
    rankings = [[name for name in ballot.ranking if name in options] for ballot in ballots]
    match rule:
        case "plurality":
            return rule, {name: float(sum(ranking[:1] == [name] for ranking in rankings)) for name in options}
        case "approval":
            return rule, {name: float(sum(name in ballot.approved for ballot in ballots)) for name in options}
        case "borda":
            return rule, _borda(options, rankings)
        case "condorcet":
            beaten = _beats_all(options, rankings)
            if beaten is None:
                return "Borda, as nobody beats all others", _borda(options, rankings)
            return "Condorcet", {name: float(name == beaten) for name in options}


def _borda(options: Sequence[str], rankings: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return Borda's points: as many as options stand below; those not ranked share what is left, all equal."""
    points = dict.fromkeys(options, 0.0)
    for ranking in rankings:
        for place, name in enumerate(ranking):
            points[name] += len(options) - 1 - place
        rest = [name for name in options if name not in ranking]
        for name in rest:
            points[name] += (len(rest) - 1) / 2
    return points


def _beats_all(options: Sequence[str], rankings: Sequence[Sequence[str]]) -> str | None:
    """Return the option that more prefer than not to each other one, None when there is none."""
    won = dict.fromkeys(options, 0)
    places = [{name: place for place, name in enumerate(ranking)} for ranking in rankings]
    for one, other in combinations(options, 2):
        margin = 0
        for place in places:
            first, second = place.get(one, len(options)), place.get(other, len(options))
            margin += (first < second) - (first > second)
        if margin:
            won[one if margin > 0 else other] += 1
    return next((name for name, count in won.items() if count == len(options) - 1), None)


def ballot_problem(ballot: Ballot, options: Sequence[str], voters: int) -> tuple[RefusalCause, str] | None:
    """Return why a ballot cannot be counted, None when it can."""
    for name, names in (("ranking", ballot.ranking), ("approved", ballot.approved), ("vetoed", ballot.vetoed)):
        if len(names) != len(set(names)):
            return "repeated", f"{name} names an option twice"
        unknown = sorted(set(names) - set(options))
        if unknown:
            return "unknown-name", f"{name} names {unknown[0]!r}, which is no option"
    most = vetoes(len(options), voters)
    if len(ballot.vetoed) > most:
        return "not-allowed", f"{len(ballot.vetoed)} vetoes: each voter has {most}"
    return None


def ballot_of(worth: Mapping[str, float], disagreement: float, voters: int) -> Ballot:
    """Return an honest ballot of one's own utilities: the worst below one's disagreement are vetoed."""
    ranking = tuple(sorted(worth, key=lambda name: (-worth[name], name)))
    below = [name for name in reversed(ranking) if worth[name] < disagreement]
    approved = tuple(name for name in ranking if worth[name] >= disagreement)
    return Ballot(ranking=ranking, approved=approved, vetoed=tuple(below[: vetoes(len(worth), voters)]))


# --- the poll --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was sent yet."""

    poll: Poll


@dataclass(frozen=True, slots=True)
class Polling:
    """Ballots are awaited."""

    poll: Poll
    ballots: Mapping[str, Ballot] = field(default_factory=dict)
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counted:
    """It has ended."""

    tally: Tally


State: TypeAlias = Planned | Polling | Counted


Event: TypeAlias = Begin | Heard | Tick | Recovered
Effect: TypeAlias = ConversationEffect
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Planned(poll), (Begin(now_s) | Recovered(now_s)):
            problem = _poll_problem(poll, now_s)
            if problem:
                return Counted(Tally(None, {}, (), (problem,))), [Save()]
            return Polling(poll), [Save(), *_calls(Polling(poll), now_s)]
        case ((Planned() | Counted()), Heard(sender=sender)):
            return state, [Refuse(sender, "late", "no ballots are taken here")]
        case Polling(), (Tick(now_s) | Recovered(now_s)) if is_over(now_s, state.poll.deadline_s):
            return _counted(state), [Save()]
        case Polling(), Recovered(now_s):
            return state, [*_calls(state, now_s)]
        case Polling(), Heard():
            return _heard(state, event)
        case _:
            return state, []


def _poll_problem(poll: Poll, now_s: float) -> str:
    if not poll.options or not poll.voters:
        return "there is no option" if not poll.options else "there is no voter"
    if len(poll.options) > MOST_ITEMS:
        return f"{len(poll.options)} options: a ballot holds {MOST_ITEMS}"
    for what, names in (("an option", poll.options), ("a voter", poll.voters)):
        if len(set(names)) != len(names):
            return f"{what} stands there twice"
    if poll.rule not in RULES:
        return f"no rule {poll.rule!r} is known here: {', '.join(RULES)}"
    names_problem = word_problem("options", poll.options) or word_problem("conversation", (poll.conversation,))
    return names_problem or deadline_problem(poll.deadline_s, now_s)


def _calls(state: Polling, now_s: float) -> list[Effect]:
    poll, left_s = state.poll, min(DAY_S, max(0.0, state.poll.deadline_s - now_s))
    said = act("cfp", poll.conversation, ballot=Ballot(ranking=poll.options), reply_by_s=left_s)
    return [*(Tell(voter, said) for voter in poll.voters if voter not in state.ballots), StartTimer(left_s)]


def _heard(state: Polling, heard: Heard) -> Result:
    poll, sender = state.poll, heard.sender
    counts, refused = admitted(heard, poll.conversation, poll.voters, state.heard)
    if refused:
        return replace(state, heard=counts), [*refused]
    state = replace(state, heard=counts)
    ballot = heard.act.ballot
    if heard.now_s >= poll.deadline_s:
        return state, [Refuse(sender, "late", "the vote is over")]
    if sender in state.ballots:
        return state, [Refuse(sender, "repeated", f"{sender!r} has voted already: the first ballot counts")]
    if heard.act.performative != "inform" or ballot is None:
        cause: RefusalCause = "no-content" if heard.act.performative == "inform" else "out-of-turn"
        return state, [Refuse(sender, cause, f"{heard.act.performative} without a ballot, or not a ballot's word")]
    problem = ballot_problem(ballot, poll.options, len(poll.voters))
    if problem is not None:
        return state, [Refuse(sender, *problem)]
    state = replace(state, ballots={**state.ballots, sender: ballot})
    return (_counted(state) if len(state.ballots) == len(poll.voters) else state), [Save()]


def _counted(state: Polling) -> Counted:
    poll = state.poll
    silent = [voter for voter in poll.voters if voter not in state.ballots]
    idle = [name for name in poll.voters if name in poll.without_veto and _vetoed(state, name)]
    ballots = [
        ballot.model_copy(update={"vetoed": ()}) if voter in poll.without_veto else ballot
        for voter in poll.voters
        if (ballot := state.ballots.get(voter)) is not None
    ]
    told = (
        *((f"no ballot of {', '.join(silent)}",) if silent else ()),
        *((f"vetoes of {', '.join(idle)} do not count",) if idle else ()),
    )
    said = sum(says_something(ballot, poll.rule) for ballot in ballots)
    if said < poll.quorum:
        return Counted(Tally(None, {}, (), (*told, f"{said} ballots, {poll.quorum} are needed")))
    tally = count(poll.options, ballots, poll.rule)
    return Counted(replace(tally, reasons=(*told, *tally.reasons)))


def _vetoed(state: Polling, voter: str) -> bool:
    return voter in state.ballots and bool(state.ballots[voter].vetoed)
