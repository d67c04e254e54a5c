"""Two gateways, each in a network namespace, with tasks under way on both while the cable between them is cut.

Both have devices of the same names, and are given tasks of the same ids: what mixes them up would show.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.crossing import Crossed, Crossing
from edgeagents.adapters.files import load_site
from edgeagents.adapters.leaf_nodes import load_gateways
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.evidence import collect
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.embedded.pair import FILE, linked
from edgeagents.embedded.tally import tally
from edgeagents.errors import NotFoundError, UnavailableError
from edgeagents.model.cooperation import Act
from edgeagents.model.device import Device
from tests.faults.namespaces import Cable, Side, need_namespaces, two_namespaces
from tests.faults.rig import Moment, quiet_ports, until
from tests.faults.score import Score
from tests.faults.task_clients import LAMPS, WORKERS, Clients, Watcher, is_over, verdict
from tests.homes import edit, home_with_lamps

HEALS_S: Final = 5.0  # until both speak with each other again, and copies have what they lacked
# After a long cut the other broker has ended what fed the copy, and ours looks every 10 s whether it has.
COPIES_AFTER_LONG_S: Final = 15.0
LONG_S: Final = 10.0
NORTH, SOUTH = "north", "south"


class Part:
    """One gateway of the two: its processes, who gives it tasks, what it heard from the other."""

    def __init__(self, gateway: Gateway) -> None:
        """Prepare; everything else happens on the side that it lives on."""
        self.gateway = gateway
        self.name = gateway.plan.gateway
        self.heard: list[Crossed] = []
        self.watcher = Watcher()
        self.bus: Bus
        self.clients: Clients
        self.crossing: Crossing

    async def up(self) -> None:
        """Start it, and hear what crosses."""
        self.gateway.start()
        await self.gateway.ready(180.0)
        self.bus = await self.gateway.connect()
        self._http = httpx.AsyncClient(trust_env=False, timeout=10)
        url = self.gateway.url("coordinator")
        self.clients = Clients(url, self.bus, self._http, lambda number: LAMPS[number % 3])
        self.crossing = Crossing(self.bus, load_gateways(self.gateway.plan.folder / FILE, self.name))
        await self.crossing.hear("air", self._note)
        await self.bus.subscribe(subjects.task_records(self.name), self.watcher.hear)
        await self.bus.flush()

    async def _note(self, found: Crossed) -> None:
        self.heard.append(found)

    async def say(self, peer: str, word: str) -> None:
        """Say something to the other gateway."""
        with contextlib.suppress(UnavailableError):
            await self.crossing.tell(peer, "air", "air", Act(performative="inform", conversation=word, version=1))

    async def work(self, first: int, stop: asyncio.Event) -> int:
        """Give task after task, four at a time, until told to stop; return the number of the last."""
        number = first
        while not stop.is_set():
            await self.clients.give_all(range(number, number + 4), at_once=4)
            number += 4
        return number

    async def last(self, stream: str) -> int:
        """Return where a stream ends, 0 while it is not there."""
        try:
            return await self.bus.last_sequence(stream)
        except (NotFoundError, UnavailableError):
            return 0

    async def done_so_far(self) -> set[str]:
        """Return the tasks whose ledger says by now that they are done; a copy, and at once: the cable is cut."""
        return {name for name, status in self.watcher.ends.items() if status == "done"}

    async def judged(self) -> list[str]:
        """Return what is wrong with how tasks and commands of this gateway ended."""
        tasks = await self.clients.ended(120.0)
        problems = await verdict(self.clients, self.watcher, self.bus, tasks, is_whole=True)
        done = sum(task["state"] == "done" for task in tasks.values())
        if not all(map(is_over, tasks.values())) or done * 3 < len(tasks):
            problems.append(f"{done} of {len(tasks)} tasks are done")
        until_ns = time.time_ns()
        await self.gateway.settle(self.bus)
        found = await self.gateway.state("metadata", "/api/v3/device/all?limit=-1")
        devices = {item["name"]: Device.model_validate(item) for item in found.get("devices", [])}
        plan = self.gateway.plan
        agents = {name: self.gateway.agents[name] for name in self.gateway.running}
        site = load_site(plan.profiles / "site.yaml")
        result = tally(await collect(self.bus, agents, devices, plan.folder / "journal", until_ns, site))
        async for record in self.bus.read(subjects.COMMANDS_STREAM, [], name="look"):
            if not record.subject.startswith(f"{self.name}."):
                problems.append(f"{record.subject} is in the stream of {self.name}")
        return [*problems, *result.doubled, *result.epoch_order, *result.forbidden, *result.disagreeing]

    async def down(self) -> None:
        """End it."""
        if hasattr(self, "bus"):
            await self.bus.close()
            await self._http.aclose()
        await self.gateway.stop()


class World:
    """Both gateways, their sides, and the cable."""

    def __init__(self, cable: Cable, sides: tuple[Side, Side], parts: tuple[Part, Part]) -> None:
        """Hold what runs."""
        self.cable, self.sides, self.parts = cable, sides, parts

    async def both(self, word: str, *arguments: Any) -> list[Any]:
        """Have both gateways do something at once, and return what it gave."""
        works = (getattr(part, word)(*arguments) for part in self.parts)
        return await asyncio.gather(*(side.do(work) for side, work in zip(self.sides, works, strict=True)))

    async def exchanged(self, word: str) -> bool:
        """Say something both ways, and whether it has arrived on both sides by now."""
        await self.sides[0].do(self.parts[0].say(SOUTH, word))
        await self.sides[1].do(self.parts[1].say(NORTH, word))
        await asyncio.sleep(0.1)
        return all(any(found.act.conversation == word for found in part.heard) for part in self.parts)


def plans(folder: Path) -> list[Plan]:
    """Return two homes with lamps and two agents that do tasks."""
    found = []
    for seed, name in enumerate((NORTH, SOUTH)):
        profiles = home_with_lamps(folder / f"files-of-{name}", WORKERS)
        own = {str(agent["name"]) for agent in WORKERS}
        played = frozenset({path.stem for path in (profiles / "agents").glob("*.yaml")} - own)
        found.append(Plan(
            folder / name, profiles, 1.0, WINTER_MORNING_S, seed, played=played, ports=quiet_ports(), coordinator=True,
            gateway=name,
        ))  # fmt: skip
    return found


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Return the cable between two namespaces."""
    need_namespaces()
    with two_namespaces() as found:
        yield found


@pytest.fixture
async def world(tmp_path: Path, cable: Cable) -> AsyncIterator[World]:
    """Return two linked gateways; north keeps a copy of south's audit."""

    async def prepared() -> tuple[Gateway, Gateway]:
        listening, going = plans(tmp_path)
        north, south = linked(listening, going, cable.near)
        edit(north.plan.folder / FILE, lambda file: file["peers"][SOUTH].update(keeps=["audit"]))
        edit(south.plan.folder / FILE, lambda file: file["peers"][NORTH].update(mirrors=["audit"]))
        return north, south

    async with contextlib.AsyncExitStack() as stack:
        sides = []
        for name in (cable.first, cable.second):
            sides.append(Side(name))
            stack.callback(sides[-1].close)
        north, south = await sides[0].do(prepared())
        world = World(cable, (sides[0], sides[1]), (Part(north), Part(south)))
        stack.push_async_callback(world.both, "down")
        await world.both("up")
        await until(lambda: world.exchanged("hello"), "both hear each other", 60.0)
        yield world


async def parted(world: World, cut_s: float, score: Score, copies_s: float = HEALS_S) -> None:
    """Cut the cable for a while with tasks under way on both sides; check that nothing was mixed up or lost."""
    north, south = world.parts
    stops = [asyncio.Event(), asyncio.Event()]
    working = [
        asyncio.ensure_future(side.do(part.work(0, stop)))
        for side, part, stop in zip(world.sides, world.parts, stops, strict=True)
    ]
    await asyncio.sleep(1.0)
    before = [len(part.clients.accepted) for part in world.parts]
    done_before = await world.both("done_so_far")
    during, done_during = [0, 0], [0, 0]

    async def both_worked() -> bool:
        nonlocal during, done_during
        during = [len(part.clients.accepted) - count for part, count in zip(world.parts, before, strict=True)]
        done = await world.both("done_so_far")
        done_during = [len(after - earlier) for after, earlier in zip(done, done_before, strict=True)]
        return all(count >= 4 for count in during) and all(done_during)

    world.cable.cut()
    cut = Moment()
    await asyncio.sleep(cut_s)
    # It stays cut until both have worked without the other, however little the machine had for them.
    with contextlib.suppress(AssertionError):
        await until(both_worked, "both work alone", 60.0)
    assert all(count >= 4 for count in during), f"tasks taken in while the cable was cut: {during}"
    assert all(done_during), f"each side did tasks while the cable was cut: {done_during}"
    copies_s = copies_s if cut.ago_s < LONG_S else COPIES_AFTER_LONG_S
    world.cable.mend()
    healed = Moment()
    behind = await world.sides[1].do(south.last(subjects.AUDIT_STREAM))
    await until(lambda: world.exchanged(f"after-{cut_s:g}"), "both hear each other again", 60.0)
    heard_s, heard_by_s = healed.ago_s, healed.allowed_s(HEALS_S)

    async def has_caught_up() -> bool:
        copy = subjects.mirror_stream(subjects.AUDIT_STREAM, SOUTH)
        return await world.sides[0].do(north.last(copy)) >= behind

    await until(has_caught_up, "north's copy of south's audit has what it lacked", 60.0)
    took_s, allowed_s = healed.ago_s, healed.allowed_s(copies_s)
    for stop in stops:
        stop.set()
    await asyncio.gather(*working)
    score.fault(f"partition of {cut_s:g} s", f"heard after {heard_s:.2f} s; {during} tasks meanwhile", took_s)
    assert heard_s <= heard_by_s, f"{heard_s:.1f} s until they spoke, {heard_by_s:.1f} s allowed on a machine this busy"
    assert took_s <= allowed_s, f"{took_s:.1f} s to be one again, {allowed_s:.1f} s allowed on a machine this busy"
    problems = await world.both("judged")
    assert problems == [[], []]
    assert {found.gateway for found in north.heard} == {SOUTH}
    assert {found.gateway for found in south.heard} == {NORTH}
    shared = north.clients.accepted & south.clients.accepted
    assert shared, "both did tasks of one id, each its own"


async def test_both_sides_of_a_cut_cable_do_their_own_tasks_and_are_one_again_soon(world: World, score: Score) -> None:
    await parted(world, 5.0, score)


@pytest.mark.long
async def test_both_sides_of_a_cable_that_is_cut_for_long_do_their_own_tasks(world: World, score: Score) -> None:
    await parted(world, 30.0, score, COPIES_AFTER_LONG_S)
