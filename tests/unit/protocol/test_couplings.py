"""What the owner's files couple: tags and conditions that mean something, and those that would mean nothing."""

import pytest

from edgeagents.errors import InvalidInputError
from edgeagents.model.site import Interlock, Site
from edgeagents.protocol.couplings import couplings_of, kinds_of, meets
from tests.unit.protocol.test_conflicts import condition, device, profile


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ({"exclusive": 5}, "write a word or a list of words"),
        ({"exclusive": "zone", "active": "on"}, "tag 'active'"),
        ({"exclusive": "zone", "active": {"equals": "open"}}, "is no Bool"),
        ({"effect": "vent", "against": "vent"}, "need 'within', too"),
        ({"effect": "vent", "within": "room"}, "need 'against', too"),
        ({"effect": "vent", "against": "vnet", "within": "room"}, "no profile has the effect 'vnet', known: vent"),
    ],
)
def test_a_tag_that_cannot_be_understood_names_its_resource(tags: dict, problem: str) -> None:
    profiles = {"P": profile("P", "Enter", "Bool", **tags)}
    devices = {"d": device("d", "P", "zone:1"), "e": device("e", "P", "zone:1")}
    with pytest.raises(InvalidInputError, match=problem) as caught:
        couplings_of(Site(), devices, profiles)
    assert "Enter" in str(caught.value)


def test_an_interlock_whose_value_its_resource_cannot_have_is_refused() -> None:
    profiles, devices = {"P": profile("P", "Open", "Bool")}, {"w": device("w", "P")}
    assert kinds_of(devices, profiles) == {("w", "Open"): "Bool"}
    heat = condition("v", "S", above=18)
    for text, is_sound in (("1", True), ("wide", False)):
        site = Site(interlocks=(Interlock(name="l", forbid=heat, during=condition("w", "Open", equals=text)),))
        if is_sound:
            assert len(couplings_of(site, devices, profiles)) == 1
            continue
        with pytest.raises(InvalidInputError, match="w/Open equals: 'wide' is no Bool"):
            couplings_of(site, devices, profiles)


@pytest.mark.parametrize(
    ("what", "value", "expected"),
    [
        ({"equals": "true"}, True, True),
        ({"equals": "2.10e+01"}, 21.0, True),
        ({"equals": "green"}, "green", True),
        ({"equals": "1"}, True, True),
        ({"equals": "0"}, True, False),
        ({"equals": "on"}, True, False),
        ({"above": 18}, 18.0, False),
        ({"above": 0}, True, False),
        ({"below": 3}, b"x", False),
        ({"below": 3}, None, False),
    ],
)
def test_a_condition_is_met_by_what_it_describes(what: dict, value: object, expected: bool) -> None:
    assert meets(condition("d", "r", **what), value) is expected  # type: ignore[arg-type]
