"""The guard's reception on a real nats-server: renewing what the broker ends loses nothing and brings nothing twice."""

import asyncio
from collections import Counter

import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from services.guard import reception as reception_module
from services.guard.reception import MOST_HEARD, Reception
from tests.contract.waiting import until
from tests.nats import NatsServer

BURSTS = 200


async def test_no_request_is_lost_or_heard_twice_while_it_is_renewed(
    bus: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception_module, "RENEW_S", 0.05)
    monkeypatch.setattr(reception_module, "MOST_LOOKS", 1)  # at each look
    heard: list[int] = []

    async def take(agent: str, message: BusMessage) -> None:
        heard.append(int(message.data))

    gateway = bus.settings.gateway
    reception = Reception(bus, lambda: ["air"], {"leases": take}, Counter())
    other = await Bus.connect(nats_server.settings(), "other")
    size = MOST_HEARD["leases"] // 16  # a busy machine may let some twenty bursts pass between two looks
    try:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(reception.serve(tasks))
            await asyncio.sleep(0.2)
            await bus.flush()
            for burst in range(BURSTS):
                for number in range(size):
                    name = burst * size + number
                    await other.publish(f"{gateway}.leases.air", b"%d" % name, reply=f"_INBOX.other.{name}")
                await other.flush()
                await asyncio.sleep(0.02)
            await until(lambda: len(heard) >= BURSTS * size, "all are heard")
            serving.cancel()
            for task in tasks._tasks:  # type: ignore[attr-defined]
                task.cancel()
    finally:
        await other.close()
    assert Counter(heard) == Counter(range(BURSTS * size))
