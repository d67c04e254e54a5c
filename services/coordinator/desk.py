"""What agents and others say to the coordinator over NATS: acts, announcements, the ledger, tasks to be done.

Who speaks is the last token of the subject. Bad bytes are counted and answered, never fatal; answers go to inboxes
alone, so nobody can have us write on a subject of their choice.

Source: design.md section 4.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.micro import INBOXES
from edgeagents.adapters.middleware import error_body
from edgeagents.adapters.task_doors import answer_of
from edgeagents.errors import EdgeAgentsError, InvalidInputError, MalformedMessageError
from edgeagents.model.cooperation import Act, Announcement, Dispute, DisputeTold, LedgerAsk, LedgerTold
from edgeagents.model.message import MAX_REASON_CHARS, Message
from edgeagents.protocol.ledger_words import request_of, told_of
from services.coordinator.leader import Leader
from services.coordinator.mediator import Mediator

log = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 2_048  # requests that wait for the disk: further ones are told to come back
UNEXPECTED: Final = "something unexpected went wrong: it is in the coordinator's log"
M = TypeVar("M", bound=Message)


class Desk:
    """Hears the bus and has the leader do what is asked."""

    def __init__(self, bus: Bus, leader: Leader, mediator: Mediator, tasks: asyncio.TaskGroup) -> None:
        """Prepare; `serve` subscribes."""
        self._bus = bus
        self._leader = leader
        self._mediator = mediator
        self._tasks = tasks
        self._gateway = bus.settings.gateway
        self._under_way = 0

    async def serve(self) -> None:
        """Hear all that is said to a coordinator, from now on."""
        hears = dict(zip(("acts", "roster", "ledger", "requests", "conflicts"),
                         subjects.coordinator_hears(self._gateway), strict=True))  # fmt: skip
        await self._bus.subscribe(hears["acts"], self._on_act)
        await self._bus.subscribe(hears["roster"], self._on_announcement)
        await self._bus.subscribe(hears["ledger"], self._later(self._on_ledger))
        await self._bus.subscribe(hears["requests"], self._later(self._on_request))
        await self._bus.subscribe(hears["conflicts"], self._later(self._on_conflict))

    def _later(self, handle: Callable[[str, BusMessage], Awaitable[Any]]) -> Callable[[BusMessage], Awaitable[None]]:
        """Return what begins to answer and lets the next message come: many wait for one write of the disk."""

        async def begin(message: BusMessage) -> None:
            sender = self._speaker(message)
            if not sender:
                return
            if self._under_way >= MOST_AT_ONCE:
                self._leader.counts["turned_away"] += 1
                return
            self._under_way += 1
            self._tasks.create_task(self._answered(handle, sender, message), name="request")

        return begin

    async def _answered(
        self, handle: Callable[[str, BusMessage], Awaitable[Any]], sender: str, message: BusMessage
    ) -> None:
        try:
            await handle(sender, message)
        except EdgeAgentsError as error:
            log.warning("%s: %s", message.subject, error)
        except Exception:  # a message of one may not end the service of all: said, counted, answered
            self._leader.counts["unexpected"] += 1
            log.exception("%s from %s: not handled", message.subject, sender)
            with contextlib.suppress(EdgeAgentsError):  # the link is down: nobody waits for it
                await self._answer(message, json.dumps(error_body(500, UNEXPECTED)).encode(), wire.JSON)
        finally:
            self._under_way -= 1

    def _speaker(self, message: BusMessage) -> str:
        try:
            return subjects.speaker(message.subject)
        except InvalidInputError as error:
            self._leader.refused("", "unknown-name", str(error))
            return ""

    def _decoded(
        self, sender: str, message: BusMessage, kind: type[M], refuse: Callable[[str, str, str], None] | None = None
    ) -> M | None:
        """Return a message; what is none is counted and written down by `refuse`, else the leader."""
        try:
            return wire.decode(kind, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            (refuse or self._leader.refused)(sender, error.cause_kind, str(error))
            return None

    async def _on_act(self, message: BusMessage) -> None:
        sender = self._speaker(message)
        refuse = self._mediator.refused if sender and self._mediator.is_asked(sender) else self._leader.refused
        said = self._decoded(sender, message, Act, refuse) if sender else None
        if said is not None:
            if await self._mediator.heard(sender, said):
                return
            self._leader.counts["acts_heard"] += 1
            self._leader.heard(sender, said)

    async def _on_announcement(self, message: BusMessage) -> None:
        sender = self._speaker(message)
        said = self._decoded(sender, message, Announcement) if sender else None
        if said is not None:
            self._leader.announced(sender, said, _spoken(message))

    async def _on_conflict(self, sender: str, message: BusMessage) -> None:
        try:
            asked = wire.decode(Dispute, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self._mediator.refused(sender, error.cause_kind, str(error))
            told = DisputeTold(problem=str(error)[:MAX_REASON_CHARS])
        else:
            told = await self._mediator.file(sender, asked)
        await self._answer(message, wire.encode(told), wire.PROTOBUF)

    async def _on_ledger(self, sender: str, message: BusMessage) -> None:
        asked = self._decoded(sender, message, LedgerAsk)
        if asked is None:
            return
        try:
            turn = await self._leader.asked(sender, asked.task, request_of(asked, sender), asked.reason)
        except EdgeAgentsError as error:
            told = LedgerTold(task=asked.task, problem=str(error)[:MAX_REASON_CHARS])
        else:
            assert turn.answer is not None
            if turn.answer.problem:
                self._leader.refused(sender, "ledger", turn.answer.problem)
            told = told_of(turn.answer)
        await self._answer(message, wire.encode(told, _spoken(message)), _spoken(message))

    async def _on_request(self, sender: str, message: BusMessage) -> None:
        verb = message.subject.split(".")[2]
        await self._answer(message, await answer_of(self._leader, verb, sender, message.data), wire.JSON)

    async def _answer(self, message: BusMessage, data: bytes, content_type: str) -> None:
        if message.reply.startswith(INBOXES):
            await self._bus.respond(message, data, {CONTENT_TYPE: content_type})


def _spoken(message: BusMessage) -> str:
    """Return the content type that the sender of a message reads: the one it writes."""
    return wire.answers_in(message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
