"""The roster: who is there, by what was heard and when."""

from edgeagents.model.cooperation import Announcement
from edgeagents.protocol.roster import GONE_S, MOST_OF_ONE, TTL_S, Roster

HERE = Announcement(incarnation="run-1", skills=("set",), busy=1)


def test_an_agent_is_there_until_it_was_not_heard_for_long() -> None:
    roster = Roster(0.0).heard("ada", HERE, 10.0)
    assert roster.alive(10.0 + TTL_S)["ada"].busy == 1
    assert roster.alive(10.1 + TTL_S) == {}


def test_of_two_runs_the_one_heard_last_counts_and_the_other_is_gone_in_time() -> None:
    roster = Roster(0.0).heard("ada", HERE, 10.0)
    roster = roster.heard("ada", HERE.model_copy(update={"incarnation": "run-2"}), 12.0)
    assert roster.alive(12.0)["ada"].incarnation == "run-2"
    assert not roster.is_gone("ada", "run-1", 12.0)
    assert roster.is_gone("ada", "run-1", 10.1 + GONE_S)
    assert not roster.is_gone("ada", "run-2", 10.1 + GONE_S)


def test_nobody_is_gone_before_we_have_listened_for_long_enough() -> None:
    roster = Roster(100.0)
    assert not roster.is_gone("ada", "run-1", 100.0 + GONE_S)
    assert roster.is_gone("ada", "run-1", 100.1 + GONE_S)


def test_names_of_runs_cost_a_sender_nothing_and_us_little() -> None:
    roster = Roster(0.0)
    for number in range(500):
        roster = roster.heard("ada", HERE.model_copy(update={"incarnation": f"run-{number}"}), number * 1.0)
    assert len(roster.runs) < 50


def test_many_runs_of_one_agent_keep_nobody_else_out() -> None:
    roster = Roster(0.0)
    for number in range(5_000):
        roster = roster.heard("eve", HERE.model_copy(update={"incarnation": f"run-{number}"}), 1.0 + number * 1e-6)
    assert len(roster.runs) == MOST_OF_ONE
    roster = roster.heard("ada", HERE, 1.1)
    assert set(roster.alive(1.1)) == {"eve", "ada"}
    assert not roster.is_gone("ada", "run-1", 6.0)
    assert roster.alive(1.1)["eve"].incarnation == "run-4999"


def test_nobody_is_gone_for_a_time_in_which_we_did_not_listen() -> None:
    roster = Roster(0.0).heard("ada", HERE, 10.0).anew(30.0)
    assert not roster.is_gone("ada", "run-1", 30.0 + GONE_S)
    assert roster.is_gone("ada", "run-1", 30.1 + GONE_S)
