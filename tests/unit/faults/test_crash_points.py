"""Crash points: named by what is awaited and not by line, passed in order, and harmless until armed."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.faults.crash_points import PASSED, Points, rewrite

SOURCE = """
class Lane:
    async def work(self, items, lock, call):
        async with lock:
            first = await call(1)
        async for item in items():
            first += await self.do(item) + (await call(item))
        return first

    async def do(self, item):
        return item
"""


class Lock:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


async def some() -> Any:
    yield 10
    yield 20


async def plain(number: int) -> int:
    return number


def run(source: str, passed: Any) -> tuple[int, list[str]]:
    """Return what the work gives and the names of its points."""
    tree, names = rewrite(textwrap.dedent(source), "lanes.py", "guard.lanes")
    space: dict[str, Any] = {PASSED: passed}
    exec(compile(tree, "lanes.py", "exec"), space)
    return asyncio.run(space["Lane"]().work(some, Lock(), plain)), names


def test_a_rewritten_module_does_what_it_did_and_passes_its_points_in_order() -> None:
    passed: list[str] = []
    result, names = run(SOURCE, passed.append)
    assert result == 1 + 2 * 10 + 2 * 20
    turn = ["some:next", "do:before", "do:after", "call#2:before", "call#2:after"]
    words = [name.removeprefix("guard.lanes:Lane.work:").replace("items", "some") for name in passed]
    assert words == [
        "lock:before", "lock:entered", "call:before", "call:after", "lock:left", "some:before", *turn, *turn,
    ]  # fmt: skip
    assert set(passed) == set(names)


def test_names_stay_the_same_when_lines_move() -> None:
    moved = "import os\n\n\nLIMIT = 5\n" + SOURCE.replace("first = await", "first = \\\n                await")
    assert run(moved, lambda name: None)[1] == run(SOURCE, lambda name: None)[1]


def test_a_ledger_call_is_named_by_what_it_calls() -> None:
    source = """
async def f(means):
    await means.on_disk(means.ledger.enter, 1)
    await means.on_disk(means.ledger.block)
"""
    _, names = rewrite(source, "x.py", "guard.lanes")
    assert [name.split(":")[2] for name in names[::2]] == ["on_disk(enter)", "on_disk(block)"]


def test_unarmed_nothing_is_noted_and_recording_notes_each_pass(tmp_path: Path) -> None:
    points = Points(tmp_path)
    points.passed("a")
    assert not (tmp_path / "passed").exists()
    (tmp_path / "armed").write_text("record")
    points.passed("a")
    points.passed("b")
    assert (tmp_path / "passed").read_text() == "a\nb\n"


@pytest.mark.parametrize(("count", "said"), [(1, "1"), (3, "123")])
def test_armed_the_process_dies_at_that_pass_and_no_other(tmp_path: Path, count: int, said: str) -> None:
    (tmp_path / "armed").write_text(f"die wanted {count}")
    code = f"""
import sys
from pathlib import Path
from tests.faults.crash_points import Points
points = Points(Path({str(tmp_path)!r}))
for number in range(1, 9):
    print(number, end="", flush=True)
    points.passed("other")
    points.passed("wanted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, said)
    assert not (tmp_path / "armed").exists(), "the next one is to live"
