"""A guard whose volume is full takes safety commands, says so of all others, and goes on by itself with room again."""

from collections.abc import Iterator

import pytest

from edgeagents.model.message import MAX_VALUE_CHARS
from services.guard.reserve import BALLAST
from tests.contract.waiting import until
from tests.disks import full, need_root, small_disk
from tests.guarded import Agent, Client, Gateway

DEVICE = "valve-9"  # the one that the safety agent may command too


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose guard has a small volume."""
    need_root()
    folder = tmp_path_factory.mktemp("full")
    with small_disk(folder / "state"):
        found = Gateway(folder)
        try:
            yield found
        finally:
            found.stop()


async def crowd_out(client: Client, agent: Agent, device: str) -> str:
    """Send long commands until there is no room for them any more; return the reason."""
    reply = await agent.lease(device)
    for _ in range(200):
        for _ in range(9):
            await agent.send(agent.command(device, "1" * MAX_VALUE_CHARS, reply.epoch))
        last = agent.command(device, "20", reply.epoch)
        await agent.send(last)
        if (await client.state())["volumeFull"]:
            outcome = await agent.outcome(agent.command(device, "20", reply.epoch, id=last.id), timeout_s=60)
            return outcome.reason
    raise AssertionError("the volume never got full")


async def test_on_a_full_volume_only_safety_commands_go_out_also_after_a_restart(
    gateway: Gateway, client: Client, air: Agent
) -> None:
    volume = gateway.folder / "state"
    assert (await air.do("valve-1", "21")).status == "proven"
    async with client.agent("narrow") as narrow:
        with full(volume):
            assert "full: only safety commands are taken; make room on it" in await crowd_out(client, air, "valve-1")
            assert (await client.state())["volumeFull"] is True
            for value in ("12", "13", "14"):
                assert (await narrow.do(DEVICE, value)).status == "proven"
            assert gateway.guard is not None
            gateway.guard.stop()
            gateway.guard = None
            with full(volume, "more"):  # SQLite has dropped its log, and others take that room too
                await client.start_guard()
                assert await _proven(narrow, "15")
                outcome = await air.do("valve-1", "22")
                assert (outcome.status, "only safety commands" in outcome.reason) == ("refused", True)
        await until(lambda: _taken(air), "ordinary commands are taken again", timeout_s=20)
    assert (await client.state())["volumeFull"] is False
    assert not (volume / BALLAST).exists(), "given up at the start on a full volume; the next start makes it anew"


async def _proven(agent: Agent, value: str) -> bool:
    async def is_proven() -> bool:
        return (await agent.do(DEVICE, value)).status == "proven"

    return bool(await until(is_proven, "a safety command is proven", timeout_s=20))


async def _taken(agent: Agent) -> bool:
    return (await agent.do("valve-1", "20")).status == "proven"
