"""Two whole gateways, linked: devices of one name, one command each, and tools that show how the link stands."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from edgeagents.adapters.crossing import Crossed, Crossing
from edgeagents.adapters.leaf_nodes import load_gateways
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.embedded.pair import linked
from edgeagents.model.cooperation import Act
from tests.scenarios.conftest import ROOT, Deadline

PLAYED = frozenset({"air", "comfort", "energy"})
LAMP = "light-living"


@pytest.fixture
async def homes(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Return two homes with the same devices, and no agent that commands any."""
    plans = [
        Plan(
            tmp_path / name, ROOT / "edgex-profiles" / "home", 1.0, WINTER_MORNING_S, seed, played=PLAYED, gateway=name
        )
        for seed, name in enumerate(("north", "south"))
    ]
    north, south = linked(*plans)
    try:
        for home in (north, south):
            home.start()
        for home in (north, south):
            await home.ready(120.0)
        yield north, south
    finally:
        for home in (north, south):
            await home.stop()


async def link_of(home: Gateway, tool: str) -> str:
    """Return what a tool of the owner's says of a home's only link."""
    command = [sys.executable, "-m", "edgeagents.cli", tool, "--json", "--folder", str(home.plan.folder)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    body = json.loads(out)
    if tool == "status":
        return str(body["links"][0]["state"])
    return next(item["level"] for item in body["findings"] if item["check"].startswith("link to "))


async def lamp(home: Gateway) -> str:
    """Return what a home's lamp in the living room shows, read through its own core-command."""
    async with httpx.AsyncClient() as http:
        url = f"{home.url('command')}/api/v3/device/name/{LAMP}/Switch"
        answer = await http.get(url, headers={"Authorization": f"Bearer {home.token('owner')}"}, timeout=15)
    return str(answer.json()["event"]["readings"][0]["value"])


async def turn(home: Gateway, value: str) -> None:
    """Turn a home's lamp through its own core-command."""
    async with httpx.AsyncClient() as http:
        url = f"{home.url('command')}/api/v3/device/name/{LAMP}/Switch"
        headers = {"Authorization": f"Bearer {home.token('owner')}"}
        (await http.put(url, json={"Switch": value}, headers=headers, timeout=15)).raise_for_status()


async def test_two_homes_with_the_same_devices_are_linked_and_do_not_mix(homes: tuple[Gateway, Gateway]) -> None:
    north, south = homes
    buses = [await home.connect() for home in homes]
    heard: list[Crossed] = []

    async def note(found: Crossed) -> None:
        heard.append(found)

    crossings = [
        Crossing(bus, load_gateways(home.plan.folder / "gateways.yaml", home.plan.gateway))
        for bus, home in zip(buses, homes, strict=True)
    ]
    await crossings[0].hear("air", note)
    await buses[0].flush()
    deadline = Deadline(20)
    while not heard and not deadline.is_over:
        await crossings[1].tell("north", "air", "air", Act(performative="inform", conversation="c", version=1))
        await asyncio.sleep(0.2)
    assert (heard[0].gateway, heard[0].sender) == ("south", "air")

    await turn(north, "true")
    await turn(south, "false")
    assert [await lamp(home) for home in homes] == ["true", "false"]
    for bus, home in zip(buses, homes, strict=True):
        async for record in bus.read("commands", [], name="look"):
            assert record.subject.startswith(f"{home.plan.gateway}.")
    assert [await link_of(north, "doctor"), await link_of(south, "status")] == ["ok", "up"]

    # South's broker stands still, as behind a dead link: north notices, and its own lamp obeys.
    broker = south.supervisor.pid("nats")
    assert broker is not None
    os.kill(broker, signal.SIGSTOP)
    try:
        deadline = Deadline(15)
        while await link_of(north, "doctor") == "ok":
            assert not deadline.is_over, "north never says that the link is down"
        await turn(north, "false")
        assert await lamp(north) == "false"
    finally:
        os.kill(broker, signal.SIGCONT)
    for bus in buses:
        await bus.close()
