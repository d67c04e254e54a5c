"""A broker in memory: one stream of commands, requests, and what was published."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from edgeagents.adapters.bus import BusMessage, Handler, StoredMessage
from edgeagents.errors import ConflictError, NotFoundError, UnavailableError
from edgeagents.settings import BusSettings


class Delivered(StoredMessage):
    """A message that notes its acknowledgement."""

    def __init__(self, *fields: Any, acked: list[int]) -> None:
        super().__init__(*fields)
        object.__setattr__(self, "acked", acked)

    async def ack(self) -> None:
        self.acked.append(self.sequence)  # type: ignore[attr-defined]


class Ended:
    """A subscription that can be ended; a later one of the same subject stays."""

    def __init__(self, bus: "MemoryBus", subject: str, handler: Handler) -> None:
        self._bus, self._subject, self._handler = bus, subject, handler

    async def unsubscribe(self) -> None:
        if self._bus.handlers.get(self._subject) is self._handler:
            del self._bus.handlers[self._subject]


class MemoryBus:
    """`plan` says how each store goes: ok, lost (not stored), unheard (stored without an acknowledgement)."""

    def __init__(self) -> None:
        self.settings = BusSettings(gateway="gw")
        self.held: list[tuple[str, bytes, dict[str, str]]] = []
        self.first = 1  # sequence of the first message held
        self.plan: list[str] = []
        self.answers: list[BusMessage] = []
        self.handlers: dict[str, Handler] = {}
        self.budgets: dict[str, int] = {}
        self.retired: list[Ended] = []  # the broker sends no more to them
        self.watchers: list[Callable[[], None]] = []
        self.subscribed = asyncio.Event()
        self.has_stream = True
        self.acked: list[int] = []
        self.deliver: list[int] = []  # sequences, as the consumer gives them
        self.stored_ns = 0
        self.broker_ns: int | None = 0
        self.asked_time = 0
        self.published: list[tuple[str, bytes]] = []
        self.floor: int | None = None  # up to where the guard's consumer has acknowledged

    # --- stream ----------------------------------------------------------------------------------

    async def store(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *,
        expected_last: int | None = None, **more: Any,
    ) -> int:  # fmt: skip
        assert not more, "no message ids: agents share the stream's memory of them"
        what = self.plan.pop(0) if self.plan else "ok"
        if what == "lost":
            raise UnavailableError("no acknowledgement")
        if expected_last is not None and self.newest_of(subject) != expected_last:
            raise ConflictError("wrong last sequence")
        self.held.append((subject, data, dict(headers or {})))
        if what == "unheard":
            raise UnavailableError("no acknowledgement")
        return await self.last_sequence("commands")

    def newest_of(self, subject: str) -> int:
        return max((at for at, (name, _, _) in enumerate(self.held, self.first) if name == subject), default=0)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        sequence = self.newest_of(subject)
        return self.message(sequence) if sequence else None

    async def newest(self, stream: str, pattern: str) -> StoredMessage | None:
        assert (stream, pattern) == ("commands", "gw.outcomes.*.*")
        told = [at for at, (name, _, _) in enumerate(self.held, self.first) if name.startswith("gw.outcomes.")]
        return self.message(told[-1]) if told else None

    async def server_time_ns(self, stream: str) -> int:
        assert stream == "commands"
        self.asked_time += 1
        if self.broker_ns is None:
            raise UnavailableError("no answer")
        return self.broker_ns

    async def last_sequence(self, stream: str) -> int:
        if not self.has_stream:
            raise NotFoundError("no stream")
        return self.first + len(self.held) - 1

    def message(self, sequence: int) -> StoredMessage:
        subject, data, headers = self.held[sequence - self.first]
        return Delivered(subject, data, headers, "commands", sequence, self.stored_ns, acked=self.acked)

    async def consume(
        self, stream: str, durable: str, patterns: list[str], **options: Any
    ) -> AsyncIterator[StoredMessage]:
        assert (stream, durable, patterns) == ("commands", "guard", ["gw.commands.*.*"])
        for sequence in self.deliver:
            yield self.message(sequence)

    async def read(self, stream: str, patterns: list[str], *, name: str) -> AsyncIterator[StoredMessage]:
        if not self.has_stream:
            raise NotFoundError("no stream")
        for sequence in range(self.first, self.first + len(self.held)):
            if not patterns or self.held[sequence - self.first][0].endswith(".guard"):
                yield self.message(sequence)

    async def acknowledged(self, stream: str, durable: str) -> int:
        if self.floor is None:
            raise NotFoundError("no consumer")
        return self.floor

    async def forget_consumer(self, stream: str, durable: str) -> None:
        self.floor = None

    # --- requests --------------------------------------------------------------------------------

    async def subscribe(self, subject: str, handler: Handler, *, most: int = 0, pending_bytes: int = 0) -> "Ended":
        self.handlers[subject] = handler
        self.budgets[subject] = most
        if subject == "gw.leases.*":
            self.subscribed.set()
        return Ended(self, subject, handler)

    async def retire(self, subscription: "Ended") -> None:
        self.retired.append(subscription)

    async def handed_out(self, *subscriptions: "Ended") -> None:
        """All that was sent has been handed out: a test calls the handlers itself."""

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.watchers.append(callback)

    def handler(self, subject: str) -> Handler | None:
        """Return who hears a subject of two or three tokens: by its own name, or with all others."""
        return self.handlers.get(subject) or self.handlers.get(f"{subject.rpartition('.')[0]}.*")

    async def publish(self, subject: str, data: bytes) -> None:
        self.published.append((subject, data))

    async def respond(self, message: BusMessage, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.answers.append(BusMessage(message.reply, data, dict(headers or {})))
