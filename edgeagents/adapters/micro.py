"""A service as a NATS micro service: it answers `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`, so `nats micro ls` shows it.

Not nats-py's own `nats.micro`: that one answers to whatever reply subject it is given, and knows no endpoints that
somebody else subscribes to. Here answers go to inboxes alone, and none is given to a question without one.

A question to all is heard by every service, so anybody who may hear it may answer it in any name. Whom to believe:
only who is asked by name, since the broker lets nobody else hear such a question, nor guess where its answer goes.
Agents may answer below `permissions.MICRO_INBOX` alone.

Source: NATS ADR-32 (service API).
"""

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.permissions import MICRO_INBOX
from edgeagents.subjects import MicroVerb

INBOXES: Final = "_INBOX."
_SEMANTIC: Final = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One subject a service listens on, as others are told of it; `requests` says how many came so far."""

    name: str
    subject: str
    requests: Callable[[], int]


@dataclass(slots=True)
class Micro:
    """What one service says of itself; `serve` makes it answer.

    Args:
        name: its key in EdgeX.
        version: semantic; another one is told as 0.0.0.
        description: for people.
        metadata: such as the gateway's name.
        endpoints: what it listens on.
        instance: tells two runs of one service apart.
    """

    name: str
    version: str
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    endpoints: list[Endpoint] = field(default_factory=list)
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def serve(self, bus: Bus) -> None:
        """Answer from now on.

        Raises:
            UnavailableError: the connection is closed.
        """
        for verb in subjects.MICRO_VERBS:
            for rest in ((), (self.name,), (self.name, self.instance)):
                await bus.subscribe(subjects.asked(verb, *rest), self._answer(bus, verb))

    def says(self, verb: MicroVerb) -> dict[str, Any]:
        """Return the answer to a question."""
        version = self.version if _SEMANTIC.fullmatch(self.version) else "0.0.0"
        found: dict[str, Any] = {
            "type": f"io.nats.micro.v1.{verb.lower()}_response", "name": self.name, "id": self.instance,
            "version": version, "metadata": dict(self.metadata),
        }  # fmt: skip
        if verb == "INFO":
            found |= {"description": self.description, "endpoints": [_info(item) for item in self.endpoints]}
        elif verb == "STATS":
            started = f"{self.started:%Y-%m-%dT%H:%M:%S.%f}Z"
            found |= {"started": started, "endpoints": [_stats(item) for item in self.endpoints]}
        return found

    def _answer(self, bus: Bus, verb: MicroVerb) -> Callable[[BusMessage], Any]:
        async def answer(message: BusMessage) -> None:
            # Whoever asks chooses the reply subject: it must not become a message of ours on any other subject.
            if message.reply.startswith(INBOXES):
                await bus.respond(message, json.dumps(self.says(verb)).encode())

        return answer


def _info(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "subject": endpoint.subject, "queue_group": "", "metadata": {}}


def _stats(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name, "subject": endpoint.subject, "queue_group": "", "num_requests": endpoint.requests(),
        "num_errors": 0, "last_error": "", "processing_time": 0, "average_processing_time": 0, "data": None,
    }  # fmt: skip


async def ask(bus: Bus, verb: MicroVerb, name: str = "", *, wait_s: float = 0.5) -> list[bytes]:
    """Return what those of a name, or all, answer in time; raises like `instances`."""
    return await bus.gather(subjects.asked(verb, name), inbox=MICRO_INBOX, wait_s=wait_s)


async def instances(bus: Bus, names: Sequence[str], wait_s: float = 0.5) -> dict[str, list[str]]:
    """Return the instances of each service that answer in time, each asked by its name, so that no other can answer.

    Args:
        bus: connected as a user who may ask.
        names: keys of the services.
        wait_s: how long answers are waited for, seconds.

    Raises:
        UnavailableError: the connection is closed.
    """
    answers = await asyncio.gather(*(ask(bus, "PING", name, wait_s=wait_s) for name in names))
    found = zip(names, answers, strict=True)
    return {name: [instance for body in bodies for instance in _instance(body)] for name, bodies in found}


def _instance(body: bytes) -> list[str]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return []
    instance = said.get("id") if isinstance(said, dict) else None
    return [instance] if isinstance(instance, str) else []
