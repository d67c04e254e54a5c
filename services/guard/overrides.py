"""What devices should show, on disk and in memory: a shell around `protocol/overrides.py`.

Every reading passes here. One that does not fit is confirmed in the device's lane; only then it is an override, or a
straggler that the lane corrects.

Source: design.md section 3.8.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any, Final

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError
from edgeagents.model.site import ResourceRule
from edgeagents.model.values import Value, format_value, parse_value, same_value
from edgeagents.protocol import looks, overrides
from edgeagents.protocol.gate import Key
from services.guard.ledger import Held, Ledger
from services.guard.owner import Owner

log = logging.getLogger(__name__)

HAND: Final = "hand"


class Overrides:
    """The guard's watch over what it may command. `confirm` is set by the lanes, `ended` by the lease desk."""

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        owner: Owner,
        devices: DeviceCache,
        audit: Audit,
        now: Callable[[], float],
        site_now: Callable[[], float],
    ) -> None:
        """Start knowing nothing; `load` takes in what the ledger kept. `now` is monotonic, both in seconds."""
        self._ledger = ledger
        self._executor = executor
        self._rules: dict[Key, ResourceRule | None] = {}
        self._waiting: list[Held] = []  # set by hand, of devices that core-metadata does not know (yet)
        self._owner = owner
        self._devices = devices
        self._audit = audit
        self._now = now
        self._site_now = site_now
        self._watch = overrides.Watch()
        self.confirm: Callable[[Key], None] = lambda key: None
        self.end_lease: Callable[[Key, str], Awaitable[None]] | None = None
        self.notice: Callable[[str, str, str], None] = lambda device, resource, text: None
        self.counts = {"overrides": 0, "stragglers": 0}

    # --- what is known -----------------------------------------------------------------------------

    def rule_of(self, key: Key) -> ResourceRule | None:
        """Return the owner's word on a resource, None when agents may not command it at all."""
        if key not in self._rules:  # asked for each reading there is
            device = self._devices.device(key[0])
            if device is None:
                return None
            self._rules[key] = self._owner.site.rule_for(device, key[1])
        return self._rules[key]

    def forget_rules(self) -> None:
        """Look rules up again: devices have changed."""
        self._rules.clear()
        waiting, self._waiting = self._waiting, []
        for key, held in self._by_hand(waiting).items():
            if key not in self._watch.overrides:
                self._watch = overrides.Watch(self._watch.expected, {**self._watch.overrides, key: held})

    def problem(self, key: Key) -> str:
        """Return why agents leave a resource alone; empty when they need not."""
        held = self._watch.overrides.get(key)
        if held is None or self._site_now() >= held.until_site_s:
            return ""
        until = datetime.fromtimestamp(held.until_site_s, UTC)
        return f"{key[0]}/{key[1]} was set by hand to {_say(held.value)}: agents stand back until {until:%H:%M}"

    def is_doubted(self, key: Key) -> bool:
        """Say whether a reading of a resource did not fit and has to be confirmed first."""
        return self._watch.of(key).is_doubted

    def expected(self, key: Key) -> Value:
        """Return what a resource should show, None when that is not known."""
        return self._watch.of(key).value

    def resources(self) -> frozenset[str]:
        """Return the names of the resources that are known to have been set, by the guard or by hand."""
        waiting = ((held.device, held.resource) for held in self._waiting)
        return frozenset(key[1] for key in (*self._watch.expected, *self._watch.overrides, *waiting))

    def late_values(self) -> dict[Key, list[Value]]:
        """Return what may still take effect, by resource."""
        now_s = self._now()
        found = {
            key: [item.value for item in known.late if item.until_s >= now_s]
            for key, known in self._watch.expected.items()
        }
        return {key: values for key, values in found.items() if values}

    def listed(self) -> list[dict[str, Any]]:
        """Return what was set by hand, for people; times are site seconds."""
        return [
            {
                "deviceName": key[0],
                "resourceName": key[1],
                "value": _say(held.value),
                "sinceSite": held.since_site_s,
                "untilSite": held.until_site_s,
                "by": HAND,
            }
            for key, held in sorted(self._watch.overrides.items())
        ]

    # --- what happens ------------------------------------------------------------------------------

    def load(self) -> None:
        """Take in what the ledger kept; what does not fit its profile any more is left out."""
        expected: dict[Key, overrides.Expected] = {}
        for key, value, _ in self._parsed(self._ledger.expected()):
            expected[key] = overrides.Expected(value, is_certain=True)
        until_s = self._now() + overrides.LATE_S
        kept = self._ledger.late()
        newest = {(held.device, held.resource, held.value) for held, is_newest in kept if is_newest}
        for key, value, held in self._parsed([held for held, _ in kept]):
            known = expected.get(key, overrides.Expected())
            is_newest = (held.device, held.resource, held.value) in newest
            late = (*known.late, overrides.Late(value, until_s, is_newest))
            expected[key] = overrides.Expected(known.value, 0, known.is_certain, 0, late)
        self._watch = overrides.Watch(expected, self._by_hand(self._ledger.overrides()))

    def _by_hand(self, kept: list[Held]) -> dict[Key, overrides.Override]:
        """Return what was set by hand; what core-metadata does not know (yet) waits until it does."""
        self._waiting += [held for held in kept if self._kind((held.device, held.resource)) is None]
        found = {}
        for key, value, held in self._parsed(kept):
            # Site time may have begun anew since: nobody stands back for longer than the owner said.
            ahead_s = max(0.0, held.since_site_s - self._site_now())
            found[key] = overrides.Override(value, held.since_site_s - ahead_s, held.until_site_s - ahead_s)
        return found

    def is_expected(self, key: Key, value: Value, ours: tuple[Value, ...]) -> bool:
        """Say whether a value is no sign of somebody's hand: expected, ours, or one that may come late."""
        known, rule = self._watch.of(key), self.rule_of(key)
        tolerance = _leeway(rule)
        possible = (known.value, *ours, *(item.value for item in known.late))
        return value is None or any(same_value(value, item, tolerance) for item in possible)

    def shows(self, key: Key, value: Value, wanted: Value) -> bool:
        """Say whether a reading is what a resource was set to, within its tolerance."""
        return same_value(value, wanted, _leeway(self.rule_of(key)))

    def seen(self, key: Key, value: Value) -> None:
        """Take in a reading of the bus."""
        rule = self.rule_of(key)
        if rule is None or isinstance(value, (bytes, dict)):
            return
        self._step(overrides.Seen(key, value, _tolerance(rule)))

    def sending(self, key: Key) -> None:
        """Take in that a SET of ours is about to go out, or may have gone out before a restart."""
        self._step(overrides.Sending(key))

    async def done(self, key: Key, value: Value, *, is_certain: bool, settled: tuple[Value, ...] = ()) -> None:
        """Take in that a resource was set, and what cannot come any more; on disk when this returns."""
        self._step(overrides.Done(key, value, is_certain, settled))
        await self._keep(key)

    def void(self, key: Key) -> None:
        """Take in that certainly nothing was set."""
        self._step(overrides.Void(key))

    async def withdrawn(self, key: Key, value: Value) -> None:
        """Take in that a value that was reckoned with was certainly not set; on disk when this returns."""
        self._step(overrides.Void(key, (value,)))
        await self._keep(key)

    async def doubtful(self, key: Key, value: Value, shown: Value) -> None:
        """Take in that a value may still take effect; on disk when this returns."""
        self._step(overrides.Doubtful(key, value, shown, self._now()))
        await self._keep(key)

    async def correcting(self, key: Key, value: Value) -> None:
        """Take in that a correction is about to go out; on disk when this returns: its effect is known to be ours."""
        self._step(overrides.Correcting(key, value, self._now()))
        await self._keep(key)

    async def confirmed(self, key: Key, value: Value, *, may_set: bool) -> overrides.Correct | None:
        """Take in what the guard has read itself; return the correction it has to make, if any."""
        rule = self.rule_of(key)
        if rule is None:
            return None
        event = overrides.Confirmed(
            key, value, _tolerance(rule), self._now(), self._site_now(), rule.stand_back, may_set
        )
        correction = None
        for effect in self._step(event):
            match effect:
                case overrides.Correct():
                    correction = effect
                case overrides.TookEffect():
                    log.warning("%s/%s: a SET took effect late: %s", *key, _say(value))
                    self._audit.append("late-effect", device=key[0], resource=key[1], value=_say(value))
                case overrides.Overridden(_, override):
                    await self._overridden(key, override)
        await self._keep(key)
        return correction

    def looking(self, key: Key) -> looks.Looking:
        """Return what the guard's own looks at a doubted resource are compared with."""
        return looks.Looking(self._watch.of(key).value, _leeway(self.rule_of(key)))

    async def moving(self, key: Key) -> None:
        """Take in that a doubted resource keeps no value."""
        for _ in self._step(overrides.Moving(key)):
            log.warning("%s/%s changes by itself: not taken for somebody's hand until it keeps a value", *key)
            self._audit.append("restless", device=key[0], resource=key[1])
        await self._keep(key)

    def unconfirmed(self, key: Key) -> None:
        """Take in that a doubted resource could not be read: the next reading is looked at anew."""
        self._step(overrides.Void(key))

    async def tick(self) -> frozenset[Key]:
        """End what is over; return the resources of which less may still take effect than before."""
        before = self._watch
        for effect in self._step(overrides.Tick(self._now(), self._site_now())):
            if isinstance(effect, overrides.Over):
                await self._on_disk(self._ledger.override, *effect.key, None)
                self._audit.append("override-over", device=effect.key[0], resource=effect.key[1])
        return frozenset(key for key, known in before.expected.items() if known.late != self._watch.of(key).late)

    def shift(self, by_site_s: float) -> None:
        """Move all site times: the clock behind them was set."""
        self._step(overrides.Shifted(by_site_s))

    # --- how ---------------------------------------------------------------------------------------

    def _step(self, event: overrides.Event) -> list[overrides.Effect]:
        self._watch, effects = overrides.step(self._watch, event)
        for effect in effects:
            if isinstance(effect, overrides.Confirm):
                self.confirm(effect.key)
        return effects

    async def _overridden(self, key: Key, override: overrides.Override) -> None:
        text = self._text(key, override.value)
        if override.until_site_s <= override.since_site_s:
            left = {other: held for other, held in self._watch.overrides.items() if other != key}
            self._watch = overrides.Watch(self._watch.expected, left)
            return  # the owner said that agents need not stand back
        self.counts["overrides"] += 1
        if text is not None:  # else it is no value of the profile's type, and holds until a restart
            held = Held(*key, text, override.since_site_s, override.until_site_s)
            await self._on_disk(self._ledger.override, *key, held)
        reason = self.problem(key)
        log.warning("%s", reason)
        self._audit.append(
            "override", device=key[0], resource=key[1], value=text,
            since_site_s=override.since_site_s, until_site_s=override.until_site_s,
        )  # fmt: skip
        self.notice(*key, reason)
        if self.end_lease is not None:
            await self.end_lease(key, reason)

    async def _on_disk(self, function: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*arguments))

    async def _keep(self, key: Key) -> None:
        known = self._watch.of(key)
        await self._on_disk(self._ledger.expect, *key, self._text(key, known.value) if known.is_known else None)
        late = [(self._text(key, item.value), item.is_newest) for item in known.late]
        await self._on_disk(
            self._ledger.reckon_with, *key, [(text, newest) for text, newest in late if text is not None]
        )

    def _text(self, key: Key, value: Value) -> str | None:
        kind = self._kind(key)
        try:
            return None if kind is None or value is None else format_value(kind, value)
        except InvalidInputError:  # not of the profile's type
            return None

    def _kind(self, key: Key) -> str | None:
        profile = self._devices.profile_of(key[0])
        resource = profile.resource(key[1]) if profile else None
        return resource.properties.value_type if resource else None

    def _parsed(self, kept: list[Held]) -> Iterator[tuple[Key, Value, Held]]:
        for held in kept:
            key = (held.device, held.resource)
            kind = self._kind(key)
            if kind is None:
                continue
            try:
                yield key, parse_value(kind, held.value), held
            except InvalidInputError as error:  # its profile was another one then
                log.warning("%s/%s was kept as %r: %s", *key, held.value, error)


def _tolerance(rule: ResourceRule) -> float:
    return rule.proof.tolerance if rule.proof is not None and rule.proof.resource == rule.resource else 0.0


def _leeway(rule: ResourceRule | None) -> float:
    """Return within which two values are one, whether agents may command the resource or not."""
    return max(_tolerance(rule) if rule is not None else 0.0, overrides.LEAST_TOLERANCE)


def _say(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
