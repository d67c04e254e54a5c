"""Copies of streams at a peer, such as a hub that keeps the audit of many gateways: they catch up by themselves.

The gateway that owns a stream makes a durable consumer for each copy it permits; the one that keeps the copy makes a
stream that mirrors it. After a cut link the copy asks for what follows the last message it has. All a peer may ask for
is that: neither which messages, nor where they are sent, nor anything of another stream (`leaf_nodes.py`).

Source: nats-server 2.14 and newer, ADR-60 (durable sourcing, acknowledged by flow control).
"""

import json
from typing import Any, Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.leaf_nodes import mirror_api
from edgeagents.errors import UnavailableError
from edgeagents.model.gateways import Gateways

ANSWER_S: Final = 5.0
SECOND_NS: Final = 1_000_000_000
UNACKNOWLEDGED: Final = 1_000  # messages that may be under way to a copy
COPY_BYTES: Final = 4 << 30  # beyond it the oldest are dropped, as in a gateway's own audit
IN_USE: Final = 10058  # a stream of this name is there with another configuration


async def offer_copies(bus: Bus, gateways: Gateways) -> list[str]:
    """Make the consumers that feed the copies which peers may keep, end those of copies they may not; return names.

    Raises:
        UnavailableError: the broker refuses, or does not answer.
    """
    made: list[str] = []
    for peer, found in gateways.peers.items():
        name = subjects.mirror_consumer(gateways.gateway, peer)
        for stream in (subjects.AUDIT_STREAM, subjects.EVENTS_STREAM):
            if stream in found.mirrors:
                delivery = subjects.mirror_delivery(gateways.gateway, peer, stream)
                body = {"stream_name": stream, "config": _consumer(name, delivery)}
                await _ask(bus, f"$JS.API.CONSUMER.CREATE.{stream}.{name}", body)
                made.append(f"{stream}/{name}")
            else:
                await bus.forget_consumer(stream, name)
    return made


async def keep_copies(bus: Bus, gateways: Gateways) -> list[str]:
    """Make the streams that are copies of peers' streams, where they are not there; return their names.

    A copy that the owner wants no more is not deleted: it may be all that is left of a gateway.

    Raises:
        UnavailableError: the broker refuses, or does not answer.
    """
    made: list[str] = []
    for peer, found in gateways.peers.items():
        for stream in found.keeps:
            name = subjects.mirror_stream(stream, peer)
            await _ask(bus, f"$JS.API.STREAM.CREATE.{name}", _stream(name, stream, peer, gateways.gateway))
            made.append(name)
    return made


def _consumer(name: str, delivery: str) -> dict[str, Any]:
    return {
        "name": name, "durable_name": name, "deliver_subject": delivery, "deliver_policy": "all",
        "ack_policy": "flow_control", "flow_control": True, "idle_heartbeat": SECOND_NS,
        "max_ack_pending": UNACKNOWLEDGED,
    }  # fmt: skip


def _stream(name: str, stream: str, peer: str, own: str) -> dict[str, Any]:
    consumer = {
        "name": subjects.mirror_consumer(peer, own),
        "deliver_subject": subjects.mirror_delivery(peer, own, stream),
    }
    return {
        "name": name, "retention": "limits", "storage": "file", "discard": "old", "num_replicas": 1,
        "allow_direct": True, "max_bytes": COPY_BYTES,
        "mirror": {"name": stream, "external": {"api": mirror_api(peer), "deliver": ""}, "consumer": consumer},
    }  # fmt: skip


async def _ask(bus: Bus, subject: str, body: dict[str, Any]) -> None:
    answer = await bus.request(subject, json.dumps(body).encode(), timeout_s=ANSWER_S)
    try:
        error = json.loads(answer.data).get("error")
    except (ValueError, AttributeError) as problem:
        raise UnavailableError(f"{subject}: no answer of JetStream's") from problem
    if error and error.get("err_code") != IN_USE:
        raise UnavailableError(f"{subject}: {error.get('description')}: is nats-server 2.14 or newer?")
