"""What files name and core-metadata does not know; which permissions come to nothing."""

from typing import Any

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device
from edgeagents.model.site import Site
from edgeagents.protocol.fitting import absences, site_absences, undeclared

VALVE = Device(name="valve-1", profile_name="Valve", labels=("room",))
DEVICES = {"valve-1": VALVE}


def agent(**changes: Any) -> AgentDefinition:
    body = {"name": "air", "watches": [{"device": "valve-1"}], **changes}
    return AgentDefinition.model_validate(body)


def rule(reads: str, sets: str, **changes: Any) -> dict[str, Any]:
    return {"name": "r", "given": {"t": f"{reads}/T"}, "when": "t > 1.0",
            "set": {"device": sets, "resource": "Setpoint", "value": 1}, **changes}  # fmt: skip


def test_what_is_there_is_not_missing() -> None:
    found = agent(may=[{"profile": "Valve", "resource": "Setpoint"}], rules=[rule("valve-1", "valve-1")])
    assert absences(found, DEVICES) == []


def test_a_device_that_no_file_of_edgex_knows_is_named_once() -> None:
    found = agent(
        watches=[{"device": "valve-2"}], may=[{"device": "valve-2", "resource": "S"}],
        rules=[rule("valve-2", "valve-2")],
    )  # fmt: skip
    assert absences(found, DEVICES) == ["device 'valve-2'"]


def test_a_profile_or_label_without_devices_is_named_as_such() -> None:
    found = agent(watches=[{"profile": "Lamp"}, {"label": "attic"}, {"device": "v*", "profile": "Lamp"}])
    assert absences(found, DEVICES) == [
        "any device of profile 'Lamp'", "any device of label 'attic'", "any device of device 'v*' and profile 'Lamp'",
    ]  # fmt: skip


def test_the_words_of_a_rule_are_filled_in() -> None:
    each = rule("valve-{n}", "valve-1", name="r-{n}", for_each={"n": ["1", "2"]})
    assert absences(agent(rules=[each]), DEVICES) == ["device 'valve-2'"]


def test_a_topic_is_no_device() -> None:
    assert absences(agent(watches=[{"topic": "rules/agents"}]), DEVICES) == []


def test_what_a_rule_engine_posts_is_no_device() -> None:
    assert absences(agent(rules=[rule("rule", "valve-1")]), DEVICES) == []


def test_what_a_rule_engine_says_on_a_topic_may_have_any_name_unless_it_is_watched_as_a_device() -> None:
    watches = [{"topic": "rules/agents"}, {"device": "valve-*", "profile": "Valve"}]
    rules = [rule("ekuiper", "valve-1"), rule("valve-2", "valve-1", name="s")]
    assert absences(agent(watches=watches, rules=rules), DEVICES) == ["device 'valve-2'"]
    assert absences(agent(watches=watches, rules=[rule("valve-1", "ekuiper")]), DEVICES) == ["device 'ekuiper'"]
    assert absences(agent(rules=rules), DEVICES) == ["device 'ekuiper'", "device 'valve-2'"]


def test_site_entries_and_interlocks_are_looked_at() -> None:
    lock = {"name": "l", "forbid": {"device": "valve-1", "resource": "O", "equals": True},
            "during": {"device": "pump", "resource": "O", "equals": True}}  # fmt: skip
    site = Site.model_validate({"resources": [{"profile": "Lamp", "resource": "S"}], "interlocks": [lock]})
    assert site_absences(site, DEVICES) == ["any device of profile 'Lamp'", "device 'pump'"]


def test_a_permission_that_the_site_does_not_declare_or_forbids_is_named() -> None:
    found = agent(may=[{"profile": "Valve", "resource": "Open"}, {"profile": "Valve", "resource": "Setpoint"}])
    site = Site.model_validate({"resources": [{"profile": "Valve", "resource": "Setpoint", "risk_class": "D"}]})
    assert undeclared(found, site, DEVICES) == [
        "may[0]: valve-1/Open is not declared in site.yaml",
        "may[1]: valve-1/Setpoint is of risk class D in site.yaml: never commanded by agents",
    ]
    good = [{"profile": "Valve", "resource": name, "risk_class": "A"} for name in ("Open", "Setpoint")]
    assert undeclared(found, Site.model_validate({"resources": good}), DEVICES) == []
