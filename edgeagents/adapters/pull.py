"""A durable consumer followed without pause: pull requests on one inbox, renewed before they are used up.

nats-py's own `fetch` lingers after the first message of a batch and can leave a request behind that swallows the
next message; both cost up to the whole timeout. Here messages are handed on as they come, a further request goes out
when half of the last one is used, and heartbeats tell a silent stream from a lost request.

Whatever one read of the socket brought is handed on without a turn of the event loop in between, so what is done
about it (acknowledgements above all) leaves in one write too.

Source: NATS ADR-37 (simplified JetStream), JetStream pull request statuses.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from edgeagents.adapters.nats_client import HardenedClient, finished

log = logging.getLogger(__name__)

EXPIRES_S: Final = 30.0
HEARTBEAT_S: Final = 1.0
LOST_AFTER_S: Final = 2.5  # without a message or a heartbeat the request is taken for lost
WAKE_S: Final = 0.25  # how soon a reconnect or a lost request is noticed
AGAIN_S: Final = 0.25
_HEARTBEAT: Final = "100"
_USED_UP: Final = ("404", "408")
_UNUSED: Final = "Nats-Pending-Messages"


class Pull:
    """One durable consumer; sets itself up again when anything fails but the connection."""

    def __init__(
        self, client: HardenedClient, js: JetStreamContext, stream: str, config: api.ConsumerConfig, batch: int,
        created: asyncio.Event | None = None,
    ) -> None:  # fmt: skip
        """Prepare; `follow` creates or updates the consumer, and sets `created` then.

        `batch` is how many messages one request asks for.
        """
        self._client, self._js, self._stream, self._config, self._batch = client, js, stream, config, batch
        self._created = created
        self._name = config.durable_name or config.name or ""
        self._told = False

    async def follow(self) -> AsyncGenerator[Msg, None]:
        """Yield messages for ever, oldest first.

        Raises:
            nats.errors.ConnectionClosedError: the connection is closed for good.
        """
        while True:
            try:
                async with contextlib.aclosing(self._bound()) as messages:
                    async for message in messages:
                        self._told = False
                        yield message
            except nats.errors.ConnectionClosedError:
                raise
            except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
                self._tell(error)
            if self._client.is_closed:
                raise nats.errors.ConnectionClosedError
            await asyncio.sleep(AGAIN_S)

    async def _bound(self) -> AsyncGenerator[Msg, None]:
        """Yield until the server says that the consumer is not what it was."""
        await finished(self._js.add_consumer(self._stream, self._config))
        if self._created is not None:
            self._created.set()
        inbox, arrivals = self._client.new_inbox(), _Arrivals()
        subscription = await self._client.subscribe(inbox, cb=arrivals.queue)
        release = self._client.take_at_once(subscription, arrivals.take)
        try:
            async with contextlib.aclosing(self._requested(arrivals, inbox)) as messages:
                async for message in messages:
                    yield message
        finally:
            release()
            with contextlib.suppress(nats.errors.Error):
                await finished(subscription.unsubscribe())

    async def _requested(self, arrivals: "_Arrivals", inbox: str) -> AsyncGenerator[Msg, None]:
        left = 0  # of what was asked for; the server serves requests one after the other
        heard_s, connections = time.monotonic(), self._client.stats["reconnects"]
        while True:
            if left <= self._batch // 2:
                await self._request(inbox)
                left = max(left, 0) + self._batch
                heard_s, connections = time.monotonic(), self._client.stats["reconnects"]
            try:
                message = await arrivals.next(WAKE_S)
            except TimeoutError:
                if self._client.is_closed:
                    raise nats.errors.ConnectionClosedError from None
                silent = time.monotonic() - heard_s > LOST_AFTER_S
                if self._client.is_connected and (silent or self._client.stats["reconnects"] != connections):
                    left = 0
                continue
            heard_s = time.monotonic()
            headers = message.headers or {}
            status = headers.get("Status", "")
            if not status:
                left -= 1
                yield message
            elif status in _USED_UP:
                left -= _unused(headers, left)
            elif status != _HEARTBEAT:
                reason = headers.get("Description", "")
                raise nats.errors.Error(f"{status} {reason}".strip())

    async def _request(self, inbox: str) -> None:
        wanted = {
            "batch": self._batch, "expires": int(EXPIRES_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)
        }  # fmt: skip
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        await self._client.publish(subject, json.dumps(wanted).encode(), reply=inbox)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            text = str(error) or type(error).__name__
            log.warning("consumer %s of stream %s: %s: trying again", self._name, self._stream, text)
            self._told = True


class _Arrivals:
    """Messages as they came, to be taken without waiting as long as there are any."""

    def __init__(self) -> None:
        self._messages: deque[Msg] = deque()
        self._came = asyncio.Event()

    def take(self, message: Msg) -> None:
        """Keep a message until it is asked for."""
        self._messages.append(message)
        self._came.set()

    async def queue(self, message: Msg) -> None:
        """As `take`, for what came while the subscription was new."""
        self.take(message)

    async def next(self, timeout_s: float) -> Msg:
        """Return the oldest message, raise TimeoutError when none comes within `timeout_s`."""
        if not self._messages:
            self._came.clear()
            async with asyncio.timeout(timeout_s):  # not wait_for: in Python 3.11 it may lose a cancellation
                await self._came.wait()
        return self._messages.popleft()


def _unused(headers: Mapping[str, str], left: int) -> int:
    """Return how much of a request that ended will not come; all that is left when the server does not say."""
    text = headers.get(_UNUSED, "")
    return int(text) if text.isdecimal() else left
