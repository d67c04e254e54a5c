"""The guard's promises one by one, each by name, as processes on a real broker: whatever happens around it."""

import asyncio
import contextlib
import json
import signal
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagents.errors import UnavailableError
from edgeagents.model.message import Command, CommandId
from services.coordinator.holders import Holders
from tests.contract.waiting import until
from tests.faults.machine import Share
from tests.guarded import OWNER_TOKEN, Agent, Client, Gateway, bearer

# --- the owner wins ------------------------------------------------------------------------------


async def by_rest(client: Client, device: str, value: float) -> None:
    url = f"{client.gateway.core.urls['command']}/api/v3/device/name/{device}/Setpoint"

    async def taken() -> bool:  # core-command waits for a device service for 1 s
        answer = await client.http.put(url, json={"Setpoint": str(value)}, headers=bearer(OWNER_TOKEN))
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    await until(taken, "core-command has set it")


async def by_bus(client: Client, device: str, value: float) -> None:
    envelope = {
        "apiVersion": "v3", "receivedTopic": "", "correlationID": str(uuid.uuid4()), "requestID": str(uuid.uuid4()),
        "errorCode": 0, "payload": {"Setpoint": str(value)}, "contentType": "application/json",
    }  # fmt: skip
    subject = f"edgex.core.command.request.{device}.Setpoint.set"
    await client.bus.publish(subject, json.dumps(envelope).encode())


async def by_hand(client: Client, device: str, value: float) -> None:
    await client.control(device=device, hand=value)
    await client.publish_reading(device, "Setpoint")  # its next automatic event


@pytest.mark.parametrize(("way", "device"), [(by_rest, "valve-1"), (by_bus, "valve-2"), (by_hand, "valve-3")])
async def test_a_change_from_outside_is_recognised_within_two_seconds_and_agents_stand_back(
    gateway: Gateway, client: Client, air: Agent, way: Any, device: str
) -> None:
    assert (await air.do(device, "21")).status == "proven"
    epoch = (await air.lease(device)).epoch
    share, changed_s = Share(), time.time()  # site time is wall time here
    await way(client, device, 15.5)

    async def recognised() -> list[dict[str, Any]]:
        return [item for item in (await client.state())["overrides"] if item["deviceName"] == device]

    (shown,) = await until(recognised, "it is recognised")
    assert shown["sinceSite"] - changed_s < 2.0 / share.now()  # on a machine of its own
    assert (shown["resourceName"], shown["value"]) == ("Setpoint", "15.5")
    under_old_lease = air.command(device, "22", epoch)
    await air.send(under_old_lease)
    assert "was set by hand to 15.5" in (await air.outcome(under_old_lease)).reason
    asked = await air.lease(device)
    assert (asked.granted, "was set by hand to 15.5" in asked.reason) == (False, True)
    await client.restart_guard()
    assert "was set by hand to 15.5" in (await air.lease(device)).reason, "also after a restart"
    assert (await client.effects(device))[-1] != ("Setpoint", 22)


async def test_agents_come_back_when_the_owners_time_is_over(client: Client, air: Agent) -> None:
    device = "valve-9"
    assert (await air.do(device, "21")).status == "proven"
    await by_rest(client, device, 15.5)

    async def audited(kind: str) -> bool:
        return bool(await client.audit(kind))

    await until(lambda: audited("override"), "it is written down", timeout_s=10)
    await until(lambda: audited("override-over"), "the owner's time is over", timeout_s=20)
    assert (await air.do(device, "22")).status == "proven"


# --- once, in order, under one lease ---------------------------------------------------------------


async def test_a_redelivered_toggle_happens_once_over_a_crash_of_the_guard(
    gateway: Gateway, client: Client, air: Agent
) -> None:
    """`Open` of a valve is a step: its owner did not say that setting it twice is harmless."""
    device = "valve-4"
    epoch = (await air.lease(device, "Open")).epoch
    await client.publish_reading(device, "Open")
    toggle = air.command(device, "true", epoch, "Open")
    await air.send(toggle)
    assert (await air.outcome(toggle)).status == "proven"
    await air.send(toggle)
    gateway.kill_guard()
    await air.send(toggle)  # an agent that got its event again derives the same id
    await client.start_guard()
    await air.send(toggle)
    assert (await air.do(device, "20")).status == "proven"
    assert await client.effects(device) == [("Open", True), ("Setpoint", 20)]
    assert [item.command_id for item in await client.outcomes("air")].count(toggle.id) == 1


async def test_an_agent_that_takes_anothers_message_id_takes_nothing_from_it(client: Client, air: Agent) -> None:
    device, name = "valve-5", CommandId("the-id-of-air-0001")
    epoch = (await air.lease(device)).epoch
    async with client.agent("heat") as heat:
        stolen = heat.command(device, "29", epoch, id=name)
        await heat.send(stolen)
        mine = air.command(device, "19", epoch, id=name)
        await air.send(mine)
        assert (await air.outcome(mine)).status == "proven"
        assert (await heat.outcome(stolen)).status == "refused"
    assert await client.effects(device) == [("Setpoint", 19)]


async def test_what_stands_before_a_change_of_lease_finishes_under_the_old_one_and_nothing_after_it(
    client: Client, air: Agent
) -> None:
    device = "valve-6"
    old = (await air.lease(device)).epoch
    async with client.agent("heat") as heat:
        before = air.command(device, "20", old)
        await air.send(before)
        new = (await heat.lease(device)).epoch  # a higher class: its record stands between the two
        after = air.command(device, "21", old)
        await air.send(after)
        taken = heat.command(device, "22", new)
        await heat.send(taken)
        assert (await air.outcome(before)).status == "proven"
        assert "is held by heat" in (await air.outcome(after)).reason
        assert (await heat.outcome(taken)).status == "proven"
    assert old is not None
    assert new is not None
    assert old < new
    assert await client.effects(device) == [("Setpoint", 20), ("Setpoint", 22)]


async def test_of_two_green_lights_asked_for_at_once_one_is_refused(client: Client, air: Agent) -> None:
    """`valve-1` and `valve-2` may not be open together; they share a lane, and two agents ask in the same moment."""
    for device in ("valve-1", "valve-2"):
        await client.publish_reading(device, "Open")
    guard = Holders(client.bus, "test")

    async def both_known() -> bool:
        """Readings go through the broker to the guard, and it locks what it knows too little about."""
        with contextlib.suppress(UnavailableError):
            held = [await guard.of(device, "Open", ["true"]) for device in ("valve-1", "valve-2")]
            return all(one.judged and not one.locked for one in held)
        return False

    await until(both_known, "the guard knows that both are shut")
    before = {device: await client.effects(device) for device in ("valve-1", "valve-2")}
    async with client.agent("heat") as heat:
        one, other = await asyncio.gather(air.do("valve-1", "true", "Open"), heat.do("valve-2", "true", "Open"))
    assert sorted((one.status, other.status)) == ["proven", "refused"]
    refused = one if one.status == "refused" else other
    assert "interlock 'one-open'" in refused.reason
    new = [effect for device in before for effect in (await client.effects(device))[len(before[device]) :]]
    assert new == [("Open", True)]


async def given_in_time(air: Agent, give: Callable[[], Command], holds: Callable[[], Awaitable[bool]]) -> Command:
    """Return the command by which something came to hold; one whose time was over before is given anew."""
    command = give()
    await air.send(command)

    async def has_come() -> bool:
        nonlocal command
        if await holds():
            return True
        ended = {item.command_id: item.status for item in await air.client.outcomes(air.name)}
        if ended.get(command.id) == "expired":
            command = give()
            await air.send(command)
        return False

    await until(has_come, "a command is under way")
    return command


async def test_a_guard_paused_between_its_last_check_and_the_set_does_no_harm_to_the_one_started_meanwhile(
    gateway: Gateway, client: Client, air: Agent, tmp_path: Path
) -> None:
    device = "valve-4"
    assert (await air.do(device, "20")).status == "proven"
    gateway.kill_guard()
    gateway.guard = gateway.spawn_guard(FAULTS_FOLDER=str(tmp_path))
    await client.start_guard()
    (tmp_path / "armed").write_text("stop adapters.edgex:CommandClient.set:call:before 1")
    epoch = (await air.lease(device)).epoch

    async def stands_still() -> bool:
        return not (tmp_path / "armed").exists()

    # All is checked, the intent is on disk, the request is not written yet.
    paused = await given_in_time(air, lambda: air.command(device, "28", epoch, ttl_s=3.0), stands_still)
    over_s = time.monotonic() + paused.ttl_s
    second = gateway.spawn_guard(EDGEX_SERVICE_KEY="app-guard-2")
    assert second.process.wait(20) == 1
    assert "another guard runs on it: one guard per gateway" in second.log_path.read_text()
    await asyncio.sleep(over_s + 0.2 - time.monotonic())  # the command's time is over, however soon the second one was
    gateway.guard.process.send_signal(signal.SIGCONT)
    done = await air.outcome(paused)
    assert (done.status, done.reason) == ("expired", "deadline passed before it could be sent")
    assert (await client.effects(device))[-1] == ("Setpoint", 20)
    assert (await air.do(device, "21")).status == "proven"
    await client.restart_guard()


async def test_a_device_that_answers_after_the_deadline_is_marked_and_nothing_else_goes_out_late(
    client: Client, air: Agent
) -> None:
    device = "valve-7"
    assert (await air.do(device, "20")).status == "proven"
    await client.control(device=device, hang=True)
    epoch = (await air.lease(device)).epoch

    async def hangs() -> bool:
        return bool((await client.control())["hanging"])

    late = await given_in_time(air, lambda: air.command(device, "23", epoch, ttl_s=2.0), hangs)
    waiting = air.command(device, "24", epoch, ttl_s=2.0)
    await air.send(waiting)
    assert (await air.outcome(waiting)).status == "expired"
    assert (await air.outcome(late)).status == "uncertain", "it could not even be read"
    await client.control(device=device, hang=False)

    async def free() -> bool:
        return device not in (await client.state())["blocked"]

    await until(free, "two reads agree")
    assert (await air.do(device, "25")).status == "proven"
    assert await client.effects(device) == [("Setpoint", 20), ("Setpoint", 23), ("Setpoint", 25)]
