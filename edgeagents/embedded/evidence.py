"""Reads what a run left behind into `tally.Evidence`: streams as the owner, journals from the folder.

Source: issue "First light".
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, StoredMessage
from edgeagents.adapters.events import decode_message
from edgeagents.embedded.tally import Ended, Evidence, HeldEvent, SentCommand
from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError
from edgeagents.journal import read_journal
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Event
from edgeagents.model.envelope import EventMessage
from edgeagents.model.message import AuditRecord, Command, Outcome
from edgeagents.model.site import Site


async def collect(
    bus: Bus, agents: dict[str, AgentDefinition], devices: dict[str, Device], journals: Path, until_ns: int, site: Site
) -> Evidence:
    """Return the records of a run.

    Args:
        bus: connected as the owner.
        agents: the agents' files.
        devices: core-metadata's devices, for labels.
        journals: folder of the journals.
        until_ns: events stored after this wall time are left out: nobody had to see them any more.
        site: the owner's word on what may be set twice.
    """
    commands, outcomes = await commands_and_outcomes(bus)
    consumed = {
        name: frozenset(line["id"] for line in _journal(journals / f"{name}.jsonl") if line["kind"] == "consumed")
        for name in agents
    }
    since = {name: await _watching_since(bus, name) for name in agents}
    events = await _events(bus, agents, devices, until_ns)
    world = _journal(journals / "world.jsonl")
    decisions, again = await audited(bus)
    absolute = frozenset(
        (device.name, rule.resource)
        for device in devices.values()
        for rule in site.resources
        if rule.kind == "absolute" and site.rule_for(device, rule.resource) is rule
    )
    return Evidence(events, commands, outcomes, world, consumed, since, decisions, again, absolute)


async def audited(bus: Bus) -> tuple[int, dict[str, str]]:
    """Return how many decisions there were, and which commands were set once more, by the correlation id of that."""
    count, again = 0, dict[str, str]()
    async for stored in bus.read(subjects.AUDIT_STREAM, [], name="tally-audit"):
        with contextlib.suppress(MalformedMessageError, ValueError, KeyError):
            record = wire.decode(AuditRecord, stored.data)
            count += record.kind == "decision"
            if record.kind == "set-again" and record.writer == subjects.GUARD:
                body = json.loads(record.body)
                again[str(body["correlation"])] = str(body["command"])
    return count, again


async def _events(
    bus: Bus, agents: dict[str, AgentDefinition], devices: dict[str, Device], until_ns: int
) -> list[HeldEvent]:
    found = []
    async for stored in bus.read(subjects.EVENTS_STREAM, [], name="tally-events"):
        topic = subjects.subject_to_topic(stored.subject, bus.settings.edgex_bus)
        try:
            message = decode_message(topic, stored.data, stored.headers)
        except MalformedMessageError:
            continue
        if isinstance(message, EventMessage) and stored.time_ns <= until_ns:
            watchers = frozenset(name for name, agent in agents.items() if _watches(agent, message.event, devices))
            found.append(HeldEvent(message.event.id, stored.sequence, stored.time_ns, watchers))
    return found


def _watches(agent: AgentDefinition, event: Event, devices: dict[str, Device]) -> bool:
    # Said again here, and not taken from the agent service, on purpose: this is the check on it.
    device = devices.get(event.device_name) or Device(name=event.device_name, profile_name=event.profile_name)
    return any(
        not watch.topic and watch.fits(device) and (not watch.resources or event.source_name in watch.resources)
        for watch in agent.watches
    )


async def commands_and_outcomes(bus: Bus) -> tuple[list[SentCommand], list[Ended]]:
    """Return what agents sent and what the guard told of it, as the command stream holds them, oldest first."""
    commands: list[SentCommand] = []
    outcomes: list[Ended] = []
    async for stored in bus.read(subjects.COMMANDS_STREAM, [], name="tally-commands"):
        with contextlib.suppress(MalformedMessageError, InvalidInputError):  # the guard set it aside too
            found = _told(stored, bus.settings.gateway)
            if isinstance(found, SentCommand):
                commands.append(found)
            elif found is not None:
                outcomes.append(found)
    return commands, outcomes


def _told(stored: StoredMessage, gateway: str) -> SentCommand | Ended | None:
    content_type = stored.headers.get(CONTENT_TYPE, wire.PROTOBUF)
    if stored.subject.startswith(f"{subjects.token(gateway)}.outcomes."):
        outcome = wire.decode(Outcome, stored.data, content_type)
        return Ended(outcome.command_id, outcome.status, outcome.reason)
    device, agent = subjects.parse_command(stored.subject)
    if agent == subjects.GUARD:
        return None
    command = wire.decode(Command, stored.data, content_type)
    epoch = (command.epoch.generation, command.epoch.revision)
    return SentCommand(command.id, agent, device, command.resource, stored.sequence, command.cause.event_id, epoch)


async def _watching_since(bus: Bus, agent: str) -> int:
    try:
        return await bus.consumer_created_ns(subjects.EVENTS_STREAM, subjects.agent_durable(agent))
    except NotFoundError:
        return 0


def _journal(path: Path) -> list[dict[str, Any]]:
    return read_journal(path) if path.exists() else []
