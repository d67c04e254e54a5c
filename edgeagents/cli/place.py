"""Where a gateway is: the addresses and folders that `doctor`, `status` and their like look at.

From options, from the variables that our services read, or all at once from the folder of a `make demo`.

Source: cyclopts 5 (dataclass parameters).
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from edgeagents.cli.guard import DEFAULT_GUARD
from edgeagents.cli.service import checked_url
from edgeagents.cli.source import broker_settings
from edgeagents.errors import ConfigurationError
from edgeagents.settings import PREFIX, BusSettings

PLACE_FILE: Final = "gateway.json"  # written by `embedded/gateway.py`


def _option(text: str, *variables: str) -> Any:
    return Parameter(help=text, env_var=tuple(variables))


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Place:
    """A gateway's addresses and folders."""

    folder: Annotated[
        Path | None, _option('folder of a gateway of `make demo ARGS="--keep FOLDER"`: it knows all of the rest')
    ] = None
    nats: Annotated[str, _option("address of nats-server", f"{PREFIX}NATS_URL")] = "nats://127.0.0.1:4222"
    gateway: Annotated[str, _option("name of the gateway", f"{PREFIX}GATEWAY")] = "gateway"
    user: Annotated[str, _option("NATS user; one that may see everything", f"{PREFIX}NATS_USER")] = ""
    password_file: Annotated[Path | None, _option("file with the user's password", f"{PREFIX}NATS_PASSWORD_FILE")] = (
        None
    )
    keeper: Annotated[str, _option("address of core-keeper", f"{PREFIX}KEEPER_URL", "EDGEX_CONFIG_PROVIDER")] = (
        "http://127.0.0.1:59890"
    )
    guard: Annotated[str, _option("address of the guard", f"{PREFIX}GUARD_URL")] = DEFAULT_GUARD
    coordinator: Annotated[str, _option("address of the coordinator", f"{PREFIX}COORDINATOR_URL")] = (
        "http://127.0.0.1:59741"
    )
    inference: Annotated[str, _option("address of the language model's service", f"{PREFIX}INFERENCE_URL")] = (
        "http://127.0.0.1:59743"
    )
    site_file: Annotated[Path, _option("the owner's site.yaml", f"{PREFIX}GUARD_SITE_FILE")] = Path("site.yaml")
    agents_dir: Annotated[Path, _option("folder of agent files", f"{PREFIX}GUARD_AGENTS_DIR")] = Path("agents")
    gateways_file: Annotated[Path | None, _option("the owner's gateways.yaml", f"{PREFIX}GUARD_GATEWAYS_FILE")] = None
    guard_dir: Annotated[Path | None, _option("the guard's volume", f"{PREFIX}GUARD_STATE_DIR")] = None
    store_dir: Annotated[
        Path | None, _option("JetStream's store, where it lies on this machine", f"{PREFIX}BROKER_STORE")
    ] = None

    def resolved(self) -> "Place":
        """Return the place with what its folder says, where it has one; addresses as URLs.

        Raises:
            ConfigurationError: the folder is no gateway's, an address is none, or the gateway has no name.
        """
        found = self if self.folder is None else replace(self, **_from_folder(self.folder))
        found = replace(
            found, keeper=checked_url("--keeper", found.keeper.removeprefix("keeper.")),
            guard=checked_url("--guard", found.guard), coordinator=checked_url("--coordinator", found.coordinator),
            inference=checked_url("--inference", found.inference),
        )  # fmt: skip
        found.bus_settings()  # what cannot be is told before anything is looked at
        return found

    def bus_settings(self, connect_timeout_s: float = 3.0) -> BusSettings:
        """Return how to reach the broker; raises as `broker_settings`."""
        return broker_settings(
            gateway=self.gateway, nats_url=self.nats, nats_user=self.user, nats_password_file=self.password_file,
            connect_timeout_s=connect_timeout_s,
        )  # fmt: skip


DEFAULT_PLACE: Final = Place()


def _from_folder(folder: Path) -> dict[str, Any]:
    path = folder / PLACE_FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        kinds = {item.name: item.type for item in fields(Place)}
        return {name: Path(text) if "Path" in str(kinds[name]) else str(text) for name, text in said.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: {error}: name the folder of a gateway that `make demo` has started"
        ) from error
