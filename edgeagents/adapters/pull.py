"""A durable consumer followed without pause: pull requests on one inbox, renewed as they are used up.

nats-py's own `fetch` lingers after the first message of a batch and can leave a request behind that swallows the
next message; both cost up to the whole timeout. Here one request is open at a time, its messages are handed on as
they come, and heartbeats tell a silent stream from a lost request.

Source: NATS ADR-37 (simplified JetStream), JetStream pull request statuses.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api

log = logging.getLogger(__name__)

EXPIRES_S: Final = 30.0
HEARTBEAT_S: Final = 1.0
LOST_AFTER_S: Final = 2.5  # without a message or a heartbeat the request is taken for lost
WAKE_S: Final = 0.25  # how soon a reconnect or a lost request is noticed
AGAIN_S: Final = 0.25
_HEARTBEAT: Final = "100"
_USED_UP: Final = ("404", "408")


class Pull:
    """One durable consumer; sets itself up again when anything fails but the connection."""

    def __init__(
        self, client: Client, js: JetStreamContext, stream: str, config: api.ConsumerConfig, batch: int
    ) -> None:
        """Prepare; `follow` creates or updates the consumer. `batch` is how many messages one request asks for."""
        self._client, self._js, self._stream, self._config, self._batch = client, js, stream, config, batch
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
        await self._js.add_consumer(self._stream, self._config)
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            async with contextlib.aclosing(self._requested(subscription, inbox)) as messages:
                async for message in messages:
                    yield message
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _requested(self, subscription: Subscription, inbox: str) -> AsyncGenerator[Msg, None]:
        left = 0
        heard_s, connections = time.monotonic(), self._client.stats["reconnects"]
        while True:
            if left <= 0:
                await self._request(inbox)
                left, heard_s, connections = self._batch, time.monotonic(), self._client.stats["reconnects"]
            try:
                message = await _next(subscription)
            except TimeoutError:
                silent = time.monotonic() - heard_s > LOST_AFTER_S
                if self._client.is_connected and (silent or self._client.stats["reconnects"] != connections):
                    left = 0
                continue
            heard_s = time.monotonic()
            status = (message.headers or {}).get("Status", "")
            if not status:
                left -= 1
                yield message
            elif status in _USED_UP:
                left = 0
            elif status != _HEARTBEAT:
                reason = (message.headers or {}).get("Description", "")
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


async def _next(subscription: Subscription) -> Msg:
    """Return the next message, raise TimeoutError after `WAKE_S`, and let no cancellation get lost in between."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    message = await subscription.next_msg(WAKE_S)
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return message
