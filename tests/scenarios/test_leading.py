"""A whole home without a coordinator, each process with its own rights: an agent leads, another one does it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.cli import led
from edgeagents.cli.source import Broker
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.errors import UnavailableError
from tests.homes import LAMPS, home_with_lamps
from tests.scenarios.conftest import Deadline

AGENTS: list[dict[str, Any]] = [
    {"name": name, "mode": "act", "watches": [{"profile": "Light"}], "may": [LAMPS], "leads": name == "lea",
     "skills": [{"name": "set", "cost_s": cost_s}]}
    for name, cost_s in (("lea", 5.0), ("lamplighter", 0.1))
]  # fmt: skip


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a home with two agents more, of which one may lead."""
    profiles = home_with_lamps(tmp_path / "profiles-of-the-owner", AGENTS)
    for name in ("air", "assistant", "comfort", "energy"):  # they have no part in this
        (profiles / "agents" / f"{name}.yaml").unlink()
    found = Gateway(Plan(tmp_path / "gateway", profiles, 60.0, WINTER_MORNING_S))
    found.start()
    try:
        await found.ready()
        yield found
    finally:
        await found.stop()


async def test_a_lamp_is_dimmed_by_an_agent_and_no_right_is_missing(
    home: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(f"nats://127.0.0.1:{home.ports['nats']}", home.plan.gateway, "owner", home.passwords["owner"])
    task = {"id": "dim", "skill": "set", "deviceName": "light-office", "resourceName": "Brightness", "value": "30"}
    deadline, why = Deadline(60.0), ""
    while not deadline.is_over:
        try:
            await asyncio.to_thread(led.ask, broker, "lea", "submit", task)
            break
        except UnavailableError as error:  # it has not listened for three seconds, or the other one is not there yet
            why = str(error)
            await asyncio.sleep(0.5)
    else:
        pytest.fail(why)
    found = await asyncio.to_thread(lambda: list(led.changes(broker, "lea", "dim", 30.0)))
    assert found[-1]["state"] == "done", found[-1]
    assert found[-1]["winner"] in ("lamplighter", "lea")  # who began later may not have listened long enough yet
    assert found[-1]["reason"].startswith("proven")
    assert found[-1]["giver"] == "owner"
    monkeypatch.setattr(led, "WAIT_S", 1.0)
    with pytest.raises(UnavailableError, match="leads: true"):  # nobody hears what one is asked that may not lead
        await asyncio.to_thread(led.ask, broker, "lamplighter", "submit", task | {"id": "other"})
    for process in ("agent-lea", "agent-lamplighter", "guard"):
        log = (home.plan.folder / "log" / f"{process}.log").read_text()
        assert "ermission" not in log, log[-2000:]
