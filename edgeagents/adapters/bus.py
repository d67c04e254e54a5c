"""NATS: publish, request, subscribe, reconnect; streams come from `adapters/streams.py`.

A thin layer over nats-py that speaks this project's errors.

Source: nats-py 2.16, field notes on brokers.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from edgeagents.adapters import telemetry
from edgeagents.adapters.nats_client import HardenedClient, finished
from edgeagents.adapters.streams import BROKER_ERRORS, StoredMessage, Streams
from edgeagents.adapters.subject_filters import matcher
from edgeagents.errors import (
    ConfigurationError,
    CredentialsRefusedError,
    EdgeAgentsError,
    InvalidInputError,
    NobodyThereError,
    TooLargeError,
    UnavailableError,
)
from edgeagents.settings import BusSettings

__all__ = ["CONTENT_TYPE", "Bus", "BusMessage", "Handler", "StoredMessage", "Subscription"]

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "Content-Type"
_REFUSALS: Final = ("authorization violation", "authentication expired", "authentication revoked")
CREDENTIALS: Final = "do EDGEAGENTS_NATS_USER and its password file say what the broker knows today?"
CLOSE_S: Final = 1.0  # for what was never connected
PENDING_BYTES: Final = 128 << 20  # as nats-py has it
MOST_GATHERED: Final = 1_000  # answers to one question to all: far more services than a gateway has
MOST_GATHERED_BYTES: Final = 4 << 20
_NOBODY: Final = "503"  # the server's word for a question that nobody hears


@dataclass(frozen=True, slots=True)
class BusMessage:
    """What arrived: subject, data and headers; `reply` is set when an answer is expected."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""


Handler = Callable[[BusMessage], Awaitable[None]]


def is_refusal(text: str) -> bool:
    """Say whether an error of the server's is about our credentials: wrong, expired or withdrawn."""
    return any(word in text.lower() for word in _REFUSALS)


class _Link:
    """What nats-py calls back: logs the link going down and coming back once each."""

    def __init__(self, client: Client, url: str) -> None:
        self.url = url
        self.is_up = False
        self.is_closing = False  # on purpose
        self._client = client
        self.last_error: Exception | None = None
        self.refused = asyncio.Event()
        self.closed = asyncio.Event()
        self.watchers: list[Callable[[], None]] = []

    async def on_error(self, error: Exception) -> None:
        self.last_error = error
        if is_refusal(str(error)):  # nats-py has no other word for it while it connects
            self.refused.set()
        # While the link is down nats-py reports each attempt; what comes otherwise may be a handler's failure.
        if self.is_up:
            expected = isinstance(error, (*BROKER_ERRORS, EdgeAgentsError))
            text = f"{type(error).__name__}: {error}"
            log.warning("nats %s: %s", self.url, text, exc_info=None if expected else error)

    async def on_disconnect(self) -> None:
        # No answer comes over a broken link; nats-py would let each request wait for its whole timeout.
        for answer in list(self._client._resp_map.values()):
            if not answer.done():
                answer.set_exception(nats.errors.Error("the link broke before the answer came"))
        if self.is_up and not self.is_closing:
            self.is_up = False
            log.warning("nats %s: link is down, trying again", self.url)

    async def on_reconnect(self) -> None:
        self.is_up = True
        log.warning("nats %s: link is back", self.url)
        for watcher in self.watchers:
            watcher()

    async def on_close(self) -> None:
        self.closed.set()
        if not self.is_closing:
            remedy = f": {CREDENTIALS}" if is_refusal(str(self._client.last_error)) else ""
            log.error("nats %s: the server closed the connection: %s%s", self.url, self._client.last_error, remedy)

    def why(self) -> str:
        """Return what kept us from connecting, for a person."""
        if self.refused.is_set():
            expired = " (expired)" if "expired" in str(self.last_error).lower() else ""
            return f"the server refused user or password{expired}: {CREDENTIALS}"
        last = self.last_error
        cause = "no answer" if last is None else str(last) or type(last).__name__
        said = self._client._server_info
        if isinstance(said, dict) and said.get("tls_required"):
            return f"no connection: it asks for TLS ({cause}): is its certificate one that this machine trusts?"
        return f"no connection: {cause}: is nats-server up?"


class Bus(Streams):
    """One connection to the broker of this gateway.

    `closed` is set once the connection is gone for good, on purpose or because the server closed it with an error;
    a service that did not ask for it should end then, so that it is started afresh.
    """

    def __init__(self, client: HardenedClient, settings: BusSettings, link: _Link) -> None:
        """Wrap a connected client; use `connect` instead."""
        super().__init__(client, lambda: link.is_closing)
        self.settings = settings
        self.closed = link.closed
        self._link = link

    @classmethod
    async def connect(cls, settings: BusSettings, name: str, *, inbox: str = "") -> "Bus":
        """Connect, keep reconnecting for ever, log the link going down and coming back once each.

        Args:
            settings: address and credentials.
            name: shown by the server; the service key.
            inbox: prefix of reply subjects, for users whose permissions name one; empty: `_INBOX`.

        Raises:
            UnavailableError: no connection within `connect_timeout_s`; refused credentials say so.
            ConfigurationError: the address is none, or the password file cannot be read.
        """
        _check_address(settings.nats_url)
        client = HardenedClient()
        link = _Link(client, settings.nats_url)
        options: dict[str, Any] = {}
        if settings.nats_user:
            options |= {"user": settings.nats_user, "password": _password_of(settings)}
        if inbox:
            options["inbox_prefix"] = inbox.encode()
        connecting = asyncio.create_task(
            client.connect(
                settings.nats_url,
                name=name,
                connect_timeout=max(1, int(settings.connect_timeout_s)),
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds for asyncio.sleep: no need to be whole
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=link.on_error,
                disconnected_cb=link.on_disconnect,
                reconnected_cb=link.on_reconnect,
                closed_cb=link.on_close,
                **options,
            )
        )
        await cls._connected(client, connecting, link, settings.connect_timeout_s)
        link.is_up = True
        return cls(client, settings, link)

    @staticmethod
    async def _connected(client: Client, connecting: asyncio.Task[None], link: _Link, timeout_s: float) -> None:
        """Wait until the client is connected; when it is not in time, or refused, leave nothing behind."""
        refused = asyncio.create_task(link.refused.wait())
        try:
            await asyncio.wait({connecting, refused}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and not refused.done():
                connecting.result()
                return
            why = CredentialsRefusedError if link.refused.is_set() else UnavailableError
            raise why(f"nats {link.url}: {link.why()}")
        except BROKER_ERRORS as error:
            raise UnavailableError(f"nats {link.url}: {str(error) or type(error).__name__}") from error
        finally:
            refused.cancel()
            if connecting.cancel() or not client.is_connected:
                link.is_closing = True
                # nats-py waits for ever for the end of a connection whose change to TLS was broken off.
                with contextlib.suppress(*BROKER_ERRORS):
                    async with asyncio.timeout(CLOSE_S):
                        await asyncio.gather(connecting, return_exceptions=True)
                        await client.close()

    async def close(self) -> None:
        """Flush what is buffered, for at most 2 s, and disconnect."""
        self._link.is_closing = True
        with contextlib.suppress(*BROKER_ERRORS):
            async with asyncio.timeout(2):
                await self.client.flush(timeout=1)
        with contextlib.suppress(*BROKER_ERRORS):
            await self.client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the link is up now."""
        return bool(self.client.is_connected)

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the server said of itself when we connected: `version`, `auth_required` and more."""
        return dict(self.client._server_info)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time the link is back: what others published meanwhile on no stream was missed."""
        self._link.watchers.append(callback)

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send, at most once; buffered while the link is down.

        Raises:
            UnavailableError: the buffer is full or the connection is closed.
            TooLargeError: more bytes than the broker takes.
            InvalidInputError: no subject or header NATS can carry.
        """
        try:
            traced = telemetry.inject(headers)
            await finished(self.client.publish(subject, data, reply=reply, headers=dict(traced) if traced else None))
        except nats.errors.MaxPayloadError as error:
            raise TooLargeError(
                f"publish on {subject}: {len(data)} bytes are beyond the broker's max_payload"
            ) from error
        except (nats.errors.BadSubjectError, nats.errors.BadHeaderError) as error:
            raise InvalidInputError(f"publish on {subject!r}: {error}") from error
        except BROKER_ERRORS as error:
            raise UnavailableError(f"publish on {subject}: {error}") from error

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the server has seen everything published so far.

        Raises:
            UnavailableError: it has not within `timeout_s`.
        """
        if not self.is_connected:  # nats-py would say yes
            raise UnavailableError(f"nats {self.settings.nats_url}: link is down")
        try:
            async with asyncio.timeout(timeout_s):
                await finished(self.client.flush(timeout=max(1, int(timeout_s))))
        except BROKER_ERRORS as error:
            raise UnavailableError(f"nats {self.settings.nats_url}: no answer to a flush") from error

    async def request(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, timeout_s: float
    ) -> BusMessage:
        """Send and return the first answer.

        Raises:
            UnavailableError: no answer came in time; a `NobodyThereError` where nobody listens.
        """
        traced = telemetry.inject(headers)
        try:
            message = await finished(
                self.client.request(subject, data, timeout=timeout_s, headers=dict(traced) if traced else None)
            )
        except nats.errors.NoRespondersError as error:
            raise NobodyThereError(f"nobody answers on {subject}: is that service up?") from error
        except TimeoutError as error:
            raise UnavailableError(f"no answer on {subject} in {timeout_s:g} s") from error
        except BROKER_ERRORS as error:
            raise UnavailableError(f"request on {subject}: {error}") from error
        return _received(message)

    async def gather(
        self, subject: str, data: bytes = b"", *, inbox: str, wait_s: float, most: int = MOST_GATHERED
    ) -> list[bytes]:
        """Ask everybody who listens and return the answers that come within `wait_s`; at once when nobody listens.

        At most `most` of them, and `MOST_GATHERED_BYTES` of all: those that come first.

        Args:
            subject: where to ask.
            data: what to ask.
            inbox: prefix of the subject that answers are sent to.
            wait_s: seconds.
            most: so many answers are enough; up to `MOST_GATHERED`.

        Raises:
            UnavailableError: the connection is closed, or the link is down.
        """
        found: list[bytes] = []
        room_bytes = MOST_GATHERED_BYTES
        try:
            reply = f"{inbox}.{secrets.token_hex(16)}"  # nobody can guess it who did not hear the question
            # Any service may answer as often, and as long, as it likes: neither here nor in the client is there more.
            subscription = await finished(
                self.client.subscribe(reply, pending_bytes_limit=MOST_GATHERED_BYTES, pending_msgs_limit=MOST_GATHERED)
            )
            try:
                await self.client.stop_after(subscription, MOST_GATHERED)
                await self.publish(subject, data, reply=reply)
                async with asyncio.timeout(wait_s):
                    async for message in subscription.messages:
                        if not message.data and (message.headers or {}).get("Status") == _NOBODY:
                            break
                        room_bytes -= len(message.data)
                        if room_bytes < 0:
                            log.warning("answers on %s are more than %d bytes: cut off", subject, MOST_GATHERED_BYTES)
                            break
                        found.append(message.data)
                        if len(found) == most < MOST_GATHERED:
                            break
                        if len(found) == MOST_GATHERED:
                            log.warning("answers on %s are %d or more: cut off", subject, MOST_GATHERED)
                            break
            except TimeoutError:
                pass  # whoever answers later is not waited for
            finally:
                await finished(subscription.unsubscribe())
        except BROKER_ERRORS as error:
            raise UnavailableError(f"asking on {subject}: {error}") from error
        return found

    async def subscribe(
        self,
        subject: str,
        handler: Handler,
        *,
        queue: str = "",
        pending: int = 65_536,
        pending_bytes: int = PENDING_BYTES,
        most: int = 0,
    ) -> Subscription:
        """Call `handler` for every message, one after the other; it is resubscribed after a reconnect.

        A consumer may have the broker deliver to any subject, whatever its maker may publish; what comes that way keeps
        the subject it was stored under, and is dropped where that is none of ours.

        Args:
            subject: a filter.
            handler: gets each message.
            queue: name of a group of which each message reaches one.
            pending: messages that wait here at most; further ones are lost.
            pending_bytes: how long these are together at most.
            most: the broker itself sends so many and no more; 0: no end. A reconnect brings it without an end.

        Raises:
            UnavailableError: the connection is closed.
        """

        is_ours, is_told = matcher(subject), False

        async def deliver(message: Msg) -> None:
            nonlocal is_told
            if is_ours(message.subject):
                await handler(_received(message))
            elif not is_told:
                is_told = True
                log.warning("dropped what a stream delivers to %s: it is of %s", subject, message.subject[:200])

        try:
            found = await self.client.subscribe(
                subject, queue=queue, cb=deliver, pending_msgs_limit=pending, pending_bytes_limit=pending_bytes
            )
            if most:
                await self.client.stop_after(found, most)
            return found
        except BROKER_ERRORS as error:
            raise UnavailableError(f"subscribe to {subject}: {error}") from error

    async def retire(self, subscription: Subscription) -> None:
        """Have the broker send no more to a subscription; what is on its way still comes, until `unsubscribe`.

        Raises:
            UnavailableError: the connection is closed.
        """
        try:
            await self.client.stop_now(subscription)
        except BROKER_ERRORS as error:
            raise UnavailableError(f"the end of a subscription to {subscription.subject}: {error}") from error

    async def handed_out(self, *subscriptions: Subscription, timeout_s: float = 2.0) -> None:
        """Wait until handlers have had all that the broker has sent to subscriptions by now.

        Raises:
            UnavailableError: the broker does not answer, or the handlers have not had it within `timeout_s`.
        """
        await self.flush(timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                for subscription in subscriptions:
                    await self.client.handed_out(subscription)
        except TimeoutError as error:
            raise UnavailableError(f"what has come is not handled after {timeout_s:g} s") from error

    async def respond(self, message: BusMessage, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Answer a request; does nothing when no answer is expected."""
        if message.reply:
            await self.publish(message.reply, data, headers)


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("nats", "tls", "ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigurationError(f"nats_url {url!r} is no address of a broker: write nats://host:4222")


def _password_of(settings: BusSettings) -> Callable[[], str]:
    """Return what gives the password as its file has it then: each connection asks anew, for it may be rotated.

    Raises:
        ConfigurationError: the file cannot be read now; once it cannot later, the former password is used.
    """
    known = settings.password

    def newest() -> str:
        nonlocal known
        try:
            known = settings.password
        except ConfigurationError as error:
            log.error("%s: the former password is used", error)
        return known.get_secret_value() if known is not None else ""

    return newest


def _received(message: Msg) -> BusMessage:
    return BusMessage(message.subject, message.data, dict(message.headers or {}), message.reply)
