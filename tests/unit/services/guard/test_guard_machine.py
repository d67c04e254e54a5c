"""The guard against everything at once: agents, forgers, a broker that delivers as it likes, devices that lie, crashes.

The real guard runs in a loop whose clock is moved by hand (`gateway.py`); what it does is held against a witness
that takes no word of it. Invariants, of design.md sections 3.4 to 3.8:

- of all epochs that agents believe in, at most one is good for a resource at any time, and it is the newest holder's;
- every effect is of a command whose session held the lease at its place in the stream under exactly its epoch, in
  time, permitted, not ended before; none is repeated, but an absolute value once; a resource's effects are in order;
- what is forged, replayed or out of order has no effect; both sides of an interlock are never commanded open;
- a straggler after a newer proven value is corrected once a reading shows it, and is never taken for the owner's hand;
- every command ends with one outcome.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edgeagents.model.message import Cause, Command, CommandId, Epoch, OutcomeStatus
from edgeagents.protocol.gate import Key
from edgeagents.protocol.lease import Session
from services.guard.surprises import AFTER_FAILURE_S
from tests.unit.services.guard.gateway import CLASSES, Gateway, Stored, value_of

SESSIONS: Final = [Session(*pair) for pair in (
    ("air", "a1"), ("heat", "h1"), ("air", "a2"), ("save", "s1"), ("eye", "e1"),
)]  # fmt: skip
KEYS: Final[list[Key]] = [
    ("valve", "Setpoint"), ("valve", "Open"), ("pump", "Open"), ("fan", "Setpoint"), ("valve", "Count"),
]  # fmt: skip
TEXTS: Final = {
    "Setpoint": ["21", "25", "18", "+21.0", "23", "25.0", "12", "30", "4", "31", "NaN"],
    "Open": ["true", "false", "true", "1", "true", "false", "0", "maybe"], "Count": ["3", "4", "5", "x"],
}  # fmt: skip
BY_HAND: Final = {"Setpoint": ["18", "27", "15"], "Open": ["false", "true"], "Count": ["0", "7"]}
FORGED: Final = ["incarnation", "epoch", "generation", "subject", "id"]
PLANS: Final = ["do", "late", "never", "unheard", "refuse", "deaf", "slow", "broken"]

BEAT_S: Final = 1.5  # as rarely as a session lives through
SEEN: Final[Counter[str]] = Counter()

sessions = st.sampled_from(SESSIONS)
keys = st.sampled_from(KEYS)
picks = st.integers(0, 63)


class GuardMachine(RuleBasedStateMachine):
    """Whatever happens to a gateway, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway = Gateway()
        self.witness = self.gateway.witness
        self.names = 0
        self.held_back: list[int] = []
        self.taken: set[tuple[str, str]] = set()
        self.was_unreadable = False
        self.living = {SESSIONS[0], SESSIONS[1]}
        for device in ("valve", "pump", "fan"):
            for resource, text in (("Setpoint", "18"), ("Open", "false"), ("Count", "0")):
                self.gateway.plant.by_hand((device, resource), text, is_reported=True)
        self._pass(0.6)

    # --- agents --------------------------------------------------------------------------------------

    @initialize(whose=st.lists(st.sampled_from(SESSIONS[:2]), min_size=len(KEYS), max_size=len(KEYS)))
    def leases(self, whose: list[Session]) -> None:
        for session, key in zip(whose, KEYS, strict=True):
            self.gateway.ask_lease(session, key)

    @rule(session=sessions)
    def lives_or_dies(self, session: Session) -> None:
        self.living ^= {session}
        self._pass(0.1)

    @rule(session=sessions, key=keys)
    def asks(self, session: Session, key: Key) -> None:
        self.gateway.ask_lease(session, key)

    @rule(session=sessions, key=keys)
    def gives_back(self, session: Session, key: Key) -> None:
        self.gateway.ask_lease(session, key, release=True)

    @rule(key=keys, text=picks, other=st.booleans())
    def commands(self, key: Key, text: int, other: bool) -> None:
        """Have whoever can have the lease send a command; all goes as it should."""
        session = self._holder(key, int(other))
        self.gateway.plant.plan[key[0]] = []
        self._send(self._command(session, key, text, 8.0), session.agent)
        self._pass(0.1)

    @rule(
        pick=picks, key=keys, text=picks, ttl_s=st.sampled_from([30.0, 8.0, 1.0]), plan=st.sampled_from(PLANS),
        after_s=st.sampled_from([5.0, 9.0, 20.0]), is_held_back=st.booleans(), for_s=st.sampled_from([0.0, 0.5, 10.0]),
    )  # fmt: skip
    def commands_a_device_with_whims(
        self, pick: int, key: Key, text: int, ttl_s: float, plan: str, after_s: float, is_held_back: bool, for_s: float
    ) -> None:
        """Have a command sent whose device does with it as planned."""
        session = self._holder(key, pick)
        self.gateway.plant.plan[key[0]] = [(plan, after_s)]
        self._send(self._command(session, key, text, ttl_s), session.agent, is_held_back=is_held_back and pick > 32)
        self._pass(for_s)

    @rule(
        key=st.sampled_from([("valve", "Setpoint"), ("fan", "Setpoint")]), first=picks,
        then=st.lists(picks, max_size=3), ttl_s=st.sampled_from([3.0, 30.0]),
        after_s=st.sampled_from([6.0, 14.0, 25.0]), is_noticed=st.booleans(),
    )  # fmt: skip
    def is_late_with_one_and_does_the_next(
        self, key: Key, first: int, then: list[int], ttl_s: float, after_s: float, is_noticed: bool
    ) -> None:
        """Have a SET take effect long after its time, and others wanted meanwhile."""
        self.gateway.plant.plan[key[0]] = [("late", after_s)]
        for text in (first, *then):
            session = self._holder(key, 0)
            self._send(self._command(session, key, text, ttl_s), session.agent)
            self._pass(5.5)
        if is_noticed:
            self.reports()

    @rule(pick=picks, key=keys, text=picks, how=st.sampled_from(FORGED), liar=st.sampled_from(list(CLASSES)))
    def forges(self, pick: int, key: Key, text: int, how: str, liar: str) -> None:
        """Have somebody send what nobody may."""
        honest = self._holder(key, pick)
        command, agent = self._command(honest, key, text, 8.0), honest.agent
        changes: dict[str, Any] = {}
        match how:
            case "incarnation":
                changes["incarnation"] = SESSIONS[pick % len(SESSIONS)].incarnation
            case "epoch":
                changes["epoch"] = Epoch(generation=command.epoch.generation, revision=pick % 40)
            case "generation":
                changes["epoch"] = Epoch(generation=pick % 4, revision=command.epoch.revision)
            case "subject":
                agent = liar
            case "id" if self.witness.commands:
                earlier = list(self.witness.commands.values())[pick % len(self.witness.commands)]
                changes["id"], agent = earlier.command.id, liar if pick % 2 else agent
        self._send(command.model_copy(update=changes), agent)
        self._pass(0.0)

    @precondition(lambda self: self.witness.commands)
    @rule(pick=picks, text=picks, is_same=st.booleans())
    def replays(self, pick: int, text: int, is_same: bool) -> None:
        """Have a command stored once more, as it was or with another value."""
        earlier = self._earlier(pick)
        texts = TEXTS[earlier.command.resource]
        changes = {} if is_same else {"value": texts[text % len(texts)]}
        self._send(earlier.command.model_copy(update=changes), earlier.agent)
        self._pass(0.0)

    # --- the broker ----------------------------------------------------------------------------------

    @rule(key=keys, texts=st.lists(picks, min_size=2, max_size=3), order=st.permutations(range(3)))
    def commands_arrive_in_any_order(self, key: Key, texts: list[int], order: list[int]) -> None:
        session = self._holder(key, 0)
        self.gateway.plant.plan[key[0]] = []
        places = [self.gateway.publish(self._command(session, key, text, 8.0), session.agent) for text in texts]
        for index in order:
            if index < len(places):
                self.gateway.deliver(places[index])
                self._pass(0.1)

    @precondition(lambda self: self.held_back)
    @rule(pick=picks, times=st.integers(1, 2))
    def delivers_late(self, pick: int, times: int) -> None:
        sequence = self.held_back.pop(pick % len(self.held_back))
        for _ in range(times):
            self.gateway.deliver(sequence)
        self._pass(0.0)

    @precondition(lambda self: self.witness.commands)
    @rule(pick=picks)
    def delivers_again(self, pick: int) -> None:
        self.gateway.deliver(self._earlier(pick).sequence)
        self._pass(0.0)

    @rule(how=st.sampled_from(["lost", "unheard"]))
    def loses_what_the_guard_stores_next(self, how: str) -> None:
        self.gateway.broker.plan[:] = [how]

    # --- devices and people ----------------------------------------------------------------------------

    @rule(key=keys, text=picks, is_reported=st.booleans())
    def hand(self, key: Key, text: int, is_reported: bool) -> None:
        chosen = BY_HAND[key[1]][text % len(BY_HAND[key[1]])]
        self.witness.hands[key].append((self.gateway.now(), value_of(key[1], chosen)))
        self.gateway.plant.by_hand(key, chosen, is_reported=is_reported)
        self._pass(0.1)

    @rule()
    def reports(self) -> None:
        for key in KEYS:
            self.gateway.plant.publish(key)
        self._pass(0.1)

    @rule()
    def is_readable_or_not(self) -> None:
        self.gateway.plant.is_readable = not self.gateway.plant.is_readable
        self.was_unreadable = True

    # --- time ----------------------------------------------------------------------------------------

    @rule(for_s=st.sampled_from([0.3, 1.1, 2.6, 5.0, 12.0]))
    def waits(self, for_s: float) -> None:
        self._pass(for_s)

    @rule(for_s=st.sampled_from([1.0, 3.0, 25.0]))
    def sleeps(self, for_s: float) -> None:
        """Have the guard's process not run for a while."""
        self.gateway.loop.leap(for_s)
        self._pass(0.0)

    @rule(by_s=st.sampled_from([-3600.0, 3600.0]), whose=st.sampled_from(["guard", "broker", "both"]))
    def sets_the_clock(self, by_s: float, whose: str) -> None:
        if whose != "broker":
            self.gateway.wall_offset_s += by_s
        if whose != "guard":
            self.gateway.broker.offset_s += by_s
        self._pass(0.3)

    # --- the guard's process ---------------------------------------------------------------------------

    @rule(rounds=st.integers(0, 40), is_killed=st.booleans())
    def restarts(self, rounds: int, is_killed: bool) -> None:
        """Have the guard end, in the middle of whatever it does when it is killed, and start again."""
        if is_killed:
            self.gateway.loop.run(1.0, rounds)
            self.gateway.kill()
        else:
            self.gateway.stop()
        self.witness.restarted()
        self.gateway.start()
        for sequence in self.witness.commands:
            if sequence not in self.gateway.broker.acked and sequence not in self.held_back:
                self.gateway.deliver(sequence)
        self._pass(0.0)

    # --- what always holds -----------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        failures = self.gateway.tasks.failures()
        assert not failures, "\n".join(failures)
        assert not self.witness.faults, "\n".join(self.witness.faults)

    @invariant()
    def one_epoch_is_good_for_a_resource(self) -> None:
        table, end = self.gateway.guard.means.desk.table, len(self.gateway.broker.held) + 1
        for key in KEYS:
            good = [
                (session, epoch)
                for (session, of), epoch in self.witness.believed.items()
                if of == key and not table.problem(key, session, epoch, end)
            ]
            assert len(good) <= 1, (key, good)
            place, record = self.witness.records[key][-1] if self.witness.records[key] else (0, None)
            for session, epoch in good:
                assert record is not None
                assert (session, epoch.revision) == (Session(record.agent, record.incarnation), place)

    def teardown(self) -> None:
        try:
            self._come_to_rest()
            self.nothing_is_wrong()
            self._each_has_one_outcome()
            self._no_straggler_is_left()
            self._count()
        finally:
            self.gateway.close()

    # --- how -----------------------------------------------------------------------------------------

    def _pass(self, for_s: float) -> None:
        """Have time pass; the living send their heartbeats."""
        left_s = for_s
        while left_s > 0:
            for session in sorted(self.living, key=str):
                self.gateway.beat(session)
            self.gateway.loop.run(min(left_s, BEAT_S))
            left_s -= BEAT_S
        if for_s <= 0:
            self.gateway.loop.run()

    def _holder(self, key: Key, pick: int) -> Session:
        """Return who holds a resource, asks for it, or thinks nothing of it."""
        records = self.witness.records[key]
        held = records[-1][1] if records else None
        session = Session(held.agent, held.incarnation) if held is not None and held.agent else SESSIONS[pick % 2]
        if pick % 8 == 7:
            return SESSIONS[pick % len(SESSIONS)]
        if (session, key) not in self.witness.believed or held is None or not held.agent:
            self.living.add(session)
            self.gateway.ask_lease(session, key)
        return session

    def _earlier(self, pick: int) -> Stored:
        return list(self.witness.commands.values())[pick % len(self.witness.commands)]

    def _command(self, session: Session, key: Key, text: int, ttl_s: float) -> Command:
        self.names += 1
        texts = TEXTS[key[1]]
        return Command(
            id=CommandId(f"c-{self.names}"), device=key[0], resource=key[1], value=texts[text % len(texts)],
            incarnation=session.incarnation, ttl_s=ttl_s, cause=Cause(stream="s", sequence=1),
            epoch=self.witness.believed.get((session, key), Epoch(generation=1, revision=1)),
            data_origin_ns=self.gateway.wall_ns(),
        )  # fmt: skip

    def _send(self, command: Command, agent: str, *, is_held_back: bool = False) -> None:
        sequence = self.gateway.publish(command, agent)
        if is_held_back:
            self.held_back.append(sequence)
        else:
            self.gateway.deliver(sequence)

    def _come_to_rest(self) -> None:
        """Have everything heal, and all that is on its way arrive."""
        plant = self.gateway.plant
        plant.plan.clear()
        if self.was_unreadable:
            plant.is_readable = True
            self._pass(AFTER_FAILURE_S)  # so long the guard leaves alone what it could not read, however it is now
        self.gateway.broker.plan.clear()
        for sequence in self.held_back:
            self.gateway.deliver(sequence)
        for _ in range(12):
            self._pass(2.5 if self._is_coming() else 0.4)
            for key in KEYS:
                plant.publish(key)
            self._pass(0.3)
            if not self._is_coming() and not self.gateway.guard.lanes.waiting and not self.gateway.ledger.blocked():
                break
        for key in KEYS:
            plant.publish(key)
        self._pass(1.0)

    def _is_coming(self) -> bool:
        return any(item.how == "late" and item.landed_s is None for item in self.witness.sets)

    def _each_has_one_outcome(self) -> None:
        sent = {(item.agent, str(item.command.id)) for item in self.witness.commands.values()}
        told = self.witness.outcomes
        assert sent == {(agent, str(name)) for agent, name in told}
        for (agent, name), outcomes in told.items():
            assert len(outcomes) == 1, outcomes
            if outcomes[0].status in ("refused", "expired"):
                of = [item for item in self.witness.sets if {stored.agent for stored in item.of} == {agent}]
                assert not [item for item in of if item.of[0].command.id == name], outcomes

    def _no_straggler_is_left(self) -> None:
        for key in KEYS:
            last = self.gateway.plant.by[key]
            if key[1] != "Setpoint" or last is None or last.landed_s is None or self.witness.hands[key]:
                continue
            later = self.witness.sets[self.witness.sets.index(last) + 1 :]
            newer = [item for item in later if item.key == key and item.of]
            # When the newest one failed its agent was told, and what it found stays.
            if newer and self._is_proven(newer[-1]):
                assert newer[-1].value == last.value, (last, newer)

    def _count(self) -> None:
        SEEN["runs"] += 1
        SEEN.update(f"told {item.status}" for told in self.witness.outcomes.values() for item in told)
        SEEN.update(f"set, {item.how}" for item in self.witness.sets)
        SEEN.update(str(record["kind"]) for record in self.witness.audit)

    def _is_proven(self, item: Any) -> bool:
        outcomes = [self.witness.outcomes[stored.agent, stored.command.id][0] for stored in item.of]
        return all(outcome.status == "proven" for outcome in outcomes)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody reads the logs of thousands of gateways."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


RUNS: Final = settings(
    max_examples=2000, stateful_step_count=10, deadline=None, database=None, derandomize=True, print_blob=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

EXPECTED: Final = [
    *(f"set, {plan}" for plan in PLANS),
    *(f"told {status}" for status in get_args(OutcomeStatus)),
    *("set-again", "correction", "late-effect", "override", "quarantine", "released", "clock-step"),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_happens_the_guard_keeps_its_word() -> None:
    SEEN.clear()
    run_state_machine_as_test(GuardMachine, settings=RUNS)
    assert SEEN["runs"] >= RUNS.max_examples
    rare = {kind: SEEN[kind] for kind in EXPECTED if SEEN[kind] < 20}
    assert not rare, f"hardly ever tried: {rare}"
