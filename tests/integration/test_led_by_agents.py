"""Real agents without a coordinator: one leads, the other does it, the guard proves it; each part is a process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import yaml

from edgeagents.cli import led
from edgeagents.cli.history import History
from edgeagents.cli.source import Broker
from edgeagents.cli.why import command_lines, task_lines
from edgeagents.errors import ConflictError
from edgeagents.model.message import Cause
from edgeagents.model.task import LedRef, led_cause_of
from tests.contract.waiting import until
from tests.guarded import Beside, Client, Gateway, agent_file, client_of, history_of

VALVE = {"skill": "set", "deviceName": "valve-3", "resourceName": "Setpoint", "value": 21.5, "deadlineS": 30}


class Leaderless(Beside):
    """A guarded gateway with two agents that may lead, `lea` and, cheaper, `swift`; no coordinator."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        for name, cost_s in (("lea", 2.0), ("swift", 0.1)):
            written = agent_file(name, skills=[{"name": "set", "cost_s": cost_s}], ttl=10, leads=True)
            (gateway.folder / "agents" / f"{name}.yaml").write_text(yaml.safe_dump(written))
        self.broker = Broker(gateway.nats.url, "gw")
        self.lea = ""

    def start(self) -> None:
        """Start both agents."""
        for name in ("lea", "swift"):
            self.act(name)
        self.lea = self.processes["app-agent-lea"].ready()


@pytest.fixture(scope="module")
def leaderless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaderless]:
    """One gateway for all tests of this file."""
    with Leaderless.on(tmp_path_factory.mktemp("leaderless")) as found:
        yield found


@pytest.fixture
async def client(leaderless: Leaderless) -> AsyncIterator[Client]:
    """Return the owner's connection, once both agents are there and know that no coordinator is."""
    async with client_of(leaderless.gateway) as found:
        if not leaderless.processes:
            leaderless.start()

            async def know() -> bool:
                urls = [process.ready() for process in leaderless.processes.values()]
                said = [(await found.http.get(f"{url}/api/v3/leading")).json() for url in urls]
                return all((item["coordinator"], item["agents"]) == ("away", 2) for item in said)

            await until(know, "both know who is there", timeout_s=60)
        yield found


async def ended(client: Client, url: str, task: str) -> dict[str, Any]:
    """Return a task once it has ended."""
    found: dict[str, Any] = {}

    async def has_ended() -> bool:
        nonlocal found
        found = (await client.http.get(f"{url}/api/v3/task/id/{task}")).json()["task"]
        return found["state"] in ("done", "failed", "cancelled")

    await until(has_ended, f"task {task} ends", timeout_s=60)
    return found


async def history_with(client: Client, task: str) -> History:
    """Return what the audit knows, once it has a task's award, work and end."""

    async def whole() -> History | None:
        history = await history_of(client.bus)
        kinds = {fact.record.kind for fact in history.tasks[task]}
        return history if {"award", "task", "task-work"} <= kinds else None

    found: History = await until(whole, f"the audit knows all of {task}", timeout_s=60)
    return found


async def bid_for_by_both(
    leaderless: Leaderless, client: Client, task: str, *devices: str, hang: bool = False
) -> tuple[str, str]:
    """Give lea tasks over devices, one after the other, until both have bid in time; return the task and its device.

    A bid has one second: on a machine that stood still the cheaper one may have missed it, and lea does it itself. With
    `hang` the device hangs, and has been asked.
    """

    async def hangs() -> bool:
        return bool((await client.control())["hanging"])

    for number, device in enumerate(devices):
        name = f"{task}-{number}"
        if hang:
            await client.control(device=device, hang=True)
        body = {**VALVE, "id": name, "deviceName": device}
        answer = await client.http.post(f"{leaderless.lea}/api/v3/task", json={"task": body})
        assert (answer.status_code, answer.json()["id"]) == (202, name)
        if hang:
            await until(hangs, "the valve was asked", timeout_s=60)
            found = (await client.http.get(f"{leaderless.lea}/api/v3/task/id/{name}")).json()["task"]
        else:
            found = await ended(client, leaderless.lea, name)
        if set(found["awards"][0]["bids"]) == {"lea", "swift"}:
            return name, device
        if hang:
            await client.control(device=device, hang=False)
            await ended(client, leaderless.lea, name)
    raise AssertionError(f"one of both has bid for none of {len(devices)} tasks in time")


async def test_given_by_http_the_cheaper_agent_does_it_the_guard_proves_it_and_the_audit_says_who_led(
    leaderless: Leaderless, client: Client
) -> None:
    warm, device = await bid_for_by_both(leaderless, client, "warm", "valve-3", "valve-1", "valve-2")
    task = await ended(client, leaderless.lea, warm)
    assert (task["state"], task["winner"], task["reason"]) == ("done", "swift", "proven: Setpoint reads 21.5")
    assert await client.effects(device) == [("Setpoint", 21.5)]
    history = await history_with(client, warm)
    told = dict(task_lines(history, warm))
    assert (told["led by"], told["runner-up"]) == ("lea", "lea")
    assert told["outcome"].startswith("proven")
    assert "done" in told["end"]
    assert dict(command_lines(history, told["command"]))["task"] == f"{warm}, led by lea: no coordinator was there"


async def test_given_by_nats_twice_it_is_one_task_and_what_needs_a_yes_is_refused(
    leaderless: Leaderless, client: Client
) -> None:
    task = VALVE | {"id": "again", "deviceName": "valve-4"}
    first = await asyncio.to_thread(led.ask, leaderless.broker, "lea", "submit", task)
    second = await asyncio.to_thread(led.ask, leaderless.broker, "lea", "submit", task)
    assert (first["statusCode"], second["statusCode"]) == (202, 200)
    assert (await ended(client, leaderless.lea, "again"))["state"] == "done"
    assert await client.effects("valve-4") == [("Setpoint", 21.5)]
    for resource, words in (("Enabled", "class C"), ("Brief", "class B"), ("Open", "a step")):
        refused = await client.http.post(
            f"{leaderless.lea}/api/v3/task", json=VALVE | {"resourceName": resource, "value": True}
        )
        assert refused.status_code == 403, refused.text
        assert words in refused.json()["message"]


async def test_the_guard_refuses_what_an_agent_commands_in_a_leaders_name_beyond_class_a(
    leaderless: Leaderless, client: Client
) -> None:
    async with client.agent("air") as air:
        for leader, resource, words in (("lea", "Enabled", "class C"), ("lea", "Brief", "class B"), ("air", "Setpoint",
                                        "may lead no tasks")):  # fmt: skip
            cause = led_cause_of(LedRef(leader, "forged", 1, 1))
            done = await air.do("valve-5", "25" if resource == "Setpoint" else "true", resource, cause=cause)
            assert (done.status, words in done.reason) == ("refused", True), done.reason
        assert (await air.do("valve-5", "25", cause=Cause(stream="edgex-events", sequence=1))).status == "proven"
    assert await client.effects("valve-5") == [("Setpoint", 25.0)]
    assert (await client.approvals()).json().get("approvals", []) == []


async def test_a_coordinator_that_comes_back_gets_what_is_new_and_knows_nothing_of_what_was_led(
    leaderless: Leaderless, client: Client
) -> None:
    mid, device = await bid_for_by_both(leaderless, client, "mid", "valve-6", "valve-1", "valve-2", hang=True)
    leaderless.coordinate()

    async def is_refused() -> bool:
        said = (await client.http.get(f"{leaderless.lea}/api/v3/leading")).json()
        return bool(said["coordinator"] == "there")

    await until(is_refused, "lea hears the coordinator", timeout_s=60)
    with pytest.raises(ConflictError, match="give it to it"):
        await asyncio.to_thread(led.ask, leaderless.broker, "lea", "submit", VALVE | {"id": "new"})
    before = await client.effects(device)
    await client.control(device=device, hang=False)
    assert (await ended(client, leaderless.lea, mid))["winner"] == "swift"
    assert len(await client.effects(device)) <= len(before) + 1
    await until(lambda: _serves(client, leaderless.url), "the coordinator serves", timeout_s=60)
    assert (await client.http.get(f"{leaderless.url}/api/v3/task/id/{mid}")).status_code == 404
    new = await client.http.post(f"{leaderless.url}/api/v3/task", json=VALVE | {"id": "new", "deviceName": "valve-7"})
    assert new.status_code == 202
    assert (await ended(client, leaderless.url, "new"))["state"] == "done"
    assert await client.effects("valve-7") == [("Setpoint", 21.5)]


async def test_a_leader_that_is_killed_leaves_one_effect_and_another_one_leads_on(
    leaderless: Leaderless, client: Client
) -> None:
    leaderless.processes.pop("app-coordinator").kill()
    swift = leaderless.processes["app-agent-swift"].ready()
    for url in (leaderless.lea, swift):
        await until(lambda url=url: _is_away(client, url), "the coordinator is gone for good", timeout_s=60)
    told = {name: await of_swift(client, name) for name in ("valve-8", "valve-1", "valve-2")}
    _, device = await bid_for_by_both(leaderless, client, "last", *told, hang=True)
    before = await client.effects(device)
    leaderless.processes.pop("app-agent-lea").kill()
    await client.control(device=device, hang=False)
    given = await client.http.post(f"{swift}/api/v3/task", json=VALVE | {"id": "next", "deviceName": "valve-9",
                                                                         "value": 19})  # fmt: skip
    assert given.status_code == 202
    next_one = await ended(client, swift, "next")
    assert (next_one["state"], next_one["winner"]) == ("done", "swift")
    assert await client.effects("valve-9") == [("Setpoint", 19.0)]

    async def has_ended() -> bool:
        return await of_swift(client, device) > told[device]

    await until(has_ended, "what was taken has its outcome, though nobody leads it any more", timeout_s=60)
    assert await of_swift(client, device) == told[device] + 1
    assert len(await client.effects(device)) <= len(before) + 1


async def of_swift(client: Client, device: str) -> int:
    """Return how many commands of swift to a device have ended."""
    return len([item for item in await client.outcomes("swift") if item.device == device])


async def _is_away(client: Client, url: str) -> bool:
    return bool((await client.http.get(f"{url}/api/v3/leading")).json()["coordinator"] == "away")


async def _serves(client: Client, url: str) -> bool:
    try:
        said = (await client.http.get(f"{url}/api/v3/coordinator")).json()
    except (httpx.HTTPError, ValueError):
        return False
    return bool(said.get("isServing")) and said["agents"] == 2
