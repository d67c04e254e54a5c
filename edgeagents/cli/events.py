"""`edgeagents events`: what devices reported, from the stream that agents read.

Source: design.md section 4; the stream is read, not what is published: an event that came while the link was down is
not missed.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.cli.doctor import Json
from edgeagents.cli.following import run_until_interrupted
from edgeagents.cli.lines import clean, shown, when
from edgeagents.cli.place import DEFAULT_PLACE, Place
from edgeagents.cli.survey import value_of
from edgeagents.errors import UnavailableError
from edgeagents.model.device import Event, Reading
from edgeagents.model.envelope import EventMessage
from edgeagents.settings import BusSettings

Devices = Annotated[
    tuple[str, ...], Parameter(name="--device", negative="", help="only this device; may be given again")
]
Resources = Annotated[
    tuple[str, ...], Parameter(name="--resource", negative="", help="only this resource; may be given again")
]
Last = Annotated[int, Parameter(name="--last", help="begin with so many of the newest messages")]
Follow = Annotated[bool, Parameter(name="--follow", negative="", help="go on with what comes, until Ctrl-C")]
LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which readings are shown; empty: all."""

    devices: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()

    def of(self, event: Event) -> list[Reading]:
        """Return the readings of an event that are wanted."""
        if self.devices and event.device_name not in self.devices:
            return []
        return [item for item in event.readings if not self.resources or item.resource_name in self.resources]


def events(
    *, place: Place = DEFAULT_PLACE, device: Devices = (), resource: Resources = (), last: Last = 20,
    follow: Follow = False, json_: Json = False,
) -> None:  # fmt: skip
    """Show what devices reported, one line a reading: the newest of the stream, then what comes with --follow.

    With --json: one JSON object a line, one line a reading.
    """
    run_until_interrupted(_show(place.resolved(), Wanted(device, resource), last, json_=json_, follow=follow))


async def _show(place: Place, wanted: Wanted, last: int, *, json_: bool, follow: bool) -> None:
    console, settings = Console(soft_wrap=True, highlight=False), place.bus_settings()
    bus = await Bus.connect(settings, "edgeagents-cli")
    try:
        newest = await bus.last_sequence(subjects.EVENTS_STREAM)
        place_ = max(1, newest - max(0, last) + 1)
        while True:
            place_ = await _print_from(bus, place_, wanted, console, json_=json_)
            if not follow:
                return
            await _more(bus, place_)
    finally:
        await bus.close()


async def _print_from(bus: Bus, place: int, wanted: Wanted, console: Console, *, json_: bool) -> int:
    """Print what the stream holds from a place on; return the place behind it. A broker that is away is waited for."""
    with contextlib.suppress(UnavailableError):
        async for stored, event in _read(bus, place):
            place = stored.sequence + 1
            for reading in wanted.of(event) if event is not None else ():
                if json_:
                    print(json.dumps(body_of(event, reading)), flush=True)
                else:
                    console.print(line_of(event, reading))
    return place


async def _read(bus: Bus, place: int) -> AsyncIterator[tuple[StoredMessage, Event | None]]:
    settings: BusSettings = bus.settings
    edgex = EdgexBus(NatsTransport(bus), settings.edgex_base, kind=settings.edgex_bus)
    name = f"edgeagents-cli-{secrets.token_hex(4)}"  # two may look at once
    async for stored in bus.read(subjects.EVENTS_STREAM, [], name=name, start_sequence=place):
        topic = subjects.subject_to_topic(stored.subject, settings.edgex_bus)
        message = await edgex.decode(topic, stored.data, stored.headers)
        yield stored, message.event if isinstance(message, EventMessage) else None


async def _more(bus: Bus, place: int) -> None:
    """Return once the stream holds something at a place or behind it; a broker that is away is waited for.

    Raises:
        UnavailableError: the broker closed the connection for good.
    """
    while not bus.closed.is_set():
        with contextlib.suppress(UnavailableError):
            if await bus.last_sequence(subjects.EVENTS_STREAM) >= place:
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await bus.closed.wait()
    raise UnavailableError(f"nats {bus.settings.nats_url} closed the connection")


def line_of(event: Event | None, reading: Reading) -> Text:
    """Return a reading as one line that moves no cursor: when it was measured, device, resource, value."""
    device = reading.device_name or (event.device_name if event is not None else "")
    line = Text(f"{when(reading.origin)}  ", style="dim")
    line.append(f"{clean(device):<20} ", style="bold")
    line.append(f"{clean(reading.resource_name):<20} ")
    units = f" {reading.units}" if reading.units else ""
    return line.append(clean(f"{_text(reading)}{units}"))


def body_of(event: Event | None, reading: Reading) -> dict[str, Any]:
    """Return a reading as `--json` prints it."""
    known = event.device_name if event is not None else ""
    return {
        "device": reading.device_name or known, "resource": reading.resource_name, "value": value_of(reading),
        "valueType": reading.value_type, "units": reading.units, "originNs": reading.origin,
        "event": event.id if event is not None else "",
    }  # fmt: skip


def _text(reading: Reading) -> str:
    value = value_of(reading)
    return "nothing" if value is None else shown(value)
