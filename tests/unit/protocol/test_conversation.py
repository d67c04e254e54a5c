"""What is not listened to, and why; older agents beside newer ones."""

import json
import math

import pytest

from edgeagents.adapters import wire
from edgeagents.errors import MalformedMessageError
from edgeagents.model.cooperation import PERFORMATIVES, VERSION, Act, Bid, CallForProposals
from edgeagents.pb import cooperation_pb2
from edgeagents.protocol.conversation import (
    Heard,
    Refuse,
    Tell,
    act,
    admitted,
    answered,
    is_duration,
    is_over,
    is_time,
    objection,
)

BID = act("propose", "t-1", bid=Bid(cost=2.0))


def heard(said: Act, sender: str = "anna") -> Heard:
    return Heard(sender, said, 1.0)


@pytest.mark.parametrize("performative", PERFORMATIVES)
def test_every_performative_of_fipa_is_listened_to(performative: str) -> None:
    said = act("cfp", "t-1").model_copy(update={"performative": performative})
    assert objection(heard(said), "t-1", ("anna",)) is None


@pytest.mark.parametrize(
    ("change", "sender", "cause"),
    [
        ({"performative": "shout"}, "anna", "unknown-performative"),
        ({"needs": VERSION + 1}, "anna", "newer-version"),
        ({"conversation": "t-2"}, "anna", "other-conversation"),
        ({}, "mallory", "not-invited"),
    ],
)
def test_what_cannot_be_listened_to_is_refused_with_its_reason(change: dict, sender: str, cause: str) -> None:
    refused = objection(heard(BID.model_copy(update=change), sender), "t-1", ("anna",))
    assert refused is not None
    assert (refused.cause, refused.sender) == (cause, sender)
    assert refused.text


def test_what_was_not_understood_is_answered_and_the_answer_is_not() -> None:
    unknown = heard(BID.model_copy(update={"performative": "shout"}))
    refused = objection(unknown, "t-1", ("anna",))
    assert refused is not None
    tell, counted = answered(refused, unknown)
    assert isinstance(tell, Tell)
    assert (tell.to, tell.act.performative, counted) == ("anna", "not-understood", refused)
    back = heard(act("not-understood", "t-1").model_copy(update={"needs": 99}))
    assert answered(refused, back) == [refused], "two that do not understand each other would never end"


def test_an_older_agent_understands_a_newer_one_that_only_added_fields() -> None:
    newer = BID.model_copy(update={"version": VERSION + 3})
    data = wire.encode(newer) + b"\xfa\x3e\x03new"  # field 1007, a string
    assert wire.decode(Act, data) == newer
    body = json.loads(wire.encode(newer, wire.JSON)) | {"mood": "calm"}
    body["bid"]["currency"] = "EUR"
    found = wire.decode(Act, json.dumps(body).encode(), wire.JSON)
    assert found == newer
    assert objection(heard(found), "t-1", ("anna",)) is None


@pytest.mark.parametrize(
    "content",
    [
        {"performative": "inform", "report": {"task": "t-1", "epoch": 1, "status": "partial"}},
        {"performative": "query/if"},
        {"performative": "propose", "bid": {"cost": -5.0}},
    ],
)
@pytest.mark.parametrize("content_type", [wire.PROTOBUF, wire.JSON])
def test_a_newer_act_whose_content_is_none_here_is_answered(content: dict, content_type: str) -> None:
    body = {"version": VERSION + 1, "conversation": "t-1", **content}
    for needs in (VERSION + 1, VERSION):
        pb = cooperation_pb2.Act(needs=needs, **body)
        text = json.dumps(body | {"needs": needs}).encode()
        data = text if content_type == wire.JSON else pb.SerializeToString()
        if needs == VERSION:
            with pytest.raises(MalformedMessageError):
                wire.decode(Act, data, content_type)
            continue
        came = heard(wire.decode(Act, data, content_type))
        refused = objection(came, "t-1", ("anna",))
        assert refused is not None
        assert refused.cause == "newer-version"
        assert [tell.act.performative for tell in answered(refused, came) if isinstance(tell, Tell)] == [
            "not-understood"
        ]


def test_what_a_newer_one_did_not_understand_is_not_answered_though_it_says_so_in_new_words() -> None:
    pb = cooperation_pb2.Act(needs=9, performative="not-understood", conversation="t-1", reply_by_s=-1.0)
    came = heard(wire.decode(Act, pb.SerializeToString()))
    refused = objection(came, "t-1", ("anna",))
    assert refused is not None
    assert answered(refused, came) == [refused]


def test_a_newer_act_of_no_conversation_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        wire.decode(Act, cooperation_pb2.Act(needs=9, performative="inform").SerializeToString())


def test_an_act_of_an_agent_before_versions_is_understood() -> None:
    older = cooperation_pb2.Act(performative="propose", conversation="t-1", bid={"cost": 1.0}).SerializeToString()
    assert objection(heard(wire.decode(Act, older)), "t-1", ("anna",)) is None


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-Infinity", -1, 1e10])
def test_a_cost_that_is_none_does_not_come_off_the_wire(cost: object) -> None:
    body = {"performative": "propose", "conversation": "t-1", "bid": {"cost": cost}}
    with pytest.raises(MalformedMessageError, match=r"Act.bid.cost") as caught:
        wire.decode(Act, json.dumps(body).encode(), wire.JSON)
    assert caught.value.cause_kind == "out-of-contract"


def test_a_timer_that_fires_a_rounding_too_early_counts() -> None:
    now_s = 1.2000000000000002
    fires_s = now_s + (12.1 - now_s)
    assert is_over(min(fires_s, math.nextafter(12.1, 0)), 12.1)
    assert not is_over(12.0, 12.1)


def test_json_reads_as_a_person_would_write_it() -> None:
    body = b'{"performative": "cfp", "conversation": "t-1", "replyByS": 2, "call": {"task": "t-1", "skill": "light"}}'
    call = CallForProposals(task="t-1", skill="light")
    assert wire.decode(Act, body, wire.JSON) == Act(performative="cfp", conversation="t-1", reply_by_s=2.0, call=call)


def test_acts_are_counted_before_they_are_looked_at_and_answered_below_the_limit_alone() -> None:
    shout = heard(BID.model_copy(update={"performative": "shout"}))
    counts: dict[str, int] = {}
    told = 0
    for _ in range(10):
        counts, refused = admitted(shout, "t-1", ("anna",), counts, most=3)  # type: ignore[assignment]
        told += sum(isinstance(effect, Tell) for effect in refused)
    assert (counts, told) == ({"anna": 3}, 3)
    assert [effect.cause for effect in refused if isinstance(effect, Refuse)] == ["too-many"]
    assert admitted(heard(BID), "t-1", ("anna",), {"anna": 2}, most=3) == ({"anna": 3}, [])


def test_a_stranger_is_neither_answered_nor_kept_count_of() -> None:
    for said in (BID, BID.model_copy(update={"performative": "shout"}), BID.model_copy(update={"needs": 9})):
        counts, refused = admitted(heard(said, "mallory"), "t-1", ("anna",), {"anna": 1})
        assert counts == {"anna": 1}
        assert [(type(effect), effect.cause) for effect in refused if isinstance(effect, Refuse)] == [
            (Refuse, "not-invited")
        ]
        assert len(refused) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400), "1", None, True])
def test_what_is_no_number_is_neither_a_time_nor_a_duration(value: object) -> None:
    assert not is_time(value)
    assert not is_duration(value)


def test_durations_are_above_nothing_and_a_day_at_most() -> None:
    assert [value for value in (-1.0, 0, 1e-9, 1, 86_400, 86_400.1) if is_duration(value)] == [1e-9, 1, 86_400]
    assert [value for value in (-1000, 1.8e9, 1e18) if is_time(value)] == [-1000, 1.8e9]
