"""Tests that run at once are handed out in groups: what a file's tests have built, they all see."""

from pathlib import Path

import pytest

from tests.conftest import TOGETHER, group_of

ROOT = Path(__file__).parents[1]
SEEN: list[str] = []


@pytest.mark.parametrize("number", range(8))
def test_the_tests_of_a_file_run_in_one_process_and_in_their_order(request: pytest.FixtureRequest, number: int) -> None:
    SEEN.append(request.node.name)
    ours = [
        item.name for item in request.session.items if item.path == Path(__file__) and "number" in item.fixturenames
    ]
    assert ours[: len(SEEN)] == SEEN


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/scenarios/test_ask.py::test_x", "gateway"),
        ("tests/integration/test_guard.py::test_x[a/b::c]", "integration/test_guard.py"),
        ("tests/integration/test_telemetry.py::Class::test_x", "gateway"),
        ("tests/contract/test_a.py::test_x", "contract"), ("tests/contracts/test_a.py::x", "contracts/test_a.py"),
    ],
)  # fmt: skip
def test_a_group_is_a_file_unless_files_share_one(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_what_shares_a_group_is_there() -> None:
    assert [name for name in TOGETHER if not (ROOT / name).exists()] == []
