"""A decision's record carries all it rests on: made again from it alone it is the same; what was changed shows."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.audit import MAX_BODY_BYTES
from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition, Observation, Sample
from edgeagents.model.message import AuditRecord, Cause
from edgeagents.model.values import Value
from edgeagents.protocol.chains import link
from edgeagents.settings import SiteTime
from services.agent.commands import Given
from services.agent.decision import decide, stages_of
from services.agent.perception import Twin
from services.agent.record import MAX_VIEW_BYTES, decision_body, definition_of, observation_of, started_body
from services.agent.replay import Replayed, Replayer, main
from services.agent.rules import RuleBook
from services.agent.view import SeenView
from tests.audit_files import export_of
from tests.unit.services.agent.test_view import values

NOON_S = 12 * 3600.0
# Names are not in the order of the alphabet, and the order matters: the first missing reading ends a rule, and the
# first rule for a resource counts.
AGENT = AgentDefinition.model_validate({
    "name": "a", "mode": "act", "watches": [{"device": "*"}], "goals": {"zero": 0, "low": 20.0},
    "rules": [
        {"name": "warm-{z}-{a}", "for_each": {"z": ["x", "b"], "a": ["T", "U"]},
         "given": {"z": "{z}/{a}", "a": "{z}/S"}, "when": "z < goals.low", "confidence": 0.9,
         "set": {"device": "valve-{z}", "resource": "S", "value": "=z + 0.1"}, "because": "{z} is below {a}"},
        {"name": "lately", "given": {"t": {"of": "x/T", "over": "1h", "take": "mean"}, "p": "x/S"}, "when": "t > 0.1",
         "set": {"device": "fan", "resource": "S", "value": 3}},
        {"name": "night", "when": "time.hour >= 22.0", "set": {"device": "fan", "resource": "S", "value": 1}},
    ],
})  # fmt: skip
KEYS = [("x", "T"), ("x", "U"), ("b", "T"), ("b", "U"), ("x", "S"), ("b", "S"), ("valve-x", "S"), ("fan", "S")]
RULES = RuleBook(AGENT, "a.yaml")


def started(agent: AgentDefinition = AGENT) -> AuditRecord:
    """Return the record an agent begins with."""
    return link(None, agent.name, "i1", "started", started_body(agent), 1)


def decision_on(readings: dict[tuple[str, str], list[Value]], site_s: float = NOON_S) -> dict[str, Any] | None:
    """Return the body of a decision's record on a twin that got these readings, None when nothing is decided."""
    twin = Twin(SiteTime(), RULES.keys, 7200)
    for key, many in readings.items():
        for index, value in enumerate(many):
            twin.set_value(key, value, 1000 + index, site_s - 60.0 / (index + 1))
    cause = Cause(stream="edgex-events", sequence=7, event_id="e7", origin_ns=1005)
    observation = Observation(cause, "x", {"T": Sample(1.5, 1005, site_s)}, site_s)
    stages, seen = stages_of(AGENT, RULES), SeenView(twin)
    decision = decide(observation, seen, stages)
    if decision is None:
        return None
    given = [Given(intent, command_id=f"c{index}") for index, intent in enumerate(decision.intents)]
    return decision_body("a", "act", observation, decision, given, [stage.name for stage in stages], seen)


def replayed(body: dict[str, Any], start: AuditRecord | None = None) -> Replayed:
    """Return what comes of a decision's record, read back from its text."""
    start = start or started()
    replayer = Replayer()
    assert replayer.take(start) is None
    found = replayer.take(link(start, "a", "i1", "decision", body, 2))
    assert found is not None
    return found


def cold() -> dict[str, Any]:
    """Return a decision: it is cold in x, and was above zero lately."""
    body = decision_on({("x", "T"): [18.3, 18.1], ("x", "S"): [4], ("b", "T"): [25.0]})
    assert body is not None
    return body


def test_a_decision_made_again_is_the_same() -> None:
    body = cold()
    assert [intent["rule"] for intent in body["intents"]] == ["warm-x-T", "lately"]
    found = replayed(body)
    assert (found.is_equal, found.differences, found.missing) == (True, (), "")


@given(
    readings=st.dictionaries(st.sampled_from(KEYS), st.lists(values, min_size=1, max_size=3)), site_s=st.floats(0, 1e9)
)
def test_whatever_the_readings_a_decision_made_again_is_the_same(
    readings: dict[tuple[str, str], list[Value]], site_s: float
) -> None:
    body = decision_on(readings, site_s)
    if body is not None:
        assert str(replayed(body)).endswith(": ")
        assert replayed(body).is_equal


def edit(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what changes fields of a body."""
    return lambda body: {**body, **changes}


def colder(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body whose view has a reading that is the next double."""
    view = json.loads(json.dumps(body["view"]).replace("18.1", repr(math.nextafter(18.1, 19.0))))
    assert view != body["view"]
    return {**body, "view": view}


@pytest.mark.parametrize(("change", "says"), [
    (edit(confidence=0.91), "confidence was 0.91, is 0.9"),
    (edit(decision="other"), "decision was \"other\", is "),
    (edit(stage="policy-model"), 'stage was "policy-model", is "rule"'),
    (edit(data_origin_ns=5), "data_origin_ns was 5, is 1000"),
    (edit(model="abc"), 'model was "abc", is ""'),
    (edit(inputs={}), "inputs was {}, is "),
    (edit(intents=[]), "intents was [], is "),
    (edit(site_s=NOON_S + 0.5), "looks at something else now: the decision did not look at the mean of x/T"),
    (edit(view={"latest": [], "recent": []}), "looks at something else now: the decision did not look at x/T"),
    (edit(stages=[]), "decides nothing now"),
    (edit(cause={"stream": "edgex-events", "sequence": 8, "event_id": "e7"}), "decision was "),
    (colder, "inputs was "),
])  # fmt: skip
def test_what_is_not_the_same_is_named(change: Callable[[dict[str, Any]], dict[str, Any]], says: str) -> None:
    found = replayed(change(cold()))
    assert any(text.startswith(says) for text in found.differences), found.differences
    assert str(found).startswith(f"a i1 #1, decision {found.decision}: ")


def test_another_file_gives_another_decision_and_the_versions_are_told() -> None:
    other = AGENT.model_copy(update={"goals": {"zero": 0.0, "low": 10.0}})
    start = started(other)
    start = start.model_copy(update={"body": start.body.replace('"version":"', '"version":"9')})
    differences = replayed(cold(), start).differences
    assert differences
    assert all("(decided by version 9" in text for text in differences)


@pytest.mark.parametrize(("change", "says"), [
    (edit(view=None), "written before views were kept"),
    (edit(view={"left_out_bytes": 1, "sha256": ""}), "too large to be kept"),
    (edit(view={"latest": 1, "recent": []}), "view cannot be read"),
    (edit(changed={"T": [1]}), "samples cannot be read"),
    (edit(changed={"T": 1}), "samples cannot be read"),
    (edit(cause={}), "the record cannot be read"),
    (edit(site_s="noon"), "the record cannot be read"),
    (edit(stages=7), "its values cannot be used"),
    (edit(site_s=1e300), "its values cannot be used"),
])  # fmt: skip
def test_a_record_that_does_not_carry_what_is_needed_is_no_success(
    change: Callable[[dict[str, Any]], dict[str, Any]], says: str
) -> None:
    found = replayed(change(cold()))
    assert not found.is_equal
    assert says in found.missing


def test_a_chain_without_its_start_or_with_a_wrong_file_cannot_be_replayed() -> None:
    record = link(None, "a", "i1", "decision", cold(), 2)
    found = Replayer().take(record)
    assert found is not None
    assert "its `started` record is not there" in found.missing.replace("the chain's", "its")
    for body in ({}, {"file": "{}"}, {"file": "["}, {"file_deflated": "AAAA"}, {"file": 5}, {"too_large": 1}):
        assert "cannot be read" in replayed(cold(), link(None, "a", "i1", "started", body, 1)).missing
    broken = AGENT.model_copy(update={"rules": (AGENT.rules[0].model_copy(update={"when": "z <"}),)})
    assert "rules[0]" in replayed(cold(), started(broken)).missing


def test_other_records_and_other_decisions_are_passed_over() -> None:
    start, body = started(), cold()
    record = link(start, "a", "i1", "decision", body, 2)
    for only, comes in ((body["decision"], True), ("other", False)):
        replayer = Replayer(only)
        assert replayer.take(start) is None
        assert replayer.take(link(start, "a", "i1", "command", {}, 2)) is None
        assert (replayer.take(record) is not None) is comes


def test_an_agent_file_reads_back_in_its_own_order_short_or_long() -> None:
    rules = tuple(AGENT.rules[0].model_copy(update={"name": f"rule-{number}-{{z}}-{{a}}"}) for number in range(300))
    for agent in (AGENT, AGENT.model_copy(update={"rules": rules})):
        record = started(agent)
        assert len(record.body) < MAX_BODY_BYTES
        again = definition_of(json.loads(record.body))
        assert again == agent
        assert list(again.rules[0].given) == ["z", "a"]
        assert list(again.rules[0].for_each) == ["z", "a"]


def test_a_file_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tuple(AGENT.rules[0].model_copy(update={"name": f"rule-{number}-{{z}}-{{a}}"}) for number in range(300))
    body = started_body(AGENT.model_copy(update={"rules": rules}))
    monkeypatch.setattr("services.agent.record.MAX_INFLATED_BYTES", 1000)
    with pytest.raises(InvalidInputError, match="inflates to more than 1000 bytes"):
        definition_of(body)


def test_a_view_that_is_too_large_is_left_out_and_said_to_be() -> None:
    body = decision_on({("x", "T"): [18.0], ("x", "S"): ["long" * MAX_VIEW_BYTES]})
    assert body is not None
    assert body["view"]["left_out_bytes"] > MAX_VIEW_BYTES
    with pytest.raises(InvalidInputError, match="too large to be kept"):
        observation_of(body)


class TestCommand:
    """`python -m services.agent --replay`."""

    def write(self, path: Path, *bodies: dict[str, Any]) -> Path:
        """Write an export of one chain with these decisions."""
        records = [started()]
        for body in bodies:
            records.append(link(records[-1], "a", "i1", "decision", body, 2))
        return export_of(path, records)

    def test_all_that_is_equal_is_counted(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.write(tmp_path / "a.jsonl", cold(), cold())
        assert main(["--replay=all", "--file", str(path), "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "2 equal of 2"
        assert json.loads(lines[1]) == {"decisions": 2, "equal": 2, "problems": [], "different": []}

    def test_a_difference_is_named_and_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.write(tmp_path / "a.jsonl", cold(), {**cold(), "confidence": 0.5})
        assert main(["--replay", cold()["decision"], "--file", str(path)]) == 1
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith("a i1 #2, decision ")
        assert last == "1 equal of 2"

    def test_many_differences_are_cut_short(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.write(tmp_path / "a.jsonl", *[{**cold(), "confidence": 0.5}] * 25)
        assert main(["--replay=all", "--file", str(path)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert (len(lines), lines[20:]) == (22, ["… and 5 more", "0 equal of 25"])

    def test_equal_decisions_of_a_chain_that_is_not_whole_are_no_success(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.write(tmp_path / "a.jsonl", cold(), cold())
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([lines[0], *lines[2:]]))
        assert main(["--replay=all", "--file", str(path)]) == 1
        assert "the chains are not whole" in capsys.readouterr().out

    def test_nothing_to_replay_is_an_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.write(tmp_path / "a.jsonl", cold())
        assert main(["--replay=none", "--file", str(path)]) == 2
        assert "holds no decision none" in capsys.readouterr().err
        assert main(["--replay=all", "--file", str(tmp_path / "nowhere")]) == 2
        assert "does the file exist" in capsys.readouterr().err
