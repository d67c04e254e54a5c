"""The shipped agents and site.yaml, deciding and judged by the real code, in one thread without a broker.

Real are: the YAML files, `Twin`, `RuleBook`, `RuleStage` and `decide`; the guard's gate, its picture of the devices and
the lease protocol with priorities; the auto events of the device files, at sixty-fold time. Left out is what carries
messages: a command arrives at once and a SET is proven in the same minute.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Final

from edgeagents.adapters.auto_events import parse_interval_s
from edgeagents.adapters.files import load_agents, load_site
from edgeagents.adapters.provisioning import Inventory, load_inventory
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.device import AutoEvent, Device, DeviceResource, Event, make_reading
from edgeagents.model.message import Cause
from edgeagents.model.site import ResourceRule, Site
from edgeagents.model.values import Value, format_value
from edgeagents.protocol import gate, lease
from edgeagents.protocol.effects import Reply, StoreLease
from edgeagents.settings import SiteTime
from services.agent.app import SHORTEST_HISTORY_S
from services.agent.commands import FIRST_HOLD_BACK_S, LONGEST_HOLD_BACK_S, NEVER_S
from services.agent.decision import RuleStage, decide
from services.agent.perception import Twin
from services.agent.rules import RuleBook
from services.guard.picture import LivePicture
from services.world.driver import control_of, read_point
from services.world.home import Home
from services.world.outside import HOUR_S, Scene
from tests.bench.home_run import Change

HOME: Final = Path(__file__).resolve().parents[2] / "edgex-profiles" / "home"
FACTOR: Final = 60.0  # site seconds in a wall second: `make demo` has the same
WALL_START_S: Final = 1_700_000_000.0


@cache
def inventory() -> Inventory:
    """Return the shipped profiles and devices."""
    return load_inventory(HOME / "profiles", HOME / "devices")


@dataclass(slots=True)
class Source:
    """One auto event of one device: when it is due, and what it reported last."""

    device: Device
    resource: DeviceResource
    auto_event: AutoEvent
    every_s: float
    due_s: float = 0.0
    told: Value = None

    @property
    def key(self) -> gate.Key:
        """The device resource."""
        return self.device.name, self.resource.name

    def take(self, value: Value) -> bool:
        """Say whether this value is reported."""
        threshold = self.auto_event.on_change_threshold
        if self.told is not None and self.auto_event.on_change:
            numbers = not isinstance(value, bool) and isinstance(value, (int, float))
            if not (abs(value - self.told) > threshold if numbers else value != self.told):  # type: ignore[operator]
                return False
        self.told = value
        return True


@dataclass(slots=True)
class Thinker:
    """One agent: its picture, its rules, and what it remembers of its commands."""

    agent: AgentDefinition
    rules: RuleBook
    twin: Twin
    stages: tuple[RuleStage, ...]
    watched: frozenset[gate.Key]
    sets: dict[gate.Key, deque[gate.PastSet]] = field(default_factory=dict)
    held_back: dict[tuple[gate.Key, str], tuple[float, float]] = field(default_factory=dict)  # until, next; site s

    @property
    def session(self) -> lease.Session:
        """The one run of this agent."""
        return lease.Session(self.agent.name, "bench")


@dataclass(frozen=True, slots=True)
class SetOut:
    """One command that went out."""

    agent: str
    key: gate.Key
    value: Value
    site_s: float
    because: str


class Agents:
    """The agents and their guard as one controller of the house."""

    def __init__(self, seed: int, start_s: float, definitions: Mapping[str, AgentDefinition] | None = None) -> None:
        """Wire the shipped files, or other agents, for a house of this seed that is run from `start_s` on."""
        self._seed = seed
        self._time = SiteTime(start_s, WALL_START_S, FACTOR)
        found = inventory()
        self._devices = {device.name: device for device in found.devices}
        self._profiles = {profile.name: profile for profile in found.profiles}
        self._site = load_site(HOME / "site.yaml")
        agents = load_agents(HOME / "agents") if definitions is None else definitions
        self._rules = gate.Rules(self._site, agents, self._devices, self._profiles)
        self._sources = [source for device in found.devices for source in self._sources_of(device)]
        self.thinkers = [self._thinker(agents[name]) for name in sorted(agents)]
        self._sources = [source for source in self._sources if source.key in self._needed]
        self._wall_ns = 0
        self._picture = LivePicture(self._time, lambda: self._wall_ns)
        self._table = lease.LeaseTable(generation=1)
        self._sequence = 0
        self.log: list[SetOut] = []
        self.counts: Counter[str] = Counter()

    def _sources_of(self, device: Device) -> list[Source]:
        profile = self._profiles[device.profile_name]
        found = []
        for item in device.auto_events:
            resource = profile.resource(item.source_name)
            assert resource is not None, item.source_name
            found.append(Source(device, resource, item, parse_interval_s(item.interval) * FACTOR))
        return found

    def _thinker(self, agent: AgentDefinition) -> Thinker:
        rules = RuleBook(agent, agent.name)
        twin = Twin(self._time, rules.keys, max(rules.longest_s, HOUR_S), rules.usual)
        watched = frozenset(
            source.key
            for source in self._sources
            if any(
                watch.fits(source.device) and (not watch.resources or source.resource.name in watch.resources)
                for watch in agent.watches
            )
        )
        return Thinker(agent, rules, twin, (RuleStage(agent.name, rules),), watched)

    @property
    def _needed(self) -> set[gate.Key]:
        """Return whose events somebody looks at: agents, or the guard when it judges a command."""
        watched = {key for thinker in self.thinkers for key in thinker.watched | thinker.rules.keys}
        sides = {side for lock in self._site.interlocks for side in (lock.forbid, lock.during)}
        return watched | {(side.device, side.resource) for side in sides}

    # --- the controller ----------------------------------------------------------------------------

    def begin(self, history: Iterable[tuple[Home, Scene]]) -> None:
        """Replay what the stream of events holds from before, as a started agent does."""
        past = list(history)
        habits = {key for thinker in self.thinkers for key in thinker.rules.usual}
        longest_s = max(SHORTEST_HISTORY_S, *(thinker.rules.longest_s for thinker in self.thinkers))
        recent_s = past[-1][0].site_s - longest_s if past else 0.0
        for home, around in past:
            wanted = None if home.site_s >= recent_s else habits
            for event in self._events(home, around, wanted):
                for thinker in self.thinkers:
                    if _key(event) in thinker.watched:
                        thinker.twin.remember(event, event.origin)

    def tick(self, home: Home, around: Scene) -> list[Change]:
        """Let every agent see this minute's events, and carry out what the guard lets pass."""
        changes: list[Change] = []
        for event in self._events(home, around, None):
            self.counts["events"] += 1
            cause = Cause(stream="edgex-events", sequence=self.counts["events"], event_id=event.id)
            cause = cause.model_copy(update={"origin_ns": event.origin})
            for thinker in self.thinkers:
                if _key(event) not in thinker.watched:
                    continue
                observation = thinker.twin.observe(event, cause, home.site_s)
                decision = decide(observation, thinker.twin, thinker.stages) if observation is not None else None
                for intent in decision.intents if decision is not None else ():
                    assert decision is not None
                    changes += self._give(thinker, intent, decision, home.site_s)
        return changes

    def _events(self, home: Home, around: Scene, wanted: set[gate.Key] | None) -> Iterable[Event]:
        self._wall_ns = round((WALL_START_S + (home.site_s - self._time.start_s) / FACTOR) * 1e9)
        for source in self._sources:
            if home.site_s < source.due_s or (wanted is not None and source.key not in wanted):
                continue
            source.due_s = home.site_s + source.every_s
            value = read_point(home, around, self._seed, source.device, source.resource)
            if source.take(value):
                event = self._event(source, value)
                self._picture.see(event)
                yield event

    def _event(self, source: Source, value: Value) -> Event:
        device, resource = source.device, source.resource
        kind = resource.properties.value_type
        event_id = f"{device.name}/{resource.name}/{source.auto_event.interval}/{self._wall_ns}"
        reading = make_reading(
            device.name, device.profile_name, resource.name, kind, value, self._wall_ns, reading_id=event_id
        )
        return Event(
            id=event_id, device_name=device.name, profile_name=device.profile_name, source_name=resource.name,
            origin=self._wall_ns, readings=(reading,),
        )  # fmt: skip

    # --- from a wish to a SET: `services/agent/commands.py` and `services/guard/lanes.py` without their messages ---

    def _give(self, thinker: Thinker, intent: Intent, decision: Decision, site_s: float) -> list[Change]:
        """Carry a wish out; one that counts only as settled waits, since nobody settles anything here."""
        if self._waits_until_settled(thinker, (intent.device, intent.resource)):
            self.counts["waits"] += 1
            return []
        return self._given(thinker, intent, decision, site_s)

    def _waits_until_settled(self, thinker: Thinker, key: gate.Key) -> bool:
        terms = thinker.agent.negotiates
        return terms is not None and terms.waits_for_settlement(*key)

    def _given(self, thinker: Thinker, intent: Intent, decision: Decision, site_s: float) -> list[Change]:
        key = (intent.device, intent.resource)
        text = self._text(key, intent.value)
        until_s, next_s = thinker.held_back.get((key, text), (0.0, FIRST_HOLD_BACK_S * FACTOR))
        if site_s < until_s:
            return []
        data_site_s = self._time.at_ns(decision.data_origin_ns) if decision.data_origin_ns else site_s
        proposal = gate.Proposal(thinker.agent.name, *key, text, data_site_s)
        if not self._agent_would(thinker, proposal, site_s):
            self.counts["held back"] += 1
            return []
        if not self._has_lease(thinker, key, site_s):
            self.counts["no lease"] += 1
            return []
        verdict = gate.judge(proposal, self._rules, self._picture.view, site_s)
        if not isinstance(verdict, gate.Passed):
            self.counts["refused"] += 1
            thinker.held_back[key, text] = (site_s + next_s, min(2 * next_s, LONGEST_HOLD_BACK_S * FACTOR))
            return []
        thinker.held_back.pop((key, text), None)
        return [self._set(thinker, key, verdict, intent, site_s)]

    def _set(self, thinker: Thinker, key: gate.Key, verdict: gate.Passed, intent: Intent, site_s: float) -> Change:
        past = gate.PastSet(thinker.agent.name, verdict.value, site_s)
        self._picture.went_out(key, past)
        self._table, _ = lease.step(self._table, lease.Used(key, site_s))
        thinker.sets.setdefault(key, deque(maxlen=256)).append(past)
        thinker.twin.set_value(key, verdict.value, self._wall_ns, site_s)
        self.log.append(SetOut(thinker.agent.name, key, verdict.value, site_s, intent.because))
        control, room = control_of(self._devices[key[0]], self._resource(key))
        assert isinstance(verdict.value, (bool, int, float))
        return control, verdict.value, room

    def _agent_would(self, thinker: Thinker, proposal: gate.Proposal, site_s: float) -> bool:
        """Say whether the agent's own gate, which knows less than the guard's, lets a wish pass."""
        agents = {thinker.agent.name: thinker.agent}
        rules = gate.Rules(self._told, agents, self._devices, self._profiles)
        picture = gate.Picture(thinker.twin.readings, thinker.sets)
        return not isinstance(gate.judge(proposal, rules, picture, site_s), gate.Refused)

    @cached_property
    def _told(self) -> Site:
        """Return what the guard tells agents of site.yaml: no ranges, interlocks or ages."""
        told = tuple(
            ResourceRule(
                profile=rule.profile, device=rule.device, label=rule.label, resource=rule.resource,
                risk_class=rule.risk_class, kind=rule.kind, minimum_interval=rule.minimum_interval,
            )
            for rule in self._site.resources
        )  # fmt: skip
        return Site(resources=told, max_data_age=NEVER_S)

    def _has_lease(self, thinker: Thinker, key: gate.Key, site_s: float) -> bool:
        now_s = self._wall_ns / 1e9
        for other in self.thinkers:  # all are alive
            self._table, _ = lease.step(self._table, lease.Heard(other.session, now_s))
        hold_s, priority = self._site.priority_hold, thinker.agent.priority
        asked = lease.Asked(thinker.session, key, priority, now_s, site_s, hold_s)
        self._table, effects = lease.step(self._table, asked)
        for effect in effects:
            match effect:
                case Reply(reply):
                    return reply.granted
                case StoreLease(record):
                    self._sequence += 1
                    recorded = lease.Recorded(record, self._sequence, priority, site_s)
                    self._table, _ = lease.step(self._table, recorded)
        return True

    def _text(self, key: gate.Key, value: Value) -> str:
        kind = self._resource(key).properties.value_type
        if "int" in kind.lower() and isinstance(value, float) and value.is_integer():
            value = int(value)
        return format_value(kind, value)

    def _resource(self, key: gate.Key) -> DeviceResource:
        found = self._profiles[self._devices[key[0]].profile_name].resource(key[1])
        assert found is not None, key
        return found


def _key(event: Event) -> gate.Key:
    return event.device_name, event.source_name
