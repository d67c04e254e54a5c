"""Awards of an auction where acts get lost, winners die and the auctioneer is away: the ledger decides."""

from typing import Any

import pytest

from edgeagents.model.cooperation import Award, Inquiry, Report
from edgeagents.protocol import auction_awards, auction_bidder
from edgeagents.protocol.auction import Allotted, Awarding, Working, step
from edgeagents.protocol.auction_bidder import CostBundles, Costed, Ended, Member, Perform, Performed, Setting, quoted
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import MOST_ACTS, Heard, Recovered, Refuse, Save, Tell, Tick, act
from edgeagents.protocol.lots import Lot
from edgeagents.protocol.task_ledger import (
    AwardTask,
    CloseTask,
    Entry,
    LedgerAnswer,
    ReadTask,
    ReopenTask,
    TakeTask,
)
from tests.society import Packet, Society
from tests.unit.protocol.test_auction_property import BATCH, DEADLINE_S, auction_of

AWARD = Award(task="t", epoch=1)


def is_about(content: Any, kind: type) -> bool:
    """Say whether a packet's content is a request to the ledger of a kind, or an act with one."""
    if kind is Award:
        return getattr(content, "award", None) is not None
    if kind is Report:
        return getattr(content, "report", None) is not None
    return isinstance(content, kind)


def losing(society: Society, kind: type, sender: str, times: int = 1) -> Society:
    """Return the society with so many of one sender's packets of a kind lost."""
    left = [times]

    class Network(list[Packet]):
        def append(self, packet: Packet) -> None:
            if left[0] and packet.sender == sender and is_about(packet.content, kind):
                left[0] -= 1
                return
            super().append(packet)

    society.network = Network(society.network)
    return society


@pytest.mark.parametrize(
    ("kind", "sender"),
    [(AwardTask, "lead"), (Award, "lead"), (Award, "anna"), (TakeTask, "anna"), (CloseTask, "anna"), (Report, "anna")],
)
def test_one_lost_word_changes_nothing(kind: type, sender: str) -> None:
    society = losing(auction_of({"anna": 0.0}, {"t0": 1.0}), kind, sender)
    society.calm(DEADLINE_S - 10.0)
    lead = society.parties["lead"].state
    assert isinstance(lead, Allotted), lead
    assert (lead.plan, lead.unplaced, lead.undone) == ({"anna": ("t0",)}, (), ())
    assert society.ledger.of("t0").status == "done"


def test_what_a_winner_took_and_never_does_is_told_as_undone_at_the_auctioneers_deadline() -> None:
    society = auction_of({"anna": 0.0}, {"t0": 1.0}, works=False)
    while not isinstance(society.parties["lead"].state, Working):
        society.deliver(0)
    society.crash("anna")
    society.calm(DEADLINE_S - 1.0)
    assert isinstance(society.parties["lead"].state, Working)
    society.calm(DEADLINE_S + 1.0)
    lead = society.parties["lead"].state
    assert (lead.plan, lead.undone) == ({"anna": ("t0",)}, ("t0",))
    assert lead.reasons[-1] == "anna had not done t0"


def test_a_task_that_failed_is_told_as_undone_once_the_ledger_says_so() -> None:
    ended, _ = step(working(), LedgerSaid(LedgerAnswer(Entry("t", 1, "failed", "anna", 2.0)), 3.0))
    assert ended == Allotted({"anna": ("t",)}, ("u",), ("anna failed at t",), ("t",))


def test_the_ledger_is_asked_to_end_what_is_not_done_under_the_epoch_of_its_award() -> None:
    state = working()
    ended, effects = step(state, Tick(20.0))
    assert isinstance(ended, Allotted)
    assert AskLedger(CloseTask("t", 1, "", "failed")) in effects


def awarding(now_s: float = 0.0) -> Awarding:
    lot = Lot(BATCH, {"t": 0, "u": 0}, ("anna", "bert"), "sum", 1.0, 2.0, 20.0)
    state, effects = auction_awards.begun(lot, {"anna": ("t",)}, (), now_s)
    assert isinstance(state, Awarding)
    assert [effect.request for effect in effects if isinstance(effect, AskLedger)] == [AwardTask("t", 0, "anna", 2.0)]
    return state


def working() -> Working:
    state = step(awarding(), LedgerSaid(LedgerAnswer(Entry("t", 1, "taken", "anna", 2.0)), 1.0))[0]
    assert isinstance(state, Working)
    return state


def requests(effects: list[Any]) -> list[Any]:
    return [effect.request for effect in effects if isinstance(effect, AskLedger)]


def test_what_is_not_taken_is_opened_again_and_the_ledgers_answer_says_whose_it_is() -> None:
    state: Any = step(awarding(), LedgerSaid(LedgerAnswer(Entry("t", 1, "awarded", "anna", 2.0)), 0.1))[0]
    state, effects = step(state, Tick(2.0))
    assert requests(effects) == [ReopenTask("t", 1)]
    assert isinstance(state, Awarding), "its answer is waited for"
    taken, _ = step(state, LedgerSaid(LedgerAnswer(Entry("t", 1, "taken", "anna", 2.0), "is taken"), 2.1))
    assert isinstance(taken, Working)
    left, _ = step(state, LedgerSaid(LedgerAnswer(Entry("t", 2, "open")), 2.1))
    assert left == Allotted({}, ("t", "u"), ("not taken in time: t",))


def test_an_answer_older_than_the_award_is_not_believed() -> None:
    state: Any = step(awarding(), LedgerSaid(LedgerAnswer(Entry("t", 1, "awarded", "anna", 2.0)), 0.1))[0]
    state = step(state, Tick(2.0))[0]
    assert step(state, LedgerSaid(LedgerAnswer(Entry("t", 0, "open")), 2.1)) == (state, [])


def test_an_auctioneer_that_was_down_while_tasks_could_be_taken_awards_them_again() -> None:
    state: Any = step(awarding(), LedgerSaid(LedgerAnswer(Entry("t", 1, "awarded", "anna", 2.0)), 0.1))[0]
    state, effects = step(state, Recovered(5.0))
    assert requests(effects) == [AwardTask("t", 1, "anna", 2.0)]
    state, effects = step(state, LedgerSaid(LedgerAnswer(Entry("t", 2, "awarded", "anna", 7.0)), 5.1))
    assert [effect.act.award for effect in effects if isinstance(effect, Tell)] == [Award(task="t", epoch=2)]


def test_a_tick_of_an_older_timer_asks_nothing_so_timers_do_not_multiply() -> None:
    state: Any = awarding()
    assert step(state, Tick(0.5)) == (state, [])
    state, effects = step(state, Tick(1.0))
    assert len(effects) == 2, "the award and one timer"
    member: Any = step_bidder(member_with_award(), Tick(0.5))[0]
    assert step_bidder(member, Tick(0.7)) == (member, [])


def test_reports_of_tasks_of_others_and_floods_read_no_ledger() -> None:
    state: Any = working()
    report = act("inform", BATCH, report=Report(task="t", epoch=1, status="done"))
    assert requests(step(state, Heard("anna", report, 1.5))[1]) == [ReadTask("t")]
    assert requests(step(state, Heard("bert", report, 1.5))[1]) == []
    asks = 0
    for _ in range(MOST_ACTS + 99):
        state, effects = step(state, Heard("anna", report, 1.5))
        asks += len(requests(effects))
    assert asks == MOST_ACTS + 4


# --- the bidder's side -----------------------------------------------------------------------------


def step_bidder(state: Any, event: Any) -> tuple[Any, list[Any]]:
    return auction_bidder.step(state, event)


def member() -> Member:
    return Member(Setting("anna", "lead", BATCH, 20.0, "anna-1"))


def member_with_award() -> Member:
    state = step_bidder(member(), Heard("lead", act("accept-proposal", BATCH, award=AWARD), 0.1))[0]
    assert isinstance(state, Member)
    return state


def test_how_a_task_ended_is_said_until_the_ledger_has_answered() -> None:
    state, _ = step_bidder(
        member_with_award(), LedgerSaid(LedgerAnswer(Entry("t", 1, "taken", "anna", 2.0, "anna-1")), 0.2)
    )
    close = CloseTask("t", 1, "anna", "done")
    state, effects = step_bidder(state, Performed("t", "done"))
    assert requests(effects) == [close]
    for event in (Tick(1.0), Tick(1.5), Recovered(3.0)):
        state, effects = step_bidder(state, event)
        assert requests(effects) == [close]
    state, _ = step_bidder(state, LedgerSaid(LedgerAnswer(Entry("t", 1, "done", "anna", 2.0)), 3.1))
    assert requests(step_bidder(state, Tick(4.0))[1]) == []


def test_what_another_copy_of_the_agent_has_taken_is_not_ours() -> None:
    taken = Entry("t", 1, "taken", "anna", 2.0, "anna-2")
    state, effects = step_bidder(member_with_award(), LedgerSaid(LedgerAnswer(taken, "another copy has it"), 0.2))
    assert state.status == {"t": "lost"}
    assert effects == [Save()]


def test_a_deadline_that_comes_while_a_task_is_being_taken_ends_it_in_the_ledger() -> None:
    ended, effects = step_bidder(member_with_award(), Tick(20.0))
    assert isinstance(ended, Ended)
    assert requests(effects) == [CloseTask("t", 1, "anna", "failed")]


@pytest.mark.parametrize("deadline_s", [float("nan"), float("inf")])
def test_a_deadline_that_is_no_time_ends_it_at_once(deadline_s: float) -> None:
    ended, _ = step_bidder(Member(Setting("anna", "lead", BATCH, deadline_s, "anna-1")), Tick(1.0))
    assert isinstance(ended, Ended)
    assert "is no time" in ended.reasons[0]


def cfp(round_: int) -> Heard:
    return Heard("lead", act("cfp", BATCH, inquiry=Inquiry(round=round_)), 0.1)


def test_one_question_is_costed_at_a_time_and_the_same_one_gets_the_same_answer() -> None:
    state, effects = step_bidder(member(), cfp(1))
    assert [type(effect) for effect in effects] == [CostBundles]
    state, effects = step_bidder(state, cfp(1))
    assert [type(effect) for effect in effects] == [Refuse], "it is being costed"
    quote = quoted(Inquiry(round=1), lambda tasks: 1.0)
    state, told = step_bidder(state, Costed(quote))
    assert step_bidder(state, cfp(1)) == (state, told)
    state, _ = step_bidder(state, cfp(2))
    assert step_bidder(state, Costed(quote)) == (state, []), "nobody waits for that answer"
    assert step_bidder(state, cfp(1))[1][0].cause == "stale-epoch"


def test_what_was_being_costed_before_a_restart_is_costed_when_it_is_asked_again() -> None:
    state = step_bidder(step_bidder(member(), cfp(1))[0], Recovered(0.5))[0]
    assert [type(effect) for effect in step_bidder(state, cfp(1))[1]] == [CostBundles]


def test_questions_and_words_without_meaning_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auction_bidder, "MOST_ROUNDS", 3)
    state: Any = member()
    asked = 0
    for round_ in range(9):
        state, effects = step_bidder(state, cfp(round_))
        asked += sum(isinstance(effect, CostBundles) for effect in effects)
    assert asked == 3
    shout = act("cfp", BATCH).model_copy(update={"performative": "shout"})
    answers = 0
    for _ in range(MOST_ACTS + 9):
        state, effects = step_bidder(state, Heard("lead", shout, 0.1))
        answers += sum(isinstance(effect, Tell) for effect in effects)
    assert 0 < answers <= MOST_ACTS
    assert step_bidder(state, Heard("mallory", shout, 0.1))[1] == [
        Refuse("mallory", "not-invited", f"'mallory' does not lead {BATCH!r}")
    ]


def test_a_cost_that_no_act_can_carry_is_told_as_impossible() -> None:
    inquiry = Inquiry.model_validate({"round": 1, "bundles": [{"tasks": [name]} for name in "abcde"]})
    costs = {("a",): 2e9, ("b",): float("nan"), ("c",): -1.0, ("d",): float("inf"), ("e",): 3.0}
    assert [item.tasks for item in quoted(inquiry, costs.__getitem__).costs] == [("e",)]


def test_a_newer_award_of_a_task_that_was_lost_is_taken() -> None:
    state, _ = step_bidder(
        member_with_award(), LedgerSaid(LedgerAnswer(Entry("t", 1, "awarded", "anna"), "ended"), 5.0)
    )
    assert state.status == {"t": "lost"}
    newer = Award(task="t", epoch=2)
    state, effects = step_bidder(state, Heard("lead", act("accept-proposal", BATCH, award=newer), 5.1))
    assert requests(effects) == [TakeTask("t", 2, "anna-1")]
    state, effects = step_bidder(state, LedgerSaid(LedgerAnswer(Entry("t", 2, "taken", "anna", 9.0, "anna-1")), 5.2))
    assert Perform(newer) in effects
