"""`edgeagents audit`, `why` and `replay` on a real nats-server: what is deleted is named, what comes is followed."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.audit import Audit
from tests.nats import NatsServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def audits(bus: Bus) -> AsyncIterator[dict[str, Audit]]:
    """Running audits of the guard and an agent."""
    await bus.ensure_stream(subjects.AUDIT_STREAM, [subjects.audits("gw")])
    found = {name: Audit(bus, name, f"{name}-1") for name in ("guard", "air")}
    tasks = [asyncio.create_task(audit.run()) for audit in found.values()]
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def write(audits: dict[str, Audit], count: int) -> None:
    """Have both write down so many records, turn about."""
    for number in range(count):
        for name, audit in audits.items():
            audit.append("command" if name == "guard" else "observed", n=number, device="valve", agent="air")
            await audit.drain(30)


def environment(server: NatsServer) -> dict[str, str]:
    """Return what tells the command where to read."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EDGEAGENTS_")}
    return {**plain, "EDGEAGENTS_NATS_URL": server.url, "EDGEAGENTS_GATEWAY": "gw", "PYTHONUNBUFFERED": "1"}


async def edgeagents(server: NatsServer, *words: str) -> tuple[int, str]:
    """Return how `edgeagents WORDS` ends and what it says."""
    command = [sys.executable, "-m", "edgeagents.cli", *words]
    run = subprocess.run
    done = await asyncio.to_thread(
        run, command, cwd=ROOT, env=environment(server), capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_stream_is_verified_exported_and_held_against_the_export(
    nats_server: NatsServer, bus: Bus, audits: dict[str, Audit], tmp_path: Path
) -> None:
    await write(audits, 3)
    exported = str(tmp_path / "audit.jsonl")
    assert await edgeagents(nats_server, "audit", "export", exported) == (0, f"6 records written to {exported}\n")
    code, said = await edgeagents(nats_server, "audit", "verify", "--against", exported)
    assert (code, said.splitlines()[-1]) == (0, "2 chains, 6 records: whole")

    # The newest record, and the oldest: what a chain itself cannot tell, the stream's places do.
    await bus.js.delete_msg(subjects.AUDIT_STREAM, 6)
    await bus.js.delete_msg(subjects.AUDIT_STREAM, 1)
    code, said = await edgeagents(nats_server, "audit", "verify", "--against", exported)
    assert code == 1
    for text in (
        "stream audit: place 6: dropped",
        "stream audit: place 1: dropped",
        "guard guard-1 #0: dropped: it is not there",
        "guard guard-1 #0: dropped since the earlier export",
        "air air-1 #2: dropped since the earlier export",
    ):
        assert text in said, said

    await bus.js.purge_stream(subjects.AUDIT_STREAM)
    code, said = await edgeagents(nats_server, "audit", "verify")
    assert (code, "stream audit: places 1 to 6: dropped" in said) == (1, True), said
    code, said = await edgeagents(nats_server, "audit", "verify", "--file", exported)
    assert (code, said.splitlines()[-1]) == (0, "2 chains, 6 records: whole")


async def test_what_is_written_now_is_followed_through_a_restart_of_the_broker(
    nats_server: NatsServer, audits: dict[str, Audit]
) -> None:
    await write(audits, 4)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edgeagents.cli", "audit", "tail", "--kind", "command", "--agent", "air", "--last", "4",
        cwd=ROOT, env=environment(nats_server), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            shown = [await process.stdout.readline() for _ in range(2)]  # of the last four, the guard's
            nats_server.kill()
            nats_server.start()
            await write(audits, 2)
            shown += [await process.stdout.readline() for _ in range(2)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert [line.decode().rpartition("n=")[2].split()[0] for line in shown] == ["2", "3", "0", "1"]
    assert all(b"guard      command" in line and b"valve" in line for line in shown)


async def test_without_an_audit_stream_it_is_said(nats_server: NatsServer) -> None:
    code, said = await edgeagents(nats_server, "audit", "verify")
    assert code == 1
    assert "has no audit stream: has a guard ever run there?" in said


async def test_why_and_replay_read_the_same_stream(nats_server: NatsServer, audits: dict[str, Audit]) -> None:
    await write(audits, 1)
    code, said = await edgeagents(nats_server, "why", "valve")
    assert code == 0
    assert said.splitlines()[0] == "what happened to valve"
    assert len(said.splitlines()) == 3
    code, said = await edgeagents(nats_server, "replay", "--all")
    assert (code, "the audit holds no decision" in said) == (2, True), said
