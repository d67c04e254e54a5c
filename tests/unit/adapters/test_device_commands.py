"""GET and SET planned from a profile, as device services answer them."""

import itertools
from typing import Any

import pytest

from edgeagents.adapters.device_commands import (
    Options,
    Part,
    Query,
    check_states,
    event_to_wire,
    make_event,
    parse_query,
    plan_read,
    plan_write,
    written_event,
)
from edgeagents.errors import EdgeAgentsError, InvalidInputError, LockedError, NotAllowedError, NotFoundError
from edgeagents.model.device import Device, Profile
from tests.unit.adapters.device_fakes import LAMP_PROFILE, lamp

PROFILE = Profile.model_validate(LAMP_PROFILE)


def names(parts: list[Part]) -> list[str]:
    return [part.resource.name for part in parts]


def writes(command: str, settings: dict[str, Any], options: Options | None = None) -> dict[str, Any]:
    return {
        item.resource.name: item.raw for item in plan_write(PROFILE, "lamp", command, settings, options or Options())
    }


def ids() -> Any:
    counter = itertools.count(1)
    return lambda: f"id-{next(counter)}"


def test_a_get_reads_a_resource_a_command_or_a_pattern() -> None:
    assert names(plan_read(PROFILE, "lamp", "Level")) == ["Level"]
    assert names(plan_read(PROFILE, "lamp", "State")) == ["Power", "Level"]
    assert names(plan_read(PROFILE, "lamp", "(Level|Temp)")) == ["Level", "Temp"]


def test_a_pattern_names_resources_in_full() -> None:
    # "Level" is no pattern for "LevelTwo": a name always means itself alone.
    assert names(plan_read(PROFILE, "lamp", "Lev.*")) == ["Level"]
    with pytest.raises(NotFoundError, match="Regex DeviceResource Lev not found"):
        plan_read(PROFILE, "lamp", "Lev")


@pytest.mark.parametrize(
    ("command", "regex", "error", "text"),
    [
        ("Nope", True, NotFoundError, "Regex DeviceResource Nope not found"),
        ("Nope", False, NotFoundError, "DeviceResource Nope not found"),
        ("Secret", True, NotAllowedError, "no readable resources matched with Secret"),
        ("Secret", False, NotAllowedError, "DeviceResource Secret is marked as write-only"),
        ("Reset", True, NotAllowedError, "DeviceCommand Reset is marked as write-only"),
        ("Broken", True, EdgeAgentsError, "DeviceResource Gone in GET command Broken for lamp not defined"),
        ("(((", True, NotFoundError, "Regex DeviceResource ((( not found"),
        ("L" * 300, True, NotFoundError, "Regex DeviceResource"),
    ],
)
def test_what_cannot_be_read_is_said_in_edgex_words(command: str, regex: bool, error: type, text: str) -> None:
    with pytest.raises(error) as caught:
        plan_read(PROFILE, "lamp", command, regex=regex)
    assert str(caught.value).startswith(text)
    assert type(caught.value) is error


def test_a_command_of_too_many_resources_is_refused() -> None:
    with pytest.raises(EdgeAgentsError, match=r"exceed device lamp MaxCmdOps \(1\)"):
        plan_read(PROFILE, "lamp", "State", most_operations=1)
    with pytest.raises(EdgeAgentsError, match="SET command State exceed"):
        writes("State", {}, Options(most_operations=1))


def test_a_set_takes_mapped_values_and_defaults_and_ignores_unknown_names() -> None:
    assert writes("State", {"Power": "ON", "Level": "40"}) == {"Power": True, "Level": 40}
    assert writes("State", {"Power": "true", "Nope": "1"}) == {"Power": True, "Level": 5}
    assert writes("State", {}) == {"Power": False, "Level": 5}
    assert writes("Level", {}) == {"Level": 0}
    assert writes("Level", {"Level": None}) == {"Level": 0}


@pytest.mark.parametrize(
    ("command", "settings", "error", "text"),
    [
        ("Nope", {}, NotFoundError, "DeviceResource Nope not found"),
        ("Temp", {"Temp": "1"}, NotAllowedError, "DeviceResource Temp is marked as read-only"),
        ("Show", {"Level": "1"}, NotAllowedError, "DeviceCommand Show is marked as read-only"),
        ("Secret", {}, InvalidInputError, "DeviceResource Secret not found in request body and no default value"),
        ("Level", {"Level": "101"}, InvalidInputError, "failed to transform set parameter -> set command parameter"),
        ("State", {"Power": "maybe"}, InvalidInputError, "failed to create CommandValue -> failed to convert set"),
        ("Broken", {}, EdgeAgentsError, "DeviceResource Gone in SET command Broken for lamp not defined"),
    ],
)
def test_what_cannot_be_set_is_said_in_edgex_words(command: str, settings: Any, error: type, text: str) -> None:
    with pytest.raises(error) as caught:
        writes(command, settings)
    assert str(caught.value).startswith(text)


def test_an_event_holds_one_reading_for_each_part_as_edgex_writes_it() -> None:
    parts = plan_read(PROFILE, "lamp", "State")
    event = make_event(lamp(), "State", parts, [True, 40], origin_ns=7, make_id=ids(), options=Options())
    assert event_to_wire(event) == {
        "apiVersion": "v3", "id": "id-3", "deviceName": "lamp", "profileName": "lamp-profile", "sourceName": "State",
        "origin": 7,
        "readings": [
            {"id": "id-1", "origin": 7, "deviceName": "lamp", "resourceName": "Power", "profileName": "lamp-profile",
             "valueType": "String", "value": "ON"},
            {"id": "id-2", "origin": 7, "deviceName": "lamp", "resourceName": "Level", "profileName": "lamp-profile",
             "valueType": "Uint8", "units": "%", "value": "40"},
        ],
    }  # fmt: skip


def test_units_and_null_readings_follow_edgex() -> None:
    parts = plan_read(PROFILE, "lamp", "Level")
    event = make_event(lamp(), "Level", parts, [None], origin_ns=7, make_id=ids(), options=Options(units=False))
    reading = event_to_wire(event)["readings"][0]
    assert "units" not in reading
    assert (reading["value"], reading["binaryValue"], reading["objectValue"]) == (None, None, None)


def test_a_driver_that_gives_other_values_than_asked_for_is_an_error() -> None:
    parts = plan_read(PROFILE, "lamp", "State")
    with pytest.raises(EdgeAgentsError, match="read 1 values of lamp, not 2"):
        make_event(lamp(), "State", parts, [True], origin_ns=7, make_id=ids(), options=Options())
    with pytest.raises(EdgeAgentsError, match="read Level of lamp as str") as caught:
        make_event(lamp(), "State", parts, [True, "40"], origin_ns=7, make_id=ids(), options=Options())
    assert not isinstance(caught.value, InvalidInputError)  # the driver is wrong, not the caller


def test_a_set_is_told_as_an_event_unless_nothing_of_it_can_be_read() -> None:
    device: Device = lamp()
    told = written_event(
        device, "State", plan_write(PROFILE, "lamp", "State", {"Power": "ON"}, Options()),
        origin_ns=7, make_id=ids(), options=Options(),
    )  # fmt: skip
    assert told is not None
    assert {reading.resource_name: reading.value for reading in told.readings} == {"Power": "true", "Level": "5"}
    secret = plan_write(PROFILE, "lamp", "Secret", {"Secret": "x"}, Options())
    assert written_event(device, "Secret", secret, origin_ns=7, make_id=ids(), options=Options()) is None


def test_reserved_query_parameters_are_true_or_false() -> None:
    assert parse_query({}) == Query(push_event=False, return_event=True, regex=True)
    assert parse_query(
        {"ds-pushevent": "true", "ds-returnevent": "false", "ds-regexcmd": "false", "own": "x"}
    ) == Query(push_event=True, return_event=False, regex=False)
    with pytest.raises(InvalidInputError, match="invalid query parameter, maybe has to be true or false"):
        parse_query({"ds-pushevent": "maybe"})


def test_locked_and_down_devices_take_no_commands() -> None:
    check_states(lamp(), False)
    for device, locked, text in (
        (lamp(), True, "service locked"),
        (lamp(admin_state="LOCKED"), False, "device lamp locked"),
        (lamp(operating_state="DOWN"), False, "device lamp OperatingState is DOWN"),
    ):
        with pytest.raises(LockedError, match=text):
            check_states(device, locked)
