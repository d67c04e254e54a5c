"""Readings that a device publishes by itself: every interval, or when a value changed by more than a threshold.

Intervals are wall time, as EdgeX means them. After a stall the missed rounds are left out, not caught up.

Source: EdgeX device `autoEvents`; edgex-wire.md section 5.1.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from edgeagents.adapters.config import MOST_DURATION_CHARS, go_duration_s
from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.model.device import AutoEvent, Device, Event
from edgeagents.model.values import Value

log = logging.getLogger(__name__)

Read = Callable[[str, str], Awaitable[Event]]
Publish = Callable[[Event], None]

_SHORTEST_S: Final = 0.001
_STAGGER_S: Final = 0.015


def parse_interval_s(text: str) -> float:
    """Return the seconds of a Go duration such as `500ms`, `10s` or `1m30s`.

    Raises:
        InvalidInputError: no duration, or below EdgeX's minimum of 1 ms.
    """
    seconds = go_duration_s(text)
    if seconds is None:
        raise InvalidInputError(f"interval {text[:MOST_DURATION_CHARS]!r} is no duration: write 500ms, 10s, 1m30s")
    if seconds < _SHORTEST_S:
        raise InvalidInputError(f"interval {text!r} is below 1ms")
    return seconds


def has_changed(before: Event, now: Event, threshold: float) -> bool:
    """Say whether a value differs: numbers by more than `threshold`, all others at all."""
    if [item.resource_name for item in before.readings] != [item.resource_name for item in now.readings]:
        return True
    return any(
        _differs(old.decoded(), new.decoded(), threshold)
        for old, new in zip(before.readings, now.readings, strict=True)
    )


def _differs(old: Value, new: Value, threshold: float) -> bool:
    if isinstance(old, (int, float)) and isinstance(new, (int, float)) and not isinstance(new, bool):
        return not abs(new - old) <= threshold  # NaN counts as a change
    return old != new


class AutoEvents:
    """One task for each auto event of each device, kept in step with the devices there are."""

    def __init__(self, read: Read, publish: Publish, tasks: asyncio.TaskGroup) -> None:
        """Run in `tasks`; `read(device, source)` gives the event, `publish` takes it."""
        self._read = read
        self._publish = publish
        self._tasks = tasks
        self._started = 0
        self._running: dict[str, tuple[tuple[object, ...], list[asyncio.Task[None]]]] = {}

    def follow(self, devices: Iterable[Device]) -> None:
        """Start, restart or stop what the devices now ask for; what did not change goes on undisturbed."""
        wanted = {device.name: (device.profile_name, *device.auto_events) for device in devices}
        for name in [name for name, (plan, _) in self._running.items() if wanted.get(name) != plan]:
            for task in self._running.pop(name)[1]:
                task.cancel()
        for name, plan in wanted.items():
            if name not in self._running:
                started = [self._start(name, item) for item in plan if isinstance(item, AutoEvent)]
                self._running[name] = (plan, [task for task in started if task is not None])

    def stop(self) -> None:
        """Stop all."""
        self.follow(())

    def _start(self, device: str, auto_event: AutoEvent) -> asyncio.Task[None] | None:
        try:
            interval_s = parse_interval_s(auto_event.interval)
        except InvalidInputError as error:
            log.warning("device %s: auto event of %s is left out: %s", device, auto_event.source_name, error)
            return None
        # All devices of a file would else report in the same millisecond.
        self._started += 1
        first_s = min(interval_s, _STAGGER_S * (self._started % 64))
        return self._tasks.create_task(self._run(device, auto_event, interval_s, first_s))

    async def _run(self, device: str, auto_event: AutoEvent, interval_s: float, first_s: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + first_s
        before: Event | None = None
        failing = ""
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + interval_s, loop.time())
            try:
                event = await self._read(device, auto_event.source_name)
            except EdgeAgentsError as error:
                if str(error) != failing:
                    failing = str(error)
                    log.warning("device %s: no auto event of %s: %s", device, auto_event.source_name, error)
                continue
            failing = ""
            if before is None or not auto_event.on_change or has_changed(before, event, auto_event.on_change_threshold):
                before = event
                self._publish(event)
