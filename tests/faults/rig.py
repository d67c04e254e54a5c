"""A whole home whose extra agents are played by tests, faults to it, and what came of them.

Source: issue "Nothing lost".
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.files import load_site
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.evidence import collect
from edgeagents.embedded.gateway import PREFERRED_PORTS, SETTLE_S, Gateway, Plan
from edgeagents.embedded.supervisor import Child
from edgeagents.embedded.tally import Tally, tally
from edgeagents.errors import EdgeAgentsError, UnavailableError
from edgeagents.model.device import Device
from tests.faults.machine import Share, probe
from tests.faults.player import Player
from tests.faults.score import Score
from tests.homes import LAMPS, home_with_lamps

PROBED = "light-office"  # by the probe alone
LIGHTS = ("light-living", "light-bedroom", "light-kitchen")
LONGEST_RECOVERY_S = 10.0
LONGEST_WAIT_S = 90.0  # then it is not coming back
PLAYED = {"probe": "economy", "rival": "health"}


def scenario(folder: Path, more: Sequence[dict[str, Any]] = ()) -> Path:
    """Return a copy of the home's files in which two more agents, to be played, may dim its lights; and `more`."""
    agents = [
        {"name": name, "mode": "act", "priority": priority, "watches": [{"profile": "Light"}], "may": [LAMPS]}
        for name, priority in PLAYED.items()
    ]
    return home_with_lamps(folder / "profiles-of-the-owner", [*agents, *more])


@dataclass(frozen=True)
class Moment:
    """When a fault came, or ended; tells how long ago, and what the machine had for us since."""

    at_s: float = field(default_factory=time.monotonic)
    share: Share = field(default_factory=Share)
    stood_s: float = field(default_factory=lambda: probe().stood_s())

    @property
    def ago_s(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.at_s

    def allowed_s(self, most_s: float) -> float:
        """Return what is granted by now of something that may take so long on a machine of our own."""
        return most_s / self.share.now() + probe().stood_s() - self.stood_s


class Rig:
    """A gateway, the owner's connection to it, and the played agents."""

    def __init__(self, gateway: Gateway, children: dict[str, Child], seed: int, score: Score) -> None:
        """Work on a prepared gateway."""
        self.score = score
        self.gateway = gateway
        self.children = children
        self.random = random.Random(seed)
        self.bus: Bus
        self.probe: Player
        self.rival: Player

    def start(self, *names: str) -> None:
        """Start children by name, all of them when none is named."""
        for name in names or self.children:
            self.gateway.supervisor.start(self.children[name])

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Be the owner and play the agents while the context is open."""
        self.bus = await until(self._connect, "the broker takes connections", LONGEST_WAIT_S)
        try:
            async with Player(self.bus, "probe") as self.probe, Player(self.bus, "rival") as self.rival:
                yield
        finally:
            await self.bus.close()  # else its reconnecting never ends

    async def _connect(self) -> Bus | None:
        with contextlib.suppress(UnavailableError):
            return await self.gateway.connect()
        return None

    async def up(self, timeout_s: float = LONGEST_WAIT_S) -> None:
        """Wait until all sessions are up and a fresh command is proven.

        Raises:
            UnavailableError: that did not come about; says what happened last.
        """
        until_s = time.monotonic() + timeout_s
        await self.gateway.ready(timeout_s)
        while time.monotonic() < until_s:
            last = await self.probe.do(PROBED, self.random.randint(1, 100), timeout_s=6.0)
            if last is not None and last.status == "proven":
                return
            await asyncio.sleep(0.05)
        raise UnavailableError(f"guard: no fresh command was proven in {timeout_s:g} s: {self.probe.trouble}")

    async def recovers(self, kind: str, where: str, since: Moment) -> None:
        """Wait until the gateway is up again after a fault; count it, and how long it took.

        Raises:
            AssertionError: it took longer than it may.
        """
        await self.up(LONGEST_WAIT_S / 3)
        took_s, allowed_s = since.ago_s, since.allowed_s(LONGEST_RECOVERY_S)
        self.score.fault(kind, where, took_s)
        assert took_s <= allowed_s, f"{took_s:.1f} s to recover, {allowed_s:.1f} s allowed on a machine as busy as this"

    async def kill(self, name: str, kind: str = "kill -9") -> None:
        """Kill one process and measure until a fresh command is proven; `kind` is what the fault is counted as."""
        supervisor, since, pid = self.gateway.supervisor, Moment(), self._pid(name)
        os.kill(pid, signal.SIGKILL)

        async def is_another() -> bool:
            return supervisor.pid(name) not in (None, pid)

        await until(is_another, f"{name} is started again")
        await self.recovers(kind, name, since)

    async def hold(self, name: str, held_s: float, kind: str = "SIGSTOP") -> None:
        """Stop one process for a while, and measure from when it goes on."""
        pid = self._pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(held_s)
        finally:
            os.kill(pid, signal.SIGCONT)
        await self.recovers(kind, f"{name} for {held_s:.1f} s", Moment())

    def _pid(self, name: str) -> int:
        pid = self.gateway.supervisor.pid(name)
        assert pid is not None, f"{name} does not run"
        return pid

    @contextlib.asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Have commands under way on all lights at all times while the context is open, then let them end."""
        stop = asyncio.Event()
        dimmers = [asyncio.create_task(self._dim(light, stop)) for light in LIGHTS]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*dimmers)

    async def _dim(self, light: str, stop: asyncio.Event) -> None:
        """Command one light: mostly the probe, at times the rival takes over, at times with no time to be carried out.

        After a takeover the probe's last epoch is tried once more, so that there are lower epochs to keep back.
        """
        stale = None
        while not stop.is_set():
            player = self.rival if self.random.random() < 0.2 else self.probe
            reply = await player.lease(light)
            epoch = reply.epoch if reply.granted else None
            if epoch is None:
                await asyncio.sleep(0.1)
                continue
            if stale is not None and player is self.rival:
                await self.probe.send(self.probe.command(light, self.random.randint(1, 100), stale, 1.0))
            stale = epoch if player is self.probe else stale
            ttl_s = self.random.choice((5.0, 5.0, 5.0, 0.02))
            command = player.command(light, self.random.randint(1, 100), epoch, ttl_s)
            if await player.send(command):
                await player.ended(command, ttl_s + 3.0)
            if player is self.rival:
                await player.lease(light, release=True)
            outcome = player.outcomes.get(command.id)
            await asyncio.sleep(0.3 if outcome is not None and outcome.status == "refused" else 0.02)

    async def judged(self, timeout_s: float = SETTLE_S) -> Tally:
        """Return what came of everything so far, once every command has ended or `timeout_s` is over."""
        until_s = time.monotonic() + timeout_s
        until_ns = time.time_ns()
        await self.gateway.settle(self.bus, timeout_s)
        while True:
            try:
                result = await self._tally(until_ns)
                if not (result.lost_commands or result.lost_events) or time.monotonic() > until_s:
                    return result
            except UnavailableError:  # the broker or core-metadata did not answer for once
                if time.monotonic() > until_s + LONGEST_WAIT_S / 3:
                    raise
            await asyncio.sleep(0.25)

    async def _tally(self, until_ns: int) -> Tally:
        gateway = self.gateway
        agents = {name: gateway.agents[name] for name in gateway.running}
        body = await gateway.state("metadata", "/api/v3/device/all?limit=-1")
        if "devices" not in body:
            raise UnavailableError("core-metadata does not say which devices there are")
        devices = {item["name"]: Device.model_validate(item) for item in body["devices"]}
        site = load_site(gateway.plan.profiles / "site.yaml")
        evidence = await collect(self.bus, agents, devices, gateway.plan.folder / "journal", until_ns, site)
        result = tally(evidence)
        held = {command.id for command in evidence.commands}
        for player in (self.probe, self.rival):
            for name in player.stored.keys() - held:
                result.lost_commands.append(f"command {name} was acknowledged by the broker, which has it no longer")
        return result


@contextlib.asynccontextmanager
async def a_rig(
    folder: Path,
    score: Score,
    *,
    seed: int = 1,
    factor: float = 60.0,
    only_played: bool = False,
    agents: Sequence[dict[str, Any]] = (),
    **options: Any,
) -> AsyncIterator[Rig]:
    """Yield a prepared home, nothing of it started yet; at the end everything is stopped.

    Args:
        folder: for all it keeps.
        score: where faults are counted.
        seed: of what is random in a test.
        factor: site seconds in one wall second.
        only_played: leave the home's own agents out.
        agents: files of further ones, which are processes.
        options: further words of `Plan`.
    """
    profiles = scenario(folder, agents)
    played = {path.stem for path in (profiles / "agents").glob("*.yaml")} if only_played else set(PLAYED)
    played -= {str(agent["name"]) for agent in agents}
    options = {"ports": quiet_ports(), "played": frozenset(played), **options}
    gateway = Gateway(Plan(folder, profiles, factor, WINTER_MORNING_S, **options))
    rig = Rig(gateway, {child.name: child for child in with_own_ports(gateway)}, seed, score)
    try:
        yield rig
    finally:
        await gateway.stop()


def quiet_ports() -> dict[str, int]:
    """Return ports below those that the kernel gives away: nobody takes them while their service is down."""
    first = random.SystemRandom().randrange(20_000, 32_000, 20)
    return {name: first + number for number, name in enumerate(PREFERRED_PORTS)}


def with_own_ports(gateway: Gateway) -> list[Child]:
    """Return the children, agents with ports of this gateway: a neighbour's agent of the same name is not to be met."""
    ports = itertools.count(gateway.plan.ports["nats"] + len(PREFERRED_PORTS))
    return [
        replace(child, env={**child.env, "SERVICE_PORT": str(next(ports))})
        if child.name.startswith("agent-")
        else child
        for child in gateway.prepare().values()
    ]


async def until(check: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Return what an async check gives once it is true."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        found = await check()
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"not in {timeout_s:g} s: {what}")


@contextlib.contextmanager
def failures(problems: list[str], what: str) -> Iterator[None]:
    """Note what goes wrong with one fault, so that the others still have their turn."""
    try:
        yield
    except (EdgeAgentsError, AssertionError) as error:
        problems.append(f"{what}: {error}")
