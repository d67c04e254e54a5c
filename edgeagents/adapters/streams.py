"""JetStream over one connection: store, read back, follow through a durable consumer.

A message counts as stored only when the server acknowledged it; with `sync_interval: always` that means on
disk. Leaves out KV and objects on purpose: what must be kept here is a log.

Source: nats-py 2.16, NATS ADR-8 (JetStream wire API), field notes on brokers.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from edgeagents.adapters import telemetry
from edgeagents.adapters.nats_client import HardenedClient, finished
from edgeagents.adapters.pull import Pull
from edgeagents.errors import ConflictError, ForeignDomainError, NotFoundError, TooLargeError, UnavailableError

EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID: Final = "Nats-Msg-Id"
_WRONG_LAST_SEQUENCE: Final = (10071, 10164)  # the second from servers that check before they write
_NAME_IN_USE: Final = 10058
_MOST_IN_VAIN: Final = 5  # pulls of a reader, one after the other, before it gives up
_PULL_S: Final = 2.0  # a pull request is lost with the server: so long a consumer stands still after a restart
ACK_WAIT_S: Final = 30.0  # what was delivered and not acknowledged comes again after this
BROKER_ERRORS: Final = (nats.errors.Error, OSError)  # a TimeoutError is an OSError
_OLD_ACK_TOKENS: Final = 9  # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's>.<time>.<pending>
_NO_HEADERS: Final[Mapping[str, str]] = {}


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
    delivery: int = 0  # which of its consumer's it is, from 1 on
    _msg: Msg | None = None

    async def ack(self) -> None:
        """Tell the server that this message needs no redelivery; repeats are harmless."""
        if self._msg is not None:
            with contextlib.suppress(*BROKER_ERRORS):
                await self._msg.ack()

    def receipt(self) -> "StoredMessage":
        """Return the message without what it carries, for who has only to acknowledge it yet."""
        msg = None if self._msg is None else Msg(self._msg._client, self._msg.subject, self._msg.reply)
        return replace(self, data=b"", headers=_NO_HEADERS, _msg=msg)


@dataclass(frozen=True, slots=True)
class Held:
    """How much a stream holds, and how much it may.

    Args:
        messages: how many.
        first_sequence: the place of the oldest.
        last_sequence: the newest place it has given out, whether something lies there still or not.
        size_bytes: of all messages.
        max_bytes: the oldest beyond this size are dropped; -1: never.
        max_age_s: what is older is dropped; 0: never.
        subjects: what it captures.
    """

    messages: int
    first_sequence: int
    last_sequence: int
    size_bytes: int
    max_bytes: int
    max_age_s: float
    subjects: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Account:
    """What JetStream holds for our account, in all streams; limits of -1 are none."""

    store_bytes: int
    max_store_bytes: int
    streams: int
    max_streams: int


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except nats.js.errors.NotFoundError as error:
        raise NotFoundError(f"{what}: not there (yet)") from error
    except BROKER_ERRORS as error:
        raise UnavailableError(f"{what}: {str(error) or type(error).__name__}") from error


def _unix_ns(text: str) -> int:
    """Return RFC 3339 text, with up to nine digits of a second, as nanoseconds since the epoch."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return int(seconds) * 1_000_000_000 + int(rest.ljust(9, "0")[:9] or 0)


class Streams:
    """The JetStream half of a `Bus`."""

    def __init__(self, client: HardenedClient, is_closing: Callable[[], bool]) -> None:
        """Use a connected client; `is_closing` says whether it is being closed on purpose."""
        self.client = client
        self.js: JetStreamContext = client.jetstream(timeout=10)
        self._is_closing = is_closing

    async def ensure_stream(
        self,
        name: str,
        subjects: Sequence[str],
        *,
        max_age_s: float = 0,
        max_bytes: int = -1,
        max_per_subject: int = -1,
        max_message_bytes: int = -1,
        duplicate_window_s: float = 120.0,
        sources: Mapping[str, Sequence[str]] | None = None,
        keeps_existing: bool = False,
    ) -> None:
        """Create a file-backed stream, or bring an existing one to these subjects and limits; keeps its messages.

        Args:
            name: its name.
            subjects: what it captures.
            max_age_s: messages older than this are dropped; 0: never.
            max_bytes: the oldest messages beyond this size are dropped; -1: never.
            max_per_subject: so many of each subject are kept; -1: all.
            max_message_bytes: what is longer is refused; -1: nothing is.
            duplicate_window_s: how long a message id is remembered.
            sources: by name of another stream, which of its subjects are copied from it; it may come later.
            keeps_existing: an existing one is somebody else's and stays as it is.

        Raises:
            UnavailableError: the broker has no JetStream, or refuses the stream.
        """
        config = api.StreamConfig(
            name=name,
            subjects=list(subjects),
            sources=[
                api.StreamSource(name=stream, filter_subject=subject)
                for stream, filters in (sources or {}).items()
                for subject in filters
            ],
            storage=api.StorageType.FILE,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.OLD,
            max_age=max_age_s,
            max_bytes=max_bytes,
            max_msgs_per_subject=max_per_subject,
            max_msg_size=max_message_bytes,
            duplicate_window=min(duplicate_window_s, max_age_s) if max_age_s else duplicate_window_s,
            allow_direct=True,
        )
        try:
            try:
                await finished(self.js.add_stream(config))
            except nats.js.errors.BadRequestError as refusal:
                if keeps_existing and refusal.err_code == _NAME_IN_USE:
                    return
                try:
                    await finished(self.js.update_stream(config))
                except nats.js.errors.NotFoundError:
                    raise refusal from None  # there is none to bring up to date: it was refused for another reason
        except BROKER_ERRORS as error:
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
            TooLargeError: more bytes than the broker takes.
            UnavailableError: no acknowledgement in time: the message may or may not be stored.
            ForeignDomainError: another gateway's JetStream says that it has it.
        """
        extra = dict(telemetry.inject(headers) or {})
        if expected_last is not None:
            extra[EXPECTED_LAST] = str(expected_last)
        if message_id:
            extra[MESSAGE_ID] = message_id
        if not self.client.is_connected:
            # nats-py would keep it and send it after the link is back, however late that is.
            raise UnavailableError(f"store on {subject}: the link to nats is down")
        try:
            ack = await finished(self.js.publish(subject, data, timeout=timeout_s, headers=extra or None))
        except nats.js.errors.APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise ConflictError(f"{subject}: {error.description}") from error
            raise UnavailableError(f"store on {subject}: {error.description}") from error
        except nats.js.errors.NoStreamResponseError as error:
            raise UnavailableError(f"store on {subject}: no stream captures it (yet)") from error
        except nats.errors.MaxPayloadError as error:
            raise TooLargeError(f"store on {subject}: {len(data)} bytes are beyond the broker's max_payload") from error
        except TimeoutError as error:
            raise UnavailableError(f"store on {subject}: no acknowledgement in {timeout_s:g} s") from error
        except BROKER_ERRORS as error:
            raise UnavailableError(f"store on {subject}: {error}") from error
        own = str(self.client._server_info.get("domain") or "")
        if (ack.domain or "") != own:
            raise ForeignDomainError(
                f"store on {subject}: acknowledged by the JetStream domain {ack.domain or ''!r}, and ours is {own!r}: "
                "does a stream of another gateway capture our subjects? What crosses is in docs/gateways.md"
            )
        return int(ack.seq)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the newest message of a subject (no wildcard), None when the stream holds none.

        Raises:
            UnavailableError: the broker did not answer.
        """
        return await self._last(stream, subject, direct=True)

    async def newest(self, stream: str, pattern: str) -> StoredMessage | None:
        """Return the newest message of any subject of a pattern; else like `last`."""
        return await self._last(stream, pattern, direct=False)  # directly only one subject can be asked for

    async def _last(self, stream: str, subject: str, *, direct: bool) -> StoredMessage | None:
        with _translated(f"last message of {subject}"), contextlib.suppress(nats.js.errors.NotFoundError):
            raw = await finished(self.js.get_last_msg(stream, subject, direct=direct))
            own = raw.subject or subject
            return StoredMessage(own, raw.data or b"", dict(raw.headers or {}), stream, int(raw.seq or 0), 0)
        return None

    async def last_sequence(self, stream: str) -> int:
        """Return the sequence of a stream's newest message, 0 when it never held one.

        Raises:
            NotFoundError: there is no such stream.
            UnavailableError: the broker did not answer.
        """
        with _translated(f"stream {stream}"):
            return int((await finished(self.js.stream_info(stream))).state.last_seq)

    async def held(self, stream: str) -> Held:
        """Return how much a stream holds now; raises like `last_sequence`."""
        with _translated(f"stream {stream}"):
            info = await finished(self.js.stream_info(stream))
        state, config = info.state, info.config
        return Held(
            state.messages, state.first_seq, state.last_seq, state.bytes, int(config.max_bytes or -1),
            float(config.max_age or 0.0), frozenset(config.subjects or ()),
        )  # fmt: skip

    async def account(self) -> Account:
        """Return what JetStream holds for us.

        Raises:
            UnavailableError: the broker has no JetStream, we may not use it, or it did not answer.
        """
        try:
            with _translated("JetStream"):
                info = await finished(self.js.account_info())
        except NotFoundError as error:
            raise UnavailableError(str(error)) from error
        limits = info.limits
        return Account(info.storage, int(limits.max_storage), info.streams, int(limits.max_streams))

    async def server_time_ns(self, stream: str) -> int:
        """Return what the broker's wall clock says, nanoseconds; `stream` is one it may be asked about.

        Raises:
            NotFoundError: there is no such stream.
            UnavailableError: the broker did not answer, or tells no time (before 2.10).
        """
        with _translated(f"time of the broker, by stream {stream}"):
            answer = await finished(self.client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5))
        try:
            body = json.loads(answer.data)
            if body.get("error"):
                raise NotFoundError(f"stream {stream}: {body['error'].get('description', 'not there (yet)')}")
            return _unix_ns(body["ts"])
        except (ValueError, KeyError, AttributeError) as error:
            raise UnavailableError(f"stream {stream}: the broker tells no time: is it older than 2.10?") from error

    async def acknowledged(self, stream: str, durable: str) -> int:
        """Return the stream sequence up to which a durable consumer has acknowledged everything.

        Raises:
            NotFoundError: there is no such stream or consumer.
            UnavailableError: the broker did not answer.
        """
        floor = (await self._consumer(stream, durable)).ack_floor
        return int(floor.stream_seq or 0) if floor is not None else 0

    async def consumer_created_ns(self, stream: str, durable: str) -> int:
        """Return when a durable consumer was created, wall nanoseconds; raises like `acknowledged`."""
        created = (await self._consumer(stream, durable)).created
        return int(created.timestamp() * 1e9) if created is not None else 0

    async def is_caught_up(self, stream: str, durable: str) -> bool:
        """Say whether a durable consumer has acknowledged all there is for it now; raises like `acknowledged`."""
        return not await self.unhandled(stream, durable)

    async def unhandled(self, stream: str, durable: str) -> int:
        """Return how many messages there are for a durable consumer without its acknowledgement.

        Raises like `acknowledged`.
        """
        info = await self._consumer(stream, durable)
        return int(info.num_pending or 0) + int(info.num_ack_pending or 0)

    async def forget_consumer(self, stream: str, durable: str) -> None:
        """Delete a durable consumer, so that all is delivered again; one that is not there is none to forget.

        Raises:
            UnavailableError: the broker did not answer.
        """
        with contextlib.suppress(NotFoundError), _translated(f"consumer {durable} of stream {stream}"):
            await finished(self.js.delete_consumer(stream, durable))

    async def _consumer(self, stream: str, durable: str) -> api.ConsumerInfo:
        with _translated(f"consumer {durable} of stream {stream}"):
            return await finished(self.js.consumer_info(stream, durable))

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        name: str,
        start_s: float | None = None,
        start_sequence: int | None = None,
        last_per_subject: bool = False,
    ) -> AsyncGenerator[StoredMessage, None]:
        """Yield what a stream holds now, oldest first, then end; changes nothing in the stream.

        Args:
            stream: its name.
            subjects: filters; empty: all.
            name: of the short-lived consumer (permissions may name it).
            start_s: only messages stored since this wall time.
            start_sequence: only messages from this sequence on.
            last_per_subject: only the newest message of each subject.

        Raises:
            NotFoundError: there is no such stream.
            UnavailableError: the broker did not answer.
        """
        policy, since = api.DeliverPolicy.LAST_PER_SUBJECT if last_per_subject else api.DeliverPolicy.ALL, None
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
            # One filter goes into the API subject, so that permissions can name it.
            filter_subject=subjects[0] if len(subjects) == 1 else None if subjects else ">",
            filter_subjects=list(subjects) if len(subjects) > 1 else None,
            inactive_threshold=10.0,
        )
        with _translated(f"reading stream {stream}"):
            with contextlib.suppress(nats.js.errors.NotFoundError):  # left behind by a killed process
                await finished(self.js.delete_consumer(stream, name))
            info = await finished(self.js.add_consumer(stream, config))
            subscription = await finished(self.js.pull_subscribe_bind(info.name, stream=stream))
            left, got, in_vain = int(info.num_pending or 0), 0, 0
            try:
                while left > 0:
                    try:
                        messages = await finished(subscription.fetch(min(left, 500), timeout=_PULL_S))
                    except TimeoutError:
                        # Limits may have dropped the rest meanwhile. What was delivered and did not come lies in our
                        # own queue, if it was we who stood still: the next look takes it. Or the link broke.
                        try:
                            found = await finished(self.js.consumer_info(stream, name))
                        except nats.js.errors.NotFoundError as error:  # the stream was there, and most of it may be
                            raise nats.errors.Error("its consumer is gone") from error
                        delivered = int(found.delivered.consumer_seq) if found.delivered is not None else 0
                        if not found.num_pending and delivered <= got:
                            return
                        in_vain += 1
                        if in_vain == _MOST_IN_VAIN:
                            raise
                        continue
                    if not messages:
                        raise nats.errors.Error("its consumer is gone")
                    in_vain = 0
                    left -= len(messages)
                    for message in messages:
                        got += 1
                        stored = _stored(message)
                        if stored.delivery != got:
                            # What was delivered before comes again after a broker's hard end, and to two readers of one
                            # name each gets a part: neither may be taken for the whole.
                            raise nats.errors.Error("deliveries are not in order: did the broker end, or another read?")
                        yield stored
            finally:
                with contextlib.suppress(*BROKER_ERRORS):
                    await subscription.unsubscribe()
                    await self.js.delete_consumer(stream, name)

    async def consume(
        self,
        stream: str,
        durable: str,
        subjects: Sequence[str],
        *,
        batch: int = 256,
        ack_wait_s: float = ACK_WAIT_S,
        deliver_new: bool = False,
        created: asyncio.Event | None = None,
    ) -> AsyncGenerator[StoredMessage, None]:
        """Yield a durable consumer's messages for ever, in order, through restarts of the broker.

        What is not acknowledged is delivered again. The caller acknowledges.

        Args:
            stream: its name; waited for when it is not there yet.
            durable: the consumer's name; created or updated to these filters.
            subjects: filters.
            batch: how many messages one pull asks for.
            ack_wait_s: redelivered after this.
            deliver_new: start with what comes now, when the consumer is created by this call.
            created: set once the consumer is there: what is stored from then on is not missed.
        """
        config = api.ConsumerConfig(
            name=durable,
            durable_name=durable,
            deliver_policy=api.DeliverPolicy.NEW if deliver_new else api.DeliverPolicy.ALL,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ack_wait_s,
            max_ack_pending=1000,
            filter_subject=subjects[0] if len(subjects) == 1 else None,
            filter_subjects=list(subjects) if len(subjects) > 1 else None,
        )
        try:
            pull = Pull(self.client, self.js, stream, config, batch, created)
            async with contextlib.aclosing(pull.follow()) as messages:
                async for message in messages:
                    yield _stored(message)
        except nats.errors.ConnectionClosedError as error:
            if not self._is_closing():
                raise UnavailableError(f"consumer {durable} of stream {stream}: the connection is closed") from error


def _stored(message: Msg) -> StoredMessage:
    # nats-py's own way to this makes a datetime and an object or two of each message, and loses nanoseconds.
    parts = message.reply.split(".")
    at = 2 if len(parts) == _OLD_ACK_TOKENS else 4  # newer servers name domain and account first
    stream, delivered, sequence, time_ns = parts[at], parts[at + 2], parts[at + 3], parts[at + 5]
    return StoredMessage(
        message.subject, message.data, message.headers or _NO_HEADERS, stream, int(sequence), int(time_ns),
        int(delivered), int(parts[at + 4]), message,
    )  # fmt: skip
