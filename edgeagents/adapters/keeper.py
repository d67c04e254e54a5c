"""core-keeper: configuration as key-value pairs, and the registry of services.

Everything read back is text. Lists are stored comma-separated, because keeper stores a list as empty text.

Source: edgex-wire.md sections 3.1 and 3.2; recordings of EdgeX 4.0.2.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import ConfigDict, Field, ValidationError

from edgeagents.adapters.config import flatten, unflatten
from edgeagents.adapters.ports import host_in_url
from edgeagents.adapters.rest import FixedAddress, Rest, Tokens, segment
from edgeagents.errors import ConflictError, NotFoundError, UnavailableError, UpstreamError
from edgeagents.model.device import EdgexModel

KEY = "/api/v3/kvs/key/"
REGISTRY = "/api/v3/registry"
KEEPER = "core-keeper"


class HealthCheck(EdgexModel):
    """How keeper finds out whether a service lives."""

    interval: str = "10s"
    path: str = "/api/v3/ping"
    type: str = "http"


class Registration(EdgexModel):
    """A service as keeper knows it."""

    model_config = ConfigDict(serialize_by_alias=True)

    service_id: str = Field(min_length=1)
    host: str = Field(min_length=1)
    port: int = Field(gt=0, le=65535)
    health_check: HealthCheck = Field(default_factory=HealthCheck, alias="HealthCheck")
    status: Literal["UP", "DOWN", "UNKNOWN", "HALT", ""] = ""

    @property
    def base_url(self) -> str:
        """Return `http://host:port`; the health check's type is the scheme."""
        return f"{self.health_check.type}://{host_in_url(self.host)}:{self.port}"


class KeeperClient:
    """Keeper's REST interface in this project's words; keys hold no leading slash."""

    def __init__(
        self, url: str, http: httpx.AsyncClient, *, timeout_s: float = 5.0, tokens: Tokens | None = None
    ) -> None:
        """Use keeper at `url` (`http://host:port`) over a shared HTTP client; `tokens` in secure mode."""
        self.url = url.rstrip("/")
        self._rest = Rest("core-keeper", FixedAddress(url), http, timeout_s=timeout_s, tokens=tokens)

    async def ping(self) -> None:
        """Return when keeper answers.

        Raises:
            UnavailableError: it does not.
            UpstreamError: what answers there is another service.
        """
        answer = await self._rest.call("GET", "/api/v3/ping", timeout_s=2.0)
        name = answer.get("serviceName", KEEPER) if isinstance(answer, dict) else None
        if name != KEEPER:
            who = f"service {name!r}" if name else "something that is no EdgeX service"
            raise UpstreamError(f"core-keeper at {self.url}: {who} answers there: name keeper's address (-cp)")

    async def version(self) -> str:
        """Return keeper's version, such as `4.0.2`; empty when it tells none.

        Raises:
            UnavailableError: keeper did not answer.
        """
        answer = await self._rest.call("GET", "/api/v3/version", timeout_s=2.0)
        said = answer.get("version") if isinstance(answer, dict) else None
        return said if isinstance(said, str) else ""

    # --- key-value pairs -------------------------------------------------------------------------

    async def get(self, key: str) -> dict[str, str]:
        """Return the text of a key and of every key below it, by full key.

        Raises:
            NotFoundError: there is none.
            UnavailableError: keeper did not answer.
        """
        answer = await self._rest.call("GET", _path(key), query={"plaintext": "true"})
        pairs = _response(answer, key)
        try:
            found = {str(pair["key"]): _as_text(pair.get("value")) for pair in pairs}
        except (TypeError, KeyError, AttributeError) as error:
            raise UpstreamError(f"core-keeper: {key}: an answer without key and value: {str(answer)[:200]}") from error
        return _below(found, key)

    async def get_tree(self, key: str) -> dict[str, Any]:
        """Return what lies below a key as a tree of text; empty when there is nothing.

        Raises:
            UnavailableError: keeper did not answer.
        """
        try:
            pairs = await self.get(key)
        except NotFoundError:
            return {}
        prefix = f"{key}/"
        return unflatten({full.removeprefix(prefix): text for full, text in pairs.items() if full.startswith(prefix)})

    async def keys(self, key: str) -> list[str]:
        """Return a key and every key below it, in no fixed order.

        Raises:
            NotFoundError: there is none.
        """
        answer = await self._rest.call("GET", _path(key), query={"keyOnly": "true"})
        return list(_below({str(name): "" for name in _response(answer, key)}, key))

    async def has(self, key: str) -> bool:
        """Say whether a key, or any below it, exists.

        Raises:
            UnavailableError: keeper did not answer.
        """
        try:
            await self.keys(key)
        except NotFoundError:
            return False
        return True

    async def put(self, key: str, value: Any) -> list[str]:
        """Store one value: a scalar as its text, an object as JSON text; return the keys written.

        Raises:
            InvalidInputError: the key holds characters that keeper refuses.
        """
        body = {"apiVersion": "v3", "value": value}
        return [str(name) for name in _response(await self._rest.call("PUT", _path(key), body=body), key)]

    async def put_tree(self, key: str, tree: Mapping[str, Any]) -> list[str]:
        """Store each leaf of a tree below a key; return the keys written. Empty objects and nulls are left out.

        Raises:
            InvalidInputError: a key holds characters that keeper refuses.
        """
        body = {"apiVersion": "v3", "value": unflatten(flatten(tree))}
        answer = await self._rest.call("PUT", _path(key), query={"flatten": "true"}, body=body)
        return [str(name) for name in _response(answer, key)]

    async def delete(self, key: str, *, below: bool = False) -> None:
        """Delete a key, with `below` also every key below it.

        Raises:
            ConflictError: keys below it exist and `below` is not set.
            NotFoundError: there is none.
        """
        await self._rest.call("DELETE", _path(key), query={"prefixMatch": "true"} if below else None)

    # --- registry --------------------------------------------------------------------------------

    async def registration(self, service_id: str) -> Registration:
        """Return how a service is registered.

        Raises:
            NotFoundError: it is not.
        """
        answer = await self._rest.call("GET", f"{REGISTRY}/serviceId/{segment(service_id)}")
        return _registration(answer.get("registration") if isinstance(answer, dict) else answer)

    async def registrations(self, *, halted: bool = False) -> list[Registration]:
        """Return all registered services, those that ended in order (`HALT`) only with `halted`.

        Raises:
            UpstreamError: what came is no list of registrations.
        """
        answer = await self._rest.call("GET", f"{REGISTRY}/all", query={"deregistered": str(halted).lower()})
        items = (answer.get("registrations") if isinstance(answer, dict) else answer) or []
        if not isinstance(items, list):
            raise UpstreamError(f"core-keeper: registrations are no list: {str(items)[:200]}: is it a keeper?")
        return [_registration(item) for item in items]

    async def add(self, registration: Registration) -> None:
        """Register a service that is not registered.

        Raises:
            ConflictError: it is.
        """
        await self._rest.call("POST", REGISTRY, body=_body(registration))

    async def update(self, registration: Registration) -> None:
        """Replace a service's registration.

        Raises:
            NotFoundError: it is not registered.
        """
        await self._rest.call("PUT", REGISTRY, body=_body(registration))

    async def register(self, registration: Registration) -> None:
        """Register a service, whether or not it was registered before.

        Raises:
            UnavailableError: keeper did not answer.
        """
        try:
            await self.registration(registration.service_id)
        except NotFoundError:
            try:
                await self.add(registration)
            except ConflictError:  # somebody was faster: replace it
                await self.update(registration)
            return
        await self.update(registration)

    async def halt(self, registration: Registration) -> None:
        """Say that a service ended in order.

        Raises:
            NotFoundError: it was not registered.
        """
        await self.update(registration.model_copy(update={"status": "HALT"}))

    async def remove(self, service_id: str) -> None:
        """Take a service out of the registry.

        Raises:
            NotFoundError: it is not in it.
        """
        await self._rest.call("DELETE", f"{REGISTRY}/serviceId/{segment(service_id)}")


class RegistryAddress:
    """A service's address as keeper's registry has it."""

    def __init__(self, keeper: KeeperClient, service: str, host: str = "") -> None:
        """Look `service` up when it is first needed; `host` takes the place of the registered host."""
        self._keeper = keeper
        self._service = service
        self._host = host
        self._found: str | None = None

    async def base_url(self) -> str:
        """Return the registered address.

        Raises:
            UnavailableError: the service is not registered (yet), or keeper does not answer.
        """
        if self._found is None:
            try:
                found = await self._keeper.registration(self._service)
                self._found = (found.model_copy(update={"host": self._host}) if self._host else found).base_url
            except NotFoundError as error:
                raise UnavailableError(f"{self._service} is not in keeper's registry: is it up?") from error
        return self._found

    def forget(self) -> None:
        """Look it up again next time."""
        self._found = None


def _path(key: str) -> str:
    return KEY + quote(key.strip("/"), safe="/-_~;=.")


def _response(answer: Any, key: str) -> list[Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("response"), list):
        raise UpstreamError(f"core-keeper: {key}: an answer without a response: {str(answer)[:200]}")
    return list(answer["response"])


def _below(pairs: dict[str, str], key: str) -> dict[str, str]:
    """Leave out keys that only start with the same letters (`app-x2` for `app-x`)."""
    found = {name: text for name, text in pairs.items() if name == key or name.startswith(f"{key}/")}
    if not found:
        raise NotFoundError(f"core-keeper: no key {key!r} and none below it")
    return found


def _as_text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


def _body(registration: Registration) -> dict[str, Any]:
    body = registration.to_wire()
    if not registration.status:
        del body["status"]
    return {"apiVersion": "v3", "registration": body}


def _registration(item: Any) -> Registration:
    try:
        return Registration.model_validate(item)
    except ValidationError as error:
        raise UpstreamError(f"core-keeper: not a registration: {str(item)[:200]}") from error
