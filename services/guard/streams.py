"""The gateway's streams: the guard creates them all, since it starts first and owns what lies in most of them.

Source: design.md section 4; edgex-wire.md section 1.6.
"""

import asyncio
import logging
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters.batches import ensure_batch_stream
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.objects import Objects
from edgeagents.errors import UnavailableError

log = logging.getLogger(__name__)

DAY_S: Final = 86_400.0
LIMITS: Final[dict[str, dict[str, Any]]] = {
    subjects.EVENTS_STREAM: {"max_age_s": 15 * DAY_S, "max_bytes": 1 << 30},  # agents learn habits from two weeks
    # The guard holds what it has asked for in memory, and an agent may write what it likes here: see `room.py`.
    subjects.COMMANDS_STREAM: {"max_age_s": 30 * DAY_S, "max_bytes": 1 << 30, "max_message_bytes": 128 << 10},
    subjects.AUDIT_STREAM: {"max_age_s": 365 * DAY_S, "max_bytes": 4 << 30, "max_message_bytes": 256 << 10},
    # A subject a service: so who writes too much loses its own oldest, and nobody else's.
    subjects.TRIGGERS_STREAM: {"max_age_s": DAY_S, "max_per_subject": 256, "max_message_bytes": 128 << 10},
    subjects.DEAD_LETTERS_STREAM: {"max_age_s": 7 * DAY_S, "max_per_subject": 128, "max_message_bytes": 72 << 10},
}
# The coordinator alone writes it, but never sets it up: whoever does could have the broker copy to any subject.
TASKS_LIMITS: Final[dict[str, Any]] = {"max_age_s": 3 * DAY_S, "max_bytes": 512 << 20, "max_per_subject": 1}
TASKS_TRIES: Final = 3
PREFIXES_BYTES: Final = 128 << 20  # twice what the language model keeps unless told otherwise
LEAST_BYTES: Final = 64 << 20  # of the two that have a subject a service
OTHERS: Final = 8  # services that are no agents, and may have dead letters


def limits_of(stream: str, agents: int) -> dict[str, Any]:
    """Return a stream's limits on a gateway with so many agents: room for all that all subjects may hold."""
    limits = LIMITS[stream]
    if "max_per_subject" not in limits:
        return limits
    writers = agents + (OTHERS if stream == subjects.DEAD_LETTERS_STREAM else 0)
    needed = writers * limits["max_per_subject"] * limits["max_message_bytes"]
    return {**limits, "max_bytes": max(LEAST_BYTES, needed)}


async def ensure_streams(bus: Bus, base: str, agents: int = 0) -> None:
    """Create the gateway's streams, waiting for the broker if it has to be waited for; for so many agents.

    Raises:
        UnavailableError: the broker refuses one, such as for subjects that another stream captures already.
    """
    kind = bus.settings.edgex_bus
    sources = subjects.stream_sources(base, kind)
    for name, captured in subjects.stream_subjects(bus.settings.gateway, base, kind).items():
        await _ensure(bus, name, captured, sources=sources.get(name), **limits_of(name, agents))
    await ensure_tasks(bus)
    await ensure_prefixes(bus)
    if kind == "nats-jetstream":
        # EdgeX's own: its services need it when they start, and would make it without limits.
        captured, limit = [subjects.topic_to_subject(f"{base}/#", kind)], LIMITS[subjects.EVENTS_STREAM]
        await _ensure(bus, subjects.edgex_stream(base), captured, keeps_existing=True, **limit)


async def ensure_tasks(bus: Bus) -> None:
    """Create the coordinator's stream; a broker that takes no batches is said, since all but tasks goes without it."""
    captured, problem = [subjects.task_records(bus.settings.gateway)], ""
    for _ in range(TASKS_TRIES):
        try:
            await ensure_batch_stream(bus, subjects.TASKS_STREAM, captured, **TASKS_LIMITS)
            return
        except UnavailableError as error:  # refused, or slow, or away for a moment
            problem = str(error)
        await asyncio.sleep(0.25)
    log.warning("%s: no tasks can be given to a coordinator until the guard is started again", problem)


async def ensure_prefixes(bus: Bus) -> None:
    """Create the bucket for beginnings of prompts; without it they are computed again, and nothing else is missing."""
    try:
        await Objects(bus, subjects.PREFIXES_BUCKET).ensure(PREFIXES_BYTES)
    except UnavailableError as error:
        log.warning("%s: beginnings of prompts are computed again after each start", error)


async def fit_streams(bus: Bus, agents: int) -> None:
    """Give the streams that have a subject a service room for so many agents.

    Raises:
        UnavailableError: the broker refuses, or does not answer.
    """
    captured = subjects.stream_subjects(bus.settings.gateway)
    for name in (subjects.TRIGGERS_STREAM, subjects.DEAD_LETTERS_STREAM):
        await bus.ensure_stream(name, captured[name], **limits_of(name, agents))


async def _ensure(bus: Bus, name: str, captured: list[str], **options: Any) -> None:
    while True:
        try:
            await bus.ensure_stream(name, captured, **options)
            return
        except UnavailableError:
            if bus.is_connected:
                raise
            await asyncio.sleep(0.25)
