"""A clock that is off by what a file says, in this process and in one that runs."""

import subprocess
import sys
import time
from pathlib import Path

from tests.faults.stepped import set_clock, stepped


def test_it_steps_when_the_file_is_replaced(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    now_ns = stepped(clock, lambda: 5_000_000_000)
    assert now_ns() == 5_000_000_000
    set_clock(clock, 3600)
    assert now_ns() == 3_605_000_000_000
    set_clock(clock, -1.5)
    assert now_ns() == 3_500_000_000


def test_a_module_sees_the_stepped_wall_clock_and_the_true_monotonic_one(tmp_path: Path) -> None:
    set_clock(tmp_path / "clock", 3600)
    (tmp_path / "teller.py").write_text("import sys, time\nprint(sys.argv[1], time.time(), time.monotonic())\n")
    command = [sys.executable, "-m", "tests.faults.stepped", str(tmp_path / "clock"), "teller", "word"]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": f"{tmp_path}:{root}"})
    word, wall, monotonic = done.stdout.split()
    assert word == "word"
    assert abs(float(wall) - time.time() - 3600) < 60
    assert 0 <= time.monotonic() - float(monotonic) < 60
