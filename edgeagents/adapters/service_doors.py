"""Does anybody listen where a device's service says that it does? Then a SET that failed may have arrived, else not.

core-command 4.0.2 answers 503 `failed to send a http request` over REST when the device's service took no connection,
and the very same when the connection broke after the request was sent. Whoever found the door shut before and after
knows which of the two it was.

An address counts only once a ping there has named the service: `localhost` may be another machine's.

Source: EdgeX 4.0.2, run with device-virtual; docs/decisions/0009.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

import httpx

from edgeagents.adapters.edgex import MetadataClient
from edgeagents.errors import EdgeAgentsError
from edgeagents.model.device import Device

KNOCK_S: Final = 0.5  # longest wait for a connection, or for a ping


class ServiceDoors:
    """Knocks at device services; knows of an address only what it found out itself."""

    def __init__(
        self, device_of: Callable[[str], Device | None], metadata: MetadataClient, http: httpx.AsyncClient
    ) -> None:
        """Ask `device_of` for a device by name, core-metadata for the address of its service."""
        self._device_of = device_of
        self._metadata = metadata
        self._http = http
        self._addresses: dict[str, str] = {}
        self._own: set[tuple[str, str]] = set()  # service and address that a ping has proven to be its own

    async def is_shut(self, device: str) -> bool:
        """Say whether the service of a device certainly takes no connection now; False too when that is not known."""
        found = self._device_of(device)
        if found is None:
            return False
        service = found.service_name
        with contextlib.suppress(EdgeAgentsError):
            if service not in self._addresses:
                await self._look_up(service)
            address = self._addresses[service]
            if not await _refuses(address):
                await self._prove(service, address)
                return False
            await self._look_up(service)  # it may have moved
            return self._addresses[service] == address and (service, address) in self._own
        return False

    async def _look_up(self, service: str) -> None:
        self._addresses[service] = (await self._metadata.service(service)).base_address

    async def _prove(self, service: str, address: str) -> None:
        if (service, address) in self._own:
            return
        with contextlib.suppress(httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
            answer = await self._http.get(f"{address}/api/v3/ping", timeout=KNOCK_S)
            if answer.json().get("serviceName") == service:
                self._own.add((service, address))


async def _refuses(address: str) -> bool:
    """Say whether nobody listens at an address; other trouble (no route, no such name, too slow) says nothing."""
    try:
        url = httpx.URL(address)
        port = url.port or {"https": 443}.get(url.scheme, 80)
        async with asyncio.timeout(KNOCK_S):
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
            for *_, where in found:
                try:
                    _, writer = await asyncio.open_connection(str(where[0]), port)
                except ConnectionRefusedError:
                    continue
                writer.close()
                return False
    except (OSError, TimeoutError, httpx.InvalidURL, ValueError):
        return False
    return bool(found)
