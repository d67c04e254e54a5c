"""Two whole gateways, linked: devices of one name, one command each, and tools that show how the link stands."""

import asyncio
import functools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from edgeagents.adapters.crossing import Crossed, Crossing
from edgeagents.adapters.examination.links import look_at_links
from edgeagents.adapters.leaf_nodes import load_gateways
from edgeagents.cli.place import Place
from edgeagents.cli.survey import link_rows
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.embedded.pair import linked
from edgeagents.model.cooperation import Act
from edgeagents.protocol.diagnosis.links import link_findings
from tests.contract.waiting import until
from tests.scenarios.conftest import ROOT, Deadline, patient

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
    north, south = map(patient, linked(*plans))
    try:
        for home in (north, south):
            home.start()
        for home in (north, south):
            await home.ready(120.0)
        yield north, south
    finally:
        for home in (north, south):
            await home.stop()


async def is_linked(home: Gateway) -> bool:
    """Return whether a home's only link is up, by what `status` and `doctor` make their words of."""
    place = Place(folder=home.plan.folder).resolved()
    facts = await look_at_links(place.bus_settings(), place.gateways_file)
    assert [row["state"] for row in link_rows(facts)] == ["up" if facts.links else "down"]
    assert [finding.level for finding in link_findings(facts)] == ["ok" if facts.links else "warning"]
    return bool(facts.links)


async def lamp(home: Gateway) -> str:
    """Return what a home's lamp in the living room shows, read through its own core-command."""
    async with httpx.AsyncClient() as http:
        url = f"{home.url('command')}/api/v3/device/name/{LAMP}/Switch"
        answer = await http.get(url, headers={"Authorization": f"Bearer {home.token('owner')}"}, timeout=30)
    return str(answer.json()["event"]["readings"][0]["value"])


async def turn(home: Gateway, value: str) -> None:
    """Turn a home's lamp through its own core-command."""
    async with httpx.AsyncClient() as http:
        url = f"{home.url('command')}/api/v3/device/name/{LAMP}/Switch"
        headers = {"Authorization": f"Bearer {home.token('owner')}"}
        (await http.put(url, json={"Switch": value}, headers=headers, timeout=30)).raise_for_status()


@pytest.mark.timeout(300)  # eight processes that start at once
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
    deadline = Deadline(60)
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
    for home in homes:
        await until(functools.partial(is_linked, home), f"the link of {home.plan.gateway} is up")

    # South's broker stands still, as behind a dead link: north notices, and its own lamp obeys.
    broker = south.supervisor.pid("nats")
    assert broker is not None
    os.kill(broker, signal.SIGSTOP)
    try:
        deadline = Deadline(60)
        while await is_linked(north):
            assert not deadline.is_over, "north never says that the link is down"
            await asyncio.sleep(0.2)
        await turn(north, "false")
        assert await lamp(north) == "false"
    finally:
        os.kill(broker, signal.SIGCONT)
    for bus in buses:
        await bus.close()
