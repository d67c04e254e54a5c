"""One guard per gateway, also where two have volumes of their own: who is there answers, who comes later is seen.

The file lock keeps a second guard off a volume. This keeps it off the gateway: a guard that starts asks whether
another one answers; it begins with a record among the commands, stored only behind the last such record; and one that
meets another's record afterwards has been followed by somebody else, and ends.

Source: docs/decisions/0008-generations-never-come-again.md; design.md section 3.7.
"""

import asyncio
import logging
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage, StoredMessage
from edgeagents.errors import (
    ConfigurationError,
    ConflictError,
    MalformedMessageError,
    NobodyThereError,
    UnavailableError,
)
from edgeagents.model.message import Heartbeat, LeaseRecord
from edgeagents.protocol.lease import is_start

log = logging.getLogger(__name__)

TRIES: Final = 3  # one that is just ending gets a moment
ANSWER_S: Final = 1.0
INBOXES: Final = "_INBOX."


class Alone:
    """Makes sure that this run of the guard is the only one, as long as `watch` runs."""

    def __init__(self, bus: Bus, incarnation: str, pause_s: float = 1.0) -> None:
        """Prepare; nothing is asked yet. `pause_s` lies between two tries."""
        self._bus = bus
        self._incarnation = incarnation
        self._pause_s = pause_s
        self._gateway = bus.settings.gateway
        self._subject = subjects.guard_starts(self._gateway)
        self._last_start = 0
        self._generation = 0
        self._followed = 0  # the generation of the guard before this one
        self._told = False
        self._met: asyncio.Queue[LeaseRecord | None] = asyncio.Queue(64)

    async def come(self) -> None:
        """Return when no other guard is there, or one that is silent at every try; from then on answer whoever asks.

        Raises:
            ConfigurationError: another one does; names its incarnation.
        """
        found = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._pause_s)
            other = await self._other()
            if other == "":
                break
            found = other or found
        else:
            if found:
                raise ConfigurationError(self._two(found, "answers: this one does not start"))
            log.warning(
                "nobody answered as guard of %s in %d tries, though somebody may be there", self._gateway, TRIES
            )
        last = await self._bus.last(subjects.COMMANDS_STREAM, self._subject)
        self._last_start = last.sequence if last is not None else 0
        record = _decoded(last)
        self._followed = record.generation if record is not None else 0
        await self._bus.subscribe(subjects.guard(self._gateway), self._answer)

    async def begin(self, generation: int) -> None:
        """Write down that this guard begins, behind the last that did; from then on look out for others.

        Raises:
            ConfigurationError: another one began meanwhile.
            UnavailableError: the broker did not answer.
        """
        record = LeaseRecord(
            device=self._gateway, resource="", incarnation=self._incarnation, generation=generation,
            reason="a guard begins",
        )  # fmt: skip
        try:
            await self._bus.store(self._subject, wire.encode(record), wire.AS_PROTOBUF, expected_last=self._last_start)
        except ConflictError as error:
            other = await self._newest()
            if other != self._incarnation:  # else an earlier try was stored, its acknowledgement lost
                raise ConfigurationError(self._two(other, "began first: this one does not start")) from error
        self._generation = generation
        await self._bus.subscribe(subjects.lease_records(self._gateway), self._on_record)
        self._bus.on_reconnect(lambda: self._note(None))  # what came meanwhile was missed

    async def watch(self) -> None:
        """Return never.

        Raises:
            ConfigurationError: another guard commands this gateway: this one must end.
        """
        while True:
            record = await self._met.get()
            is_lease = record is not None and not is_start(record)
            # One that hung, and was followed by this one, may write a last word before it sees that, and ends.
            if record is not None and is_lease and record.generation != self._followed:
                text = f"wrote lease records of generation {record.generation} while this one is at {self._generation}"
                raise ConfigurationError(self._two("", f"{text}: this one ends"))
            try:
                # Whether it is stored counts: one that was refused has ended itself.
                other = await self._newest()
            except UnavailableError as error:
                log.warning("who guards %s cannot be looked up: %s", self._gateway, error)
                await asyncio.sleep(self._pause_s)
                self._note(record)
                continue
            if other != self._incarnation:
                raise ConfigurationError(self._two(other, "began after this one: this one ends"))
            if is_lease and not self._told:
                self._told = True
                log.error("a guard that this one follows still wrote a lease record of generation %d", self._followed)

    async def _other(self) -> str | None:
        """Return the incarnation that answers, empty when nobody is there, None when nothing came in time."""
        data = wire.encode(Heartbeat(incarnation=self._incarnation))
        try:
            answer = await self._bus.request(subjects.guard(self._gateway), data, wire.AS_PROTOBUF, timeout_s=ANSWER_S)
            return wire.decode(Heartbeat, answer.data).incarnation
        except NobodyThereError:
            return ""
        except (UnavailableError, MalformedMessageError):
            return None  # one slow answer of a guard that is well must not have it displaced

    async def _newest(self) -> str:
        record = _decoded(await self._bus.last(subjects.COMMANDS_STREAM, self._subject))
        return record.incarnation if record is not None else self._incarnation

    async def _answer(self, message: BusMessage) -> None:
        if message.reply.startswith(INBOXES):
            await self._bus.respond(message, wire.encode(Heartbeat(incarnation=self._incarnation)), wire.AS_PROTOBUF)

    async def _on_record(self, message: BusMessage) -> None:
        try:
            record = wire.decode(LeaseRecord, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError:
            return  # the intake says so
        is_own = record.incarnation == self._incarnation if is_start(record) else record.generation == self._generation
        if not is_own:
            self._note(record)

    def _note(self, record: LeaseRecord | None) -> None:
        if not self._met.full():
            self._met.put_nowait(record)

    def _two(self, other: str, what: str) -> str:
        name = f" (incarnation {other})" if other else ""
        return f"gateway {self._gateway!r}: another guard{name} {what}: one guard per gateway, end one of them"


def _decoded(stored: StoredMessage | None) -> LeaseRecord | None:
    """Return a start record, None when there is none that can be read."""
    try:
        return wire.decode(LeaseRecord, stored.data) if stored is not None else None
    except MalformedMessageError as error:
        log.error("the last start record cannot be read: %s", error)
        return None
