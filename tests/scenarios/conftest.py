"""Whole gateways for scenario tests: one process tree a test, everything in a temporary folder."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.demo import WINTER_MORNING_S, figures
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.errors import UnavailableError
from tests.homes import LAMPS, NEVER_DONE, home_with_lamps

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 30.0  # a machine that stands still for a moment answers late, and is no fault of a gateway's


DIMMER = {
    "name": "dimmer",
    "description": "never done: a lamp is as bright as the minute is high",
    "mode": "act",
    "priority": "economy",
    "watches": [{"profile": "Room-Sensor"}],
    "rules": [NEVER_DONE],
    "may": [LAMPS],
}


def never_done(folder: Path) -> Path:
    """Return a copy of the home's files, in a folder, with one agent more that always has something to command.

    A home that goes on as it was left may have nothing to do.
    """
    profiles = folder / "profiles-of-the-owner"
    return profiles if profiles.exists() else home_with_lamps(profiles, [DIMMER])


def patient(gateway: Gateway) -> Gateway:
    """Return a gateway whose services are given time to answer when they are asked what they show."""
    gateway.http.timeout = ANSWER_S
    return gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Return a gateway that is up and has a home with three agents."""
    plan = Plan(tmp_path, ROOT / "edgex-profiles" / "home", 60.0, WINTER_MORNING_S)
    gateway = patient(Gateway(plan))
    gateway.start()
    try:
        await gateway.ready()
        yield gateway
    finally:
        await gateway.stop()


async def figures_of(gateway: Gateway) -> dict[str, Any]:
    """Return the demo's figures of a run, shown when a test fails."""
    deadline, bus = Deadline(60), await gateway.connect()
    try:
        while True:
            try:
                result = await figures(gateway, bus)
                break
            except UnavailableError:  # the broker stood still: agents have stopped deciding, so it may be read again
                if deadline.is_over:
                    raise
                await asyncio.sleep(0.1)
    finally:
        await bus.close()
    print(json.dumps(result, indent=1))
    return result


class Deadline:
    """A wall-clock budget to wait within."""

    def __init__(self, seconds: float) -> None:
        """Start now."""
        self._until_s = time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() >= self._until_s
