"""The gate rule by rule: what passes, what does not, and what the reason says."""

from typing import Any

import pytest

from edgeagents.model.agent import AgentDefinition, Sample
from edgeagents.model.device import Device, Profile
from edgeagents.model.site import Site
from edgeagents.protocol.fitting import file_problems, site_problems
from edgeagents.protocol.gate import (
    Key,
    NeedsApproval,
    Passed,
    PastSet,
    Picture,
    Proposal,
    Refused,
    Rules,
    judge,
    locked_options,
)

NOW_S = 10_000.0
VALVE = {
    "name": "valve",
    "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float32", "readWrite": "RW", "minimum": 5, "maximum": 30}},
        {"name": "Open", "properties": {"valueType": "Bool", "readWrite": "RW"}},
        {"name": "Note", "properties": {"valueType": "String", "readWrite": "RW"}},
        {"name": "Temperature", "properties": {"valueType": "Float64", "readWrite": "R"}},
        {"name": "Blink", "properties": {"valueType": "Bool", "readWrite": "W"}},
    ],
}
SITE: dict[str, Any] = {
    "resources": [
        {"profile": "valve", "resource": "Setpoint", "risk_class": "A", "minimum": 10, "maximum": 25},
        {"profile": "valve", "resource": "Open", "risk_class": "C", "minimum_on": 60, "minimum_off": "2m"},
        {"profile": "valve", "resource": "Note", "risk_class": "B"},
        {"profile": "valve", "resource": "Blink"},
    ]
}
AGENT: dict[str, Any] = {
    "name": "comfort",
    "mode": "act",
    "watches": [{"profile": "valve"}],
    "may": [
        {"profile": "valve", "resource": "Setpoint", "minimum": 15, "maximum": 23},
        {"profile": "valve", "resource": "Open"},
        {"profile": "valve", "resource": "Note", "values": ["eco", "boost"]},
        {"profile": "valve", "resource": "Blink"},
    ],
}


def rules(site: dict[str, Any] | None = None, *, agent: dict[str, Any] | None = None, **may: Any) -> Rules:
    """Return the owner's word; keywords are added to the permission for Setpoint."""
    body = agent or {**AGENT, "may": [AGENT["may"][0] | may, *AGENT["may"][1:]]}
    devices = {name: Device(name=name, profile_name="valve") for name in ("valve-1", "valve-2")}
    definition = AgentDefinition.model_validate(body)
    return Rules(
        Site.model_validate(SITE if site is None else site),
        {definition.name: definition},
        devices,
        {"valve": Profile.model_validate(VALVE)},
    )


def seen(**values: Any) -> dict[Key, Sample]:
    """Return readings of valve-1, 10 s old; `at_2_Open` is one of valve-2."""
    found = {}
    for name, value in values.items():
        device, resource = ("valve-2", name.removeprefix("at_2_")) if name.startswith("at_2_") else ("valve-1", name)
        found[device, resource] = Sample(value, 0, NOW_S - 10)
    return found


def ask(value: str, resource: str = "Setpoint", **changes: Any) -> Proposal:
    """Return a proposal of `comfort` for valve-1, on fresh data."""
    fields: dict[str, Any] = {
        "agent": "comfort",
        "device": "valve-1",
        "resource": resource,
        "value": value,
        "data_site_s": NOW_S,
    }
    return Proposal(**(fields | changes))


def reasons(proposal: Proposal, known: Rules | None = None, picture: Picture | None = None) -> str:
    """Return why a proposal is refused, empty when it is not."""
    verdict = judge(proposal, known or rules(), picture or Picture(), NOW_S)
    return "; ".join(verdict.reasons) if isinstance(verdict, Refused) else ""


def test_what_the_owner_permits_passes_in_edgexs_own_writing() -> None:
    verdict = judge(ask("21.5"), rules(), Picture(), NOW_S)
    assert isinstance(verdict, Passed)
    assert (verdict.value, verdict.text, verdict.rule.risk_class) == (21.5, "2.15e+01", "A")


@pytest.mark.parametrize(("resource", "value", "risk_class"), [("Open", "t", "C"), ("Note", "eco", "B")])
def test_classes_b_and_c_wait_for_a_human(resource: str, value: str, risk_class: str) -> None:
    verdict = judge(ask(value, resource), rules(), Picture(), NOW_S)
    assert isinstance(verdict, NeedsApproval)
    assert verdict.risk_class == risk_class


@pytest.mark.parametrize(
    ("proposal", "reason"),
    [
        (ask("20", agent="energy"), "no agent file declares 'energy'"),
        (ask("20", device="valve-9"), "core-metadata knows no device 'valve-9'"),
        (ask("20", "Colour"), "profile 'valve' has no resource 'Colour'"),
        (ask("20", "Temperature"), "valve-1/Temperature is read-only"),
        (ask("true", "Blink"), "class D: never by an agent"),
        (ask("warm"), "'warm' is no Float32"),
        (ask("NaN"), "NaN is no value to set"),
        (ask("1e39"), "beyond the range of Float32"),
        (ask("31"), "is outside the profile's range 5.0 to 30.0"),
        (ask("9"), "is outside the owner's range 10.0 to 25.0"),
        (ask("14"), "is outside the permitted range 15.0 to 23.0"),
        (ask("sport", "Note"), "sport is not among the permitted values eco, boost"),
        (ask("20", data_site_s=NOW_S - 3601), "decided on data 3601 s old: at most 3600 s"),
        (ask("20", data_site_s=float("nan")), "decided on data nan s old"),
    ],
)
def test_what_nobody_permitted_is_refused_with_its_reason(proposal: Proposal, reason: str) -> None:
    assert reason in reasons(proposal)


def test_an_agent_that_observes_commands_nothing() -> None:
    assert "mode observe" in reasons(ask("20"), rules(agent=AGENT | {"mode": "observe"}))


def test_what_site_yaml_does_not_declare_is_refused() -> None:
    assert reasons(ask("20"), rules({"resources": []})) == "site.yaml does not declare valve-1/Setpoint"


def test_what_no_permission_names_is_refused() -> None:
    assert "no permission for valve-1/Open" in reasons(ask("true", "Open"), rules(agent=AGENT | {"may": []}))


def test_a_float32_is_judged_as_it_will_be_set() -> None:
    # 23.000001 is nearer to the 32-bit float 23.000002 than to 23.
    assert "outside the permitted range" in reasons(ask("23.0000012"))
    assert reasons(ask("23.0000001")) == ""


def test_a_long_value_does_not_make_a_long_reason() -> None:
    assert len(reasons(ask("x" * 16_000, "Note"))) < 500
    assert len(reasons(ask("9" * 16_000))) < 500


def test_one_of_several_permissions_is_enough_and_the_nearest_one_is_told() -> None:
    wide = AGENT | {"may": [*AGENT["may"], {"device": "valve-1", "resource": "Setpoint", "maximum": 24}]}
    assert reasons(ask("24"), rules(agent=wide)) == ""
    assert "is outside the permitted range" in reasons(ask("24", device="valve-2"), rules(agent=wide))


@pytest.mark.parametrize(("used", "refused"), [(1, False), (2, True)])
def test_a_rate_counts_the_agents_own_commands_within_its_time(used: int, refused: bool) -> None:
    recent = [PastSet("comfort", 20.0, NOW_S - 100 * (index + 1)) for index in range(used)]
    others = [PastSet("energy", 20.0, NOW_S - 50), PastSet("comfort", 20.0, NOW_S - 601)]
    past = tuple(sorted([*recent, *others], key=lambda item: item.site_s))
    known = rules(rate={"count": 2, "per": "10m"})
    found = reasons(ask("21"), known, Picture(sets={("valve-1", "Setpoint"): past}))
    assert ("2 commands in the last 600 s: 2 are permitted" in found) is refused


def test_the_minimum_interval_counts_everybodys_commands() -> None:
    site = {"resources": [SITE["resources"][0] | {"minimum_interval": "5m"}]}
    picture = Picture(sets={("valve-1", "Setpoint"): (PastSet("energy", 20.0, NOW_S - 299),)})
    assert "set 299 s ago: wait 1 s more" in reasons(ask("21"), rules(site), picture)
    picture = Picture(sets={("valve-1", "Setpoint"): (PastSet("energy", 20.0, NOW_S - 300),)})
    assert reasons(ask("21"), rules(site), picture) == ""


def test_without_a_minimum_interval_a_command_may_follow_one_that_went_out_while_it_was_on_its_way() -> None:
    later = Picture(sets={("valve-1", "Setpoint"): (PastSet("comfort", 20.0, NOW_S + 0.02),)})
    assert reasons(ask("21"), rules(), later) == ""
    site = {"resources": [SITE["resources"][0] | {"minimum_interval": "5m"}]}
    assert "set 0 s ago: wait 300 s more" in reasons(ask("21"), rules(site), later)


def test_a_clock_set_back_is_named_where_a_set_lies_ahead() -> None:
    site = {"resources": [SITE["resources"][0] | {"minimum_interval": "5m"}]}
    ahead = Picture(sets={("valve-1", "Setpoint"): (PastSet("comfort", 20.0, NOW_S + 3600),)})
    assert "set 3600 s later than now, by a clock that was set back since" in reasons(ask("21"), rules(site), ahead)


@pytest.mark.parametrize(
    ("was", "wanted", "ago_s", "reason"),
    [
        (True, "false", 59, "must stay on for 60 s, was switched 59 s ago"),
        (True, "false", 60, ""),
        (False, "true", 119, "must stay off for 120 s, was switched 119 s ago"),
        (False, "true", 120, ""),
        (True, "true", 1, ""),
    ],
)
def test_minimum_on_and_off_times(was: bool, wanted: str, ago_s: float, reason: str) -> None:
    picture = Picture(sets={("valve-1", "Open"): (PastSet("comfort", was, NOW_S - ago_s),)})
    assert reasons(ask(wanted, "Open"), picture=picture) == reason


def test_repeating_a_value_does_not_prolong_how_long_it_stays() -> None:
    past = (
        PastSet("comfort", False, NOW_S - 500),
        PastSet("comfort", True, NOW_S - 100),
        PastSet("x", True, NOW_S - 1),
    )
    assert reasons(ask("false", "Open"), picture=Picture(sets={("valve-1", "Open"): past})) == ""


class TestStep:
    """`max_step` limits a change against what is known now."""

    def test_within_the_step_passes_also_where_binary_fractions_do_not_add_up(self) -> None:
        assert reasons(ask("21.5"), rules(max_step=0.1), Picture(seen(Setpoint=21.4))) == ""

    def test_a_larger_step_is_refused(self) -> None:
        assert "a step of 2 is above" in reasons(ask("21"), rules(max_step=1), Picture(seen(Setpoint=19.0)))

    @pytest.mark.parametrize("value", [None, "warm", [20.0], {"t": 20.0}])
    def test_an_unknown_present_value_is_refused(self, value: Any) -> None:
        assert "present value is not known" in reasons(ask("21"), rules(max_step=1), Picture(seen(Setpoint=value)))
        assert "present value is not known" in reasons(ask("21"), rules(max_step=1))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
    def test_no_number_is_near_an_absurd_present_value(self, value: float) -> None:
        assert "a step of" in reasons(ask("21"), rules(max_step=1), Picture(seen(Setpoint=value)))

    def test_a_present_value_that_is_too_old_is_not_known(self) -> None:
        old = Picture({("valve-1", "Setpoint"): Sample(20.0, 0, NOW_S - 301)})
        assert "present value is not known" in reasons(ask("21"), rules(max_step=1, max_data_age="5m"), old)

    def test_what_was_set_after_the_last_reading_counts_too(self) -> None:
        # Read 20, set to 22 since: 18 is two steps from there.
        picture = Picture(seen(Setpoint=20.0), {("valve-1", "Setpoint"): (PastSet("comfort", 22.0, NOW_S - 1),)})
        assert "a step of 4 is above" in reasons(ask("18"), rules(max_step=2), picture)
        assert reasons(ask("21"), rules(max_step=2), picture) == ""

    def test_a_reading_after_the_last_set_is_what_counts(self) -> None:
        picture = Picture(seen(Setpoint=20.0), {("valve-1", "Setpoint"): (PastSet("comfort", 22.0, NOW_S - 11),)})
        assert reasons(ask("18"), rules(max_step=2), picture) == ""


LOCKED = SITE | {
    "interlocks": [
        {
            "name": "one-open",
            "forbid": {"device": "valve-1", "resource": "Open", "equals": True},
            "during": {"device": "valve-2", "resource": "Open", "equals": "true"},
            "max_age": "1m",
        },
        {
            "name": "warm",
            "forbid": {"device": "valve-1", "resource": "Setpoint", "above": 20},
            "during": {"device": "valve-1", "resource": "Temperature", "above": 25},
        },
    ]
}


class TestInterlock:
    """What nothing can outvote; the unknown counts in the unsafe direction."""

    def test_both_sides_are_guarded(self) -> None:
        assert "interlock 'one-open'" in reasons(ask("true", "Open"), rules(LOCKED), Picture(seen(at_2_Open=True)))
        other = ask("true", "Open", device="valve-2")
        assert "interlock 'one-open'" in reasons(other, rules(LOCKED), Picture(seen(Open=True)))

    def test_a_refusal_says_for_code_whose_word_it_is(self) -> None:
        locked = judge(ask("true", "Open"), rules(LOCKED), Picture(seen(at_2_Open=True)), NOW_S)
        beyond = judge(ask("99"), rules(), Picture(), NOW_S)
        observing = judge(ask("20"), rules(agent=AGENT | {"mode": "observe"}), Picture(), NOW_S)
        found = [verdict.cause for verdict in (locked, beyond, observing) if isinstance(verdict, Refused)]
        assert found == ["interlock", "gate", "order"]

    def test_of_several_values_those_that_an_interlock_forbids_now_are_told(self) -> None:
        warm, key = Picture(seen(Temperature=26.0)), ("valve-1", "Setpoint")
        found = locked_options(rules(LOCKED), key, ("20", "21", "22.5", "hot"), warm, NOW_S)
        assert set(found) == {"21", "22.5"}
        assert found["21"].startswith("interlock 'warm': valve-1/Setpoint above 20 while valve-1/Temperature above 25")
        assert locked_options(rules(LOCKED), key, ("21",), Picture(seen(Temperature=24.0)), NOW_S) == {}
        assert "not known for sure" in locked_options(rules(LOCKED), key, ("21",), Picture(), NOW_S)["21"]
        assert locked_options(rules(LOCKED), ("nowhere", "Setpoint"), ("21",), warm, NOW_S) == {}
        assert locked_options(rules(), key, ("21",), warm, NOW_S) == {}

    def test_of_two_that_must_not_be_on_together_the_second_is_locked(self) -> None:
        opened = Picture(seen(at_2_Open=True))
        assert set(locked_options(rules(LOCKED), ("valve-1", "Open"), ("true", "false"), opened, NOW_S)) == {"true"}

    def test_the_safe_way_is_free(self) -> None:
        assert reasons(ask("true", "Open"), rules(LOCKED), Picture(seen(at_2_Open=False))) == ""
        assert reasons(ask("false", "Open"), rules(LOCKED), Picture(seen(at_2_Open=True))) == ""
        assert reasons(ask("19"), rules(LOCKED), Picture(seen(Temperature=30.0))) == ""

    @pytest.mark.parametrize(
        "readings", [{}, seen(at_2_Open=None), {("valve-2", "Open"): Sample(False, 0, NOW_S - 61)}]
    )
    def test_unknown_null_and_old_readings_are_unsafe(self, readings: dict[Key, Sample]) -> None:
        assert "(not known for sure)" in reasons(ask("true", "Open"), rules(LOCKED), Picture(readings))

    @pytest.mark.parametrize("value", [float("nan"), "hot", True])
    def test_a_reading_that_is_no_number_is_unsafe(self, value: Any) -> None:
        assert "interlock 'warm'" in reasons(ask("21"), rules(LOCKED), Picture(seen(Temperature=value)))

    def test_what_is_being_set_next_door_counts_although_nobody_read_it_yet(self) -> None:
        sets = {("valve-2", "Open"): (PastSet("energy", True, NOW_S),)}
        assert "interlock 'one-open'" in reasons(
            ask("true", "Open"), rules(LOCKED), Picture(seen(at_2_Open=False), sets)
        )

    def test_a_set_alone_does_not_prove_that_it_is_safe(self) -> None:
        sets = {("valve-2", "Open"): (PastSet("energy", False, NOW_S - 1),)}
        assert "interlock 'one-open'" in reasons(
            ask("true", "Open"), rules(LOCKED), Picture(seen(at_2_Open=True), sets)
        )
        assert "(not known for sure)" in reasons(ask("true", "Open"), rules(LOCKED), Picture({}, sets))

    def test_a_condition_on_a_device_that_is_gone_is_unsafe(self) -> None:
        lock = LOCKED["interlocks"][0] | {"during": {"device": "valve-9", "resource": "Open", "equals": "true"}}
        assert "(not known for sure)" in reasons(ask("true", "Open"), rules(SITE | {"interlocks": [lock]}))


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"resource": "Setpoint", "minimum": 4}, "minimum: 4 is outside the profile's range 5.0 to 30.0"),
        ({"resource": "Setpoint", "maximum": 31}, "maximum: 31 is outside the profile's range"),
        ({"resource": "Open", "maximum": 1}, "maximum: valve-1/Open is a Bool, no number: remove it"),
        ({"resource": "Note", "proof": {"resource": "Gone"}}, "proof.resource: profile 'valve' of 'valve-1' has no"),
        ({"resource": "Note", "proof": {"resource": "Blink"}}, "proof.resource: valve-1/Blink cannot be read"),
        ({"resource": "Gone"}, "resource: profile 'valve' of 'valve-1' has no 'Gone'"),
    ],
)
def test_a_site_entry_that_does_not_fit_the_profile_is_told_and_lets_nothing_pass(
    rule: dict[str, Any], problem: str
) -> None:
    known = rules({"resources": [{"device": "valve-1", "risk_class": "A", **rule}]})
    (told,) = site_problems(known.site, known.devices, known.profiles)
    assert told.startswith("resources[0]: ")
    assert problem in told
    value = {"Setpoint": "20", "Open": "true"}.get(rule["resource"], "eco")
    assert isinstance(judge(ask(value, rule["resource"]), known, Picture(), NOW_S), Refused)


@pytest.mark.parametrize(
    ("during", "problem"),
    [
        ({"resource": "Gone", "equals": "1"}, "during: resource: profile 'valve' of 'valve-1' has no 'Gone'"),
        ({"resource": "Open", "equals": "open"}, "during: equals: 'open' is no Bool"),
        ({"resource": "Open", "above": 1}, "during: above: valve-1/Open is a Bool, no number: use equals"),
    ],
)
def test_an_interlock_that_does_not_fit_the_profile_is_told(during: dict[str, Any], problem: str) -> None:
    lock = {"name": "x", "forbid": {"device": "later", "resource": "y", "equals": "1"}}
    known = rules({"interlocks": [lock | {"during": {"device": "valve-1"} | during}]})
    (told,) = site_problems(known.site, known.devices, known.profiles)
    assert told.startswith(f"interlocks[0].{problem}")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"resource": "Gone"}, "may[0]: resource: profile 'valve' of 'valve-1' has no 'Gone'"),
        ({"resource": "Temperature"}, "may[0]: resource: valve-1/Temperature is read-only"),
        ({"resource": "Setpoint", "maximum": 40}, "may[0]: maximum: 40 is outside the profile's range 5.0 to 30.0"),
        ({"resource": "Open", "minimum": 0}, "may[0]: minimum: valve-1/Open is a Bool, no number"),
        ({"resource": "Setpoint", "values": ["20", "warm"]}, "may[0]: values: 'warm' is no Float32"),
        ({"resource": "Setpoint", "values": ["45"]}, "may[0]: values: 45 is outside the profile's range"),
    ],
)
def test_a_permission_that_does_not_fit_the_profile_is_told_with_field_and_remedy(
    entry: dict[str, Any], problem: str
) -> None:
    known = rules()
    agent = AgentDefinition.model_validate(AGENT | {"may": [{"profile": "valve"} | entry]})
    (told,) = file_problems(agent, known.devices, known.profiles)
    assert told.startswith(problem)


def test_permissions_for_devices_that_do_not_exist_yet_are_no_problem() -> None:
    known = rules()
    agent = AgentDefinition.model_validate(AGENT | {"may": [{"profile": "later", "resource": "Anything"}]})
    assert file_problems(agent, known.devices, known.profiles) == []
