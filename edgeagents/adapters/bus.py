"""NATS: publish, request, subscribe, streams, durable consumers, reconnect.

A thin layer over nats-py that speaks this project's errors. A message counts as stored only when the server
acknowledged it; with `sync_interval: always` that means on disk. Leaves out KV and objects on purpose
(`adapters/store.py`).

Source: nats-py 2.16, NATS ADR-8 (JetStream wire API), field notes on brokers.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api

from edgeagents.errors import ConflictError, NotFoundError, UnavailableError
from edgeagents.settings import BusSettings

log = logging.getLogger(__name__)

EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID: Final = "Nats-Msg-Id"
CONTENT_TYPE: Final = "Content-Type"
_WRONG_LAST_SEQUENCE: Final = 10071


@dataclass(frozen=True, slots=True)
class BusMessage:
    """What arrived: subject, data and headers; `reply` is set when an answer is expected."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream, with the means to acknowledge it when it came through a consumer."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    stream: str
    sequence: int
    time_ns: int
    deliveries: int = 1
    _msg: Msg | None = None

    async def ack(self) -> None:
        """Tell the server that this message needs no redelivery; repeats are harmless."""
        if self._msg is not None:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                await self._msg.ack()


Handler = Callable[[BusMessage], Awaitable[None]]


class Bus:
    """One connection to the broker of this gateway."""

    def __init__(self, client: Client, settings: BusSettings) -> None:
        """Wrap a connected client; use `connect` instead."""
        self.client = client
        self.settings = settings
        self.js: JetStreamContext = client.jetstream(timeout=10)

    @classmethod
    async def connect(cls, settings: BusSettings, name: str, *, inbox: str = "") -> "Bus":
        """Connect, keep reconnecting for ever, log the link going down and coming back once each.

        Args:
            settings: address and credentials.
            name: shown by the server; the service key.
            inbox: prefix of reply subjects, for users whose permissions name one; empty: `_INBOX`.

        Raises:
            UnavailableError: no connection within `connect_timeout_s`; refused credentials say so.
        """
        state = {"down": False}

        async def on_error(error: Exception) -> None:
            # nats-py reports every failed reconnect here; the two callbacks below say it once.
            if not isinstance(error, (OSError, nats.errors.NoServersError, nats.errors.ConnectionClosedError)):
                log.warning("nats %s: %s", settings.nats_url, error)

        async def on_disconnect() -> None:
            if not state["down"]:
                state["down"] = True
                log.warning("nats %s: link is down, trying again", settings.nats_url)

        async def on_reconnect() -> None:
            state["down"] = False
            log.warning("nats %s: link is back", settings.nats_url)

        options: dict[str, Any] = {}
        if settings.nats_user:
            password = settings.password
            options |= {
                "user": settings.nats_user,
                "password": password.get_secret_value() if password else "",
            }
        if inbox:
            options["inbox_prefix"] = inbox.encode()
        try:
            client = await asyncio.wait_for(
                nats.connect(
                    settings.nats_url,
                    name=name,
                    connect_timeout=max(1, int(settings.connect_timeout_s)),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=on_reconnect,
                    allow_reconnect=True,
                    **options,
                ),
                settings.connect_timeout_s,
            )
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise UnavailableError(
                f"nats {settings.nats_url}: {str(error) or type(error).__name__}: "
                "is nats-server up, are user and password right?"
            ) from error
        return cls(client, settings)

    async def close(self) -> None:
        """Flush what is buffered, for at most 2 s, and disconnect."""
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            await asyncio.wait_for(self.client.flush(timeout=1), 2)
        with contextlib.suppress(nats.errors.Error, OSError):
            await self.client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the link is up now."""
        return bool(self.client.is_connected)

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send, at most once; buffered while the link is down.

        Raises:
            UnavailableError: the buffer is full or the connection is closed.
        """
        try:
            await self.client.publish(subject, data, reply=reply, headers=dict(headers) if headers else None)
        except nats.errors.Error as error:
            raise UnavailableError(f"publish on {subject}: {error}") from error

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the server has seen everything published so far.

        Raises:
            UnavailableError: it has not within `timeout_s`.
        """
        try:
            await self.client.flush(timeout=max(1, int(timeout_s)))
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError(f"nats {self.settings.nats_url}: no answer to a flush") from error

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        """Send and return the first answer.

        Raises:
            UnavailableError: nobody listens there, or no answer came in time.
        """
        try:
            message = await self.client.request(
                subject, data, timeout=timeout_s, headers=dict(headers) if headers else None
            )
        except nats.errors.NoRespondersError as error:
            raise UnavailableError(f"nobody answers on {subject}: is that service up?") from error
        except (nats.errors.Error, TimeoutError, asyncio.CancelledError) as error:
            # nats-py cancels pending requests when the link breaks; our own cancellation must pass through.
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            raise UnavailableError(f"no answer on {subject} in {timeout_s:g} s") from error
        return _received(message)

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", pending: int = 65_536
    ) -> Subscription:
        """Call `handler` for every message, one after the other; it is resubscribed after a reconnect.

        Raises:
            UnavailableError: the connection is closed.
        """

        async def deliver(message: Msg) -> None:
            await handler(_received(message))

        try:
            return await self.client.subscribe(subject, queue=queue, cb=deliver, pending_msgs_limit=pending)
        except nats.errors.Error as error:
            raise UnavailableError(f"subscribe to {subject}: {error}") from error

    async def respond(self, message: BusMessage, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Answer a request; does nothing when no answer is expected."""
        if message.reply:
            await self.publish(message.reply, data, headers)

    # --- streams ---------------------------------------------------------------------------------

    async def ensure_stream(
        self,
        name: str,
        subjects: Sequence[str],
        *,
        max_age_s: float = 0,
        max_bytes: int = -1,
        max_per_subject: int = -1,
        duplicate_window_s: float = 120.0,
    ) -> None:
        """Create a file-backed stream, or bring an existing one to these subjects and limits; keeps its messages.

        Raises:
            UnavailableError: the broker has no JetStream, or refuses the stream.
        """
        config = api.StreamConfig(
            name=name,
            subjects=list(subjects),
            storage=api.StorageType.FILE,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=max_age_s,
            max_bytes=max_bytes,
            max_msgs_per_subject=max_per_subject,
            duplicate_window=min(duplicate_window_s, max_age_s) if max_age_s else duplicate_window_s,
            allow_direct=True,
        )
        try:
            try:
                await self.js.add_stream(config)
            except nats.js.errors.BadRequestError:
                await self.js.update_stream(config)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise UnavailableError(f"stream {name}: {error}: is JetStream on, is its store full?") from error

    async def store(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected_last: int | None = None,
        message_id: str = "",
        timeout_s: float = 5.0,
    ) -> int:
        """Publish into the stream that captures `subject` and return the stream sequence once it is held.

        Args:
            subject: captured by exactly one stream.
            data: the message.
            headers: further headers.
            expected_last: the sequence that must be the subject's last (0: it has none yet).
            message_id: the server drops a second message of this id within its window.
            timeout_s: longest wait for the acknowledgement.

        Raises:
            ConflictError: the subject's last sequence is another.
            UnavailableError: no acknowledgement in time: the message may or may not be stored.
        """
        extra = dict(headers or {})
        if expected_last is not None:
            extra[EXPECTED_LAST] = str(expected_last)
        if message_id:
            extra[MESSAGE_ID] = message_id
        try:
            ack = await self.js.publish(subject, data, timeout=timeout_s, headers=extra or None)
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise ConflictError(f"{subject}: {error.description}") from error
            raise UnavailableError(f"store on {subject}: {error.description}") from error
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            raise UnavailableError(f"store on {subject}: no acknowledgement in {timeout_s:g} s") from error
        return int(ack.seq)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the newest message of a subject (no wildcard), None when the stream holds none.

        Raises:
            UnavailableError: the broker did not answer.
        """
        try:
            raw = await self.js.get_last_msg(stream, subject, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise UnavailableError(f"last message of {subject}: {str(error) or type(error).__name__}") from error
        headers = dict(raw.headers or {})
        return StoredMessage(subject, raw.data or b"", headers, stream, int(raw.seq or 0), 0)

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        name: str,
        start_s: float | None = None,
        start_sequence: int | None = None,
    ) -> AsyncIterator[StoredMessage]:
        """Yield what a stream holds now, oldest first, then end; changes nothing in the stream.

        Args:
            stream: its name.
            subjects: filters; empty: all.
            name: of the short-lived consumer (permissions may name it).
            start_s: only messages stored since this wall time.
            start_sequence: only messages from this sequence on.

        Raises:
            NotFoundError: there is no such stream.
            UnavailableError: the broker did not answer.
        """
        from datetime import UTC, datetime

        policy, since = api.DeliverPolicy.ALL, None
        if start_sequence is not None:
            policy = api.DeliverPolicy.BY_START_SEQUENCE
        elif start_s is not None:
            policy, since = (
                api.DeliverPolicy.BY_START_TIME,
                datetime.fromtimestamp(start_s, UTC).isoformat().replace("+00:00", "Z"),
            )
        config = api.ConsumerConfig(
            name=name,
            deliver_policy=policy,
            opt_start_time=since,  # type: ignore[arg-type]  # nats-py passes text through; the server wants RFC 3339
            opt_start_seq=start_sequence,
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=list(subjects) or None,
            inactive_threshold=10.0,
        )
        try:
            info = await self.js.add_consumer(stream, config)
            left = int(info.num_pending or 0)
            subscription = await self.js.pull_subscribe_bind(info.name, stream=stream)
            while left > 0:
                for message in await subscription.fetch(min(left, 500), timeout=5):
                    left -= 1
                    yield _stored(message)
            await subscription.unsubscribe()
            with contextlib.suppress(nats.js.errors.Error, nats.errors.Error):
                await self.js.delete_consumer(stream, info.name)
        except nats.js.errors.NotFoundError as error:
            raise NotFoundError(f"stream {stream}: not there (yet)") from error
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise UnavailableError(f"reading stream {stream}: {str(error) or type(error).__name__}") from error

    async def consume(
        self,
        stream: str,
        durable: str,
        subjects: Sequence[str],
        *,
        batch: int = 100,
        ack_wait_s: float = 30.0,
        deliver_new: bool = False,
    ) -> AsyncIterator[StoredMessage]:
        """Yield a durable consumer's messages for ever, in order, through restarts of the broker.

        What is not acknowledged is delivered again. The caller acknowledges.

        Args:
            stream: its name; waited for when it is not there yet.
            durable: the consumer's name; created or updated to these filters.
            subjects: filters.
            batch: how many messages one pull asks for.
            ack_wait_s: redelivered after this.
            deliver_new: start with what comes now, when the consumer is created by this call.
        """
        config = api.ConsumerConfig(
            name=durable,
            durable_name=durable,
            deliver_policy=api.DeliverPolicy.NEW if deliver_new else api.DeliverPolicy.ALL,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_ack_pending=1000,
            filter_subjects=list(subjects),
        )
        subscription: JetStreamContext.PullSubscription | None = None
        told = False
        while True:
            try:
                if subscription is None:
                    await self.js.add_consumer(stream, config)
                    subscription = await self.js.pull_subscribe_bind(durable, stream=stream)
                    told = False
                messages = await subscription.fetch(batch, timeout=5)
            except (TimeoutError, nats.errors.TimeoutError):
                if not self.is_connected:
                    await asyncio.sleep(0.1)
                continue
            except nats.errors.ConnectionClosedError:
                return
            except (nats.errors.Error, nats.js.errors.Error) as error:
                if not told:
                    log.warning("consumer %s of stream %s: %s: trying again", durable, stream, error)
                    told = True
                if subscription is not None:
                    with contextlib.suppress(nats.errors.Error):
                        await subscription.unsubscribe()
                subscription = None
                await asyncio.sleep(0.25)
                continue
            for message in messages:
                yield _stored(message)


def _received(message: Msg) -> BusMessage:
    return BusMessage(message.subject, message.data, dict(message.headers or {}), message.reply)


def _stored(message: Msg) -> StoredMessage:
    meta = message.metadata
    return StoredMessage(
        message.subject,
        message.data,
        dict(message.headers or {}),
        meta.stream,
        meta.sequence.stream,
        int(meta.timestamp.timestamp() * 1e9),
        meta.num_delivered,
        message,
    )
