"""Levels of findings."""

from edgeagents.model.finding import failed, ok, skipped, warning, worst


def test_the_worst_level_counts_and_nothing_is_ok() -> None:
    good, left, odd, bad = ok("a", "x"), skipped("b", "x"), warning("c", "x", "do"), failed("d", "x", "do")
    assert worst([]) == "ok"
    assert worst([good, left]) == "skipped"
    assert worst([left, odd, good]) == "warning"
    assert worst([bad, odd]) == "failed"
