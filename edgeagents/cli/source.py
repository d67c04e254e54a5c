"""Where the commands on the audit read: a gateway's broker, or a file it was exported to.

Source: cyclopts 5 (dataclass parameters).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import ValidationError

from edgeagents.adapters.bus import Bus
from edgeagents.errors import ConfigurationError, NotFoundError
from edgeagents.settings import PREFIX, BusSettings
from edgeagents.trail import FileTrail, StreamTrail, Trail


def broker_settings(**said: Any) -> BusSettings:
    """Return how to reach a broker, by options and, for what has none, by the environment.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    try:
        return BusSettings(**said)
    except ValidationError as error:
        problems = [
            f"{item['loc'][0]}: {item['msg']}: correct the option, or {PREFIX}{str(item['loc'][0]).upper()}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("; ".join(problems)) from error


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Broker:
    """A gateway's broker."""

    nats: Annotated[str, Parameter(env_var=f"{PREFIX}NATS_URL", help="address of nats-server")] = (
        "nats://127.0.0.1:4222"
    )
    gateway: Annotated[str, Parameter(env_var=f"{PREFIX}GATEWAY", help="name of the gateway")] = "gateway"
    user: Annotated[str, Parameter(env_var=f"{PREFIX}NATS_USER", help="NATS user; it must read the whole stream")] = ""
    password_file: Annotated[
        Path | None, Parameter(env_var=f"{PREFIX}NATS_PASSWORD_FILE", help="file with the user's password")
    ] = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Bus]:
        """Yield a connection.

        Raises:
            UnavailableError: the broker is away, or refuses user or password.
            ConfigurationError: the address is none, the gateway has no name, or the password file cannot be read.
        """
        settings = broker_settings(
            gateway=self.gateway, nats_url=self.nats, nats_user=self.user, nats_password_file=self.password_file
        )
        bus = await Bus.connect(settings, "edgeagents-cli")
        try:
            yield bus
        finally:
            await bus.close()

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[tuple[Bus, StreamTrail]]:
        """Yield a connection and the audit stream as it is now; raises like `connected`.

        Raises:
            NotFoundError: the broker has no audit stream.
        """
        async with self.connected() as bus:
            try:
                trail = await StreamTrail.open(bus)
            except NotFoundError as error:
                raise NotFoundError(f"{self.nats} has no audit stream: has a guard ever run there?") from error
            yield bus, trail

    @property
    def environment(self) -> dict[str, str]:
        """Return the same words as variables, for a service that reads its settings there."""
        password = {f"{PREFIX}NATS_PASSWORD_FILE": str(self.password_file)} if self.password_file is not None else {}
        names = {"NATS_URL": self.nats, "GATEWAY": self.gateway, "NATS_USER": self.user}
        return {**{f"{PREFIX}{name}": value for name, value in names.items()}, **password}


File = Annotated[Path | None, Parameter(name="--file", help="read this export instead of a broker")]
DEFAULT = Broker()


@asynccontextmanager
async def trail_of(broker: Broker, file: Path | None) -> AsyncIterator[Trail]:
    """Yield the trail of a file, or of the broker when there is no file; raises like `Broker.stream`."""
    if file is not None:
        yield FileTrail(file)
        return
    async with broker.stream() as (_, trail):
        yield trail
