"""`edgeagents why`: the whole story of a command, a device or an agent, from the audit alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeagents.cli.history import History
from edgeagents.cli.why import answer
from edgeagents.errors import NotFoundError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import link
from services.agent.record import started_body
from tests.audit_files import export_of
from tests.unit.cli.command import run

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
AGENT = AgentDefinition.model_validate({
    "name": "comfort", "mode": "act", "watches": [{"device": "*"}],
    "rules": [{
        "name": "occupied-{room}", "for_each": {"room": ["office", "living"]},
        "given": {"present": "sensor-{room}/Presence", "t": {"of": "sensor-{room}/T", "over": "15m", "take": "mean"}},
        "when": "present &&\n t < 21.0", "set": {"device": "radiator-{room}", "resource": "Setpoint", "value": 21.5},
    }],
})  # fmt: skip
PLACE = {"device": "radiator-living", "resource": "Setpoint"}
COMMAND, DECISION = "c1c1c1c1-0000", "d1d1d1d1-0000"


class Story:
    """Chains of the guard and an agent, in order."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.newest: dict[str, AuditRecord] = {}

    def add(self, writer: str, kind: str, **body: Any) -> "Story":
        """Add a record, one second after the one before."""
        time_ns = START_NS + len(self.records) * SECOND_NS
        self.newest[writer] = link(self.newest.get(writer), writer, f"{writer}-1", kind, body, time_ns)
        self.records.append(self.newest[writer])
        return self

    def decided(self, *, decision: str = DECISION, command: str = COMMAND, held_back: str = "", **more: Any) -> "Story":
        """Add comfort's decision."""
        given = {**PLACE, "command": command, "held_back": held_back}
        body = {
            "agent": "comfort", "decision": decision, "stage": "rule", "confidence": 1.0, "device": "sensor-living",
            "cause": {"stream": "edgex-events", "sequence": 812, "event_id": "e-9", "origin_ns": START_NS},
            "changed": {"Presence": [True, START_NS, 5.0]}, "model": "",
            "inputs": {"occupied-living.present": True, "occupied-living.t": 19.25, "other.x": 3},
            "intents": [{**PLACE, "value": 21.5, "rule": "occupied-living", "because": "somebody is in the living"}],
            "given": [given], "view": {"latest": [], "recent": []}, **more,
        }  # fmt: skip
        return self.add("comfort", "decision", **body)

    def lease(self, agent: str, revision: int, reason: str = "free") -> "Story":
        """Add a lease."""
        return self.add("guard", "lease", **PLACE, agent=agent, generation=1, revision=revision, reason=reason)

    def ended(self, status: str = "proven", **more: Any) -> "Story":
        """Add how the command ended."""
        body = {
            **PLACE, "command_id": COMMAND, "agent": "comfort", "status": status, "value": "2.15e+01", "reason": "",
            "read_back": "2.15e+01", "epoch": {"generation": 1, "revision": 7}, "approver": "", "decision": DECISION,
            "because": "somebody is in the living", **more,
        }  # fmt: skip
        return self.add("guard", "command", **body)

    def why(self, subject: str, last: int = 8) -> list[str]:
        """Return the answer's lines."""
        history = History()
        for record in self.records:
            history.take(record)
        return [line.plain.rstrip() for line in answer(history, subject, last)]


def whole() -> Story:
    """Return a command from its event to its proof, its lease taken over, approved by a human."""
    story = Story().add("comfort", "started", **started_body(AGENT)).lease("energy", 5)
    story.lease("comfort", 7, "it matters more").decided()
    story.add("guard", "approval", command=COMMAND, approver="eve", decision="approve", reason="go on")
    return story.ended(approver="eve")


def test_a_commands_whole_story_is_told() -> None:
    assert whole().why(COMMAND) == [
        "command    c1c1c1c1-0000",
        "wanted     comfort: radiator-living/Setpoint = 21.5",
        "decision   d1d1d1d1-0000",
        "event      sensor-living reported Presence = true, measured 2023-11-14 22:13:20.000"
        " (message 812 of edgex-events, event e-9)",
        "because    somebody is in the living",
        "rule       occupied-living: when present && t < 21.0 (confidence 1)",
        "inputs     present = true (sensor-living/Presence), t = 19.25 (mean of sensor-living/T over 900 s)",
        "gate       the guard let it pass",
        "approval   2023-11-14 22:13:24.000 eve approved command c1c1c1c1-0000: go on",
        "lease      2023-11-14 22:13:22.000 radiator-living/Setpoint to comfort, epoch 1.7: it matters more;"
        " taken over from energy",
        "approver   eve",
        "outcome    proven: radiator-living/Setpoint read back as 21.5; 2.000 s after the decision",
    ]


def test_the_first_characters_of_an_id_are_enough_if_they_are_one_ids() -> None:
    assert whole().why(COMMAND[:6]) == whole().why(COMMAND)
    other = whole().decided(decision="c1c1c1c1-9999", command="x")
    with pytest.raises(NotFoundError, match="may be c1c1c1c1-0000, c1c1c1c1-9999: write more of it"):
        other.why("c1c1c1c1")
    assert other.why(COMMAND)[0] == "command    c1c1c1c1-0000"


def test_a_decision_that_was_held_back_says_by_what() -> None:
    lines = Story().decided(command="", held_back="no lease").why(DECISION)
    assert "held back: no lease" in lines[0]
    assert "held back  by comfort itself: no lease" in lines
    assert "rule       occupied-living (confidence 1)" in lines  # the agent's file is not there


def test_a_wish_that_was_under_way_became_nothing() -> None:
    assert "became     nothing: a command for the same was under way" in Story().decided(given=[]).why(DECISION)


def test_a_models_decision_names_the_model() -> None:
    lines = Story().decided(stage="policy-model", model="abc123", inputs={"t": 1.5}).why(DECISION)
    assert "decided by policy-model abc123, confidence 1" in lines
    assert "inputs     t = 1.5" in lines


@pytest.mark.parametrize(("status", "reason", "says"), [
    ("refused", "interlock 'window'", "gate       the guard refused it: interlock 'window'"),
    ("expired", "received 12.0 s later", "gate       it came too late: received 12.0 s later"),
    ("failed", "no such device", "gate       the guard let it pass"),
])  # fmt: skip
def test_the_gates_word_is_told(status: str, reason: str, says: str) -> None:
    assert says in Story().decided().ended(status, reason=reason, read_back=None).why(COMMAND)


def test_a_quarantine_on_its_way_is_part_of_a_commands_story() -> None:
    story = Story().decided().add("guard", "quarantine", device="radiator-living", reason="no answer", command=COMMAND)
    lines = story.add("guard", "released", device="radiator-living", command=COMMAND).ended().why(COMMAND)
    told = [line.split()[0] for line in lines]
    assert told.index("quarantine") < told.index("released") < told.index("outcome")


def test_who_held_the_resource_before_is_told() -> None:
    assert "held by nobody before" in " ".join(Story().lease("comfort", 7).ended().why(COMMAND))
    assert "; its own before" in " ".join(Story().lease("comfort", 3).lease("comfort", 7).ended().why(COMMAND))
    assert "epoch 1.7: the audit has no record of it" in " ".join(Story().ended().why(COMMAND))
    assert "epoch unknown: the audit" in " ".join(Story().ended(epoch=None).why(COMMAND))


def test_a_command_without_its_decision_or_without_its_outcome_is_told_as_far_as_it_goes() -> None:
    assert f"decision   {DECISION}: the audit has no record of it" in Story().ended().why(COMMAND)
    assert Story().decided().why(COMMAND)[-1] == "outcome    the guard has not written down any"


def test_what_happened_to_a_device_lately_is_told_with_what_concerns_all_of_it() -> None:
    story = whole().add("guard", "blocked", device="radiator-living", reason="no answer").add("guard", "paused")
    story.add("guard", "override", device="radiator-living", resource="Setpoint", by="a wall switch")
    for subject in ("radiator-living", "radiator-living/Setpoint"):
        lines = story.why(subject, 3)
        assert lines[0] == f"what happened to {subject} (3 older ones left out)"
        assert [line.split()[3] for line in lines[1:]] == ["command", "blocked", "override"]
        assert len(story.why(subject, 100)) == 7
    assert [line.split()[3] for line in story.why("radiator-living/Opening")[1:]] == ["blocked"]


def test_of_a_decision_on_many_devices_a_device_is_told_its_own_part() -> None:
    other = {"device": "lamp", "resource": "Power", "value": True, "rule": "dark", "because": "it is dark"}
    mine = {**PLACE, "value": 21.5, "rule": "occupied-living", "because": "somebody is there"}
    story = Story().decided(intents=[other, mine])
    (line,) = story.why("lamp/Power")[1:]
    assert line.endswith(f"{DECISION}: lamp/Power → true (it is dark), a command for it is under way")
    assert "lamp" in story.why("comfort")[1]


def test_an_agents_last_decisions_are_told() -> None:
    story = whole()
    for number in range(3):
        story.decided(decision=f"more-{number}", command=f"c-{number}")
    lines = story.why("comfort", 2)
    assert lines[0] == "what comfort decided (2 older ones left out)"
    assert [line.split()[4] for line in lines[1:]] == ["more-1:", "more-2:"]  # what `replay` takes
    assert story.why("guard", 1)[0] == "what guard wrote down (3 older ones left out)"


def test_a_device_with_an_agents_name_is_both() -> None:
    story = whole().add("guard", "blocked", device="comfort", reason="no answer")
    lines = story.why("comfort")
    assert [line for line in lines if line.startswith("what ")] == ["what happened to comfort", "what comfort decided"]


@pytest.mark.parametrize("subject", ["", "none", "/", "radiator-living/None", "c1", "[/x]"])
def test_what_the_audit_does_not_know_is_said(subject: str) -> None:
    with pytest.raises(NotFoundError, match="knows no command, decision, device or agent"):
        whole().why(subject)


ODD_FILE = '{"rules": [{"name": "occupied-living", "given": {"t": {}}}]}'
ODD: list[Callable[[Story], Story]] = [
    lambda story: story.decided(inputs=5, changed=[1], cause=7, confidence=None),
    lambda story: story.decided(intents=[{"device": 5}], given="x"),
    lambda story: story.add("comfort", "started", file="[").decided(),
    lambda story: story.add(
        "comfort", "started", file='{"rules": [{"name": "occupied-living", "given": {"t": {}}}]}'
    ).decided(),
    lambda story: story.ended(epoch=[1], value=None),
]


@pytest.mark.parametrize("odd", ODD)
def test_records_of_another_shape_end_no_answer(odd: Callable[[Story], Story]) -> None:
    story = odd(Story())
    assert story.why(story.records[-1].writer)
    for subject in (DECISION, COMMAND):
        try:
            assert story.why(subject)
        except NotFoundError:
            continue


def test_an_audit_that_is_not_whole_answers_and_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = export_of(tmp_path / "a.jsonl", whole().records)
    assert run(capsys, "why", COMMAND, "--file", path).code == 0
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    done = run(capsys, "why", COMMAND, "--file", path)
    assert done.code == 1
    assert "outcome    proven" in done.out
    assert "the audit is not whole" in done.err
    assert run(capsys, "why", "nobody", "--file", path).code == 1
