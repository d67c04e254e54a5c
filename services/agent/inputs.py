"""Streams -> the agent's inputs: durable consumers for events, rule results and outcomes, into one queue.

Source: design.md section 4.
"""

import asyncio
import itertools
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Collection
from urllib.parse import quote, unquote

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, StoredMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.plain_events import Names, event_names
from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError, TooLargeError, UnavailableError
from edgeagents.model.agent import AgentDefinition, Watch
from edgeagents.model.device import Device, Event
from edgeagents.model.message import Outcome
from edgeagents.protocol.gate import Key
from edgeagents.settings import EdgexBusType
from services.agent.answers import Answers, stored_question
from services.agent.loop import AskInput, EventInput, Input, OutcomeInput, RuleInput, ThoughtInput
from services.agent.perception import Twin
from services.agent.questions import Question
from services.agent.thinking import stored_thought
from services.agent.trigger import stored_event

log = logging.getLogger(__name__)

MOST_TOPICS = 8192
MOST_FILTERS = 128
WAITING = 32  # inputs read ahead: so long a command that was decided on may wait to be sent, a few ms


class Inputs:
    """Feeds one queue from the agent's durable consumers."""

    def __init__(self, bus: Bus, edgex: EdgexBus, agent: AgentDefinition, devices: DeviceCache) -> None:
        """Prepare; the `run_*` tasks do the rest."""
        self._bus = bus
        self._edgex = edgex
        self._agent = agent
        self._devices = devices
        self._gateway = bus.settings.gateway
        self._durable = subjects.agent_durable(agent.name)
        self._watched: dict[str, bool] = {}  # by topic below the base; where the topic tells
        self.queue: asyncio.Queue[Input] = asyncio.Queue(WAITING)
        self.counts: Counter[str] = Counter()  # received, invalid, filtered
        self.hears_outcomes = asyncio.Event()  # how commands end is not missed from now on
        self.answers: Answers | None = None  # of an agent that people talk to

    @property
    def filters(self) -> list[str]:
        """Return the subjects the agent's consumer asks for; what it watches in detail is checked on each event."""
        return event_filters(self._agent, self._edgex.base, self._bus)

    async def replay(
        self, twin: Twin, back_wall_s: float, only: Collection[Key] = (), until_wall_s: float = 0.0
    ) -> int:
        """Give the twin the events of the past that were handled before this start; return how many.

        Args:
            twin: takes them in.
            back_wall_s: how far back, wall time; 0: nothing.
            only: read but these resources; empty: all that is watched.
            until_wall_s: what is younger than this is left out, wall time.
        """
        count = 0
        floor = await self._floor()
        if floor == 0 or back_wall_s <= until_wall_s:
            return 0
        name, now_s = f"{self._durable}_replay", time.time()
        until_ns = (now_s - until_wall_s) * 1e9
        try:
            async for message in self._bus.read(
                subjects.EVENTS_STREAM, self.filters, name=name, start_s=now_s - back_wall_s
            ):
                is_past = message.sequence <= floor and message.time_ns <= until_ns
                if not is_past or (only and not is_from(self._below(message), only)):
                    continue
                event = await self._event(message)
                if event is not None and self._is_watched(message, event):
                    twin.remember(event, message.time_ns)
                    count += 1
        except (NotFoundError, UnavailableError) as error:
            log.warning("no past events: %s", error)
        return count

    async def run_events(self) -> None:
        """Feed events for ever."""
        self._devices.on_change(lambda change: self._watched.clear())
        self._watched.clear()  # the replay filled it, and until now nobody noted what changed
        async for message in self._bus.consume(subjects.EVENTS_STREAM, self._durable, self.filters, deliver_new=True):
            self.counts["received"] += 1
            if not self._may_be_watched(self._topic(message)):
                self.counts["filtered"] += 1
                await message.ack()
                continue
            event = await self._event(message)
            await self._put(message, event, event is not None and self._is_watched(message, event))

    async def run_rules(self) -> None:
        """Feed rule results, and events that came by HTTP, for ever."""
        subject = subjects.trigger(self._gateway, self._agent.name)
        async for message in self._bus.consume(subjects.TRIGGERS_STREAM, self._durable, [subject]):
            self.counts["received"] += 1
            try:
                question = stored_question(message)
                if question is not None:
                    await self._put_question(message, question)
                    continue
                thought = stored_thought(message)
                if thought is not None:
                    await self.queue.put(ThoughtInput(message, thought))
                    continue
                event = stored_event(message)
                result = json.loads(message.data) if event is None else {}
            except (InvalidInputError, TooLargeError, ValueError, RecursionError):
                await self._put(message, None, False)
                continue
            if event is not None:
                await self._put(message, event, is_watched(self._agent, event, "", self._devices))
                continue
            await self.queue.put(RuleInput(message, result if isinstance(result, dict) else {}))

    async def _put_question(self, message: StoredMessage, question: Question) -> None:
        if self.answers is None:  # its file no longer says that it answers
            await self._put(message, None, False)
            return
        await self.queue.put(AskInput(message, question, await self.answers.hear(question)))

    async def run_outcomes(self) -> None:
        """Feed outcomes for ever."""
        subject = subjects.outcomes(self._gateway, self._agent.name)
        outcomes = self._bus.consume(
            subjects.COMMANDS_STREAM, self._durable, [subject], deliver_new=True, created=self.hears_outcomes
        )
        async for message in outcomes:
            try:
                outcome = wire.decode(Outcome, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
            except MalformedMessageError as error:
                log.error("outcome %d cannot be read: %s", message.sequence, error)
                await message.ack()
                continue
            await self.queue.put(OutcomeInput(message, outcome))

    async def _floor(self) -> int:
        while True:
            try:
                return await self._bus.acknowledged(subjects.EVENTS_STREAM, self._durable)
            except NotFoundError:
                return 0
            except UnavailableError:
                await asyncio.sleep(0.25)

    async def _event(self, message: StoredMessage) -> Event | None:
        return await self._edgex.event(self._topic(message), message.data, message.headers)

    async def _put(self, message: StoredMessage, event: Event | None, watched: bool) -> None:
        if event is not None and watched:
            # What came by HTTP has no topic: subscriptions do not concern it.
            topic = self._below(message) if message.stream == subjects.EVENTS_STREAM else ""
            await self.queue.put(EventInput(message, event, topic))
            return
        self.counts["invalid" if event is None else "filtered"] += 1
        await message.ack()

    def _is_watched(self, message: StoredMessage, event: Event) -> bool:
        topic = self._topic(message)
        names = event_names(topic, self._edgex.base)
        if names is not None and (event.profile_name, event.device_name, event.source_name) in names:
            return self._may_be_watched(topic)
        return is_watched(self._agent, event, self._below(message), self._devices)

    def _may_be_watched(self, topic: str) -> bool:
        """Say whether an event on a topic is watched, by what the topic says alone; True where it does not tell."""
        found = self._watched.get(topic)
        if found is None:
            if len(self._watched) >= MOST_TOPICS:
                self._watched.clear()
            names = event_names(topic, self._edgex.base)
            below = topic.removeprefix(f"{self._edgex.base}/")
            found = names is None or any_watches(self._agent, names[0], below, self._devices)
            self._watched[topic] = found
        return found

    def _below(self, message: StoredMessage) -> str:
        return self._topic(message).removeprefix(f"{self._edgex.base}/")

    def _topic(self, message: StoredMessage) -> str:
        return subjects.subject_to_topic(message.subject, self._bus.settings.edgex_bus)


def is_watched(agent: AgentDefinition, event: Event, topic: str, devices: DeviceCache) -> bool:
    """Say whether an agent's file asks for this event.

    Args:
        agent: its definition.
        event: the event.
        topic: its topic below the base.
        devices: for labels; a device not known yet has none.
    """
    names = (event.profile_name, event.device_name, event.source_name)
    return any_watches(agent, names, topic, devices)


def any_watches(agent: AgentDefinition, names: Names, topic: str, devices: DeviceCache) -> bool:
    """Say whether an agent's file asks for events of a profile, a device and a source; arguments as `is_watched`."""
    profile, device, source = names
    known = devices.device(device) or Device(name=device, profile_name=profile)
    return any(_fits(watch, known, source, topic) for watch in agent.watches)


def _fits(watch: Watch, device: Device, source: str, topic: str) -> bool:
    if watch.topic:
        return topic == watch.topic
    if topic.startswith("rules/"):
        return False
    return watch.fits(device) and (not watch.resources or source in watch.resources)


def is_from(topic: str, keys: Collection[Key]) -> bool:
    """Say whether an event topic below the base names one of these device resources, without a look at the event."""
    levels = topic.split("/")
    return len(levels) == 6 and (unquote(levels[4]), unquote(levels[5])) in keys


def event_filters(agent: AgentDefinition, base: str, bus: Bus) -> list[str]:
    """Return NATS filters that cover what an agent watches; no two overlap, as a consumer demands.

    What a watch says of profile, device (without wildcard) and resources narrows its filters. Where those of two
    watches would overlap, neither covering the other, or where they are too many, wider ones take their place: first
    without resources, then all device events.
    """
    kind = bus.settings.edgex_bus
    wanted = {watch.topic for watch in agent.watches if watch.topic}
    for precise in ("resources", "devices", ""):
        topics = wanted.union(*(_device_topics(watch, kind, precise) for watch in agent.watches if not watch.topic))
        found = sorted({subjects.topic_to_subject(f"{base}/{topic}", kind) for topic in topics})
        kept = [item for item in found if not any(_covers(other, item) for other in found if other != item)]
        if len(kept) <= MOST_FILTERS and not any(_meet(*pair) for pair in itertools.combinations(kept, 2)):
            break
    return kept


def _device_topics(watch: Watch, kind: EdgexBusType, precise: str) -> set[str]:
    """Return topic filters for what a watch takes, as publishers may write the names; `precise`: down to what."""
    profiles = _spellings(watch.profile) if watch.profile and precise else {"+"}
    devices = _spellings(watch.device) if watch.device and "*" not in watch.device and precise else {"+"}
    # With EdgeX on NATS a dot in a name parts levels: how many there are before the source is not known.
    names = watch.resources if precise == "resources" and kind == "mqtt" else ()
    ends = {f"/{level}" for name in names for level in _spellings(name)} or {"/#"}
    found = {f"events/device/+/{'/'.join(pair)}{end}" for pair in itertools.product(profiles, devices) for end in ends}
    return {re.sub(r"(/\+)+/#$", "/#", topic) for topic in found}


def _spellings(name: str) -> set[str]:
    """Return how publishers write a name as a level of a topic: as it is, percent-encoded, or all but letters so.

    EdgeX with `EnableNameFieldEscape` writes it as Go's url.PathEscape does, and `+`, `-`, `.`, `_`, `~` encoded, too.
    """
    raw, plain = (_encoded(name, which) for which in ("/+#*>", "/+#*>%"))
    encoded, by_edgex = quote(name, safe=""), quote(name, safe="$&=:@")
    return {raw, plain, encoded, _encoded(encoded, "-._~"), _encoded(by_edgex, "-._~")}


def _encoded(name: str, which: str) -> str:
    return "".join(
        f"%{ord(letter):02X}" if letter in which else quote(letter, safe="") if letter.isspace() else letter
        for letter in name
    )


def _covers(wide: str, narrow: str) -> bool:
    """Say whether a filter takes all that another one takes."""
    ours, theirs = wide.split("."), narrow.split(".")
    if ours[-1] == ">":
        ours, theirs = ours[:-1], theirs[: len(ours) - 1]
    pairs = list(zip(ours, theirs, strict=False))
    return len(ours) == len(theirs) and all(own == other or (own == "*" and other != ">") for own, other in pairs)


def _meet(one: str, other: str) -> bool:
    """Say whether some subject fits two filters."""
    for left, right in itertools.zip_longest(one.split("."), other.split(".")):
        if left is None or right is None:
            return False
        if ">" in (left, right):
            return True
        if "*" not in (left, right) and left != right:
            return False
    return True
