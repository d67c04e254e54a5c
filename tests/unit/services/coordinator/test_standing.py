"""Outcomes that stand: known until their time is over, the newest ones only."""

from services.coordinator.standing import Outcome, Standing

KEY = ("valve", "Setpoint")


def test_an_outcome_is_known_until_its_time_is_over() -> None:
    standing, outcome = Standing(), Outcome("conflict-1", "comfort", 110.0)
    standing.settled(KEY, outcome)
    assert (standing.on(KEY, 109.9), standing.on(("valve", "Open"), 109.9)) == (outcome, None)
    assert standing.on(KEY, 110.0) is None
    assert len(standing) == 0


def test_what_was_settled_anew_takes_the_place_of_what_stood() -> None:
    standing = Standing()
    standing.settled(KEY, Outcome("conflict-1", "comfort", 110.0))
    standing.settled(KEY, Outcome("conflict-2", "energy", 120.0))
    assert standing.on(KEY, 115.0) == Outcome("conflict-2", "energy", 120.0)
    standing.settled(KEY, None)
    assert standing.on(KEY, 115.0) is None


def test_only_so_many_are_kept() -> None:
    standing = Standing(most=3)
    for number in range(10):
        standing.settled((f"valve-{number}", "Setpoint"), Outcome(f"conflict-{number}", "comfort", 110.0))
    assert len(standing) == 3
    assert standing.on(("valve-0", "Setpoint"), 0.0) is None
    assert standing.on(("valve-9", "Setpoint"), 0.0) is not None


BOUND = Outcome("conflict-1", "comfort", 110.0, ("energy", "comfort", "air"))


def test_without_its_winner_an_outcome_binds_nobody() -> None:
    standing = Standing()
    standing.settled(KEY, BOUND)
    assert standing.named("conflict-1", 100.0) == KEY
    assert standing.left(KEY, "comfort", 100.0) == ("energy", "comfort", "air")
    assert (standing.on(KEY, 100.0), standing.named("conflict-1", 100.0)) == (None, None)


def test_a_loser_that_leaves_frees_the_winner_only_where_nobody_else_is_left() -> None:
    standing = Standing()
    standing.settled(KEY, BOUND)
    assert standing.left(KEY, "mallory", 100.0) == ()
    assert standing.left(KEY, "energy", 100.0) == ("energy",)
    assert standing.named("conflict-1", 100.0) == KEY
    assert standing.left(KEY, "energy", 100.0) == ()
    assert standing.left(KEY, "air", 100.0) == ("comfort", "air")
    assert standing.on(KEY, 100.0) is None


def test_what_is_over_is_left_by_nobody() -> None:
    standing = Standing()
    standing.settled(KEY, BOUND)
    assert standing.left(KEY, "comfort", 110.0) == ()
    assert standing.named("conflict-1", 110.0) is None
