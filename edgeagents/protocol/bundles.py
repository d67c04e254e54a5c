"""Consensus-based bundle algorithm: peers share tasks out without a coordinator, one winner at most for each.

    Planned -> Bidding -> Closing -> Voting -> Ended

While bidding, each peer builds a bundle greedily, tells all others what it bids, and lets go of a task (and of what
it took after it) when it hears a better bid. Then bundles are frozen and told once more; then each peer votes, once,
for the best frozen bid it has heard for each task. A task is a peer's when more than half of all configured peers
voted for it, the peer itself among them: so there are never two, whoever is silent or cut off; what gets no majority
stays open. (One that tells each of two peers it votes for them makes two winners only where one of those two has not
heard the other's frozen bids; the guard's leases part them.)

A peer answers others' bids at once `MOST_CHANGES` times from one tick to the next, and with the next tick after that:
so one that bids and withdraws all the time makes others neither busy nor talkative.

A peer speaks for itself alone: other than in the paper bids are not passed on, so nobody can forge another's. All
peers of a site hear each other, or the partition they are in has no majority. Scores are capped by the one before
(bundle warping), so the bidding ends for any score function.

Source: Choi, Brunet and How 2009 (at least half the optimum for diminishing gains); Johnson et al. 2011 (warping).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from edgeagents.model.cooperation import MOST_ITEMS, Act, Claim, Claims, PeerVote
from edgeagents.model.message import Word
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

MOST_CLAIMS: Final = 4096  # acts of one peer in one batch; its frozen bids and its votes are heard all the same
MOST_CHANGES: Final = 8  # of one's own bids from one tick to the next
MOST_SCORE: Final = 1e9  # what is worth more counts as this
WORDS: Final = TypeAdapter(tuple[Word, ...])
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
    changes: int = 0  # since the last tick


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
        case Planned(batch), (Begin(now_s) | Recovered(now_s)):
            return _begun(batch, score, now_s)
        case ((Planned() | Ended()), Heard(sender=sender)):
            return state, [Refuse(sender, "late", "no bids are taken here now")]
        case ((Planned() | Ended()), _):
            return state, []
        case _, Heard():
            return _heard(state, event, score)
        case _, (Tick(now_s) | Recovered(now_s)):
            state, effects = _in_time(state, now_s, score)
            if isinstance(state, Ended):
                return state, effects
            if isinstance(state, Bidding):
                state, effects = _again(state, score)
            said = effects or _say(state)
            return state, [*said, StartTimer(_next_s(state, now_s))]
        case _:
            return state, []


def _begun(batch: Batch, score: Score, now_s: float) -> Result:
    problem = _batch_problem(batch, now_s)
    if problem is not None:
        return Ended((), (problem,)), []
    state = _grown(Bidding(batch), score)
    return state, [Save(), *_say(state), StartTimer(_next_s(state, now_s))]


def _batch_problem(batch: Batch, now_s: float) -> str | None:
    """Return why nothing can be shared out this way, None when it can."""
    if batch.me not in batch.peers or not now_s < batch.close_s <= batch.vote_s <= batch.end_s < math.inf:
        return "not among the peers, or the time for bids is over"
    if not 0 < batch.again_s < math.inf:
        return f"said again every {batch.again_s:g} s: it takes a time above 0"
    if len(batch.tasks) > MOST_ITEMS or not 0 <= batch.capacity <= MOST_ITEMS:
        return f"{len(batch.tasks)} tasks, {batch.capacity} for one peer: at most {MOST_ITEMS}, split the batch"
    names = (batch.conversation, *batch.peers, *batch.tasks)
    if len(set(batch.tasks)) < len(batch.tasks) or len(set(batch.peers)) < len(batch.peers):
        return "a peer or a task is named twice"
    try:
        WORDS.validate_python(names)
    except ValidationError as error:
        return f"{names[int(error.errors()[0]['loc'][0])]!r} is no name that an act can carry"
    return None


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


def _in_time(state: Live, now_s: float, score: Score) -> tuple[Live | Ended, list[Effect]]:
    """Return the state that the clock asks for, and what must be said at once when it is a new one."""
    effects: list[Effect] = []
    batch = state.batch
    if isinstance(state, Bidding) and is_over(now_s, batch.close_s):
        state, _ = _again(state, score)
        state = Closing(batch, state.bundle, state.number + 1, state.told, state.heard)
        effects = [Save(), *_say(state)]
    if isinstance(state, Closing) and is_over(now_s, batch.vote_s):
        state = Voting(batch, state.bundle, state.number + 1, {batch.me: _votes(state)}, state.heard)
        effects = [Save(), *_say(state)]
    if isinstance(state, Voting) and is_over(now_s, batch.end_s):
        return _ended(state), [Save()]
    return state, effects


def _again(state: Bidding, score: Score) -> tuple[Bidding, list[Effect]]:
    """Return the state with the bids that suit all that was heard, ready to change again, and what that says."""
    after = _bid_anew(replace(state, changes=0), score)
    return after, [Save(), *_say(after)] if after.bundle != state.bundle else []


def _bid_anew(state: Bidding, score: Score) -> Bidding:
    after = _grown(_let_go(state), score)
    return after if after.bundle == state.bundle else replace(after, number=state.number + 1)


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
    mine, reasons, own = [], [], state.votes[batch.me]
    for task, _ in state.bundle:
        votes = count[task, batch.me]
        text = f"{task}: {votes} of {len(batch.peers)} voted for us"
        # Whom we voted for has bid more and may own it by the votes of others: one that lies votes for both.
        is_mine = 2 * votes > len(batch.peers) and own.get(task) == batch.me
        reasons.append(text if is_mine else f"{text}, no majority" if own.get(task) == batch.me else f"{text}, not we")
        if is_mine:
            mine.append(task)
    return Ended(tuple(mine), tuple(reasons) or ("we bid for nothing in the end",))


# --- what a peer hears -----------------------------------------------------------------------------


def _heard(state: Live, heard: Heard, score: Score) -> Result:
    batch, sender = state.batch, heard.sender
    if sender not in batch.peers:
        return state, [Refuse(sender, "not-invited", f"{sender!r} takes no part in {batch.conversation!r}")]
    is_flood = state.heard.get(sender, 0) >= MOST_CLAIMS
    state = replace(state, heard=counted(state.heard, sender))
    # The clock may have moved on before the tick for it came.
    now, effects = _in_time(state, heard.now_s, score)
    if isinstance(now, Ended):
        return now, effects
    claims = heard.act.claims
    if is_flood and not _is_first_word(now, sender, claims):
        text = f"more than {MOST_CLAIMS} acts of {sender!r} in one batch"
        return now, [*effects, Refuse(sender, "too-many", text)]
    refused = objection(heard, batch.conversation, batch.peers)
    if refused is not None:
        return now, [*effects, *answered(refused, heard)]
    problem = _problem(batch, sender, claims)
    if problem is not None or claims is None:
        return now, [*effects, Refuse(sender, *(problem or ("no-content", "an inform without claims")))]
    if isinstance(now, Voting):
        return _vote_counted(now, sender, claims, effects)
    return _claims_noted(now, sender, claims, effects, score)


def _is_first_word(state: Live, sender: str, claims: Claims | None) -> bool:
    """Say whether these are the frozen bids, or the votes, that a peer has only one of, and none is known yet."""
    if claims is None:
        return False
    if isinstance(state, Voting):
        return claims.phase == "voting" and sender not in state.votes
    newest = state.told.get(sender)
    return claims.phase == "final" and not (newest is not None and newest.is_final)


def _claims_noted(state: Bidding | Closing, sender: str, claims: Claims, effects: list[Effect], score: Score) -> Result:
    newest = state.told.get(sender)
    if claims.phase == "voting" or (newest is not None and (newest.is_final or newest.number >= claims.number)):
        # Older than what is known, doubled, or ahead of our clock: its final word is known or lost.
        return state, effects
    told = Told(claims.number, claims.phase == "final", {item.task: item.score for item in claims.claims})
    state = replace(state, told={**state.told, sender: told})
    if isinstance(state, Closing) or state.changes >= MOST_CHANGES:
        return state, effects
    after = _bid_anew(state, score)
    if after.bundle == state.bundle:
        return state, effects
    after = replace(after, changes=state.changes + 1)
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
            own = min(score(names, task), most, MOST_SCORE) if task not in names else 0.0
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
