"""Whose consent counts for a class B command, and when there are enough."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device
from edgeagents.model.site import ResourceRule, Site
from edgeagents.protocol.consent import Poll, holds, members_of, poll_of, said
from edgeagents.protocol.gate import Rules

KEY = ("valve", "Open")
LOCK = {
    "name": "one-open", "forbid": {"device": "valve", "resource": "Open", "equals": True},
    "during": {"device": "pump", "resource": "Run", "equals": True},
}  # fmt: skip


def agent(name: str, *may: tuple[str, str], mode: str = "act") -> AgentDefinition:
    """Return an agent that may set these resources."""
    return AgentDefinition.model_validate({
        "name": name, "mode": mode, "watches": [{"device": "*"}],
        "may": [{"device": device, "resource": resource} for device, resource in may],
    })  # fmt: skip


def rules_of(agents: Sequence[AgentDefinition], interlocks: Sequence[Any] = ()) -> Rules:
    """Return what the owner wrote."""
    site = Site.model_validate({"interlocks": list(interlocks)})
    devices = {name: Device(name=name, profile_name="P") for name in ("valve", "pump", "fan")}
    return Rules(site, {item.name: item for item in agents}, devices, {})


def rule(**changes: Any) -> ResourceRule:
    """Return what site.yaml says on the valve."""
    return ResourceRule.model_validate({"device": "valve", "resource": "Open", "risk_class": "B", **changes})


def test_the_others_that_may_set_it_are_asked_and_the_proposer_is_not() -> None:
    rules = rules_of([
        agent("air", KEY), agent("heat", KEY), agent("eye", KEY, mode="observe"), agent("fan", ("fan", "Open")),
        agent("save", ("valve", "Setpoint")), agent("any", ("*", "Open")),
    ])  # fmt: skip
    assert members_of(rule(), rules, KEY, "air") == ("any", "heat")
    assert poll_of(rule(), rules, KEY, "air").quorum == 2
    assert poll_of(rule(quorum=1), rules, KEY, "air").quorum == 1


def test_while_a_file_cannot_be_read_only_those_carry_it_whom_the_owner_named_or_counted() -> None:
    """It may be the file of one more whose consent is wanted: `fan`."""
    rules = replace(rules_of([agent("air", KEY), agent("heat", KEY)]), has_unread=True)
    for wanted, is_carried in ((rule(), False), (rule(quorum=1), True), (rule(affected=["heat"]), True)):
        assert holds(["heat"], wanted, rules, KEY, "air") is is_carried
        assert holds(["heat"], wanted, replace(rules, has_unread=False), KEY, "air")
    poll, _ = said(poll_of(rule(), rules, KEY, "air"), "heat", yes=True, reason="")
    assert not poll.is_carried
    assert not holds(["heat"], rule(affected=["fan", "heat"]), rules, KEY, "air"), "whom he named is not there"


def test_who_may_set_only_what_an_interlock_ties_to_it_is_not_asked_since_the_gate_holds_interlocks() -> None:
    agents = [agent("air", KEY), agent("water", ("pump", "Run")), agent("fan", ("fan", "Open"))]
    poll = poll_of(rule(), rules_of(agents, [LOCK]), KEY, "air")
    assert (poll.members, poll.is_carried) == ((), False)
    assert members_of(rule(affected=["water"]), rules_of(agents, [LOCK]), KEY, "air") == ("water",)
    assert members_of(rule(), rules_of(agents), ("gone", "Open"), "air") == ()


def test_whom_the_owner_names_is_asked_and_nobody_else_there_or_not() -> None:
    rules = rules_of([agent("air", KEY), agent("heat", KEY)])
    named = rule(affected=["gone", "air", "gone"])
    assert members_of(named, rules, KEY, "air") == ("gone",)
    assert poll_of(named, rules, KEY, "heat").quorum == 2


def test_enough_consents_carry_and_silence_never_does() -> None:
    poll = Poll(("heat", "save", "air"), 2)
    assert not poll.is_carried
    poll, problem = said(poll, "heat", yes=True, reason="")
    assert (problem, poll.is_carried, poll.silent) == ("", False, ("save", "air"))
    poll, problem = said(poll, "save", yes=True, reason="")
    assert (problem, poll.is_carried) == ("", True)


def test_where_nobody_is_concerned_nobody_can_consent() -> None:
    poll = poll_of(rule(), rules_of([agent("air", KEY)]), KEY, "air")
    assert (poll.members, poll.is_carried) == ((), False)
    assert said(poll, "air", yes=True, reason="")[1] == "stranger"


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", "x", "me"]), st.booleans()), max_size=20), st.integers(1, 4)
)  # fmt: skip
def test_only_first_words_of_members_count_whatever_is_said_how_often(
    words: list[tuple[str, bool]], quorum: int
) -> None:
    poll, first = Poll(("a", "b", "c"), quorum), dict[str, bool]()
    for name, yes in words:
        before = poll
        poll, problem = said(poll, name, yes=yes, reason="no")
        if name not in poll.members or name in first:
            assert problem == ("stranger" if name not in first else "" if first[name] is yes else "repeated")
            assert poll == before
        else:
            assert not problem
            first[name] = yes
    assert poll.is_carried is (sum(first.values()) >= quorum)


def test_consents_are_counted_by_the_files_as_they_are_when_it_goes_out() -> None:
    both = [agent("air", KEY), agent("heat", KEY)]
    assert holds(("heat",), rule(), rules_of(both), KEY, "air")
    assert not holds(("heat",), rule(), rules_of([*both, agent("save", KEY)]), KEY, "air")
    assert not holds(("heat",), rule(), rules_of(both[:1]), KEY, "air")
    assert not holds((), rule(), rules_of(both[:1]), KEY, "air")


def test_consents_are_worth_nothing_for_what_needs_a_person() -> None:
    both = rules_of([agent("air", KEY), agent("heat", KEY)])
    assert not holds(("heat",), rule(risk_class="C"), both, KEY, "air")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"risk_class": "C", "affected": ["heat"]}, "class C counts no consents"),
        ({"risk_class": "A", "quorum": 1}, "class A counts no consents"),
        ({"affected": ["heat"], "quorum": 2}, "is never reached"),
        ({"quorum": 0}, "greater than or equal to 1"),
        ({"affected": [""]}, "should match pattern"),
        ({"affected": ["heat pump"]}, "should match pattern"),
    ],
)
def test_consents_that_cannot_be_are_refused_when_the_file_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        rule(**changes)
