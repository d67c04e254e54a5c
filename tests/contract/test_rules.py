"""Rules of eKuiper drive an agent, by its rest sink and by its edgex sink; docs/rules.md makes the same ones by hand.

Needs an eKuiper beside the EdgeX under test, told where its events are: `make test-edgex … EKUIPER=http://host:59720`.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab
from tests.contract.rules import BY_BUS, BY_REST, SOURCE, Ekuiper, Reached, coordinating, reached
from tests.contract.waiting import until
from tests.faults.task_clients import Clients, Watcher, is_over, verdict

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.edgex]
LEVEL = 61
ACTS_S = 30.0
TASKS = 1_000
TASKS_S = 400.0  # until all of them have ended


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ekuiper(edgex: Edgex, request: pytest.FixtureRequest) -> Ekuiper:
    """The eKuiper beside the EdgeX under test."""
    url = request.config.getoption("ekuiper", default=None)
    if not url:
        pytest.skip("no eKuiper is named: EKUIPER=http://host:59720")
    found = Ekuiper(url, edgex.http)
    answer = await found.ask("GET", "/")
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text}: is it eKuiper?"
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(
    ekuiper: Ekuiper, edgex: Edgex, nats_url: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Reached]:
    """An agent that rules can reach, and its guard."""
    async with reached(edgex, nats_url, lab, tmp_path_factory.mktemp("rules")) as running:
        yield running


@pytest.mark.parametrize(("way", "resource"), [("rest", BY_REST), ("bus", BY_BUS)])
async def test_rule_has_the_agent_command_a_device_and_is_gone_afterwards(
    edgex: Edgex, lab: Lab, ekuiper: Ekuiper, agent: Reached, way: str, resource: str
) -> None:
    sink = agent.by_rest() if way == "rest" else agent.by_bus(edgex.target.base)
    before, words = await agent.proven(), edgex.name(way).replace("-", "_")
    lab.driver.values[lab.device, SOURCE] = LEVEL
    sql = f'SELECT {SOURCE} AS level FROM {words} WHERE meta(deviceName) = "{lab.device}" AND {SOURCE} > 60'

    async def is_set() -> bool:
        # Asked for again and again: who subscribes a moment late has missed the first ones.
        query = {"ds-pushevent": "true"}
        await edgex.ask("core-command", "GET", f"/device/name/{lab.device}/{SOURCE}", query=query)
        return lab.driver.values.get((lab.device, resource)) == LEVEL

    async def is_proven() -> bool:
        return await agent.proven() == before + 1

    async with ekuiper.stream(words), ekuiper.rule(words, sql, sink):
        await until(is_set, f"{lab.device}/{resource} is set because of the rule", timeout_s=ACTS_S)
        await until(is_proven, "the command is proven", timeout_s=ACTS_S)
        assert (await ekuiper.status(words))["status"] == "running"


class LabTasks(Clients):
    """Tasks for one device of the lab; those of a rule come from eKuiper itself."""

    def task(self, number: int) -> dict[str, Any]:
        """Return the task of a number."""
        own = {"deviceName": self._device_of(number), "resourceName": BY_REST}
        return super().task(number) | own

    def sql(self, stream: str) -> str:
        """Return the rule that makes the task of a number of a reading that says the number."""
        device = self._device_of(0)
        return (
            f'SELECT concat("t-", cast({SOURCE}, "string")) AS id, "set" AS skill, "{device}" AS deviceName, '
            f'"{BY_REST}" AS resourceName, 1 + {SOURCE} % 100 AS value, {self.deadline_s:g} AS deadlineS '
            f'FROM {stream} WHERE meta(deviceName) = "{device}" AND isNull({SOURCE}) = false'
        )


async def test_a_thousand_tasks_of_a_rule_an_http_client_and_a_nats_client_end_once_each(
    edgex: Edgex, lab: Lab, ekuiper: Ekuiper, agent: Reached
) -> None:
    words, of_rule = edgex.name("tasks").replace("-", "_"), range(1, TASKS, 3)
    bus = await Bus.connect(edgex.target.settings(agent.nats_url), edgex.name("tasks"))
    watcher = Watcher()
    heard = await bus.subscribe(subjects.task_records(bus.settings.gateway), watcher.hear)
    try:
        async with coordinating(edgex, agent) as coordinator:
            clients = LabTasks(coordinator.url, bus, edgex.http, lambda number: lab.device, TASKS_S)

            async def report(number: int) -> None:
                lab.driver.values[lab.device, SOURCE] = number
                query = {"ds-pushevent": "true"}
                await edgex.ask("core-command", "GET", f"/device/name/{lab.device}/{SOURCE}", query=query)

            async def is_heard() -> bool:
                # Again and again: who subscribes a moment late has missed the first ones. Given twice it is one task.
                await report(of_rule[0])
                return (await edgex.http.get(f"{coordinator.url}/api/v3/task/id/t-{of_rule[0]}")).status_code == 200

            async def reported() -> None:
                for number in of_rule[1:]:
                    await report(number)

            sink = agent.tasks_by_rest(coordinator)
            async with ekuiper.stream(words), ekuiper.rule(words, clients.sql(words), sink):
                await until(is_heard, "the rule's first task is taken in", timeout_s=ACTS_S)
                others = [number for number in range(TASKS) if number not in of_rule]
                await asyncio.gather(reported(), clients.give_all(others, at_once=20))
                clients.accepted |= {f"t-{number}" for number in of_rule}
                tasks = await clients.ended(TASKS_S)
            problems = await verdict(clients, watcher, bus, tasks, is_whole=True)
        assert problems == []
        states = [task["state"] for task in tasks.values()]
        assert all(map(is_over, tasks.values()))
        why = Counter(re.sub(r"\d+", "n", task["reason"]) for task in tasks.values() if task["state"] == "failed")
        assert states.count("done") >= 0.75 * TASKS, f"each tenth is cancelled: {Counter(states)}, {why.most_common(5)}"
    finally:
        await heard.unsubscribe()
        await bus.close()
