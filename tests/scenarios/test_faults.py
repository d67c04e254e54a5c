"""Parts of a running gateway are killed: they come back, and nothing is lost or done twice.

Once each, for every run of the tests; `tests/faults` does it at random moments, at each await, and with worse faults.
"""

import asyncio
import os
import signal

import pytest

from edgeagents.embedded.gateway import Gateway
from tests.scenarios.conftest import Deadline, figures_of

BETWEEN_S = 2.0


@pytest.mark.timeout(180)
async def test_nothing_is_lost_or_doubled_when_each_process_is_killed_in_turn(gateway: Gateway) -> None:
    names = gateway.supervisor.names
    assert {"nats", "core", "guard", "world", "agent-comfort", "agent-energy", "agent-air"} <= set(names)
    for name in names:
        await asyncio.sleep(BETWEEN_S)  # the home works on between two kills
        pid = gateway.supervisor.pid(name)
        assert pid is not None, f"{name} was not running"
        os.kill(pid, signal.SIGKILL)
        await until_another_runs(gateway, name, pid)
        await gateway.ready(30.0)
    await asyncio.sleep(BETWEEN_S)
    assert all(gateway.supervisor.restarts.get(name) == 1 for name in names), gateway.supervisor.restarts

    result = await figures_of(gateway)

    assert result["problems"] == []
    assert (result["lost"], result["duplicated"]) == (0, 0)
    assert result["commands_proven"] >= 1
    assert result["events"] > 100


async def until_another_runs(gateway: Gateway, name: str, killed: int) -> None:
    """Wait until the supervisor has started a process in place of a killed one."""
    deadline = Deadline(10.0)
    while gateway.supervisor.pid(name) in (None, killed):
        assert not deadline.is_over, f"{name} was not started again"
        await asyncio.sleep(0.05)
