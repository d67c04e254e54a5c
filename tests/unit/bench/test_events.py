"""`make bench-events` without a gateway: events, stamps, figures, goals; its files fit the real readers."""

import asyncio
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.envelopes import Encoding, encode_envelope
from edgeagents.adapters.events import decode_message
from edgeagents.adapters.files import load_agents, load_site
from edgeagents.model.envelope import Envelope, EventMessage
from edgeagents.model.message import Cause, Command, CommandId, Epoch
from services.agent.rules import RuleBook
from tests.bench import events
from tests.bench.events_devices import Machines, names
from tests.bench.events_gateway import FIRES_FROM, plan_of, usage
from tests.bench.events_report import AGENT, PEER, figures_of, goals, medians, quantile, tables, traced_parts
from tests.bench.events_traffic import (
    SHARE,
    AgentSubject,
    Marks,
    Pass,
    PeerSubject,
    Traffic,
    event_id,
    is_marked,
    level_of,
    marked_by,
    message_of,
    number_of,
)


def test_one_event_in_a_hundred_is_marked_by_a_level_of_its_own() -> None:
    numbers = range(100_000, 110_000)
    marked = [number for number in numbers if is_marked(number)]

    assert len(marked) == len(numbers) // 100
    assert all((level_of(number) >= FIRES_FROM) is is_marked(number) for number in numbers)
    assert [marked_by(level_of(number)) for number in marked] == marked


def test_the_level_of_a_machine_changes_with_each_event() -> None:
    by_machine: dict[int, float] = {}
    for number in range(SHARE, 50 * SHARE):
        machine = (number + number // SHARE) % 10
        assert by_machine.get(machine) != level_of(number)
        by_machine[machine] = level_of(number)


def test_an_events_id_tells_its_number_and_nothing_else_is_taken_for_one() -> None:
    for number in (0, 1, 2**48 - 1, 2**48, 2**60):
        assert number_of(event_id(number)) == number
    with pytest.raises(ValueError, match="no id of this benchmark"):
        number_of("e897b104-b999-4bce-a900-0e2ceac7e619")


def test_events_are_what_edgex_calls_one() -> None:
    topic = AgentSubject().topic("machine-3")

    message = decode_message(topic, message_of(700, "machine-3", 1_795_465_567_626_438_574))

    assert isinstance(message, EventMessage)
    reading = message.event.reading("Level")
    assert reading is not None
    assert reading.decoded() == level_of(700)
    assert (message.event.id, message.event.device_name) == (event_id(700), "machine-3")


def command_for(number: int) -> bytes:
    cause = Cause(stream="edgex-events", sequence=1, event_id=event_id(number))
    return wire.encode(Command(
        id=CommandId("c"), device="machine-0", resource="Setpoint", value="1", incarnation="i",
        epoch=Epoch(generation=1, revision=1), ttl_s=1.0, cause=cause,
    ))  # fmt: skip


def test_outputs_of_agent_and_peer_name_their_event() -> None:
    peer = PeerSubject("edgex/rules-events", "events/bench")
    plain = message_of(300, "machine-0", 1)
    payload = json.loads(plain)["payload"]
    hidden = encode_envelope(Envelope(payload), Encoding(base64_payload=True))

    assert AgentSubject().numbers(message(command_for(200))) == [200]
    assert peer.numbers(message(plain)) == [300]
    assert peer.numbers(message(hidden)) == [300]
    assert peer.numbers(message(b'{"payload":{},"errorCode":0}')) == []


def message(data: bytes, subject: str = "s") -> Any:
    return SimpleNamespace(data=data, headers=None, subject=subject)


class Broker:
    """Answers each event at once, as the stream and an agent that is quick would; `deaf` ones answer nothing."""

    def __init__(self) -> None:
        self.client = self
        self.handlers: dict[str, Any] = {}
        self.sent: list[tuple[str, bytes, Any]] = []
        self.is_deaf = False

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, cb: Any, **limits: int) -> None:
        self.handlers[subject] = cb

    async def publish(self, subject: str, data: bytes, reply: str = "", headers: Any = None) -> None:
        self.sent.append((subject, data, headers))
        if reply and not self.is_deaf:
            await self.handlers["_INBOX.x.*"](message(b"{}", reply))
            await self.handlers[AgentSubject.pattern](message(command_for(int(reply.rsplit(".", 1)[1]))))


async def traffic(*, traced: bool = False) -> tuple[Broker, Traffic]:
    broker = Broker()
    found = Traffic(broker, names(10), traced=traced)  # type: ignore[arg-type]
    await found.listen(AgentSubject())
    return broker, found


async def test_a_pass_at_a_rate_sends_so_many_and_stamps_each_marked_one_in_order() -> None:
    broker, sender = await traffic()

    found = await sender.at_rate(AgentSubject(), 20_000.3, 0.05)

    assert found.sent == len(broker.sent) == 1000
    assert found.missed == 0
    assert all(mark.sent_ns <= mark.stored_ns <= mark.decided_ns for mark in found.marks.values())
    assert {subject for subject, _, _ in broker.sent} == {
        subjects.topic_to_subject(AgentSubject().topic(name)) for name in names(10)
    }


async def test_as_many_as_it_takes_never_has_more_than_the_window_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, sender = await traffic()
    monkeypatch.setattr("tests.bench.events_traffic.SILENCE_S", 0.01)
    broker.is_deaf = True

    found = await sender.at_most(AgentSubject(), 5.0)

    assert found.sent == 1000
    assert found.missed == 10


async def test_traces_begin_with_marked_events_alone() -> None:
    broker, sender = await traffic(traced=True)

    await sender.at_rate(AgentSubject(), 10_000, 0.02)

    traced = [headers for _, _, headers in broker.sent if headers]
    assert len(broker.sent) == 200
    assert [item["traceparent"][-3:] for item in traced] == ["-01", "-01"]


def test_figures_are_of_marked_events_that_came_through() -> None:
    found = Pass(sent=200, took_s=2.0)
    found.marks = {0: Marks(1_000_000, 2_000_000, 4_000_000, 9_000_000), 100: Marks(1_000_000)}

    row = figures_of(found)

    assert (row["events_per_s"], row["marked"], row["missed"], row["without_set"]) == (100.0, 2, 1, 1)
    assert row["decision"] == {"p50_ms": 3.0, "p99_ms": 3.0}
    assert row["set"] == {"p50_ms": 8.0, "p99_ms": 8.0}
    assert row["parts"]["command on NATS -> SET"] == {"p50_ms": 5.0, "p99_ms": 5.0}
    assert math.isnan(quantile([], 0.5))


def test_parts_of_the_way_add_up_to_the_whole() -> None:
    marks = {0: Marks(1_000_000, 2_000_000, 5_000_000, 20_000_000), 100: Marks(1, 2, 3, 4)}

    found = traced_parts(marks, {0: {"decide": 3_000_000, "command": 8_000_000, "set": 11_000_000}})

    assert found.pop("events") == 1
    assert sum(part["p50_ms"] for part in found.values()) == 19.0


def rated(events_per_s: float, decision_ms: float, set_ms: float | None) -> dict[str, Any]:
    row = {"decision": {"p99_ms": decision_ms}} | ({"set": {"p99_ms": set_ms}} if set_ms else {})
    return {"events_per_s": events_per_s, "rates": {"100": row, "1000": row, "highest": row}}


def test_goals_are_met_missed_or_open_without_a_peer() -> None:
    agent = rated(2000.0, 9.0, 19.0)

    assert [goal["met"] for goal in goals(agent, rated(4000.0, 6.0, None)).values()] == [True, True, True]
    assert [goal["met"] for goal in goals(rated(1999.0, 9.1, 20.1), rated(4000.0, 6.0, None)).values()] == [False] * 3
    assert [goal["met"] for goal in goals(agent, None).values()] == [None, None, True]


def test_medians_go_into_objects_and_leave_out_what_is_missing() -> None:
    rows = [{"a": 1.0, "b": {"c": 3}}, {"a": 2.0, "b": {"c": None}}, {"a": 9.0, "b": {"c": 5}}]

    assert medians(rows) == {"a": 2.0, "b": {"c": 4}}


def test_the_owners_files_of_the_bench_can_be_read_and_its_rule_compiles(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, 10, {}, 0.0)

    agent = load_agents(plan.profiles / "agents")["bench"]
    site = load_site(plan.profiles / "site.yaml")

    assert len(RuleBook(agent, "bench.yaml").compiled) == 10
    assert site.resources[0].risk_class == "A"


def test_machines_stamp_what_is_set_and_tell_it_once() -> None:
    machines = Machines()
    device, resource = SimpleNamespace(name="machine-0"), SimpleNamespace(name="Setpoint")

    asyncio.run(machines.write(device, [(resource, 101.0)], "c"))  # type: ignore[arg-type,list-item]

    assert [value for value, _ in machines.taken()] == [101.0]
    assert machines.taken() == []


def test_usage_of_this_process_is_more_than_nothing() -> None:
    cpu_s, rss, private = usage(os.getpid())

    assert cpu_s > 0
    assert rss >= private > 1_000_000


def test_the_last_line_is_json_with_the_goals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = {"events_per_s": 100.0, "decision": {"p50_ms": 1.0, "p99_ms": 2.0}, "set": {"p50_ms": 3.0, "p99_ms": 4.0}}
    cost = {"guard": {"cpu_percent": 1.0, "rss_mb": 2.0, "private_mb": 3.0}}
    bench = events.Bench(None, None, {AGENT: AgentSubject()}, None)  # type: ignore[arg-type]
    bench.most[AGENT] = [2000.0]
    bench.rows[AGENT] = {name: [{**row, "cost": cost}] for name in ("100", "1000", "highest")}
    where = {"100": traced_parts({0: Marks(1, 2, 4, 7)}, {0: {"decide": 3, "command": 5, "set": 6}})}

    async def measure(options: Any, progress: Any) -> Any:
        return bench, where

    monkeypatch.setattr(events, "measure", measure)

    assert events.main(["--passes", "1", "--store", str(tmp_path)]) == 0

    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["bench"] == "events"
    assert report["goals"]["set_p99_ms"] == {"value": 4.0, "goal": 20.0, "met": True}
    assert report["goals"]["events_per_s_ratio"] == {"value": None, "goal": 0.5, "met": None}
    assert report["figures"][PEER] is None
    assert report["store"]["fsyncs_per_s"][0] > 0
    assert len(list(tables({AGENT: bench.figures(AGENT), PEER: None}, where))) == 3
