"""Owners' rules: what fires, what stays silent, and what is said about a mistake."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import ConfigurationError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.values import Value
from edgeagents.settings import SiteTime
from services.agent.perception import Twin
from services.agent.rules import RuleBook
from services.agent.view import SeenView

NOON_S = 12 * 3600.0


def agent(*rules: dict[str, Any], **goals: Any) -> AgentDefinition:
    """Return an agent with these rules."""
    return AgentDefinition.model_validate(
        {"name": "a", "watches": [{"device": "*"}], "rules": list(rules), "goals": goals}
    )


def rule(**changes: Any) -> dict[str, Any]:
    """Return a rule that warms a cold room."""
    return {
        "name": "warm", "given": {"t": "sensor/Temperature"}, "when": "t < 20.0",
        "set": {"device": "valve", "resource": "Setpoint", "value": 21.0}, "because": "it has {t} °C", **changes,
    }  # fmt: skip


def book(*rules: dict[str, Any], **goals: Any) -> RuleBook:
    """Return compiled rules."""
    return RuleBook(agent(*rules, **goals), "a.yaml")


def twin(rules: RuleBook, **readings: Value) -> Twin:
    """Return a picture in which `device__Resource=value` was read at noon."""
    picture = Twin(SiteTime(), rules.keys, 3600)
    for name, value in readings.items():
        device, _, resource = name.partition("__")
        picture.set_value((device, resource), value, int(NOON_S * 1e9), NOON_S)
    return picture


def wishes(rules: RuleBook, picture: Twin, site_s: float = NOON_S) -> list[tuple[str, str, Value]]:
    """Return what the rules want."""
    return [(item.intent.device, item.intent.resource, item.intent.value) for item in rules.evaluate(picture, site_s)]


def test_a_rule_fires_when_its_condition_holds() -> None:
    rules = book(rule())

    (fired,) = rules.evaluate(twin(rules, sensor__Temperature=18.25), NOON_S)

    assert (fired.intent.value, fired.intent.because) == (21.0, "it has 18.25 °C")
    assert fired.inputs == {"t": 18.25}
    assert fired.data_origin_ns == int(NOON_S * 1e9)


@pytest.mark.parametrize("temperature", [20.0, 25, 1e9])
def test_a_rule_is_silent_when_its_condition_does_not_hold(temperature: float) -> None:
    rules = book(rule())

    assert wishes(rules, twin(rules, sensor__Temperature=temperature)) == []


def test_a_rule_without_its_readings_is_silent_and_no_failure() -> None:
    rules = book(rule())

    assert wishes(rules, twin(rules)) == []
    assert rules.failures == {}


def test_the_earlier_of_two_rules_counts() -> None:
    other = rule(name="colder", set={"device": "valve", "resource": "Setpoint", "value": 15.0})
    rules = book(other, rule())

    assert wishes(rules, twin(rules, sensor__Temperature=18.0)) == [("valve", "Setpoint", 15.0)]


def test_for_each_makes_one_rule_for_each_word() -> None:
    rules = book(
        rule(
            name="warm-{room}",
            for_each={"room": ["a", "b"]},
            given={"t": "sensor-{room}/Temperature"},
            set={"device": "valve-{room}", "resource": "Setpoint", "value": 21.0},
        )
    )
    picture = Twin(SiteTime(), rules.keys, 3600)
    picture.set_value(("sensor-b", "Temperature"), 18.0, 1, NOON_S)

    assert wishes(rules, picture) == [("valve-b", "Setpoint", 21.0)]
    assert ("valve-a", "Setpoint") in rules.keys


def test_a_value_can_be_computed_from_goals_and_readings() -> None:
    wanted = {"device": "valve", "resource": "Setpoint", "value": "=goals.day + (20.0 - t) * 0.5"}
    rules = book(rule(set=wanted), day=21)

    assert wishes(rules, twin(rules, sensor__Temperature=18)) == [("valve", "Setpoint", 22.0)]


@pytest.mark.parametrize(("hour", "fires"), [(5.9, False), (6.5, True), (21.99, True), (22.1, False)])
def test_rules_see_the_time_of_day_in_site_time(hour: float, fires: bool) -> None:
    rules = book(rule(when="t < 30.0 && time.hour >= 6.0 && time.hour < 22.0"))

    assert bool(wishes(rules, twin(rules, sensor__Temperature=18.0), hour * 3600)) is fires


def test_rules_see_the_recent_past() -> None:
    recent = {"of": "sensor/Temperature", "over": "30m", "take": "change"}
    rules = book(rule(given={"rise": recent}, when="rise > 1.0"))
    picture = Twin(SiteTime(), rules.keys, 3600)
    for minute, value in enumerate([18.0, 18.4, 19.6]):
        picture.set_value(("sensor", "Temperature"), value, minute, NOON_S + minute * 60)

    assert wishes(rules, picture, NOON_S + 120) == [("valve", "Setpoint", 21.0)]
    assert wishes(rules, picture, NOON_S + 120 + 29.5 * 60) == []  # the older ones are out of the half hour


def habitual(days: int) -> tuple[RuleBook, Twin]:
    """Return a rule on a habit, and a picture of somebody at home from eight to ten on so many days before."""
    usual = {"of": "sensor/Presence", "over": "14d", "take": "usual", "ahead": "1h", "otherwise": 0.5}
    rules = book(rule(given={"soon": usual}, when="soon > 0.9"))
    picture = Twin(SiteTime(), rules.keys, 3600, rules.usual)
    for day in range(4, 4 + days):  # the epoch's first Monday
        for quarter in range(96):
            site_s = day * 86_400.0 + quarter * 900.0
            picture.set_value(("sensor", "Presence"), 32 <= quarter < 40, int(site_s * 1e9), site_s)
    picture.set_value(("sensor", "Presence"), False, int((4 + days) * 86_400 * 1e9), (4 + days) * 86_400.0)
    return rules, picture


@pytest.mark.parametrize(("hour", "fires"), [(6.5, False), (7.5, True), (9.5, True), (10.5, False)])
def test_rules_see_what_is_usual_at_this_time_of_day(hour: float, fires: bool) -> None:
    rules, picture = habitual(days=3)

    assert bool(wishes(rules, picture, 7 * 86_400.0 + hour * 3600.0)) is fires


def test_what_cannot_be_told_is_taken_as_the_owner_says_otherwise() -> None:
    rules, picture = habitual(days=0)

    assert wishes(rules, picture, 4 * 86_400.0 + 7.5 * 3600.0) == []
    open_minded = book(rule(given={"soon": {**USUAL, "otherwise": 1.0}}, when="soon > 0.9"))
    assert wishes(open_minded, picture, 4 * 86_400.0) == [("valve", "Setpoint", 21.0)]
    silent = book(rule(given={"soon": USUAL}, when="soon >= 0.0"))
    assert wishes(silent, picture, 4 * 86_400.0) == []


USUAL = {"of": "sensor/Presence", "over": "14d", "take": "usual"}


def test_only_habits_are_kept_for_weeks() -> None:
    rules = book(rule(given={"soon": USUAL, "t": {"of": "sensor/Temperature", "over": "2h", "take": "trend"}}))

    assert rules.longest_s == 7200.0
    assert rules.usual == {("sensor", "Presence"): 14 * 86_400.0}
    assert rules.looked_back == {("sensor", "Temperature")}


def test_expressions_may_use_least_greatest_and_round() -> None:
    wanted = "=math.least(22.0, math.greatest(18.0, math.round(2.0 * t) / 2.0))"
    rules = book(rule(set={"device": "valve", "resource": "Setpoint", "value": wanted}))

    assert wishes(rules, twin(rules, sensor__Temperature=19.3)) == [("valve", "Setpoint", 19.5)]
    assert wishes(rules, twin(rules, sensor__Temperature=3.0)) == [("valve", "Setpoint", 18.0)]


def test_the_same_inputs_want_the_same_and_other_types_are_other_inputs() -> None:
    rules = book(rule(given={"on": "lamp/Switch"}, when="on == true"))
    picture = Twin(SiteTime(), rules.keys, 3600)
    found = []
    for second, value in enumerate([True, True, False, True, 1.0]):
        picture.set_value(("lamp", "Switch"), value, second, NOON_S + second)
        found.append(bool(wishes(rules, picture, NOON_S + second)))

    assert found == [True, True, False, True, False]


def test_a_rule_that_fails_is_silent_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = book(rule(when="t + 1.0 > 2.0"))
    picture = twin(rules, sensor__Temperature="warm")

    assert [wishes(rules, picture) for _ in range(3)] == [[], [], []]
    assert rules.failures == {"warm": 3}
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"when": "t <"}, "Syntax error"),
        ({"when": "u < 2.0"}, "undeclared reference to 'u'"),
        ({"when": "goals.day < 2"}, "21.0, not 21"),
        ({"when": "goals.day + 1.0"}, "must be true or false"),
        ({"set": {"device": "valve", "resource": "Setpoint", "value": "=t +"}}, "set.value"),
    ],
)
def test_a_wrong_expression_names_file_rule_and_field(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.yaml: rules\[0\] 'warm'") as caught:
        book(rule(**changes), day=21.0)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "why"), [(10**400, "an integer of 1329 bits"), ("open\x00shut", "no text"), ("\ud800", "no text")]
)
def test_a_reading_that_cel_cannot_take_keeps_a_rule_silent(
    value: Value, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = book(rule(when="t == 'open' || t != 'open'"))

    assert wishes(rules, twin(rules, sensor__Temperature=value)) == []
    assert rules.failures == {"warm": 1}
    assert why in caplog.text


@pytest.mark.parametrize("value", [None, b"x", [1.0], {"t": 1.0}])
def test_null_and_structured_readings_keep_a_rule_silent_without_failure(value: Value) -> None:
    rules = book(rule(when="t == t"))

    assert wishes(rules, twin(rules, sensor__Temperature=value)) == []
    assert rules.failures == {}


def test_a_computed_value_that_is_none_is_counted() -> None:
    rules = book(rule(set={"device": "valve", "resource": "Setpoint", "value": "=[t]"}))

    assert wishes(rules, twin(rules, sensor__Temperature=18.0)) == []
    assert rules.failures == {"warm": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
HARDY = book(
    rule(name="compare", when="t < 20.0"),
    rule(name="compute", when="t != 'x'", set={"device": "a", "resource": "b", "value": "=t + 1.0"}),
    rule(name="words", when="t.contains('x')", set={"device": "c", "resource": "d", "value": "{nothing}"}),
    rule(name="mean", given={"t": {"of": "sensor/Temperature", "over": "1h", "take": "mean"}}, when="t > 0.0"),
)


@given(st.lists(values, min_size=1, max_size=3))
def test_no_reading_whatsoever_makes_a_rule_raise(readings: list[Any]) -> None:
    picture = Twin(SiteTime(), HARDY.keys, 3600)
    for index, value in enumerate(readings):
        picture.set_value(("sensor", "Temperature"), value, index, NOON_S + index)
    for fired in HARDY.evaluate(picture, NOON_S):
        assert isinstance(fired.intent.value, (bool, int, float, str))


class Counted:
    """A compiled expression that counts how often it is asked."""

    def __init__(self, compiled: Any) -> None:
        self._compiled, self.count = compiled, 0

    def eval(self, data: Any) -> Any:
        self.count += 1
        return self._compiled.eval(data=data)


def counted(rules: RuleBook) -> Counted:
    """Have the first rule's condition count."""
    counter = Counted(rules._rules[0].when)
    rules._rules[0] = replace(rules._rules[0], when=counter)
    return counter


def test_a_rule_none_of_whose_readings_is_new_gives_the_very_same_and_asks_the_view_all_the_same() -> None:
    rules = book(rule())
    picture = twin(rules, sensor__Temperature=18.0)
    counter = counted(rules)
    (before,) = rules.evaluate(picture, NOON_S)
    seen = SeenView(picture)

    (again,) = rules.evaluate(seen, NOON_S + 10)

    assert again is before
    assert counter.count == 1
    assert seen.described()["latest"][0][:3] == ["sensor", "Temperature", 18.0]


def test_a_new_reading_of_the_same_value_counts_with_its_own_time() -> None:
    rules = book(rule())
    picture = twin(rules, sensor__Temperature=18.0)
    (before,) = rules.evaluate(picture, NOON_S)
    picture.set_value(("sensor", "Temperature"), 18.0, int((NOON_S + 5) * 1e9), NOON_S + 5)

    (after,) = rules.evaluate(picture, NOON_S + 5)

    assert after.data_origin_ns - before.data_origin_ns == 5_000_000_000


def test_a_rule_that_fails_is_asked_again_and_counted_each_time_though_nothing_is_new() -> None:
    rules = book(rule(when="t < 20.0"))
    picture = twin(rules, sensor__Temperature="cold")

    for count in (1, 2, 3):
        assert rules.evaluate(picture, NOON_S) == []
        assert rules.failures["warm"] == count


def test_a_rule_on_the_time_of_day_is_asked_each_time() -> None:
    rules = book(rule(when="t < 20.0 && time.hour >= 13.0"))
    picture = twin(rules, sensor__Temperature=18.0)

    assert rules.evaluate(picture, NOON_S) == []
    assert len(rules.evaluate(picture, NOON_S + 3600)) == 1


@pytest.mark.parametrize("when", ["time.hour > 12.0", "time .hour > 12.0", "time\n.hour > 12.0"])
def test_the_time_counts_however_it_is_written(when: str) -> None:
    rules = book(rule(when=f"t < 20.0 && {when}"))
    picture = twin(rules, sensor__Temperature=18.0)
    assert [len(wishes(rules, picture, hour * 3600.0)) for hour in (6, 13, 7, 14)] == [0, 1, 0, 1]


def test_rules_of_one_name_for_several_rooms_do_not_take_each_others_result() -> None:
    rules = book(
        rule(
            name="heat", for_each={"room": ["bed", "living"]}, given={"t": "hall/Temperature"},
            when="t < goals.{room}", set={"device": "{room}-valve", "resource": "Setpoint", "value": "=goals.{room}"},
        ),
        bed=17.0, living=21.0,
    )  # fmt: skip
    picture = twin(rules, hall__Temperature=18.0)
    for _ in range(2):
        assert wishes(rules, picture) == [("living-valve", "Setpoint", 21.0)]
    picture = twin(rules, hall__Temperature=16.0)
    for _ in range(2):
        assert wishes(rules, picture) == [("bed-valve", "Setpoint", 17.0), ("living-valve", "Setpoint", 21.0)]
