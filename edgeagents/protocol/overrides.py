"""What a device should show, who changed it when it does not: the owner by hand, or a SET of ours that came late.

    reading as expected                -> nothing
    another one                        -> `Confirm`: the guard reads the device itself, no SET of ours under way
      as expected after all            -> a stale reading
      the value of a SET without answer -> a straggler: `Correct` to the newest wanted value, `TookEffect` if it is that
      anything else                    -> `Overridden`: leases end, agents stand back for the owner's `stand_back`
      now this, now that (`looks.py`)  -> with the next readings once more; then `Restless`: it changes by itself

A value counts as expected once the guard has proven or read it itself, or once it was read `STEADY_READINGS` times in
a row; of what was seen to change by itself, `CALM_READINGS` times, or once a SET of ours is proven on it.

Source: design.md sections 3.7 and 3.8 ("The owner wins").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from edgeagents.model.values import Value, same_value
from edgeagents.protocol.gate import Key

STEADY_READINGS: Final = 3
CALM_READINGS: Final = 30  # of what was seen to change by itself
MOST_MOVING: Final = 3  # somebody may play with a switch for a while, and then leaves it as it shall be
LATE_S: Final = 600.0  # how long the effect of a SET without an answer is reckoned with
MOST_LATE: Final = 8  # of one resource
LEAST_TOLERANCE: Final = 1e-6  # of a number: how a reading writes it is no change


@dataclass(frozen=True, slots=True)
class Late:
    """A value that a SET without a definite answer may still bring about; times are the guard's monotonic clock."""

    value: Value
    until_s: float
    is_newest: bool = True  # nothing was wanted after it


@dataclass(frozen=True, slots=True)
class Override:
    """A value somebody set by hand, and until when agents leave it alone, site seconds."""

    value: Value
    since_site_s: float
    until_site_s: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What one resource should show.

    Args:
        value: None: not known.
        steady: how many readings in a row showed it, at most as many as it takes to know it.
        is_certain: the guard proved or read it itself.
        under_way: how many SETs of ours are not over yet: then no reading means anything.
        late: what may still take effect, oldest first.
        is_doubted: a reading did not fit and is being confirmed.
        is_restless: it was seen to change by itself.
        moved: how many times in a row it kept no value while it was being confirmed.
    """

    value: Value = None
    steady: int = 0
    is_certain: bool = False
    under_way: int = 0
    late: tuple[Late, ...] = ()
    is_doubted: bool = False
    is_restless: bool = False
    moved: int = 0

    @property
    def enough(self) -> int:
        """How many readings in a row make it known."""
        return CALM_READINGS if self.is_restless else STEADY_READINGS

    @property
    def is_known(self) -> bool:
        """Whether another value would mean that somebody changed it."""
        return self.value is not None and (self.is_certain or self.steady >= self.enough)


@dataclass(frozen=True, slots=True)
class Watch:
    """All resources that agents may command, and those that somebody set by hand."""

    expected: Mapping[Key, Expected] = field(default_factory=dict)
    overrides: Mapping[Key, Override] = field(default_factory=dict)

    def of(self, key: Key) -> Expected:
        """Return what is expected of a resource."""
        return self.expected.get(key, Expected())


@dataclass(frozen=True, slots=True)
class Seen:
    """A reading came over the bus."""

    key: Key
    value: Value
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Sending:
    """A SET of ours is about to go out, or may have gone out before a restart."""

    key: Key


@dataclass(frozen=True, slots=True)
class Done:
    """It is over: the resource shows `value`; `is_certain` when that was read back.

    `settled`: values of which one SET each cannot take effect any more, of those reckoned with.
    """

    key: Key
    value: Value
    is_certain: bool = True
    settled: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Void:
    """It is over: certainly nothing was set; `settled` as in `Done`."""

    key: Key
    settled: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Doubtful:
    """It is over, but `value` may still take effect; the resource showed `shown` at last (None: not known)."""

    key: Key
    value: Value
    shown: Value
    now_s: float


@dataclass(frozen=True, slots=True)
class Correcting:
    """A correction is about to go out: it is under way, and `value` is reckoned with from now on, as after a crash."""

    key: Key
    value: Value
    now_s: float


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The guard has read a doubted resource itself.

    Args:
        key: the resource.
        value: what it shows.
        tolerance: within which two values are one.
        now_s: the guard's monotonic clock.
        site_s: site time.
        stand_back_s: how long agents stay away, site seconds.
        may_set: it is absolute, and nothing forbids the guard to set it again now.
    """

    key: Key
    value: Value
    tolerance: float
    now_s: float
    site_s: float
    stand_back_s: float
    may_set: bool


@dataclass(frozen=True, slots=True)
class Moving:
    """The guard has read a doubted resource itself, again and again: it does not keep any value."""

    key: Key


@dataclass(frozen=True, slots=True)
class Shifted:
    """The clock behind site time was set by so many site seconds: what was begun lasts as long as it should."""

    by_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes."""

    now_s: float
    site_s: float


Event: TypeAlias = Seen | Sending | Done | Void | Doubtful | Correcting | Confirmed | Moving | Shifted | Tick


@dataclass(frozen=True, slots=True)
class Confirm:
    """Read the resource yourself, when no SET of ours is under way on it."""

    key: Key


@dataclass(frozen=True, slots=True)
class Overridden:
    """Somebody set it by hand: end its lease, write it down, tell people."""

    key: Key
    override: Override


@dataclass(frozen=True, slots=True)
class Correct:
    """A straggler took effect: set the newest wanted value again."""

    key: Key
    value: Value
    straggler: Value


@dataclass(frozen=True, slots=True)
class TookEffect:
    """A SET of ours took effect after its outcome was told, and nothing else was wanted since (or may be set)."""

    key: Key
    value: Value


@dataclass(frozen=True, slots=True)
class Restless:
    """It changes by itself: write it down."""

    key: Key


@dataclass(frozen=True, slots=True)
class Over:
    """Agents may command it again."""

    key: Key


Effect: TypeAlias = Confirm | Overridden | Correct | TookEffect | Restless | Over


def step(watch: Watch, event: Event) -> tuple[Watch, list[Effect]]:
    """Return the next state and what must be done about it."""
    match event:
        case Seen():
            return _seen(watch, event)
        case Sending(key):
            known = watch.of(key)
            return _with(watch, key, replace(known, under_way=known.under_way + 1)), []
        case Done(key, value, is_certain, settled):
            known = _ended(watch.of(key))
            # One of the same value stays: it may have been another SET that brought it about.
            late = tuple(replace(item, is_newest=False) for item in _without(known.late, settled))
            return _with(watch, key, Expected(value, 0, is_certain, known.under_way, late)), []
        case Void(key, settled):
            known = _ended(watch.of(key))
            return _with(watch, key, replace(known, late=_without(known.late, settled))), []
        case Doubtful():
            known = _reckoned(_ended(watch.of(event.key)), event.value, event.now_s)
            if event.shown is not None:
                known = replace(known, value=event.shown, is_certain=True)
            return _with(watch, event.key, known), []
        case Correcting(key, value, now_s):
            known = _reckoned(watch.of(key), value, now_s)
            return _with(watch, key, replace(known, under_way=known.under_way + 1, is_doubted=False)), []
        case Confirmed():
            return _confirmed(watch, event)
        case Moving(key):
            return _moving(watch, key)
        case Shifted(by_s):
            moved = {
                key: replace(item, since_site_s=item.since_site_s + by_s, until_site_s=item.until_site_s + by_s)
                for key, item in watch.overrides.items()
            }
            return replace(watch, overrides=moved), []
        case Tick(now_s, site_s):
            return _tick(watch, now_s, site_s)


def _with(watch: Watch, key: Key, expected: Expected) -> Watch:
    return replace(watch, expected={**watch.expected, key: expected})


def _without(late: tuple[Late, ...], values: tuple[Value, ...]) -> tuple[Late, ...]:
    """Return what may still take effect without one item, the oldest, of each of some values."""
    left = list(late)
    for value in values:
        place = next((place for place, item in enumerate(left) if same_value(item.value, value)), None)
        if place is not None:
            del left[place]
    return tuple(left)


def _ended(known: Expected) -> Expected:
    return replace(known, under_way=max(0, known.under_way - 1), is_doubted=False)


def _seen(watch: Watch, event: Seen) -> tuple[Watch, list[Effect]]:
    key, value = event.key, event.value
    known = watch.of(key)
    if value is None or known.under_way or known.is_doubted:
        return watch, []
    if known.value is not None and same_value(value, known.value, max(event.tolerance, LEAST_TOLERANCE)):
        if known.steady >= known.enough:
            return watch, []
        return _with(watch, key, replace(known, steady=known.steady + 1)), []
    if known.is_known:
        return _with(watch, key, replace(known, is_doubted=True)), [Confirm(key)]
    return _with(watch, key, replace(known, value=value, steady=1)), []


def _reckoned(known: Expected, value: Value, now_s: float) -> Expected:
    """Return what is expected when one more value may still take effect, wanted after all others."""
    # Two SETs of one value are two: each may come.
    older = tuple(replace(item, is_newest=same_value(item.value, value)) for item in known.late)
    return replace(known, late=(*older, Late(value, now_s + LATE_S))[-MOST_LATE:])


def _confirmed(watch: Watch, event: Confirmed) -> tuple[Watch, list[Effect]]:
    key, value, tolerance = event.key, event.value, max(event.tolerance, LEAST_TOLERANCE)
    known = replace(watch.of(key), is_doubted=False, moved=0)
    if known.under_way or not known.is_known or same_value(value, known.value, tolerance):
        return _with(watch, key, known), []
    found = next(
        (item for item in known.late if item.until_s >= event.now_s and same_value(item.value, value, tolerance)), None
    )
    if found is None:
        override = Override(value, event.site_s, event.site_s + event.stand_back_s)
        late = tuple(replace(item, is_newest=False) for item in known.late)
        watch = _with(watch, key, Expected(value, 0, True, 0, late))
        return replace(watch, overrides={**watch.overrides, key: override}), [Overridden(key, override)]
    if found.is_newest or not event.may_set:
        late = tuple(item for item in known.late if item is not found)
        return _with(watch, key, replace(known, value=value, is_certain=True, late=late)), [TookEffect(key, value)]
    # It is reckoned with until it is corrected: that may fail, and then the next reading finds it again.
    return _with(watch, key, known), [Correct(key, known.value, found.value)]


def _moving(watch: Watch, key: Key) -> tuple[Watch, list[Effect]]:
    known = watch.of(key)
    if known.moved + 1 < MOST_MOVING:
        return _with(watch, key, replace(known, is_doubted=False, moved=known.moved + 1)), []
    restless = Expected(under_way=known.under_way, late=known.late, is_restless=True)
    return _with(watch, key, restless), [] if known.is_restless else [Restless(key)]


def _tick(watch: Watch, now_s: float, site_s: float) -> tuple[Watch, list[Effect]]:
    over = [key for key, item in watch.overrides.items() if site_s >= item.until_site_s]
    if over:
        left = {key: item for key, item in watch.overrides.items() if key not in over}
        watch = replace(watch, overrides=left)
    for key, known in watch.expected.items():
        if any(item.until_s < now_s for item in known.late):
            late = tuple(item for item in known.late if item.until_s >= now_s)
            watch = _with(watch, key, replace(known, late=late))
    return watch, [Over(key) for key in over]
