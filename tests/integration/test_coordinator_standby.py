"""Two coordinators of one gateway: one leads, the other waits; killed or paused, the other takes over what there is."""

import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

from edgeagents.permissions import STANDBY_KEY
from tests.bidders import Bidder
from tests.contract.waiting import until
from tests.coordinated import Coordinated, Owner, owner_of
from tests.nats import free_port
from tests.services import ServiceProcess

TAKES_OVER = "taking over"  # what one says in its log that has heard nothing of the other for too long
STANDBY = {"EDGEAGENTS_COORDINATOR_STANDBY": "true"}


class Twins:
    """A gateway whose coordinator has a twin, at an address of its own."""

    def __init__(self, owner: Owner, ports: tuple[int, int]) -> None:
        self.owner, self.gateway, self.ports = owner, owner.gateway, ports
        self.processes: list[ServiceProcess | None] = [None, None]

    def start(self, number: int) -> ServiceProcess:
        """Start one of the two."""
        self.gateway.port = self.ports[number]
        found = self.processes[number] = self.gateway.spawn(
            EDGEX_SERVICE_KEY=STANDBY_KEY if number else "app-coordinator", **STANDBY
        )
        return found

    def kill(self, number: int) -> None:
        """Kill one of the two."""
        process, self.processes[number] = self.processes[number], None
        if process is not None:
            process.kill()

    def turn_to(self, number: int) -> None:
        """Give tasks to one of the two."""
        self.gateway.url = f"http://127.0.0.1:{self.ports[number]}"

    async def serves(self, number: int) -> bool:
        """Say whether one of the two leads; while it does not answer, it does not."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            url = f"http://127.0.0.1:{self.ports[number]}/api/v3/coordinator"
            return bool((await self.owner.http.get(url)).json().get("isServing"))
        return False

    async def leader(self) -> int:
        """Return which of the two leads, once it is one of them alone."""

        async def alone() -> list[int] | None:
            serving = [number for number in (0, 1) if await self.serves(number)]
            return serving if len(serving) == 1 else None

        return int((await until(alone, "one of the two leads", timeout_s=60))[0])

    async def leads(self, number: int) -> bool:
        """Say whether this one leads, or the other one, as it says itself, because it heard nothing of this one."""
        other = self.processes[1 - number]
        return await self.leader() == number or (other is not None and TAKES_OVER in other.log_path.read_text())

    async def done(self, name: str) -> None:
        """Give a task, again and again, to whoever leads, until it is done: who is held up may lose the lead."""

        async def is_done() -> bool:
            for number in (0, 1):
                if await self.serves(number):
                    self.turn_to(number)
                    with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                        answer = await self.owner.give(id=name)
                        return answer.is_success and (await self.owner.task(name))["state"] == "done"
            return False

        await until(is_done, f"{name} is done", timeout_s=60)

    async def answers(self, number: int) -> bool:
        """Say whether one of the two is up, leading or not."""
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{self.ports[number]}/api/v3/ping"
            return (await self.owner.http.get(url)).status_code == 200
        return False


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinated]:
    """One gateway for all tests of this file."""
    found = Coordinated(tmp_path_factory.mktemp("standby"), ("ada",))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def ports(gateway: Coordinated) -> tuple[int, int]:
    """Return a port for each, the same in all tests: a service that comes back finds its own in core-keeper."""
    return gateway.port, free_port()


@pytest.fixture
async def twins(gateway: Coordinated, ports: tuple[int, int]) -> AsyncIterator[Twins]:
    """Two coordinators, of which the first leads, and an agent that does what it is given."""
    async with owner_of(gateway) as owner, AsyncExitStack() as stack:
        found = Twins(owner, ports)
        try:
            found.start(0)
            found.turn_to(0)
            await owner.up(agents=0)  # it makes the stream, as the guard does
            bidder = await Bidder(owner.bus, "ada").start()
            stack.push_async_callback(bidder.die)
            found.start(1)
            await until(lambda: found.answers(1), "the second is up", timeout_s=60)
            yield found
        finally:
            for number in (0, 1):
                found.kill(number)


async def test_the_second_waits_and_leads_soon_after_the_first_is_killed(twins: Twins) -> None:
    owner = twins.owner
    await twins.done("first")
    assert await twins.leads(0)
    first = await twins.leader()
    second = 1 - first
    twins.kill(first)
    killed_s = time.monotonic()
    twins.turn_to(second)
    await until(lambda: twins.serves(second), "the second leads", timeout_s=60)
    took_s = time.monotonic() - killed_s
    assert took_s > 1.0, "it waited whether the first is really gone"
    assert (await owner.task("first"))["state"] == "done", "it knows what was done"
    await twins.done("second")

    # Who comes back waits in turn.
    twins.start(first)
    await until(lambda: twins.answers(first), "the first is up again", timeout_s=60)
    await twins.done("third")
    assert await twins.leads(second)


async def test_one_that_is_paused_is_replaced_and_ends_when_it_wakes(twins: Twins) -> None:
    owner, first = twins.owner, await twins.leader()
    paused, second = twins.processes[first], 1 - first
    assert paused is not None
    paused.process.send_signal(signal.SIGSTOP)
    try:
        twins.turn_to(second)
        await until(lambda: twins.serves(second), "the second leads", timeout_s=60)
        assert (await owner.give(id="slept")).status_code == 202
        assert (await owner.ended("slept"))["state"] == "done"
    finally:
        paused.process.send_signal(signal.SIGCONT)
    assert (await owner.give(id="woken")).status_code == 202
    task = await owner.ended("woken")
    assert (task["state"], len(task["awards"])) == ("done", 1)
    await until(lambda: paused.process.poll() is not None, "it has ended by itself", timeout_s=60)
    assert "second coordinator" in paused.log_path.read_text()
    assert await twins.leader() == second
    await twins.done("still-here")


async def test_of_two_that_began_at_once_one_is_left_to_serve(twins: Twins) -> None:
    twins.kill(0)
    twins.kill(1)
    both = [twins.start(number) for number in (0, 1)]

    async def one_serves() -> bool:
        ended = [process.process.poll() is not None for process in both]
        return sum(ended) <= 1 and sum([await twins.serves(number) for number in (0, 1)]) == 1

    async def one_serves_for_long() -> bool:
        """Say whether it is one, and is one still when any other would have been heard and would have ended."""
        until_s = time.monotonic() + 6.0
        while time.monotonic() < until_s:
            if not await one_serves():
                return False
        return True

    await until(one_serves_for_long, "one is left", timeout_s=60)
    await twins.done("after-both")
