"""A home whose agents disagree: what they settle on is what the valve becomes, and the audit says why."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from tests.contract.waiting import until
from tests.guarded import history_of
from tests.homes import edit, home_with_lamps
from tests.scenarios.conftest import patient


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a home with a coordinator, in which energy thinks that electricity is dear at any price."""
    profiles = home_with_lamps(tmp_path / "owners")
    edit(profiles / "agents" / "energy.yaml", lambda agent: agent["goals"].update(dear=0.1))
    gateway = patient(Gateway(Plan(tmp_path, profiles, 60.0, WINTER_MORNING_S, coordinator=True)))
    gateway.start()
    try:
        await gateway.ready(180.0)
        yield gateway
    finally:
        await gateway.stop()


async def test_comfort_and_energy_settle_on_a_temperature_and_the_room_gets_it(home: Gateway) -> None:
    async def settled() -> list[dict[str, Any]]:
        found = await home.state("coordinator", "/api/v3/conflict/all")
        return [
            item for item in found.get("conflicts", []) if item["rung"] == "nash" and item["resourceName"] == "Setpoint"
        ]

    item = (await until(settled, "a conflict is settled by bargaining", timeout_s=90))[-1]
    room = item["deviceName"].removeprefix("radiator-")
    bargained = {party["agent"]: party for party in item["parties"] if party["said"] == "bargains"}
    assert {"comfort", "energy"} <= set(bargained)
    assert all(party["worth"][item["value"]] >= party["disagreement"] for party in bargained.values())

    bus = await home.connect()
    try:

        async def obeyed() -> list[str]:
            facts = (await history_of(bus)).conflicts[item["id"]]
            told = sorted(str(fact.body["part"]) for fact in facts if fact.record.kind == "settlement")
            return told if len(told) == len(bargained) else []

        parts = await until(obeyed, "the parties wrote down what they do about it", timeout_s=30)
    finally:
        await bus.close()
    assert parts.count("gives it") == 1

    async def is_so() -> bool:
        # The house goes on, and what was settled first may have been settled anew before the valve was set.
        same = {"deviceName": item["deviceName"], "resourceName": "Setpoint"}
        found = (await home.state("coordinator", "/api/v3/conflict/all")).get("conflicts", [])  # the newest first
        newest = next((other for other in found if other["value"] and same.items() <= other.items()), None)
        rooms = (await home.state("world", "/api/v3/world")).get("rooms")  # neither is there where one did not answer
        return bool(newest and rooms and rooms[room]["setpoint"] == float(newest["value"]))

    await until(is_so, f"the valve of the {room} is set to what was settled last", timeout_s=60)
