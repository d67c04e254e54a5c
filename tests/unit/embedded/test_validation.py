"""Shapes of EdgeX objects: what is read, and what is said about what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.embedded.contracts import (
    ADD_DEVICE,
    ADD_SERVICE,
    PROFILE,
    REGISTRATION,
    UPDATE_DEVICE,
    check_profile,
    read_many,
    read_one,
    read_profile_file,
)
from edgeagents.embedded.event_contract import EVENT, check_event
from edgeagents.embedded.http import UndecodableError
from edgeagents.embedded.validation import duration_s, load_json
from edgeagents.errors import InvalidInputError

DEVICE = {
    "name": "lamp", "serviceName": "s", "profileName": "p", "adminState": "UNLOCKED", "operatingState": "UP",
    "protocols": {"x": {"Address": 1}},
}  # fmt: skip
UUID = "6f9b1c1e-3a84-4b8a-9a4b-2d0f0a9d3d55"
READING = {
    "id": UUID, "origin": 1, "deviceName": "d", "profileName": "p", "resourceName": "r", "valueType": "uint8",
    "value": "5", "units": "%",
}  # fmt: skip
AN_EVENT = {
    "apiVersion": "v3", "id": UUID, "deviceName": "d", "profileName": "p", "sourceName": "r", "origin": 1,
    "readings": [READING],
}  # fmt: skip


def request(part: str, body: object, **more: object) -> dict[str, object]:
    return {"apiVersion": "v3", part: body, **more}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("100ms", 0.1), ("1.5h", 5400), ("2d", 172800), ("0", 0), ("-5s", -5), ("1us", 1e-6)],
)
def test_go_durations_are_understood(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5", "s", "5 s", "1h-5s", "1e3s", "10S"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert duration_s(text) is None


def test_device_is_read_in_edgex_order_with_its_defaults() -> None:
    row = read_one(ADD_DEVICE, request("device", {**DEVICE, "autoEvents": [{"interval": "1s", "sourceName": "r"}]})).row
    assert list(row) == [
        "name", "adminState", "operatingState", "serviceName", "profileName", "autoEvents", "protocols", "properties",
    ]  # fmt: skip
    assert row["autoEvents"] == [
        {
            "interval": "1s", "onChange": False, "onChangeThreshold": 0, "sourceName": "r",
            "retention": {"maxCap": 0, "minCap": 0, "duration": ""},
        }
    ]  # fmt: skip


def test_keys_are_matched_whatever_their_case_and_unknown_ones_ignored() -> None:
    given_row = {"NAME": "lamp", "BaseAddress": "http://h:1", "adminstate": "LOCKED", "colour": "red"}
    row = read_one(ADD_SERVICE, request("Service", given_row)).row
    assert row == {"name": "lamp", "baseAddress": "http://h:1", "adminState": "LOCKED", "properties": {}}


def test_everything_that_is_wrong_is_said_at_once() -> None:
    body = request("device", {"adminState": "OPEN", "autoEvents": [{"interval": "soon"}]}, requestId="7")
    with pytest.raises(InvalidInputError) as caught:
        read_one(ADD_DEVICE, body)
    told = str(caught.value).split("; ")
    assert told[:3] == [
        "AddDeviceRequest.BaseRequest.RequestId field needs a uuid",
        "AddDeviceRequest.Device.Name field is required",
        "AddDeviceRequest.Device.AdminState field should be one of 'LOCKED' 'UNLOCKED'",
    ]
    assert "AddDeviceRequest.Device.AutoEvents[0].SourceName field is required" in told
    assert "AddDeviceRequest.Device.Protocols field is required" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "  "}, "AddDeviceRequest.Device.Name field should not be empty string"),
        ({"name": 7}, "AddDeviceRequest.Device.Name: expected a text, got '7'"),
        ({"labels": "hall"}, "AddDeviceRequest.Device.Labels: expected a list of texts"),
        ({"protocols": {"x": 1}}, "AddDeviceRequest.Device.Protocols: expected a map of maps"),
        ({"autoEvents": {}}, "AddDeviceRequest.Device.AutoEvents: expected a list"),
        ({"autoEvents": [{"interval": "0s", "sourceName": "r"}]}, "AutoEvents[0].Interval field should follows"),
        (
            {"autoEvents": [{"interval": "1s", "sourceName": "r", "onChangeThreshold": -1}]},
            "AutoEvents[0].OnChangeThreshold field validation failed on the gte tag",
        ),
    ],
)
def test_wrong_field_is_named_with_its_path(change: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_one(ADD_DEVICE, request("device", DEVICE | change))
    assert told in str(caught.value)


def test_api_version_is_demanded() -> None:
    with pytest.raises(InvalidInputError, match=r"BaseRequest\.Versionable\.ApiVersion field is required"):
        read_one(ADD_DEVICE, {"device": DEVICE})


def test_change_holds_only_what_was_given() -> None:
    assert read_one(UPDATE_DEVICE, request("device", {"name": "lamp", "labels": []})).row == {
        "name": "lamp",
        "labels": [],
    }
    with pytest.raises(InvalidInputError, match="Name field is required if the Id is not present"):
        read_one(UPDATE_DEVICE, request("device", {"labels": ["x"]}))


@pytest.mark.parametrize("body", [None, 5, "x", [], True])
def test_body_of_another_shape_is_undecodable(body: object) -> None:
    with pytest.raises(UndecodableError):
        read_one(REGISTRATION, body)
    if not isinstance(body, list):
        with pytest.raises(UndecodableError):
            read_many(REGISTRATION, body)


def profile(**change: object) -> dict[str, object]:
    resource = {"name": "Level", "properties": {"valueType": "uint8", "readWrite": "R", "minimum": 0}}
    return {"name": "p", "deviceResources": [resource], "deviceCommands": []} | change


def test_profile_keeps_a_minimum_of_zero_and_gets_edgex_spelling() -> None:
    row = check_profile(read_one(PROFILE, request("profile", profile())).row)
    assert row["deviceResources"][0]["properties"] == {"valueType": "Uint8", "readWrite": "R", "minimum": 0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"deviceResources": [{"name": "B", "properties": {"valueType": "Binary", "readWrite": "RW"}}]},
            "write permission not support Binary value type for resource 'B'",
        ),
        (
            {"deviceResources": [{"name": "B", "properties": {"valueType": "Bool", "readWrite": "R"}}] * 2},
            "device resource B is duplicated",
        ),
        (
            {"deviceCommands": [{"name": "C", "readWrite": "R", "resourceOperations": [{"deviceResource": "X"}]}]},
            "device command's resource X doesn't match any device resource",
        ),
        (
            {"deviceCommands": [{"name": "C", "readWrite": "W", "resourceOperations": [{"deviceResource": "Level"}]}]},
            "device command's ReadWrite permission 'W' doesn't align the device resource",
        ),
        (
            {
                "deviceCommands": [{"name": "C", "readWrite": "R", "resourceOperations": [{"deviceResource": "Level"}]}]
                * 2
            },
            "device command C is duplicated",
        ),
    ],
)
def test_profile_whose_parts_do_not_fit_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_profile(read_one(PROFILE, request("profile", profile(**change))).row)
    assert str(caught.value) == told


def test_profile_file_may_write_texts_as_numbers_and_truth_values() -> None:
    properties = {"valueType": "Bool", "readWrite": "RW", "defaultValue": False}
    operations = [{"deviceResource": "Power", "mappings": {True: 1}}]
    row = read_profile_file(
        {
            "name": "p",
            "model": 3,
            "deviceResources": [{"name": "Power", "properties": properties}],
            "deviceCommands": [{"name": "C", "readWrite": "RW", "resourceOperations": operations}],
        }
    )
    assert row["model"] == "3"
    assert row["deviceResources"][0]["properties"]["defaultValue"] == "false"
    assert row["deviceCommands"][0]["resourceOperations"][0]["mappings"] == {"true": "1"}


def test_event_is_kept_without_the_ids_of_its_readings() -> None:
    event = check_event(read_one(EVENT, request("event", AN_EVENT)).row)
    assert event["readings"] == [
        {
            "origin": 1, "deviceName": "d", "resourceName": "r", "profileName": "p", "valueType": "Uint8",
            "units": "%", "value": "5",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"value": None}, {"value": None, "binaryValue": None, "objectValue": None}),
        ({"valueType": "Object", "value": None, "objectValue": {"a": 1}}, {"objectValue": {"a": 1}}),
        (
            {"valueType": "Binary", "value": None, "binaryValue": "YQ==", "mediaType": "text/plain"},
            {"binaryValue": "YQ==", "mediaType": "text/plain"},
        ),
    ],
)
def test_reading_keeps_the_value_of_its_kind(change: dict[str, object], kept: dict[str, object]) -> None:
    event = check_event(read_one(EVENT, request("event", AN_EVENT | {"readings": [READING | change]})).row)
    values = {key: event["readings"][0][key] for key in event["readings"][0] if "alue" in key or key == "mediaType"}
    values.pop("valueType")
    assert values == kept


@pytest.mark.parametrize(
    "change",
    [
        {"value": "256"}, {"value": "x"}, {"value": 5}, {"valueType": "Binary", "binaryValue": "%%"},
        {"valueType": "Binary", "binaryValue": "YQ=="}, {"origin": 2**63}, {"valueType": "Colour"},
    ],
)  # fmt: skip
def test_reading_whose_value_does_not_fit_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        check_event(read_one(EVENT, request("event", AN_EVENT | {"readings": [READING | change]})).row)


@pytest.mark.parametrize("data", [b"NaN", b'{"a": Infinity}', b'"\\ud800"', b'"\\uD800x"', b"", b"\xff"])
def test_json_that_could_not_be_written_again_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        load_json(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.sampled_from([ADD_DEVICE, UPDATE_DEVICE, PROFILE, REGISTRATION, EVENT, ADD_SERVICE]))
def test_any_json_is_read_or_refused_with_a_reason(body: object, kind: object) -> None:
    reasons = []
    for whole in (body, {"apiVersion": "v3", kind.part.lower(): body}):  # type: ignore[attr-defined]
        try:
            read_one(kind, whole)  # type: ignore[arg-type]
        except (InvalidInputError, UndecodableError) as error:
            reasons.append(str(error))
    assert all(reasons)


@given(JSON)
def test_what_is_loaded_can_be_written(body: object) -> None:
    data = json.dumps(body).encode()
    try:
        value = load_json(data)
    except ValueError:
        return
    assert json.dumps(value, ensure_ascii=False).encode()
