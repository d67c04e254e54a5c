"""EdgeX's bus over a transport that only remembers: what is set aside, what is asked, what is answered."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from edgeagents.adapters.edgex_bus import Cancel, EdgexBus, RawHandler
from edgeagents.adapters.envelopes import encode_envelope
from edgeagents.errors import InvalidInputError, UnavailableError, UpstreamError
from edgeagents.model.envelope import CommandRequest, EdgexMessage, Envelope


class Wire:
    """A transport without a wire: `arrive` is what the other side says, `sent` what we said."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Envelope]] = []
        self.handlers: dict[str, RawHandler] = {}
        self.spoken = asyncio.Event()
        self.is_up = True

    async def publish(self, topic: str, envelope: Envelope) -> None:
        """Remember what is said."""
        if not self.is_up:
            raise UnavailableError("the link is down")
        self.sent.append((topic, envelope))
        self.spoken.set()

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Cancel:
        """Remember who listens."""
        self.handlers[topic_filter] = handler

        async def cancel() -> None:
            del self.handlers[topic_filter]

        return cancel

    async def arrive(self, topic: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Hand bytes to whoever listens on exactly this topic."""
        await self.handlers[topic](topic, data, headers or {})


GET = "core/command/request/lamp/Power/get"


async def asked(wire: Wire, bus: EdgexBus, timeout_s: float = 5.0, **more: Any) -> tuple["asyncio.Task[Any]", str]:
    """Start a request and return it with the topic its answer is awaited on."""
    task = asyncio.create_task(bus.request(GET, None, answer_from="core-command", timeout_s=timeout_s, **more))
    await wire.spoken.wait()
    return task, next(iter(wire.handlers))


async def test_a_request_takes_the_answer_with_its_id_even_with_a_new_correlation_id() -> None:
    wire = Wire()
    task, answers = await asked(wire, EdgexBus(wire), query={"ds-pushevent": "true"}, correlation_id="c-1")
    topic, request = wire.sent[0]
    assert topic == f"edgex/{GET}"
    assert answers == f"edgex/response/core-command/{request.request_id}"
    assert (request.correlation_id, request.query_params) == ("c-1", {"ds-pushevent": "true"})
    error = Envelope("no such device", "another", request.request_id, error_code=1, content_type="text/plain")
    await wire.arrive(answers, encode_envelope(error))
    await wire.arrive(answers, b"{bad")  # a second answer changes nothing
    assert (await task).error == "no such device"
    assert wire.handlers == {}


async def test_silence_is_unavailable_and_leaves_no_subscription() -> None:
    wire = Wire()
    with pytest.raises(
        UnavailableError, match=r"core-command did not answer core/command/request/lamp/Power/get in 0\.01"
    ):
        await EdgexBus(wire).request(GET, None, answer_from="core-command", timeout_s=0.01)
    assert wire.handlers == {}


async def test_an_answer_that_cannot_be_decoded_ends_the_wait_and_is_set_aside() -> None:
    wire, aside = Wire(), []

    async def keep(topic: str, data: bytes, cause: str, text: str) -> None:
        aside.append((topic, data, cause))

    bus = EdgexBus(wire, dead_letter=keep)
    task, answers = await asked(wire, bus)
    broken = json.dumps({"payload": "oQ==", "contentType": "application/cbor"}).encode()
    await wire.arrive(answers, broken)
    with pytest.raises(UpstreamError, match="core-command answered"):
        await task
    assert aside == [(answers, broken, "not-cbor")]
    assert bus.rejected == {"not-cbor": 1}


async def test_a_link_that_is_down_ends_the_request_at_once_and_leaves_no_subscription() -> None:
    wire = Wire()
    wire.is_up = False
    with pytest.raises(UnavailableError, match="the link is down"):
        await EdgexBus(wire).request(GET, None, answer_from="core-command", timeout_s=5)
    assert wire.handlers == {}


async def test_a_cancelled_request_leaves_no_subscription() -> None:
    wire = Wire()
    task, _ = await asked(wire, EdgexBus(wire))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wire.handlers == {}


async def test_every_rejection_is_counted_and_set_aside_but_logged_once_a_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire, aside, seen = Wire(), [], []

    async def keep(topic: str, data: bytes, cause: str, text: str) -> None:
        aside.append((data, cause))

    async def take(message: EdgexMessage) -> None:
        seen.append(message)

    bus = EdgexBus(wire, dead_letter=keep)
    await bus.subscribe(GET, take)
    with caplog.at_level(logging.WARNING):
        for data in (b"{bad", b"{worse", b"[]", encode_envelope(Envelope(None, "c", "q"))):
            await wire.arrive(f"edgex/{GET}", data)
    assert bus.rejected == {"not-json": 2, "not-an-envelope": 1}
    assert aside == [(b"{bad", "not-json"), (b"{worse", "not-json"), (b"[]", "not-an-envelope")]
    assert [record.getMessage()[:40] for record in caplog.records] == [f"message on edgex/{GET}"[:40]] * 2
    assert [type(message) for message in seen] == [CommandRequest]


@pytest.mark.parametrize("failure", [UnavailableError("broker away"), InvalidInputError("no subject")])
async def test_a_dead_letter_that_cannot_be_stored_does_not_stop_the_bus(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(topic: str, data: bytes, cause: str, text: str) -> None:
        raise failure

    bus = EdgexBus(Wire(), dead_letter=refuse)
    assert await bus.decode("edgex/x", b"{bad", {}) is None
    assert str(failure) in caplog.text


async def test_an_answer_goes_to_whoever_asked_with_both_ids() -> None:
    wire = Wire()
    bus = EdgexBus(wire, base="site")
    request = Envelope(None, "c-1", "q-1")
    await bus.answer("device-world", request, {"a": 1})
    await bus.answer("device-world", request, error="lamp is locked")
    (topic, good), (same, bad) = wire.sent
    assert topic == same == "site/response/device-world/q-1"
    assert good == Envelope({"a": 1}, "c-1", "q-1")
    assert bad == Envelope("lamp is locked", "c-1", "q-1", error_code=1, content_type="text/plain")


async def test_publishing_makes_a_correlation_id_unless_one_is_given() -> None:
    wire = Wire()
    bus = EdgexBus(wire)
    await bus.publish("events/x", {})
    await bus.publish("events/x", {}, correlation_id="c")
    await bus.publish("events/x", None, error="broken")
    first, second, third = (envelope for _, envelope in wire.sent)
    assert len(first.correlation_id) == 36
    assert second.correlation_id == "c"
    assert (third.error_code, third.payload, third.content_type) == (1, "broken", "text/plain")


async def test_an_absolute_filter_has_no_base_put_before_it() -> None:
    async def take(message: EdgexMessage) -> None:
        pass

    wire = Wire()
    bus = EdgexBus(wire, base="site")
    await bus.subscribe("edgex/configs/#", take, absolute=True)
    await bus.subscribe("events/#", take)
    assert set(wire.handlers) == {"edgex/configs/#", "site/events/#"}
