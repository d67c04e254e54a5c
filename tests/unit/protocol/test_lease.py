"""Leases: one holder, epochs that only grow, and calm at any order of events."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeagents.model.agent import PRIORITIES, Priority
from edgeagents.model.message import Epoch, LeaseRecord, LeaseReply
from edgeagents.protocol.effects import LeaseEffect, Reply, StoreLease
from edgeagents.protocol.gate import Key
from edgeagents.protocol.lease import (
    KEPT_RECORDS,
    MOST_SESSIONS,
    SESSION_S,
    Asked,
    Heard,
    Lease,
    LeaseTable,
    Recorded,
    Released,
    Session,
    Tick,
    Used,
    is_alive,
    next_generation,
    step,
    told,
)

KEY: Key = ("radiator", "Setpoint")
AIR, AIR_COPY, HEAT = Session("air", "1"), Session("air", "2"), Session("heat", "1")
HOLD_S = 900.0


def asked(session: Session, priority: Priority = "comfort", now_s: float = 0.0, site_s: float = 0.0) -> Asked:
    """Return a request for the one resource of these tests."""
    return Asked(session, KEY, priority, now_s, site_s, HOLD_S)


def granted(table: LeaseTable, ask: Asked, sequence: int) -> LeaseTable:
    """Return the table after a request whose record was stored at `sequence`."""
    table, effects = step(table, ask)
    (record,) = [effect.record for effect in effects if isinstance(effect, StoreLease)]
    return step(table, Recorded(record, sequence, ask.priority, ask.site_s))[0]


def refusal(effects: list[LeaseEffect]) -> str:
    """Return why a request was refused, empty when it was not."""
    replies = [effect.reply for effect in effects if isinstance(effect, Reply) and not effect.reply.granted]
    return replies[0].reason if replies else ""


def epoch(revision: int, generation: int = 1) -> Epoch:
    return Epoch(generation=generation, revision=revision)


def test_a_free_lease_is_granted_by_a_record_and_its_place_is_the_epoch() -> None:
    table, effects = step(LeaseTable(1), asked(AIR))
    (effect,) = effects
    assert isinstance(effect, StoreLease)
    assert (effect.record.agent, effect.record.incarnation, effect.record.generation) == ("air", "1", 1)
    assert table.current(KEY) is None, "nobody holds what is not written down"
    table, _ = step(table, Recorded(effect.record, 7, "comfort"))
    assert table.current(KEY) == Lease(AIR, epoch(7), "comfort")


def test_who_holds_a_lease_and_since_when_it_is_quiet_is_told_and_nothing_is_granted_by_that() -> None:
    assert told(LeaseTable(1), KEY, 0.0, 0.0) == LeaseReply(granted=False)
    table = granted(LeaseTable(1), asked(AIR, site_s=10.0), 7)
    assert told(table, KEY, 1.0, 60.0) == LeaseReply(granted=False, holder="air", quiet_s=50.0)
    table, _ = step(table, Used(KEY, 40.0))
    assert told(table, KEY, 1.0, 60.0).quiet_s == 20.0
    assert told(table, KEY, 1.0, 39.0).quiet_s == 0.0, "a clock that was set makes nobody quiet for less than nothing"
    assert told(table, KEY, SESSION_S + 0.1, 60.0) == LeaseReply(granted=False), "its session is over"


def test_asking_again_gives_the_same_epoch_and_no_second_record() -> None:
    table = granted(LeaseTable(1), asked(AIR), 7)
    table, effects = step(table, asked(AIR, now_s=1.0))
    (effect,) = effects
    assert isinstance(effect, Reply)
    assert (effect.reply.granted, effect.reply.epoch) == (True, epoch(7))


def test_after_lost_state_the_same_holder_gets_a_new_epoch() -> None:
    table = replace(granted(LeaseTable(1), asked(AIR), 7), generation=2)
    table = granted(table, asked(AIR, now_s=1.0), 8)
    assert table.current(KEY) == Lease(AIR, epoch(8, 2), "comfort")


@pytest.mark.parametrize("priority", PRIORITIES)
@pytest.mark.parametrize("holder", PRIORITIES)
def test_only_a_higher_class_takes_a_lease_from_a_busy_holder(holder: Priority, priority: Priority) -> None:
    table = granted(LeaseTable(1), asked(HEAT, holder), 7)
    _, effects = step(table, asked(AIR, priority, site_s=HOLD_S))
    takes = any(isinstance(effect, StoreLease) for effect in effects)
    assert takes is (PRIORITIES.index(priority) > PRIORITIES.index(holder))


def test_a_holder_that_was_quiet_long_enough_is_passed_over_by_any_class() -> None:
    table = granted(LeaseTable(1), asked(HEAT, "safety"), 7)
    table, _ = step(table, Used(KEY, 100.0))
    _, effects = step(table, asked(AIR, "economy", site_s=100.0 + HOLD_S))
    assert "held by heat (safety), quiet for 900 of 900 s" in refusal(effects)
    table = granted(table, asked(AIR, "economy", site_s=101.0 + HOLD_S), 8)
    assert table.current(KEY) == Lease(AIR, epoch(8), "economy", 101.0 + HOLD_S)


def test_a_late_note_of_use_does_not_make_a_holder_look_older() -> None:
    table = granted(LeaseTable(1), asked(HEAT, site_s=50.0), 7)
    table, _ = step(table, Used(KEY, 10.0))
    lease = table.current(KEY)
    assert lease is not None
    assert lease.used_site_s == 50.0
    assert step(LeaseTable(1), Used(KEY, 5.0)) == (LeaseTable(1), [])


def test_two_copies_of_one_agent_are_two() -> None:
    table = granted(LeaseTable(1), asked(AIR, "economy"), 7)
    _, effects = step(table, asked(AIR_COPY, "safety", site_s=1e6))
    assert refusal(effects) == "another copy of agent 'air' is alive and holds it"
    assert "held by air" in table.problem(KEY, AIR_COPY, epoch(7), 8)


def test_a_dead_copys_lease_goes_to_the_next_one() -> None:
    table = granted(LeaseTable(1), asked(AIR), 7)
    table = granted(table, asked(AIR_COPY, now_s=SESSION_S + 0.1), 8)
    assert table.problem(KEY, AIR_COPY, epoch(8), 9) == ""


def test_a_session_that_is_silent_loses_its_leases_by_a_record() -> None:
    table = granted(LeaseTable(1), asked(AIR), 7)
    assert step(table, Tick(SESSION_S)) == (table, [])
    table, effects = step(table, Tick(SESSION_S + 0.1))
    (effect,) = effects
    assert isinstance(effect, StoreLease)
    assert (effect.record.agent, effect.record.reason) == ("", "session of air ended")
    assert table.heard == {}
    # Not stored yet: said again, so that a lost record is made up for.
    assert step(table, Tick(9.0))[1] == effects
    table, _ = step(table, Recorded(effect.record, 8))
    assert "nobody holds the lease" in table.problem(KEY, AIR, epoch(7), 9)
    assert step(table, Tick(9.1))[1] == []


def test_a_heartbeat_keeps_a_session_and_a_late_one_takes_nothing_away() -> None:
    table, _ = step(LeaseTable(1), Heard(AIR, 5.0))
    table, _ = step(table, Heard(AIR, 3.0))
    assert is_alive(table, AIR, 5.0 + SESSION_S)
    assert not is_alive(table, AIR, 5.1 + SESSION_S)
    assert not is_alive(table, HEAT, 5.0)


def test_names_of_runs_somebody_makes_up_cost_no_memory() -> None:
    table = LeaseTable(1)
    for index in range(1000):
        table, _ = step(table, Heard(Session("air", str(index)), 0.0))
    assert len(table.heard) == MOST_SESSIONS
    table, effects = step(table, asked(Session("air", "new")))
    assert "8 copies of agent 'air' are alive" in refusal(effects)
    table, effects = step(table, asked(HEAT))
    assert isinstance(effects[0], StoreLease), "others are not kept out"
    table, effects = step(table, asked(Session("air", "later"), now_s=SESSION_S + 0.1))
    assert isinstance(effects[0], StoreLease), "the dead make room"


def test_only_the_holder_gives_a_lease_back() -> None:
    table = granted(LeaseTable(1), asked(AIR), 7)
    assert refusal(step(table, Released(HEAT, KEY))[1]) == "not yours to give back"
    assert refusal(step(LeaseTable(1), Released(AIR, KEY))[1]) == "not yours to give back"
    _, effects = step(table, Released(AIR, KEY))
    (record,) = [effect.record for effect in effects if isinstance(effect, StoreLease)]
    table, _ = step(table, Recorded(record, 8))
    assert table.current(KEY) == Lease(None, epoch(8))
    assert isinstance(step(table, asked(HEAT))[1][0], StoreLease)


def test_what_stands_before_a_change_finishes_under_the_old_epoch() -> None:
    table = granted(granted(LeaseTable(1), asked(AIR, "economy"), 7), asked(HEAT, "safety"), 20)
    assert table.problem(KEY, AIR, epoch(7), 19) == ""
    assert "held by heat since epoch 1.20" in table.problem(KEY, AIR, epoch(7), 21)
    assert "held by air since epoch 1.7" in table.problem(KEY, HEAT, epoch(20), 19)
    assert table.problem(KEY, HEAT, epoch(20), 21) == ""
    assert table.problem(KEY, HEAT, epoch(7), 21) == "epoch 1.7 is not the lease's epoch 1.20"
    assert "nobody holds" in table.problem(KEY, AIR, epoch(7), 6), "before the first record there was no lease"
    assert "nobody holds" in table.problem(("other", "x"), AIR, epoch(7), 9)


def test_an_older_or_repeated_record_changes_nothing() -> None:
    table = granted(granted(LeaseTable(2), asked(AIR, "economy"), 7), asked(HEAT, "safety"), 20)
    for sequence, generation in ((20, 2), (10, 2), (99, 1)):
        record = LeaseRecord(device=KEY[0], resource=KEY[1], agent="evil", incarnation="x", generation=generation)
        assert step(table, Recorded(record, sequence))[0] == table


def test_history_is_bounded_and_what_is_forgotten_is_refused() -> None:
    table = LeaseTable(1)
    for index in range(KEPT_RECORDS + 5):
        record = LeaseRecord(device=KEY[0], resource=KEY[1], agent="air", incarnation=str(index), generation=1)
        table, _ = step(table, Recorded(record, 10 * (index + 1)))
    assert len(table.leases[KEY]) == KEPT_RECORDS
    assert "nobody holds" in table.problem(KEY, Session("air", "0"), epoch(10), 15)


class LeaseMachine(RuleBasedStateMachine):
    """A guard, its stream and some agents, in any order: records may be stored without acknowledgement, be read twice
    or late; the guard may be restarted; sessions may die and come back.
    """

    AGENTS: tuple[tuple[str, Priority], ...] = (("air", "health"), ("heat", "comfort"), ("save", "economy"))
    sessions = st.sampled_from([Session("air", "1"), Session("heat", "1"), Session("heat", "2"), Session("save", "1")])
    keys = st.sampled_from([("a", "x"), ("a", "x"), ("b", "x")])

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable(1)
        self.now_s = 0.0
        self.stream: list[LeaseRecord | None] = []  # None stands for a command
        self.told: dict[tuple[Key, Session], Epoch] = {}  # what agents believe
        self.highest: dict[Key, Epoch] = {}
        self.commands: list[tuple[Key, Session, Epoch, int]] = []  # stored, not yet carried out
        self.went_out: dict[Key, Epoch] = {}
        self.newest: dict[Key, int] = {}  # place in the stream of the last command carried out

    def priority(self, session: Session) -> Priority:
        return dict(self.AGENTS)[session.agent]

    def take(self, event: Any, *, acknowledged: bool = True) -> list[LeaseEffect]:
        """Run one event; store what it wants stored."""
        self.table, effects = step(self.table, event)
        for effect in effects:
            if isinstance(effect, StoreLease):
                self.stream.append(effect.record)
                if acknowledged:
                    self.read(len(self.stream))
        return effects

    def read(self, sequence: int) -> None:
        record = self.stream[sequence - 1]
        if record is not None:
            priority = dict(self.AGENTS).get(record.agent, "economy")
            self.table, _ = step(self.table, Recorded(record, sequence, priority, self.now_s))

    @rule(session=sessions, key=keys, acknowledged=st.booleans())
    def ask(self, session: Session, key: Key, acknowledged: bool) -> None:
        before = self.table.current(key)
        was_alive = (
            before is not None and before.session is not None and is_alive(self.table, before.session, self.now_s)
        )
        effects = self.take(
            Asked(session, key, self.priority(session), self.now_s, self.now_s, 3.0), acknowledged=acknowledged
        )
        stored = [effect.record for effect in effects if isinstance(effect, StoreLease)]
        for effect in effects:
            if isinstance(effect, Reply) and effect.reply.granted:
                assert before is not None
                assert before.session == session
                assert effect.reply.epoch == before.epoch
                self.told[key, session] = before.epoch
        if stored and acknowledged:
            self.told[key, session] = epoch(len(self.stream), self.table.generation)
        if stored and was_alive and before is not None and before.session not in (None, session):
            # Preemption, with hysteresis.
            higher = PRIORITIES.index(self.priority(session)) > PRIORITIES.index(before.priority)
            assert higher or self.now_s - before.used_site_s > 3.0
            assert before.session is not None
            assert before.session.agent != session.agent, "a copy never takes from a living copy"

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def command(self, data: st.DataObject) -> None:
        """An agent stores a command under the epoch it believes in."""
        (key, session), believed = data.draw(st.sampled_from(list(self.told.items())))
        self.stream.append(None)
        self.commands.append((key, session, believed, len(self.stream)))

    @precondition(lambda self: self.commands)
    @rule(data=st.data())
    def carry_out(self, data: st.DataObject) -> None:
        """The guard comes to a command: the next one, or one that was delivered late."""
        key, session, believed, sequence = self.commands.pop(data.draw(st.integers(0, len(self.commands) - 1)))
        if sequence < self.newest.get(key, 0) or self.table.problem(key, session, believed, sequence):
            return
        lease = self.table.at(key, sequence)
        assert lease is not None
        assert (lease.session, lease.epoch) == (session, believed)
        assert not believed < self.went_out.get(key, epoch(0, 0)), "a lower epoch after a higher one"
        self.went_out[key], self.newest[key] = believed, sequence
        self.table, _ = step(self.table, Used(key, self.now_s))

    @rule(session=sessions, key=keys)
    def release(self, session: Session, key: Key) -> None:
        holder = self.table.current(key)
        effects = self.take(Released(session, key))
        stored = any(isinstance(effect, StoreLease) for effect in effects)
        assert stored is (holder is not None and holder.session == session)

    @rule(session=sessions, late=st.booleans())
    def heartbeat(self, session: Session, late: bool) -> None:
        self.take(Heard(session, self.now_s - (1.5 if late else 0.0)))

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.9, 2.1, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(acknowledged=st.booleans())
    def tick(self, acknowledged: bool) -> None:
        self.take(Tick(self.now_s), acknowledged=acknowledged)
        if acknowledged:
            holders = [changes[-1].session for changes in self.table.leases.values()]
            assert all(session is None or is_alive(self.table, session, self.now_s) for session in holders)

    @precondition(lambda self: self.stream)
    @rule(data=st.data())
    def read_again_or_late(self, data: st.DataObject) -> None:
        self.read(data.draw(st.integers(1, len(self.stream))))

    @rule(lost=st.booleans())
    def restart(self, lost: bool) -> None:
        """The guard reads its records back; with lost state its generation grows."""
        generation = self.table.generation + (1 if lost else 0)
        self.table = LeaseTable(generation)
        for sequence in range(1, len(self.stream) + 1):
            self.read(sequence)
        grace = {changes[-1].session: self.now_s for changes in self.table.leases.values()}
        self.table = replace(self.table, heard={name: at for name, at in grace.items() if name is not None})

    @invariant()
    def epochs_only_grow_and_there_is_one_holder(self) -> None:
        for key, changes in self.table.leases.items():
            epochs = [lease.epoch for lease in changes]
            assert all(first < second for first, second in pairwise(epochs))
            assert not epochs[-1] < self.highest.get(key, epoch(0, 0))
            self.highest[key] = epochs[-1]
            place = len(self.stream) + 1
            covered = [
                session
                for (at, session), believed in self.told.items()
                if at == key and not self.table.problem(key, session, believed, place)
            ]
            assert len(covered) <= 1


LeaseMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=60)
TestLeaseMachine = LeaseMachine.TestCase


class TestGeneration:
    """A generation that was in force never comes again, as far as anything is left that tells."""

    def test_nothing_lost_changes_nothing(self) -> None:
        assert next_generation(3, 3, is_lost=False, is_stream_whole=True, wall_ms=99) == 3
        assert next_generation(0, 3, is_lost=False, is_stream_whole=True, wall_ms=99) == 3

    def test_a_whole_stream_tells_the_highest_and_one_more_is_new(self) -> None:
        assert next_generation(3, 0, is_lost=True, is_stream_whole=True, wall_ms=99) == 4
        assert next_generation(3, 7, is_lost=True, is_stream_whole=True, wall_ms=99) == 8

    @pytest.mark.parametrize(("records", "is_whole"), [(0, True), (3, False), (0, False)])
    def test_else_the_clock_is_the_floor_and_one_that_is_wrong_takes_nothing_back(
        self, records: int, is_whole: bool
    ) -> None:
        assert next_generation(records, 7, is_lost=True, is_stream_whole=is_whole, wall_ms=99) == 99
        assert next_generation(records, 700, is_lost=True, is_stream_whole=is_whole, wall_ms=99) == 701

    def test_restoring_one_backup_again_gives_another_generation(self) -> None:
        """Both stores say 5 each time; only the clock has gone on."""
        seen = [next_generation(5, 5, is_lost=True, is_stream_whole=False, wall_ms=1000 + n) for n in range(5)]
        assert seen == sorted(set(seen))
