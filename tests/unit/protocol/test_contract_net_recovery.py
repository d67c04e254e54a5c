"""What the initiator believes when answers are lost, late or old, its clock is another one, or it was away."""

from collections.abc import Callable
from typing import Any

import pytest

from edgeagents.model.cooperation import Act, Bid, CallForProposals
from edgeagents.protocol.contract_net import (
    AskLedger,
    Awarded,
    Awarding,
    Begin,
    Calling,
    Closed,
    LedgerSaid,
    Planned,
    Terms,
    Working,
    step,
)
from edgeagents.protocol.contract_net_participant import Performed
from edgeagents.protocol.conversation import Heard, Recovered, Tell, Tick, act
from edgeagents.protocol.task_ledger import AwardTask, CloseTask, Entry, LedgerAnswer, LedgerRequest, ReadTask
from tests.society import LEDGER, Packet, Society
from tests.unit.protocol.test_contract_net_property import DEADLINE_S, TASK, net, performers

TERMS = Terms(CallForProposals(task=TASK, skill="carry"), ("anna", "bert"), 1.0, 2.0, 20.0)


def entry(status: Any, epoch: int, winner: str = "", problem: str = "") -> LedgerAnswer:
    return LedgerAnswer(Entry(TASK, epoch, status, winner), problem)


def run(*events: Any, state: Any = None) -> tuple[Any, list[Any]]:
    """Return what some events come to."""
    state, effects = state or Planned(TERMS), []
    for event in events:
        state, effects = step(state, event)
    return state, effects


def bids(epoch: int = 0, now_s: float = 0.5) -> tuple[Heard, ...]:
    return tuple(
        Heard(name, act("propose", TASK, bid=Bid(cost=cost, epoch=epoch)), now_s)
        for name, cost in (("anna", 1.0), ("bert", 2.0))
    )


AWARDED = (Begin(0.0), *bids(), LedgerSaid(entry("awarded", 1, "anna"), 0.6))


def asked(effects: list[Any]) -> list[LedgerRequest]:
    return [effect.request for effect in effects if isinstance(effect, AskLedger)]


def lose(society: Society, is_lost: Callable[[Packet], bool]) -> None:
    society.network = [packet for packet in society.network if not is_lost(packet)]


# --- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [-1000.0, 1000.0, 5e5])
def test_a_task_is_placed_whatever_the_initiators_clock_says(ahead_s: float) -> None:
    society = net({"anna": 1.0, "bert": 2.0}, {"lead": ahead_s})
    society.calm(0.0, most=100)
    assert performers(society) == {"anna"}
    ((_, _, at_s, until_s),) = society.taken
    assert (at_s, until_s) == (0.0, 2.0)


def test_a_refused_award_is_asked_for_again_on_a_tick_and_not_before() -> None:
    state, _ = run(Begin(0.0), *bids())
    refused = LedgerSaid(entry("open", 0, problem="the disk is full"), 0.6)
    state, effects = run(refused, Tick(0.7), state=state)
    assert (type(state), effects) == (Awarding, [])
    state, effects = run(Tick(1.0), state=state)
    assert asked(effects) == [AwardTask(TASK, 0, "anna", 2.0)]
    closed, _ = run(refused, Tick(20.0), state=state)
    assert closed.status == "unknown"
    assert "the ledger has not named anna: the disk is full" in closed.reasons[-1]


# --- old answers -----------------------------------------------------------------------------------


def test_an_answer_that_is_older_than_what_is_known_says_nothing() -> None:
    awarded, _ = run(*AWARDED)
    assert isinstance(awarded, Awarded)
    for old in (entry("open", 0), entry("open", 1), entry("awarded", 0, "anna"), entry("taken", 0, "bert")):
        assert run(LedgerSaid(old, 0.7), state=awarded) == (awarded, [])
    awarding, _ = run(Begin(0.0, 3), *bids(3))
    for old in (entry("open", 1), entry("awarded", 2, "anna"), entry("awarded", 3, "anna")):
        assert run(LedgerSaid(old, 0.7), state=awarding) == (awarding, [])
    other = LedgerSaid(LedgerAnswer(Entry("t-2", 9, "done", "anna")), 0.7)
    assert run(other, state=awarded) == (awarded, [])


def test_what_was_reopened_is_called_again_without_the_one_that_let_it_pass() -> None:
    state, effects = run(*AWARDED, LedgerSaid(entry("open", 2), 2.7))
    assert isinstance(state, Calling)
    assert (state.epoch, state.asked) == (2, frozenset({"bert"}))
    assert [effect.to for effect in effects if isinstance(effect, Tell)] == ["bert"]


def test_a_winner_that_keeps_talking_does_not_lengthen_its_award() -> None:
    state, _ = run(*AWARDED)
    for tenths in range(7, 26):
        state, effects = run(Heard("anna", act("inform", TASK), tenths / 10), state=state)
        assert asked(effects) == [ReadTask(TASK)]
        state, effects = run(LedgerSaid(entry("awarded", 1, "anna"), tenths / 10), state=state)
        (tell,) = effects  # the first word may have been lost
        assert (tell.to, tell.act.performative) == ("anna", "accept-proposal")
    assert state.until_s == 2.6
    assert type(asked(run(Tick(2.6), state=state)[1])[0]).__name__ == "ReopenTask"


# --- how it ends -----------------------------------------------------------------------------------


def working() -> Society:
    society = net({"anna": 1.0, "bert": 2.0})
    society.calm(5.0)
    assert isinstance(society.parties["lead"].state, Working)
    return society


@pytest.mark.parametrize(
    "is_lost", [lambda packet: isinstance(packet.content, Act), lambda packet: packet.to == LEDGER, lambda packet: True]
)
def test_work_that_is_done_is_done_for_all_though_a_word_of_it_is_lost(is_lost: Callable[[Packet], bool]) -> None:
    society = working()
    society.feed(society.parties["anna"], Performed("done", society.now_s))
    lose(society, is_lost)
    society.calm(DEADLINE_S + 1.0)
    ends = [society.parties[name].state.status for name in ("lead", "anna")]
    assert (ends, society.ledger.of(TASK).status) == (["done", "done"], "done")


def test_work_that_is_done_is_done_though_its_winner_crashes_before_it_says_so() -> None:
    society = working()
    society.parties["anna"].crash_after = 1  # its state is on disk, nothing is sent
    society.feed(society.parties["anna"], Performed("done", society.now_s))
    society.restart("anna")
    society.calm(DEADLINE_S + 1.0)
    assert (society.parties["lead"].state.status, society.ledger.of(TASK).status) == ("done", "done")


def test_where_the_deadline_comes_before_the_ledgers_word_the_end_is_unknown_until_it_is_there() -> None:
    working_, _ = run(*AWARDED, LedgerSaid(entry("taken", 1, "anna"), 0.8))
    closed, effects = run(Tick(20.0), state=working_)
    assert (closed.status, closed.winner, asked(effects)) == ("unknown", "anna", [CloseTask(TASK, 1, "", "failed")])
    assert run(LedgerSaid(entry("taken", 1, "anna"), 20.1), state=closed)[0] == closed
    assert asked(run(Recovered(21.0), state=closed)[1]) == [CloseTask(TASK, 1, "", "failed")]
    for status in ("done", "failed"):
        after, _ = run(LedgerSaid(entry(status, 1, "anna"), 20.1), state=closed)
        assert (after.status, after.winner, after.price, after.asked) == (status, "anna", 2.0, None)
        assert after.reasons[-1] == f"the ledger says that anna has it {status}"


def test_an_end_that_the_ledger_tells_after_the_deadline_is_the_end() -> None:
    working_, _ = run(*AWARDED, LedgerSaid(entry("taken", 1, "anna"), 0.8))
    closed, _ = run(LedgerSaid(entry("done", 1, "anna"), 20.5), state=working_)
    assert (closed.status, closed.winner, closed.price) == ("done", "anna", 2.0)


def test_one_that_was_away_too_long_does_not_end_what_another_winner_is_doing() -> None:
    calling, _ = run(Begin(0.0))
    closed, effects = run(Recovered(25.0), state=calling)
    assert asked(effects) == [CloseTask(TASK, 0, "", "failed")], "which the ledger refuses in any other epoch"
    after, _ = run(LedgerSaid(entry("taken", 1, "bert", "epoch 0 is over"), 25.1), state=closed)
    assert (after.status, after.winner) == ("unknown", "bert")
    done, _ = run(LedgerSaid(entry("done", 1, "bert"), 25.2), state=after)
    assert (done.status, done.winner) == ("done", "bert")


# --- restarts --------------------------------------------------------------------------------------


def test_a_short_absence_costs_the_initiator_nothing() -> None:
    society = net({"anna": 1.0, "bert": 2.0})
    society.crash("lead")
    society.advance(1.5)  # all bids are lost, and closed by now
    society.network = []
    society.restart("lead")
    society.calm(5.0)
    assert performers(society) == {"anna"}


def test_one_that_comes_back_reads_the_ledger_and_goes_on_from_there() -> None:
    calling, _ = run(Begin(0.0))
    recovered, effects = run(Recovered(3.0), state=calling)
    assert asked(effects) == [ReadTask(TASK)]
    assert recovered.until_s == 4.0
    taken, _ = run(LedgerSaid(entry("taken", 1, "bert"), 3.1), state=recovered)
    assert (type(taken), taken.winner, taken.price) == (Working, "bert", 0.0)
    later, _ = run(LedgerSaid(entry("open", 4), 3.1), state=recovered)
    assert (type(later), later.epoch) == (Calling, 4)


def test_one_that_crashed_before_it_had_sent_anything_begins_when_it_is_back() -> None:
    state, effects = run(Recovered(1.0))
    assert isinstance(state, Calling)
    assert asked(effects) == [ReadTask(TASK)], "for the epoch, which nobody has told it"
    assert [effect.to for effect in effects if isinstance(effect, Tell)] == ["anna", "bert"]
    late, effects = run(Recovered(1e6))
    assert isinstance(late, Closed)
    assert effects == []
