"""Flags and EDGEX_* variables, and the refusal of secure mode."""

import pytest

from edgeagents.adapters.options import Options, provider_url, read_options
from edgeagents.errors import ConfigurationError

INSECURE = {"EDGEX_SECURITY_SECRET_STORE": "false"}


def options(*flags: str, key: str = "app-x", **environ: str) -> Options:
    return read_options(key, flags, INSECURE | environ)


def test_without_flags_there_is_neither_provider_nor_registry() -> None:
    plain = options()
    assert (plain.key, plain.keeper_url, plain.use_registry, plain.overwrite) == ("app-x", "", False, False)
    assert (plain.startup_duration_s, plain.startup_interval_s) == (60.0, 1.0)
    assert plain.config_location() == "res/configuration.yaml"
    assert not plain.names_a_file


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        (["-cp"], "http://localhost:59890"),
        (["--configProvider"], "http://localhost:59890"),
        (["-cp=keeper.http://edgex-core-keeper:59890"], "http://edgex-core-keeper:59890"),
        (["-cp", "keeper.https://k:1", "-r"], "https://k:1"),
        (["-cp=none"], ""),
    ],
)
def test_the_provider_is_read_in_all_its_spellings(flags: list[str], url: str) -> None:
    assert options(*flags).keeper_url == url


@pytest.mark.parametrize(
    "provider",
    ["consul.http://h:1", "keeper", "keeper.http://h", "http://h:1", "keeper.tcp://h:1", "keeper.http://h:x"],
)
def test_another_provider_is_refused_with_the_form_to_write(provider: str) -> None:
    with pytest.raises(ConfigurationError, match=r"keeper\.http://<host>:<port>"):
        provider_url(provider)


def test_variables_win_over_flags() -> None:
    found = options(
        "-cp=keeper.http://a:1", "-sk", "app-flag", "-r=true", "-p", "flagged", "-cd", "/flag", "-cf", "flag.yaml",
        EDGEX_CONFIG_PROVIDER="keeper.http://b:2", EDGEX_SERVICE_KEY="app-env", EDGEX_USE_REGISTRY="false",
        EDGEX_OVERWRITE_CONFIG="true", EDGEX_PROFILE="envied", EDGEX_CONFIG_DIR="/env", EDGEX_CONFIG_FILE="env.yaml",
        EDGEX_STARTUP_DURATION="5", EDGEX_STARTUP_INTERVAL="0.1",
    )  # fmt: skip
    assert (found.keeper_url, found.key, found.use_registry, found.overwrite) == ("http://b:2", "app-env", False, True)
    assert found.config_location() == "/env/envied/env.yaml"
    assert found.names_a_file
    assert (found.startup_duration_s, found.startup_interval_s) == (5.0, 0.1)


def test_a_provider_of_none_in_the_environment_disables_the_flag() -> None:
    assert options("-cp", EDGEX_CONFIG_PROVIDER="none").keeper_url == ""


def test_long_and_short_flags_mean_the_same() -> None:
    short = options("-o", "-r", "-s", "-d", "-cc", "c.yaml", "-rsh", "a,b,0.0.0.0")
    long = options(
        "--overwrite", "--registry", "--skipVersionCheck", "--dev", "--commonConfig=c.yaml",
        "--remoteServiceHosts=a,b,0.0.0.0",
    )  # fmt: skip
    assert short == long
    assert short.remote_hosts == ("a", "b", "0.0.0.0")


@pytest.mark.parametrize(
    ("profile", "key"), [("home", "app-guard-home"), ("", "app-guard")], ids=["with profile", "without"]
)
def test_the_profile_takes_its_place_in_the_key(profile: str, key: str) -> None:
    assert options(f"--profile={profile}", key="app-guard-<profile>").key == key


def test_a_file_may_be_a_url() -> None:
    assert options("-cf", "http://files/x.yaml").config_location() == "http://files/x.yaml"


def test_dev_and_remote_hosts_move_keeper_too() -> None:
    assert options("-cp=keeper.http://edgex-core-keeper:59890", "-d").keeper_url == "http://localhost:59890"
    assert options("-cp", "-rsh", "me,them,0.0.0.0").keeper_url == "http://them:59890"


@pytest.mark.parametrize("mode", [None, "", "true", "False", "FALSE", "0", " false"])
def test_anything_but_false_is_secure_mode_and_refused_with_the_remedy(mode: str | None) -> None:
    environ = {} if mode is None else {"EDGEX_SECURITY_SECRET_STORE": mode}
    with pytest.raises(ConfigurationError, match="set EDGEX_SECURITY_SECRET_STORE=false"):
        read_options("app-x", [], environ)


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (["--nope"], {}),
        (["positional"], {}),
        (["-o=perhaps"], {}),
        (["-rsh", "only,two"], {}),
        ([], {"EDGEX_USE_REGISTRY": "perhaps"}),
        ([], {"EDGEX_STARTUP_DURATION": "0"}),
        ([], {"EDGEX_STARTUP_DURATION": "long"}),
        ([], {"EDGEX_STARTUP_INTERVAL": "nan"}),
    ],
)
def test_what_cannot_be_is_a_configuration_error(flags: list[str], environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        options(*flags, **environ)
