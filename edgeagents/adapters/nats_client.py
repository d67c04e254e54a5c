"""nats-py's client, hardened: no message that somebody may publish can break the connection that receives it,
and a flush means what it says.

nats-py 2.16 ends its read loop, silently, at a subject or a status line that is not UTF-8, which nats-server accepts
and stores. And it takes a stored message whose publisher gave it a `Status` header for a word of the server's own
("the consumer is gone"). Both would come again with every redelivery, for ever. Its `flush` writes the PING ahead of
what still waits to be written: it may return before the server has seen the subscription or message it was called for.
And it gives up for good when the server ends its connection because the password was changed, and when what answers
at its address is no NATS server, such as one that just takes its port.

Source: nats-py 2.16 `Client._build_message`, `_process_connect_init`, `_process_headers`, `_send_ping`; NATS ADR-4,
ADR-8.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from nats.aio.client import PING_PROTO, Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import AuthorizationError, Error

from edgeagents.adapters.nats_parser import QuickParser

_OF_A_STREAM: Final = "$JS.ACK."  # the server's own words never carry such a reply subject, and no user can send one
_REFUSED: Final = ("authorization violation", "authentication revoked")
_SERVERS_WORDS: Final = frozenset(("Status", "Description"))
T = TypeVar("T")


async def finished(call: Awaitable[T]) -> T:
    """Return what a call of nats-py returns, and let no cancellation get lost in it.

    `asyncio.wait_for` of Python 3.11, which nats-py uses, drops a cancellation that comes in the same turn as the
    result, or as the error; a loop around the call would then never end.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        result = await call
    except Exception as error:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


class HardenedClient(Client):
    """A client that reads on, whatever comes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As nats-py's."""
        super().__init__(*arguments, **options)
        self._ps = QuickParser(self)
        self._takers: dict[int, Callable[[Msg], None]] = {}

    def take_at_once(self, subscription: Subscription, take: Callable[[Msg], None]) -> Callable[[], None]:
        """Have a subscription's messages taken as they are read, without its queue and task; return what ends that.

        `take` must be quick and never raise: nothing else is read meanwhile.
        """
        number = subscription._id
        self._takers[number] = take
        return lambda: self._takers.pop(number, None) and None

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        take, subscription = self._takers.get(sid), self._subs.get(sid)
        if take is None or subscription is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # None: none
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        subscription._received += 1
        found = await self._process_headers(headers) if headers else None
        take(self._build_message(sid, subject, reply, data, found))

    async def stop_after(self, subscription: Subscription, messages: int) -> None:
        """Have the server itself end a subscription after so many messages: whatever follows costs us nothing.

        nats-py's own `unsubscribe(limit)` forgets what it has received and not handed out yet once the limit is met.
        A link that comes back brings the subscription without this limit.
        """
        await finished(self._send_unsubscribe(subscription._id, messages))

    async def stop_now(self, subscription: Subscription) -> None:
        """Have the server end a subscription; what it has sent by then is still handed out, until `unsubscribe`.

        nats-py's own `unsubscribe` forgets the subscription at once, and with it all that is on its way.
        """
        if not self.is_reconnecting:
            await finished(self._send_unsubscribe(subscription._id))

    async def handed_out(self, subscription: Subscription) -> None:
        """Wait until what has come of a subscription is with its handler, and that has ended."""
        await finished(subscription._pending_queue.join())

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except OSError:  # nats-py's own business; a certificate that is not trusted is a ValueError, too
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # nats-py tries again after errors of its own alone: any other ends its reconnecting, silently and for good.
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            raise Error(f"what answers is no NATS server ({type(error).__name__}: {error})") from error

    async def _send_ping(self, future: "asyncio.Future[Any] | None" = None) -> None:
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        # Whoever flushed may wait no longer: nats-py would end its read loop, silently, at a future that is cancelled.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        # A password that was rotated: nats-py would close for good, and the new one lies in our file already.
        if self.is_connected and any(word in err_msg.lower() for word in _REFUSED):
            await self._process_op_err(AuthorizationError())
            return
        await super()._process_err(err_msg)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None
        return found

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        # What is no UTF-8 becomes ASCII that can be logged, and that no name of ours reads like.
        reply_to = reply.decode(errors="backslashreplace")
        if headers and reply_to.startswith(_OF_A_STREAM):
            headers = {name: value for name, value in headers.items() if name not in _SERVERS_WORDS}
        message: Any = super()._build_message(
            sid, subject.decode(errors="backslashreplace").encode(), reply_to.encode(), data, headers
        )
        assert isinstance(message, Msg)
        return message
