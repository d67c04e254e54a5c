"""An agent that floods, by its own credentials: it loses its own things, nobody else loses or waits for anything."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import nats.errors
import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.nats_server import user_entry
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, UnavailableError
from edgeagents.model.message import Outcome
from edgeagents.permissions import agent_user, for_agent, for_everything, inbox
from edgeagents.settings import BusSettings
from tests.contract.waiting import until
from tests.guarded import Agent, Client, Gateway, patiently

PASSWORD = "password-of-agent-air"
SLOWEST_S = 30.0  # a command of another agent while the flood is met: 10,000 messages may wait for the disk before it
MOST_GUARD_BYTES = 400 << 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose broker knows agent air by its password; without one, everybody is the owner."""
    users = [
        user_entry("owner", "x" * 20, for_everything()),
        user_entry(agent_user("air"), PASSWORD, for_agent("gw", "air")),
    ]
    broker = f"authorization: {json.dumps({'users': users})}\nno_auth_user: owner\n"
    found = Gateway(tmp_path_factory.mktemp("flood"), broker)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
async def air(gateway: Gateway, client: Client, tmp_path: Path) -> AsyncIterator[Bus]:
    """Agent air's own connection, with its own permissions."""
    (tmp_path / "password").write_text(PASSWORD)
    settings = BusSettings(
        gateway="gw", nats_url=gateway.nats.url, nats_user=agent_user("air"), nats_password_file=tmp_path / "password"
    )
    bus = await Bus.connect(settings, "air", inbox=inbox(agent_user("air")))
    yield bus
    await bus.close()


class Flood:
    """Publishes without waiting for answers, as fast as it can, until it is over."""

    def __init__(self, bus: Bus, names: list[str], size_bytes: int) -> None:
        self._bus, self._names, self._data = bus, names, b"x" * size_bytes
        self.sent = 0

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            for name in self._names:
                with contextlib.suppress(EdgeAgentsError):
                    await self._bus.publish(name, self._data)
                    self.sent += 1
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def flooded(bus: Bus, names: list[str], size_bytes: int) -> AsyncIterator[Flood]:
    """Flood subjects inside the block."""
    flood = Flood(bus, names, size_bytes)
    task = asyncio.create_task(flood.run())
    try:
        yield flood
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def memory_bytes(gateway: Gateway) -> int:
    """Return what the guard's process has in memory."""
    assert gateway.guard is not None
    status = Path(f"/proc/{gateway.guard.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


async def commanded(heat: Agent, value: str) -> Outcome | None:
    """Have a valve set as an agent does it; None when no answer came: what was flooded waits for the disk before it."""
    with contextlib.suppress(UnavailableError):
        reply = await heat.lease("valve-4")
        if reply.granted:
            command = heat.command("valve-4", value, reply.epoch, ttl_s=60.0)
            await heat.send(command)
            return await heat.outcome(command, timeout_s=SLOWEST_S)
    return None


async def heat_works(client: Client, times: int = 5) -> list[float]:
    """Have agent heat command a valve a few times; return how long each took, from the first try to its outcome."""
    took_s = []
    async with client.agent("heat") as heat:
        for number in range(times):
            began_s = time.monotonic()
            done = await until(partial(commanded, heat, str(20 + number)), "an outcome", timeout_s=SLOWEST_S)
            assert isinstance(done, Outcome)
            assert done.status == "proven", done.reason
            took_s.append(time.monotonic() - began_s)
    return took_s


async def held(client: Client, stream: str, pattern: str) -> int:
    """Return how many messages of a filter a stream holds."""

    async def read() -> int:
        try:
            info = await client.bus.js.stream_info(stream, subjects_filter=pattern)
        except (nats.errors.Error, TimeoutError) as error:  # what floods the broker may hold up this question, too
            raise UnavailableError(f"{stream}: {error}") from error
        return sum((info.state.subjects or {}).values())

    return await patiently(read)


@pytest.mark.parametrize(
    ("stream", "names", "size_bytes"),
    [
        (subjects.COMMANDS_STREAM, ["gw.commands.valve-1.air"], 100),
        (subjects.COMMANDS_STREAM, [f"gw.commands.made-up-{number}.air" for number in range(500)], 100_000),
        (subjects.AUDIT_STREAM, [f"gw.audit.air.i{number}" for number in range(500)], 200_000),
    ],
    ids=["commands", "large commands of many devices", "large audit records"],
)
async def test_who_floods_a_shared_stream_is_cut_and_loses_its_own_records_alone(
    gateway: Gateway, client: Client, air: Bus, stream: str, names: list[str], size_bytes: int
) -> None:
    await heat_works(client, 1)
    heats = await held(client, subjects.COMMANDS_STREAM, "gw.*.*.heat") + await held(
        client, subjects.COMMANDS_STREAM, "gw.outcomes.heat.*"
    )
    guards = await held(client, subjects.AUDIT_STREAM, "gw.audit.guard.*")
    async with flooded(air, names, size_bytes) as flood:

        async def is_cut() -> bool:
            return "air" in (await client.state())["notTaken"].get(stream, [])

        began_s = time.monotonic()
        await until(is_cut, "the stream takes nothing of air any more", timeout_s=30)
        cut_s = time.monotonic() - began_s
        took_s = await heat_works(client)
        airs = subjects.filters_of_writer("gw", stream, "air")[0]

        async def is_taken_out() -> bool:
            return await held(client, stream, airs) < 100

        if stream == subjects.COMMANDS_STREAM:
            await until(is_taken_out, "what waited of it is taken out", timeout_s=30)
        kept = await held(client, stream, airs)
    print(f"\ncut after {cut_s:.1f} s, {flood.sent} sent, {kept} kept; heat took at most {max(took_s):.1f} s, "
          f"the guard has {memory_bytes(gateway) >> 20} MiB")  # fmt: skip
    assert max(took_s) < SLOWEST_S
    assert memory_bytes(gateway) < MOST_GUARD_BYTES
    assert (
        await held(client, subjects.COMMANDS_STREAM, "gw.*.*.heat")
        + await held(client, subjects.COMMANDS_STREAM, "gw.outcomes.heat.*")
        > heats
    )

    async def is_written_down() -> bool:  # records are stored behind the work, here behind what still lies in the way
        is_told = any(json.loads(record.body)["stream"] == stream for record in await client.audit("flood"))
        return is_told and await held(client, subjects.AUDIT_STREAM, "gw.audit.guard.*") > guards

    await until(is_written_down, "the guard's own records are stored", timeout_s=SLOWEST_S)
    gateway.kill_guard()  # a new guard takes everybody's again
    await client.start_guard()


@pytest.mark.parametrize(("kind", "size_bytes"), [("sessions", 10), ("sessions", 1 << 20), ("leases", 3000)])
async def test_a_flood_of_requests_is_not_even_sent_to_the_guard(
    gateway: Gateway, client: Client, air: Bus, kind: str, size_bytes: int
) -> None:
    async with flooded(air, [f"gw.{kind}.air"], size_bytes) as flood:
        took_s = await heat_works(client)
    print(f"\n{flood.sent} sent; heat's commands took at most {max(took_s):.1f} s")
    assert max(took_s) < SLOWEST_S
    assert memory_bytes(gateway) < MOST_GUARD_BYTES


@pytest.mark.parametrize(
    ("stream", "flooded_subject", "other"),
    [
        (subjects.TRIGGERS_STREAM, "gw.triggers.air", "gw.triggers.heat"),
        (subjects.DEAD_LETTERS_STREAM, "gw.dead-letters.app-agent-air", "gw.dead-letters.app-agent-heat"),
    ],
)
async def test_triggers_and_dead_letters_of_others_stay(
    client: Client, air: Bus, stream: str, flooded_subject: str, other: str
) -> None:
    for number in range(5):
        await client.bus.store(other, b"%d" % number)
    async with flooded(air, [flooded_subject], 60_000) as flood:
        await until(lambda: flood.sent > 3000, "a lot was sent", timeout_s=60)
    assert await held(client, stream, other) >= 5

    async def is_bounded() -> bool:
        return await held(client, stream, flooded_subject) <= 256  # one more is there while the oldest goes

    await until(is_bounded, "no more than its own is held", timeout_s=30)

    async def is_too_long() -> bool:
        try:
            await client.bus.store(other, b"x" * 200_000)
        except EdgeAgentsError as error:
            return "size" in str(error)  # what was flooded may still wait to be stored: then nothing is taken
        return False

    await until(is_too_long, "a message is too long for the stream", timeout_s=30)


async def test_what_one_holds_beyond_its_share_goes_once_a_stream_is_half_full(
    gateway: Gateway, client: Client, air: Bus
) -> None:
    """A slow flood, within the ration: here the stream is made small instead."""
    # A guard that knows nothing of earlier floods: what was left of one may have had air cut once more.
    await client.restart_guard()
    await heat_works(client, 1)
    info = await client.bus.js.stream_info(subjects.AUDIT_STREAM)
    whole = info.config.max_bytes
    heat = Audit(client.bus, "heat", "i1")
    keeping = asyncio.create_task(heat.run())
    heat.append("decision", text="kept")
    await heat.drain(30)
    # What the floods before left there would push others' records out of the small stream.
    await client.bus.js.purge_stream(subjects.AUDIT_STREAM, subject="gw.audit.air.*")
    await client.bus.js.update_stream(info.config.evolve(max_bytes=8 << 20))
    guards = await held(client, subjects.AUDIT_STREAM, "gw.audit.guard.*")
    for number in range(70):
        await air.publish(f"gw.audit.air.i{number}", b"x" * 80_000)
        await asyncio.sleep(0.02)

    async def is_trimmed() -> bool:
        not_taken = (await client.state())["notTaken"]
        assert not not_taken, "this flood is within the ration"
        is_small = await held(client, subjects.AUDIT_STREAM, "gw.audit.air.*") * 80_000 < 3 << 20
        return is_small and bool(await client.audit("trimmed"))

    try:
        await until(is_trimmed, "its oldest are gone", timeout_s=30)
        assert await held(client, subjects.AUDIT_STREAM, "gw.audit.heat.*") == 1
        assert await held(client, subjects.AUDIT_STREAM, "gw.audit.guard.*") > guards
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await client.bus.js.update_stream(info.config.evolve(max_bytes=whole))
