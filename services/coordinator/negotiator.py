"""One conflict, from the question to its end: asks the parties, climbs the ladder, says who gives which value. Pure.

    Asking -> Settling -> Ended

Each party says once what the listed options are worth to it; then `protocol/ladder.py` decides. Who says `refuse` wants
nothing there now and gives way; who says `failure`, or nothing in time, cannot be bargained with: where the conflict
hangs on it, nothing is settled, and the guard's own hysteresis goes on as without us. Nothing is kept on disk: each
party ends by its own deadline.

Who holds the lease, and for how long it has not used it, comes with the case, from the guard: what a party says of
that is ignored. Nobody has an outcome given by another's command that its own file would not let it give, but by a
bargain that is worth something to both. What the winner commands is judged by the guard as ever.

Source: design.md section 5; docs/conflicts.md.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import PRIORITIES
from edgeagents.model.cooperation import Act, Appraisal, Dispute, Performative, Settlement
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol import ladder
from edgeagents.protocol.conversation import (
    Begin,
    Heard,
    RefusalCause,
    Refuse,
    Tell,
    Tick,
    act,
    admitted,
    is_over,
)
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.nash import nash
from services.coordinator.case import VOTE_S, Answers, Case, Verdict

FEW: Final = 8  # options whose reasons are told as they are; of more each one only in
MANY_CHARS: Final = 100
UNJUDGED: Final = "lock: the guard did not say what interlocks forbid: it judges what is commanded, as ever"


@dataclass(frozen=True, slots=True)
class Planned:
    """Nobody was asked yet."""

    case: Case


@dataclass(frozen=True, slots=True)
class Asking:
    """Parties are asked what the options are worth to them."""

    case: Case
    until_s: float
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True, slots=True)
class Settling:
    """The ladder is climbed; after `ends_s` not from below again."""

    case: Case
    answers: Answers
    ladder: ladder.State
    ends_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """It is settled."""

    case: Case
    answers: Answers
    verdict: Verdict


State: TypeAlias = Planned | Asking | Settling | Ended
Event: TypeAlias = Begin | Heard | Tick
Effect: TypeAlias = Tell | Refuse | StartTimer
Result: TypeAlias = tuple[State, list[Effect]]


def step(state: State, event: Event) -> Result:
    """Return the next state and what must be done about it; what does not fit the state changes nothing."""
    match state, event:
        case Planned(case), Begin(now_s):
            asked = act("cfp", case.conversation, dispute=_question(case), reply_by_s=case.answer_s)
            told: list[Effect] = [Tell(party, asked) for party in case.parties]
            asking = Asking(case, now_s + case.answer_s, Answers(out=dict(case.barred)))
            return asking, [*told, StartTimer(case.answer_s)]
        case ((Asking() | Settling()), Heard()) if event.act.performative == "cancel":
            return _left(state, event)
        case Asking(), Heard():
            return _answered(state, event)
        case Asking(), Tick(now_s) if is_over(now_s, state.until_s):
            return _judged(state, state.answers, now_s)
        case Settling(), (Heard() | Tick()):
            climbed, effects = ladder.step(state.ladder, event)
            return _climbed(replace(state, ladder=climbed), effects)
        case ((Planned() | Ended()), Heard(sender=sender)):
            return state, [Refuse(sender, "late", "this conflict has ended")]
        case _:
            return state, []


def _question(case: Case) -> Dispute:
    """Return the conflict as all its parties are asked about it: `others` names them all."""
    return case.dispute.model_copy(update={"others": case.parties})


# --- what is heard ---------------------------------------------------------------------------------


def _answered(state: Asking, heard: Heard) -> Result:
    case, said, sender = state.case, heard.act, heard.sender
    counts, refused = admitted(heard, case.conversation, case.parties, state.answers.heard)
    answers = replace(state.answers, heard=counts)
    if refused or sender in case.barred:  # what those say that the guard named is not looked at
        return replace(state, answers=answers), [*refused]
    problem = _problem(state, heard)
    if problem is not None:
        return replace(state, answers=answers), [Refuse(sender, *problem)]
    if said.performative == "refuse":
        answers = replace(answers, yielded={**answers.yielded, sender: said.reason})
    elif said.performative == "failure" or said.appraisal is None:
        answers = replace(answers, failed={**answers.failed, sender: said.reason})
    else:
        answers = replace(answers, appraisals={**answers.appraisals, sender: said.appraisal})
    return _gone_on(replace(state, answers=answers), heard.now_s)


def _gone_on(state: Asking, now_s: float) -> Result:
    """Judge once nothing is awaited from anybody."""
    is_whole = state.answers.speakers == frozenset(state.case.parties)
    return _judged(state, state.answers, now_s) if is_whole else (state, [])


def _left(state: Asking | Settling, heard: Heard) -> Result:
    """Take in that a party may command nothing any more: what it said counts no longer, the others go on without it."""
    case, sender = state.case, heard.sender
    counts, refused = admitted(heard, case.conversation, case.parties, state.answers.heard)
    answers = replace(state.answers, heard=counts)
    if refused or sender in answers.out:
        return replace(state, answers=answers), [*refused]
    answers = answers.without(sender, heard.act.reason)
    if isinstance(state, Settling) and heard.now_s >= state.ends_s:  # parties wait for so long and no longer
        reason = f"fallback: {sender} left when its time was over: leases and classes decide as they are"
        return _ended(case, answers, Verdict("", "", "fallback", (*_beside(case, answers), reason)))
    if isinstance(state, Settling):
        return _judged(state, answers, heard.now_s)
    return _gone_on(replace(state, answers=answers), heard.now_s)


def _problem(state: Asking, heard: Heard) -> tuple[RefusalCause, str] | None:
    said, sender = heard.act, heard.sender
    if heard.now_s >= state.until_s:
        return "late", "the time to answer is over"
    if sender in state.answers.speakers:
        return "repeated", f"{sender!r} has answered already: the first answer counts"
    if said.performative in ("refuse", "failure"):
        return None
    if said.performative != "inform":
        return "out-of-turn", f"{said.performative} is no answer to what was asked"
    if said.appraisal is None:
        return "no-content", "inform without an appraisal"
    return appraisal_problem(said.appraisal, state.case)


def appraisal_problem(appraisal: Appraisal, case: Case) -> tuple[RefusalCause, str] | None:
    """Return why an appraisal cannot be taken, None when it can. What is missing from it the ladder deals with."""
    named = [item.option for item in appraisal.worths]
    if len(set(named)) != len(named):
        return "repeated", "it says twice what one option is worth"
    unknown = sorted({appraisal.way, *named, *filter(None, [appraisal.present])} - set(case.dispute.options))
    if unknown:
        return "unknown-name", f"{unknown[0]!r} is none of the options"
    return None


# --- what is decided -------------------------------------------------------------------------------


def _judged(state: Asking | Settling, answers: Answers, now_s: float) -> Result:
    """Climb the ladder with all that have answered, where those are there that it hangs on."""
    case, told = state.case, _beside(state.case, answers)
    missing = [name for name in (case.claimant, *case.dispute.others) if _is_missing(name, case, answers)]
    if missing:
        reason = f"fallback: without {', '.join(missing)} nothing is settled: leases and classes decide as they are"
        return _ended(case, answers, Verdict("", "", "fallback", (*told, reason)))
    willing = [name for name in case.parties if name in answers.appraisals]
    if len(willing) == 1:
        return _ended(case, answers, _alone(case, answers, willing[0], told))
    if case.claimant not in willing:
        reason = f"fallback: {case.claimant}, which asked, is out of it: leases and classes decide as they are"
        return _ended(case, answers, Verdict("", "", "fallback", (*told, reason)))
    climbed, effects = ladder.step(ladder.Planned(_dispute(case, answers, willing)), Begin(now_s))
    ends_s = state.ends_s if isinstance(state, Settling) else state.until_s - case.answer_s + case.ends_s
    return _climbed(Settling(case, answers, climbed, ends_s), effects)


def _alone(case: Case, answers: Answers, name: str, told: tuple[str, ...]) -> Verdict:
    """Return that the one party that is left has its way, and binds nobody."""
    way = case.dispute.wanted if name == case.claimant else answers.appraisals[name].way
    if way not in case.able.get(name, ()):
        why = f"{way} is forbidden: {case.locked[way]}" if way in case.locked else (
            f"{name} may not give {way!r} by its owner's file"
        )  # fmt: skip
        return Verdict("", "", "lock", (*told, f"lock: {why}"))
    reason = f"lease: nobody but {name} wants anything there now"
    return Verdict(way, name, "lease", (*told, reason), stands=False)


def _is_missing(name: str, case: Case, answers: Answers) -> bool:
    """Say whether nobody can bargain with one on whom it hangs, and it is not out of it.

    Who gives way is not missing; a claimant that does has nothing settled, as it wants nothing.
    """
    if name in answers.appraisals or name in answers.out:
        return False
    return name == case.claimant or name not in answers.yielded


def _beside(case: Case, answers: Answers) -> tuple[str, ...]:
    """Return what is to be said beside what the ladder says: who takes no part and why, and what is not known."""
    silent = [name for name in case.parties if name not in answers.speakers]
    return (
        *(() if case.is_judged else (UNJUDGED,)),
        *(f"{name} takes no part: {reason or 'no reason'}" for name, reason in sorted(answers.out.items())),
        *(f"{name} gives way: {reason or 'no reason'}" for name, reason in sorted(answers.yielded.items())),
        *(f"{name} cannot say: {reason or 'no reason'}" for name, reason in sorted(answers.failed.items())),
        *(f"{name} gave no answer in {case.answer_s:g} s" for name in silent),
    )


def forbidden(case: Case, willing: Collection[str]) -> dict[str, str]:
    """Return the options that nobody who bargains may give by the owner's files, or interlocks forbid, and why."""
    may = {option for name in willing for option in case.able.get(name, ())}
    unable = {
        option: case.problems.get(option, "nobody who bargains may give it")
        for option in case.dispute.options if option not in may
    }  # fmt: skip
    found = {**unable, **case.locked}
    most = MAX_REASON_CHARS if len(found) <= FEW else MANY_CHARS  # the record of it all must fit the audit
    return {option: why[:most] for option, why in found.items()}


def _dispute(case: Case, answers: Answers, willing: list[str]) -> ladder.Dispute:
    present = _present(case, answers)
    options = sorted(case.dispute.options, key=lambda option: option != present)  # how things are is the safest
    return ladder.Dispute(
        conversation=case.conversation,
        parties=tuple(_party(name, case, answers.appraisals[name]) for name in willing),
        options=tuple(options),
        forbidden=forbidden(case, willing),
        hold_s=case.hold_s,
        safe=present,
        offers_s=VOTE_S,
        turn_s=VOTE_S / 2,
        vote_s=VOTE_S,
    )


def _present(case: Case, answers: Answers) -> str:
    """Return how things are: as its holder says, who could have it so, where nobody above it bargains; else empty."""
    found = answers.appraisals.get(case.holder)
    if found is None or found.present not in case.able.get(case.holder, ()):
        return ""
    own = PRIORITIES.index(case.priorities[case.holder])
    is_top = all(PRIORITIES.index(case.priorities[name]) <= own for name in answers.appraisals)
    return found.present if is_top else ""


def _party(name: str, case: Case, said: Appraisal) -> ladder.Party:
    return ladder.Party(
        agent=name,
        priority=case.priorities[name],
        way=said.way if said.way in case.able.get(name, ()) else "",  # no class or lease has others give it
        quiet_s=case.quiet_s if name == case.holder else None,
        worth={item.option: item.utility for item in said.worths},
        disagreement=said.disagreement,
    )


def _climbed(state: Settling, effects: list[ladder.Effect]) -> Result:
    case, climbed = state.case, state.ladder
    if not isinstance(climbed, ladder.Settled):
        return state, [effect for effect in effects if isinstance(effect, Tell | Refuse | StartTimer)]
    refusals: list[Effect] = [effect for effect in effects if isinstance(effect, Refuse)]
    winner = _winner(case, state.answers, climbed)
    reasons = (*_beside(case, state.answers), *climbed.reasons)
    if climbed.option and not winner:
        reasons = (*reasons, f"{climbed.rung}: nobody is to give {climbed.option}: leases and classes decide")
    verdict = Verdict(
        climbed.option if winner else "", winner, climbed.rung, reasons,
        _runner_up(case, state.answers, climbed),
    )  # fmt: skip
    ended, tells = _ended(case, state.answers, verdict)
    return ended, [*refusals, *tells]


def _winner(case: Case, answers: Answers, settled: ladder.Settled) -> str:
    """Return who gives an option by its own command.

    Of those who may the one of the highest class at the guard, whose lease then keeps all others back; of several whose
    way it is, then who holds it, then to whom it is worth most. By class alone only one whose way it is.

    Empty when nobody may, by the owner's files; when a lease, or how things are, would be given by another than the
    holder; when it is all that is left and worth less than no agreement to somebody.
    """
    option = settled.option
    if not option or (settled.rung == "lock" and _is_below(answers, option)):
        return ""
    if settled.rung in ("lease", "fallback"):
        return case.holder if option in case.able.get(case.holder, ()) else ""
    able = [
        name for name, said in answers.appraisals.items()
        if option in case.able.get(name, ()) and (settled.rung != "priority" or said.way == option)
    ]  # fmt: skip

    def rank(name: str) -> tuple[int, bool, bool, float, str]:
        said = answers.appraisals[name]
        worth = next((item.utility for item in said.worths if item.option == option), 0.0)
        above = PRIORITIES.index(case.classes.get(name, case.priorities[name]))
        return -above, said.way != option, name != case.holder, -worth, name

    return min(able, key=rank, default="")


def _is_below(answers: Answers, option: str) -> bool:
    """Say whether an option is worth less than no agreement to somebody, or nobody knows what it is worth to one."""
    return any(
        {item.option: item.utility for item in said.worths}.get(option, -1.0) < said.disagreement
        for said in answers.appraisals.values()
    )


def _runner_up(case: Case, answers: Answers, settled: ladder.Settled) -> str:
    """Return what would have come second by the Nash point; empty where another rung decided."""
    if settled.rung != "nash":
        return ""
    ruled_out = forbidden(case, answers.appraisals)
    told = [{item.option: item.utility for item in said.worths} for said in answers.appraisals.values()]
    left = [name for name in case.dispute.options if name not in ruled_out and name != settled.option]
    try:
        found = nash(
            [[worth[name] for worth in told] for name in left],
            [said.disagreement for said in answers.appraisals.values()],
        )
    except (KeyError, InvalidInputError):  # there was but one option
        return ""
    return "" if found.place is None else left[found.place]


def _ended(case: Case, answers: Answers, verdict: Verdict) -> tuple[Ended, list[Effect]]:
    said = outcome(case, verdict)
    return Ended(case, answers, verdict), [Tell(party, said) for party in case.parties]


def outcome(case: Case, verdict: Verdict) -> Act:
    """Return what all parties are told: `inform` with the value and who gives it, `cancel` where nothing is settled."""
    settlement = Settlement(
        device=case.dispute.device, resource=case.dispute.resource, value=verdict.value, winner=verdict.winner,
        rung=verdict.rung, stands_s=case.stands_s if verdict.stands else 0.0,
    )  # fmt: skip
    performative: Performative = "inform" if verdict.winner else "cancel"
    return act(performative, case.conversation, settlement=settlement, reason=verdict.reasons[-1][:2_000])
