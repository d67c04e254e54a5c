"""Several messages into a stream at once: all or none, behind a known end, with one answer for all.

The broker stores a batch as one (its synchronous writes are shared), so a disk that is slow to sync costs once for
all that waits. The expected last sequence of the stream fences a second writer: whoever is behind is told so.

Source: NATS ADR-50 (atomic batch publishing), nats-server 2.12 and later.
"""

import json
import secrets
from collections.abc import Sequence
from typing import Any, Final

from edgeagents.adapters.bus import Bus
from edgeagents.errors import ConflictError, NotFoundError, TooLargeError, UnavailableError

MOST_MESSAGES: Final = 512  # the broker takes 1,000
EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
_WRONG_LAST: Final = (10071, 10164)
_ID, _SEQUENCE, _COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"


async def ensure_batch_stream(
    bus: Bus, name: str, captured: Sequence[str], *, max_age_s: float, max_bytes: int, max_per_subject: int
) -> None:
    """Create a file-backed stream that takes batches, or bring an existing one to these limits.

    Args:
        bus: connected as somebody who may.
        name: of the stream.
        captured: subjects.
        max_age_s: older messages are dropped.
        max_bytes: the most it holds; then new ones are refused, never old ones dropped.
        max_per_subject: so many of each subject are kept.

    Raises:
        UnavailableError: the broker refuses, is older than 2.12, or does not answer.
    """
    config = {
        "name": name, "subjects": list(captured), "storage": "file", "retention": "limits", "discard": "new",
        "num_replicas": 1, "max_age": int(max_age_s * 1e9), "max_bytes": max_bytes,
        "max_msgs_per_subject": max_per_subject, "allow_atomic": True, "allow_direct": True,
    }  # fmt: skip
    body = json.dumps(config).encode()
    answer: dict[str, Any] = {}
    for verb in ("CREATE", "UPDATE"):
        found = await bus.request(f"$JS.API.STREAM.{verb}.{name}", body, timeout_s=5.0)
        answer = json.loads(found.data)
        if "error" not in answer:
            if not answer.get("config", {}).get("allow_atomic"):
                raise UnavailableError(f"stream {name}: this broker takes no batches: is nats-server older than 2.12?")
            return
    raise UnavailableError(f"stream {name}: {answer['error'].get('description', answer['error'])}")


async def purge(bus: Bus, name: str, subject: str, before: int, *, timeout_s: float = 5.0) -> None:
    """Remove what a stream holds of one subject before a sequence; what is not there is removed already.

    Raises:
        NotFoundError: there is no such stream.
        UnavailableError: the broker refuses, or does not answer.
    """
    body = json.dumps({"filter": subject, "seq": before}).encode()
    found = await bus.request(f"$JS.API.STREAM.PURGE.{name}", body, timeout_s=timeout_s)
    try:
        problem = json.loads(found.data).get("error")
    except (ValueError, AttributeError) as error:
        raise UnavailableError(f"purge of {subject} in stream {name}: an answer that is none") from error
    if problem:
        kind = NotFoundError if problem.get("code") == 404 else UnavailableError
        raise kind(f"purge of {subject} in stream {name}: {problem.get('description', problem)}")


async def store_together(
    bus: Bus, messages: Sequence[tuple[str, bytes]], expected_last: int, *, timeout_s: float = 10.0
) -> int:
    """Store messages as one and return the stream's last sequence then.

    Args:
        bus: connected.
        messages: subject and data; at most `MOST_MESSAGES`, of one stream.
        expected_last: sequence of the newest message of the whole stream.
        timeout_s: longest wait for the answer.

    Raises:
        ConflictError: the stream ends elsewhere.
        UnavailableError: no answer in time, or a refusal: without an answer all of them may be stored, or none.
        TooLargeError: too many, or one beyond the broker's limit.
    """
    if not 0 < len(messages) <= MOST_MESSAGES:
        raise TooLargeError(f"a batch of {len(messages)} messages: 1 to {MOST_MESSAGES}")
    if not bus.is_connected:
        raise UnavailableError("a batch for a stream: the link to nats is down")
    batch = secrets.token_hex(8)
    headers = {_ID: batch, EXPECTED_LAST: str(expected_last)}
    for number, (subject, data) in enumerate(messages, 1):
        headers = {**headers, _SEQUENCE: str(number)} if number == 1 else {_ID: batch, _SEQUENCE: str(number)}
        if number < len(messages):
            await bus.publish(subject, data, headers)
    subject, data = messages[-1]
    found = await bus.request(subject, data, {**headers, _COMMIT: "1"}, timeout_s=timeout_s)
    try:
        answer = json.loads(found.data)
    except ValueError as error:
        raise UnavailableError(
            f"store on {subject}: an answer that is none: is nats-server older than 2.12?"
        ) from error
    problem = answer.get("error")
    if problem:
        text = f"store on {subject}: {problem.get('description', problem)}"
        raise (ConflictError if problem.get("err_code") in _WRONG_LAST else UnavailableError)(text)
    return int(answer["seq"])
