"""An agent's file: what is understood, and what is refused with a text that names the field."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeagents.model.agent import AgentDefinition, Negotiates, Recent, Selector, parse_duration_s
from edgeagents.model.device import Device

COMFORT = """
name: comfort
description: keeps rooms warm
mode: act
priority: comfort
watches:
  - {profile: room-sensor, resources: [Temperature]}
  - {topic: rules/agents}
goals: {target: 21.5, night: true, season: winter}
rules:
  - name: cold-{room}
    for_each: {room: [living, bed]}
    given:
      t: "sensor-{room}/Temperature"
      trend: {of: "sensor-{room}/Temperature", over: 15m, take: change}
    when: t < 20.0
    set: {device: "radiator-{room}", resource: Setpoint, value: 22}
    because: "{t} degrees in {room}"
may:
  - device: radiator-*
    resource: Setpoint
    minimum: 16
    maximum: 24
    max_step: 2
    rate: {count: 4, per: 1h}
    max_data_age: 1h30m
ttl: 5s
"""


def agent() -> dict[str, Any]:
    """Return the file above as YAML gives it."""
    tree: dict[str, Any] = yaml.safe_load(COMFORT)
    return tree


def refusal(tree: dict[str, Any]) -> str:
    """Return the one complaint about a file, its field first."""
    with pytest.raises(ValidationError) as caught:
        AgentDefinition.model_validate(tree)
    errors = caught.value.errors()
    return ".".join(str(part) for part in errors[0]["loc"]) + ": " + errors[0]["msg"]


def test_a_full_file_is_understood() -> None:
    found = AgentDefinition.model_validate(agent())
    permission, rule = found.may[0], found.rules[0]
    assert found.ttl == 5.0
    assert permission.max_data_age == 5400.0
    assert permission.rate is not None
    assert (permission.rate.count, permission.rate.per) == (4, 3600.0)
    assert rule.set.value == 22
    assert found.goals == {"target": 21.5, "night": True, "season": "winter"}
    assert type(found.goals["night"]) is bool


def test_a_new_agent_only_observes() -> None:
    assert AgentDefinition.model_validate({"name": "a", "watches": [{"device": "d"}]}).mode == "observe"


@pytest.mark.parametrize("value", [True, 1, 1.5, "1", "=t + 1.0"])
def test_what_a_rule_sets_keeps_its_type(value: Any) -> None:
    tree = agent()
    tree["rules"][0]["set"]["value"] = value
    found = AgentDefinition.model_validate(tree).rules[0].set.value
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("mod", "act", "mod: Extra inputs are not permitted"),
        ("may.0.maximun", 24, "may.0.maximun: Extra inputs are not permitted"),
        ("rules.0.set.valeu", 1, "rules.0.set.valeu: Extra inputs are not permitted"),
        ("name", "Comfort!", "name: String should match pattern"),
        ("name", "guard", "name: Value error, the name 'guard' is taken"),
        ("name", "all", "name: Value error, the name 'all' is taken"),
        ("name", "edgex", "name: Value error, the name 'edgex' is taken"),
        ("name", "peer-south", "name: Value error, the name 'peer-south' is taken: services, users of the broker"),
        ("mode", "dream", "mode: Input should be 'observe' or 'act'"),
        ("priority", "urgent", "priority: Input should be 'safety'"),
        ("watches", [], "watches: Tuple should have at least 1 item"),
        ("watches.0", {}, "watches.0: Value error, watch either a topic, or devices"),
        ("watches.0.topic", "rules/agents", "watches.0: Value error, watch either a topic, or devices"),
        ("ttl", "5", "ttl: Value error, '5' is no duration: write 90s, 15m, 1h30m"),
        ("ttl", "-5s", "ttl: Value error, '-5s' is no duration"),
        ("ttl", 0, "ttl: Input should be greater than 0"),
        ("ttl", "2h", "ttl: Input should be less than or equal to 3600"),
        ("ttl", True, "ttl: Value error, 'True' is no duration"),
        ("ttl", None, "ttl: Value error, 'None' is no duration"),
        ("ttl", math.inf, "ttl: Value error, 'inf' is no duration"),
        ("ttl", 10**400, "ttl: Value error"),
        ("ttl", "9" * 400 + "s", "ttl: Value error"),
        ("ttl", "0" * 63 + "5s", "ttl: Value error, '" + "0" * 40 + "' is no duration"),  # 65 characters
        ("may.0.max_data_age", "1 hour", "may.0.max_data_age: Value error, '1 hour' is no duration"),
        ("may.0.rate.per", "1hour", "may.0.rate.per: Value error, '1hour' is no duration"),
        ("may.0.rate.count", 0, "may.0.rate.count: Input should be greater than 0"),
        ("may.0.minimum", 30, "may.0: Value error, minimum 30.0 is above maximum 24.0"),
        ("may.0.minimum", math.nan, "may.0.minimum: Input should be a finite number"),
        ("may.0.max_step", math.inf, "may.0.max_step: Input should be a finite number"),
        ("may.0.device", "", "may.0: Value error, name the devices by device, profile or label"),
        ("may.0.resource", "", "may.0.resource: String should have at least 1 character"),
        ("rules.0.name", "Cold Room", "rules.0.name: String should match pattern"),
        ("rules.0.given.t", "Temperature", "rules.0.given: Value error, 'Temperature' is no reference"),
        ("rules.0.given.t", "a/b/c", "rules.0.given: Value error, 'a/b/c' is no reference"),
        ("rules.0.given.T-1", "a/b", "rules.0.given: Value error, 'T-1' is no name"),
        ("rules.0.given.trend.take", "median", "rules.0.given.trend."),
        ("rules.0.when", "", "rules.0.when: String should have at least 1 character"),
        ("rules.0.set.device", "", "rules.0.set.device: String should have at least 1 character"),
        ("rules.0.set.value", None, "rules.0.set.value."),
        ("rules.0.confidence", 1.5, "rules.0.confidence: Input should be less than or equal to 1"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_remedy(path: str, value: Any, complaint: str) -> None:
    tree: Any = agent()
    place = tree
    *way, last = path.split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[int(last) if last.isdigit() else last] = value
    assert refusal(tree).startswith(complaint)


def test_two_rules_of_one_name_are_refused() -> None:
    tree = agent()
    tree["rules"] *= 2
    assert refusal(tree) == "rules: Value error, two rules have the name 'cold-{room}'"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("2d", 172_800), (7, 7), (0.5, 0.5)],
)
def test_durations_are_understood(text: str | float, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@given(st.text() | st.from_regex(r"[0-9smhd. -]*", fullmatch=True) | st.integers() | st.floats())
def test_any_duration_is_a_finite_number_or_refused(text: str | float) -> None:
    try:
        seconds = parse_duration_s(text)
    except ValueError:
        return
    assert math.isfinite(seconds)


def test_a_selector_needs_every_given_word_to_fit() -> None:
    lamp = Device(name="lamp-1", profile_name="lamp", labels=("hall", "light"))
    assert Selector(device="lamp-*", profile="lamp", label="hall").fits(lamp)
    assert Selector(device="*").fits(lamp)
    for wrong in ({"device": "lamp"}, {"profile": "lam*"}, {"label": "hal"}, {"device": "lamp-*", "label": "attic"}):
        assert not Selector(**wrong).fits(lamp)


@pytest.mark.parametrize("name", ["lamp[1]", "lamp?", "lamp[!a]", "[", "]", "a*b", "Lamp.1"])
def test_only_the_star_is_special_in_a_device_name(name: str) -> None:
    assert Selector(device=name).fits(Device(name=name))
    assert not Selector(device="lamp[1]").fits(Device(name="lamp1"))
    assert not Selector(device="lamp?").fits(Device(name="lampX"))


@given(st.text(min_size=1, max_size=10), st.text(max_size=10))
def test_a_star_stands_for_any_text(prefix: str, rest: str) -> None:
    assert Selector(device=f"{prefix}*").fits(Device(name=prefix + rest))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"take": "mean", "ahead": "1h"}, "ahead is for `take: usual`"),
        ({"take": "usual", "over": "1h"}, "write over: 14d"),
        ({"take": "usual", "over": "90d"}, "write over: 14d"),
        ({"take": "usual", "over": "14d", "ahead": "2d"}, "less than or equal"),
        ({"take": "trend", "over": "0s"}, "greater than 0"),
    ],
)
def test_a_statistic_that_makes_no_sense_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Recent.model_validate({"of": "a/b", "over": "1h", **changes})


def test_a_habit_looks_ahead_and_has_a_value_for_the_first_days() -> None:
    usual = Recent.model_validate({"of": "a/b", "over": "14d", "take": "usual", "ahead": "45m", "otherwise": 1.0})

    assert (usual.over, usual.ahead, usual.otherwise) == (14 * 86_400.0, 2700.0, 1.0)


@pytest.mark.parametrize(
    ("template", "words", "names"),
    [
        ("valve-{n}", {"n": ["1", "22"]}, {"valve-1", "valve-22"}),
        ("{n}", {"n": ["a", ""]}, {"a", ""}),
        ("aa{n}aa", {"n": ["", "a"]}, {"aaaa", "aaaaa"}),
        ("{n}-{n}", {"n": ["1", "2"]}, {"1-1", "2-2"}),
        ("valve", {"n": ["1"]}, {"valve"}),
        ("{a}-{b}", {"a": ["1", "2"], "b": ["3"]}, {"1-3", "2-3"}),
    ],
)
def test_what_an_agent_negotiates_about_is_what_its_words_make_and_nothing_else(
    template: str, words: dict[str, list[str]], names: set[str]
) -> None:
    over = {"for_each": words, "device": template, "resource": "R", "values": ["1", "2"], "brings": {"w": "value"}}
    negotiates = Negotiates.model_validate({"preferences": "p.yaml", "over": [over]})
    others = {"", "a", "aa", "aaa", "aaaa", "aaaaa", "valve", "valve-", "valve-1", "valve-2", "valve-22", "valve-122",
              "1-1", "1-2", "2-2", "1-3", "2-3", "1", template}  # fmt: skip
    assert {name for name in names | others if negotiates.covers(name, "R")} == names
    assert not any(negotiates.covers(name, "S") for name in names)


@pytest.mark.parametrize("of_all", [False, True])
@pytest.mark.parametrize("of_one", [None, False, True])
def test_whether_a_wish_waits_for_its_settlement_is_said_for_all_or_for_one_alone(
    of_all: bool, of_one: bool | None
) -> None:
    terms = {"device": "valve", "values": ["1", "2"], "brings": {"w": "value"}}
    over = [{**terms, "resource": "One", "only_settled": of_one}, {**terms, "resource": "Other"}]
    negotiates = Negotiates.model_validate({"preferences": "p.yaml", "only_settled": of_all, "over": over})
    assert negotiates.waits_for_settlement("valve", "One") is (of_all if of_one is None else of_one)
    assert negotiates.waits_for_settlement("valve", "Other") is of_all
    assert not negotiates.waits_for_settlement("valve", "Third"), "about that it does not negotiate"
