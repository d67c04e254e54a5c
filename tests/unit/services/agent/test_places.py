"""Whose tasks take which places: the coordinator's are its own, each agent that leads has a share."""

import pytest

from edgeagents.model.cooperation import Award
from edgeagents.protocol.contract_net_participant import Performing, Reporting, Setting, State, Taking
from edgeagents.subjects import COORDINATOR
from services.agent.places import MOST_CONVERSATIONS, MOST_OF_ONE, MOST_OF_PEERS, makes_busier, room_problem

SETTING = Setting("ada", "lea", "t", 60.0, "run-1")
AWARD = Award(task="t", epoch=1)
TAKING, PERFORMING = Taking(SETTING, AWARD, 0.0), Performing(SETTING, AWARD)


def test_each_leader_has_a_share_and_all_of_them_together_a_bound() -> None:
    lea, zoe, eve = ["lea"] * MOST_OF_ONE, ["zoe"] * MOST_OF_ONE, ["eve"]
    assert "64 tasks of lea" in room_problem("lea", lea)
    assert room_problem("zoe", lea) == ""
    assert f"{MOST_OF_PEERS} tasks that agents lead" in room_problem("eve", [*lea, *zoe])
    assert room_problem("eve", [*lea, *zoe[1:]]) == ""
    assert "129 tasks" in room_problem("bob", [*lea, *zoe, *eve])


def test_the_coordinators_places_are_its_own() -> None:
    assert room_problem(COORDINATOR, ["lea"] * 2_000) == ""
    assert room_problem(COORDINATOR, [COORDINATOR] * MOST_CONVERSATIONS) == "no room"
    assert room_problem("lea", [COORDINATOR] * MOST_CONVERSATIONS) == ""


@pytest.mark.parametrize(
    ("state", "leader", "who_asks", "counts"),
    [
        (PERFORMING, COORDINATOR, COORDINATOR, True), (TAKING, COORDINATOR, COORDINATOR, True),
        (PERFORMING, "lea", COORDINATOR, False), (TAKING, "lea", COORDINATOR, False),
        (PERFORMING, "lea", "zoe", True), (TAKING, "lea", "zoe", False), (TAKING, "lea", "lea", True),
        (TAKING, COORDINATOR, "zoe", True), (Reporting(SETTING, AWARD, "done", 0.0), "lea", "lea", False),
    ],
)  # fmt: skip
def test_who_asks_waits_for_what_is_done_and_for_its_own(
    state: State, leader: str, who_asks: str, counts: bool
) -> None:
    assert makes_busier(state, leader, who_asks) is counts
