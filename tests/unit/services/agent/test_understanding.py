"""What a sentence means in houses other than the labelled one: dimmers without a switch, several fans, pumps."""

from typing import Any

import pytest

from edgeagents.model.device import Device, Profile
from edgeagents.model.words import Words
from services.agent.house import House, house_of
from services.agent.phrases import Phrase
from services.agent.understanding import Act, AskBack, Cannot, understand
from tests.bench.ask_set import State


def profile(name: str, resource: str, value_type: str, highest: float, units: str = "", about: str = "") -> Profile:
    properties: dict[str, Any] = {
        "valueType": value_type, "readWrite": "RW", "units": units, "minimum": 0, "maximum": highest,
    }  # fmt: skip
    return Profile.model_validate({
        "name": name, "deviceResources": [{"name": resource, "description": about, "properties": properties}]
    })  # fmt: skip


PROFILES = {item.name: item for item in (
    profile("Lamp", "Brightness", "Uint8", 100, "%", "brightness"), profile("Pump", "Speed", "Uint16", 3000, "rpm"),
    profile("Air-Compressor", "Level", "Uint8", 3), profile("Ventilation-Unit", "Level", "Uint8", 3),
)}  # fmt: skip


def house(words: Words | None = None, **names: str) -> House:
    """Return a house of devices by profile; what stands before the dash of a name is its room."""
    rooms = {name: room for name in names if (room := name.partition("_")[0]) in ("office", "bedroom", "kitchen")}
    known = [
        Device(name=name, profile_name=kind, labels=("room", rooms[name]) if name in rooms else ())
        for name, kind in names.items()
    ]  # fmt: skip
    return house_of(known, PROFILES, words or Words())


def sets(phrase: Phrase, there: House, **levels: float) -> dict[str, Any]:
    """Return what is to be set to what, by device."""
    found = understand(phrase, there, State({(name, "Level"): value for name, value in levels.items()}))
    assert isinstance(found, Act), found
    return {item.device: item.value for item in found.intents}


def test_a_dimmer_without_a_switch_is_dimmed_to_nothing() -> None:
    dark = Phrase("brightness", room="office", number=0.0, is_share=True)
    assert sets(dark, house(office_dimmer="Lamp")) == {"office_dimmer": 0}


@pytest.mark.parametrize(("fans", "room", "speed_up"), [
    ({"bedroom_fan": "Ventilation-Unit", "kitchen_fan": "Ventilation-Unit"}, "bedroom", {"bedroom_fan": 2}),
    ({"bedroom_fan": "Ventilation-Unit", "fan": "Ventilation-Unit"}, "bedroom", {"bedroom_fan": 2}),
    ({"kitchen_fan": "Ventilation-Unit", "fan": "Ventilation-Unit"}, "bedroom", {"fan": 2}),
    ({"fan": "Ventilation-Unit"}, "", {"fan": 2}),
])  # fmt: skip
def test_where_it_is_stuffy_that_rooms_ventilation_runs_faster_and_nothing_else(
    fans: dict[str, str], room: str, speed_up: dict[str, int]
) -> None:
    there = house(bedroom_lamp="Lamp", pump="Pump", bedroom_pump="Pump", compressor="Air-Compressor", **fans)
    assert sets(Phrase("fresher", room=room), there, bedroom_fan=1, kitchen_fan=1, fan=1) == speed_up


def test_with_several_fans_and_no_room_named_the_room_is_asked_for() -> None:
    there = house(bedroom_fan="Ventilation-Unit", kitchen_fan="Ventilation-Unit")
    assert understand(Phrase("fresher"), there, State({})) == AskBack("room", ("bedroom", "kitchen"))


def test_without_ventilation_a_stuffy_room_speeds_up_no_pump() -> None:
    there = house(bedroom_lamp="Lamp", pump="Pump", compressor="Air-Compressor")
    assert understand(Phrase("fresher", room="bedroom"), there, State({})) == Cannot("no-such-thing", "bedroom")


def test_a_level_of_anything_but_ventilation_is_one_if_the_owner_says_so() -> None:
    said = Words.model_validate({"things": [{"profile": "Pump", "resources": {"level": "Speed"}}]})
    assert [item.roles for item in house(pump="Pump").things] == [{}]
    assert [item.roles for item in house(said, pump="Pump").things] == [{"level": "Speed"}]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), b"x", True, None])
def test_a_level_that_is_no_number_is_taken_as_unknown(value: Any) -> None:
    assert sets(Phrase("fresher"), house(fan="Ventilation-Unit"), fan=value) == {"fan": 2}
