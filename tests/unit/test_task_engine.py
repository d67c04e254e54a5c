"""The clock of a book of tasks: what is due is looked at in order and in portions, and nothing wakes who rests."""

import asyncio
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.audit import Audit, Refusals
from edgeagents.model.cooperation import Announcement
from edgeagents.protocol.roster import TTL_S
from edgeagents.protocol.task_book import Book, Turn
from edgeagents.task_engine import MOST_AT_ONCE, MOST_TIMERS, STALL_S, TaskEngine


class Looked:
    """A book that notes which of its tasks are looked at."""

    def __init__(self) -> None:
        self.open: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}
        self.looked: list[str] = []
        self.overslept_s: list[float] = []
        self.reasons: dict[str, str] = {}
        self.ends_of_pauses = False

    def turn(self, task: str, *due_s: float) -> Turn:
        """Return a turn after which a task is due."""
        self.open[task] = SimpleNamespace(task=task, net=None, ended="", entry=SimpleNamespace(status="open"))
        return cast(Turn, SimpleNamespace(record=self.open[task], refusals=[], due_s=due_s))

    def look(self, task: str, now_s: float, unix_ns: int) -> Turn:
        """Note it; nothing follows."""
        self.looked.append(task)
        return self.turn(task)

    def cancel(self, task: str, reason: str, now_s: float, unix_ns: int, word: str = "cancelled") -> Turn:
        """End it."""
        del self.open[task]
        self.reasons[task] = reason
        return cast(Turn, SimpleNamespace(record=SimpleNamespace(task=task, ended=word), refusals=[], due_s=()))

    def overslept(self, task: str, slept_s: float, now_s: float, unix_ns: int) -> Turn:
        """Note it; the task is due at once."""
        self.overslept_s.append(slept_s)
        return self.cancel(task, "paused", now_s, unix_ns) if self.ends_of_pauses else self.turn(task, now_s)


class Rig:
    """An engine on a clock that stands still."""

    def __init__(self) -> None:
        self.now_s, self.book, self.counts = 100.0, Looked(), Counter[str]()
        audit = cast(Audit, SimpleNamespace(append=lambda kind, **body: None))
        self.engine = TaskEngine(
            cast(Book, self.book), self.counts, Refusals(audit, "task-refused", self.counts), lambda: self.now_s,
            lambda record: None, lambda turn: self.engine.taken_in(turn),
        )  # fmt: skip


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_what_is_due_is_looked_at_once_the_longest_due_first_and_in_portions(rig: Rig) -> None:
    for number in range(MOST_AT_ONCE + 10):
        rig.engine.taken_in(rig.book.turn(f"t{number}", 99.0 - number, 99.5, 101.0))
    rig.engine.look()
    assert rig.book.looked == [f"t{number}" for number in reversed(range(10, MOST_AT_ONCE + 10))]
    rig.engine.look()
    assert rig.book.looked[MOST_AT_ONCE:][:10] == [f"t{number}" for number in reversed(range(10))]
    for _ in range(3):
        rig.engine.look()
    # Two times of one task within a portion are one look; 101 is not over yet.
    assert set(Counter(rig.book.looked).values()) == {1, 2}


async def test_who_rests_is_woken_by_what_becomes_due_and_by_nothing_else(rig: Rig) -> None:
    began_s = time.monotonic()
    await rig.engine.rest(0.05)
    assert 0.04 < time.monotonic() - began_s < 5
    resting = asyncio.create_task(rig.engine.rest(60))
    await asyncio.sleep(0.01)
    assert not resting.done()
    rig.engine.taken_in(rig.book.turn("t", 100.0))
    async with asyncio.timeout(5):
        await resting
        await rig.engine.rest(60)  # it is due still
    rig.engine.look()
    assert rig.book.looked == ["t"]


async def test_times_of_what_has_ended_are_let_go_and_those_of_what_has_not_are_kept(rig: Rig) -> None:
    rig.engine.taken_in(rig.book.turn("kept", 100.0))
    for number in range(4 * MOST_TIMERS):
        rig.engine.taken_in(rig.book.turn(f"short-{number}", 200.0 + number))
        del rig.book.open[f"short-{number}"]
    assert len(rig.engine._timers) <= MOST_TIMERS + 1
    rig.engine.look()
    assert rig.book.looked == ["kept"]


async def test_a_time_in_which_we_were_held_up_is_given_back_once(rig: Rig) -> None:
    rig.book.turn("t")
    rig.now_s += STALL_S
    rig.engine.now()
    assert rig.book.overslept_s == []
    rig.now_s += STALL_S + 1
    rig.engine.look()
    rig.engine.look()
    assert rig.book.overslept_s == [STALL_S + 1]
    assert rig.book.looked == ["t"]
    assert rig.counts["stalls"] == 1


async def test_who_was_there_before_a_pause_is_there_after_it(rig: Rig) -> None:
    rig.engine.announced("ada", Announcement(incarnation="run"))
    rig.now_s += TTL_S - 0.1
    rig.engine.announced("bob", Announcement(incarnation="run"))  # she was heard long ago, he just now
    rig.now_s += 1_000.0
    assert "bob" in rig.engine.alive(), "not even before the pause is noticed"
    rig.engine.look()
    assert set(rig.engine.alive()) == {"ada", "bob"}
    for _ in range(20):
        rig.now_s += STALL_S / 2
        rig.engine.look()
    assert rig.engine.alive() == {}


async def test_once_begun_anew_the_time_before_held_nobody_up(rig: Rig) -> None:
    rig.book.turn("t")
    rig.now_s += 1_000
    rig.engine.begin_anew()
    rig.engine.now()
    assert rig.book.overslept_s == []


async def test_where_nothing_is_due_time_passes_and_holds_nobody_up(rig: Rig) -> None:
    for _ in range(10):
        await rig.engine.rest(0.001)
        rig.engine.look()
        rig.now_s += STALL_S / 2
    rig.engine.now()
    assert rig.counts["stalls"] == 0


async def test_what_a_pause_has_ended_is_not_ended_again(rig: Rig) -> None:
    rig.book.turn("t")
    rig.engine.fail(lambda record: "")
    assert rig.book.reasons == {}
    rig.book.ends_of_pauses = True
    rig.now_s += STALL_S + 1
    rig.engine.fail(lambda record: "nobody may do it")
    assert rig.book.reasons == {"t": "paused"}
    rig.book.turn("u")
    rig.engine.fail(lambda record: "nobody may do it")
    assert rig.book.reasons["u"] == "nobody may do it"
