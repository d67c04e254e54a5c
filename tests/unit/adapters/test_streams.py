"""A cancellation that comes in the same turn as an answer, or as an error, is not lost; a message's place is read."""

import asyncio

import pytest
from nats.aio.msg import Msg

from edgeagents.adapters.nats_client import finished
from edgeagents.adapters.streams import _stored


@pytest.mark.parametrize("error", [None, OSError("nobody answers")])
async def test_a_cancellation_in_the_turn_of_the_answer_is_heard(error: OSError | None) -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(finished(asyncio.wait_for(answer, 5)))
    await asyncio.sleep(0)
    if error is None:
        answer.set_result(1)
    else:
        answer.set_exception(error)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_a_cancellation_answer_and_error_come_through() -> None:
    async def answer() -> int:
        return 1

    async def fail() -> int:
        raise OSError("nobody answers")

    assert await finished(answer()) == 1
    with pytest.raises(OSError, match="nobody answers"):
        await finished(fail())


@pytest.mark.parametrize(
    ("names", "tail"), [("", ""), ("hub.aGash.", ""), ("_.aGash.", ".x7Kq")], ids=["old", "domain", "token"]
)
def test_place_time_and_deliveries_of_a_message_stand_in_its_reply_subject(names: str, tail: str) -> None:
    reply = f"$JS.ACK.{names}edgex-events.agent-air.2.7001.41.1795465567626438574.9{tail}"

    found = _stored(Msg(None, "edgex.events.x", reply, b"data", None))  # type: ignore[arg-type]

    assert (found.stream, found.sequence, found.deliveries) == ("edgex-events", 7001, 2)
    assert found.time_ns == 1_795_465_567_626_438_574
    assert (found.subject, found.data, found.headers) == ("edgex.events.x", b"data", {})


async def test_a_receipt_acknowledges_its_message_and_carries_nothing_else() -> None:
    sent: list[str] = []

    class Client:
        async def publish(self, subject: str) -> None:
            sent.append(subject)

    reply = "$JS.ACK.edgex-events.agent-air.2.7001.41.1795465567626438574.9"
    message = Msg(Client(), "edgex.events.x", reply, b"data", {"a": "b"})  # type: ignore[arg-type]
    receipt = _stored(message).receipt()
    assert (receipt.data, receipt.headers, receipt.sequence) == (b"", {}, 7001)
    assert receipt._msg is not None
    assert (receipt._msg.data, receipt._msg.headers) == (b"", None)
    await receipt.ack()
    assert sent == [reply]
