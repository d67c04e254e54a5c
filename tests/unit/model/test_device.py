"""Events, readings, profiles and devices: EdgeX's JSON in and out, and what is refused."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, Event, Profile, Reading, make_reading
from edgeagents.model.values import Value

ORIGIN = 1_764_000_000_000_000_000


def reading(kind: str, value: Value) -> Reading:
    """Return a reading of device d that holds a value."""
    return make_reading("d", "p", "r", kind, value, ORIGIN, reading_id="i")


def profile() -> Profile:
    """Return a profile with a command over two resources and one that cannot be written."""
    return Profile.model_validate(
        {
            "name": "lamp",
            "labels": None,
            "deviceResources": [
                {"name": "Power", "properties": {"valueType": "bool", "readWrite": "RW"}},
                {"name": "Level", "properties": {"valueType": "Uint8", "readWrite": "W", "minimum": "0", "maximum": 9}},
                {"name": "Hours", "properties": {"valueType": "Float32", "readWrite": "R", "scale": ""}},
            ],
            "deviceCommands": [
                {
                    "name": "State",
                    "readWrite": "RW",
                    "resourceOperations": [{"deviceResource": "Power"}, {"deviceResource": "Level"}],
                },
                {"name": "Look", "readWrite": "R", "resourceOperations": [{"deviceResource": "Hours"}]},
            ],
        }
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Bool", False), ("Int64", -(2**63)), ("Uint64", 2**64 - 1), ("Float64", 21.5), ("String", ""),
        ("String", "1"), ("StringArray", ["a", ""]), ("BoolArray", []), ("Binary", b"\x00\xff"), ("Binary", b""),
        ("Object", {"a": None}), ("Object", {}), ("ObjectArray", [{"a": 1}, [2]]), ("Int8", None), ("Binary", None),
        ("Object", None),
    ],
)  # fmt: skip
def test_a_reading_gives_back_the_value_it_was_made_of(kind: str, value: Value) -> None:
    made = reading(kind, value)
    assert made.decoded() == value
    over_the_wire = Reading.model_validate(made.to_wire())
    assert over_the_wire.decoded() == value
    assert over_the_wire == made


@pytest.mark.parametrize(
    ("kind", "value"),
    [("Binary", "AA=="), ("Int8", 300), ("Bool", "true"), ("Object", b"x"), ("Float64", "1"), ("float64", 1.0)],
)
def test_a_reading_cannot_be_made_of_a_value_that_does_not_fit(kind: str, value: Value) -> None:
    with pytest.raises(InvalidInputError):
        reading(kind, value)


def test_text_stays_text_and_natural_json_stays_what_it_is() -> None:
    for value in ("1", "true", "", 1, 0, True, False, 1.5, [1, 2], None):
        found = Reading(value_type="String", value=value).value
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "natural", "value"),
    [
        ("Int8", 5, 5), ("Uint64", 2**64 - 1, 2**64 - 1), ("Float64", 25, 25.0), ("Float32", 0.5, 0.5),
        ("Bool", True, True), ("Int8Array", [1, 2], [1, 2]), ("BoolArray", [True, False], [True, False]),
        ("StringArray", ["a", "b"], ["a", "b"]), ("Float64Array", [1, 2.5], [1.0, 2.5]),
    ],
)  # fmt: skip
def test_natural_json_values_of_core_data_are_understood(kind: str, natural: Any, value: Value) -> None:
    found = Reading(value_type=kind, value=natural).decoded()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "fields",
    [
        {"value_type": "Int8", "value": "300"},
        {"value_type": "Bool", "value": 2},
        {"value_type": "Bool", "value": "maybe"},
        {"value_type": "Int8", "value": 1.5},
        {"value_type": "Binary", "binary_value": "not base64!"},
        {"value_type": "Binary", "binary_value": "AA"},
    ],
)
def test_a_value_that_is_none_of_its_type_is_refused_when_it_is_read(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Reading(**fields).decoded()


@given(
    st.dictionaries(
        st.sampled_from(["value", "binaryValue", "objectValue"]),
        st.text() | st.integers() | st.booleans() | st.none() | st.lists(st.integers()),
    ),
    st.sampled_from(["Int8", "Bool", "Float32", "StringArray", "Uint8Array", "Binary", "Object", "String"]),
)
def test_a_reading_of_anything_decodes_or_is_refused(fields: dict[str, Any], kind: str) -> None:
    try:
        Reading.model_validate({"valueType": kind, **fields}).decoded()
    except (ValidationError, InvalidInputError):
        return


def test_a_value_that_json_cannot_hold_is_not_turned_into_null_silently() -> None:
    wire = Reading(value_type="Object", object_value={"a": math.nan}).to_wire()
    assert math.isnan(wire["objectValue"]["a"])


def test_an_event_goes_to_the_wire_in_edgex_s_words() -> None:
    event = Event(
        id="e", device_name="d", profile_name="p", source_name="r", origin=ORIGIN, readings=(reading("Int8", 5),)
    )
    wire = event.to_wire()
    assert wire["deviceName"] == "d"
    assert wire["readings"][0]["valueType"] == "Int8"
    assert wire["readings"][0]["value"] == "5"
    assert "tags" not in wire
    assert Event.model_validate(wire) == event


def test_an_event_finds_its_readings_by_resource() -> None:
    event = Event(id="e", device_name="d", origin=ORIGIN, readings=(reading("Int8", 5),))
    assert event.reading("r") is event.readings[0]
    assert event.reading("other") is None


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""}, {"id": None}, {"deviceName": ""}, {"origin": 0}, {"origin": -1}, {"origin": 2**63},
        {"origin": "soon"}, {"readings": []}, {"readings": None}, {"readings": [{"value": "1"}]},
        {"readings": [{"valueType": "Int128", "value": "1"}]}, {"readings": [{"valueType": "Int8", "origin": 2**70}]},
        {"tags": ["a"]}, {"deviceName": "x" * 513},
    ],
)  # fmt: skip
def test_an_event_that_breaks_its_contract_is_refused(change: dict[str, Any]) -> None:
    good = {"id": "e", "deviceName": "d", "origin": ORIGIN, "readings": [{"valueType": "Int8", "value": "1"}]}
    Event.model_validate(good)
    with pytest.raises(ValidationError):
        Event.model_validate(good | change)


def test_unknown_keys_of_a_newer_edgex_are_ignored() -> None:
    event = {"id": "e", "deviceName": "d", "origin": ORIGIN, "hue": 7}
    readings = [{"valueType": "int8", "value": "1", "extension": {"a": 1}}]
    assert Event.model_validate({**event, "readings": readings}).readings[0].value_type == "Int8"


def test_a_profile_knows_what_each_command_sets() -> None:
    assert [resource.name for resource in profile().parameters("State")] == ["Power", "Level"]
    assert [resource.name for resource in profile().parameters("Level")] == ["Level"]


@pytest.mark.parametrize(("command", "word"), [("Look", "read-only"), ("Hours", "read-only"), ("Nope", "no command")])
def test_what_a_profile_cannot_set_is_refused_by_name(command: str, word: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{word}.*{command}|{command}.*{word}"):
        profile().parameters(command)


def test_a_command_over_a_resource_that_is_not_there_is_refused() -> None:
    broken = profile().model_copy(update={"device_resources": profile().device_resources[:1]})
    with pytest.raises(InvalidInputError, match="Level"):
        broken.parameters("State")


def test_limits_written_as_text_or_left_blank_are_understood() -> None:
    level, hours = profile().resource("Level"), profile().resource("Hours")
    assert level is not None
    assert hours is not None
    assert (level.properties.minimum, level.properties.maximum) == (0.0, 9.0)
    assert hours.properties.scale is None
    assert (hours.properties.is_readable, hours.properties.is_writable) == (True, False)


@pytest.mark.parametrize("properties", [{"readWrite": "X"}, {"valueType": "Int128"}, {"minimum": math.nan}])
def test_a_profile_with_wrong_properties_is_refused_by_field(properties: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Profile.model_validate(
            {
                "name": "p",
                "deviceResources": [{"name": "r", "properties": {"valueType": "Int8", "readWrite": "R"} | properties}],
            }
        )
    assert caught.value.errors()[0]["loc"] == ("deviceResources", 0, "properties", next(iter(properties)))


def test_a_device_with_nulls_where_lists_belong_is_understood() -> None:
    device = Device.model_validate(
        {"name": "d", "labels": None, "autoEvents": None, "protocols": {"other": {"Port": 1}}}
    )
    assert (device.labels, device.auto_events) == ((), ())
    assert device.to_wire()["protocols"] == {"other": {"Port": 1}}


def test_values_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        reading("Int8", 5).value = "6"  # type: ignore[misc]
