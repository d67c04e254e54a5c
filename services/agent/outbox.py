"""Commands into the stream: each behind the last one on its subject, and stored before anything else follows from it.

Commands for one device go out in the order they were decided; those for different devices do not wait for each other.

Source: design.md section 3.5.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.errors import ConflictError, MalformedMessageError, TheirError, UnavailableError
from edgeagents.model.message import Command, CommandId

log = logging.getLogger(__name__)

AGAIN_S: Final = 0.25
Again: TypeAlias = Callable[[Command], Awaitable[Command]]


@dataclass(frozen=True, slots=True)
class _Last:
    """The last message on a subject."""

    sequence: int
    command_id: str


_NOTHING: Final = _Last(0, "")


class Outbox:
    """Stores one agent's commands."""

    def __init__(self, bus: Bus, agent: str) -> None:
        """Prepare; nothing is read or written yet."""
        self._bus = bus
        self._agent = agent
        self._lasts: dict[str, _Last] = {}  # by subject; absent: nothing stored yet
        self._unsure: set[str] = set()  # subjects whose newest command may be stored or not
        self._has_looked = False
        self._looking = asyncio.Lock()  # the consumer that looks has one name
        self._ends: dict[str, asyncio.Future[None]] = {}  # by device: when the newest turn is over

    def turn(self, device: str) -> contextlib.AbstractAsyncContextManager[None]:
        """Return what waits, once entered, until all earlier turns of a device are over; asked for in their order."""
        before = self._ends.get(device)
        over = self._ends[device] = asyncio.get_running_loop().create_future()
        return self._turn(device, before, over)

    @contextlib.asynccontextmanager
    async def _turn(
        self, device: str, before: "asyncio.Future[None] | None", over: "asyncio.Future[None]"
    ) -> AsyncIterator[None]:
        try:
            if before is not None:
                await asyncio.wait((before,))
            yield
        finally:
            if before is None or before.done():
                self._end(device, over)
            else:  # given up while it waited: who is next waits for those before it all the same
                before.add_done_callback(lambda _: self._end(device, over))

    def _end(self, device: str, over: "asyncio.Future[None]") -> None:
        over.set_result(None)
        if self._ends.get(device) is over:
            del self._ends[device]

    async def prepare(self) -> None:
        """Find out what was stored last, so that the first command need not wait for it."""
        with contextlib.suppress(TheirError):  # then the first command looks
            await self._look("")

    async def store(self, command: Command, decided_s: float, again: Again | None = None) -> None:
        """Store a command behind the last one on its subject; within the turn of its device.

        The guard counts the time to live from when it is stored: what passed before is taken off.

        Args:
            command: as it was decided.
            decided_s: when that was, monotonic time.
            again: returns the command as it is to be stored once a try came to nothing, or raises: then it is not.

        Raises:
            UnavailableError: it is not stored, and would come too late.
            TheirError: `again` says that it may not be stored any more.
        """
        is_tried = False
        subject = subjects.command(self._bus.settings.gateway, command.device, self._agent)
        while True:
            try:
                if not self._has_looked or subject in self._unsure:
                    async with asyncio.timeout(_left_s(command, decided_s)):  # many may wait to look
                        await self._look(subject)
                last = self._lasts.get(subject, _NOTHING)
                if last.command_id != command.id:
                    left_s = _left_s(command, decided_s)
                    if left_s <= 0:
                        raise UnavailableError("its time is over")
                    if is_tried and again is not None:
                        command = await again(command)
                    is_tried = True
                    self._unsure.add(subject)
                    data = wire.encode(command.model_copy(update={"ttl_s": left_s}))
                    sequence = await self._bus.store(subject, data, wire.AS_PROTOBUF, expected_last=last.sequence)
                    self._lasts[subject] = _Last(sequence, command.id)
                self._unsure.discard(subject)
                return
            except (UnavailableError, ConflictError, TimeoutError) as error:
                # Stored or not: looking at the subject's last message tells.
                if _left_s(command, decided_s) <= 0:
                    why = str(error) or "nobody says what is stored"
                    raise UnavailableError(f"command for {command.device} not stored in time: {why}") from error
                await asyncio.sleep(0 if isinstance(error, ConflictError) else AGAIN_S)

    async def _look(self, subject: str) -> None:
        """Find out what was stored last: the first time for all devices at once, then for one subject."""
        async with self._looking:
            if not self._has_looked:
                pattern = subjects.own_commands(self._bus.settings.gateway, self._agent)
            elif subject in self._unsure:
                pattern = subject
            else:
                return  # whoever looked before us looked for all
            self._lasts.pop(subject, None)
            # By a consumer of ours: agents may not get messages directly (`edgeagents/permissions.py` says why).
            name = f"{subjects.agent_durable(self._agent)}_last"  # no agent's name has an underscore
            async for stored in self._bus.read(subjects.COMMANDS_STREAM, [pattern], name=name, last_per_subject=True):
                try:
                    found = wire.decode(Command, stored.data).id
                except MalformedMessageError as error:
                    log.warning("the last message on %s is no command of ours: %s", stored.subject, error)
                    found = CommandId("")
                self._lasts[stored.subject] = _Last(stored.sequence, found)
            self._unsure.discard(subject)
            self._has_looked = True


def _left_s(command: Command, decided_s: float) -> float:
    return command.ttl_s - (time.monotonic() - decided_s)
