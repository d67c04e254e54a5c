"""The bus on a real nats-server: requests, reconnects, credentials, quick and clean ends."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagents.adapters.bus import MOST_GATHERED, MOST_GATHERED_BYTES, Bus, BusMessage
from edgeagents.errors import (
    ConfigurationError,
    InvalidInputError,
    UnavailableError,
)
from edgeagents.settings import BusSettings
from tests.nats import NatsServer, free_port, until

PASSWORD_ACCOUNTS = """
authorization { users: [
  { user: agent, password: right, permissions: { publish: ["t.>", "_INBOX.>"], subscribe: ["t.>", "_INBOX.>"] } }
] }
"""


async def test_a_request_is_answered(bus: Bus) -> None:
    async def answer(message: BusMessage) -> None:
        await bus.respond(message, message.data.upper(), {"Content-Type": "text/plain"})

    await bus.subscribe("q.a", answer)
    reply = await bus.request("q.a", b"abc", timeout_s=5)
    assert (reply.data, reply.headers["Content-Type"]) == (b"ABC", "text/plain")


async def test_a_request_that_nobody_listens_to_fails_at_once(bus: Bus) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(UnavailableError, match=r"nobody answers on q\.nobody"):
            await bus.request("q.nobody", b"", timeout_s=30)


async def test_a_request_without_an_answer_fails_in_time(bus: Bus) -> None:
    async def ignore(message: BusMessage) -> None:
        pass

    await bus.subscribe("q.silent", ignore)
    with pytest.raises(UnavailableError, match=r"no answer on q\.silent in 0\.1 s"):
        await bus.request("q.silent", b"", timeout_s=0.1)


async def test_what_waits_for_an_answer_fails_at_once_when_the_link_breaks(bus: Bus, nats_server: NatsServer) -> None:
    asked = asyncio.Event()

    async def ignore(message: BusMessage) -> None:
        asked.set()

    await bus.subscribe("q.silent", ignore)
    waiting = asyncio.create_task(bus.request("q.silent", b"", timeout_s=60))
    await asked.wait()
    await asyncio.to_thread(nats_server.kill)
    async with asyncio.timeout(5):
        with pytest.raises(UnavailableError, match=r"q\.silent: .*link broke"):
            await waiting


async def test_a_flush_returns_after_the_server_has_seen_what_came_before(bus: Bus, nats_server: NatsServer) -> None:
    other = await Bus.connect(nats_server.settings(), "other")
    for number in range(50):
        seen: asyncio.Queue[bytes] = asyncio.Queue()

        async def take(message: BusMessage, seen: asyncio.Queue[bytes] = seen) -> None:
            await seen.put(message.data)

        await bus.subscribe(f"f.{number}", take)
        await bus.flush()
        await other.publish(f"f.{number}", b"1")
        async with asyncio.timeout(5):
            await seen.get()
    await other.close()


async def test_a_flush_that_is_given_up_leaves_the_link_as_it_was(bus: Bus) -> None:
    for _ in range(20):
        flush = asyncio.create_task(bus.client.flush())
        await asyncio.sleep(0)  # its PING is under way
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        await bus.client.flush()
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: BusMessage) -> None:
        heard.put_nowait(message.data)

    await bus.subscribe("s.x", hear)
    await bus.publish("s.x", b"still read")
    assert await asyncio.wait_for(heard.get(), 5) == b"still read"


async def test_answers_to_all_are_bounded_in_number_and_bytes(
    bus: Bus, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    other = await Bus.connect(nats_server.settings(), "loud")

    async def answer(message: BusMessage) -> None:
        size = int(message.data)
        for _ in range(3 * MOST_GATHERED if size < 10 else 3 * MOST_GATHERED_BYTES // size):
            await other.respond(message, b"x" * size)

    await other.subscribe("q.all", answer)
    await other.flush()
    try:
        began_s = time.monotonic()
        found = await bus.gather("q.all", b"1", inbox="_INBOX.micro", wait_s=30)
        assert len(found) == MOST_GATHERED
        assert time.monotonic() - began_s < 20, "the rest is not waited for"
        large = await bus.gather("q.all", b"100000", inbox="_INBOX.micro", wait_s=30)
        assert 0 < sum(map(len, large)) <= MOST_GATHERED_BYTES
        assert "cut off" in caplog.text
        assert await bus.gather("q.none", b"", inbox="_INBOX.micro", wait_s=5) == []
    finally:
        await other.close()


async def test_the_broker_sends_no_more_than_was_asked_for_and_all_of_that_arrives(bus: Bus) -> None:
    seen: list[bytes] = []

    async def take(message: BusMessage) -> None:
        seen.append(message.data)

    await bus.subscribe("q.few", take, most=5)
    before = bus.client.stats["in_msgs"]
    for number in range(50):
        await bus.publish("q.few", b"%d" % number)
    await bus.flush()
    await until(lambda: len(seen) == 5)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert bus.client.stats["in_msgs"] - before == 5, "what follows is not even sent"


async def test_an_answer_to_what_asked_for_none_is_not_sent(bus: Bus) -> None:
    await bus.respond(BusMessage("q.a", b""), b"nothing happens")


async def test_a_handler_that_fails_is_logged_and_goes_on(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(message: BusMessage) -> None:
        await seen.put(message.data)
        if message.data == b"bug":
            raise ZeroDivisionError("a bug")
        if message.data == b"late":
            raise TimeoutError("too late")

    await bus.subscribe("h.a", handle)
    for data in (b"bug", b"late", b"fine"):
        await bus.publish("h.a", data)
    async with asyncio.timeout(5):
        assert [await seen.get() for _ in range(3)] == [b"bug", b"late", b"fine"]
    texts = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.split(": ", 1)[1] for text in texts] == ["ZeroDivisionError: a bug", "TimeoutError: too late"]
    assert "Traceback" in caplog.text


async def test_a_subscription_survives_a_restart_of_the_server(
    bus: Bus, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(message: BusMessage) -> None:
        await seen.put(message.data)

    await bus.subscribe("h.a", handle)
    await bus.flush()
    await asyncio.to_thread(nats_server.kill)
    await until(lambda: not bus.is_connected)
    with pytest.raises(UnavailableError):
        await bus.flush(timeout_s=0.2)
    await asyncio.to_thread(nats_server.start)
    await until(lambda: bus.is_connected)
    await bus.publish("h.a", b"1")
    async with asyncio.timeout(5):
        assert await seen.get() == b"1"
    assert caplog.text.count("link is down") == caplog.text.count("link is back") == 1


# --- connecting and closing ----------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that knows one user."""
    server = NatsServer(tmp_path, PASSWORD_ACCOUNTS)
    server.start()
    yield server
    server.kill()


def password_file(folder: Path, text: str) -> Path:
    """Return a file that holds a password."""
    path = folder / "password"
    path.write_text(text)
    return path


async def test_the_right_password_connects(guarded: NatsServer, tmp_path: Path) -> None:
    settings = guarded.settings(nats_user="agent", nats_password_file=password_file(tmp_path, "right\n"))
    bus = await Bus.connect(settings, "agent")
    await bus.flush()
    await bus.close()


@pytest.mark.parametrize(("user", "password"), [("agent", "wrong"), ("stranger", "right"), ("", "")])
async def test_wrong_credentials_are_refused_at_once_and_not_echoed(
    guarded: NatsServer, tmp_path: Path, user: str, password: str
) -> None:
    file = password_file(tmp_path, password) if password else None
    settings = guarded.settings(nats_user=user, nats_password_file=file, connect_timeout_s=30)
    async with asyncio.timeout(5):
        with pytest.raises(UnavailableError, match="refused user or password") as caught:
            await Bus.connect(settings, "agent")
    assert "wrong" not in str(caught.value)


async def test_what_a_user_may_not_do_is_logged_and_the_rest_goes_on(
    guarded: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = guarded.settings(nats_user="agent", nats_password_file=password_file(tmp_path, "right"))
    bus = await Bus.connect(settings, "agent")
    await bus.publish("edgex.core.command.request.d.c.set", b"{}")
    await until(lambda: "permissions violation" in caplog.text, 5)
    await bus.flush()
    assert bus.is_connected
    await bus.close()


async def test_no_server_is_unavailable_in_time_with_the_address(nats_server: NatsServer) -> None:
    settings = nats_server.settings(nats_url=f"nats://127.0.0.1:{free_port()}", connect_timeout_s=0.5)
    async with asyncio.timeout(5):
        with pytest.raises(UnavailableError, match=rf"{settings.nats_url}: .*is nats-server up"):
            await Bus.connect(settings, "x")


@pytest.mark.parametrize("url", ["nats://host:port:1", "http://host:4222", "host", "", "nats://", "nats://host:99999"])
async def test_an_address_that_is_none_is_refused_with_its_form(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write nats://host:4222") as caught:
        await Bus.connect(BusSettings(nats_url=url), "x")
    assert repr(url) in str(caught.value)


async def test_a_password_file_that_is_not_there_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    absent = nats_server.settings(nats_user="a", nats_password_file=tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="absent"):
        await Bus.connect(absent, "x")


async def test_closing_is_quiet_and_what_was_published_before_has_arrived(
    nats_server: NatsServer, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(message: BusMessage) -> None:
        await seen.put(message.data)

    await bus.subscribe("h.a", handle)
    await bus.flush()
    other = await Bus.connect(nats_server.settings(), "other")
    await other.publish("h.a", b"last words")
    await other.close()
    await other.close()
    async with asyncio.timeout(5):
        assert await seen.get() == b"last words"
    assert other.closed.is_set()
    assert not other.is_connected
    assert caplog.records == []
    for call in (other.publish("h.a", b""), other.request("h.a", b"", timeout_s=1), other.store("h.a", b"")):
        with pytest.raises(UnavailableError):
            await call


async def test_what_is_no_subject_is_refused(bus: Bus) -> None:
    for subject in ("", "a b", "a\r\nPUB x 0\r\n"):
        with pytest.raises(InvalidInputError):
            await bus.publish(subject, b"1")
