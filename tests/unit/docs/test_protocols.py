"""docs/protocols.md: its diagrams are what the code does."""

import pytest

from tests.diagrams import PAGE, drawn, replaced


@pytest.mark.timeout(1200)
def test_the_diagrams_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page, drawn()) == page, "run `make diagrams` and look at what has changed"
