"""Rules of eKuiper drive an agent, by its rest sink and by its edgex sink; docs/rules.md makes the same ones by hand.

Needs an eKuiper beside the EdgeX under test, told where its events are: `make test-edgex … EKUIPER=http://host:59720`.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.edgex import Edgex
from tests.contract.lab import Lab
from tests.contract.rules import BY_BUS, BY_REST, SOURCE, Ekuiper, Reached, reached
from tests.contract.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.edgex]
LEVEL = 61
ACTS_S = 30.0


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
