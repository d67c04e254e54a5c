"""What `status`, `agents` and `devices` show, gathered from a gateway and put into one shape for people and `--json`.

A part that is away is told as such beside the others.

Source: design.md sections 2 and 3.
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport
from edgeagents.adapters.examination.edgex import look_at_keeper
from edgeagents.adapters.examination.links import look_at_links
from edgeagents.adapters.examination.owner import look_at_files
from edgeagents.adapters.examination.services import look_at_agents, look_at_guard
from edgeagents.adapters.examination.together import look_at_shared
from edgeagents.adapters.rest import make_http
from edgeagents.cli.place import Place
from edgeagents.errors import EdgeAgentsError, InvalidInputError, NotFoundError
from edgeagents.model.device import Reading
from edgeagents.model.envelope import EventMessage
from edgeagents.model.finding import Finding
from edgeagents.permissions import INFERENCE_USER
from edgeagents.protocol.diagnosis.edgex import ServiceFacts
from edgeagents.protocol.diagnosis.files import FileFacts
from edgeagents.protocol.diagnosis.links import LinksFacts, link_findings
from edgeagents.protocol.diagnosis.services import AgentFacts, GuardFacts
from edgeagents.protocol.diagnosis.shapes import items, mapping, strings
from edgeagents.protocol.diagnosis.together import SharedFacts, coordinator_findings, model_findings

CLIENT: Final = "edgeagents-cli"
LOOK_S: Final = 10.0
READ_S: Final = 30.0  # for the newest reading of each of some thousand resources
_SILENT: Final = LinksFacts(problem=f"the broker does not tell of its links in {LOOK_S:g} s")
Newest = dict[tuple[str, str], Reading]
T = TypeVar("T")


async def read_status(place: Place) -> dict[str, Any]:
    """Return how a gateway stands, as `status --json` prints it."""
    async with make_http() as http:
        files, guard, keeper, broker, links, (tasks, model) = await asyncio.gather(
            look_at_files(http, place.keeper, place.site_file, place.agents_dir),
            look_at_guard(http, place.guard),
            look_at_keeper(http, place.keeper),
            _in_time(_broker(place), {"state": "away", "text": f"{place.nats} does not answer in {LOOK_S:g} s"}),
            _in_time(look_at_links(place.bus_settings(), place.gateways_file), _SILENT),
            look_at_both(http, place),
        )
        names = sorted({*files.agents, *strings(guard.state.get("sessions"))})
        agents = await look_at_agents(http, place.keeper, names, None)
    return {
        "gateway": place.gateway, "broker": broker, "edgex": _edgex(keeper[0], files), "guard": guard_body(guard),
        "agents": [agent_body(facts, guard) for facts in agents], "links": link_rows(links),
        "coordinator": shared_body(tasks, coordinator_findings(tasks, files.agents)),
        "model": shared_body(model, model_findings(model, files.agents)),
    }  # fmt: skip


async def look_at_both(http: httpx.AsyncClient, place: Place) -> tuple[SharedFacts, SharedFacts]:
    """Return what coordinator and language model show of themselves."""
    return await asyncio.gather(
        look_at_shared(http, subjects.COORDINATOR, place.coordinator, place.keeper),
        look_at_shared(http, INFERENCE_USER, place.inference, place.keeper),
    )


async def _in_time(look: Awaitable[T], otherwise: T) -> T:
    """Return what a look found, or the word for one that takes too long: a server may answer one byte at a time."""
    try:
        async with asyncio.timeout(LOOK_S):
            return await look
    except TimeoutError:
        return otherwise


async def _broker(place: Place) -> dict[str, str]:
    try:
        bus = await Bus.connect(place.bus_settings(), CLIENT)
    except EdgeAgentsError as error:
        return {"state": "away", "text": str(error)}
    try:
        held = await bus.held(subjects.EVENTS_STREAM)
        events = f"{held.messages} events in the stream"
    except EdgeAgentsError as error:
        events = str(error)
    finally:
        await bus.close()
    return {"state": "up", "text": f"{place.nats}, nats-server {bus.server_info.get('version', '')}, {events}"}


def link_rows(facts: LinksFacts) -> list[dict[str, str]]:
    """Return what is told of each link to another gateway; nothing of a gateway without peers."""
    states = {"ok": "up", "warning": "down", "failed": "unknown"}
    return [
        {"link": finding.check, "state": states[finding.level], "text": finding.found}
        for finding in link_findings(facts)
        if finding.check.startswith("link to ") or finding.level == "failed"
    ]


def shared_body(facts: SharedFacts, findings: Sequence[Finding]) -> dict[str, str]:
    """Return what is told of coordinator or language model: `none` where this gateway has no such service."""
    states = {"ok": "up", "warning": "waits", "failed": "away"}
    state = "none" if facts.is_none else states[findings[0].level]
    return {"state": state, "text": findings[0].found}


def _edgex(keeper: ServiceFacts, files: FileFacts) -> dict[str, str]:
    if keeper.state != "up":
        return {"state": keeper.state, "text": keeper.text}
    devices = "core-metadata is away" if files.devices is None else f"{len(files.devices)} devices"
    return {"state": "up", "text": f"{keeper.url}, version {keeper.version}, {devices}"}


def guard_body(facts: GuardFacts) -> dict[str, Any]:
    """Return what is told of the guard, each field there whatever it answered."""
    state = facts.state
    return {
        "url": facts.url, "problem": facts.problem, "generation": state.get("generation", 0),
        "waiting": state.get("waiting", 0), "outcomes": mapping(state.get("outcomes")),
        "blocked": mapping(state.get("blocked")), "paused": items(state.get("paused")),
        "overrides": items(state.get("overrides")), "volume_full": bool(state.get("volumeFull")),
    }  # fmt: skip


def agent_body(facts: AgentFacts, guard: GuardFacts) -> dict[str, Any]:
    """Return what is told of one agent."""
    state, modes = facts.state, mapping(guard.state.get("modes"))
    counts, commands = mapping(state.get("counts")), mapping(state.get("commands"))
    problem = facts.problem or ("" if facts.url else "not registered in keeper: is it up?")
    return {
        "name": facts.name, "url": facts.url, "problem": problem,
        "mode": str(modes.get(facts.name) or state.get("mode") or "unknown"),
        "session": facts.name in strings(guard.state.get("sessions")), "events": counts.get("events", 0),
        "decisions": counts.get("decisions", 0), "commands": commands.get("published", 0),
        "heldBack": commands.get("held_back", 0), "pending": state.get("pending", 0),
        "waitsFor": strings(state.get("waitsFor")),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What `devices` shows is made of these."""

    files: FileFacts
    guard: GuardFacts
    newest: Newest = field(default_factory=dict)


async def read_devices(place: Place) -> DeviceFacts:
    """Return devices, files, leases, and the newest reading of each resource that the stream still holds.

    Raises:
        NotFoundError: core-metadata does not tell which devices there are.
    """
    async with make_http() as http:
        files, guard, newest = await asyncio.gather(
            look_at_files(http, place.keeper, place.site_file, place.agents_dir),
            look_at_guard(http, place.guard),
            _newest(place),
        )
    if files.devices is None:
        raise NotFoundError(f"keeper {place.keeper} leads to no core-metadata: `edgeagents doctor` says why")
    return DeviceFacts(files, guard, newest)


async def _newest(place: Place) -> Newest:
    settings = place.bus_settings()
    try:
        bus = await Bus.connect(settings, CLIENT)
    except EdgeAgentsError:
        return {}
    found: Newest = {}
    try:
        edgex = EdgexBus(NatsTransport(bus), settings.edgex_base, kind=settings.edgex_bus)
        name = f"{CLIENT}-{secrets.token_hex(4)}"  # two may look at once
        async with asyncio.timeout(READ_S):
            async for stored in bus.read(subjects.EVENTS_STREAM, [], name=name, last_per_subject=True):
                topic = subjects.subject_to_topic(stored.subject, settings.edgex_bus)
                message = await edgex.decode(topic, stored.data, stored.headers)
                if isinstance(message, EventMessage):
                    _take(found, message)
    except (EdgeAgentsError, TimeoutError):
        return found  # what was read so far is told; `doctor` says what is wrong with the stream
    finally:
        await bus.close()
    return found


def _take(found: Newest, message: EventMessage) -> None:
    event = message.event
    for reading in event.readings:
        key = (reading.device_name or event.device_name, reading.resource_name)
        known = found.get(key)
        if known is None or reading.origin >= known.origin:
            found[key] = reading


def device_rows(facts: DeviceFacts) -> list[dict[str, Any]]:
    """Return one row for each readable or writable resource of each device, as `devices --json` prints them."""
    leases = {
        (str(item.get("deviceName")), str(item.get("resourceName"))): str(item.get("agent", ""))
        for item in items(facts.guard.state.get("leases"))
    }
    rows = []
    for name, device in sorted((facts.files.devices or {}).items()):
        profile = facts.files.profiles.get(device.profile_name)
        for resource in profile.device_resources if profile is not None else ():
            rule = facts.files.site.rule_for(device, resource.name) if facts.files.site is not None else None
            reading = facts.newest.get((name, resource.name))
            may = [
                agent.name
                for agent in facts.files.agents.values()
                if any(entry.resource == resource.name and entry.fits(device) for entry in agent.may)
            ]
            rows.append({
                "device": name, "profile": device.profile_name, "resource": resource.name,
                "adminState": device.admin_state, "operatingState": device.operating_state,
                "value": value_of(reading) if reading is not None else None, "units": resource.properties.units,
                "originNs": reading.origin if reading is not None else 0, "mayCommand": sorted(may),
                "riskClass": rule.risk_class if rule is not None else "",
                "lease": leases.get((name, resource.name), ""),
            })  # fmt: skip
    return rows


def value_of(reading: Reading) -> Any:
    """Return a reading's value for JSON; bytes as how many there are, what no JSON number can be as EdgeX's text."""
    try:
        value = reading.decoded()
    except InvalidInputError:
        return reading.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
