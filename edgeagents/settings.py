"""Settings that every service reads from its environment, once, at its start.

EdgeX's own configuration (keeper, common < app < private) is another thing and lives in
`adapters/bootstrap.py`; what stands here is what EdgeX has no word for: our broker, the gateway's name,
site time, state on disk. Every variable starts with `EDGEAGENTS_`; a mistyped one is refused by
`check_environment` instead of being ignored.

Source: design.md sections 2 and 4.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.errors import ConfigurationError

PREFIX = "EDGEAGENTS_"
EdgexBusType = Literal["mqtt", "nats-core", "nats-jetstream"]


class BusSettings(BaseSettings):
    """How a service reaches the broker, and how EdgeX speaks on it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False)

    gateway: str = Field(
        "gateway", min_length=1, description="name of this gateway: first token of every subject of ours"
    )
    nats_url: str = Field("nats://127.0.0.1:4222", description="address of nats-server")
    nats_user: str = Field("", description="NATS user; empty: no user")
    nats_password_file: Path | None = Field(None, description="file that holds the NATS password")
    edgex_token_file: Path | None = Field(
        None, description="token for EdgeX behind the guard's door; read anew with each call; unset: no door"
    )
    edgex_bus: EdgexBusType = Field(
        "mqtt", description="what EdgeX's MessageBus.Type is; sets how topics become subjects"
    )
    edgex_format: Literal["", "json", "nats"] = Field(
        "", description="format of an EdgeX built for NATS; empty: as MessageBus.Optional.Format says; not for mqtt"
    )
    edgex_base: str = Field("edgex", min_length=1, description="MessageBus.BaseTopicPrefix")
    place_file: Path | None = Field(
        None, description="file in which the service writes `host:port` of its pages; for the health check beside it"
    )
    connect_timeout_s: float = Field(5.0, gt=0, description="longest wait for one connection attempt")

    @property
    def password(self) -> SecretStr | None:
        """Return the NATS password, read from its file; None without one.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        return None if self.nats_password_file is None else read_secret(self.nats_password_file)


class SiteTimeSettings(BaseSettings):
    """Site time = T0 + N * (wall - W0), all in seconds since the epoch; the default is wall time itself."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}SITE_TIME_", frozen=True, allow_inf_nan=False)

    start_s: float = Field(0.0, ge=0, description="T0: site time when the wall clock says `wall_start_s`")
    wall_start_s: float = Field(0.0, ge=0, description="W0: wall time at which site time is `start_s`")
    factor: float = Field(1.0, gt=0, le=100_000, description="N: site seconds in one wall second")

    def clock(self) -> "SiteTime":
        """Return the conversion these settings describe."""
        return SiteTime(self.start_s, self.wall_start_s, self.factor)


@dataclass(frozen=True, slots=True)
class SiteTime:
    """Turns wall time into site time and back; holds no clock itself, so tests pass any wall time in."""

    start_s: float = 0.0
    wall_start_s: float = 0.0
    factor: float = 1.0

    def at(self, wall_s: float) -> float:
        """Return site seconds for wall seconds."""
        return self.start_s + self.factor * (wall_s - self.wall_start_s)

    def at_ns(self, wall_ns: int) -> float:
        """Return site seconds for wall nanoseconds, as EdgeX writes `origin`."""
        return self.at(wall_ns / 1e9)

    def wall_duration_s(self, site_duration_s: float) -> float:
        """Return how many wall seconds a span of site seconds takes."""
        return site_duration_s / self.factor


def read_secret(path: Path) -> SecretStr:
    """Return the stripped text of a secret file.

    Raises:
        ConfigurationError: it cannot be read or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"secret file {path}: {error.strerror}: does it exist, may we read it?") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"secret file {path} is not UTF-8 text: write the secret on its first line") from error
    if not text:
        raise ConfigurationError(f"secret file {path} is empty: write the secret on its first line")
    return SecretStr(text)


def check_environment(
    known: type[BaseSettings] | list[type[BaseSettings]], environ: Mapping[str, str] | None = None
) -> None:
    """Refuse `EDGEAGENTS_*` variables that no settings class knows, since pydantic-settings ignores them.

    Args:
        known: the settings classes of the service that starts.
        environ: the environment to check; the process's own when None.

    Raises:
        ConfigurationError: a variable is unknown; the text names it and the closest known one.
    """
    classes = known if isinstance(known, list) else [known]
    names = {
        f"{cls.model_config.get('env_prefix', '')}{field}".upper() for cls in classes for field in cls.model_fields
    }
    for variable in environ if environ is not None else os.environ:
        # Case does not matter to pydantic-settings, so it does not here.
        if variable.upper().startswith(PREFIX) and variable.upper() not in names:
            # The common prefix would make everything look alike.
            close = get_close_matches(variable.upper().removeprefix(PREFIX), [n.removeprefix(PREFIX) for n in names], 1)
            hint = f": did you mean {PREFIX}{close[0]}?" if close else f": known are {', '.join(sorted(names))}"
            raise ConfigurationError(f"environment variable {variable} is not a setting{hint}")
