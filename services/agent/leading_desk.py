"""The bus's and the web's side of an agent that leads: who asks it to, who answers it, what it says.

Who speaks is a token of the subject, which the broker lets nobody else write. Bad bytes are counted, never fatal. What
it is asked over NATS is answered below `_INBOX.micro` alone, as all that agents answer.

Source: docs/tasks.md; docs/decisions/0026.
"""

import asyncio
import logging
from collections import deque
from typing import Any, Final, TypeVar

from fastapi import FastAPI

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.task_doors import add_task_routes, answer_of
from edgeagents.adapters.web_pages import shows
from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError, InvalidInputError, MalformedMessageError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import Act, Announcement, LedgerAsk, LedgerTold
from edgeagents.model.message import MAX_REASON_CHARS, Message
from edgeagents.permissions import MICRO_INBOX
from edgeagents.protocol.conversation import Tell
from edgeagents.protocol.ledger_words import request_of, told_of
from services.agent.commands import Commander
from services.agent.leading import Leading
from services.agent.presence import CoordinatorWatch
from services.agent.shown import LeadingState

log = logging.getLogger(__name__)

MOST_PENDING: Final = 1_024  # messages of one kind that wait here; further ones are lost, and said again
MOST_PENDING_BYTES: Final = 4 << 20
M = TypeVar("M", bound=Message)


class LeadingDesk:
    """Hears the bus for an agent that may lead."""

    def __init__(self, bus: Bus, agent: str, leading: Leading) -> None:
        """Prepare; `run` hears and says."""
        self._bus = bus
        self._agent = agent
        self._leading = leading
        self._gateway = bus.settings.gateway
        self._to_send: deque[Tell] = deque()
        self._has_to_send = asyncio.Event()
        leading.send = self._send

    async def run(self) -> None:
        """Hear all that is said to a leader, and say what it says, in order, for ever."""
        gateway, agent = self._gateway, self._agent
        for subject, handler in (
            (subjects.peer(gateway, "peer-answers", agent, None), self._on_answer),
            (subjects.peer(gateway, "peer-ledger", agent, None), self._on_ledger),
            (subjects.announcements(gateway), self._on_announcement),
        ):
            await self._bus.subscribe(subject, handler, pending=MOST_PENDING, pending_bytes=MOST_PENDING_BYTES)
        # Of two copies of us one alone gets each request; both refuse what is new while they hear one another.
        asks = subjects.peer_task(gateway, agent, None, None)
        await self._bus.subscribe(
            asks, self._on_request, queue="leading", pending=MOST_PENDING, pending_bytes=MOST_PENDING_BYTES
        )
        while True:
            await self._has_to_send.wait()
            self._has_to_send.clear()
            while self._to_send:
                tell = self._to_send.popleft()
                await self._publish("peer-acts", tell.to, tell.act, self._leading.reads(tell.to))

    def _send(self, tell: Tell) -> None:
        self._to_send.append(tell)
        self._has_to_send.set()

    async def _publish(self, family: subjects.PeerFamily, to: str, message: Message, content_type: str) -> None:
        subject = subjects.peer(self._gateway, family, to, self._agent)
        try:
            await self._bus.publish(subject, wire.encode(message, content_type), {CONTENT_TYPE: content_type})
        except EdgeAgentsError as error:  # the protocols say it again
            self._leading.counts["acts_lost"] += 1
            log.warning("not told %s: %s", to, error)

    def _decoded(self, message: BusMessage, kind: type[M]) -> tuple[str, M] | None:
        """Return who speaks and what it says; what is none is counted, and written down sparingly."""
        sender = ""
        try:
            _, sender = subjects.parse_peer(message.subject)
            return sender, wire.decode(kind, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except InvalidInputError as error:
            cause = error.cause_kind if isinstance(error, MalformedMessageError) else "unknown-name"
            self._leading.refused(sender, cause, str(error))
            return None

    async def _on_answer(self, message: BusMessage) -> None:
        if not self._leading.book.open:  # nobody was asked: not worth reading
            self._leading.counts["refused_other-conversation"] += 1
            return
        found = self._decoded(message, Act)
        if found is not None:
            self._leading.heard(*found)

    async def _on_ledger(self, message: BusMessage) -> None:
        found = self._decoded(message, LedgerAsk)
        if found is None:
            return
        sender, asked = found
        try:
            request = request_of(asked, sender)
            told = told_of(self._leading.asked(sender, asked.task, request, asked.reason))
        except EdgeAgentsError as error:
            told = LedgerTold(task=asked.task, problem=str(error)[:MAX_REASON_CHARS])
        content_type = wire.answers_in(message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        await self._publish("peer-ledger-told", sender, told, content_type)

    async def _on_announcement(self, message: BusMessage) -> None:
        content_type = message.headers.get(CONTENT_TYPE, wire.PROTOBUF)
        try:
            agent = subjects.speaker(message.subject)
            said = wire.decode(Announcement, message.data, content_type)
        except InvalidInputError as error:
            self._leading.refused("", "announcement", str(error))
            return
        self._leading.announced(agent, said, wire.answers_in(content_type))

    async def _on_request(self, message: BusMessage) -> None:
        # Whoever asks chooses the reply subject: it must not become a message of ours on any other subject.
        if not message.reply.startswith(f"{MICRO_INBOX}."):
            self._leading.counts["refused_no-inbox"] += 1
            return
        try:
            _, sender = subjects.parse_peer(message.subject)
        except InvalidInputError as error:
            self._leading.refused("", "unknown-name", str(error))
            return
        answer = await answer_of(self._leading, message.subject.split(".")[3], sender, message.data)
        try:
            await self._bus.respond(message, answer)
        except EdgeAgentsError as error:
            log.warning("an answer could not be sent: %s", error)


def begin_leading(
    service: EdgexService, agent: AgentDefinition, watch: CoordinatorWatch, commander: Commander, audit: Audit,
    incarnation: str,
) -> None:  # fmt: skip
    """Have an agent lead from now on, for as long as its service runs: routes, bus and timers."""
    bus, tasks = service.bus, service.tasks
    leading = Leading(agent.name, watch, commander, service.devices, audit, lambda: bus.is_connected)
    leading.incarnation = incarnation
    add_leading_routes(service.app, leading)
    tasks.create_task(leading.run(), name="leading")
    tasks.create_task(LeadingDesk(bus, agent.name, leading).run(), name="leading desk")


def add_leading_routes(app: FastAPI, leading: Leading) -> None:
    """Add the routes of an agent that may lead: those by which tasks are given, and how it went."""
    add_task_routes(app, leading, "It is taken in, in the agent's memory.")

    @app.get("/api/v3/leading", **shows(LeadingState, "What it leads."))
    async def state() -> dict[str, Any]:
        """Tell what the agent leads while no coordinator is there; the route is there only with `leads: true`."""
        return {"apiVersion": "v3", "statusCode": 200, **leading.state()}
