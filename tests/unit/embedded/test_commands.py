"""What core-command offers for a device, auto events that fit a profile, and tokens."""

from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.command import check_flags
from edgeagents.embedded.command_routes import bearer_guard, read_tokens
from edgeagents.embedded.profiles import check_auto_events, core_commands, dropped_auto_events, path_level
from edgeagents.errors import ConfigurationError, InvalidInputError


def resource(name: str, read_write: str = "RW", *, hidden: bool = False) -> dict[str, Any]:
    return {"name": name, "isHidden": hidden, "properties": {"valueType": "Bool", "readWrite": read_write}}


def command(name: str, *resources: str, hidden: bool = False) -> dict[str, Any]:
    operations = [{"deviceResource": each} for each in resources]
    return {"name": name, "isHidden": hidden, "readWrite": "RW", "resourceOperations": operations}


PROFILE = {
    "name": "p",
    "deviceResources": [
        resource("Power"),
        resource("Temp", "R"),
        resource("Key", "W"),
        resource("Secret", hidden=True),
    ],
    "deviceCommands": [
        command("All", "Power", "Secret"),
        command("Hidden", "Power", hidden=True),
        command("Temp", "Temp"),
    ],
}
DEVICE = {"name": "d", "profileName": "p"}


def test_hidden_things_are_no_commands_and_a_command_hides_its_resource() -> None:
    offered = {row["name"]: row for row in core_commands(DEVICE, PROFILE, "http://h:1")["coreCommands"]}
    assert list(offered) == ["All", "Temp", "Power", "Key"]
    assert offered["All"] == {
        "name": "All", "get": True, "set": True, "path": "/api/v3/device/name/d/All", "url": "http://h:1",
        "parameters": [
            {"resourceName": "Power", "valueType": "Bool"}, {"resourceName": "Secret", "valueType": "Bool"},
        ],
    }  # fmt: skip
    assert offered["Temp"]["set"] is True
    assert "get" not in offered["Key"]


def test_device_without_commands_has_no_list_of_them() -> None:
    empty = {"name": "p", "deviceResources": [], "deviceCommands": []}
    assert core_commands(DEVICE, empty, "u") == {"deviceName": "d", "profileName": "p"}


@pytest.mark.parametrize(
    ("source", "fits"), [("Power", True), ("All", True), ("P.*", True), ("p", False), ("Po", False)]
)
def test_auto_event_needs_a_source(source: str, fits: bool) -> None:
    device = DEVICE | {"autoEvents": [{"sourceName": "Temp"}, {"sourceName": source}]}
    kept = dropped_auto_events(device, PROFILE).get("autoEvents", [])
    assert [each["sourceName"] for each in kept] == ["Temp", source][: 1 + fits]
    if fits:
        check_auto_events(device, PROFILE)
        return
    with pytest.raises(InvalidInputError, match=f"'{source}' cannot be found in the device profile 'p'"):
        check_auto_events(device, PROFILE)


def test_auto_event_source_that_is_no_pattern_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="CompilePOSIX"):
        check_auto_events(DEVICE | {"autoEvents": [{"sourceName": "("}]}, PROFILE)


def test_names_are_escaped_only_where_they_must_be() -> None:
    assert path_level("P.*") == "P.*"
    assert path_level("a b/ü?#%") == "a%20b%2F%C3%BC%3F%23%25"


def test_flags_are_true_or_false() -> None:
    check_flags({"ds-pushevent": "true", "ds-returnevent": "false", "other": "maybe"})
    with pytest.raises(InvalidInputError, match="invalid query parameter, maybe has to be true or false"):
        check_flags({"ds-pushevent": "maybe"})


def test_token_file_is_lines_of_name_and_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# comment\n\nguard: abc:d\n'owner': x\n")
    assert read_tokens(path) == {"guard": "abc:d", "'owner'": "x"}


@pytest.mark.parametrize("text", ["", "guard", "guard:", ": x", "a: 1\na: 2", "a: b c"])
def test_token_file_without_a_token_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=str(path)):
        read_tokens(path)


def test_bearer_must_be_one_of_the_tokens() -> None:
    allowed = bearer_guard({"guard": "abc", "owner": "def"})
    assert allowed({b"authorization": b"Bearer def"})
    assert allowed({b"authorization": b"bearer abc"})
    for header in (b"", b"Bearer", b"Bearer ", b"Bearer ab", b"Basic abc", b"abc", b"Bearer abcdef"):
        assert not allowed({b"authorization": header})
    assert not allowed({})
