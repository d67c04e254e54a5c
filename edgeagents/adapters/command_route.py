"""Which way commands go to core-command: REST, or the message bus.

A real core-command makes a new correlation id for the device service when it is asked over REST, and passes the
caller's on when it is asked over the bus. Over REST its refusals come with a status, and it can demand a token.
Only over REST a shut door says that nothing was set: a broker may keep a request until the device's service is back.

Source: contract suite on EdgeX 4.0.2; docs/decisions/0006.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

from edgeagents.adapters.edgex import CommandClient
from edgeagents.adapters.rest import LastLook
from edgeagents.adapters.service_doors import ServiceDoors
from edgeagents.errors import DeviceSilentError, UnavailableError
from edgeagents.model.device import Event

Route: TypeAlias = Literal["rest", "bus"]


class Commands(Protocol):
    """Sets and reads devices; raises as `CommandClient` does."""

    async def set(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "",
        last_look: LastLook | None = None,
    ) -> None:  # fmt: skip
        """Set a resource or a device command; `last_look` may still call it off by raising `WithdrawnError`."""

    async def get(self, device: str, command: str) -> Event:
        """Read a resource or a device command."""


class OverRest:
    """Commands over REST."""

    def __init__(self, client: CommandClient, doors: ServiceDoors) -> None:
        """Use a client; `doors` tells what core-command's answer does not: whether a SET can have arrived."""
        self._client = client
        self._doors = doors

    async def set(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "",
        last_look: LastLook | None = None,
    ) -> None:  # fmt: skip
        """Set over REST."""
        was_shut = await self._doors.is_shut(device)
        try:
            await self._client.set(device, command, values, correlation_id=correlation_id, last_look=last_look)
        except DeviceSilentError as error:
            if was_shut and await self._doors.is_shut(device):
                text = f"nothing was set, nobody listens where the service of {device!r} should: is it up? {error}"
                raise UnavailableError(text) from error
            raise

    async def get(self, device: str, command: str) -> Event:
        """Read over REST."""
        return await self._client.get(device, command)


class OverBus:
    """Commands over the message bus."""

    def __init__(self, client: CommandClient) -> None:
        """Use a client."""
        self._client = client

    async def set(
        self, device: str, command: str, values: Mapping[str, Any], *, correlation_id: str = "",
        last_look: LastLook | None = None,
    ) -> None:  # fmt: skip
        """Set over the bus; the device service gets the same correlation id."""
        await self._client.set_by_bus(device, command, values, correlation_id=correlation_id, last_look=last_look)

    async def get(self, device: str, command: str) -> Event:
        """Read over the bus."""
        return await self._client.get_by_bus(device, command)


def commands_by(route: Route, client: CommandClient, doors: ServiceDoors) -> Commands:
    """Return the client's commands by a route."""
    return OverBus(client) if route == "bus" else OverRest(client, doors)
