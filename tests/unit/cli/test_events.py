"""Readings as lines and as JSON, whatever devices wrote into them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.cli.events import Wanted, body_of, line_of
from edgeagents.model.device import Event, Reading


def reading(**changes: Any) -> Reading:
    body = {"deviceName": "valve", "resourceName": "Setpoint", "valueType": "Float32", "value": "2.15e+01"}
    return Reading.model_validate({**body, "units": "°C", "origin": 1_700_000_000_000_000_000, **changes})


def event(*readings: Reading, **changes: Any) -> Event:
    return Event(**{"id": "e-1", "device_name": "valve", "origin": 1, "readings": readings or (reading(),), **changes})


def test_a_reading_is_one_line() -> None:
    line = line_of(event(), reading()).plain
    assert line == "2023-11-14 22:13:20.000  valve                Setpoint             21.5 °C"


def test_a_reading_as_json_has_its_typed_value() -> None:
    assert body_of(event(), reading()) == {
        "device": "valve", "resource": "Setpoint", "value": 21.5, "valueType": "Float32", "units": "°C",
        "originNs": 1_700_000_000_000_000_000, "event": "e-1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"valueType": "Bool", "value": "true"}, True),
        ({"value": "NaN"}, "nan"),
        ({"value": "warm"}, "warm"),
        ({"value": None}, None),
        ({"valueType": "Binary", "value": None, "binaryValue": "AAEC"}, "3 bytes"),
    ],
)
def test_every_kind_of_value_is_json(changes: dict[str, Any], value: object) -> None:
    body = body_of(event(), reading(**changes))
    assert body["value"] == value
    json.dumps(body, allow_nan=False)


def test_only_what_was_asked_for_is_shown() -> None:
    both = event(reading(), reading(resourceName="Open", valueType="Bool", value="true"))
    assert [item.resource_name for item in Wanted().of(both)] == ["Setpoint", "Open"]
    assert [item.resource_name for item in Wanted(resources=("Open",)).of(both)] == ["Open"]
    assert Wanted(devices=("pump",)).of(both) == []


@given(st.text(max_size=60), st.text(max_size=600), st.text(max_size=20))
def test_no_name_value_or_unit_moves_the_cursor(resource: str, value: str, units: str) -> None:
    hostile = reading(resourceName=resource, valueType="String", value=value, units=units)
    assert line_of(event(), hostile).plain.isprintable()
