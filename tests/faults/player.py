"""An agent played by a test: keeps a session, takes leases, sends commands again until they are held, hears outcomes.

It does what `services/agent/commands.py` does, in fewer words and without a model, so that tests can have many commands
under way at the moment of a fault. What the broker acknowledged is remembered: none of that may be lost.

Source: design.md sections 3.4 and 3.5.
"""

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field
from typing import Self

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import MalformedMessageError, UnavailableError
from edgeagents.model.message import (
    Cause,
    Command,
    CommandId,
    Epoch,
    Heartbeat,
    LeaseReply,
    LeaseRequest,
    Outcome,
    SessionWelcome,
)

RESOURCE = "Brightness"


@dataclass
class Player:
    """One run of an agent; enter it to have it alive."""

    bus: Bus
    name: str
    incarnation: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    stored: dict[str, int] = field(default_factory=dict)  # command ids the broker acknowledged, and their sequences
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    trouble: str = ""  # why the last `do` came to nothing

    @property
    def gateway(self) -> str:
        """Name of the gateway it is an agent of."""
        return self.bus.settings.gateway

    async def __aenter__(self) -> Self:
        pattern = subjects.outcomes(self.gateway, self.name)
        self._heard = await self.bus.subscribe(pattern, self._hear)
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        with contextlib.suppress(UnavailableError, Exception):
            await self._heard.unsubscribe()

    async def _hear(self, message: BusMessage) -> None:
        with contextlib.suppress(MalformedMessageError):
            outcome = wire.decode(Outcome, message.data)
            self.outcomes[outcome.command_id] = outcome

    async def _beat(self) -> None:
        beat = wire.encode(Heartbeat(incarnation=self.incarnation))
        while True:
            with contextlib.suppress(UnavailableError):
                await self.bus.publish(subjects.session(self.gateway, self.name), beat, wire.AS_PROTOBUF)
            await asyncio.sleep(0.4)

    async def is_welcome(self) -> bool:
        """Say whether the guard has a session for it."""
        beat = wire.encode(Heartbeat(incarnation=self.incarnation))
        with contextlib.suppress(UnavailableError, MalformedMessageError):
            answer = await self.bus.request(
                subjects.session(self.gateway, self.name), beat, wire.AS_PROTOBUF, timeout_s=0.5
            )
            return not wire.decode(SessionWelcome, answer.data).refused
        return False

    async def lease(self, device: str, *, release: bool = False) -> LeaseReply:
        """Ask for the lease of a light, or give it back; no answer is a refusal."""
        request = LeaseRequest(incarnation=self.incarnation, device=device, resource=RESOURCE, release=release)
        subject = subjects.lease(self.gateway, self.name)
        try:
            answer = await self.bus.request(subject, wire.encode(request), wire.AS_PROTOBUF, timeout_s=1.0)
            return wire.decode(LeaseReply, answer.data)
        except (UnavailableError, MalformedMessageError) as error:
            return LeaseReply(granted=False, reason=str(error))

    def command(self, device: str, value: int, epoch: Epoch, ttl_s: float) -> Command:
        """Return a command on data of this moment."""
        return Command(
            id=CommandId(f"{self.name}-{uuid.uuid4()}"), device=device, resource=RESOURCE, value=str(value),
            incarnation=self.incarnation, epoch=epoch, ttl_s=ttl_s, cause=Cause(stream="played", sequence=1),
            data_origin_ns=time.time_ns(),
        )  # fmt: skip

    async def send(self, command: Command) -> bool:
        """Store a command, again and again until it is held or its time is over; say whether it is held."""
        subject = subjects.command(self.gateway, command.device, self.name)
        until_s = time.monotonic() + command.ttl_s
        while True:
            try:
                self.stored[command.id] = await self.bus.store(
                    subject, wire.encode(command), wire.AS_PROTOBUF, timeout_s=2.0
                )
                return True
            except UnavailableError:
                if time.monotonic() > until_s:
                    return False
                await asyncio.sleep(0.05)

    async def ended(self, command: Command, timeout_s: float) -> Outcome | None:
        """Return how a command ended, None when that is not told in time."""
        until_s, ask_s = time.monotonic() + timeout_s, 0.0
        while command.id not in self.outcomes:
            now_s = time.monotonic()
            if now_s > until_s:
                return None
            if now_s > ask_s:  # what was told while the link was down
                await self._ask(command)
                ask_s = time.monotonic() + 0.3
            await asyncio.sleep(0.005)
        return self.outcomes[command.id]

    async def _ask(self, command: Command) -> None:
        with contextlib.suppress(UnavailableError, MalformedMessageError):
            subject = subjects.outcome(self.gateway, self.name, command.device)
            last = await self.bus.last(subjects.COMMANDS_STREAM, subject)
            if last is not None:
                outcome = wire.decode(Outcome, last.data)
                self.outcomes[outcome.command_id] = outcome

    async def do(self, device: str, value: int, ttl_s: float = 5.0, timeout_s: float = 8.0) -> Outcome | None:
        """Take the lease, command, and return how it ended; None when there is no lease or nothing was told in time."""
        reply = await self.lease(device)
        if not reply.granted or reply.epoch is None:
            self.trouble = f"no lease: {reply.reason}"
            return None
        command = self.command(device, value, reply.epoch, ttl_s)
        if not await self.send(command):
            self.trouble = f"command {command.id} was not stored in {ttl_s:g} s"
            return None
        outcome = await self.ended(command, timeout_s)
        if outcome is None or outcome.status != "proven":
            self.trouble = (
                f"command {command.id} {outcome.status + ': ' + outcome.reason if outcome else 'has no outcome'}"
            )
        return outcome
