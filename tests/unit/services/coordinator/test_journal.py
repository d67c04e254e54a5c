"""The journal: what waits is one batch, what may be told then is told then, and in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgeagents.adapters import batches
from edgeagents.errors import ConflictError, StoreError, UnavailableError
from edgeagents.model.task import TaskWanted
from edgeagents.protocol.task_book import Book, Times
from edgeagents.protocol.task_record import Record
from edgeagents.settings import BusSettings
from services.coordinator import journal as module
from services.coordinator.journal import Journal


class Disk:
    """Stands for the stream: stores when it is let, refuses as it is told."""

    def __init__(self) -> None:
        self.settings = BusSettings(gateway="gw")
        self.batches: list[list[str]] = []
        self.errors: list[Exception] = []
        self.may = asyncio.Event()
        self.last = 0

    async def store(self, bus: Any, messages: list[tuple[str, bytes]], expected_last: int) -> int:
        """Store a batch."""
        await self.may.wait()
        if self.errors:
            raise self.errors.pop(0)
        assert expected_last == self.last
        self.batches.append([subject.rsplit(".", 1)[1] for subject, _ in messages])
        self.last += len(messages)
        return self.last

    async def last_sequence(self, stream: str) -> int:
        """Return where the stream ends."""
        return self.last

    async def read(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """Yield nothing: what was asked for is not there."""
        for message in ():
            yield message


def record(task: str) -> Record:
    """Return a task's record."""
    wanted = TaskWanted(skill="set", device_name="d", resource_name="r", value="1")
    return Book(Times()).accept(task, wanted, "http", 0.0, 1)[0]


@contextlib.asynccontextmanager
async def writing(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> AsyncIterator[tuple[Journal, "asyncio.Task[None]"]]:
    """Yield a journal that writes."""
    monkeypatch.setattr(module, "store_together", disk.store)
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    assert batches.store_together is not disk.store
    found = Journal(disk)  # type: ignore[arg-type]
    task = asyncio.ensure_future(found.run())
    yield found, task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StoreError):
        await task


async def test_what_waits_while_the_disk_is_busy_goes_as_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, told = Disk(), []
    async with writing(monkeypatch, disk) as (journal, _):
        journal.put(record("a"), lambda: told.append("a"))
        await asyncio.sleep(0)
        for task in ("b", "c", "b"):
            journal.put(record(task), lambda task=task: told.append(task))  # type: ignore[misc]
        journal.put(None, lambda: told.append("behind"))
        assert told == []
        disk.may.set()
        await journal.stored_then(None)
    assert disk.batches == [["a"], ["c", "b"]]
    assert told == ["a", "b", "c", "b", "behind"]


async def test_without_anything_waiting_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, told = Disk(), []
    async with writing(monkeypatch, disk) as (journal, _):
        journal.put(None, lambda: told.append("at once"))
        assert told == ["at once"]


async def test_a_broker_that_is_away_is_asked_again_and_nothing_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    disk.errors = [UnavailableError("away"), UnavailableError("still")]
    disk.may.set()
    async with writing(monkeypatch, disk) as (journal, _):
        await journal.stored_then(record("a"))
    assert disk.batches == [["a"]]
    assert disk.errors == []


async def test_a_second_writer_ends_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, told = Disk(), []
    disk.errors = [ConflictError("wrong last sequence")]
    async with writing(monkeypatch, disk) as (journal, task):
        journal.put(record("a"), lambda: told.append("a"))
        waiting = asyncio.ensure_future(journal.stored_then(record("b")))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        disk.may.set()
        with pytest.raises(StoreError, match="second coordinator"):
            await task
        with pytest.raises(UnavailableError, match="the coordinator ends"):
            await waiting
        with pytest.raises(UnavailableError, match="once it is up again"):
            await journal.stored_then(None)
    assert told == []


async def test_more_than_a_batch_takes_is_told_when_all_of_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    disk.may.set()
    async with writing(monkeypatch, disk) as (journal, _):
        for number in range(batches.MOST_MESSAGES + 3):
            journal.put(record(f"t-{number}"))
        await journal.stored_then(None)
    assert [len(batch) for batch in disk.batches] == [batches.MOST_MESSAGES, 3]
    assert (journal.batches, journal.stored) == (2, batches.MOST_MESSAGES + 3)
