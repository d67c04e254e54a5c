"""A device service's entries in core-metadata, and the files they come from."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.provisioning import Inventory, load_inventory, provision
from edgeagents.errors import ConfigurationError, InvalidInputError, UpstreamError
from edgeagents.model.device import Device, Profile
from tests.unit.adapters.device_fakes import LAMP_PROFILE, MemoryMetadata, lamp, until

PROFILE = Profile.model_validate(LAMP_PROFILE)
URL = "http://127.0.0.1:59980"


async def bring(metadata: MemoryMetadata, *devices: Device, url: str = URL, profile: Profile = PROFILE) -> list[str]:
    metadata.calls.clear()
    inventory = Inventory((profile,), devices)
    await provision(cast(MetadataClient, metadata), "device-lamps", url, inventory, labels=["lamps"])
    return metadata.calls


async def test_everything_is_added_once_and_then_left_alone() -> None:
    metadata = MemoryMetadata()
    new = Device(name="lamp", profile_name="lamp-profile", protocols={"lamp": {"Address": "1"}})
    assert await bring(metadata, new) == ["add service device-lamps", "add profile lamp-profile", "add device lamp"]
    assert metadata.known_devices["lamp"].service_name == "device-lamps"
    assert metadata.known_services["device-lamps"].base_address == URL
    assert await bring(metadata, new) == []


async def test_what_changed_is_updated_and_the_owners_states_stay() -> None:
    metadata = MemoryMetadata()
    await bring(metadata, lamp(labels=("a",), auto_events=[{"interval": "1s", "sourceName": "Temp"}]))
    metadata.known_devices["lamp"] = metadata.known_devices["lamp"].model_copy(update={"admin_state": "LOCKED"})
    calls = await bring(
        metadata, lamp(labels=("b",)), url="http://127.0.0.1:1", profile=PROFILE.model_copy(update={"model": "2"})
    )
    assert calls == [
        "update service device-lamps ['baseAddress']",
        "update profile lamp-profile",
        "update device lamp ['autoEvents', 'labels']",
    ]
    assert metadata.known_devices["lamp"].admin_state == "LOCKED"
    assert metadata.known_devices["lamp"].auto_events == ()


async def test_a_device_of_another_service_is_never_touched(caplog: pytest.LogCaptureFixture) -> None:
    metadata = MemoryMetadata()
    metadata.known_devices["lamp"] = lamp(service_name="device-other")
    assert await bring(metadata, lamp()) == ["add service device-lamps", "add profile lamp-profile"]
    assert "belongs to service device-other" in caplog.text


async def test_it_waits_for_core_metadata(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("edgeagents.adapters.provisioning._RETRY_S", 0.005)
    metadata = MemoryMetadata()
    metadata.is_away = True
    waiting = asyncio.create_task(bring(metadata, lamp()))
    await until(lambda: "trying on" in caplog.text)
    metadata.is_away = False
    assert await asyncio.wait_for(waiting, 5)
    metadata.refuses = UpstreamError("status 500")
    caplog.clear()
    changing = asyncio.create_task(bring(metadata, lamp(labels=("x",))))
    await until(lambda: "trying on" in caplog.text)
    metadata.refuses = None
    assert await asyncio.wait_for(changing, 5) == ["update device lamp ['labels']"]


async def test_a_refusal_ends_the_start_with_its_reason() -> None:
    metadata = MemoryMetadata()
    metadata.refuses = InvalidInputError("value type Nope")
    with pytest.raises(ConfigurationError, match="refuses what device-lamps brings: value type Nope"):
        await bring(metadata, lamp())


GOOD_PROFILE = """
name: lamp-profile
deviceResources:
  - name: Power
    properties: {valueType: Bool, readWrite: RW}
deviceCommands:
  - name: State
    readWrite: RW
    resourceOperations: [{deviceResource: Power, mappings: {"true": "ON"}}]
"""
GOOD_DEVICES = """
deviceList:
  - name: lamp
    profileName: lamp-profile
    protocols: {lamp: {Address: 1}}
    autoEvents: [{interval: 10s, onChange: true, sourceName: State}]
"""


def write(folder: Path, **files: str) -> tuple[Path, Path]:
    for kind in ("profiles", "devices"):
        (folder / kind).mkdir()
    for name, text in files.items():
        kind, _, stem = name.partition("_")
        (folder / kind / f"{stem}.yaml").write_text(text)
    return folder / "profiles", folder / "devices"


def test_profiles_and_devices_are_read_from_edgex_files(tmp_path: Path) -> None:
    inventory = load_inventory(*write(tmp_path, profiles_lamp=GOOD_PROFILE, devices_all=GOOD_DEVICES))
    assert [profile.name for profile in inventory.profiles] == ["lamp-profile"]
    assert inventory.devices[0].auto_events[0].on_change is True
    assert inventory.devices[0].protocols == {"lamp": {"Address": 1}}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"profiles_a": GOOD_PROFILE, "profiles_b": GOOD_PROFILE}, "b.yaml: name: another file holds"),
        ({"profiles_a": GOOD_PROFILE.replace("Bool", "Nope")}, "a.yaml: deviceResources"),
        ({"profiles_a": GOOD_PROFILE.replace("{deviceResource: Power", "{deviceResource: Gone")}, "State: no device"),
        ({"devices_a": GOOD_DEVICES, "devices_b": GOOD_DEVICES}, "device 'lamp' is there twice"),
        ({"devices_a": GOOD_DEVICES.replace("10s", "soon")}, r"lamp: autoEvents\[0\].interval"),
        (
            {"profiles_a": GOOD_PROFILE, "devices_a": GOOD_DEVICES.replace("sourceName: State", "sourceName: X")},
            r"autoEvents\[0\].sourceName: profile 'lamp-profile' has no resource or command 'X'",
        ),
        ({"devices_a": "devices: []"}, "a.yaml: deviceList: missing"),
        ({"devices_a": "deviceList: ["}, "a.yaml, line"),
    ],
)
def test_a_wrong_file_is_named_with_field_and_remedy(tmp_path: Path, files: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_inventory(*write(tmp_path, **files))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        load_inventory(tmp_path / "nowhere", tmp_path)
