"""Records in words, whatever is in them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.cli.lines import LONGEST, WORDS, body_of, clean, in_words, line_of, shown, when
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import link

GIVEN = {"device": "valve", "resource": "S", "command": "", "held_back": ""}
INTENT = {"device": "valve", "resource": "S", "value": 21.5, "rule": "warm", "because": "it is cold"}


def record(kind: str, body: Any, time_ns: int = 1_700_000_000_123_000_000) -> AuditRecord:
    """Return a record of the guard."""
    return link(None, "guard", "i1", kind, {}, time_ns).model_copy(update={"body": json.dumps(body)})


@pytest.mark.parametrize(("kind", "body", "words"), [
    ("started", {"generation": 3, "site": "{}"}, "the guard started, generation 3"),
    ("started", {"agent": "air", "mode": "act", "rules": 5, "file": "{}"}, "agent air started, mode act, 5 rules"),
    ("started", {"agent": "air"}, "agent air started"),
    ("decision", {"intents": [INTENT], "given": [{**GIVEN, "command": "c1"}]},
     "valve/S → 21.5 (it is cold), command c1"),
    ("decision", {"decision": "d1", "intents": [INTENT], "given": [{**GIVEN, "held_back": "no lease"}]},
     "d1: valve/S → 21.5 (it is cold), held back: no lease"),
    ("decision", {"intents": [{**INTENT, "because": ""}], "given": []},
     "valve/S → 21.5, a command for it is under way"),
    ("lease", {"device": "valve", "resource": "S", "agent": "air", "generation": 1, "revision": 5, "reason": "free"},
     "valve/S to air, epoch 1.5: free"),
    ("lease", {"device": "valve", "resource": "S", "agent": "", "generation": 1, "revision": 6},
     "valve/S to nobody, epoch 1.6"),
    ("command", {"status": "proven", "device": "valve", "resource": "S", "value": "2.15e+01", "agent": "air",
                 "read_back": "2.15e+01", "approver": "eve", "reason": "", "command_id": "c1"},
     "proven: valve/S = 21.5 for air, read back 21.5, approved by eve (command c1)"),
    ("command", {"status": "refused", "device": "valve", "resource": "S", "value": "on", "agent": "air",
                 "read_back": None, "approver": "", "reason": "too hot", "command_id": "c1"},
     "refused: valve/S = on for air, too hot (command c1)"),
    ("approval", {"command": "c1", "approver": "eve", "decision": "deny", "reason": "no"}, "eve denied command c1: no"),
    ("approval", {"command": "c1", "refused": "not an approver's token"},
     "command c1: somebody tried to decide with not an approver's token"),
    ("consent", {"command": "c1", "decision": "carried", "members": ["heat", "save"], "quorum": 1,
                 "consented": ["heat"], "refused": {"save": "too dear"}, "silent": []},
     "heat consented; save refused: too dear: enough to let it pass, 1 of 2 needed (command c1)"),
    ("consent", {"command": "c1", "decision": "open", "members": ["heat"], "quorum": 1, "consented": [], "refused": {},
                 "silent": ["heat"]}, "heat was silent: not enough, 1 of 1 needed (command c1)"),
    ("consent-said", {"command": "c1", "device": "valve", "resource": "S", "value": "true", "of": "air",
                      "consents": False, "reason": "too cold"},
     "does not consent to valve/S = true for air: too cold (command c1)"),
    ("rejected", {"subject": "gw.commands.x.y", "sequence": 4, "cause": "not-json", "text": "bad"},
     "message 4 on gw.commands.x.y set aside, not-json: bad"),
    ("blocked", {"device": "valve", "reason": "no answer"}, "valve takes no command: no answer"),
    ("dropped", {"records": 3}, "3 records could not be stored in time and are missing"),
    ("quarantine", {"device": "valve", "reason": "no answer", "command": "c1"},
     "valve takes no command until its state is certain again: no answer"),
    ("released", {"device": "valve", "command": "c1"}, "valve takes commands again, its state is certain"),
    ("set-again", {"command": "c1", "correlation": "c1-2", "agent": "air"}, "command c1 for air is set again, as c1-2"),
    ("correction", {"device": "valve", "resource": "S", "value": "2e+01", "straggler": "1e+01", "correlation": "x"},
     "valve/S was set to 20 again, a straggler had made it 10"),
    ("late-effect", {"device": "valve", "resource": "S", "value": "true"},
     "valve/S became true: a command took effect late"),
    ("override", {"device": "valve", "resource": "S", "value": "2e+01", "since_site_s": 0.0, "until_site_s": 1800.0},
     "valve/S = 20 by somebody else: agents leave it alone until 1970-01-01 00:30:00.000, site time"),
    ("override-over", {"device": "valve", "resource": "S"}, "valve/S is the agents' again"),
    ("clock-step", {"by_s": -3.5}, "the wall clock was set by -3.500 s"),
    ("paused", {"scope": "device", "name": "valve", "approver": "eve", "reason": "repair"},
     "eve paused device valve: repair"),
    ("resumed", {"scope": "all", "name": "", "approver": "eve", "reason": ""}, "eve resumed all"),
    ("mode", {"agent": "air", "mode": "observe", "approver": "eve", "reason": ""}, "eve put air into mode observe"),
    ("vote", {"device": "valve", "resource": "S", "by": "somebody", "for_s": 1800.0},
     "valve/S by=somebody for_s=1800"),
    ("vote", {}, ""),
])  # fmt: skip
def test_each_kind_is_told_in_words_and_an_unknown_one_by_its_fields(kind: str, body: Any, words: str) -> None:
    assert in_words(kind, body) == words


ODD_BODIES: list[Any] = [
    {}, {"given": 5, "intents": 5}, {"given": [1], "intents": [1]}, [1], "text", None,
    {"device": "x", "value": 1, "until_site_s": 1e999, "by_s": 1e999},
]  # fmt: skip


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("body", ODD_BODIES)
def test_a_body_of_another_shape_is_shown_as_it_is(kind: str, body: Any) -> None:
    assert "2023-11-14 22:13:20.123  guard" in line_of(record(kind, body)).plain


@given(st.text(), st.text(), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["device", "intents", "given", "status", "value", "reason", "generation", "cause"]), inner,
    ),
))  # fmt: skip
def test_no_record_moves_the_cursor_or_ends_the_program(kind: str, writer: str, body: Any) -> None:
    line = line_of(record(kind, body).model_copy(update={"writer": writer})).plain
    assert line.isprintable()


def test_colours_of_a_terminal_in_a_record_stay_letters() -> None:
    line = line_of(record("override", {"device": "\x1b[31mvalve\r\n", "by": "[bold]x[/]"}))
    assert "·[31mvalve·· by=[bold]x[/]" in line.plain


def test_long_texts_end() -> None:
    assert len(clean("x" * 5000)) == LONGEST
    assert clean("x" * LONGEST) == "x" * LONGEST


@pytest.mark.parametrize(("value", "text"), [
    (True, "true"), (21.5, "21.5"), (21, "21"), ("2.15e+01", "21.5"), ("0e+00", "0"), ("e5", "e5"), (None, "None"),
    ("1.7976931348623157e+308", "1.79769e+308"), ("1e+999", "inf"), ("[1, 2]", "[1, 2]"), ("...e+1", "...e+1"),
])  # fmt: skip
def test_values_are_shown_as_people_write_them(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("time_ns", [-(10**30), 10**30, 2**63 - 1])
def test_a_time_that_is_none_is_said_to_be_none(time_ns: int) -> None:
    assert when(time_ns).strip()


def test_a_body_that_is_no_object_reads_as_text() -> None:
    assert body_of(record("x", [1])) == {"text": "[1]"}
    assert body_of(record("x", {}).model_copy(update={"body": "{"})) == {"text": "{"}
