"""The stream `tasks` on a real server: the guard sets it up, the coordinator's user writes, purges, and no more."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.embedded.nats import find_nats_server, write_config
from edgeagents.errors import UnavailableError
from edgeagents.model.task import TaskWanted
from edgeagents.permissions import for_coordinator, for_everything, inbox
from edgeagents.protocol.task_book import Book, Times
from edgeagents.protocol.task_record import Record
from edgeagents.settings import BusSettings
from services.coordinator.journal import Journal
from services.guard.streams import ensure_tasks
from tests.contract.waiting import until
from tests.nats import free_port

WANTED = TaskWanted(skill="set", device_name="valve", resource_name="Setpoint", value="21")


def record(task: str) -> Record:
    """Return a task that was just taken in."""
    return Book(Times()).accept(task, WANTED, "http", 100.0, 1)[0]


async def api(bus: Bus, verb: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask the broker about the stream of tasks."""
    data = b"" if config is None else json.dumps(config).encode()
    answer: dict[str, Any] = json.loads((await bus.request(f"$JS.API.STREAM.{verb}.tasks", data, timeout_s=5.0)).data)
    return answer


def started(config: Path) -> "subprocess.Popen[bytes]":
    """Return a running server."""
    return subprocess.Popen(
        [find_nats_server(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


async def connected(settings: BusSettings, user: str) -> Bus:
    """Return a connection, waiting for the server."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await Bus.connect(settings, user, inbox=inbox(user))
            except UnavailableError:
                await asyncio.sleep(0.1)


@pytest.fixture
async def buses(tmp_path: Path) -> AsyncIterator[tuple[Bus, Bus]]:
    """Yield the guard's and the coordinator's connection to a server that knows both."""
    port = free_port()
    users = {"guard": for_everything(), subjects.COORDINATOR: for_coordinator("gw")}
    config, passwords = write_config(tmp_path, port, users, sync_always=False)
    process = started(config)
    try:
        async with AsyncExitStack() as stack:
            found = []
            for user in users:
                settings = BusSettings(
                    nats_url=f"nats://127.0.0.1:{port}", gateway="gw", nats_user=user,
                    nats_password_file=passwords[user],
                )  # fmt: skip
                found.append(await connected(settings, user))
                stack.push_async_callback(found[-1].close)
            yield found[0], found[1]
    finally:
        process.kill()
        process.wait()


async def test_a_coordinator_waits_for_the_guards_stream_and_can_set_up_none(buses: tuple[Bus, Bus]) -> None:
    guard, bus = buses
    opening = asyncio.ensure_future(Journal(bus).open())
    config = {"name": "tasks", "subjects": ["gw.tasks.*"], "republish": {"src": ">", "dest": "gw.commands.>"}}
    for verb in ("CREATE", "UPDATE"):
        with pytest.raises(UnavailableError):
            await bus.request(f"$JS.API.STREAM.{verb}.tasks", json.dumps(config).encode(), timeout_s=0.5)
    assert not opening.done()
    # Even one that was set up so before is put right.
    assert "error" not in await api(guard, "CREATE", config)
    await ensure_tasks(guard)
    found = (await api(guard, "INFO"))["config"]
    assert "republish" not in found
    assert found["allow_atomic"]
    assert await asyncio.wait_for(opening, 10) == []


async def test_what_is_forgotten_is_gone_from_disk_but_not_the_same_id_given_again(buses: tuple[Bus, Bus]) -> None:
    guard, bus = buses
    await ensure_tasks(guard)
    journal = Journal(bus)
    assert await journal.open() == []
    running = [asyncio.ensure_future(work) for work in (journal.run(), journal.run_room())]
    try:
        for task in ("a", "b", "c"):
            await journal.stored_then(record(task))
        journal.forget("a")
        journal.forget("b")
        await journal.stored_then(record("a"))  # given again before the old one was removed
        await until(lambda: journal.purged == 2, "both are removed", timeout_s=20)
    finally:
        for work in running:
            work.cancel()
    assert sorted(item.task for item in await Journal(bus).open()) == ["a", "c"]


async def test_room_is_told_before_the_stream_is_full(buses: tuple[Bus, Bus]) -> None:
    guard, bus = buses
    await ensure_tasks(guard)
    found = (await api(guard, "INFO"))["config"]
    assert "error" not in await api(guard, "UPDATE", found | {"max_bytes": 16_384})
    journal = Journal(bus)
    await journal.open()
    running = asyncio.ensure_future(journal.run())
    try:
        number = 0
        while journal.has_room:
            await asyncio.wait_for(journal.stored_then(record(f"t-{number}")), 10)
            number += 1
        assert number > 3
        await asyncio.wait_for(journal.stored_then(record("t-0")), 10)  # what is under way is still stored
    finally:
        running.cancel()
