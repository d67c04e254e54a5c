"""What a service answers as a NATS micro service; nats-py's own reader of such answers is the judge of their shape."""

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage, Handler
from edgeagents.adapters.micro import Endpoint, Micro

COUNT = {"requests": 3}


def micro(**changes: Any) -> Micro:
    endpoint = Endpoint("sessions", "gw.sessions.*", lambda: COUNT["requests"])
    return Micro(**{"name": "app-guard", "version": "4.0.0", "description": "a guard", "metadata": {"gateway": "gw"},
                    "endpoints": [endpoint], "instance": "i1", **changes})  # fmt: skip


class FakeBus:
    """Keeps subscriptions and what was answered."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.answers: list[tuple[str, dict[str, Any]]] = []

    async def subscribe(self, subject: str, handler: Handler) -> None:
        self.handlers[subject] = handler

    async def respond(self, message: BusMessage, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.answers.append((message.reply, json.loads(data)))


def test_each_answer_is_what_a_nats_client_reads() -> None:
    ping = ServicePing.from_dict(micro().says("PING"))
    info = ServiceInfo.from_dict(micro().says("INFO"))
    stats = ServiceStats.from_dict(micro().says("STATS"))
    assert (ping.name, ping.id, ping.version, ping.metadata) == ("app-guard", "i1", "4.0.0", {"gateway": "gw"})
    assert (info.description, info.endpoints[0].subject) == ("a guard", "gw.sessions.*")
    assert stats.endpoints[0].num_requests == 3
    assert [micro().says(verb)["type"] for verb in subjects.MICRO_VERBS] == [
        "io.nats.micro.v1.ping_response", "io.nats.micro.v1.info_response", "io.nats.micro.v1.stats_response",
    ]  # fmt: skip


def test_a_version_that_is_not_semantic_is_not_told() -> None:
    assert micro(version="master").says("PING")["version"] == "0.0.0"


async def test_it_hears_questions_to_all_to_its_name_and_to_itself() -> None:
    bus = FakeBus()
    await micro().serve(cast(Bus, bus))
    assert set(bus.handlers) == {
        *("$SRV.PING", "$SRV.PING.app-guard", "$SRV.PING.app-guard.i1"),
        *("$SRV.INFO", "$SRV.INFO.app-guard", "$SRV.INFO.app-guard.i1"),
        *("$SRV.STATS", "$SRV.STATS.app-guard", "$SRV.STATS.app-guard.i1"),
    }


@pytest.mark.parametrize("reply", ["gw.commands.valve.air", "edgex.core.command.request.v.s.set", "$JS.ACK.x", ""])
async def test_it_answers_to_inboxes_alone(reply: str) -> None:
    bus = FakeBus()
    await micro().serve(cast(Bus, bus))
    await bus.handlers["$SRV.PING"](BusMessage("$SRV.PING", b"", {}, reply))
    assert bus.answers == []
    await bus.handlers["$SRV.PING"](BusMessage("$SRV.PING", b"", {}, "_INBOX.owner.1"))
    assert [where for where, _ in bus.answers] == ["_INBOX.owner.1"]
