"""Events onto the bus at a rate, and what comes of them, stamped by one clock: this machine's, in wall nanoseconds.

One event in a hundred is marked: its level is above all others and as none before, so that the rule fires on it and
each SET tells which event it goes back to. Nothing of the agent or the peer is looked into.
"""

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Protocol

from nats.aio.msg import Msg

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.envelopes import decode_envelope
from edgeagents.model.message import Command
from tests.bench.events_devices import KEY, PROFILE
from tests.bench.events_gateway import AGENT, FIRES_FROM, GATEWAY

SHARE: Final = 100  # one event in so many is marked
WINDOW: Final = 1000  # events not yet answered, at most, when as many are sent as are consumed
SILENCE_S: Final = 5.0  # what is not there after this does not come
_ID: Final = re.compile(rb"[0-9a-f]{8}-0000-4000-8000-[0-9a-f]{12}")


@dataclass(slots=True)
class Marks:
    """When one marked event was where, wall nanoseconds; 0: not seen there."""

    sent_ns: int = 0
    stored_ns: int = 0
    decided_ns: int = 0
    set_ns: int = 0


@dataclass(slots=True)
class Pass:
    """What a pass saw: marked events by number, how many events were sent, and in which time."""

    marks: dict[int, Marks] = field(default_factory=dict)
    sent: int = 0
    took_s: float = 0.0

    @property
    def missed(self) -> int:
        """How many marked events nothing came of."""
        return sum(1 for item in self.marks.values() if not item.decided_ns)


def event_id(number: int) -> str:
    """Return the id of an event, a UUID that tells its number."""
    return f"{number >> 48:08x}-0000-4000-8000-{number & (1 << 48) - 1:012x}"


def number_of(identity: str | bytes) -> int:
    """Return the number of the event that has an id; raises ValueError where it is none of ours."""
    text = identity.decode() if isinstance(identity, bytes) else identity
    if not _ID.fullmatch(text.encode()):
        raise ValueError(f"{text!r} is no id of this benchmark")
    return int(text[:8], 16) << 48 | int(text[-12:], 16)


def is_marked(number: int) -> bool:
    """Say whether the rule fires on an event."""
    return number % SHARE == 0


def level_of(number: int) -> float:
    """Return the level an event tells: as none before where it is marked, else one below, another than the last."""
    return FIRES_FROM + number // SHARE if is_marked(number) else float(number % 97)


def marked_by(value: float) -> int:
    """Return the number of the marked event whose level is `value`."""
    return round(value - FIRES_FROM) * SHARE


def trace_id(number: int) -> str:
    """Return the W3C trace id that a marked event carries when traces are wanted."""
    return f"{number + 1:032x}"


class Subject(Protocol):
    """Who is measured: which events it hears, and how one of them is recognised in what it publishes."""

    outputs: int

    def topic(self, device: str) -> str: ...

    def numbers(self, message: Msg) -> list[int]: ...


class AgentSubject:
    """The agent: its commands on NATS name the event they go back to."""

    outputs = SHARE  # events that one output stands for
    pattern = subjects.own_commands(GATEWAY, AGENT)

    def topic(self, device: str) -> str:
        """Return the topic of a machine's events."""
        return f"edgex/events/device/{KEY}/{PROFILE.name}/{device}/Level"

    def numbers(self, message: Msg) -> list[int]:
        """Return the event a command goes back to."""
        return [number_of(wire.decode(Command, message.data).cause.event_id)]


class PeerSubject:
    """Any service that publishes what it made of an event: the event's id is in there."""

    outputs = 1

    def __init__(self, topic: str, events: str) -> None:
        """Name the topic it publishes on, and the one it hears below the base."""
        self.pattern = subjects.topic_to_subject(topic)
        self._events = events

    def topic(self, device: str) -> str:
        """Return the topic of a machine's events."""
        return f"edgex/{self._events}/{KEY}/{PROFILE.name}/{device}/Level"

    def numbers(self, message: Msg) -> list[int]:
        """Return the event, from the bytes where its id stands in plain sight."""
        found = _ID.search(message.data)
        if found is None:
            payload = decode_envelope(message.data, message.headers).payload
            found = _ID.search(repr(payload).encode())
        return [number_of(found[0])] if found else []


class Traffic:
    """Sends events and stamps what comes back; numbers never come again, so nothing is set to one value twice."""

    def __init__(self, bus: Bus, machines: list[str], *, traced: bool = False) -> None:
        """Use a connection of the owner's; `traced`: marked events begin a recorded trace."""
        self._bus, self._machines, self._traced = bus, machines, traced
        self._next = SHARE
        self._pass = Pass()
        self._answered = 0
        self._progress = asyncio.Event()
        self._acks = bus.client.new_inbox()
        self.heard: Counter[str] = Counter()  # outputs so far, by a subject's pattern

    async def listen(self, subject: "AgentSubject | PeerSubject") -> None:
        """Stamp what a subject publishes, and the stream's word for marked events, from now on."""
        client = self._bus.client
        limits = {"pending_msgs_limit": -1, "pending_bytes_limit": -1}

        async def on_output(message: Msg) -> None:
            now_ns = time.time_ns()
            self.heard[subject.pattern] += 1
            for number in subject.numbers(message):
                self._seen(number, now_ns, subject.outputs)

        await client.subscribe(subject.pattern, cb=on_output, **limits)
        if isinstance(subject, AgentSubject):
            await client.subscribe(f"{self._acks}.*", cb=self._on_stored, **limits)

    async def _on_stored(self, message: Msg) -> None:
        mark = self._pass.marks.get(int(message.subject.rsplit(".", 1)[1]))
        if mark is not None:
            mark.stored_ns = time.time_ns()

    def _seen(self, number: int, now_ns: int, stands_for: int) -> None:
        self._answered += stands_for
        self._progress.set()
        mark = self._pass.marks.get(number)
        if mark is not None and not mark.decided_ns:
            mark.decided_ns = now_ns

    # --- passes ------------------------------------------------------------------------------------

    async def at_rate(self, subject: "AgentSubject | PeerSubject", rate: float, seconds: float) -> Pass:
        """Send `rate` events a second for some seconds, whatever comes back, and wait for the last answers."""
        self._begin()
        began_s, due, total = time.monotonic(), 0, int(rate * seconds)
        while due < total:
            due = min(int((time.monotonic() - began_s) * rate) + 1, total)
            while self._pass.sent < due:
                await self._send(subject)
            await asyncio.sleep(0.001)
        self._pass.took_s = time.monotonic() - began_s
        return await self._rest()

    async def at_most(self, subject: "AgentSubject | PeerSubject", seconds: float) -> Pass:
        """Send as many events as are answered, `WINDOW` of them under way: the highest rate that can last."""
        self._begin()
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            if self._pass.sent - self._answered >= WINDOW:
                self._progress.clear()
                try:
                    async with asyncio.timeout(SILENCE_S):
                        await self._progress.wait()
                except TimeoutError:
                    break
                continue
            for _ in range(20):
                await self._send(subject)
            await asyncio.sleep(0)
        found = await self._rest()
        found.took_s = time.monotonic() - began_s  # until the last was answered: what waited counts
        return found

    def _begin(self) -> None:
        self._next += -self._next % SHARE
        self._pass, self._answered = Pass(), 0

    async def _rest(self) -> Pass:
        give_up_s = time.monotonic() + SILENCE_S
        answered = self._answered
        while self._pass.missed and time.monotonic() < give_up_s:
            if self._answered != answered:
                answered, give_up_s = self._answered, time.monotonic() + SILENCE_S
            await asyncio.sleep(0.002)
        return self._pass

    async def _send(self, subject: "AgentSubject | PeerSubject") -> None:
        number, self._next = self._next, self._next + 1
        # One machine after the other, and the marked events on all of them in turn.
        machine = self._machines[(number + number // SHARE) % len(self._machines)]
        topic = subjects.topic_to_subject(subject.topic(machine))
        reply, headers = "", None
        marked = is_marked(number)
        if marked:
            self._pass.marks[number] = Marks()
            reply = f"{self._acks}.{number}" if isinstance(subject, AgentSubject) else ""
            headers = {"traceparent": f"00-{trace_id(number)}-{number + 1:016x}-01"} if self._traced else None
        self._pass.sent += 1
        now_ns = time.time_ns()
        if marked:
            self._pass.marks[number].sent_ns = now_ns
        await self._bus.client.publish(topic, message_of(number, machine, now_ns), reply, headers)


def message_of(number: int, machine: str, now_ns: int) -> bytes:
    """Return an event of one reading in EdgeX's envelope, as a Go device service writes it: some 650 bytes."""
    identity = event_id(number)
    return (
        f'{{"apiVersion":"v3","receivedTopic":"","correlationID":"{identity}","requestID":"","errorCode":0,"payload":'
        f'{{"apiVersion":"v3","requestId":"{identity}","event":{{"apiVersion":"v3","id":"{identity}",'
        f'"deviceName":"{machine}","profileName":"{PROFILE.name}","sourceName":"Level","origin":{now_ns},"readings":'
        f'[{{"id":"{identity}","origin":{now_ns},"deviceName":"{machine}","resourceName":"Level","profileName":'
        f'"{PROFILE.name}","valueType":"Float64","value":"{level_of(number)!r}"}}]}}}},'
        f'"contentType":"application/json"}}'
    ).encode()
