"""Consensus-based bundle algorithm: peers share tasks out without a coordinator, one winner at most for each.

    Planned -> Bidding -> Closing -> Voting -> Ended

While bidding, each peer builds a bundle greedily, tells all others what it bids, and lets go of a task (and of what
it took after it) when it hears a better bid. Then bundles are frozen and told once more; then each peer votes, once,
for the best frozen bid it has heard for each task. A task is a peer's when more than half of all configured peers
voted for it: so there are never two, whoever is silent or cut off; what gets no
majority stays open. (One that tells each of two peers it votes for them makes two winners only where those two do not
hear each other; the guard's leases part them.)

A peer speaks for itself alone: other than in the paper bids are not passed on, so nobody can forge another's. All
peers of a site hear each other, or the partition they are in has no majority. Scores are capped by the one before
(bundle warping), so the bidding ends for any score function.

Source: Choi, Brunet and How 2009 (at least half the optimum for diminishing gains); Johnson et al. 2011 (warping).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from edgeagents.model.cooperation import Act, Claim, Claims, PeerVote
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
    answered,
    counted,
    is_over,
    objection,
)
from edgeagents.protocol.effects import StartTimer

MOST_CLAIMS = 4096  # acts of one peer in one batch
Score: TypeAlias = Callable[[tuple[str, ...], str], float]
"""What a task adds to a bundle that a peer has already; 0 or less: it does not want it."""
Items: TypeAlias = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is shared out among whom, and until when.

    Args:
        conversation: names the batch.
        me: this peer.
        peers: all configured ones, this one too; a majority is one of them, not of those alive.
        tasks: their names.
        capacity: most tasks of one peer.
        again_s: how often a peer says again what it said last: acts get lost.
        close_s, vote_s, end_s: when bidding, closing and voting end, on this peer's clock.
    """

    conversation: str
    me: str
    peers: tuple[str, ...]
    tasks: tuple[str, ...]
    capacity: int
    again_s: float
    close_s: float
    vote_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """The newest claims of another peer."""

    number: int
    is_final: bool
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing was sent yet."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Bidding:
    """Bundles still change; `bundle` is in the order in which tasks were taken in."""

    batch: Batch
    bundle: Items = ()
    number: int = 0
    told: Mapping[str, Told] = field(default_factory=dict)
    heard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Closing:
    """Bundles are frozen; those of others are awaited."""

    batch: Batch
    bundle: Items
    number: int
    told: Mapping[str, Told]
    heard: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Voting:
    """Votes are cast, once, and counted: `votes` are those of each peer, by task."""

    batch: Batch
    bundle: Items
    number: int
    votes: Mapping[str, Mapping[str, str]]
    heard: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ended:
    """What is ours, and why."""

    mine: tuple[str, ...]
    reasons: tuple[str, ...]


Live: TypeAlias = Bidding | Closing | Voting
State: TypeAlias = Planned | Live | Ended


Event: TypeAlias = Begin | Heard | Tick | Recovered
Effect: TypeAlias = ConversationEffect
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event, score: Score) -> Result:
    """Return the next state and what must be done about it; `score` is this peer's own, computed by code."""
    match state, event:
        case Planned(batch), Begin(now_s):
            return _begun(batch, score, now_s)
        case ((Planned() | Ended()), Heard(sender=sender)):
            return state, [Refuse(sender, "late", "no bids are taken here now")]
        case ((Planned() | Ended()), _):
            return state, []
        case _, Heard():
            return _heard(state, event, score)
        case _, (Tick(now_s) | Recovered(now_s)):
            state, effects = _in_time(state, now_s)
            if isinstance(state, Ended):
                return state, effects
            said = effects or _say(state)
            return state, [*said, StartTimer(_next_s(state, now_s))]
        case _:
            return state, []


def _begun(batch: Batch, score: Score, now_s: float) -> Result:
    if batch.me not in batch.peers or not now_s < batch.close_s <= batch.vote_s <= batch.end_s:
        return Ended((), ("not among the peers, or the time for bids is over",)), []
    state = _grown(Bidding(batch), score)
    return state, [Save(), *_say(state), StartTimer(_next_s(state, now_s))]


def _next_s(state: Live, now_s: float) -> float:
    batch = state.batch
    end_s = {Bidding: batch.close_s, Closing: batch.vote_s, Voting: batch.end_s}[type(state)]
    return max(0.0, min(batch.again_s, end_s - now_s))


# --- what a peer says ------------------------------------------------------------------------------


def _say(state: Live) -> list[Effect]:
    """Return this peer's newest word to all others."""
    batch = state.batch
    phase: Literal["bidding", "final", "voting"] = "bidding"
    votes: tuple[PeerVote, ...] = ()
    if isinstance(state, Closing):
        phase = "final"
    elif isinstance(state, Voting):
        phase = "voting"
        votes = tuple(PeerVote(task=task, peer=peer) for task, peer in sorted(state.votes[batch.me].items()))
    bids = tuple(Claim(task=task, score=score) for task, score in state.bundle)
    claims = Claims(number=state.number, phase=phase, claims=bids, votes=votes)
    said: Act = act("inform", batch.conversation, claims=claims)
    return [Tell(peer, said) for peer in batch.peers if peer != batch.me]


def _in_time(state: Live, now_s: float) -> tuple[Live | Ended, list[Effect]]:
    """Return the state that the clock asks for, and what must be said at once when it is a new one."""
    effects: list[Effect] = []
    batch = state.batch
    if isinstance(state, Bidding) and is_over(now_s, batch.close_s):
        state = Closing(batch, state.bundle, state.number + 1, state.told, state.heard)
        effects = [Save(), *_say(state)]
    if isinstance(state, Closing) and is_over(now_s, batch.vote_s):
        state = Voting(batch, state.bundle, state.number + 1, {batch.me: _votes(state)}, state.heard)
        effects = [Save(), *_say(state)]
    if isinstance(state, Voting) and is_over(now_s, batch.end_s):
        return _ended(state), [Save()]
    return state, effects


def _votes(state: Closing) -> dict[str, str]:
    """Return for each task whose frozen bid is the best this peer has heard; the name breaks ties."""
    best = {task: (-score, state.batch.me) for task, score in state.bundle}
    for peer, told in state.told.items():
        for task, score in told.scores.items() if told.is_final else ():
            best[task] = min(best.get(task, (math.inf, "")), (-score, peer))
    return {task: peer for task, (_, peer) in best.items()}


def _ended(state: Voting) -> Ended:
    batch = state.batch
    count = Counter((task, peer) for votes in state.votes.values() for task, peer in votes.items())
    mine, reasons = [], []
    for task, _ in state.bundle:
        votes = count[task, batch.me]
        is_mine = 2 * votes > len(batch.peers)
        reasons.append(f"{task}: {votes} of {len(batch.peers)} voted for us{'' if is_mine else ', no majority'}")
        if is_mine:
            mine.append(task)
    return Ended(tuple(mine), tuple(reasons) or ("we bid for nothing in the end",))


# --- what a peer hears -----------------------------------------------------------------------------


def _heard(state: Live, heard: Heard, score: Score) -> Result:
    batch, sender = state.batch, heard.sender
    refused = objection(heard, batch.conversation, batch.peers)
    if refused is not None:
        return state, [*answered(refused, heard)]
    if state.heard.get(sender, 0) >= MOST_CLAIMS:
        return state, [Refuse(sender, "too-many", f"more than {MOST_CLAIMS} acts of {sender!r} in one batch")]
    state = replace(state, heard=counted(state.heard, sender))
    claims = heard.act.claims
    problem = _problem(batch, sender, claims)
    if problem is not None or claims is None:
        return state, [Refuse(sender, *(problem or ("no-content", "an inform without claims")))]
    # The clock may have moved on before the tick for it came.
    now, effects = _in_time(state, heard.now_s)
    if isinstance(now, Ended):
        return now, effects
    if isinstance(now, Voting):
        return _vote_counted(now, sender, claims, effects)
    newest = now.told.get(sender)
    if claims.phase == "voting" or (newest is not None and (newest.is_final or newest.number >= claims.number)):
        return now, effects  # older than what is known, doubled, or ahead of our clock: its final word is known or lost
    told = Told(claims.number, claims.phase == "final", {item.task: item.score for item in claims.claims})
    now = replace(now, told={**now.told, sender: told})
    if isinstance(now, Closing):
        return now, effects
    after = _grown(_let_go(now), score)
    if after.bundle == now.bundle:
        return now, effects
    after = replace(after, number=now.number + 1)
    return after, [Save(), *_say(after)]


def _problem(batch: Batch, sender: str, claims: Claims | None) -> tuple[RefusalCause, str] | None:
    if claims is None:
        return "no-content", "an inform without claims"
    if sender == batch.me:
        return "not-allowed", "our own name: is a second copy of this agent running?"
    if len(claims.claims) > batch.capacity:
        return "not-allowed", f"{len(claims.claims)} claims: a peer may have {batch.capacity}"
    names = [item.task for item in claims.claims]
    if not set(names) <= set(batch.tasks) or len(names) != len(set(names)):
        return "unknown-name", "a task that is not in the batch, or twice"
    if not all(math.isfinite(item.score) and item.score >= 0 for item in claims.claims):
        return "no-number", "a score is a finite number, 0 or more"
    return None


def _vote_counted(state: Voting, sender: str, claims: Claims, effects: list[Effect]) -> Result:
    if claims.phase != "voting" or sender in state.votes:
        return state, effects
    votes: dict[str, str] = {}
    for vote in claims.votes:
        votes.setdefault(vote.task, vote.peer)  # one vote a task
    return replace(state, votes={**state.votes, sender: votes}), [*effects, Save()]


def _beats(one: tuple[float, str], other: tuple[float, str]) -> bool:
    """Say whether one bid (score, peer) beats another: higher, or equal and the name is first."""
    return (-one[0], one[1]) < (-other[0], other[1])


def _best_of_others(state: Bidding, task: str) -> tuple[float, str] | None:
    bids = [(told.scores[task], peer) for peer, told in state.told.items() if task in told.scores]
    return min(bids, key=lambda bid: (-bid[0], bid[1])) if bids else None


def _let_go(state: Bidding) -> Bidding:
    """Return the state without the first task that another has bid more for, and all that was taken in after it."""
    for place, (task, own) in enumerate(state.bundle):
        other = _best_of_others(state, task)
        if other is not None and _beats(other, (own, state.batch.me)):
            return replace(state, bundle=state.bundle[:place])
    return state


def _grown(state: Bidding, score: Score) -> Bidding:
    """Return the state with a bundle as full as it can be: always the task that adds most and that we would win."""
    bundle = state.bundle
    while len(bundle) < state.batch.capacity:
        names = tuple(task for task, _ in bundle)
        most = bundle[-1][1] if bundle else math.inf
        bids = []
        for task in state.batch.tasks:
            own = min(score(names, task), most) if task not in names else 0.0
            other = _best_of_others(state, task)
            if own > 0 and (other is None or _beats((own, state.batch.me), other)):
                bids.append((-own, task))
        if not bids:
            break
        own, task = min(bids)
        bundle = (*bundle, (task, -own))
    return replace(state, bundle=bundle)


def with_score(score: Score) -> Callable[[Any, Any], Result]:
    """Return `step` with a peer's own score function, as the runner calls it."""
    return lambda state, event: step(state, event, score)
