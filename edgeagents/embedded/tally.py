"""Was anything lost, was anything done twice? Joined from independent records, never from an agent's own word.

- what the world published and received: its journal
- what agents consumed: their journals, against what the events stream holds
- what agents sent and how it ended: the command stream

`summarise` gives the demo's figures, `promises` what must be 0 under every fault.

Source: issues "First light" and "Nothing lost"; design.md sections 3.4, 3.7 and 3.8.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """An event the stream holds; `watchers` are the agents who watch it, by their files."""

    id: str
    sequence: int
    stored_ns: int
    watchers: frozenset[str]


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command the stream holds; `epoch` is (generation, revision) of the lease it was decided under."""

    id: str
    agent: str
    device: str
    resource: str
    sequence: int
    event_id: str
    epoch: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Ended:
    """An outcome the stream holds."""

    command_id: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All records of one run.

    Args:
        events: what the events stream holds, oldest first.
        commands: what agents stored.
        outcomes: what the guard told.
        world: lines of the world's journal.
        consumed: per agent, the event ids in its journal.
        watching_since_ns: per agent, when its consumer began.
        decisions: how many decisions the audit stream holds.
        again: commands that the guard says it set once more, by the correlation id of that.
        absolute: device resources that may be set twice, by the owner's word.
    """

    events: Sequence[HeldEvent]
    commands: Sequence[SentCommand]
    outcomes: Sequence[Ended]
    world: Sequence[Mapping[str, Any]]
    consumed: Mapping[str, frozenset[str]]
    watching_since_ns: Mapping[str, int]
    decisions: int = 0
    again: Mapping[str, str] = field(default_factory=dict)
    absolute: frozenset[tuple[str, str]] = frozenset()


@dataclass(slots=True)
class Tally:
    """What came of a run; see `summarise` and `promises` for the words."""

    lost_events: list[str] = field(default_factory=list)
    lost_commands: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    epoch_order: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    disagreeing: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)


def tally(evidence: Evidence) -> Tally:
    """Return what was lost, doubled, proven and how fast."""
    result = Tally()
    for event in evidence.events:
        for agent in sorted(event.watchers):
            watched = event.stored_ns >= evidence.watching_since_ns.get(agent, 0)
            if watched and event.id not in evidence.consumed.get(agent, frozenset()):
                result.lost_events.append(f"event {event.id} (sequence {event.sequence}) never reached {agent}")
    ended = {outcome.command_id: outcome for outcome in evidence.outcomes}
    for command in _sent_once(evidence.commands).values():
        outcome = ended.get(command.id)
        if outcome is None:
            result.lost_commands.append(f"command {command.id} of {command.agent} has no outcome")
            continue
        result.outcomes[outcome.status] += 1
        if outcome.status in ("failed", "expired", "uncertain", "refused"):
            result.reasons[f"{outcome.status}: {outcome.reason}"] += 1
    effects = _effects(evidence)
    result.doubled += _doubled(evidence, effects)
    result.epoch_order += _lower_epochs(evidence.commands, effects)
    result.disagreeing += _disagreeing(evidence.outcomes)
    result.forbidden += _forbidden(evidence.outcomes, effects)
    result.latencies_ms = sorted(_latencies_ms(evidence, effects))
    return result


def _sent_once(commands: Iterable[SentCommand]) -> dict[str, SentCommand]:
    """Return commands by id, each at its first place: a redelivered event may make the same command again."""
    found: dict[str, SentCommand] = {}
    for command in commands:
        found.setdefault(command.id, command)
    return found


def _effects(evidence: Evidence) -> list[Mapping[str, Any]]:
    """Return what took effect, oldest first, each under the id of its command; `again` marks what was set once more."""
    done = [line for line in evidence.world if line["kind"] == "set" and line.get("applied")]
    return [
        {**line, "correlation": evidence.again.get(name, name), "again": name in evidence.again}
        for line, name in ((line, str(line.get("correlation"))) for line in done)
    ]


def _doubled(evidence: Evidence, effects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return second effects of a command, and effects that came after a later command's effect.

    What the guard says it set once more may be a second effect where the owner says that this is harmless.
    """
    by_id = _sent_once(evidence.commands)
    seen: set[tuple[str, str, bool]] = set()
    newest: dict[tuple[str, str], int] = {}
    found = []
    for line in effects:
        command = by_id.get(str(line.get("correlation")))
        if command is None:
            continue  # the owner's own doing
        key = (command.device, command.resource)
        is_again, resource = bool(line["again"]), str(line.get("resource"))
        ways = {way for way in (False, True) if (command.id, resource, way) in seen}
        if is_again in ways or (ways and key not in evidence.absolute):
            found.append(f"command {command.id} took effect twice on {key[0]}/{key[1]}")
        seen.add((command.id, resource, is_again))
        if command.sequence < newest.get(key, 0):
            found.append(f"command {command.id} took effect after a later one on {key[0]}/{key[1]}")
        newest[key] = max(newest.get(key, 0), command.sequence)
    return found


def _lower_epochs(commands: Iterable[SentCommand], effects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return effects of a lower epoch that came after one of a higher epoch, on the same device resource."""
    by_id = _sent_once(commands)
    highest: dict[tuple[str, str], tuple[int, int]] = {}
    found = []
    for line in effects:
        command = by_id.get(str(line.get("correlation")))
        if command is None:
            continue
        key = (command.device, command.resource)
        before = highest.get(key, (0, 0))
        if command.epoch < before:
            words = f"epoch {_dotted(command.epoch)} after {_dotted(before)}"
            found.append(f"command {command.id} took effect on {key[0]}/{key[1]} under {words}")
        highest[key] = max(before, command.epoch)
    return found


def _dotted(epoch: tuple[int, int]) -> str:
    return f"{epoch[0]}.{epoch[1]}"


def _disagreeing(outcomes: Iterable[Ended]) -> list[str]:
    """Return commands that were told to have ended in two ways; the same way told twice is harmless."""
    told: dict[str, set[str]] = {}
    for outcome in outcomes:
        told.setdefault(outcome.command_id, set()).add(outcome.status)
    return [
        f"command {name} was told to have ended in {len(ways)} ways: {', '.join(sorted(ways))}"
        for name, ways in told.items()
        if len(ways) > 1
    ]


def _forbidden(outcomes: Iterable[Ended], effects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return effects of commands whose outcome says that they had none: expired or refused."""
    ended = {outcome.command_id: outcome for outcome in outcomes if outcome.status in ("expired", "refused")}
    done = dict.fromkeys(str(line.get("correlation")) for line in effects)
    return [
        f"command {name} took effect and was told {ended[name].status}: {ended[name].reason}"
        for name in done
        if name in ended
    ]


def promises(result: Tally) -> dict[str, int]:
    """Return how often each promise was broken; every figure must be 0, whatever was killed."""
    return {
        "lost": len(result.lost_events) + len(result.lost_commands),
        "duplicated": len(result.doubled),
        "epoch_order_violations": len(result.epoch_order),
        "forbidden_effects": len(result.forbidden),
        "disagreeing_outcomes": len(result.disagreeing),
    }


def problems(result: Tally) -> list[str]:
    """Return every broken promise in words."""
    return [
        *result.lost_events, *result.lost_commands, *result.doubled,
        *result.epoch_order, *result.forbidden, *result.disagreeing,
    ]  # fmt: skip


def _latencies_ms(evidence: Evidence, effects: Iterable[Mapping[str, Any]]) -> Iterable[float]:
    published = {line["id"]: int(line["published_ns"]) for line in evidence.world if line["kind"] == "event"}
    by_id = _sent_once(evidence.commands)
    for line in effects:
        command = by_id.get(str(line.get("correlation")))
        start_ns = published.get(command.event_id) if command is not None else None
        if start_ns is not None:
            yield (int(line["received_ns"]) - start_ns) / 1e6


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of sorted numbers, None when there are none."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))], 2)


def summarise(result: Tally, evidence: Evidence, score: Mapping[str, Any]) -> dict[str, Any]:
    """Return the demo's last line: `failures` are failed, expired and uncertain; refused and unproven are neither."""
    counts = result.outcomes
    return {
        "events": len(evidence.events),
        "decisions": evidence.decisions,
        "commands_sent": len(_sent_once(evidence.commands)),
        "commands_proven": counts["proven"],
        "failures": counts["failed"] + counts["expired"] + counts["uncertain"],
        "refused_by_gate": counts["refused"],
        "lost": len(result.lost_events) + len(result.lost_commands),
        "duplicated": len(result.doubled),
        "event_to_command_ms": {
            "p50": percentile(result.latencies_ms, 0.50),
            "p99": percentile(result.latencies_ms, 0.99),
        },
        "comfort_violation_degree_hours": score.get("comfort_violation_degree_hours"),
        "energy_kwh": score.get("energy_kwh"),
        "reasons": dict(result.reasons.most_common(10)),
        "problems": problems(result)[:10],
    }
