"""One look at the broker: connection, JetStream's account, the gateway's streams and whether they grow, its clock.

Source: NATS JetStream wire API (ADR-8).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.streams import EXPECTED_LAST
from edgeagents.errors import (
    ConfigurationError,
    CredentialsRefusedError,
    EdgeAgentsError,
    NotFoundError,
    UnavailableError,
)
from edgeagents.protocol.diagnosis.broker import AccountFacts, BrokerFacts, StreamFacts
from edgeagents.protocol.diagnosis.machine import apart_s
from edgeagents.settings import BusSettings

ANSWER_S: Final = 3.0
WATCH_S: Final = 1.0
_SETTLE_S: Final = 0.25  # what was heard last may still be on its way into its stream
_MOST_SETTLE_S: Final = 5.0  # so long where nothing was taken in at all: the disk may have stood still
CLIENT: Final = "edgeagents-doctor"


async def look_at_broker(settings: BusSettings, expected: Mapping[str, Sequence[str]]) -> BrokerFacts:
    """Return what a connection with these settings tells; `expected`: the gateway's streams, with their subjects."""
    try:
        bus = await Bus.connect(settings, CLIENT)
    except ConfigurationError as error:
        return BrokerFacts(settings.nats_url, settings.nats_user, "no-address", str(error))
    except CredentialsRefusedError as error:
        return BrokerFacts(settings.nats_url, settings.nats_user, "refused", str(error))
    except UnavailableError as error:
        return BrokerFacts(settings.nats_url, settings.nats_user, "away", str(error))
    try:
        return await _facts(bus, expected)
    finally:
        await bus.close()


async def _facts(bus: Bus, expected: Mapping[str, Sequence[str]]) -> BrokerFacts:
    settings, server = bus.settings, bus.server_info
    round_trip_ms = await _round_trip_ms(bus)
    account, text = await _account(bus)
    streams = await _streams(bus, expected) if account is not None else {}
    return BrokerFacts(
        settings.nats_url, settings.nats_user, server=str(server.get("version", "")),
        asks_user=bool(server.get("auth_required")), round_trip_ms=round_trip_ms, account=account, account_text=text,
        streams=streams, clock_ahead_s=await _clock_ahead_s(bus, list(streams)),
    )  # fmt: skip


async def _round_trip_ms(bus: Bus) -> float:
    began = time.perf_counter()
    try:
        await bus.flush()
    except UnavailableError:
        return float("nan")
    return (time.perf_counter() - began) * 1000


async def _account(bus: Bus) -> tuple[AccountFacts | None, str]:
    try:
        async with asyncio.timeout(ANSWER_S):
            held = await bus.account()
    except TimeoutError:
        return None, f"JetStream does not answer in {ANSWER_S:g} s: may user {bus.settings.nats_user!r} ask it?"
    except EdgeAgentsError as error:
        return None, str(error)
    return AccountFacts(held.store_bytes, held.max_store_bytes, held.streams, held.max_streams), ""


async def _streams(bus: Bus, expected: Mapping[str, Sequence[str]]) -> dict[str, StreamFacts]:
    """Return the streams that are there, watched for `WATCH_S`: what came for each, and what it took in."""
    seen: Counter[str] = Counter()

    async def count(name: str, subject: str) -> None:
        async def on_message(message: BusMessage) -> None:
            if EXPECTED_LAST not in message.headers:  # what is expected elsewhere may rightly be refused
                seen[name] += 1

        await bus.subscribe(subject, on_message)

    for name, subjects in expected.items():
        for subject in subjects:
            await count(name, subject)
    before = await asyncio.gather(*(_stream(bus, name) for name in expected))
    seen.clear()
    await asyncio.sleep(WATCH_S)
    heard, until_s = Counter(seen), time.monotonic() + _MOST_SETTLE_S
    while True:
        await asyncio.sleep(_SETTLE_S)
        after = await asyncio.gather(*(_stream(bus, name) for name in expected))
        idle = [
            name for name, first, then in zip(expected, before, after, strict=True)
            if heard[name] and first is not None and then is not None and then.grown <= first.grown
        ]  # fmt: skip
        if not idle or time.monotonic() > until_s:
            break
    return {
        name: StreamFacts(
            then.subjects, then.messages, heard[name], then.grown - first.grown, first.problem or then.problem
        )
        for name, first, then in zip(expected, before, after, strict=True)
        if first is not None and then is not None
    }


async def _stream(bus: Bus, name: str) -> StreamFacts | None:
    """Return a stream as it is, its last sequence as `grown`; None when there is none."""
    try:
        held = await bus.held(name)
    except NotFoundError:
        return None
    except UnavailableError as error:
        return StreamFacts(problem=str(error))
    return StreamFacts(held.subjects, held.messages, grown=held.last_sequence)


async def _clock_ahead_s(bus: Bus, streams: Sequence[str]) -> float | None:
    for name in streams:
        began_s = time.time()
        try:
            there_s = await bus.server_time_ns(name) / 1e9
        except EdgeAgentsError:
            continue
        return apart_s(there_s, began_s, time.time())
    return None
