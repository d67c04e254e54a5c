"""Whole streams out of a running server into files, and back: messages, sequences, times and consumers as they were.

The server's own snapshots are used: it takes them at one moment, checks what it reads, and goes on serving. What it
sends is kept as it comes (a compressed tar of its own) beside the stream's configuration and state.

Source: NATS JetStream wire API, `$JS.API.STREAM.SNAPSHOT` and `$JS.API.STREAM.RESTORE`.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import NotFoundError, StoreError, UnavailableError, UpstreamError

CHUNK_BYTES: Final = 128 << 10
ANSWER_S: Final = 10.0
LAST_ANSWER_S: Final = 300.0  # the server reads all it was sent, and checks it
INTERNAL: Final = "$MQTT_"  # sessions of MQTT clients, which they make anew
Progress = Callable[[int], None]


async def stream_names(bus: Bus) -> list[str]:
    """Return the streams a broker holds, those that its MQTT listener keeps for itself left out.

    Raises:
        UnavailableError: the broker did not answer.
        UpstreamError: it refused.
    """
    names: list[str] = []
    while True:
        answer = await _ask(bus, "$JS.API.STREAM.NAMES", {"offset": len(names)})
        page = answer.get("streams") or []
        names += page
        if not page or len(names) >= int(answer.get("total", 0)):
            return sorted(name for name in names if not name.startswith(INTERNAL))


async def snapshot(bus: Bus, stream: str, path: Path, progress: Progress) -> dict[str, Any]:
    """Write a stream into a file; return its `config` and `state` at that moment.

    Raises:
        NotFoundError: there is no such stream.
        UnavailableError: the broker did not answer, or stopped in the middle.
        UpstreamError: it refused, such as for a damaged block.
    """
    inbox = bus.client.new_inbox()
    arrived: asyncio.Queue[BusMessage] = asyncio.Queue()
    subscription = await bus.subscribe(inbox, arrived.put)
    try:
        wish = {"deliver_subject": inbox, "chunk_size": CHUNK_BYTES, "no_consumers": False, "jsck": True}
        about = await _ask(bus, f"$JS.API.STREAM.SNAPSHOT.{stream}", wish)
        with path.open("wb") as file:
            while chunk := await _chunk(bus, stream, arrived):
                file.write(chunk)
                progress(len(chunk))
    finally:
        await subscription.unsubscribe()
    return {"config": about["config"], "state": about["state"]}


async def _chunk(bus: Bus, stream: str, arrived: "asyncio.Queue[BusMessage]") -> bytes:
    """Return the next part of a snapshot, nothing at its end."""
    try:
        message = await asyncio.wait_for(arrived.get(), ANSWER_S)
    except TimeoutError as error:
        raise UnavailableError(f"snapshot of stream {stream}: the broker stopped in the middle") from error
    status = message.headers.get("Status", "")
    if status and not status.startswith("2"):
        raise UpstreamError(f"snapshot of stream {stream}: {status} {message.headers.get('Description', '')}".strip())
    if message.reply:
        await bus.publish(message.reply, b"")
    return message.data


async def restore(bus: Bus, stream: str, about: dict[str, Any], path: Path, progress: Progress) -> None:
    """Make a stream from a file that `snapshot` wrote; it must not be there.

    Raises:
        UnavailableError: the broker did not answer in time.
        UpstreamError: the broker refuses what it got, and has no such stream then.
        StoreError: the stream holds something else than was written down.
    """
    answer = await _ask(bus, f"$JS.API.STREAM.RESTORE.{stream}", about)
    subject = str(answer["deliver_subject"])
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            _checked(stream, (await bus.request(subject, chunk, timeout_s=ANSWER_S)).data)
            progress(len(chunk))
    _checked(stream, (await bus.request(subject, b"", timeout_s=LAST_ANSWER_S)).data)
    found = (await _ask(bus, f"$JS.API.STREAM.INFO.{stream}", {}))["state"]
    # Messages may be too old by now; the end of the stream may not be another.
    if found["last_seq"] != about["state"]["last_seq"]:
        raise StoreError(f"stream {stream} ends at {found['last_seq']}, not at {about['state']['last_seq']}")


async def delete(bus: Bus, stream: str) -> None:
    """Delete a stream with all that is in it.

    Raises:
        UnavailableError: the broker did not answer.
    """
    await _ask(bus, f"$JS.API.STREAM.DELETE.{stream}", {})


def gateway_of(about: dict[str, Any]) -> str:
    """Return whose the command stream is, by what it captures.

    Raises:
        StoreError: it captures nothing of a gateway.
    """
    first = next(iter(about["config"].get("subjects") or []), "")
    if ".commands." not in first:
        raise StoreError(f"stream {subjects.COMMANDS_STREAM} captures {first!r}: is it a gateway's?")
    return subjects.name_of(first.partition(".")[0])


async def _ask(bus: Bus, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await bus.request(subject, json.dumps(body).encode() if body else b"", timeout_s=ANSWER_S)
    return _checked(subject.rpartition(".")[2], answer.data)


def _checked(what: str, data: bytes) -> dict[str, Any]:
    """Return an answer's body, empty for none; an error in it is raised."""
    if not data:
        return {}
    try:
        body = json.loads(data)
    except ValueError as error:
        raise UpstreamError(f"stream {what}: the broker answered no JSON") from error
    problem = body.get("error")
    if problem:
        kind = NotFoundError if problem.get("code") == 404 else UpstreamError
        raise kind(f"stream {what}: {problem.get('description', problem)}")
    return dict(body)
