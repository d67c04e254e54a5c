"""What this process may use: the tightest limit of its container and those around it."""

from pathlib import Path

import pytest

from edgeagents.inference.machine import cpus, free_memory_bytes


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Return a folder of groups in which ours is a/b."""
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    (tmp_path / "meminfo").write_text("MemTotal: 4000 kB\nMemAvailable:    2000 kB\n")
    return tmp_path / "groups"


def memory(groups: Path) -> float:
    return free_memory_bytes(groups, groups.parent / "own", groups.parent / "meminfo")


@pytest.mark.parametrize(("limit", "count"), [("50000 100000", 1), ("150000 100000", 2), ("max 100000", 64), ("?", 64)])
def test_the_tightest_limit_of_cpus_counts(
    groups: Path, monkeypatch: pytest.MonkeyPatch, limit: str, count: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    (groups / "a" / "cpu.max").write_text(limit)
    (groups / "a" / "b" / "cpu.max").write_text("max 100000")
    assert cpus(groups, groups.parent / "own") == count


def test_memory_is_what_the_machine_has_or_the_tightest_limit_leaves(groups: Path) -> None:
    assert memory(groups) == 2000 * 1024
    for folder, most, used in (("a", "900000", "100000"), ("a/b", "max", "50000")):
        (groups / folder / "memory.max").write_text(f"{most}\n")
        (groups / folder / "memory.current").write_text(f"{used}\n")
    assert memory(groups) == 800_000
    (groups / "a" / "memory.stat").write_text("anon 5\ninactive_file 30000\n")
    assert memory(groups) == 830_000, "what was only read from files can be had back"


def test_a_container_of_the_first_version_of_groups_has_its_limits_too(groups: Path) -> None:
    for name, text in (("cpu.cfs_quota_us", "100000"), ("cpu.cfs_period_us", "100000")):
        (groups / "cpu").mkdir(exist_ok=True)
        (groups / "cpu" / name).write_text(text)
    assert cpus(groups, groups.parent / "own") == 1
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text("900000")
    (groups / "memory" / "memory.usage_in_bytes").write_text("100000")
    (groups / "memory" / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 30000\n")
    assert memory(groups) == 830_000
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    assert cpus(groups, groups.parent / "own") >= 1


def test_a_system_that_does_not_say_has_no_limit(tmp_path: Path) -> None:
    assert free_memory_bytes(tmp_path, tmp_path / "none", tmp_path / "none") == float("inf")
    assert cpus(tmp_path, tmp_path / "none") >= 1
