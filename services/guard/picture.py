"""The guard's own picture of the devices: last readings from the bus, and what it set itself.

It never takes an agent's word. At start it reads the newest event of each device from the events stream.

Source: design.md section 3.6.
"""

import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.adapters.plain_events import event_names
from edgeagents.errors import InvalidInputError, NotFoundError, UnavailableError
from edgeagents.model.agent import Sample
from edgeagents.model.device import Event
from edgeagents.model.values import Value, parse_value
from edgeagents.protocol.gate import Key, PastSet, Picture
from edgeagents.settings import SiteTime
from services.guard.concerns import Concerns
from services.guard.ledger import Ledger

log = logging.getLogger(__name__)

PastRow: TypeAlias = tuple[str, str, str, str, float]  # device, resource, agent, value, site time
KEPT_SETS: Final = 512  # per resource; more than any sane rate limit counts


class LivePicture:
    """Mutable holder of a `Picture`; readings only ever get newer."""

    def __init__(
        self, site_time: SiteTime, wall_ns: Callable[[], int] = time.time_ns, kept_sets: int = KEPT_SETS
    ) -> None:
        """Start knowing nothing; `kept_sets` is how many past sets of a resource the owner's rates can count."""
        self._kept_sets = kept_sets
        self._site_time = site_time
        self._wall_ns = wall_ns
        self._readings: dict[Key, Sample] = {}
        self._sets: defaultdict[Key, deque[PastSet]] = defaultdict(lambda: deque(maxlen=self._kept_sets))
        self._unresolved: dict[Key, list[Value]] = {}
        self.view: Final = Picture(self._readings, self._sets, self._unresolved)  # live: the gate judges in one go
        self.unreadable: Counter[str] = Counter()  # readings left out, by device
        self.on_reading: Callable[[Key, Value], None] = lambda key, value: None
        self.on_event: Callable[[str], None] = lambda device: None
        self.knows: Callable[[str], bool] = lambda device: True

    def see(self, event: Event) -> None:
        """Take an event's readings in; unreadable ones are left out."""
        if not self.knows(event.device_name):
            return  # anybody may make up names, as many as they like
        for reading in event.readings:
            try:
                value = reading.decoded()
            except InvalidInputError as error:
                self.unreadable[event.device_name] += 1
                if self.unreadable[event.device_name] == 1:
                    text = "reading of %s/%s: %s (further ones of this device are only counted)"
                    log.warning(text, event.device_name, reading.resource_name, error)
                continue
            # A clock that runs ahead must neither keep a value fresh nor keep later readings out.
            origin_ns = min(reading.origin or event.origin, self._wall_ns())
            key = (event.device_name, reading.resource_name)
            known = self._readings.get(key)
            if known is None or known.origin_ns <= origin_ns:
                self._readings[key] = Sample(value, origin_ns, self._site_time.at_ns(origin_ns))
                self.on_reading(key, value)

    def went_out(self, key: Key, past: PastSet) -> None:
        """Note what is being set: from now on it may be so."""
        self._sets[key].append(past)

    def doubt(self, key: Key, values: Sequence[Value]) -> None:
        """Note what may still take effect on a resource, in place of what was noted before; empty: nothing."""
        if values:
            self._unresolved[key] = list(values)
        else:
            self._unresolved.pop(key, None)

    def shift(self, by_wall_ns: int) -> None:
        """Move all past times: the wall clock was set. What was recent stays as recent as it was."""
        by_site_s = self._site_time.at_ns(by_wall_ns) - self._site_time.at_ns(0)
        for key, sample in self._readings.items():
            self._readings[key] = Sample(sample.value, sample.origin_ns + by_wall_ns, sample.site_s + by_site_s)
        for past in self._sets.values():
            moved = [replace(item, site_s=item.site_s + by_site_s) for item in past]
            past.clear()
            past.extend(moved)

    def took_back(self, key: Key, past: PastSet) -> None:
        """Note that it was certainly not set."""
        if past in self._sets[key]:
            self._sets[key].remove(past)

    def take(self, event: Event) -> None:
        """Take in an event of the bus."""
        self.see(event)
        self.on_event(event.device_name)

    async def follow(self, edgex: EdgexBus, concerns: Concerns) -> None:
        """Take in the events of the bus from now on; of those that concern no decision, that their device is there.

        Raises:
            UnavailableError: the connection is closed.
        """

        def wants(topic: str) -> bool:
            if concerns.reads(topic, edgex.base):
                return True
            if names := event_names(topic, edgex.base):
                self.on_event(names[0][1])
            return False

        await edgex.subscribe_events("events/device/#", self.take, wants)

    def load(self, ledger: Ledger, devices: DeviceCache, since_site_s: float) -> None:
        """Take in what the ledger says was set."""
        self._take(ledger.past_sets(since_site_s), devices)

    def widen(self, rows: Iterable[PastRow], devices: DeviceCache, kept_sets: int) -> None:
        """Take in what the ledger says was set before all that is known: the owner's rules look further back now."""
        self._kept_sets = max(self._kept_sets, kept_sets)
        known = {key: list(past) for key, past in self._sets.items() if past}
        self._sets.clear()
        self._take(rows, devices)
        for key, past in known.items():
            older = [item for item in self._sets[key] if item.site_s < past[0].site_s]
            self._sets[key] = deque([*older, *past], maxlen=self._kept_sets)

    def _take(self, rows: Iterable[PastRow], devices: DeviceCache) -> None:
        for device, resource, agent, text, site_s in rows:
            profile = devices.profile_of(device)
            found = profile.resource(resource) if profile else None
            if found is None:
                continue
            try:
                value = parse_value(found.properties.value_type, text)
            except InvalidInputError as error:  # its profile was another one then
                log.warning("past set of %s/%s: %s", device, resource, error)
                continue
            # Site time may have begun anew since: what was set was not set in times to come.
            self.went_out(
                (device, resource), PastSet(agent, value, min(site_s, self._site_time.at_ns(self._wall_ns())))
            )

    async def read_back(self, bus: Bus, edgex: EdgexBus) -> int:
        """Take in the newest event of each subject the events stream holds, and return how many there were."""
        count = 0
        try:
            pattern = subjects.topic_to_subject(f"{edgex.base}/events/device/#", bus.settings.edgex_bus)
            async for stored in bus.read(
                subjects.EVENTS_STREAM, [pattern], name="guard-picture", last_per_subject=True
            ):
                topic = subjects.subject_to_topic(stored.subject, bus.settings.edgex_bus)
                event = await edgex.event(topic, stored.data, stored.headers)
                if event is not None:
                    self.take(event)
                    count += 1
        except (NotFoundError, UnavailableError) as error:
            log.warning("no past events for the picture: %s", error)
        return count
