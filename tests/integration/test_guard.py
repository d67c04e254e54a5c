"""The guard as a process, on a real broker, an EdgeX core and a real device service: what gets through, and how."""

import asyncio
import json
import time
from typing import Any

import pytest
import yaml

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.audit import verify
from edgeagents.errors import TooLargeError, UnavailableError
from edgeagents.model.message import Epoch, Heartbeat, LeaseRequest
from tests.contract.waiting import until
from tests.guarded import Agent, Client, Gateway, agent_file, patiently
from tests.services import START_S, ServiceProcess

BRIEF_S = 4.0  # a command's time that shall be over when the guard is back, and not while it has yet to take it in


async def test_a_permitted_command_is_set_proven_told_and_audited(client: Client, air: Agent) -> None:
    done = await air.do("valve-3", "21.5")
    assert (done.status, done.read_back, done.reason) == ("proven", "2.15e+01", "Setpoint reads 21.5")
    assert await client.effects("valve-3") == [("Setpoint", 21.5)]

    async def audited() -> list[dict[str, Any]]:
        bodies = [json.loads(record.body) for record in await client.audit("command")]
        return [body for body in bodies if body["command_id"] == done.command_id]

    (body,) = await until(audited, "it is in the audit", timeout_s=30)
    assert (body["agent"], body["status"], body["epoch"]["revision"]) == ("air", "proven", done.epoch.revision)  # type: ignore[union-attr]
    assert done.epoch is not None
    revision = done.epoch.revision

    async def lease_is_audited() -> bool:
        leases = [json.loads(record.body) for record in await client.audit("lease")]
        return revision in [lease["revision"] for lease in leases]

    await until(lease_is_audited, "its lease is in the audit, too", timeout_s=30)
    assert verify(await client.audit()) == []


async def refusal(agent: Agent, device: str, value: str, epoch: Epoch | None, resource: str, **changes: Any) -> str:
    """Return why a command is refused; nothing takes effect."""
    before = await agent.client.effects(device)
    command = agent.command(device, value, epoch, resource, **changes)
    await agent.send(command)
    done = await agent.outcome(command)
    assert done.status == "refused", done
    assert await agent.client.effects(device) == before
    return done.reason


async def test_without_a_lease_or_under_a_wrong_epoch_nothing_happens(client: Client, air: Agent) -> None:
    assert "nobody holds the lease" in await refusal(air, "valve-4", "21", None, "Setpoint")
    epoch = (await air.lease("valve-4")).epoch
    assert epoch is not None
    for wrong in (
        epoch.model_copy(update={"revision": epoch.revision + 1}),
        epoch.model_copy(update={"revision": epoch.revision - 1}),
        epoch.model_copy(update={"generation": epoch.generation + 1}),
    ):
        assert "is not the lease's epoch" in await refusal(air, "valve-4", "21", wrong, "Setpoint")
    assert "held by air" in await refusal(air, "valve-4", "21", epoch, "Setpoint", incarnation="another-run")


@pytest.mark.parametrize(
    ("value", "resource", "reason"),
    [
        ("31", "Setpoint", "outside the profile's range"),
        ("9", "Setpoint", "outside the owner's range"),
        ("warm", "Setpoint", "is no Float64"),
        ("NaN", "Setpoint", "is no value to set"),
    ],
)
async def test_what_the_owner_forbids_is_refused(air: Agent, value: str, resource: str, reason: str) -> None:
    epoch = (await air.lease("valve-4", resource)).epoch
    assert reason in await refusal(air, "valve-4", value, epoch, resource)


async def test_what_an_agent_has_no_permission_for_it_gets_no_lease_for(client: Client) -> None:
    async with client.agent("narrow") as narrow, client.agent("eye") as eye:
        assert "no permission for valve-4/Setpoint" in (await narrow.lease("valve-4")).reason
        assert "mode observe" in (await eye.lease("valve-4")).reason
        assert (await eye.welcome()).mode == "observe"
        assert (await narrow.do("valve-9", "19")).status == "proven"
        assert "outside the permitted range" in (await narrow.do("valve-9", "21")).reason
        assert "nobody holds the lease" in await refusal(eye, "valve-4", "21", None, "Open")


async def test_anothers_lease_is_of_no_use_and_a_higher_class_takes_over(client: Client, air: Agent) -> None:
    epoch = (await air.lease("valve-5")).epoch
    async with client.agent("heat") as heat:
        assert "held by air" in await refusal(heat, "valve-5", "21", epoch, "Setpoint")
        spoofed = heat.command("valve-5", "21", epoch, incarnation="guess")
        await heat.send(spoofed, by="air")
        assert "held by air" in (await heat.outcome(spoofed, of="air")).reason
        taken = await heat.lease("valve-5")
        assert taken.granted
        assert "held by heat" in await refusal(air, "valve-5", "21", epoch, "Setpoint")
        assert (await heat.do("valve-5", "23")).status == "proven"
    assert await client.effects("valve-5") == [("Setpoint", 23)]


async def test_an_interlock_holds_whatever_is_permitted(client: Client, air: Agent) -> None:
    assert "not known for sure" in (await air.do("valve-1", "true", "Open")).reason
    await client.publish_reading("valve-2", "Open")

    async def opened() -> bool:
        return (await air.do("valve-1", "true", "Open")).status == "proven"

    await until(opened, "the reading has reached the guard, so valve 1 may open", timeout_s=30)
    assert "interlock 'one-open'" in (await air.do("valve-2", "true", "Open")).reason
    assert (await air.do("valve-1", "false", "Open")).status == "proven"
    assert (await air.do("valve-2", "true", "Open")).status == "proven"
    assert "interlock 'one-open'" in (await air.do("valve-1", "true", "Open")).reason


async def test_a_redelivered_or_repeated_command_has_one_effect(client: Client, air: Agent) -> None:
    epoch = (await air.lease("valve-6")).epoch
    command = air.command("valve-6", "21", epoch)
    for _ in range(3):
        await air.send(command)
    await air.send(command.model_copy(update={"value": "29"}))
    assert (await air.outcome(command)).status == "proven"
    assert (await air.do("valve-6", "22")).status == "proven"
    assert await client.effects("valve-6") == [("Setpoint", 21), ("Setpoint", 22)]
    told = [item.command_id for item in await client.outcomes("air")]
    assert told.count(command.id) == 1


async def test_a_command_whose_time_is_over_sets_nothing(client: Client, air: Agent) -> None:
    epoch = (await air.lease("valve-6")).epoch
    before = await client.effects("valve-6")
    command = air.command("valve-6", "25", epoch, ttl_s=0.000001)
    await air.send(command)
    assert (await air.outcome(command)).status == "expired"
    assert await client.effects("valve-6") == before


class TestHuman:
    """Class B and C wait for somebody whose token the guard knows."""

    async def ask(self, air: Agent, value: str) -> str:
        epoch = (await air.lease("valve-7", "Enabled")).epoch
        command = air.command("valve-7", value, epoch, "Enabled")
        await air.send(command)

        async def waits() -> bool:
            assert command.id not in [item.command_id for item in await air.client.outcomes("air")]
            body = (await air.client.approvals()).json()
            return command.id in [item["commandId"] for item in body["approvals"]]

        await until(waits, "it waits for a human", timeout_s=30)
        return command.id

    async def told(self, air: Agent, name: str) -> Any:
        return await air.outcome(air.command("x", "x", None, id=name))

    async def test_approved_it_passes_and_the_approver_is_named(self, client: Client, air: Agent) -> None:
        name = await self.ask(air, "true")
        assert (await client.decide(name, "approve", "token-of-nobody-1")).status_code == 401
        assert (await client.approvals("x")).status_code == 401
        assert await client.effects("valve-7") == []
        assert (await client.decide(name, "approve")).status_code == 200
        done = await self.told(air, name)
        assert (done.status, done.approver) == ("proven", "ann")
        assert (await client.decide(name, "approve")).status_code == 404

        async def audited() -> list[dict[str, Any]]:
            found = [json.loads(record.body) for record in await client.audit("approval")]
            own = [item for item in found if item["command"] == name]
            return own if len(own) >= 2 else []

        record, late = await until(audited, "audited", timeout_s=30)
        assert (record["approver"], record["decision"], record["reason"]) == ("ann", "approve", "I looked")
        assert (late["approver"], "does not wait for approval" in late["refused"]) == ("ann", True)

    async def test_denied_it_is_refused(self, client: Client, air: Agent) -> None:
        before = await client.effects("valve-7")
        name = await self.ask(air, "false")
        assert (await client.decide(name, "deny")).status_code == 200
        done = await self.told(air, name)
        assert (done.status, done.reason, done.approver) == ("refused", "denied by ann: I looked", "ann")
        assert await client.effects("valve-7") == before

    async def test_not_decided_on_in_time_it_expires(self, client: Client, air: Agent) -> None:
        done = await air.do("valve-7", "true", "Brief")
        assert done.status == "expired"
        assert done.reason.startswith("nobody approved it in time")
        assert done.command_id not in [item["commandId"] for item in (await client.approvals()).json()["approvals"]]

    async def test_what_waited_when_the_guard_was_killed_expires(
        self, gateway: Gateway, client: Client, air: Agent
    ) -> None:
        name = await self.ask(air, "true")
        before = await client.effects("valve-7")
        await client.restart_guard()
        assert (await self.told(air, name)).status == "expired"
        assert (await client.decide(name, "approve")).status_code == 404
        assert await client.effects("valve-7") == before


async def test_a_stalled_set_that_is_carried_out_in_time_is_found_and_the_next_one_goes_out_after_it(
    client: Client, air: Agent
) -> None:
    assert (await air.do("valve-8", "18.5")).status == "proven"
    await client.control(device="valve-8", hang=True)
    epoch = (await air.lease("valve-8")).epoch
    first, second = air.command("valve-8", "21", epoch), air.command("valve-8", "22", epoch)
    await air.send(first)

    async def is_alone() -> bool:
        return "got no definite answer" in (await client.state())["blocked"].get("valve-8", "")

    await until(is_alone, "core-command gave up, the valve is in quarantine", timeout_s=30)
    await air.send(second)
    await client.control(device="valve-8", hang=False)
    assert (await air.outcome(first)).status == "proven"
    assert (await air.outcome(second)).status == "proven"
    assert await client.effects("valve-8") == [("Setpoint", 18.5), ("Setpoint", 21), ("Setpoint", 22)]
    assert (await client.state())["blocked"] == {}, "quarantine ended before its time"


async def test_a_straggler_from_long_ago_is_found_and_corrected_also_after_a_restart(
    gateway: Gateway, client: Client, air: Agent
) -> None:
    """The device's service sits on a SET; core-command said 503, the guard gave it up and carried out another one."""
    device = "valve-4"  # its quarantine is short: here it is waited for
    before = await client.effects(device)
    await client.control(device=device, hang="once")
    epoch = (await air.lease(device)).epoch

    async def given_up() -> Any:
        # Its time is over before quarantine is, 3 s + 1 s after the SET: it may not be set again.
        stalled = air.command(device, "23", epoch, ttl_s=3.5)
        await air.send(stalled)
        done = await air.outcome(stalled)
        return None if done.status == "expired" else done  # expired: it did not come to the SET, none has stalled

    done = await until(given_up, "a SET has stalled", timeout_s=60)
    assert (done.status, "reads agree" in done.reason) == ("failed", True)
    newest = await air.do(device, "24")
    assert newest.status == "proven"
    await client.restart_guard()
    await client.control(device=device, hang=False)

    async def corrected() -> list[Any]:
        found = await client.effects(device)
        return found if len(found) == len(before) + 3 else []

    effects = await until(corrected, "the straggler took effect and was corrected", timeout_s=60)
    assert effects[len(before) :] == [("Setpoint", 24), ("Setpoint", 23), ("Setpoint", 24)]

    async def corrections() -> list[dict[str, Any]]:
        return [json.loads(record.body) for record in await client.audit("correction")]

    (record,) = await until(corrections, "it is in the audit", timeout_s=30)
    assert (record["value"], record["straggler"]) == ("2.4e+01", "2.3e+01")
    assert (await client.state())["overrides"] == []


async def test_a_device_that_only_says_yes_is_found_out(client: Client, air: Agent) -> None:
    await client.control(device="valve-7", deaf=True)
    done = await air.do("valve-7", "true", "Open")  # its proof waits for 2 s, all others' for 10 s
    await client.control(device="valve-7", deaf=False)
    assert (done.status, done.reason) == ("failed", "not proven in 2 s: Open reads False, wanted True")


async def test_killed_between_intent_and_answer_it_finds_out_and_sets_nothing_twice(
    gateway: Gateway, client: Client, air: Agent
) -> None:
    await client.control(device="valve-9", hang=True)
    epoch = (await air.lease("valve-9")).epoch
    before = await client.effects("valve-9")
    command = air.command("valve-9", "24", epoch)
    await air.send(command)

    async def hangs() -> bool:
        return bool((await client.control())["hanging"])

    await until(hangs, "the valve has got the SET", timeout_s=30)
    gateway.kill_guard()
    await client.control(device="valve-9", hang=False)
    await client.start_guard()
    assert (await air.outcome(command)).status == "proven"
    assert await client.effects("valve-9") == [*before, ("Setpoint", 24)]
    assert [item.command_id for item in await client.outcomes("air")].count(command.id) == 1
    assert (await air.do("valve-9", "25")).status == "proven", "and goes on"


async def test_leases_survive_a_restart_of_the_guard(gateway: Gateway, client: Client, air: Agent) -> None:
    reply = await air.lease("valve-6")
    await client.restart_guard()
    assert await air.lease("valve-6") == reply
    command = air.command("valve-6", "27", reply.epoch)
    await air.send(command)
    assert (await air.outcome(command)).status == "proven"


async def test_what_was_sent_while_the_guard_was_away_expires(gateway: Gateway, client: Client, air: Agent) -> None:
    epoch = (await air.lease("valve-6")).epoch
    before = await client.effects("valve-6")
    gateway.kill_guard()
    command = air.command("valve-6", "28", epoch)
    await air.send(command)
    await client.start_guard()
    assert (await air.outcome(command)).status == "expired"
    assert await client.effects("valve-6") == before


async def test_what_waited_for_its_device_when_the_guard_was_killed_goes_out_once_and_never_late(
    gateway: Gateway, client: Client, air: Agent
) -> None:
    await client.control(device="valve-9", hang=True)
    epoch = (await air.lease("valve-9")).epoch
    before = await client.effects("valve-9")
    first, waits = air.command("valve-9", "18", epoch), air.command("valve-9", "19", epoch)
    brief = air.command("valve-9", "20", epoch, ttl_s=BRIEF_S)
    for command in (first, waits, brief):
        await air.send(command)
    sent_s = time.monotonic()

    async def all_waiting() -> bool:
        return bool((await client.control())["hanging"]) and (await client.state())["waiting"] == 3

    await until(all_waiting, "the valve has got one SET, two wait", timeout_s=30)
    gateway.kill_guard()
    await client.control(device="valve-9", hang=False)
    await asyncio.sleep(max(0.0, sent_s + BRIEF_S - time.monotonic()))  # the brief one's time is over
    await client.start_guard()
    assert [(await air.outcome(command)).status for command in (first, waits, brief)] == ["proven", "proven", "expired"]
    assert await client.effects("valve-9") == [*before, ("Setpoint", 18), ("Setpoint", 19)]


async def test_malformed_commands_are_set_aside_and_the_guard_goes_on(client: Client, air: Agent) -> None:
    subject = subjects.command("gw", "valve-6", "air")
    await client.bus.store(subject, b"\xff no command", {})
    await client.bus.store(subject, b'{"id": 5}', {"Content-Type": "application/json"})
    await client.bus.store(subject, wire.encode(air.command("valve-5", "21", None)), {})
    assert (await air.do("valve-6", "21")).status == "proven"

    async def set_aside() -> list[str]:
        async def read() -> list[str]:
            found = client.bus.read(subjects.DEAD_LETTERS_STREAM, ["gw.dead-letters.app-guard"], name="check-dead")
            return [message.headers.get("cause", "") async for message in found]

        found = await patiently(read)
        return found if len(found) >= 3 else []

    found = await until(set_aside, "three dead letters", timeout_s=30)
    assert sorted(found) == ["not-decodable", "not-decodable", "wrong-subject"]

    async def audited() -> list[str]:
        causes = [json.loads(record.body)["cause"] for record in await client.audit("rejected")]
        return causes if len(causes) >= 3 else []

    causes = await until(audited, "they are in the audit", timeout_s=30)
    assert sorted(causes) == ["not-decodable", "not-decodable", "wrong-subject"]


async def test_a_hostile_agent_stops_nobody(client: Client, air: Agent) -> None:
    """Valid credentials, hostile code: names of runs, requests, devices, long texts and ids of others, at once."""
    for number in range(1500):
        evil = f"run-{number}"
        await client.bus.publish(subjects.session("gw", "heat"), wire.encode(Heartbeat(incarnation=evil)))
        request = LeaseRequest(incarnation=evil, device=f"made-up-{number}", resource="Setpoint")
        await client.bus.publish(subjects.lease("gw", "heat"), wire.encode(request), reply="edgex.core.command.x")
    for number in range(60):
        hostile = air.command("x" * 500, "9" * 16_000, None, "\x01" * 500, because="\x01" * 2000, incarnation="run-1")
        await air.send(hostile.model_copy(update={"device": f"{number}" + "x" * 490}), by="heat")
    async with asyncio.timeout(60):
        assert (await air.do("valve-6", "22")).status == "proven"
    state = await client.state()
    assert len([name for name in state["sessions"] if name == "heat"]) <= 8
    assert "air" in state["sessions"]


async def test_a_lost_volume_raises_the_generation_and_epochs_still_grow(
    gateway: Gateway, client: Client, air: Agent
) -> None:
    before, old = (await client.state())["generation"], (await air.lease("valve-6")).epoch
    gateway.kill_guard()
    gateway.lose_volume()
    await client.start_guard()
    assert (await client.state())["generation"] == before + 1
    new = (await air.lease("valve-6")).epoch
    assert old is not None
    assert new is not None
    assert old < new
    assert new.generation == before + 1
    assert "is not the lease's epoch" in await refusal(air, "valve-6", "21", old, "Setpoint")
    assert (await air.do("valve-6", "21")).status == "proven"


def ending(process: ServiceProcess) -> tuple[int, str]:
    """Return exit code and log of a guard that does not stay."""
    code = process.process.wait(START_S)
    return code, process.log_path.read_text()


async def test_a_second_guard_on_the_same_volume_ends_and_says_why(gateway: Gateway, client: Client) -> None:
    code, log = ending(gateway.spawn_guard(EDGEX_SERVICE_KEY="app-guard-2"))
    assert code == 1
    assert "another guard runs on it: one guard per gateway" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "site.yaml",
            "resources: [{profile: Valve, resource: Setpoint, risk: A}]\n",
            "resources[0].risk: unknown field",
        ),
        ("agents/air.yaml", yaml.safe_dump(agent_file("air", mode="play")), "mode: Input should be 'observe' or 'act'"),
    ],
)
async def test_a_wrong_file_keeps_the_guard_from_starting_and_is_named(
    gateway: Gateway, name: str, text: str, says: str, tmp_path: Any
) -> None:
    (tmp_path / "agents").mkdir()
    site = tmp_path / "site.yaml"
    site.write_text(gateway.site_file.read_text())
    (tmp_path / name).write_text(text)
    code, log = ending(gateway.spawn_guard(
        EDGEX_SERVICE_KEY="app-guard-3", EDGEAGENTS_GUARD_SITE_FILE=str(site),
        EDGEAGENTS_GUARD_AGENTS_DIR=str(tmp_path / "agents"), EDGEAGENTS_GUARD_STATE_DIR=str(tmp_path / "state"),
    ))  # fmt: skip
    assert code == 1
    assert f"{tmp_path / name}: {says}" in log
    assert "Traceback" not in log


async def test_stopped_in_order_it_ends_with_zero_and_its_chains_are_whole(gateway: Gateway, client: Client) -> None:
    assert gateway.guard is not None
    assert gateway.guard.stop() == 0
    gateway.guard = None
    records = await client.audit()
    assert verify(records) == []
    assert len({record.incarnation for record in records}) >= 5


async def test_a_command_of_any_size_is_refused_by_the_broker_not_held_by_the_guard(client: Client, air: Agent) -> None:
    subject = subjects.command("gw", "valve-3", "air")
    with pytest.raises((UnavailableError, TooLargeError), match="size"):
        await client.bus.store(subject, b"x" * (200 << 10))
    assert (await air.do("valve-3", "22")).status == "proven"
