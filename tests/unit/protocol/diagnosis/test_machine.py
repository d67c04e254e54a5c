"""Clocks and disks -> findings."""

import pytest

from edgeagents.protocol.diagnosis.machine import DiskFacts, apart_s, clock_finding, disk_finding, size

GB = 1 << 30


@pytest.mark.parametrize(
    ("ahead_s", "level", "word"),
    [(0.0, "ok", "as ours"), (-1.9, "ok", "as ours"), (2.0, "warning", "ahead"), (-29.0, "warning", "behind"),
     (30.0, "failed", "ahead"), (-86_400.0, "failed", "behind")],
)  # fmt: skip
def test_a_clock_that_is_off_warns_then_fails(ahead_s: float, level: str, word: str) -> None:
    finding = clock_finding("broker", ahead_s)
    assert finding.level == level
    assert word in finding.found


@pytest.mark.parametrize(
    ("there_s", "unit_s", "apart"),
    [(99.0, 0.0, -1.0), (100.0, 0.0, 0.0), (104.0, 0.0, 0.0), (107.5, 0.0, 2.5), (99.0, 1.0, 0.0), (90.0, 1.0, -9.0)],
)
def test_a_slow_answer_is_no_wrong_clock(there_s: float, unit_s: float, apart: float) -> None:
    assert apart_s(there_s, 100.0, 105.0, unit_s) == apart


@pytest.mark.parametrize(
    ("free", "total", "level"),
    [
        (50 * GB, 100 * GB, "ok"),
        (4 * GB, 100 * GB, "warning"),
        (GB // 4, 2 * GB, "warning"),
        (1 << 20, 2 * GB, "failed"),
    ],
)
def test_a_disk_that_fills_up_warns_then_fails(free: int, total: int, level: str) -> None:
    assert disk_finding(DiskFacts("the guard", "/v", free, total)).level == level


def test_a_read_only_volume_fails_with_its_remedy() -> None:
    finding = disk_finding(DiskFacts("the guard", "/v", problem="Read-only file system"))
    assert (finding.level, finding.found) == ("failed", "/v: Read-only file system")
    assert "writable" in finding.remedy


def test_a_volume_that_is_only_shown_to_us_tells_its_room_and_claims_no_more() -> None:
    finding = disk_finding(DiskFacts("the guard", "/v", 50 * GB, 100 * GB, is_shown=True))
    assert finding.level == "ok"
    assert "writing was not tried" in finding.found
    assert disk_finding(DiskFacts("the guard", "/v", 1 << 20, 2 * GB, is_shown=True)).level == "failed"


@pytest.mark.parametrize("facts", [DiskFacts("x"), DiskFacts("x", "/v", is_there=False)])
def test_a_volume_that_lies_elsewhere_is_skipped(facts: DiskFacts) -> None:
    assert disk_finding(facts).level == "skipped"


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (0, 999, 1_500, 123_456_789, 2.5e12, 3e15)] == [
        "0 B", "999 B", "1.5 kB", "123 MB", "2.5 TB", "3000.0 TB",
    ]  # fmt: skip
