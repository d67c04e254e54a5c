"""What came of a load: lost and doubled from independent records, the rate that was reached, how soon, at which cost.

Records are: what the stream told of each event, the agents' journals, the command stream, the machines' journal.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from edgeagents.adapters.bus import Bus
from edgeagents.embedded.evidence import audited, commands_and_outcomes
from edgeagents.embedded.tally import Evidence, Tally, percentile, problems, promises, tally
from edgeagents.journal import read_journal
from tests.bench.events_traffic import number_of
from tests.load.gateway import agent_name
from tests.load.machines import inventory
from tests.load.traffic import Machinery, Seen

T = TypeVar("T")
GRACE_S: Final = 3.0  # the last events are handled a little after the last is sent, and looked at once a second
GRACE_SHARE: Final = 0.02


@dataclass(slots=True)
class Verdict:
    """The figures, and in words what is wrong with them."""

    report: dict[str, Any]
    broken: list[str] = field(default_factory=list)  # promises
    short: str = ""  # of the rate that was asked for


async def judge(bus: Bus, seen: Seen, machinery: Machinery, folder: Path, asked: tuple[float, float]) -> Verdict:
    """Return what came of a load.

    Args:
        bus: connected as the owner.
        seen: what was published and seen of it.
        machinery: which event is of which machine.
        folder: of the gateway, with its journals.
        asked: events a second, and for how many seconds.
    """
    commands, outcomes = await commands_and_outcomes(bus)
    _, again = await audited(bus)
    world = [line for line in read_journal(folder / "journal" / "world.jsonl") if line["kind"] == "set"]
    absolute = frozenset((device.name, "Setpoint") for device in inventory(machinery.lines, 1000).devices)
    evidence = Evidence([], commands, outcomes, world, {}, {}, 0, again, absolute)
    result = tally(evidence)
    repeated = lost_events(result, seen, machinery, folder / "journal")
    decided = {number_of(command.event_id): command.id for command in commands}
    promised = promises(result)
    report = {
        "asked": {"events_per_s": asked[0], "seconds": asked[1]},
        "reached": reached(seen, asked),
        "lag": lag(seen),
        **promised,
        "delivered_again": repeated,
        "commands": {
            "sent": len({command.id for command in commands}), "outcomes": dict(result.outcomes),
            "reasons": dict(result.reasons.most_common(5)), "agents": len({command.agent for command in commands}),
            "without_command": sum(1 for number in marked(seen, machinery) if number not in decided),
        },
        "decision_ms": spread(decision_ms(seen, machinery)),
        "set_ms": spread(set_ms(seen, machinery, decided, world)),
    }  # fmt: skip
    return Verdict(report, problems(result)[:20] if any(promised.values()) else [], shortfall(report))


def lost_events(result: Tally, seen: Seen, machinery: Machinery, journals: Path) -> int:
    """Note every event that the stream holds and its agent's journal does not; return how many came twice."""
    had, again = bytearray(len(seen.sent_ns)), 0
    for line in range(machinery.lines):
        with (journals / f"{agent_name(line)}.jsonl").open("rb") as journal:
            for text in journal:
                number = number_of(json.loads(text)["id"])
                if machinery.line(number) == line:
                    again += had[number]
                    had[number] = 1
    result.lost_events += [
        f"event {number} (sequence {sequence}) never reached {agent_name(machinery.line(number))}"
        for number, sequence in enumerate(seen.sequences)
        if sequence and not had[number]
    ]
    return again


def marked(seen: Seen, machinery: Machinery) -> Iterable[int]:
    """Return the numbers of stored events that let a rule fire."""
    return (number for number, sequence in enumerate(seen.sequences) if sequence and machinery.is_marked(number))


def decision_ms(seen: Seen, machinery: Machinery) -> list[float]:
    """Return milliseconds from an event's publication until the command it caused was on NATS."""
    return [(at_ns - seen.sent_ns[number]) / 1e6 for number, at_ns in measured(seen.decided_ns, seen, machinery)]


def set_ms(
    seen: Seen, machinery: Machinery, decided: Mapping[int, str], world: Sequence[Mapping[str, Any]]
) -> list[float]:
    """Return milliseconds from an event's publication until the SET it caused was received."""
    received = {str(line["correlation"]): int(line["received_ns"]) for line in world if line.get("applied")}
    ends = ((number, received.get(command)) for number, command in measured(decided, seen, machinery))
    return [(at_ns - seen.sent_ns[number]) / 1e6 for number, at_ns in ends if at_ns is not None]


def measured(found: Mapping[int, T], seen: Seen, machinery: Machinery) -> Iterable[tuple[int, T]]:
    """Return what is of marked events after the warm-up; a wish that was held back goes out at any event after it."""
    return ((number, item) for number, item in found.items() if number >= seen.first and machinery.is_marked(number))


def spread(values: Iterable[float]) -> dict[str, float | None]:
    """Return p50, p99 and the largest."""
    ordered = sorted(values)
    return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "max": percentile(ordered, 1.0)}


def reached(seen: Seen, asked: tuple[float, float]) -> dict[str, Any]:
    """Return the rates that came about, and what held them back."""
    sent = len(seen.sent_ns) - seen.first
    held = {who: round(seconds, 1) for who, seconds in seen.held_s.items()}
    rate = sent / seen.read_in_s if seen.read_in_s else 0.0
    return {
        "published": sent, "not_stored": len(seen.sent_ns) - seen.stored,
        "published_per_s": round(sent / seen.sent_in_s, 1) if seen.sent_in_s else 0.0,
        "handled_per_s": round(rate, 1), "behind_at_the_end_s": round(seen.read_in_s - seen.sent_in_s, 1),
        "held_back_s": held, "limited_by": limit_of(seen, asked),
    }  # fmt: skip


def limit_of(seen: Seen, asked: tuple[float, float]) -> str:
    """Return who was behind when the rate was not reached: stream, agents or publisher; empty when it was."""
    rate, seconds = asked
    if (
        len(seen.sent_ns) - seen.first >= int(rate * seconds)
        and seen.read_in_s <= seconds * (1 + GRACE_SHARE) + GRACE_S
    ):
        return ""
    held = max(seen.held_s, key=lambda who: seen.held_s[who])
    if seen.held_s[held] > GRACE_SHARE * seconds:
        return held
    return "agents" if seen.read_in_s - seen.sent_in_s > GRACE_S else "publisher"


def lag(seen: Seen) -> dict[str, Any]:
    """Return how far the publisher was behind its plan, the stream behind it, and agents behind the stream."""
    return {
        "publisher_s": spread(seen.late_s), "unstored": spread(map(float, seen.unstored)),
        "unread": spread(map(float, seen.unread)),
    }  # fmt: skip


def shortfall(report: Mapping[str, Any]) -> str:
    """Return in words that the asked rate was not reached, empty when it was and the stream holds every event."""
    asked, found = report["asked"], report["reached"]
    if not found["limited_by"] and not found["not_stored"]:
        return ""
    by = found["limited_by"] or "stream"
    return (
        f"{asked['events_per_s']:g} events/s for {asked['seconds']:g} s were asked for, "
        f"{found['handled_per_s']:g}/s were handled ({found['published_per_s']:g}/s published, "
        f"{found['not_stored']} not stored), limited by: {by}"
    )
