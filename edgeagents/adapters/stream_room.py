"""What lies in a stream, by samples, and how some of it is taken out: for who keeps order in streams that many share.

Source: nats-server JetStream API, `$JS.API.DIRECT.GET` (ADR-31) and `$JS.API.STREAM.PURGE`.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Final

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.nats_client import finished
from edgeagents.adapters.streams import BROKER_ERRORS
from edgeagents.errors import UnavailableError

AT_ONCE: Final = 4  # messages asked for at a time: each may be as long as the stream lets it be
WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Lying:
    """A message that lies in a stream: its place, its subject and its length."""

    sequence: int
    subject: str
    size_bytes: int


async def sampled(bus: Bus, stream: str, first: int, last: int, most: int) -> list[Lying]:
    """Return at most `most` messages of a stream, evenly spaced between two places, none twice.

    Raises:
        UnavailableError: the broker did not answer.
    """
    step = max(1, (last - first + 1) // most)
    places = range(first, last + 1, step)
    found: dict[int, Lying] = {}
    for begin in range(0, len(places), AT_ONCE):
        batch = places[begin : begin + AT_ONCE]
        for lying in await asyncio.gather(*(_at_or_after(bus, stream, place) for place in batch)):
            if lying is not None and lying.sequence <= last:
                found[lying.sequence] = lying
    return list(found.values())


async def _at_or_after(bus: Bus, stream: str, sequence: int) -> Lying | None:
    wanted = json.dumps({"seq": sequence, "next_by_subj": ">"}).encode()
    try:
        answer = await finished(bus.client.request(f"$JS.API.DIRECT.GET.{stream}", wanted, timeout=WAIT_S))
    except BROKER_ERRORS as error:
        raise UnavailableError(f"stream {stream}: what lies there: {str(error) or type(error).__name__}") from error
    headers = answer.headers or {}
    if "Nats-Sequence" not in headers:  # nothing lies there or after it
        return None
    return Lying(int(headers["Nats-Sequence"]), headers.get("Nats-Subject", ""), len(answer.data))


async def trim(bus: Bus, stream: str, subject: str, keep: int = 0) -> int:
    """Take all but the newest `keep` messages of a filter out of a stream; return how many those were.

    Raises:
        UnavailableError: the broker did not answer, or refuses.
    """
    wanted = {"filter": subject, **({"keep": keep} if keep else {})}
    try:
        answer = await finished(
            bus.client.request(f"$JS.API.STREAM.PURGE.{stream}", json.dumps(wanted).encode(), timeout=WAIT_S)
        )
        body = json.loads(answer.data)
    except BROKER_ERRORS as error:
        raise UnavailableError(f"stream {stream}: taking {subject} out: {error or type(error).__name__}") from error
    if body.get("error"):
        raise UnavailableError(f"stream {stream}: taking {subject} out: {body['error'].get('description')}")
    return int(body.get("purged", 0))
