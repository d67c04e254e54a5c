"""Tests that take ten minutes or more: left out, visibly, unless FUZZ_SECONDS says how long they may take."""

import os

import pytest

SETTING = "FUZZ_SECONDS"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder their time, or skip them when none is given."""
    given = os.environ.get(SETTING, "")
    for item in items:
        if item.path.is_relative_to(os.path.dirname(__file__)):
            if not given:
                text = f"minutes of fuzzing: make test-long, or {SETTING}=20 for a try"
                item.add_marker(pytest.mark.skip(reason=text))
            item.add_marker(pytest.mark.long)
            item.add_marker(pytest.mark.timeout(float(given or 0) + 120))


@pytest.fixture
def share_s() -> float:
    """How long one of the seven searches may take."""
    return float(os.environ[SETTING]) / 7
