"""The guard's own picture of the devices: last readings from the bus, and what it set itself.

It never takes an agent's word. At start it reads the newest event of each device from the events stream.

Source: design.md section 3.6.
"""

import logging
from collections import defaultdict, deque
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.edgex_bus import EdgexBus
from edgeagents.errors import InvalidInputError, NotFoundError, UnavailableError
from edgeagents.model.agent import Sample
from edgeagents.model.device import Event
from edgeagents.model.envelope import EdgexMessage, EventMessage
from edgeagents.model.values import parse_value
from edgeagents.protocol.gate import Key, PastSet, Picture
from edgeagents.settings import SiteTime
from services.guard.ledger import Ledger

log = logging.getLogger(__name__)

KEPT_SETS: Final = 512  # per resource; more than any sane rate limit counts


class LivePicture:
    """Mutable holder of a `Picture`; readings only ever get newer."""

    def __init__(self, site_time: SiteTime) -> None:
        """Start knowing nothing."""
        self._site_time = site_time
        self._readings: dict[Key, Sample] = {}
        self._sets: defaultdict[Key, deque[PastSet]] = defaultdict(lambda: deque(maxlen=KEPT_SETS))

    def view(self, device: str, resource: str) -> Picture:
        """Return what the gate needs for one command: all readings, and the sets of that resource."""
        key = (device, resource)
        past = self._sets.get(key)
        return Picture(self._readings, {key: tuple(past)} if past else {})

    def reading(self, key: Key) -> Sample | None:
        """Return the last reading of a resource."""
        return self._readings.get(key)

    def see(self, event: Event) -> None:
        """Take an event's readings in; unreadable ones are left out."""
        for reading in event.readings:
            try:
                value = reading.decoded()
            except InvalidInputError as error:
                log.warning("reading of %s/%s: %s", event.device_name, reading.resource_name, error)
                continue
            origin_ns = reading.origin or event.origin
            key = (event.device_name, reading.resource_name)
            known = self._readings.get(key)
            if known is None or known.origin_ns <= origin_ns:
                self._readings[key] = Sample(value, origin_ns, self._site_time.at_ns(origin_ns))

    def went_out(self, key: Key, past: PastSet) -> None:
        """Note what was set."""
        self._sets[key].append(past)

    async def on_message(self, message: EdgexMessage) -> None:
        """Take in a bus message if it is an event."""
        if isinstance(message, EventMessage):
            self.see(message.event)

    def load(self, ledger: Ledger, devices: DeviceCache, since_site_s: float) -> None:
        """Take in what the ledger says was set."""
        for device, resource, agent, text, site_s in ledger.past_sets(since_site_s):
            profile = devices.profile_of(device)
            found = profile.resource(resource) if profile else None
            if found is not None:
                self.went_out(
                    (device, resource), PastSet(agent, parse_value(found.properties.value_type, text), site_s)
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
                message = await edgex.decode(topic, stored.data, stored.headers)
                if message is not None:
                    await self.on_message(message)
                    count += 1
        except (NotFoundError, UnavailableError) as error:
            log.warning("no past events for the picture: %s", error)
        return count
