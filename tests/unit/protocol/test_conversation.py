"""What is not listened to, and why; older agents beside newer ones."""

import json
import math

import pytest

from edgeagents.adapters import wire
from edgeagents.errors import MalformedMessageError
from edgeagents.model.cooperation import PERFORMATIVES, VERSION, Act, Bid, CallForProposals
from edgeagents.pb import cooperation_pb2
from edgeagents.protocol.conversation import Heard, Tell, act, answered, is_over, objection

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
