"""Tasks done by real agents: coordinator, guard, agents and valves, each a process; the guard proves what was done."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import yaml

from edgeagents.cli.history import History
from edgeagents.cli.why import task_lines
from tests.contract.waiting import until
from tests.guarded import Beside, Client, Gateway, agent_file, client_of, history_of

SKILLS = [{"name": "warm", "set": {"device": "{device}", "resource": "Setpoint", "value": "{degrees}"}, "cost_s": 0.2}]


class Working(Beside):
    """A guarded gateway with a coordinator and two real agents that can do the same, at different costs."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        for name, cost_s in (("swift", 0.1), ("steady", 2.0)):
            written = agent_file(name, skills=[{"name": "set", "cost_s": cost_s}, *SKILLS], ttl=10)
            (gateway.folder / "agents" / f"{name}.yaml").write_text(yaml.safe_dump(written))

    def start(self) -> None:
        """Start coordinator and agents, the guard runs."""
        # Bidding is over once all have answered: the time is for a machine that stands still, and who is late loses.
        self.coordinate(EDGEAGENTS_COORDINATOR_BID_S="20", EDGEAGENTS_COORDINATOR_TAKE_S="20")
        for name in ("swift", "steady"):
            self.act(name)


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Working]:
    """One gateway for all tests of this file."""
    with Working.on(tmp_path_factory.mktemp("working")) as found:
        yield found


@pytest.fixture
async def client(working: Working) -> AsyncIterator[Client]:
    """Return the owner's connection, once the agents are there."""
    async with client_of(working.gateway) as found:
        if not working.processes:
            working.start()

        async def all_there() -> bool:
            try:
                answer = (await found.http.get(f"{working.url}/api/v3/roster")).json()
            except (httpx.HTTPError, ValueError):
                return False
            return {item["agent"] for item in answer["agents"]} == {"swift", "steady"}

        await until(all_there, "both agents are there", timeout_s=60)
        yield found


async def given(client: Client, url: str, **task: Any) -> dict[str, Any]:
    """Give a task and return it once it has ended."""
    answer = await client.http.post(f"{url}/api/v3/task", json={"deadlineS": 30, **task})
    assert answer.status_code == 202, answer.text
    name, found = answer.json()["id"], dict[str, Any]()

    async def has_ended() -> bool:
        nonlocal found
        with contextlib.suppress(httpx.HTTPError):
            found = (await client.http.get(f"{url}/api/v3/task/id/{name}")).json()["task"]
        return found.get("state") in ("done", "failed", "cancelled")

    await until(has_ended, f"task {name} ends", timeout_s=45)
    return found


async def test_the_better_agent_does_it_the_guard_proves_it_and_the_audit_says_why(
    working: Working, client: Client
) -> None:
    task = await given(client, working.url, id="warm-3", skill="set", deviceName="valve-3", resourceName="Setpoint",
                       value=21.5)  # fmt: skip
    assert (task["state"], task["winner"], task["reason"]) == ("done", "swift", "proven: Setpoint reads 21.5")
    assert await client.effects("valve-3") == [("Setpoint", 21.5)]

    async def written_down() -> History | None:
        history = await history_of(client.bus)
        kinds = {fact.record.kind for fact in history.tasks["warm-3"]}
        return history if {"award", "task", "task-work"} <= kinds else None

    history = await until(written_down, "the audit has all of it")
    told = dict(task_lines(history, "warm-3"))
    assert told["runner-up"] == "steady"
    assert "swift" in told["award"]
    assert told["outcome"].startswith("proven")
    assert "done" in told["end"]


async def test_a_named_skill_and_what_the_guard_refuses(working: Working, client: Client) -> None:
    """What the gate forbids right now is refused by every bidder, and the task fails with that reason."""
    params = {"degrees": 19}
    task = await given(client, working.url, skill="warm", deviceName="valve-4", params=params)
    assert (task["state"], task["reason"]) == ("done", "proven: Setpoint reads 19")
    # The owner's minimum of 10 lies above the profile's: the coordinator lets it pass, no agent bids for it.
    task = await given(client, working.url, skill="warm", deviceName="valve-4", params={"degrees": 7}, deadlineS=4)
    assert task["state"] == "failed"
    assert await client.effects("valve-4") == [("Setpoint", 19.0)]


async def test_an_agent_killed_with_a_task_in_hand_leaves_one_end_and_one_effect_at_most(
    working: Working, client: Client
) -> None:
    await client.control(device="valve-5", hang=True)
    giving = asyncio.ensure_future(
        given(client, working.url, id="held", skill="set", deviceName="valve-5", resourceName="Setpoint", value=20)
    )

    async def hangs() -> bool:
        return bool((await client.control())["hanging"])

    await until(hangs, "the valve was asked", timeout_s=30)
    working.processes.pop("app-agent-swift").kill()
    await client.control(device="valve-5", hang=False)
    task = await giving
    assert task["state"] in ("done", "failed")
    assert task["reason"]
    assert len(await client.effects("valve-5")) <= 1
