"""Lost and doubled, found in records with one planted defect each, and not found in records without."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.embedded.tally import Ended, Evidence, HeldEvent, SentCommand, percentile, promises, summarise, tally

SCORE = {"comfort_violation_degree_hours": 1.5, "energy_kwh": 2.5}
AGENTS = ("air", "heat")


def event_line(number: int) -> dict[str, Any]:
    """Return the world's note that it published an event."""
    return {"kind": "event", "id": f"e{number}", "published_ns": 1_000_000 * number}


def set_line(number: int, *, resource: str = "Setpoint", **more: Any) -> dict[str, Any]:
    """Return the world's note of a SET."""
    received_ns = 1_000_000 * number + 500_000
    fields = {"correlation": f"c{number}", "device": "valve", "resource": resource, "received_ns": received_ns}
    return {"kind": "set", "applied": True, **fields, **more}


def clean(count: int = 4) -> Evidence:
    """Return the records of a run in which all went well: each event led to a command."""
    numbers = range(1, count + 1)
    return Evidence(
        events=[HeldEvent(f"e{number}", number, 100 + number, frozenset(AGENTS)) for number in numbers],
        commands=[
            SentCommand(f"c{number}", "air", "valve", "Setpoint", 10 * number, f"e{number}") for number in numbers
        ],
        outcomes=[Ended(f"c{number}", "proven", "reads 21") for number in numbers],
        world=[line for number in numbers for line in (event_line(number), set_line(number))],
        consumed={name: frozenset(f"e{number}" for number in numbers) for name in AGENTS},
        watching_since_ns=dict.fromkeys(AGENTS, 0),
        decisions=count,
    )


def figures(evidence: Evidence) -> dict[str, Any]:
    """Return the demo's last line."""
    return summarise(tally(evidence), evidence, SCORE)


def test_a_clean_run_has_nothing_to_tell() -> None:
    assert figures(clean()) == {
        "events": 4, "decisions": 4, "commands_sent": 4, "commands_proven": 4, "failures": 0, "refused_by_gate": 0,
        "lost": 0, "duplicated": 0, "event_to_command_ms": {"p50": 0.5, "p99": 0.5},
        "comfort_violation_degree_hours": 1.5, "energy_kwh": 2.5, "reasons": {}, "problems": [],
    }  # fmt: skip


def test_an_event_that_a_watcher_never_saw_is_lost() -> None:
    run = clean()
    result = tally(replace(run, consumed={**run.consumed, "heat": frozenset({"e1", "e2", "e4"})}))
    assert result.lost_events == ["event e3 (sequence 3) never reached heat"]
    assert tally(replace(run, consumed={"air": run.consumed["air"]})).lost_events == [
        f"event e{number} (sequence {number}) never reached heat" for number in (1, 2, 3, 4)
    ]


def test_an_event_from_before_its_watcher_or_that_nobody_watches_is_not_lost() -> None:
    run = clean()
    nothing_seen = replace(run, consumed={}, watching_since_ns=dict.fromkeys(AGENTS, 105))
    assert tally(nothing_seen).lost_events == []
    unwatched = [replace(event, watchers=frozenset()) for event in run.events]
    assert tally(replace(run, events=unwatched, consumed={})).lost_events == []


def test_a_command_without_an_outcome_is_lost() -> None:
    run = clean()
    result = figures(replace(run, outcomes=run.outcomes[:-1]))
    assert (result["lost"], result["commands_proven"]) == (1, 3)
    assert result["problems"] == ["command c4 of air has no outcome"]


def test_a_second_effect_of_a_command_is_a_double() -> None:
    run = clean()
    result = figures(replace(run, world=[*run.world, set_line(4)]))
    assert result["duplicated"] == 1
    assert result["problems"] == ["command c4 took effect twice on valve/Setpoint"]


def test_an_effect_after_a_later_commands_effect_is_a_double() -> None:
    run = clean()
    lines = [set_line(2), set_line(1), set_line(3)]
    assert tally(replace(run, world=lines)).doubled == ["command c1 took effect after a later one on valve/Setpoint"]


def test_an_effect_under_a_lower_epoch_than_one_before_it_is_found() -> None:
    run = clean(3)
    commands = [replace(item, epoch=(1, 10 - index)) for index, item in enumerate(run.commands)]
    result = tally(replace(run, commands=commands))
    assert result.epoch_order == [
        "command c2 took effect on valve/Setpoint under epoch 1.9 after 1.10",
        "command c3 took effect on valve/Setpoint under epoch 1.8 after 1.10",
    ]
    raised = [replace(item, epoch=(1 + index, 10 - index)) for index, item in enumerate(run.commands)]
    assert tally(replace(run, commands=raised)).epoch_order == [], "the generation counts first"
    elsewhere = [replace(item, device=f"valve-{item.id}") for item in commands]
    assert tally(replace(run, commands=elsewhere)).epoch_order == [], "each device resource has epochs of its own"


@pytest.mark.parametrize("status", ["expired", "refused"])
def test_an_effect_of_a_command_told_to_have_none_is_forbidden(status: str) -> None:
    run = clean(2)
    result = tally(replace(run, outcomes=[run.outcomes[0], Ended("c2", status, "too late")]))
    assert result.forbidden == [f"command c2 took effect and was told {status}: too late"]
    quiet = replace(run, world=[line for line in run.world if line.get("correlation") != "c2"])
    assert tally(replace(quiet, outcomes=[run.outcomes[0], Ended("c2", status, "too late")])).forbidden == []


def test_two_outcomes_of_one_command_must_agree() -> None:
    run = clean(2)
    again = Ended("c2", "proven", "told again after a crash")
    assert tally(replace(run, outcomes=[*run.outcomes, again])).disagreeing == []
    result = tally(replace(run, outcomes=[*run.outcomes, Ended("c2", "uncertain", "who knows")]))
    assert result.disagreeing == ["command c2 was told to have ended in 2 ways: proven, uncertain"]


def test_every_broken_promise_is_counted_under_its_own_name() -> None:
    run = clean(3)
    whole = {
        "lost": 0, "duplicated": 0, "epoch_order_violations": 0, "forbidden_effects": 0, "disagreeing_outcomes": 0,
    }  # fmt: skip
    assert promises(tally(run)) == whole
    broken = replace(run, outcomes=[*run.outcomes[:1], Ended("c2", "failed", "x"), Ended("c2", "expired", "late")])
    assert promises(tally(broken)) == whole | {"lost": 1, "forbidden_effects": 1, "disagreeing_outcomes": 1}


def test_order_counts_for_each_resource_by_itself() -> None:
    run = clean(2)
    commands = [replace(run.commands[0], resource="Mode"), run.commands[1]]
    lines = [set_line(2), set_line(1, resource="Mode")]
    assert tally(replace(run, commands=commands, world=lines)).doubled == []


def test_what_was_not_applied_or_is_the_owners_own_is_no_effect() -> None:
    run = clean()
    lines = [*run.world, set_line(4, applied=False, error="locked"), set_line(4, correlation="by-hand")]
    assert tally(replace(run, world=lines)).doubled == []


def test_a_command_stored_again_after_a_redelivery_is_one_command() -> None:
    run = clean()
    again = SentCommand("c2", "air", "valve", "Setpoint", 99, "e2")
    result = figures(replace(run, commands=[*run.commands, again]))
    assert (result["commands_sent"], result["commands_proven"], result["duplicated"]) == (4, 4, 0)


@pytest.mark.parametrize(
    ("status", "counted"),
    [("failed", "failures"), ("expired", "failures"), ("uncertain", "failures"), ("refused", "refused_by_gate")],
)
def test_each_way_to_end_is_counted_with_its_reason(status: str, counted: str) -> None:
    run = clean()
    result = figures(replace(run, outcomes=[*run.outcomes[:-1], Ended("c4", status, "because")]))
    assert (result[counted], result["commands_proven"], result["lost"]) == (1, 3, 0)
    assert result["reasons"] == {f"{status}: because": 1}
    unproven = figures(replace(run, outcomes=[*run.outcomes[:-1], Ended("c4", "unproven", "set")]))
    assert (unproven["failures"], unproven["refused_by_gate"], unproven["reasons"]) == (0, 0, {})


def test_latency_is_from_the_event_to_its_set() -> None:
    run = clean(2)
    lines = [event_line(1), set_line(1, received_ns=4_000_000), set_line(2)]
    assert tally(replace(run, world=lines)).latencies_ms == [3.0]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0), (0.001, 1.0)])
def test_percentiles_are_by_nearest_rank(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None
    assert percentile([7.123456], 0.99) == 7.12


@given(st.data())
def test_any_single_defect_is_found(data: st.DataObject) -> None:
    run = clean(6)
    number = data.draw(st.integers(1, 6))
    how = data.draw(st.sampled_from(["event", "outcome", "effect twice", "late effect"]))
    match how:
        case "event":
            agent = data.draw(st.sampled_from(AGENTS))
            broken = replace(run, consumed={**run.consumed, agent: run.consumed[agent] - {f"e{number}"}})
        case "outcome":
            broken = replace(run, outcomes=[item for item in run.outcomes if item.command_id != f"c{number}"])
        case "effect twice":
            place = data.draw(st.integers(0, len(run.world)))
            broken = replace(run, world=[*run.world[:place], set_line(number), *run.world[place:]])
        case _:
            others = [line for line in run.world if line.get("correlation") != f"c{number}"]
            broken = replace(run, world=[*others, set_line(number)] if number < 6 else [set_line(6), *others])
    result = figures(broken)
    assert result["lost"] + result["duplicated"] >= 1
    assert result["problems"]


@pytest.mark.parametrize(
    ("again", "absolute", "count"),
    [({"other": "c-1"}, True, 0), ({"other": "c-1"}, False, 1), ({}, True, 0)],
    ids=["said, and harmless", "said, and not harmless", "not said: somebody else's"],
)
def test_what_the_guard_set_once_more_is_no_second_effect_where_that_is_harmless(
    again: dict[str, str], absolute: bool, count: int
) -> None:
    command = SentCommand("c-1", "air", "valve", "Setpoint", 5, "e-1")
    world = [
        {"kind": "set", "applied": True, "correlation": name, "resource": "Setpoint", "received_ns": "1"}
        for name in ("c-1", "other")
    ]
    keys = frozenset({("valve", "Setpoint")} if absolute else ())
    evidence = Evidence([], [command], [Ended("c-1", "proven", "")], world, {}, {}, 0, again, keys)
    assert len(tally(evidence).doubled) == count
    thrice = Evidence([], [command], [Ended("c-1", "proven", "")], [*world, world[1]], {}, {}, 0, again, keys)
    assert len(tally(thrice).doubled) == (count + 1 if again else 0), "no third time"
