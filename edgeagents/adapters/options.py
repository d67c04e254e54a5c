"""Flags and EDGEX_* variables of an EdgeX service; a variable wins over its flag.

Source: edgex-wire.md section 3.4.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from edgeagents.adapters.config import parse_bool
from edgeagents.adapters.ports import host_in_url
from edgeagents.adapters.secret_settings import SecretStoreSettings, secret_store_settings
from edgeagents.errors import ConfigurationError

DEFAULT_PROVIDER: Final = "keeper.http://localhost:59890"
PROFILE_PLACEHOLDER: Final = "<profile>"


@dataclass(frozen=True, slots=True)
class Options:
    """How a service was asked to start."""

    key: str
    keeper_url: str = ""  # empty: no configuration provider
    use_registry: bool = False
    overwrite: bool = False
    common_config: str = ""
    config_dir: str = ""
    config_file: str = ""
    profile: str = ""
    dev: bool = False
    remote_hosts: tuple[str, str, str] | None = None  # own host, host of the others, bind address
    skip_version_check: bool = False
    startup_duration_s: float = 60.0
    startup_interval_s: float = 1.0
    file_timeout_s: float = 15.0
    secret_store: SecretStoreSettings | None = None  # None: insecure mode
    check_jwt: bool = True

    @property
    def names_a_file(self) -> bool:
        """Whether the private configuration file was asked for by name, so that it must be there."""
        return bool(self.config_dir or self.config_file or self.profile)

    def config_location(self) -> str:
        """Return path or URL of the private configuration file."""
        name = self.config_file or "configuration.yaml"
        if name.startswith(("http://", "https://")):
            return name
        return str(Path(self.config_dir or "./res") / self.profile / name)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{self.prog}: {message}: see --help")


def read_options(key: str, argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Return the options of a service whose default key is `key` (may hold `<profile>`).

    Raises:
        ConfigurationError: an unknown flag, or a value that cannot be.
    """
    flags = _parser(key).parse_args(list(argv))
    profile = environ.get("EDGEX_PROFILE", flags.profile)
    provider = environ.get("EDGEX_CONFIG_PROVIDER", flags.config_provider)
    hosts = environ.get("EDGEX_REMOTE_SERVICE_HOSTS", flags.remote_hosts)
    own_key = environ.get("EDGEX_SERVICE_KEY") or flags.service_key or key
    keeper_url = provider_url(provider)
    remote = _three(hosts)
    if keeper_url and (flags.dev or remote):
        keeper_url = _with_host(keeper_url, remote[1] if remote else "localhost")
    service_key = own_key.replace(PROFILE_PLACEHOLDER, profile).rstrip("-")
    return Options(
        key=service_key,
        keeper_url=keeper_url,
        use_registry=_flag(environ, "EDGEX_USE_REGISTRY", flags.registry),
        overwrite=_flag(environ, "EDGEX_OVERWRITE_CONFIG", flags.overwrite),
        common_config=environ.get("EDGEX_COMMON_CONFIG", flags.common_config),
        config_dir=environ.get("EDGEX_CONFIG_DIR", flags.config_dir),
        config_file=environ.get("EDGEX_CONFIG_FILE", flags.config_file),
        profile=profile,
        dev=flags.dev,
        remote_hosts=remote,
        skip_version_check=flags.skip_version_check,
        startup_duration_s=_positive(environ, "EDGEX_STARTUP_DURATION", 60.0),
        startup_interval_s=_positive(environ, "EDGEX_STARTUP_INTERVAL", 1.0),
        file_timeout_s=_positive(environ, "EDGEX_FILE_URI_TIMEOUT", 15.0),
        secret_store=secret_store_settings(service_key, environ),
        check_jwt=not _flag(environ, "EDGEX_DISABLE_JWT_VALIDATION", False),
    )


def provider_url(provider: str) -> str:
    """Return keeper's `http://host:port` for `keeper.http://host:port`; empty for none.

    Raises:
        ConfigurationError: another provider, or no address.
    """
    if provider in ("", "none"):
        return ""
    kind, _, rest = provider.partition(".")
    try:
        parts = urlsplit(rest)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if kind != "keeper" or parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ConfigurationError(
            f"configuration provider {provider!r}: write keeper.http://<host>:<port>, e.g. {DEFAULT_PROVIDER}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _parser(key: str) -> _Parser:
    parser = _Parser(prog=key.replace(PROFILE_PLACEHOLDER, "PROFILE"), allow_abbrev=False, description=__doc__)
    text, switch = {"default": "", "metavar": "TEXT"}, {"nargs": "?", "const": True, "default": False, "type": _bool}
    add: Callable[..., object] = parser.add_argument
    add(
        "-cp",
        "--configProvider",
        dest="config_provider",
        nargs="?",
        const=DEFAULT_PROVIDER,
        default="",
        metavar="URL",
        help=f"configuration provider; without URL {DEFAULT_PROVIDER} (EDGEX_CONFIG_PROVIDER)",
    )
    add("-cc", "--commonConfig", dest="common_config", **text, help="common YAML file when there is no provider")
    add("-r", "--registry", **switch, help="register in keeper and look others up there (EDGEX_USE_REGISTRY)")
    add("-o", "--overwrite", **switch, help="the file wins over the provider (EDGEX_OVERWRITE_CONFIG)")
    add("-cf", "--configFile", dest="config_file", **text, help="file name or URL, default configuration.yaml")
    add("-cd", "--configDir", dest="config_dir", **text, help="folder of the file, default ./res")
    add("-p", "--profile", **text, help="sub-folder of the file, and suffix of the key")
    add("-d", "--dev", **switch, help="all other hosts are localhost, bind to all addresses")
    add("-rsh", "--remoteServiceHosts", dest="remote_hosts", **text, help="own host, host of the others, bind address")
    add("-s", "--skipVersionCheck", dest="skip_version_check", **switch, help="do not check core-metadata's version")
    add("-sk", "--serviceKey", dest="service_key", **text, help="key instead of the default (EDGEX_SERVICE_KEY)")
    return parser  # fmt: skip


def _bool(text: str) -> bool:
    try:
        return parse_bool(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from error


def _flag(environ: Mapping[str, str], variable: str, otherwise: bool) -> bool:
    if variable not in environ:
        return otherwise
    try:
        return parse_bool(environ[variable])
    except ValueError as error:
        raise ConfigurationError(f"{variable}={environ[variable]!r}: write true or false") from error


def _positive(environ: Mapping[str, str], variable: str, otherwise: float) -> float:
    text = environ.get(variable, "")
    if not text:
        return otherwise
    try:
        number = float(text.removesuffix("s"))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigurationError(f"{variable}={text!r}: write a number of seconds above 0")
    return number


def _three(hosts: str) -> tuple[str, str, str] | None:
    if not hosts:
        return None
    parts = [part.strip() for part in hosts.split(",")]
    if len(parts) != 3 or not all(parts):
        raise ConfigurationError(f"remote service hosts {hosts!r}: write own host,host of the others,bind address")
    return parts[0], parts[1], parts[2]


def _with_host(url: str, host: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{host_in_url(host)}:{parts.port}"
