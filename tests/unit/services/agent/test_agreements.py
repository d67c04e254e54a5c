"""What was settled, and what it means for a wish: who gives it, who stands back, and what has no effect."""

import pytest

from edgeagents.model.cooperation import Dispute, Settlement
from services.agent.agreements import (
    LONGEST_S,
    Agreement,
    AskAnew,
    Free,
    HeldBack,
    Instead,
    Party,
    agreed,
    asked_anew,
    problem,
    ruling,
)

DISPUTE = Dispute(
    device="valve", resource="Setpoint", wanted="19", options=("19", "20", "22"), others=("energy", "comfort")
)
PARTY = Party(DISPUTE, until_s=10.0)
SAID = Settlement(device="valve", resource="Setpoint", value="20", winner="comfort", rung="nash", stands_s=60.0)


def stands(me: str, said: Settlement = SAID) -> Agreement:
    found = agreed("conflict-1", PARTY, said, me, 5.0)
    assert found is not None
    return found


def test_the_winner_gives_the_agreed_value_whatever_it_wishes() -> None:
    assert ruling(stands("comfort"), "22", 6.0) == Instead("20", "agreed in conflict-1")
    assert ruling(stands("comfort"), "20", 6.0) == Free()


def test_the_others_stand_back_until_the_winner_has_the_lease_then_the_guard_keeps_them_back() -> None:
    assert ruling(stands("energy"), "19", 14.9) == HeldBack("stands back: conflict-1 gave it to comfort")
    assert ruling(stands("energy"), "19", 15.0) == Free()


def test_the_winner_asks_anew_before_it_departs_from_what_was_agreed() -> None:
    over = stands("comfort")
    assert isinstance(ruling(over, "22", 65.0), AskAnew)
    assert isinstance(ruling(asked_anew(over), "22", 65.0), HeldBack)
    assert ruling(over, "20", 65.0) == Free()


def test_where_nobody_else_wants_anything_nobody_is_bound() -> None:
    said = SAID.model_copy(update={"stands_s": 0.0})
    assert ruling(stands("comfort", said), "22", 6.0) == Free()
    assert ruling(stands("energy", said), "19", 6.0) == Free()


def test_no_settlement_binds_longer_than_an_hour() -> None:
    assert stands("energy", SAID.model_copy(update={"stands_s": 86_400.0})).until_s == 5.0 + LONGEST_S


def test_what_settles_nothing_leaves_all_as_it_was() -> None:
    assert agreed("conflict-1", PARTY, SAID.model_copy(update={"winner": ""}), "energy", 5.0) is None
    assert ruling(None, "22", 0.0) == Free()


@pytest.mark.parametrize(
    ("party", "change", "now_s", "cause"),
    [
        (None, {}, 5.0, "not-party"),
        (PARTY, {}, 10.0, "late"),
        (PARTY, {"device": "lamp"}, 5.0, "other-resource"),
        (PARTY, {"resource": "Open"}, 5.0, "other-resource"),
        (PARTY, {"winner": "mallory"}, 5.0, "unknown-winner"),
        (PARTY, {"value": "30"}, 5.0, "unknown-option"),
    ],
)
def test_a_settlement_that_is_not_ours_has_no_effect(
    party: Party | None, change: dict[str, str], now_s: float, cause: str
) -> None:
    found = problem(party, SAID.model_copy(update=change), now_s)
    assert found is not None
    assert found[0] == cause


def test_one_of_ours_in_time_has() -> None:
    assert problem(PARTY, SAID, 5.0) is None


@pytest.mark.parametrize("rung", ["lease", "priority", "lock", "fallback"])
def test_who_has_its_own_way_by_class_or_lease_is_not_bound_to_it_by_those_below(rung: str) -> None:
    said = SAID.model_copy(update={"rung": rung})
    assert ruling(stands("comfort", said), "22", 6.0) == Free()
    assert isinstance(ruling(stands("energy", said), "19", 6.0), HeldBack)
