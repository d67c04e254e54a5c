"""`site.yaml`: the owner's word on each resource, closed by default."""

import copy
import math
from typing import Any

import pytest
from pydantic import ValidationError

from edgeagents.model.device import Device
from edgeagents.model.site import Site

SITE: dict[str, Any] = {
    "resources": [
        {
            "device": "radiator-*", "resource": "Setpoint", "risk_class": "A", "kind": "absolute",
            "minimum": 5, "maximum": 28, "minimum_interval": "1m",
            "proof": {"resource": "Setpoint", "tolerance": 0.1, "wait": "3s"},
        },
        {"profile": "boiler", "resource": "Power", "risk_class": "C", "minimum_on": "10m", "minimum_off": "5m"},
    ],
    "interlocks": [
        {
            "name": "window", "max_age": "2m",
            "forbid": {"device": "radiator-living", "resource": "Power", "equals": True},
            "during": {"device": "window-living", "resource": "Open", "equals": "true"},
        }
    ],
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the site above with one field changed."""
    tree: Any = copy.deepcopy(SITE)
    place = tree
    *way, last = path.split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    result: dict[str, Any] = tree
    return result


def test_a_site_is_understood() -> None:
    site = Site.model_validate(SITE)
    rule = site.rule_for(Device(name="radiator-1", profile_name="x"), "Setpoint")
    assert rule is not None
    assert rule.proof is not None
    assert (rule.minimum_interval, rule.proof.wait) == (60.0, 3.0)
    assert site.interlocks[0].forbid.equals == "true"


def test_what_is_not_declared_has_no_rule_and_what_is_says_no_until_told_otherwise() -> None:
    site = Site.model_validate({"resources": [{"device": "d", "resource": "r"}]})
    assert site.rule_for(Device(name="d"), "other") is None
    assert site.rule_for(Device(name="e"), "r") is None
    rule = site.rule_for(Device(name="d"), "r")
    assert rule is not None
    assert (rule.risk_class, rule.kind, rule.proof) == ("D", "step", None)


def test_the_first_rule_that_fits_counts() -> None:
    both = [{"device": "d*", "resource": "r", "risk_class": "C"}, {"device": "d1", "resource": "r", "risk_class": "A"}]
    rule = Site.model_validate({"resources": both}).rule_for(Device(name="d1"), "r")
    assert rule is not None
    assert rule.risk_class == "C"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("resource", [], "resource: Extra inputs are not permitted"),
        ("resources.0.risk", "A", "resources.0.risk: Extra inputs are not permitted"),
        ("resources.0.risk_class", "E", "resources.0.risk_class: Input should be 'A', 'B', 'C' or 'D'"),
        ("resources.0.kind", "ramp", "resources.0.kind: Input should be 'absolute', 'step' or 'toggle'"),
        ("resources.0.minimum", 30, "resources.0: Value error, minimum 30.0 is above maximum 28.0"),
        ("resources.0.maximum", math.nan, "resources.0.maximum: Input should be a finite number"),
        ("resources.0.minimum_interval", "often", "resources.0.minimum_interval: Value error, 'often' is no duration"),
        (
            "resources.0.minimum_interval",
            -1,
            "resources.0.minimum_interval: Input should be greater than or equal to 0",
        ),
        ("resources.0.device", "", "resources.0: Value error, name the devices by device, profile or label"),
        ("resources.0.proof.wait", "0s", "resources.0.proof.wait: Input should be greater than 0"),
        ("resources.0.proof.tolerance", -1, "resources.0.proof.tolerance: Input should be greater than or equal to 0"),
        ("interlocks.0.during.above", 3, "interlocks.0.during: Value error, give exactly one of equals, above, below"),
        ("interlocks.0.max_age", math.inf, "interlocks.0.max_age: Value error, 'inf' is no duration"),
        ("priority_hold", "-1s", "priority_hold: Value error, '-1s' is no duration"),
        ("interlocks", [SITE["interlocks"][0]] * 2, ": Value error, two interlocks have one name"),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Site.model_validate(changed(path, value))
    error = caught.value.errors()[0]
    assert f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}".startswith(complaint)


@pytest.mark.parametrize(("written", "text"), [(True, "true"), (False, "false"), (5, "5"), ("on", "on")])
def test_yaml_words_become_edgex_text(written: Any, text: str) -> None:
    site = Site.model_validate(changed("interlocks.0.during.equals", written))
    assert site.interlocks[0].during.equals == text
