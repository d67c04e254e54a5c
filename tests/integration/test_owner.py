"""The owner's word to a guard as a process: it holds at once, over a kill, and reaches a real agent's session."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.model.agent import AgentDefinition
from edgeagents.settings import SiteTime
from services.agent.commands import Commander
from services.agent.perception import Twin
from services.agent.session import WELCOME_AGAIN_S
from tests.contract.waiting import until
from tests.guarded import ANN, Agent, Client, agent_file, bearer


async def order(client: Client, path: str, token: str = ANN, **body: Any) -> httpx.Response:
    """Say something as an approver."""
    return await client.http.post(f"{client.gateway.url}/api/v3/{path}", json=body, headers=bearer(token))


async def audited(client: Client, kind: str, count: int) -> list[dict[str, Any]]:
    """Return the audit records of a kind once there are so many."""

    async def enough() -> list[dict[str, Any]]:
        found = [json.loads(record.body) for record in await client.audit(kind)]
        return found if len(found) >= count else []

    return list(await until(enough, f"{count} records {kind}", timeout_s=20))


async def test_a_pause_holds_at_once_and_over_a_kill_and_ends_with_the_resume(client: Client, air: Agent) -> None:
    assert (await air.do("valve-3", "20")).status == "proven"
    held = (await air.lease("valve-3")).epoch
    assert (await order(client, "pause", scope="all", reason="window cleaning")).status_code == 200
    before = await client.effects("valve-3")
    given = air.command("valve-3", "21", held)
    await air.send(given)
    done = await air.outcome(given)
    assert (done.status, done.reason) == ("refused", "paused by ann: window cleaning")
    assert (await air.lease("valve-3")).reason == "paused by ann: window cleaning"
    await audited(client, "paused", 1)  # which is written behind the order's back: it may not die with the guard
    await client.restart_guard()
    (pause,) = (await client.state())["paused"]
    assert (pause["scope"], pause["by"], pause["reason"]) == ("all", "ann", "window cleaning")
    refused = await air.do("valve-3", "22")
    assert (refused.status, refused.reason) == ("refused", "paused by ann: window cleaning")
    assert await client.effects("valve-3") == before
    assert (await order(client, "resume", scope="all")).json()["paused"] == []
    assert (await air.do("valve-3", "23")).status == "proven"
    assert await client.effects("valve-3") == [*before, ("Setpoint", 23)]
    (paused,), (resumed,) = await audited(client, "paused", 1), await audited(client, "resumed", 1)
    assert (paused["approver"], paused["scope"], resumed["approver"]) == ("ann", "all", "ann")


async def test_what_waits_behind_a_hanging_device_is_refused_after_a_pause_and_a_resume(
    client: Client, air: Agent
) -> None:
    await client.control(device="valve-4", hang=True)
    epoch = (await air.lease("valve-4")).epoch
    sent, waits = air.command("valve-4", "21", epoch), air.command("valve-4", "22", epoch)
    await air.send(sent)

    async def hangs() -> bool:
        return bool((await client.control())["hanging"])

    await until(hangs, "the valve has got the first SET")
    await air.send(waits)

    async def both_wait() -> bool:
        return bool((await client.state())["waiting"] >= 2)

    await until(both_wait, "the second one is in its lane")
    await order(client, "pause", scope="device", name="valve-4", reason="it hangs")
    await order(client, "resume", scope="device", name="valve-4")
    await client.control(device="valve-4", hang=False)
    done = await air.outcome(waits)
    assert (done.status, done.reason[:26]) == ("refused", "paused by ann: it hangs (r")
    assert ("Setpoint", 22) not in await client.effects("valve-4")


@contextlib.asynccontextmanager
async def commander_of(client: Client, name: str) -> AsyncIterator[Commander]:
    """Yield the session of a real agent."""
    definition = AgentDefinition.model_validate(agent_file(name))
    twin = Twin(SiteTime(), set(), 60)
    commander = Commander(client.bus, definition, cast(DeviceCache, None), twin, SiteTime(), "a-run")
    task = asyncio.create_task(commander.session.keep())
    await asyncio.wait_for(commander.session.welcomed.wait(), 30)
    yield commander
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_agent_learns_its_mode_before_it_would_ask_and_the_gate_at_once(
    client: Client, air: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would ask by itself only long after this test: what it learns is what the guard called it for.
    monkeypatch.setattr("services.agent.session.WELCOME_AGAIN_S", 600.0)
    monkeypatch.setattr("services.agent.session.REQUEST_S", 30.0)  # and it asks once for each call
    async with commander_of(client, "heat") as heat:
        await until(lambda: heat.session.mode == "act", "the agent has a session")
        took_ms = []
        for mode in ("observe", "act", "observe", "act"):
            asked_s = time.monotonic()
            assert (await order(client, "mode", name="heat", mode=mode)).status_code == 200
            await until(lambda mode=mode: heat.session.mode == mode, "the agent knows", timeout_s=30)  # type: ignore[misc]
            took_ms.append((time.monotonic() - asked_s) * 1000)
    print(f"mode learned after {took_ms} ms")
    assert min(took_ms) < 1000 * WELCOME_AGAIN_S / 2, took_ms
    epoch = (await air.lease("valve-5")).epoch
    await order(client, "mode", name="air", mode="observe", reason="on holiday")
    command = air.command("valve-5", "21", epoch)
    await air.send(command)
    assert "'air' is in mode observe" in (await air.outcome(command)).reason
    await client.restart_guard()
    assert (await client.state())["modes"]["air"] == "observe"
    assert (await air.welcome()).mode == "observe"
    await order(client, "mode", name="air", mode="act")
    assert (await air.do("valve-5", "22")).status == "proven"
    assert await client.effects("valve-5") == [("Setpoint", 22)]


async def test_an_agent_whose_file_says_observe_may_act_by_order(client: Client) -> None:
    async with client.agent("eye") as eye:
        assert "mode observe" in (await eye.lease("valve-6")).reason
        await order(client, "mode", name="eye", mode="act")
        assert (await eye.welcome()).mode == "act"
        assert (await eye.do("valve-6", "19")).status == "proven"
        await order(client, "mode", name="eye", mode="observe")
        assert "mode observe" in (await eye.lease("valve-6")).reason


async def test_guesses_over_http_are_turned_away_whatever_address_they_claim_and_give_one_record(
    client: Client, air: Agent
) -> None:
    codes = []
    for number in range(200):
        headers = bearer(f"guess-{number:011}") | {"X-Forwarded-For": f"10.0.0.{number}"}
        answer = await client.http.get(f"{client.gateway.url}/api/v3/approval", headers=headers)
        codes.append(answer.status_code)
    assert set(codes) == {401, 429}
    assert codes.count(401) < 12, "five are free, then one after each wait"
    assert (await air.do("valve-7", "20")).status == "proven", "the guard goes on"
    (record,) = await audited(client, "wrong-tokens", 1)
    assert (record["tried"], record["compared"], record["addresses"]) == (200, codes.count(401), ["127.0.0.1"])
