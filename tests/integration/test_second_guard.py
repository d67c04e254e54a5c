"""Two guards on one gateway, each on a volume of its own: one remains, and epochs only grow."""

import asyncio
import shutil

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.model.message import LeaseRecord
from tests.contract.waiting import until
from tests.guarded import Client, Gateway
from tests.services import ServiceProcess


def second(gateway: Gateway, name: str) -> ServiceProcess:
    """Start a guard with a volume and a service key of its own."""
    state = gateway.folder / name
    return gateway.spawn_guard(EDGEX_SERVICE_KEY=name, EDGEAGENTS_GUARD_STATE_DIR=str(state))


async def ended(process: ServiceProcess) -> tuple[int, str]:
    """Return exit code and log of a guard that ends by itself."""
    code = await until(lambda: process.process.poll() is not None, "it ends", timeout_s=30) and process.process.wait()
    return code, process.log_path.read_text()


async def incarnation(client: Client) -> str:
    """Return the run of the guard that began last."""
    last = await client.bus.last(subjects.COMMANDS_STREAM, subjects.guard_starts("gw"))
    assert last is not None
    return wire.decode(LeaseRecord, last.data).incarnation


async def test_a_second_guard_refuses_to_start_while_the_first_answers(gateway: Gateway, client: Client) -> None:
    first, before = await incarnation(client), await client.state()
    code, log = await ended(second(gateway, "app-guard-2"))
    assert code == 1
    assert f"another guard (incarnation {first}) answers: this one does not start" in log
    assert "Traceback" not in log
    async with client.agent("air") as air:
        assert (await air.do("valve-1", "21")).status == "proven", "the first one goes on"
    assert (await client.state())["generation"] == before["generation"]


async def test_a_guard_that_does_not_answer_is_followed_and_ends_when_it_comes_back(
    gateway: Gateway, client: Client
) -> None:
    before = (await client.state())["generation"]
    assert gateway.guard is not None
    silent = client.agent("heat")
    await silent.welcome()
    assert (await silent.lease("valve-4")).granted  # the hung one will want to write down that this one is gone
    hung = gateway.guard.process
    hung.send_signal(19)  # SIGSTOP: it answers nobody
    other = second(gateway, "app-guard-3")
    try:
        url = await asyncio.to_thread(other.ready)

        async def serves() -> int:
            return int((await client.http.get(f"{url}/api/v3/guard")).json()["generation"])

        assert await until(serves, "the second one has a generation", timeout_s=20) > before
        hung.send_signal(18)  # SIGCONT
        code, log = await ended(gateway.guard)
        assert code == 1
        assert f"another guard (incarnation {await incarnation(client)}) began after this one: this one ends" in log
        gateway.guard = None
        assert "Traceback" not in log
        async with client.agent("air") as air:
            assert (await air.do("valve-2", "22")).status == "proven", "the second one goes on"
        assert other.process.poll() is None
    finally:
        other.kill()


async def generation_after(gateway: Gateway, client: Client) -> int:
    """Start the guard, have it prove a command, kill it, and return its generation."""
    await client.start_guard()
    async with client.agent("air") as air:
        done = await air.do("valve-3", "21")
    assert done.status == "proven"
    found = int((await client.state())["generation"])
    assert done.epoch is not None
    assert done.epoch.generation == found
    gateway.kill_guard()
    return found


async def test_epochs_grow_over_each_loss_of_volume_and_streams(gateway: Gateway, client: Client) -> None:
    """Lost, or an old copy brought back: ledger, streams, both, one after the other."""
    gateway.kill_guard()
    state, kept = gateway.folder / "state", gateway.folder / "kept"
    seen = [await generation_after(gateway, client)]
    shutil.copytree(state, kept)
    for lost in ("ledger", "streams", "both", "ledger", "old ledger", "old ledger and streams"):
        if "ledger" in lost or lost == "both":
            shutil.rmtree(state)
        if "old" in lost:
            shutil.copytree(kept, state)
        if "streams" in lost or lost == "both":
            for name in (subjects.COMMANDS_STREAM, subjects.AUDIT_STREAM, subjects.EVENTS_STREAM):
                await client.bus.js.delete_stream(name)
        seen.append(await generation_after(gateway, client))
        assert seen[-1] > max(seen[:-1]), (lost, seen)
    assert await generation_after(gateway, client) == seen[-1], "a plain restart raises nothing"
