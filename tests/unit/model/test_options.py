"""What an agent may answer follows from its permissions, and is never more than the gate would let through."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.model import options
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device, Profile
from edgeagents.model.options import Options, Slot, options_of
from edgeagents.model.values import Value
from edgeagents.protocol.fitting import within

Key = tuple[str, str]


def profile(**resources: dict[str, Any]) -> Profile:
    """Return a profile of resources, writable numbers unless they say otherwise."""
    usual = {"valueType": "Float32", "readWrite": "RW"}
    made = [{"name": name, "properties": usual | properties} for name, properties in resources.items()]
    return Profile.model_validate({"name": "P", "deviceResources": made})


def options_for(
    found: Profile, *permissions: dict[str, Any], present: Mapping[Key, Value] | None = None, **more: Any
) -> Options:
    agent = AgentDefinition.model_validate(
        {"name": "air", "watches": [{"profile": "P"}], "may": [{"profile": "P", **item} for item in permissions]}
    )
    return options_of(agent, {"d": Device(name="d", profile_name="P")}, {"P": found}, present, **more)


def test_nothing_is_offered_that_no_permission_names() -> None:
    found = profile(Setpoint={}, Other={}, Fixed={"readWrite": "R"})
    assert [slot.resource for slot in options_for(found, {"resource": "Setpoint"}, {"resource": "Fixed"}).slots] == [
        "Setpoint"
    ]


def test_a_number_keeps_to_the_narrower_of_profile_and_permission() -> None:
    found = profile(Setpoint={"minimum": 5, "maximum": 22.55})
    (slot,) = options_for(found, {"resource": "Setpoint", "minimum": 14.04, "maximum": 30}).slots
    assert (slot.lowest, slot.highest, slot.decimals) == (141, 225, 1)
    assert not options_for(found, {"resource": "Setpoint", "minimum": 23}).slots


def test_whole_numbers_are_exact_up_to_the_ends_of_their_type() -> None:
    (slot,) = options_for(profile(N={"valueType": "Uint64"}), {"resource": "N"}).slots
    assert (slot.lowest, slot.highest, slot.decimals) == (0, 2**64 - 1, 0)
    (slot,) = options_for(profile(N={"valueType": "Int8"}), {"resource": "N", "minimum": -3.5}).slots
    assert (slot.lowest, slot.highest) == (-3, 127)


def test_a_step_is_measured_from_the_present_value_and_nothing_is_offered_while_it_is_unknown() -> None:
    found, step = profile(Setpoint={"minimum": 5, "maximum": 30}), {"resource": "Setpoint", "max_step": 0.1}
    assert not options_for(found, step).slots
    assert not options_for(found, step, present={("d", "Setpoint"): True}).slots
    assert not options_for(found, step, present={("d", "Setpoint"): float("nan")}).slots
    (slot,) = options_for(found, step, present={("d", "Setpoint"): 21.4}).slots
    scale = 10**slot.decimals
    assert (slot.lowest / scale, slot.highest / scale) == (21.3, 21.5)


def test_permitted_values_are_those_that_the_profile_holds() -> None:
    found = profile(Mode={"valueType": "String"}, Level={"valueType": "Int16", "maximum": 3})
    (mode, level) = options_for(
        found,
        {"resource": "Mode", "values": ["eco", "eco", "comfort"]},
        {"resource": "Level", "values": ["1", "9", "x"]},
    ).slots
    assert (mode.values, level.values) == (("eco", "comfort"), ("1",))


def test_limits_let_nothing_through_that_is_no_number() -> None:
    found = profile(On={"valueType": "Bool"}, Text={"valueType": "String"}, Raw={"valueType": "Binary"})
    assert not options_for(found, {"resource": "On", "maximum": 1}, {"resource": "Text", "minimum": 0}).slots
    assert not options_for(found, {"resource": "Raw"}).slots
    assert len(options_for(found, {"resource": "On"}, {"resource": "Text"}).slots) == 2


def test_only_what_the_site_declares_is_offered_and_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profile(A={}, B={})
    may = ({"resource": "A"}, {"resource": "B"})
    assert [slot.resource for slot in options_for(found, *may, declared={("d", "B")}).slots] == ["B"]
    monkeypatch.setattr(options, "MOST_SLOTS", 1)
    with pytest.raises(InvalidInputError, match="narrow"):
        options_for(found, *may)


def test_the_digest_changes_with_what_may_be_answered_and_with_nothing_else() -> None:
    slot = Slot(device="d", resource="r", kind="Bool")
    assert Options(slots=(slot,)).digest == Options(slots=(slot.model_copy(),)).digest
    assert Options(slots=(slot,)).digest != Options(slots=(slot,), most_text=20).digest


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "Binary"},
        {"kind": "Int8", "lowest": 2, "highest": 1},
        {"kind": "Int8", "values": ("x",)},
        {"kind": "Float64", "values": ("NaN",)},
        {"kind": "Float64", "lowest": -(10**4000)},
    ],
)
def test_a_slot_that_nothing_fits_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Slot.model_validate({"device": "d", "resource": "r", **wrong})


bounds = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 3)))


@given(bounds, bounds, bounds, bounds, st.sampled_from(["Float32", "Float64", "Int16", "Uint8"]))
def test_every_number_of_a_slot_is_within_all_limits(
    low: float | None, high: float | None, least: float | None, most: float | None, kind: str
) -> None:
    if low is not None and high is not None and low > high:
        low, high = high, low
    found = profile(N={"valueType": kind, "minimum": least, "maximum": most})
    for slot in options_for(found, {"resource": "N", "minimum": low, "maximum": high}).slots:
        for steps in (slot.lowest, slot.highest, (slot.lowest + slot.highest) // 2):
            value = steps / 10**slot.decimals if slot.decimals else steps
            assert within(value, low, high)
            assert within(value, least, most)
