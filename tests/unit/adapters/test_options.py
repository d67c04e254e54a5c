"""Flags and EDGEX_* variables, and what means secure mode."""

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
def test_anything_but_false_is_secure_mode(mode: str | None) -> None:
    environ = {} if mode is None else {"EDGEX_SECURITY_SECRET_STORE": mode}
    store = read_options("app-x", [], environ).secret_store
    assert store is not None
    assert (store.url, str(store.token_file)) == (
        "http://localhost:8200",
        "/tmp/edgex/secrets/app-x/secrets-token.json",
    )
    assert (store.secrets_path, store.jwt_path) == ("/v1/secret/edgex/app-x", "/v1/identity/oidc/token/app-x")


def test_false_is_insecure_mode() -> None:
    assert options().secret_store is None


def test_the_secret_store_is_set_by_edgexs_variables() -> None:
    environ = {
        "SECRETSTORE_HOST": "bao", "SECRETSTORE_PORT": "8201", "SECRETSTORE_PROTOCOL": "https",
        "SECRETSTORE_STORENAME": "mine", "SECRETSTORE_TOKENFILE": "/run/token.json", "SECRETSTORE_NAMESPACE": "ns",
        "SECRETSTORE_ROOTCACERTPATH": "/ca.pem", "SECRETSTORE_SERVERNAME": "vault",
        "SECRETSTORE_SECRETSFILE": "/s.json",
        "SECRETSTORE_DISABLESCRUBSECRETSFILE": "true", "CLIENTS_SECURITY_SECRETSTORE_SETUP_HOST": "setup",
        "EDGEX_USE_COMMON_APP_SERVICE_SECRET_KEY": "True",
    }  # fmt: skip
    store = read_options("app-x", [], environ).secret_store
    assert store is not None
    assert (store.url, store.setup_url) == ("https://bao:8201", "http://setup:59843")
    assert (store.secrets_path, store.jwt_path) == ("/v1/secret/edgex/mine", "/v1/identity/oidc/token/app-service")
    assert (str(store.token_file), store.namespace, store.root_ca_file) == ("/run/token.json", "ns", "/ca.pem")
    assert (store.server_name, store.secrets_file, store.scrub_secrets_file) == ("vault", "/s.json", False)


def test_only_a_true_disables_the_check_of_tokens() -> None:
    assert read_options("app-x", [], {}).check_jwt
    assert not read_options("app-x", [], {"EDGEX_DISABLE_JWT_VALIDATION": "T"}).check_jwt


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SECRETSTORE_PORT", "0"),
        ("SECRETSTORE_PORT", "many"),
        ("SECRETSTORE_PROTOCOL", "ftp"),
        ("SECRETSTORE_RUNTIMETOKENPROVIDER_ENABLED", "true"),
        ("EDGEX_DISABLE_JWT_VALIDATION", "perhaps"),
    ],
)
def test_a_secret_store_that_cannot_be_is_refused_by_its_variable(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        read_options("app-x", [], {variable: value})


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
