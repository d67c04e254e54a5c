"""One input after the other: considered, written down, then acknowledged."""

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.bus import StoredMessage
from edgeagents.audit import Audit
from edgeagents.errors import UnavailableError
from edgeagents.journal import Journal, read_journal
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.device import Event, make_reading
from edgeagents.model.message import Cause, CommandId, Outcome
from edgeagents.protocol.chains import link
from edgeagents.settings import SiteTime
from services.agent.commands import Commander, Given
from services.agent.decision import RuleStage
from services.agent.loop import AgentLoop, EventInput, Input, OutcomeInput, RuleInput, rule_results
from services.agent.perception import Twin
from services.agent.record import started_body
from services.agent.replay import Replayer
from services.agent.rules import RuleBook

AGENT = AgentDefinition.model_validate({
    "name": "a", "watches": [{"device": "*"}],
    "rules": [
        {"name": "warm", "given": {"t": "sensor/T"}, "when": "t < 20.0",
         "set": {"device": "valve", "resource": "S", "value": 21.0}},
        {"name": "told", "given": {"cold": "rule/cold"}, "when": "cold",
         "set": {"device": "valve", "resource": "S", "value": 23.0}},
    ],
})  # fmt: skip


class FakeMessage:
    """A stored message that remembers when it was acknowledged."""

    def __init__(self, log: list[str], sequence: int = 1) -> None:
        self.log, self.sequence = log, sequence
        self.headers: dict[str, str] = {}
        self.stream, self.time_ns = "edgex-events", 5_000_000_000

    async def ack(self) -> None:
        self.log.append("ack")

    def receipt(self) -> "FakeMessage":
        return self


class FakeCommander:
    """Takes decisions; `answer` says what becomes of them."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.ended_with: list[Outcome] = []
        self.answer: list[str] = []  # why each intent is held back; "" is published
        self.failure: Exception | None = None
        self.session = self  # it plays its session as well
        self.mode = "act"

    async def give(self, decision: Decision, cause: Cause, site_s: float) -> list[Given]:
        self.log.append(f"give {decision.intents[0].value!r} because of {cause.sequence}")
        if self.failure is not None:
            raise self.failure
        reasons = self.answer or [""] * len(decision.intents)
        return [
            Given(intent, "" if reason else "id", reason)
            for intent, reason in zip(decision.intents, reasons, strict=False)
            if reason != "under way"
        ]

    def ended(self, outcome: Outcome) -> None:
        self.ended_with.append(outcome)

    def forget_overdue(self) -> None:
        return


class FakeAudit:
    """Keeps what is appended."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def append(self, kind: str, **body: Any) -> None:
        self.records.append({"kind": kind, **body})


class Rig:
    """A loop with its neighbours in memory."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        rules = RuleBook(AGENT, "a.yaml")
        self.twin = Twin(SiteTime(), rules.keys, 3600)
        self.commander = FakeCommander(self.log)
        self.audit = FakeAudit()
        self.path = folder / "a.jsonl"
        self.loop = AgentLoop(
            AGENT, self.twin, [RuleStage("a", rules)], cast(Commander, self.commander), cast(Audit, self.audit),
            Journal.open(self.path), lambda: 100.0,
        )  # fmt: skip

    async def event(self, value: float, *, sequence: int = 1, name: str = "", origin_s: float = 50.0) -> None:
        """Let the loop handle an event of the sensor."""
        origin_ns = int(origin_s * 1e9)
        reading = make_reading("sensor", "Sensor", "T", "Float64", value, origin_ns, reading_id="r")
        item = Event(
            id=name or f"e{sequence}", device_name="sensor", profile_name="Sensor", source_name="T",
            origin=origin_ns, readings=(reading,),
        )  # fmt: skip
        await self.loop.handle(EventInput(self.message(sequence), item))

    async def rule(self, result: Any, sequence: int = 1) -> None:
        """Let the loop handle a rule's result."""
        await self.loop.handle(RuleInput(self.message(sequence), result))

    def message(self, sequence: int) -> StoredMessage:
        return cast(StoredMessage, FakeMessage(self.log, sequence))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_an_event_is_decided_on_written_down_and_then_acknowledged(rig: Rig) -> None:
    await rig.event(18.0, sequence=7)
    assert rig.log == ["give 21.0 because of 7", "ack"]
    (record,) = rig.audit.records
    assert (record["kind"], record["given"][0]["command"]) == ("decision", "id")
    assert record["cause"]["event_id"] == "e7"
    assert read_journal(rig.path) == [{"kind": "consumed", "id": "e7", "stream": "edgex-events", "sequence": 7}]


async def test_what_is_written_down_of_a_decision_is_enough_to_make_it_again(rig: Rig) -> None:
    await rig.event(18.0, sequence=7)
    await rig.rule({"cold": True}, sequence=8)
    start = link(None, "a", "i", "started", started_body(AGENT), 1)
    replayer = Replayer()
    replayer.take(start)
    bodies = [{name: value for name, value in record.items() if name != "kind"} for record in rig.audit.records]
    found = [replayer.take(link(start, "a", "i", "decision", body, 2)) for body in bodies]
    assert [item is not None and item.is_equal for item in found] == [True, True]
    assert bodies[0]["changed"] == {"T": [18.0, 50_000_000_000, 50.0]}
    assert (bodies[0]["device"], bodies[0]["stages"]) == ("sensor", ["rule"])


async def test_an_event_that_changes_nothing_is_acknowledged_and_not_audited(rig: Rig) -> None:
    await rig.event(25.0)
    await rig.event(25.0, sequence=2)
    await rig.event(25.0, sequence=2)
    assert rig.log == ["ack"] * 3
    assert rig.audit.records == []
    assert rig.loop.counts["nothing_to_do"] == 1
    assert [line["id"] for line in read_journal(rig.path)] == ["e1", "e2", "e2"]


async def test_an_event_is_not_acknowledged_before_its_command_is_stored(rig: Rig) -> None:
    rig.commander.failure = RuntimeError("killed here")
    with pytest.raises(RuntimeError):
        await rig.event(18.0)
    assert "ack" not in rig.log
    assert read_journal(rig.path) == []


async def test_without_deciding_events_are_consumed_all_the_same(rig: Rig) -> None:
    rig.loop.deciding = False
    await rig.event(18.0)
    assert rig.log == ["ack"]
    assert rig.twin.latest(("sensor", "T")) is not None


async def test_a_very_long_event_id_is_no_obstacle(rig: Rig) -> None:
    await rig.event(18.0, name="x" * 5000)
    assert rig.log == ["give 21.0 because of 1", "ack"]
    assert read_journal(rig.path)[0]["id"] == "x" * 5000


async def test_the_same_wishes_held_back_for_the_same_reasons_are_told_once(rig: Rig) -> None:
    for sequence, reason in enumerate(["set 40 s ago: wait", "set 45 s ago: wait", "no lease", "under way"], 1):
        rig.commander.answer = [reason]
        await rig.event(18.0 + sequence / 10, sequence=sequence, origin_s=50.0 + sequence)
    assert [record["given"][0]["held_back"] for record in rig.audit.records] == ["set 40 s ago: wait", "no lease"]
    assert (rig.loop.counts["held_back_again"], rig.loop.counts["under_way"]) == (1, 1)


async def test_an_outcome_goes_to_the_commander(rig: Rig) -> None:
    outcome = Outcome(command_id=CommandId("c"), device="valve", resource="S", status="proven")
    await rig.loop.handle(OutcomeInput(rig.message(3), outcome))
    assert rig.commander.ended_with == [outcome]
    assert rig.log == ["ack"]


async def test_a_rules_result_reads_as_resources_of_the_device_rule(rig: Rig) -> None:
    await rig.rule({"cold": True, "other": 5}, sequence=4)
    assert rig.log == ["give 23.0 because of 4", "ack"]


async def test_fields_no_rule_looks_at_are_not_kept(rig: Rig) -> None:
    await rig.rule({f"field-{number}": number for number in range(1000)})
    await rig.rule({"cold": {"deep": True}})
    await rig.rule({})
    assert rig.log == ["ack"] * 3
    assert rig.twin.readings == {}


@pytest.mark.parametrize("value", [10**400, "\ud800", "a\x00b", float("nan")])
async def test_absurd_results_stop_nothing(rig: Rig, value: Any) -> None:
    await rig.rule({"cold": value})
    await rig.rule({"cold": True}, sequence=2)
    assert rig.log == ["ack", "give 23.0 because of 2", "ack"]


class TestRuleResults:
    """What a rule engine may send."""

    def test_one_object_or_an_array_of_them(self) -> None:
        assert rule_results(b'{"a": 1}') == [{"a": 1}]
        assert rule_results(b'[{"a": 1}, {}]') == [{"a": 1}, {}]

    @pytest.mark.parametrize(
        "data", [b"", b"null", b"1", b'"a"', b"[]", b"[1]", b'[{"a":1}, 2]', b"{", b"\xff", b"[" * 100_000, b"9" * 5000]
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"."):
            rule_results(data)

    @given(st.binary() | st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ).map(lambda value: json.dumps(value).encode()))  # fmt: skip
    def test_any_bytes_are_results_or_a_refusal(self, data: bytes) -> None:
        try:
            found = rule_results(data)
        except ValueError:
            return
        assert found
        assert all(isinstance(item, dict) for item in found)


class Waiting:
    """Answers decisions when the test says so."""

    mode = "act"

    def __init__(self, log: list[str]) -> None:
        self.session = self  # it plays its session as well
        self.log = log
        self.answers: list[asyncio.Future[list[Given]]] = []

    def give(self, decision: Decision, cause: Cause, site_s: float) -> Awaitable[list[Given]]:
        """Promise an answer."""
        self.log.append(f"give {cause.sequence}")
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def answer(self, number: int) -> None:
        """Say that the commands of a decision are stored."""
        self.answers[number].set_result([Given(Intent("valve", "S", 21.0, "cold", "warm"), "id")])

    def forget_overdue(self) -> None:
        return


async def some_turns() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


def sensor_event(rig: Rig, value: float, sequence: int) -> EventInput:
    """Return an event of the sensor as it is queued."""
    log: list[str] = rig.log
    reading = make_reading("sensor", "Sensor", "T", "Float64", value, sequence * 10**9, reading_id="r")
    event = Event(
        id=f"e{sequence}", device_name="sensor", profile_name="Sensor", source_name="T", origin=sequence * 10**9,
        readings=(reading,),
    )  # fmt: skip
    message = FakeMessage(log, sequence)
    message.ack = lambda: _log(log, f"ack {sequence}")  # type: ignore[method-assign]
    return EventInput(cast(StoredMessage, message), event)


async def _log(log: list[str], text: str) -> None:
    log.append(text)


async def test_the_next_are_decided_on_while_commands_wait_and_acknowledged_in_order(rig: Rig) -> None:
    commander = Waiting(rig.log)
    rig.loop._commander = cast(Commander, commander)
    queue: asyncio.Queue[Input] = asyncio.Queue()
    running = asyncio.create_task(rig.loop.run(queue))
    for sequence, value in enumerate((25.0, 18.0, 26.0, 17.0, 27.0), 1):
        queue.put_nowait(sensor_event(rig, value, sequence))
    await some_turns()
    assert rig.log == ["ack 1", "give 2", "give 4"]
    commander.answer(1)  # the later one is stored first
    await some_turns()
    assert rig.log[3:] == []
    assert [record["cause"]["sequence"] for record in rig.audit.records] == [4]
    commander.answer(0)
    await some_turns()
    assert rig.log[3:] == ["ack 2", "ack 3", "ack 4", "ack 5"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_failure_while_commands_wait_ends_the_loop_and_acknowledges_nothing(rig: Rig) -> None:
    commander = Waiting(rig.log)
    rig.loop._commander = cast(Commander, commander)
    queue: asyncio.Queue[Input] = asyncio.Queue()
    running = asyncio.create_task(rig.loop.run(queue))
    for sequence, value in enumerate((18.0, 25.0), 1):
        queue.put_nowait(sensor_event(rig, value, sequence))
    await some_turns()
    commander.answers[0].set_exception(RuntimeError("broken"))
    with pytest.raises(ExceptionGroup):
        await running
    assert rig.log == ["give 1"]


async def test_what_comes_again_before_it_is_acknowledged_is_not_handled_again_and_not_kept_twice(rig: Rig) -> None:
    commander = Waiting(rig.log)
    ended: list[Outcome] = []
    commander.ended = ended.append  # type: ignore[attr-defined]
    rig.loop._commander = cast(Commander, commander)
    queue: asyncio.Queue[Input] = asyncio.Queue()
    running = asyncio.create_task(rig.loop.run(queue))

    def outcome() -> OutcomeInput:
        message = FakeMessage(rig.log, 2)
        message.stream = "commands"
        message.ack = lambda: _log(rig.log, "ack outcome")  # type: ignore[method-assign]
        item = Outcome(command_id=CommandId("c"), device="valve", resource="S", status="proven")
        return OutcomeInput(cast(StoredMessage, message), item)

    for _ in range(3):
        queue.put_nowait(sensor_event(rig, 18.0, 1))
        queue.put_nowait(outcome())
    await some_turns()
    assert (rig.log, len(ended), len(rig.loop._unfinished)) == (["give 1"], 1, 2)
    commander.answer(0)
    await some_turns()
    assert (rig.log[1:], len(rig.loop._unfinished)) == (["ack 1", "ack outcome"], 0)
    queue.put_nowait(outcome())  # it was on its way already
    await some_turns()
    assert (rig.log[3:], len(ended)) == (["ack outcome"], 1)
    anew = outcome()
    cast(FakeMessage, anew.message).time_ns += 1  # a broker made anew gives out its places again
    queue.put_nowait(anew)
    await some_turns()
    assert len(ended) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_waits_to_be_acknowledged_is_kept_without_its_payload(rig: Rig) -> None:
    rig.loop._commander = cast(Commander, Waiting(rig.log))
    queue: asyncio.Queue[Input] = asyncio.Queue()
    running = asyncio.create_task(rig.loop.run(queue))
    later = sensor_event(rig, 25.0, 2)
    stored = StoredMessage("s", b"payload", {"a": "b"}, "edgex-events", 2, 5)
    queue.put_nowait(sensor_event(rig, 18.0, 1))
    queue.put_nowait(EventInput(stored, later.event))
    await some_turns()
    kept = [item.message for item in rig.loop._unfinished.values()]
    assert kept[1] == StoredMessage("s", b"", {}, "edgex-events", 2, 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_places_that_are_finished_are_remembered_within_bounds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.agent.loop.KNOWN_FINISHED", 3)
    queue: asyncio.Queue[Input] = asyncio.Queue()
    running = asyncio.create_task(rig.loop.run(queue))
    for sequence in range(1, 10):
        queue.put_nowait(sensor_event(rig, 25.0, sequence))
    await some_turns()
    assert [place[1] for place in rig.loop._finished] == [7, 8, 9]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_wish_whose_command_got_lost_is_looked_at_again_without_news(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.agent.loop.LOOK_AGAIN_S", 0.0)
    commander, stored = Waiting(rig.log), 0
    rig.loop._commander = cast(Commander, commander)
    queue: asyncio.Queue[Input] = asyncio.Queue()

    async def store() -> None:
        nonlocal stored
        stored += 1
        if stored == 1:
            raise UnavailableError("nobody answers")
        queue.put_nowait(RuleInput(rig.message(100 + stored), {}))

    running = [asyncio.create_task(rig.loop.run(queue)), asyncio.create_task(rig.loop.look_again(store))]
    queue.put_nowait(sensor_event(rig, 18.0, 1))
    await some_turns()
    assert (rig.log, stored) == (["give 1"], 0)
    lost = Given(Intent("valve", "S", 21.0, "cold", "warm"), held_back="no answer", is_lost=True)
    commander.answers[0].set_result([lost])
    await some_turns()
    assert (rig.log, stored) == (["give 1", "ack 1", "give 102"], 2)
    commander.answer(1)
    await some_turns()
    assert (rig.log[3:], stored) == (["ack"], 2)
    again = rig.audit.records[-1]
    assert (again["device"], again["changed"], again["cause"]["sequence"]) == ("rule", {}, 102)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
