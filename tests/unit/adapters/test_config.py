"""Configuration as values: merging, types, overrides, what may be shown."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.config import (
    HIDDEN,
    changes,
    duration_s,
    flatten,
    lookup,
    merge,
    override,
    parse_yaml,
    read_yaml,
    shown,
    typed,
    unflatten,
    variable_of,
)
from edgeagents.adapters.defaults import common_defaults, private_defaults
from edgeagents.errors import ConfigurationError

NAMES = st.text("abcXYZ-_", min_size=1, max_size=6)
LEAVES = st.one_of(st.booleans(), st.integers(-(2**31), 2**31), st.text("abc 1,é", max_size=8))
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(NAMES, LEAVES | inner, min_size=1, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_a_tree_survives_being_flattened(tree: dict[str, Any]) -> None:
    assert unflatten(flatten(tree)) == tree


@given(TREES)
def test_keepers_text_takes_the_types_of_the_defaults_again(tree: dict[str, Any]) -> None:
    as_text = unflatten({path: str(leaf).lower() if isinstance(leaf, bool) else str(leaf)
                         for path, leaf in flatten(tree).items()})  # fmt: skip
    assert typed(as_text, tree) == tree


@given(TREES, TREES)
def test_what_the_later_tree_says_counts(first: dict[str, Any], second: dict[str, Any]) -> None:
    merged = merge(first, second)
    for path, leaf in flatten(second).items():
        assert lookup(merged, path) == leaf
    assert changes(merge(first, second, second), merged) == frozenset()


def test_private_wins_over_the_kinds_section_and_that_over_all_services() -> None:
    everyone = {"Writable": {"LogLevel": "INFO", "Telemetry": {"Interval": "30s"}}}
    apps = {"Writable": {"Telemetry": {"Interval": "5s"}}}
    own = {"Writable": {"LogLevel": "DEBUG"}}
    assert merge(everyone, apps, own) == {"Writable": {"LogLevel": "DEBUG", "Telemetry": {"Interval": "5s"}}}


def test_an_empty_section_in_a_file_does_not_erase_the_one_below() -> None:
    assert merge({"Writable": {"LogLevel": "INFO"}}, {"Writable": None}) == {"Writable": {"LogLevel": "INFO"}}


def test_lists_are_stored_comma_separated_and_come_back_as_lists() -> None:
    assert flatten({"A": {"L": ["a", "b"], "E": {}, "N": None}}) == {"A/L": "a,b"}
    assert typed({"L": "a, b ,"}, {"L": ["x"]}) == {"L": ["a", "b"]}
    assert typed({"L": ""}, {"L": ["x"]}) == {"L": []}


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [("true", False, True), ("0", True, False), ("12", 1, 12), ("2.5", 1.0, 2.5), ("x", "", "x"), ("7", None, "7"),
     ('{"a": {"b": "2"}}', {"a": {"b": 1}}, {"a": {"b": 2}})],
)  # fmt: skip
def test_text_becomes_the_type_of_its_default(text: str, default: Any, value: Any) -> None:
    assert typed({"Key": text}, {"Key": default}) == {"Key": value}


@pytest.mark.parametrize(
    ("value", "default"), [("maybe", True), ("12x", 1), ("1.5", 1), (1.5, 1), (True, 1), ("[", {"a": 1}), ("x", 1.0)]
)
def test_text_that_is_not_of_that_type_names_the_path(value: Any, default: Any) -> None:
    with pytest.raises(ConfigurationError, match="configuration Service/Port"):
        typed({"Service": {"Port": value}}, {"Service": {"Port": default}})


def test_environment_variables_replace_only_what_is_there() -> None:
    tree = {"Service": {"Host": "localhost", "Port": 1}, "Clients": {"core-metadata": {"Host": "a"}}}
    environ = {
        "SERVICE_HOST": "gateway", "SERVICE_PORT": "59740", "CLIENTS_CORE_METADATA_HOST": "b", "SERVICE_NEW": "x",
        "PATH": "/bin",
    }  # fmt: skip
    assert override(tree, environ) == {
        "Service": {"Host": "gateway", "Port": 59740}, "Clients": {"core-metadata": {"Host": "b"}},
    }  # fmt: skip


def test_a_variable_of_the_wrong_type_names_variable_and_path() -> None:
    with pytest.raises(ConfigurationError, match="SERVICE_PORT"):
        override({"Service": {"Port": 1}}, {"SERVICE_PORT": "http"})


def test_a_path_becomes_its_variable() -> None:
    assert variable_of("Clients/core-metadata/Host") == "CLIENTS_CORE_METADATA_HOST"


def test_secrets_and_passwords_are_not_shown_and_own_sections_stand_apart() -> None:
    tree = {
        "Writable": {"InsecureSecrets": {"DB": {"SecretName": "postgres", "SecretData": {"username": "u", "k": "v"}}}},
        "MessageBus": {"AuthMode": "none", "Optional": {"Password": "p", "ClientId": "c", "KeyPEMBlock": "pem"}},
        "Trigger": {"ExternalMqtt": {"Url": "mqtt://user:pass@host:1883"}},
        "Mine": {"ApiKey": "k", "TokenFile": "/run/token", "Empty": {"Token": ""}},
    }
    result = shown(tree)
    assert result["Writable"]["InsecureSecrets"]["DB"] == {
        "SecretName": "postgres", "SecretData": {"username": HIDDEN, "k": HIDDEN},
    }  # fmt: skip
    assert result["MessageBus"]["Optional"] == {"Password": HIDDEN, "ClientId": "c", "KeyPEMBlock": HIDDEN}
    assert result["Trigger"]["ExternalMqtt"]["Url"] == f"mqtt://user:{HIDDEN}@host:1883"
    assert result["CustomConfiguration"]["Mine"] == {
        "ApiKey": HIDDEN, "TokenFile": "/run/token", "Empty": {"Token": ""},
    }  # fmt: skip
    assert "Mine" not in result


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("", 0), ("0", 0), ("0s", 0)]
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["10", "ten", "10s ago", "-5s", "1d", "0" * 63 + "5s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no duration"):
        duration_s(text)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just text"])
def test_a_file_that_is_no_configuration_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "configuration.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"configuration\.yaml"):
        read_yaml(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        read_yaml(tmp_path / "nowhere.yaml")
    assert parse_yaml("", "x") == {}


@pytest.mark.parametrize("kind", ["app", "device"])
def test_defaults_hold_what_every_service_needs(kind: Any) -> None:
    tree = merge(common_defaults(kind), private_defaults("app-x", kind, 59740))
    assert lookup(tree, "Service/Port") == 59740
    assert lookup(tree, "MessageBus/Optional/ClientId") == "app-x"
    for client, port in (("core-metadata", 59881), ("core-data", 59880), ("core-command", 59882)):
        assert lookup(tree, f"Clients/{client}/Port") == port
    assert (lookup(tree, "Writable/Pipeline/ExecutionOrder") is not None) == (kind == "app")
