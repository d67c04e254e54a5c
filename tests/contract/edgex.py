"""The EdgeX under test as the tests see it: its services over HTTP and its bus, and names that only this run uses."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.edgex import CommandClient, DataClient, MetadataClient
from edgeagents.adapters.edgex_bus import EdgexBus, NatsTransport, Transport
from edgeagents.adapters.keeper import KeeperClient
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.adapters.rest import FixedAddress, Rest, make_http
from edgeagents.model.device import Profile
from tests.contract.target import Target
from tests.contract.waiting import Seen

SERVICES = ("core-keeper", "core-metadata", "core-data", "core-command")
API = "/api/v3"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer; `body` is its JSON, its text when it is none, None when it is empty."""

    status: int
    body: Any
    headers: httpx.Headers

    @property
    def item(self) -> dict[str, Any]:
        """The one result of a 207 answer."""
        assert self.status == 207, self
        assert len(self.body) == 1, self
        found: dict[str, Any] = self.body[0]
        return found

    @property
    def outcome(self) -> int:
        """The status of what was asked for: of the one result in a 207 answer, else of the answer."""
        return int(self.item["statusCode"]) if self.status == 207 else self.status

    @property
    def message(self) -> str:
        """What an error answer says."""
        return str(self.body["message"])


class Edgex:
    """A running EdgeX; `connected` makes one."""

    def __init__(
        self, target: Target, http: httpx.AsyncClient, urls: Mapping[str, str], other_host: str, transport: Transport,
        subscribed: Callable[[], Awaitable[None]],
    ) -> None:  # fmt: skip
        """Use connected parts.

        Args:
            target: what they are connected to.
            http: shared by all clients.
            urls: address of each core service.
            other_host: takes the place of every registered host; empty: none does.
            transport: carries EdgeX's topics.
            subscribed: returns once the broker knows all subscriptions so far.
        """
        self.target = target
        self.http = http
        self.urls = urls
        self.other_host = other_host
        self.run = f"ct{secrets.token_hex(4)}"
        self.keeper = KeeperClient(target.keeper_url, http)
        self.bus = EdgexBus(transport, target.base)
        self.metadata = MetadataClient(self._rest("core-metadata"))
        self.command = CommandClient(self._rest("core-command"), self.bus, self._profile_of)
        self.data = DataClient(self._rest("core-data"))
        self._subscribed = subscribed
        self.names: list[str] = []

    def name(self, word: str) -> str:
        """Return a name that nothing has yet: `<word>-<run>-<number>`."""
        self.names.append(f"{word}-{self.run}-{len(self.names)}")
        return self.names[-1]

    async def ask(
        self, service: str, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None, content: str | None = None, file: str | None = None,
    ) -> Reply:  # fmt: skip
        """Return a core service's answer.

        Args:
            service: its key.
            method: GET, PUT, ...
            path: below `/api/v3`.
            body: sent as JSON unless None.
            query: query parameters.
            headers: of the request.
            content: sent as it is, said to be JSON.
            file: sent as the form's field `file`.
        """
        more: dict[str, Any] = {"json": body} if body is not None else {}
        if content is not None:
            more = {"content": content}
            headers = {"Content-Type": "application/json"} | dict(headers or {})
        if file is not None:
            more = {"files": {"file": ("profile.yaml", file.encode(), "application/x-yaml")}}
        answer = await self.http.request(
            method, f"{self.urls[service]}{API}{path}", params=query, headers=headers, timeout=15.0, **more
        )
        return Reply(answer.status_code, _body(answer), answer.headers)

    @asynccontextmanager
    async def watch(self, topic_filter: str, *, absolute: bool = False) -> AsyncIterator[Seen]:
        """Note what comes on a filter below the base (`absolute`: as given) while the context is open."""
        seen = Seen()
        cancel = await self.bus.subscribe(topic_filter, seen.note, absolute=absolute)
        try:
            await self._subscribed()
            yield seen
        finally:
            await cancel()

    def _rest(self, service: str) -> Rest:
        return Rest(service, FixedAddress(self.urls[service]), self.http, timeout_s=15.0)

    async def _profile_of(self, device: str) -> Profile:
        return await self.metadata.profile((await self.metadata.device(device)).profile_name)


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Edgex]:
    """Connect to an EdgeX while the context is open; addresses of its services come from keeper's registry."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(make_http())
        keeper = KeeperClient(target.keeper_url, http)
        found = {service: await keeper.registration(service) for service in SERVICES[1:]}
        other_host = await _stand_in(target, {registration.host for registration in found.values()})
        urls = {"core-keeper": target.keeper_url}
        for service, registration in found.items():
            urls[service] = registration.model_copy(update={"host": other_host or registration.host}).base_url
        if target.is_mqtt:
            transport: Transport = await stack.enter_async_context(
                MqttTransport(target.broker, f"contract-{secrets.token_hex(4)}")
            )
            yield Edgex(target, http, urls, other_host, transport, _at_once)
        else:
            bus = await Bus.connect(target.settings(), "contract")
            stack.push_async_callback(bus.close)
            yield Edgex(target, http, urls, other_host, NatsTransport(bus), bus.flush)


async def _stand_in(target: Target, hosts: set[str]) -> str:
    """Return keeper's host when a registered one has no address here: EdgeX in containers, seen from outside."""
    for host in hosts:
        try:
            await asyncio.get_running_loop().getaddrinfo(host, None)
        except socket.gaierror:
            return urlsplit(target.keeper_url).hostname or ""
    return ""


def _body(answer: httpx.Response) -> Any:
    if not answer.content.strip():
        return None
    try:
        return answer.json()
    except ValueError:
        return answer.text


async def _at_once() -> None:
    """MQTT acknowledges each subscription."""
