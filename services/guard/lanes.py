"""Queues in front of the devices: one for each device, or for each group of devices that an interlock ties together.

A lane does one thing at a time, from gate to proof; `actuator.py` is what it does. A device in quarantine takes no
command: its commands wait here while other devices of the lane go on.

Source: design.md sections 3.6 and 3.7.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from edgeagents.adapters import telemetry
from edgeagents.adapters.timers import call_after
from edgeagents.model.message import CauseKind
from edgeagents.model.site import Site
from edgeagents.protocol.gate import Key
from services.guard.actuator import STOPPED, Actuator, Done, recovered
from services.guard.jobs import Job, Means, end
from services.guard.ledger import Entry
from services.guard.rounds import Rounds

log = logging.getLogger(__name__)

MOST_UNDER_WAY: Final = 256  # commands of one agent


@dataclass(frozen=True, slots=True)
class Check:
    """Read a resource whose last reading did not fit."""

    key: Key


@dataclass(frozen=True, slots=True)
class Look:
    """Read a resource whose device may not report what somebody changes."""

    key: Key


@dataclass(frozen=True, slots=True)
class Wake:
    """Look at a device in quarantine again."""

    device: str


Item: TypeAlias = Job | Entry | Check | Look | Wake


class Lanes:
    """All lanes of a gateway, made when first needed."""

    def __init__(self, means: Means, tasks: asyncio.TaskGroup) -> None:
        """Group the devices by the owner's interlocks."""
        self._means = means
        self._tasks = tasks
        self._lanes: dict[str, Lane] = {}
        self._running: list[asyncio.Task[None]] = []
        self._under_way: Counter[str] = Counter()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._groups = interlocked(means.owner.site)
        self.rounds = Rounds(means.owner.site, means.devices)
        self._to_look_at: set[Key] = set()
        means.overrides.confirm = self.check

    async def put(self, item: Job | Entry) -> None:
        """Queue a command in its device's lane; one that cannot be queued ends here."""
        device, problem = item.command.device, ""
        cause: CauseKind = "room"
        if self._means.devices.device(device) is None:
            cause = "gate"
            self._means.devices.miss()  # the next one may find it
            problem = f"core-metadata knows no device {device!r}"  # and no lane for every name somebody makes up
        elif self._under_way[item.agent] >= MOST_UNDER_WAY:
            problem = f"{MOST_UNDER_WAY} commands of agent {item.agent!r} are under way already"
        if not problem:
            self._under_way[item.agent] += 1
            self._quiet.clear()
            self._lane_of(device).queue.put_nowait(item)
        elif isinstance(item, Job):
            await end(self._means, item, "refused", problem, cause)
        elif item.outcome is None:
            await end(self._means, recovered(item), "uncertain", f"{STOPPED}: {problem}")

    def check(self, key: Key) -> None:
        """Have a resource read whose last reading did not fit."""
        self._lane_of(key[0]).queue.put_nowait(Check(key))

    def look(self) -> None:
        """Have read what is due, unless it waits to be read already."""
        for key in self.rounds.due(self._means.clocks.now()):
            if key not in self._to_look_at:
                self._to_look_at.add(key)
                self._lane_of(key[0]).queue.put_nowait(Look(key))

    def _looked(self, key: Key, was_read: bool) -> None:
        self._to_look_at.discard(key)
        if not was_read:
            self.rounds.failed(key, self._means.clocks.now())

    def seen(self, device: str) -> None:
        """Wake a device in quarantine: it has just reported something."""
        lane = self._lanes.get(self._name_of(device))
        if lane is not None and lane.actuator.is_quarantined(device):
            lane.wake(device, 0.0)

    def reckon(self, key: Key) -> None:
        """Take in that less may still take effect on a resource than before."""
        lane = self._lanes.get(self._name_of(key[0]))
        if lane is None or not lane.actuator.is_quarantined(key[0]):
            self._means.picture.doubt(key, self._means.overrides.late_values().get(key, []))

    def _lane_of(self, device: str) -> "Lane":
        name = self._name_of(device)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self._means, self._done, self._looked)
            self._running.append(self._tasks.create_task(lane.run(), name=f"lane {name}"))
        return lane

    def _name_of(self, device: str) -> str:
        return self._groups.get(device, device)

    def _done(self, agent: str) -> None:
        self._under_way[agent] -= 1
        if not self.waiting:
            self._quiet.set()

    async def stop(self, grace_s: float) -> None:
        """Wait until all that is queued is done, for at most `grace_s`, then end all lanes where they are."""
        if not all(task.done() for task in self._running):
            joined = [asyncio.ensure_future(lane.queue.join()) for lane in self._lanes.values()]
            joined.append(asyncio.ensure_future(self._all_done()))
            waiting = asyncio.ensure_future(asyncio.wait(joined))
            await asyncio.wait([waiting, *self._running], timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            for task in (waiting, *joined, *self._running):
                task.cancel()
            await asyncio.gather(waiting, *joined, *self._running, return_exceptions=True)
        for lane in self._lanes.values():
            lane.stop()

    async def _all_done(self) -> None:
        await self._quiet.wait()

    @property
    def waiting(self) -> int:
        """How many commands wait or are under way."""
        return self._under_way.total()


class Lane:
    """The commands of one device, or of a few that an interlock ties together, one after the other."""

    def __init__(self, means: Means, done: Done, looked: Callable[[Key, bool], None]) -> None:
        """Begin with nothing; `done` is told the agent of each command done with, `looked` what was read, or not."""
        self._means = means
        self._looked = looked
        self.actuator = Actuator(means, self.wake, done)
        self._held: defaultdict[str, deque[Job | Entry]] = defaultdict(deque)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._woken: set[str] = set()  # devices whose Wake is queued: one each, however much they report
        self._doubted: defaultdict[str, set[Key]] = defaultdict(set)  # to be read once their device is free
        self.queue: asyncio.Queue[Item] = asyncio.Queue()

    async def run(self) -> None:
        """Carry commands out for ever; without a ledger the guard ends, and finds out afterwards what it did."""
        while True:
            item = await self.queue.get()
            await self._take(item)
            await self._go_on()
            self.queue.task_done()

    def wake(self, device: str, after_s: float) -> None:
        """Come back to a device in quarantine after some time, in place of any time asked for before."""
        timer = self._timers.pop(device, None)
        if timer is not None:
            timer.cancel()
        if after_s > 0:
            self._timers[device] = call_after(after_s, self._wake_now, device)
        else:
            self._wake_now(device)

    def _wake_now(self, device: str) -> None:
        if device not in self._woken:
            self._woken.add(device)
            self.queue.put_nowait(Wake(device))

    def stop(self) -> None:
        """Come back to nothing any more."""
        for timer in self._timers.values():
            timer.cancel()

    async def _take(self, item: Item) -> None:
        match item:
            case Wake(device):
                self._woken.discard(device)
                await self.actuator.wake(device)
                await self._expire(device)
            case Check(key) if not self.actuator.is_quarantined(key[0]):
                await self.actuator.surprises.check(key)
            case Check(key):
                self._doubted[key[0]].add(key)
            case Look(key):
                # In quarantine it is being read anyhow.
                self._looked(key, self.actuator.is_quarantined(key[0]) or await self.actuator.surprises.look(key))
            case Job() | Entry() if self.actuator.is_quarantined(item.command.device):
                self._held[item.command.device].append(item)
                if isinstance(item, Job):
                    left_s = item.deadline_s - self._means.clocks.now()
                    call_after(left_s, self._wake_now, item.command.device)
            case Job() | Entry():
                await self._carry(item)

    async def _carry(self, item: Job | Entry) -> None:
        if isinstance(item, Entry):
            await self.actuator.recover(item)
            return
        about = {"edgex.device": item.command.device, "edgex.correlation_id": item.command.id, "agent": item.agent}
        with telemetry.span("command", about, kind="consumer", parent=item.trace):
            await self.actuator.handle(item)

    async def _expire(self, device: str) -> None:
        """End what waited for a device in quarantine until its own deadline."""
        held, now_s = self._held[device], self._means.clocks.now()
        for item in [item for item in held if isinstance(item, Job) and item.deadline_s < now_s]:
            held.remove(item)
            await self.actuator.end(item, "expired", "deadline passed while its device was in quarantine", "late")

    async def _go_on(self) -> None:
        """Look into what was doubted on devices that are free again, then carry out what waited for them."""
        for device in [device for device in self._doubted if not self.actuator.is_quarantined(device)]:
            for key in self._doubted.pop(device):
                await self.actuator.surprises.check(key)
        for device, held in list(self._held.items()):
            while held and not self.actuator.is_quarantined(device):
                await self._carry(held.popleft())
            if not held:
                del self._held[device]


def interlocked(site: Site) -> dict[str, str]:
    """Return the lane of each device that an interlock names: devices that share interlocks share a lane."""
    lane: dict[str, str] = {}
    for lock in site.interlocks:
        names = (lock.forbid.device, lock.during.device)
        joined = {lane.get(name, name) for name in names}
        target = min(joined)
        for name in {*names, *(name for name, of in lane.items() if of in joined)}:
            lane[name] = target
    return lane
