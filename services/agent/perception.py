"""Events -> observations: the agent's own picture of its devices, with what was recent.

Late, repeated and unreadable readings are counted and set aside. Whether anything that matters changed is decided
here, so that no model runs for an event that changes nothing.

Source: design.md section 3.2.
"""

import itertools
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import Observation, Recent, Sample
from edgeagents.model.device import Event
from edgeagents.model.message import Cause
from edgeagents.model.values import Value
from edgeagents.protocol.gate import Key
from edgeagents.settings import SiteTime
from services.agent.habit import Habit
from services.agent.recent import statistic

KEPT_SAMPLES: Final = 2048  # per resource
KNOWN_EVENTS: Final = 4096
UNCHANGED_S: Final = 60.0  # site seconds after which an unchanged value is looked at again: time of day matters too


@dataclass(frozen=True, slots=True)
class _Told:
    """A statistic as it was told last."""

    sample: Sample | None
    adds: int  # samples of its resource so far
    site_s: float
    oldest_s: float  # as long as no sample of its span is older than the span, it holds; -inf: at its moment alone


class Twin:
    """What an agent knows of its devices."""

    def __init__(
        self, site_time: SiteTime, matters: Collection[Key], keep_s: float, usual: Collection[Key] = (),
        looked_back: Collection[Key] | None = None,
    ) -> None:  # fmt: skip
        """Start empty.

        Args:
            site_time: turns an event's origin into site time.
            matters: the resources some rule reads or sets.
            keep_s: how far back samples are kept, site seconds.
            usual: the resources of which it is kept for weeks at which time of day they were so.
            looked_back: the resources of which more than the newest sample is kept; None: all.
        """
        self._site_time = site_time
        self._matters = frozenset(matters)
        self._keep_s = keep_s
        self._habits = {key: Habit() for key in usual}
        self._looked_back = None if looked_back is None else frozenset(looked_back)
        self._samples: dict[Key, deque[Sample]] = {}
        self._adds: Counter[Key] = Counter()
        self._told: dict[Recent, _Told] = {}  # as many as the files of agent and gateway name
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._looked_s: dict[Key, float] = {}
        self._touched: set[Key] = set()
        self.counts: Counter[str] = Counter()

    def matters(self, key: Key) -> bool:
        """Say whether some rule reads or sets a resource."""
        return key in self._matters

    def take_touched(self) -> set[Key]:
        """Return the resources some rule reads or sets that have a new sample since the last call."""
        found, self._touched = self._touched, set()
        return found

    def latest(self, key: Key) -> Sample | None:
        """Return the newest sample of a resource."""
        samples = self._samples.get(key)
        return samples[-1] if samples else None

    @property
    def readings(self) -> dict[Key, Sample]:
        """Return the newest sample of every resource."""
        return {key: samples[-1] for key, samples in self._samples.items()}

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        """Return a statistic over the last samples of a resource; None when there is none to take it of.

        Args:
            recent: which resource, how far back, which statistic.
            site_s: site time now.
        """
        key = recent.key
        last = self.latest(key)
        if last is None:
            return None
        # Many rules ask the same at one moment, and most events bring a sample to other spans than this one.
        told, adds, start_s = self._told.get(recent), self._adds[key], site_s - recent.over
        if (
            told is not None
            and told.adds == adds
            and (told.site_s == site_s or (told.site_s < site_s and start_s <= told.oldest_s))
        ):
            return told.sample
        if recent.take == "usual":
            habit, oldest_s = self._habits.get(key), -math.inf
            value = habit.share(site_s, recent.ahead, recent.over) if habit is not None else None
        else:
            span = self._since(key, start_s)
            value = statistic(recent.take, span, site_s)
            oldest_s = -math.inf if recent.take == "age" else min((item.site_s for item in span), default=math.inf)
        value = recent.otherwise if value is None else value
        sample = None if value is None else Sample(value, last.origin_ns, last.site_s)
        if told is not None and told.adds == adds and _is_same(told.sample, sample):
            sample = told.sample  # the very one: rules see by that that nothing is new
        self._told[recent] = _Told(sample, adds, site_s, oldest_s)
        return sample

    def _since(self, key: Key, start_s: float) -> list[Sample]:
        # The newest lie at the end, and most spans are short.
        found = list(itertools.takewhile(lambda item: item.site_s >= start_s, reversed(self._samples.get(key, ()))))
        return found[::-1]

    def observe(self, event: Event, cause: Cause, site_s: float) -> Observation | None:
        """Take an event in; None when it is a repetition or changes nothing that matters.

        Args:
            event: what the device reported.
            cause: the stored message it came in.
            site_s: site time now.
        """
        if event.id in self._seen:
            self.counts["repeated"] += 1
            return None
        self._see(event.id)
        changed = self._take(event, site_s)
        if not changed:
            self.counts["unchanged"] += 1
            return None
        return Observation(cause, event.device_name, changed, site_s)

    def remember(self, event: Event, stored_ns: int) -> None:
        """Take in an event from before this start, as history only; `stored_ns` is when the stream got it."""
        self._see(event.id)
        self._take(event, self._site_time.at_ns(stored_ns))

    def set_value(self, key: Key, value: Value, origin_ns: int, site_s: float) -> None:
        """Take in a value known otherwise: proven by the guard, or from a rule result; not over a newer one."""
        before = self.latest(key)
        if before is not None and before.origin_ns > origin_ns:
            self.counts["late"] += 1
            return
        self._add(key, Sample(value, origin_ns, site_s))

    def shift(self, by_wall_ns: int) -> None:
        """Move all that is known: the wall clock was set. What was recent stays as recent as it was."""
        by_site_s = self._site_time.factor * by_wall_ns / 1e9
        for samples in self._samples.values():
            moved = [Sample(item.value, item.origin_ns + by_wall_ns, item.site_s + by_site_s) for item in samples]
            samples.clear()
            samples.extend(moved)
        self._told.clear()
        self._touched |= self._matters
        self._looked_s = {key: looked_s + by_site_s for key, looked_s in self._looked_s.items()}

    def _see(self, event_id: str) -> None:
        self._seen[event_id] = None
        if len(self._seen) > KNOWN_EVENTS:
            self._seen.popitem(last=False)

    def _past_ns(self, origin_ns: int, site_s: float) -> int:
        """Return an origin that is not in the future: a clock ahead must not keep all later readings out."""
        ahead_s = self._site_time.wall_duration_s(self._site_time.at_ns(origin_ns) - site_s)
        return origin_ns - int(ahead_s * 1e9) if ahead_s > 0 else origin_ns

    def _take(self, event: Event, site_s: float) -> dict[str, Sample]:
        changed: dict[str, Sample] = {}
        for reading in event.readings:
            key = (event.device_name, reading.resource_name or event.source_name)
            origin_ns = self._past_ns(reading.origin or event.origin, site_s)
            try:
                sample = Sample(reading.decoded(), origin_ns, self._site_time.at_ns(origin_ns))
            except InvalidInputError:
                self.counts["unreadable"] += 1
                continue
            before = self.latest(key)
            if before is not None and before.origin_ns > origin_ns:
                self.counts["late"] += 1
                continue
            self._add(key, sample)
            if key in self._matters and self._is_news(key, before, sample, site_s):
                self._looked_s[key] = site_s
                changed[key[1]] = sample
        return changed

    def _is_news(self, key: Key, before: Sample | None, sample: Sample, site_s: float) -> bool:
        if before is None or before.value != sample.value:
            return True
        return site_s - self._looked_s.get(key, -math.inf) >= UNCHANGED_S

    def _add(self, key: Key, sample: Sample) -> None:
        samples = self._samples.get(key)
        if samples is None:
            is_kept = self._looked_back is None or key in self._looked_back
            samples = self._samples[key] = deque(maxlen=KEPT_SAMPLES if is_kept else 1)
        samples.append(sample)
        self._adds[key] += 1
        if key in self._matters:
            self._touched.add(key)
        if key in self._habits and isinstance(sample.value, (bool, int, float)):
            self._habits[key].add(sample.site_s, bool(sample.value))
        while len(samples) > 1 and sample.site_s - samples[0].site_s > self._keep_s:
            samples.popleft()


def _is_same(one: Sample | None, other: Sample | None) -> bool:
    """Say whether two statistics are the same, bit for bit: 0.0 and -0.0 are not."""
    return one == other and (one is None or other is None or repr(one.value) == repr(other.value))
