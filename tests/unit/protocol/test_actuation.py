"""One device's commands: every path from the intent to the outcome, and calm at events that do not fit."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.message import Cause, Command, CommandId, Epoch, Outcome
from edgeagents.model.site import Proof
from edgeagents.protocol.actuation import (
    FIRST_READ_AGAIN_S,
    LONGEST_READ_AGAIN_S,
    Begin,
    Blocked,
    Event,
    Idle,
    Intending,
    IntentLost,
    IntentStored,
    Proving,
    ReadDone,
    ReadFailed,
    SetDone,
    SetRefused,
    SetSilent,
    Setting,
    State,
    Tick,
    Work,
    step,
)
from edgeagents.protocol.effects import ActuationEffect, Block, Finish, Read, Set, StartTimer, StoreIntent


def command(name: str = "c-1", value: str = "2.1e+01") -> Command:
    """Return a command for a radiator."""
    return Command(
        id=CommandId(name), device="radiator", resource="Setpoint", value=value, incarnation="i",
        epoch=Epoch(generation=1, revision=7), ttl_s=10, cause=Cause(stream="s", sequence=1),
    )  # fmt: skip


PROOF = Proof(resource="Shown", tolerance=0.5, wait=2.0)
WORK = Work(command(), 21.0, "absolute", PROOF, deadline_s=100.0, sequence=9, approver="ann")


def outcome(effects: list[ActuationEffect]) -> Outcome:
    """Return the one outcome among effects."""
    (found,) = [effect.outcome for effect in effects if isinstance(effect, Finish)]
    return found


def run(*events: Event, state: State | None = None) -> tuple[State, list[ActuationEffect]]:
    """Return the state after some events, and what the last one led to."""
    now: State = Idle() if state is None else state
    effects: list[ActuationEffect] = []
    for event in events:
        now, effects = step(now, event)
    return now, effects


def test_the_intent_comes_first_then_the_set_then_the_proof() -> None:
    assert run(Begin(WORK)) == (Intending(WORK), [StoreIntent(WORK.command)])
    assert run(Begin(WORK), IntentStored(99.0)) == (Setting(WORK), [Set(WORK.command, 21.0)])
    state, effects = run(Begin(WORK), IntentStored(99.0), SetDone(99.5))
    assert (state, effects) == (Proving(WORK, until_s=101.5), [Read("radiator", "Shown")])
    state, effects = step(state, ReadDone(21.4, "2.14e+01", 99.6))
    assert state == Idle()
    told = outcome(effects)
    assert (told.status, told.read_back, told.reason) == ("proven", "2.14e+01", "Shown reads 21.4")
    assert (told.command_id, told.sequence, told.approver, told.epoch) == ("c-1", 9, "ann", WORK.command.epoch)


@pytest.mark.parametrize(
    ("events", "status", "reason"),
    [
        ([IntentLost("disk full")], "failed", "intent not stored, so nothing was set: disk full"),
        ([IntentStored(100.1)], "expired", "deadline passed before it could be set"),
        ([IntentStored(99.0, "lease lost")], "refused", "lease lost"),
        ([IntentStored(100.1, "lease lost")], "expired", "deadline passed before it could be set"),
        ([IntentStored(100.0), SetRefused("423 locked")], "failed", "423 locked"),
    ],
)
def test_ways_out_without_an_effect(events: list[Event], status: str, reason: str) -> None:
    state, effects = run(Begin(WORK), *events)
    assert state == Idle()
    assert (outcome(effects).status, outcome(effects).reason) == (status, reason)
    assert len(effects) == 1


def test_without_a_proof_it_is_set_but_unproven() -> None:
    state, effects = run(Begin(replace(WORK, proof=None)), IntentStored(1.0), SetDone(2.0))
    assert state == Idle()
    assert outcome(effects).status == "unproven"


def test_a_set_without_a_definite_answer_blocks_the_device() -> None:
    state, effects = run(Begin(WORK), IntentStored(1.0), SetSilent("no answer in 7 s"))
    assert isinstance(state, Blocked)
    block, finish = effects
    assert block == Block("radiator", state.reason)
    assert "c-1 got no definite answer: no answer in 7 s" in state.reason
    assert isinstance(finish, Finish)
    assert finish.outcome.status == "uncertain"
    again, effects = step(state, Begin(replace(WORK, command=command("c-2"))))
    assert again == state
    assert outcome(effects).status == "refused"
    assert "device is blocked" in outcome(effects).reason


def test_reads_go_on_with_growing_pauses_until_the_wait_is_over() -> None:
    state, _ = run(Begin(WORK), IntentStored(0.0), SetDone(10.0))
    pauses, now_s = [], 10.0
    while True:
        state, effects = step(state, ReadDone(18.0, "1.8e+01", now_s))
        if not isinstance(effects[0], StartTimer):
            break
        pauses.append(effects[0].after_s)
        now_s += effects[0].after_s
        assert step(state, Tick()) == (state, [Read("radiator", "Shown")])
    assert pauses[:3] == [FIRST_READ_AGAIN_S, FIRST_READ_AGAIN_S * 2, FIRST_READ_AGAIN_S * 4]
    assert max(pauses) <= LONGEST_READ_AGAIN_S
    assert now_s == pytest.approx(12.0)
    told = outcome(effects)
    assert (state, told.status, told.read_back) == (Idle(), "failed", "1.8e+01")
    assert told.reason == "not proven in 2 s: Shown reads 18, wanted 21"


def test_a_read_that_fails_is_tried_again_and_told_when_it_was_the_last() -> None:
    state, _ = run(Begin(WORK), IntentStored(0.0), SetDone(10.0))
    state, effects = step(state, ReadFailed("404", 10.5))
    assert effects == [StartTimer(FIRST_READ_AGAIN_S)]
    failed, effects = step(state, ReadFailed("503 gone", 12.0))
    assert (failed, outcome(effects).reason) == (Idle(), "not proven in 2 s: 503 gone")
    assert outcome(effects).read_back is None
    proven, effects = step(state, ReadDone(21, "21", 99.0))
    assert (proven, outcome(effects).status) == (Idle(), "proven"), "however late: it is so"


@pytest.mark.parametrize(
    ("read", "wanted", "tolerance", "is_proven"),
    [
        (21.5, 21.0, 0.5, True),
        (21.51, 21.0, 0.5, False),
        (21, 21.0, 0.0, True),
        (True, True, 0.0, True),
        (False, True, 1.0, False),
        (1, True, 1.0, False),
        ("eco", "eco", 0.0, True),
        (None, 21.0, 99.0, False),
        (float("nan"), 21.0, 99.0, False),
        (10**400, 21.0, 99.0, False),
        ([1.0], [1.0], 0.0, True),
    ],
)
def test_proof_is_the_value_within_its_tolerance(read: Any, wanted: Any, tolerance: float, is_proven: bool) -> None:
    work = replace(WORK, wanted=wanted, proof=Proof(resource="Shown", tolerance=tolerance))
    _, effects = run(Begin(work), IntentStored(0.0), SetDone(0.0), ReadDone(read, str(read), 50.0))
    assert (outcome(effects).status == "proven") is is_proven


EVENTS: list[Event] = [
    IntentStored(1.0), IntentLost("x"), SetDone(1.0), SetRefused("x"), SetSilent("x"), ReadDone(21.0, "21", 1.0),
    ReadFailed("x", 1.0), Tick(), Begin(WORK),
]  # fmt: skip
FITS: dict[type[State], tuple[type[Event], ...]] = {
    Idle: (Begin,),
    Intending: (IntentStored, IntentLost),
    Setting: (SetDone, SetRefused, SetSilent),
    Proving: (ReadDone, ReadFailed, Tick),
    Blocked: (Begin,),
}


@pytest.mark.parametrize("state", [Idle(), Intending(WORK), Setting(WORK), Proving(WORK, 2.0), Blocked("x")], ids=str)
def test_an_event_that_does_not_fit_changes_nothing(state: State) -> None:
    for event in EVENTS:
        if not isinstance(event, FITS[type(state)]):
            assert step(state, event) == (state, [])


def works() -> st.SearchStrategy[Work]:
    """Return commands with and without proof and time."""
    return st.builds(
        Work,
        st.sampled_from([command("c-1"), command("c-2")]),
        st.sampled_from([21.0, 22.0]),
        st.sampled_from(["absolute", "step", "toggle"]),
        st.sampled_from([None, PROOF]),
        st.sampled_from([5.0, 15.0]),
        st.integers(1, 9),
    )


times = st.sampled_from([0.0, 4.0, 10.0, 20.0])
events = st.one_of(
    st.builds(Begin, works()),
    st.builds(IntentStored, times, st.sampled_from(["", "", "lease lost"])),
    st.just(IntentLost("x")),
    st.builds(SetDone, times),
    st.just(SetRefused("x")),
    st.just(SetSilent("x")),
    st.builds(ReadDone, st.sampled_from([21.0, 30.0, None]), st.just("t"), times),
    st.builds(ReadFailed, st.just("x"), times),
    st.just(Tick()),
)


@given(st.lists(events, max_size=60))
def test_any_sequence_of_events_keeps_the_promises(sequence: list[Event]) -> None:
    state: State = Idle()
    begun: Work | None = None
    counts: Counter[str] = Counter()
    for event in sequence:
        before, (state, effects) = state, step(state, event)
        if isinstance(event, Begin) and isinstance(before, (Idle, Blocked)):
            begun, counts = event.work, Counter()
        for effect in effects:
            counts[type(effect).__name__] += 1
            match effect:
                case Set():
                    assert isinstance(event, IntentStored), "no SET without a stored intent"
                    assert isinstance(before, Intending)
                    assert begun is not None
                    assert event.now_s <= begun.deadline_s, "no SET after the deadline"
                    assert not event.problem, "no SET without the lease"
                    assert (effect.command, effect.wanted) == (begun.command, begun.wanted)
                case Finish(told):
                    assert begun is not None
                    assert told.command_id == begun.command.id
                    if told.status == "proven":
                        assert isinstance(event, ReadDone)
                        assert (event.value, begun.wanted) == (21.0, 21.0), "no proof by another value"
                    assert told.status != "uncertain" or isinstance(state, Blocked)
        assert counts["Set"] <= 1, "never two SETs for one command"
        assert counts["Finish"] <= 1, "never two outcomes for one command"
        assert counts["Set"] <= counts["StoreIntent"]
        if isinstance(state, Idle) and begun is not None:
            assert counts["Finish"] == 1, "no command ends without an outcome"
        if isinstance(before, Blocked):
            assert state == before, "released by nothing here"
