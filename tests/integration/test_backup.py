"""Streams and the guard's volume through an archive, on a real broker that goes on running."""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagents import subjects
from edgeagents.adapters import stream_snapshots as streams
from edgeagents.adapters import wire
from edgeagents.adapters.backup_archive import read_manifest
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.gateway_backup import Place, back_up, restore
from edgeagents.errors import ConfigurationError, EdgeAgentsError, NotFoundError
from edgeagents.model.message import Heartbeat, LeaseRecord
from services.guard.ledger import Ledger
from tests.contract.waiting import until
from tests.nats import NatsServer


def silent(what: object) -> None:
    """Take no notice of progress."""


async def filled(bus: Bus, count: int = 3000) -> None:
    """Make a gateway's command and event streams, with messages of some size in them."""
    for name in (subjects.COMMANDS_STREAM, subjects.EVENTS_STREAM):
        await bus.ensure_stream(name, subjects.stream_subjects("gw")[name])
    body = bytes(range(256)) * 8
    for _ in range(count // 100):
        await asyncio.gather(*(bus.js.publish("gw.commands.valve.air", body) for _ in range(100)))


async def lines(bus: Bus, stream: str = subjects.COMMANDS_STREAM) -> list[tuple[int, str, int]]:
    """Return place, subject and time of storage of each message."""
    return [(item.sequence, item.subject, item.time_ns) async for item in bus.read(stream, [], name="check")]


async def test_a_stream_comes_back_with_its_sequences_times_and_consumers(bus: Bus, tmp_path: Path) -> None:
    await filled(bus)
    await bus.js.delete_msg(subjects.COMMANDS_STREAM, 7)
    async with contextlib.aclosing(bus.consume(subjects.COMMANDS_STREAM, "guard", ["gw.commands.*.*"])) as messages:
        async for message in messages:
            await message.ack()
            if message.sequence == 50:
                break

    async def is_acknowledged() -> bool:
        return await bus.acknowledged(subjects.COMMANDS_STREAM, "guard") == 50

    await until(is_acknowledged, "the server knows of the acknowledgements")
    before, path, sizes = await lines(bus), tmp_path / "s", list[int]()
    assert streams.CHUNK_BYTES < 3000 * 2048, "it takes more than one part"
    about = await streams.snapshot(bus, subjects.COMMANDS_STREAM, path, sizes.append)
    assert sum(sizes) == path.stat().st_size
    assert streams.gateway_of(about) == "gw"
    await streams.delete(bus, subjects.COMMANDS_STREAM)
    await streams.restore(bus, subjects.COMMANDS_STREAM, about, path, silent)
    assert await lines(bus) == before
    assert await bus.acknowledged(subjects.COMMANDS_STREAM, "guard") == 50
    assert await bus.store("gw.commands.valve.air", b"x") == before[-1][0] + 1


async def test_a_damaged_snapshot_is_refused_and_leaves_no_stream(bus: Bus, tmp_path: Path) -> None:
    await filled(bus, 500)
    path = tmp_path / "s"
    about = await streams.snapshot(bus, subjects.COMMANDS_STREAM, path, silent)
    await streams.delete(bus, subjects.COMMANDS_STREAM)
    path.write_bytes(path.read_bytes()[:-200] + b"\x00" * 200)
    with pytest.raises(EdgeAgentsError):
        await streams.restore(bus, subjects.COMMANDS_STREAM, about, path, silent)
    with pytest.raises(NotFoundError):
        await bus.last_sequence(subjects.COMMANDS_STREAM)


async def test_a_stream_that_is_not_there_is_named(bus: Bus, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        await streams.snapshot(bus, "gone", tmp_path / "s", silent)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a guard's volume of generation 5, with no guard on it."""
    folder = tmp_path / "volume"
    ledger = Ledger(folder)
    ledger.remember("generation", 5)
    ledger.close()
    return folder


async def noted(bus: Bus) -> LeaseRecord:
    """Return the newest start record."""
    last = await bus.last(subjects.COMMANDS_STREAM, subjects.guard_starts("gw"))
    assert last is not None
    return wire.decode(LeaseRecord, last.data)


async def test_into_a_running_broker_each_time_under_a_higher_generation(
    bus: Bus, nats_server: NatsServer, volume: Path, tmp_path: Path
) -> None:
    await filled(bus, 300)
    place, archive = Place.of_volume(volume, nats_server.settings()), tmp_path / "b.tar"
    manifest = await back_up(place, archive, silent)
    assert (manifest.gateway, manifest.generation) == ("gw", 5)
    assert manifest.last_sequences == {subjects.COMMANDS_STREAM: 300, subjects.EVENTS_STREAM: 0}
    for number in range(5):
        await bus.store("gw.commands.valve.air", f"later {number}".encode())
    with pytest.raises(ConfigurationError, match="there is state already: --force"):
        await restore(place, archive, silent)
    assert await bus.last_sequence(subjects.COMMANDS_STREAM) == 305

    generations = [5]
    for _ in range(3):
        done = await restore(place, archive, silent, force=True)
        assert await bus.last_sequence(subjects.COMMANDS_STREAM) == 301, "and the note of the restore"
        assert (await noted(bus)).generation == done.generation > generations[-1]
        generations.append(done.generation)
        assert done.aside is not None
        assert (done.aside / "guard" / "guard.db").exists()
        kept = json.loads((done.aside / "streams" / "commands.json").read_text())
        assert kept["state"]["last_seq"] in (305, 301), "what was there before"


async def test_the_old_volumes_generation_counts_also_when_the_clock_runs_behind_it(
    bus: Bus, nats_server: NatsServer, volume: Path, tmp_path: Path
) -> None:
    await filled(bus, 100)
    place, archive = Place.of_volume(volume, nats_server.settings()), tmp_path / "b.tar"
    await back_up(place, archive, silent)
    ledger, ahead = Ledger(volume), 9_000_000_000_000
    ledger.remember("generation", ahead)
    ledger.close()
    assert (await restore(place, archive, silent, force=True)).generation == ahead


async def test_a_guard_that_runs_is_respected(bus: Bus, nats_server: NatsServer, volume: Path, tmp_path: Path) -> None:
    await filled(bus, 100)
    place, archive = Place.of_volume(volume, nats_server.settings()), tmp_path / "b.tar"
    await back_up(place, archive, silent)
    ledger = Ledger(volume)
    with pytest.raises(ConfigurationError, match="a guard runs on it: stop the gateway first"):
        await restore(place, archive, silent, force=True)
    ledger.close()

    async def answer(message: BusMessage) -> None:
        await bus.respond(message, wire.encode(Heartbeat(incarnation="abc")))

    await bus.subscribe(subjects.guard("gw"), answer)
    await bus.flush()
    with pytest.raises(ConfigurationError, match="guard abc runs: stop it"):
        await restore(place, archive, silent, force=True)
    assert await bus.last_sequence(subjects.COMMANDS_STREAM) == 100


async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "edgeagents.cli", *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)


async def test_the_command_line_says_what_it_did_and_what_to_do(
    bus: Bus, nats_server: NatsServer, volume: Path, tmp_path: Path
) -> None:
    await filled(bus, 100)
    where = ("--guard-dir", str(volume), "--nats", nats_server.url)
    archive = tmp_path / "b.tar"
    done = await run("backup", *where, "--to", str(archive))
    assert (done.returncode, done.stderr) == (0, "")
    assert "gateway 'gw' of" in done.stdout
    assert read_manifest(archive).generation == 5
    refused = await run("restore", str(archive), *where)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--force keeps it aside and replaces it" in refused.stderr
    forced = await run("restore", str(archive), *where, "--force")
    assert forced.returncode == 0, forced.stderr
    assert "the state before is kept in" in forced.stdout
    nothing = await run("backup")
    assert (nothing.returncode, "whose state? give --folder" in nothing.stderr) == (1, True)
    empty = await run("backup", "--folder", str(tmp_path / "empty"))
    assert (empty.returncode, "is it the folder given to --keep?" in empty.stderr) == (1, True)
