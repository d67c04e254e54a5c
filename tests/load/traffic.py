"""Events of all machines onto the bus at a steady rate, and what is seen of them: stored, read, decided on.

Published as a device service with QoS 0 does: plainly, one message an event, nobody waits for it. The reply subject
only asks the stream to tell where it put the event. More is never sent than the broker can hold back and the agents
are behind by (`Windows`); what that costs is told as time, and as a rate that was not reached.
"""

import asyncio
import contextlib
import re
import time
from array import array
from dataclasses import dataclass, field
from typing import Final

from nats.aio.msg import Msg

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.errors import NotFoundError, UnavailableError
from edgeagents.model.message import Command
from tests.bench.events_traffic import event_id, number_of
from tests.load.gateway import FIRES_FROM, GATEWAY, agent_name
from tests.load.machines import KEY, line_name, machine_name

SHARE: Final = 100  # one event in so many lets a rule fire
LOOK_S: Final = 1.0
WAIT_S: Final = 0.05
WATCHED_S: Final = 60.0
LATE_S: Final = 1.0
SILENCE_S: Final = 10.0  # what the stream did not tell of after this it does not hold
_SEQUENCE: Final = re.compile(rb'"seq":\s*(\d+)')


@dataclass(frozen=True, slots=True)
class Windows:
    """How much may be under way before the publisher waits.

    Args:
        unstored: events the stream did not tell of yet; nats-server drops what a stream has no room for, from 10,000.
        unread: events that an agent has not handled yet, of all agents.
    """

    unstored: int = 5_000
    unread: int = 20_000


@dataclass(slots=True)
class Seen:
    """What was seen of all events, by number; times are wall nanoseconds, 0: not seen.

    Args:
        sent_ns: when each was published.
        sequences: where the stream put each.
        decided_ns: when the command that goes back to an event was on NATS.
        late_s: by how much the publisher was behind its plan, once a look.
        unstored: how many the stream had not told of, once a look.
        unread: how many agents had not handled, once a look.
        held_s: how long the publisher waited: for the stream, and for agents.
        first: the first event that is measured; those before only had leases asked for.
        sent_in_s: from the first event to the last.
        read_in_s: from the first event until agents had handled all.
    """

    sent_ns: "array[int]" = field(default_factory=lambda: array("q"))
    sequences: "array[int]" = field(default_factory=lambda: array("q"))
    decided_ns: dict[int, int] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    unstored: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    held_s: dict[str, float] = field(default_factory=lambda: {"stream": 0.0, "agents": 0.0})
    stored: int = 0
    first: int = 0
    sent_in_s: float = 0.0
    read_in_s: float = 0.0


class Machinery:
    """Which machine an event is of, and what it tells: all lines in turn, and marked events on all machines in turn.

    A rule fires on marked events: on the first of every machine, so that each lease is asked for before anything is
    measured, then on one in `SHARE`. Each marked level is another, so that none is wanted already.
    """

    def __init__(self, lines: int, machines: int) -> None:
        """Prepare subjects of so many lines of so many machines each."""
        self.lines = lines
        self.first = lines * machines  # that many are all marked
        self._names = [(line, machine_name(line, number)) for number in range(machines) for line in range(lines)]
        self._subjects = [
            subjects.topic_to_subject(f"edgex/events/device/{KEY}/{line_name(line)}/{name}/Level")
            for line, name in self._names
        ]

    def is_marked(self, number: int) -> bool:
        """Say whether a rule fires on an event."""
        return number < self.first or number % SHARE == 0

    def level(self, number: int) -> float:
        """Return the level an event tells: as none before where it is marked, else one below that fires nothing."""
        return FIRES_FROM + number if self.is_marked(number) else float(number % 97)

    def _index(self, number: int) -> int:
        return (number if number < self.first else number + number // SHARE) % len(self._names)

    def line(self, number: int) -> int:
        """Return the line an event is of."""
        return self._names[self._index(number)][0]

    def message(self, number: int, now_ns: int) -> tuple[str, bytes]:
        """Return subject and bytes of an event."""
        index = self._index(number)
        return self._subjects[index], message_of(number, *self._names[index], self.level(number), now_ns)


def message_of(number: int, line: int, machine: str, level: float, now_ns: int) -> bytes:
    """Return an event of one reading in EdgeX's envelope, as a Go device service writes it: some 650 bytes."""
    identity, profile = event_id(number), line_name(line)
    return (
        f'{{"apiVersion":"v3","receivedTopic":"","correlationID":"{identity}","requestID":"","errorCode":0,"payload":'
        f'{{"apiVersion":"v3","requestId":"{identity}","event":{{"apiVersion":"v3","id":"{identity}",'
        f'"deviceName":"{machine}","profileName":"{profile}","sourceName":"Level","origin":{now_ns},"readings":'
        f'[{{"id":"{identity}","origin":{now_ns},"deviceName":"{machine}","resourceName":"Level","profileName":'
        f'"{profile}","valueType":"Float64","value":"{level!r}"}}]}}}},'
        f'"contentType":"application/json"}}'
    ).encode()


class Traffic:
    """Publishes, and notes what is seen."""

    def __init__(self, bus: Bus, machinery: Machinery, windows: Windows) -> None:
        """Use a connection of the owner's."""
        self._bus, self._machinery, self._windows = bus, machinery, windows
        self._told = bus.client.new_inbox()
        self.seen = Seen()
        self._unread = 0
        self._began_s = 0.0
        self._all_sent = False

    async def listen(self) -> None:
        """Note from now on where the stream puts events, and which commands agents give."""
        limits = {"pending_msgs_limit": -1, "pending_bytes_limit": -1}
        await self._bus.client.subscribe(f"{self._told}.*", cb=self._on_stored, **limits)
        await self._bus.client.subscribe(subjects.commands(GATEWAY), cb=self._on_command, **limits)

    async def _on_stored(self, message: Msg) -> None:
        found = _SEQUENCE.search(message.data)
        if found is not None:  # else the stream says why it does not hold it
            self.seen.sequences[int(message.subject.rpartition(".")[2])] = int(found[1])
            self.seen.stored += 1

    async def _on_command(self, message: Msg) -> None:
        now_ns = time.time_ns()
        if message.subject.endswith(f".{subjects.GUARD}"):
            return  # a lease
        number = number_of(wire.decode(Command, message.data).cause.event_id)
        self.seen.decided_ns.setdefault(number, now_ns)

    async def warm_up(self, rate: float) -> None:
        """Have a rule fire on every machine, at a gentle rate, and wait until all commands for that were given.

        Raises:
            UnavailableError: an agent does not watch; what was stored before it does is none of its business.
        """
        await self._watched()
        while len(self.seen.sent_ns) < self._machinery.first:
            await self._send()
            await asyncio.sleep(1 / rate)
        for _ in range(int(SILENCE_S / WAIT_S)):
            if len(self.seen.decided_ns) >= self._machinery.first:
                return
            await asyncio.sleep(WAIT_S)

    async def _watched(self) -> None:
        """Wait until every agent's consumer is there: it has a session before."""
        for line in range(self._machinery.lines):
            for _ in range(int(WATCHED_S / WAIT_S)):
                with contextlib.suppress(NotFoundError, UnavailableError):
                    await self._bus.unhandled(subjects.EVENTS_STREAM, subjects.agent_durable(agent_name(line)))
                    break
                await asyncio.sleep(WAIT_S)
            else:
                raise UnavailableError(f"{agent_name(line)} watches nothing after {WATCHED_S:g} s: is it up?")

    async def run(self, rate: float, seconds: float, late_s: float = LATE_S) -> Seen:
        """Send `rate` events a second for so long, then wait until the stream and all agents have caught up.

        Args:
            rate: events a second.
            seconds: how long they are sent.
            late_s: by how much a publisher that came late may go on until all are sent.
        """
        self._began_s, self._all_sent = time.monotonic(), False
        self.seen.first = len(self.seen.sent_ns)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish(rate, seconds, late_s))
            tasks.create_task(self._look(rate))
        return self.seen

    async def _publish(self, rate: float, seconds: float, late_s: float) -> None:
        first, total = self.seen.first, int(rate * seconds)
        end_s = seconds + late_s  # the last ones are not lost to a publisher that comes a little late
        while (elapsed_s := time.monotonic() - self._began_s) < end_s and len(self.seen.sent_ns) - first < total:
            due = first + min(int(elapsed_s * rate) + 1, total)
            while len(self.seen.sent_ns) < due and not await self._held():
                for _ in range(min(20, due - len(self.seen.sent_ns))):
                    await self._send()
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        self.seen.sent_in_s, self._all_sent = time.monotonic() - self._began_s, True

    async def _held(self) -> bool:
        """Wait a moment where too much is under way; say whether that was so."""
        if len(self.seen.sent_ns) - self.seen.stored >= self._windows.unstored:
            who = "stream"
        elif self._unread >= self._windows.unread:
            who = "agents"
        else:
            return False
        began_s = time.monotonic()
        await asyncio.sleep(0.005)
        self.seen.held_s[who] += time.monotonic() - began_s
        return True

    async def _send(self) -> None:
        number, now_ns = len(self.seen.sent_ns), time.time_ns()
        subject, data = self._machinery.message(number, now_ns)
        self.seen.sent_ns.append(now_ns)
        self.seen.sequences.append(0)
        await self._bus.client.publish(subject, data, reply=f"{self._told}.{number}")

    async def _look(self, rate: float) -> None:
        """Note how far everybody is behind, until nobody is any more, or nothing moves."""
        seen, moved_s, before = self.seen, time.monotonic(), (0, 0)
        while True:
            await asyncio.sleep(LOOK_S)
            self._unread = await self._behind()
            sent = len(seen.sent_ns)
            if not self._all_sent:
                seen.late_s.append(max(0.0, time.monotonic() - self._began_s - (sent - seen.first) / rate))
                seen.unstored.append(sent - seen.stored)
                seen.unread.append(self._unread)
            now = (seen.stored, self._unread)
            moved_s, before = (time.monotonic(), now) if now != before else (moved_s, before)
            done = seen.stored == sent and not self._unread
            if self._all_sent and (done or time.monotonic() - moved_s > SILENCE_S):
                seen.read_in_s = time.monotonic() - self._began_s
                return

    async def _behind(self) -> int:
        """Return how many stored events agents have not handled; what cannot be asked for now is as it was."""
        durables = [subjects.agent_durable(agent_name(line)) for line in range(self._machinery.lines)]
        try:
            return sum([await self._bus.unhandled(subjects.EVENTS_STREAM, name) for name in durables])
        except (UnavailableError, NotFoundError):
            return self._unread
