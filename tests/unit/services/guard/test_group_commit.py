"""Ledger calls that wait together are on disk together, in order, and fail each by itself."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import StoreError
from services.guard.group_commit import GroupCommit
from services.guard.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger on disk."""
    found = Ledger(tmp_path)
    yield found
    found.close()


class Statements:
    """The statements a ledger sends to its file from now on."""

    def __init__(self, ledger: Ledger) -> None:
        self.sent: list[str] = []
        ledger._db.set_trace_callback(self.sent.append)

    def count(self, word: str) -> int:
        return sum(1 for text in self.sent if text.startswith(word))


def held_up(calls: GroupCommit) -> tuple[threading.Event, "Future[Any]"]:
    """Keep the thread busy until the event is set."""
    go_on, began = threading.Event(), threading.Event()

    def busy() -> None:
        began.set()
        go_on.wait(10)

    future = calls.submit(busy)
    assert began.wait(10)
    return go_on, future


def stored(tmp_path: Path) -> dict[str, int]:
    """What another connection to the file sees: what is committed."""
    with sqlite3.connect(tmp_path / "guard.db") as other:
        found = dict(other.execute("SELECT name, value FROM meta"))
    other.close()
    return found


def test_calls_that_wait_are_committed_once_and_all_are_on_disk(ledger: Ledger, tmp_path: Path) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)
    statements = Statements(ledger)
    futures = [calls.submit(ledger.remember, f"n{number}", number) for number in range(10)]
    go_on.set()

    for future in futures:
        future.result(10)

    assert statements.count("COMMIT") == 1
    assert stored(tmp_path) == {f"n{number}": number for number in range(10)}
    calls.shutdown()


def test_a_call_by_itself_needs_no_transaction_around_it(ledger: Ledger, tmp_path: Path) -> None:
    calls = GroupCommit(ledger)
    statements = Statements(ledger)

    calls.submit(ledger.remember, "n", 1).result(10)

    assert statements.count("BEGIN") == 0
    assert stored(tmp_path) == {"n": 1}
    calls.shutdown()


def test_calls_are_made_in_order_and_see_what_those_before_wrote(ledger: Ledger) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)
    asked = [calls.submit(ledger.number, "n")]
    for number in (1, 2, 3):
        calls.submit(ledger.remember, "n", number)
        asked.append(calls.submit(ledger.number, "n"))
    go_on.set()

    assert [future.result(10) for future in asked] == [0, 1, 2, 3]
    calls.shutdown()


def test_one_that_fails_takes_no_other_with_it(ledger: Ledger, tmp_path: Path) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)

    def fail() -> None:
        ledger.remember("half", 1)
        raise StoreError("guard ledger: no")

    before = calls.submit(ledger.remember, "before", 1)
    wrong = calls.submit(fail)
    after = calls.submit(ledger.remember, "after", 1)
    go_on.set()

    with pytest.raises(StoreError, match="no"):
        wrong.result(10)
    before.result(10)
    after.result(10)
    assert {"before", "after"} <= stored(tmp_path).keys()
    calls.shutdown()


def test_a_commit_that_fails_is_told_to_all_who_cannot_be_written_alone_either(ledger: Ledger, tmp_path: Path) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)
    futures = [calls.submit(ledger.remember, f"n{number}", number) for number in range(3)]
    ledger._db.execute("PRAGMA query_only = ON")  # as a volume that became read-only
    go_on.set()

    for future in futures:
        with pytest.raises(StoreError, match="read-only"):
            future.result(10)
    assert stored(tmp_path) == {}
    calls.shutdown()


def test_what_was_cancelled_while_it_waited_is_not_made(ledger: Ledger) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)
    future = calls.submit(ledger.remember, "n", 1)
    assert future.cancel()
    go_on.set()
    calls.shutdown()

    assert ledger.number("n") == 0


def test_shutdown_makes_what_waits_and_takes_no_more(ledger: Ledger) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)
    future = calls.submit(ledger.remember, "n", 1)
    go_on.set()

    calls.shutdown()

    assert future.done()
    with pytest.raises(RuntimeError, match="shut down"):
        calls.submit(ledger.remember, "n", 2)


def test_shutdown_without_those_that_wait_cancels_them(ledger: Ledger) -> None:
    calls = GroupCommit(ledger)
    go_on, busy = held_up(calls)
    future = calls.submit(ledger.remember, "n", 1)
    calls.shutdown(wait=False, cancel_futures=True)
    go_on.set()
    busy.result(10)

    assert future.cancelled()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_whatever_a_call_raises_the_thread_goes_on_with_the_others(
    ledger: Ledger, tmp_path: Path, error: type[BaseException]
) -> None:
    calls = GroupCommit(ledger)
    go_on, _ = held_up(calls)

    def fail() -> None:
        raise error

    before, wrong = calls.submit(ledger.remember, "before", 1), calls.submit(fail)
    go_on.set()

    before.result(10)
    with pytest.raises(error):
        wrong.result(10)
    calls.submit(ledger.remember, "later", 1).result(10)
    assert {"before", "later"} <= stored(tmp_path).keys()
    calls.shutdown()


def test_shutdown_that_cancels_leaves_nobody_waiting_whoever_takes_the_last_call(ledger: Ledger) -> None:
    for _ in range(200):
        calls = GroupCommit(ledger)
        futures = [calls.submit(ledger.number, "n") for _ in range(20)]
        ending = threading.Thread(target=calls.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        ending.start()
        ending.join(10)
        assert not ending.is_alive(), "it waits for a call that the ledger's thread took"
        assert all(future.done() for future in futures)


def test_a_call_is_made_or_refused_while_another_thread_shuts_down(ledger: Ledger) -> None:
    for _ in range(200):
        calls = GroupCommit(ledger)
        ending = threading.Thread(target=calls.shutdown, daemon=True)
        ending.start()
        taken = []
        with contextlib.suppress(RuntimeError):
            while len(taken) < 50:
                taken.append(calls.submit(ledger.number, "n"))
        ending.join(10)
        assert all(future.done() for future in taken), "none is queued behind the end"
