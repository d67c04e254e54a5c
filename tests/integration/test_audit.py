"""Audit chains on a real nats-server: lost acknowledgements and restarts of the broker leave them whole."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.audit import Audit, verify
from edgeagents.errors import UnavailableError
from edgeagents.model.message import AuditRecord
from tests.nats import NatsServer


@contextlib.asynccontextmanager
async def writing(bus: Bus, incarnation: str) -> AsyncIterator[Audit]:
    """Yield an audit of the guard that runs; what was appended is stored at the end of the block."""
    audit = Audit(bus, "guard", incarnation)
    task = asyncio.create_task(audit.run())
    yield audit
    await audit.drain(30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def records(bus: Bus) -> list[AuditRecord]:
    """Return what the stream holds."""
    read = bus.read(subjects.AUDIT_STREAM, [subjects.audits("gw")], name="check")
    return [wire.decode(AuditRecord, message.data) async for message in read]


async def test_chains_continue_over_restarts_of_the_broker_and_of_the_writer(nats_server: NatsServer, bus: Bus) -> None:
    await bus.ensure_stream(subjects.AUDIT_STREAM, [subjects.audits("gw")])
    for incarnation in ("i1", "i2"):
        async with writing(bus, incarnation) as audit:
            for number in range(20):
                audit.append("command", n=number)
                if number == 10:
                    await audit.drain(30)
                    nats_server.kill()
                    audit.append("while the broker is away")
                    nats_server.start()
    found = await records(bus)
    assert verify(found) == []
    assert len(found) == 42
    assert [record.number for record in found] == [*range(21), *range(21)]


async def test_lost_acknowledgements_make_no_gap_and_no_double(bus: Bus, monkeypatch: Any) -> None:
    await bus.ensure_stream(subjects.AUDIT_STREAM, [subjects.audits("gw")])
    store, calls = bus.store, iter(range(1000))

    async def deaf(subject: str, data: bytes, headers: Mapping[str, str] | None = None, **more: Any) -> int:
        sequence = await store(subject, data, headers, **more)
        if next(calls) % 3 == 0:
            raise UnavailableError("no acknowledgement")
        return sequence

    monkeypatch.setattr(bus, "store", deaf)
    async with writing(bus, "i1") as audit:
        for number in range(6):
            audit.append("command", n=number)
    found = await records(bus)
    assert verify(found) == []
    assert [json.loads(record.body)["n"] for record in found] == list(range(6))
