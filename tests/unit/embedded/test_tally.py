"""The join that says whether anything was lost or doubled finds every planted defect, and none in a clean run."""

from dataclasses import replace
from typing import Any

import pytest

from edgeagents.embedded.tally import Ended, Evidence, HeldEvent, SentCommand, percentile, summarise, tally

AGENT = "comfort"


def clean(commands: int = 3) -> Evidence:
    """Return the records of a run in which every event led to a proven command."""
    numbers = range(1, commands + 1)
    world: list[dict[str, Any]] = []
    for number in numbers:
        world.append({"kind": "event", "id": f"e{number}", "published_ns": number * 1_000_000_000})
        world.append(effect(f"c{number}", received_ns=number * 1_000_000_000 + 20_000_000))
    return Evidence(
        events=[HeldEvent(f"e{number}", number, number * 1_000, frozenset({AGENT})) for number in numbers],
        commands=[
            SentCommand(f"c{number}", AGENT, "valve", "Setpoint", 10 + number, f"e{number}") for number in numbers
        ],
        outcomes=[Ended(f"c{number}", "proven", "") for number in numbers],
        world=world,
        consumed={AGENT: frozenset(f"e{number}" for number in numbers)},
        watching_since_ns={AGENT: 0},
        decisions=commands,
    )


def effect(command: str, *, received_ns: int = 0, applied: bool = True) -> dict[str, Any]:
    """Return a line of the world's journal: it received a SET."""
    return {
        "kind": "set", "correlation": command, "device": "valve", "resource": "Setpoint",
        "received_ns": received_ns, "applied": applied,
    }  # fmt: skip


def test_nothing_is_found_in_a_clean_run() -> None:
    evidence = clean()
    result = tally(evidence)
    line = summarise(result, evidence, {"energy_kwh": 1.5, "comfort_violation_degree_hours": 0.25})

    assert (line["lost"], line["duplicated"], line["failures"], line["problems"]) == (0, 0, 0, [])
    assert (line["events"], line["commands_sent"], line["commands_proven"], line["decisions"]) == (3, 3, 3, 3)
    assert line["event_to_command_ms"] == {"p50": 20.0, "p99": 20.0}
    assert (line["energy_kwh"], line["comfort_violation_degree_hours"]) == (1.5, 0.25)


def test_an_event_that_a_watching_agent_never_consumed_is_lost() -> None:
    result = tally(replace(clean(), consumed={AGENT: frozenset({"e1", "e3"})}))

    assert len(result.lost_events) == 1
    assert "e2" in result.lost_events[0]
    assert AGENT in result.lost_events[0]


def test_an_event_stored_before_the_agent_watched_is_not_lost() -> None:
    evidence = replace(clean(), consumed={AGENT: frozenset({"e2", "e3"})}, watching_since_ns={AGENT: 1_500})

    assert tally(evidence).lost_events == []


def test_an_event_nobody_watches_is_not_lost() -> None:
    evidence = clean()
    nobodys = HeldEvent("e9", 9, 9_000, frozenset())

    assert tally(replace(evidence, events=[*evidence.events, nobodys])).lost_events == []


def test_a_command_without_an_outcome_is_lost() -> None:
    evidence = clean()

    assert len(tally(replace(evidence, outcomes=evidence.outcomes[1:])).lost_commands) == 1


def test_a_second_effect_of_a_command_is_doubled() -> None:
    evidence = clean()

    result = tally(replace(evidence, world=[*evidence.world, effect("c3")]))

    assert result.doubled == ["command c3 took effect twice on valve/Setpoint"]


def test_an_effect_after_a_later_commands_effect_is_doubled() -> None:
    evidence = clean()
    late = [line for line in evidence.world if line.get("correlation") != "c1"]

    result = tally(replace(evidence, world=[*late, effect("c1")]))

    assert result.doubled == ["command c1 took effect after a later one on valve/Setpoint"]


def test_a_set_that_was_not_applied_is_no_effect() -> None:
    evidence = clean()

    assert tally(replace(evidence, world=[*evidence.world, effect("c3", applied=False)])).doubled == []


def test_the_owners_own_sets_are_not_counted() -> None:
    evidence = clean()

    result = tally(replace(evidence, world=[*evidence.world, effect("the owner's"), effect("the owner's")]))

    assert result.doubled == []


@pytest.mark.parametrize(
    ("status", "failures", "refused"),
    [("failed", 1, 0), ("expired", 1, 0), ("uncertain", 1, 0), ("refused", 0, 1), ("unproven", 0, 0)],
)
def test_failures_are_failed_expired_and_uncertain(status: str, failures: int, refused: int) -> None:
    evidence = clean()
    evidence = replace(evidence, outcomes=[*evidence.outcomes[:2], Ended("c3", status, "because")])

    line = summarise(tally(evidence), evidence, {})

    assert (line["failures"], line["refused_by_gate"], line["commands_proven"]) == (failures, refused, 2)
    assert line["lost"] == 0


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.99, 4), (0.0, 1), (1.0, 4)])
def test_percentiles_are_nearest_rank(share: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], share) == value


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None
