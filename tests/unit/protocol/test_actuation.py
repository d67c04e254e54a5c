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
    CHANGING_READS,
    FIRST_READ_AGAIN_S,
    LONGEST_READ_AGAIN_S,
    Begin,
    Event,
    Idle,
    Intending,
    IntentLost,
    IntentStored,
    Proving,
    Quarantined,
    ReadDone,
    ReadFailed,
    Recovered,
    SetDone,
    SetRefused,
    SetSilent,
    SetStopped,
    Setting,
    State,
    Tick,
    Work,
    step,
)
from edgeagents.protocol.effects import (
    ActuationEffect,
    Block,
    Finish,
    Read,
    Release,
    Set,
    StartTimer,
    StoreIntent,
    WakeLater,
)


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
    ("events", "status", "reason", "cause"),
    [
        ([IntentLost("disk full")], "failed", "intent not stored, so nothing was set: disk full", "storage"),
        ([IntentStored(100.1)], "expired", "deadline passed before it could be set", "late"),
        ([IntentStored(99.0, "lease lost", "lease")], "refused", "lease lost", "lease"),
        ([IntentStored(100.1, "lease lost", "lease")], "expired", "deadline passed before it could be set", "late"),
        ([IntentStored(100.0), SetRefused("423 locked")], "failed", "423 locked", "device"),
        ([IntentStored(100.0), SetStopped("expired", "too late", "late")], "expired", "too late", "late"),
        ([IntentStored(100.0), SetStopped("refused", "paused", "order")], "refused", "paused", "order"),
    ],
)
def test_ways_out_without_an_effect(events: list[Event], status: str, reason: str, cause: str) -> None:
    state, effects = run(Begin(WORK), *events)
    assert state == Idle()
    found = outcome(effects)
    assert (found.status, found.reason, found.cause_kind) == (status, reason, cause)
    assert len(effects) == 1


def test_without_a_proof_it_is_set_but_unproven() -> None:
    state, effects = run(Begin(replace(WORK, proof=None)), IntentStored(1.0), SetDone(2.0))
    assert state == Idle()
    assert outcome(effects).status == "unproven"


class TestQuarantine:
    """Nobody knows what a SET without a definite answer did, or will do."""

    def silent(self, work: Work = WORK, now_s: float = 10.0) -> State:
        state, effects = run(Begin(work), IntentStored(1.0), SetSilent("no answer in 7 s", now_s))
        assert isinstance(state, Quarantined)
        assert effects[0] == Block("radiator", state.reason)
        assert "c-1 got no definite answer: no answer in 7 s" in state.reason
        return state

    def reads(self, state: State, *reads: tuple[float, Any]) -> tuple[State, list[ActuationEffect]]:
        effects: list[ActuationEffect] = []
        for now_s, value in reads:
            state, effects = step(state, ReadDone(value, str(value), now_s))
        return state, effects

    def test_it_takes_no_further_command(self) -> None:
        state = self.silent()
        assert step(state, Begin(replace(WORK, command=command("c-2")))) == (state, [])

    def test_a_read_that_shows_the_effect_ends_it_at_once(self) -> None:
        state, effects = self.reads(self.silent(replace(WORK, before=18.0)), (10.1, 18.0), (10.2, 21.0))
        assert state == Idle()
        assert effects[0] == Release("radiator")
        assert (outcome(effects).status, outcome(effects).reason) == ("proven", "Shown reads 21")

    def test_what_was_so_before_tells_nothing_until_it_is_over(self) -> None:
        state = self.silent(replace(WORK, before=21.0))
        state, effects = self.reads(state, (10.1, 21.0), (12.0, 21.0))
        assert isinstance(state, Quarantined)
        assert isinstance(effects[0], WakeLater)
        state, effects = self.reads(state, (15.0, 21.0))
        assert (state, outcome(effects).status) == (Idle(), "proven")

    @pytest.mark.parametrize(
        ("kind", "status"), [("absolute", "failed"), ("step", "uncertain"), ("toggle", "uncertain")]
    )
    def test_when_it_is_over_and_two_reads_agree_it_ends(self, kind: Any, status: str) -> None:
        state = self.silent(replace(WORK, kind=kind, before=17.0))
        state, effects = self.reads(state, (12.0, 18.0), (14.9, 18.0))
        assert isinstance(state, Quarantined), "not before its time"
        state, effects = self.reads(state, (15.0, 19.0))
        assert isinstance(state, Quarantined), "two must agree"
        state, effects = self.reads(state, (15.1, 19.0))
        assert isinstance(state, Quarantined), "some time apart"
        state, effects = self.reads(state, (15.3, 19.0))
        assert (state, effects[0], outcome(effects).status) == (Idle(), Release("radiator"), status)
        assert "2 reads agree: Shown reads 19" in outcome(effects).reason

    def test_what_changes_at_every_read_is_released_when_it_is_over_and_its_effect_uncertain(self) -> None:
        state = self.silent(replace(WORK, before=17.0))
        state, _ = self.reads(state, *((11.0 + number / 4, 30.0 + number) for number in range(15)))
        assert isinstance(state, Quarantined), "not before its time"
        state, effects = self.reads(state, (15.0, 50.0))
        assert (state, effects[0], outcome(effects).status) == (Idle(), Release("radiator"), "uncertain")
        assert "Shown keeps no value" in outcome(effects).reason

    def test_a_value_that_settles_late_is_waited_for(self) -> None:
        state = self.silent(replace(WORK, before=17.0))
        state, _ = self.reads(state, *((15.0 + number / 4, 30.0 + number) for number in range(CHANGING_READS)))
        assert isinstance(state, Quarantined)
        state, effects = self.reads(state, (20.0, 37.0))
        assert "2 reads agree: Shown reads 37" in outcome(effects).reason

    def test_an_absolute_value_is_set_once_more_when_nothing_changed_and_there_is_time(self) -> None:
        work = replace(WORK, before=18.0)
        state, effects = self.reads(self.silent(work), (15.0, 18.0), (15.5, 18.0))
        again = replace(work, is_repeated=True)
        assert (state, effects) == (Intending(again), [StoreIntent(work.command)])
        state, effects = step(state, IntentStored(15.6))
        assert (state, effects) == (Setting(again), [Set(work.command, 21.0)])
        done, effects = step(state, SetDone(15.7))
        assert (done, effects[0]) == (Proving(again, 17.7), Release("radiator"))
        silent, effects = step(state, SetSilent("again", 15.7))
        state, effects = self.reads(silent, (20.7, 18.0), (21.0, 18.0))
        assert (state, outcome(effects).status) == (Idle(), "failed"), "no third time"

    @pytest.mark.parametrize(
        "changes", [{"kind": "step"}, {"kind": "toggle"}, {"deadline_s": 15.0}, {"before": 17.0}, {"before": None}]
    )
    def test_else_it_is_not_set_again(self, changes: dict[str, Any]) -> None:
        work = replace(WORK, **{"before": 18.0, **changes})
        state, _ = self.reads(self.silent(work), (15.0, 18.0), (15.5, 18.0))
        assert state == Idle()

    @pytest.mark.parametrize("event", [IntentStored(15.6, "lease lost"), IntentStored(101.0), IntentLost("disk full")])
    def test_what_may_not_be_set_again_is_uncertain_not_refused(self, event: Event) -> None:
        work = replace(WORK, before=18.0)
        state, _ = self.reads(self.silent(work), (15.0, 18.0), (15.5, 18.0))
        state, effects = step(state, event)
        assert (state, effects[0], outcome(effects).status) == (Idle(), Release("radiator"), "uncertain")

    def test_a_device_that_cannot_be_read_stays_alone_and_its_agent_is_told(self) -> None:
        state, effects = step(self.silent(), ReadFailed("503", 12.0))
        assert [type(effect) for effect in effects] == [WakeLater]
        state, effects = step(state, ReadFailed("503", 15.0))
        assert isinstance(state, Quarantined)
        assert outcome(effects).status == "uncertain"
        state, effects = step(state, ReadFailed("503", 60.0))
        assert [type(effect) for effect in effects] == [WakeLater], "told once"
        state, effects = self.reads(state, (70.0, 18.0), (71.0, 18.0))
        assert (state, effects) == (Idle(), [Release("radiator")])

    def test_without_a_proof_its_agent_is_told_at_once_and_the_device_waits(self) -> None:
        state, effects = run(Begin(replace(WORK, proof=None)), IntentStored(1.0), SetSilent("x", 10.0))
        assert outcome(effects).status == "uncertain"
        state, effects = step(state, Tick(14.0))
        assert effects == [WakeLater(1.0)]
        assert step(state, Tick(15.0)) == (Idle(), [Release("radiator")])

    def test_what_was_under_way_when_the_guard_was_killed_is_found_out_about(self) -> None:
        state, effects = run(Recovered(replace(WORK, before=18.0), "killed", 12.0))
        assert effects == [Block("radiator", "killed"), WakeLater(0.0)]
        assert step(state, Tick(10.0))[1] == [Read("radiator", "Shown")]
        proven, effects = self.reads(state, (10.1, 21.0))
        assert (proven, outcome(effects).status) == (Idle(), "proven")
        told, effects = run(Recovered(WORK, "killed", 12.0, is_told=True))
        assert self.reads(told, (12.0, 21.0), (13.0, 21.0)) == (Idle(), [Release("radiator")])

    def test_what_was_not_known_before_proves_nothing_at_once(self) -> None:
        state, effects = self.reads(self.silent(), (10.1, 21.0))
        assert (isinstance(state, Quarantined), [type(item) for item in effects]) == (True, [WakeLater])


def test_reads_go_on_with_growing_pauses_until_the_wait_is_over() -> None:
    state, _ = run(Begin(WORK), IntentStored(0.0), SetDone(10.0))
    pauses, now_s = [], 10.0
    while True:
        state, effects = step(state, ReadDone(18.0, "1.8e+01", now_s))
        if not isinstance(effects[0], StartTimer):
            break
        pauses.append(effects[0].after_s)
        now_s += effects[0].after_s
        assert step(state, Tick(now_s)) == (state, [Read("radiator", "Shown")])
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


QUARANTINED = Quarantined(WORK, "no answer", 5.0)
EVENTS: list[Event] = [
    IntentStored(1.0), IntentLost("x"), SetDone(1.0), SetRefused("x"), SetStopped("expired", "x"), SetSilent("x", 1.0),
    ReadDone(21.0, "21", 1.0), ReadFailed("x", 1.0), Tick(1.0), Begin(WORK), Recovered(WORK, "x", 1.0),
]  # fmt: skip
FITS: dict[type[State], tuple[type[Event], ...]] = {
    Idle: (Begin, Recovered),
    Intending: (IntentStored, IntentLost),
    Setting: (SetDone, SetRefused, SetStopped, SetSilent),
    Proving: (ReadDone, ReadFailed, Tick),
    Quarantined: (ReadDone, ReadFailed, Tick),
}


@pytest.mark.parametrize("state", [Idle(), Intending(WORK), Setting(WORK), Proving(WORK, 2.0), QUARANTINED], ids=str)
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
        before=st.sampled_from([None, 21.0, 30.0]),
    )


times = st.sampled_from([0.0, 4.0, 10.0, 20.0, 30.0])
events = st.one_of(
    st.builds(Begin, works()),
    st.builds(Recovered, works(), st.just("killed"), times, st.booleans()),
    st.builds(IntentStored, times, st.sampled_from(["", "", "lease lost"])),
    st.just(IntentLost("x")),
    st.builds(SetDone, times),
    st.just(SetRefused("x")),
    st.just(SetStopped("expired", "x")),
    st.builds(SetSilent, st.just("x"), times),
    st.builds(ReadDone, st.sampled_from([21.0, 30.0, None]), st.just("t"), times),
    st.builds(ReadFailed, st.just("x"), times),
    st.builds(Tick, times),
)


@given(st.lists(events, max_size=60))
def test_any_sequence_of_events_keeps_the_promises(sequence: list[Event]) -> None:
    state: State = Idle()
    begun: Work | None = None
    owed, sets, counts = 1, 0, Counter[str]()
    for event in sequence:
        before, (state, effects) = state, step(state, event)
        if isinstance(event, (Begin, Recovered)) and isinstance(before, Idle):
            begun, counts = event.work, Counter()
            owed = 0 if isinstance(event, Recovered) and event.is_told else 1
            sets = 2 if isinstance(event, Begin) and event.work.kind == "absolute" else 1
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
                    if before.work.is_repeated:
                        assert begun.kind == "absolute", "no step and no toggle a second time"
                case Finish(told):
                    assert begun is not None
                    assert told.command_id == begun.command.id
                    if told.status == "proven":
                        assert isinstance(event, ReadDone)
                        assert (event.value, begun.wanted) == (21.0, 21.0), "no proof by another value"
                    assert told.status not in ("expired", "refused") or counts["Set"] in (0, 1)
        assert counts["Set"] <= sets, "never more SETs than the kind allows"
        assert counts["Finish"] <= owed, "never two outcomes for one command"
        assert counts["Set"] <= counts["StoreIntent"]
        if isinstance(state, Idle) and begun is not None:
            assert counts["Finish"] == owed, "no command ends without an outcome"
            assert counts["Release"] <= counts["Block"]
            assert bool(counts["Release"]) == bool(counts["Block"]), "what is blocked is released"
        if isinstance(before, Quarantined) and isinstance(event, (Begin, Recovered)):
            assert state == before, "no further command in quarantine"
