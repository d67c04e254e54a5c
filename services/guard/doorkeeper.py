"""The guard's door over HTTP: knows agents by their tokens, carries out what `door.py` lets through, counts the rest.

It listens on the agents' network alone, within the limits of `turnstile.py`: agents share a process with what
commands devices, and none of them may hold it up. A refusal is audited once for each agent and cause: a confused agent
would fill the chain.

Source: design.md section 2.
"""

import hmac
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import httpx
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edgeagents.adapters.answers import whole_answer
from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.keeper import RegistryAddress
from edgeagents.adapters.middleware import error_body
from edgeagents.adapters.rest import Address, FixedAddress, make_http
from edgeagents.adapters.serving import bind
from edgeagents.adapters.startup import client_url, host_of_others
from edgeagents.adapters.token_files import TokenFile
from edgeagents.adapters.turnstile import guarded
from edgeagents.audit import Audit
from edgeagents.errors import (
    ConfigurationError,
    EdgeAgentsError,
    InvalidInputError,
    TooManyAttemptsError,
    UnauthorisedError,
    UnavailableError,
    meaning_of,
)
from edgeagents.settings import PREFIX
from services.guard.door import Forward, LookUp, Refused, Register, Upstream, judge, let_pass
from services.guard.relays import Relays, headers_of, read_body

log = logging.getLogger(__name__)

WAIT_S: Final = 10.0
MOST_AT_ONCE: Final = 8  # of one agent: the guard has other things to do
METRICS: Final = {
    "GuardDoorPassed": "passed",
    "GuardDoorRefused": "refused",
    "GuardDoorTurnedAway": "turned-away",
    "GuardDoorTimedOut": "timed-out",
    "GuardDoorSlowed": "slowed",
}
NOBODY: Final = "nobody"


class DoorSettings(BaseSettings):
    """Where agents find the door."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}DOOR_", frozen=True)

    host: str = Field("", description="name or address of the guard on the agents' network; empty: no door")
    port: int = Field(59745, ge=1, le=65535, description="port of the door")
    tokens_file: Path | None = Field(None, description="one `agent: token` a line")


def read_door_tokens(path: Path) -> dict[str, str]:
    """Return agent -> token of a file with one `agent: token` a line.

    Raises:
        ConfigurationError: it cannot be read, or a line is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"door's tokens {path}: {error}: has `edgeagents credentials` run?") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        name, _, token = (part.strip() for part in text.partition(":"))
        if text and (not name or len(token) < 16):
            raise ConfigurationError(f"{path}, line {number}: write `agent: token`, the token of 16 characters or more")
        if text:
            found[name] = token
    return found


@asynccontextmanager
async def open_door(service: EdgexService, settings: DoorSettings, state: Path, audit: Audit) -> AsyncIterator[Any]:
    """Serve agents inside the block, where settings ask for a door; yields its counts, an empty dict without one.

    Raises:
        ConfigurationError: the door cannot be opened; names the setting.
    """
    if not settings.host:
        yield {}
        return
    if settings.tokens_file is None:
        raise ConfigurationError(f"{PREFIX}DOOR_TOKENS_FILE: needed with {PREFIX}DOOR_HOST")
    tokens = TokenFile(settings.tokens_file, read_door_tokens)
    # Of their own: an agent that answers slowly holds up no command.
    http = make_http()
    relays = Relays(state / "agents.json", service.config.text("Service/Host"), http, service.tasks, tokens)
    door = Doorkeeper(service, settings, tokens, relays, audit)
    relays.start()
    sock = bind(settings.host, settings.port, key=f"{service.key} (door)")
    for name, word in METRICS.items():
        service.metrics.counter(name, read=lambda word=word: door.counts[word])  # type: ignore[misc]
    try:
        async with guarded(door, sock, service.tasks, door.counts):
            yield door.counts
    finally:
        await relays.stop()
        await http.aclose()
        sock.close()


class Doorkeeper:
    """The door, as an ASGI application."""

    def __init__(
        self, service: EdgexService, settings: DoorSettings, tokens: Mapping[str, str], relays: Relays, audit: Audit
    ) -> None:
        """Let agents in by `tokens`: agent -> token."""
        self._service = service
        self._settings = settings
        self._tokens = tokens
        self._relays = relays
        self._audit = audit
        self._told: set[tuple[str, str]] = set()
        self._addresses = _addresses(service)
        self._busy: Counter[str] = Counter()
        self.counts: Counter[str] = Counter(dict.fromkeys(METRICS.values(), 0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except EdgeAgentsError as error:
            status = meaning_of(error).status
            answer = JSONResponse(error_body(status, str(error)), status)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        agent = self._agent(request)
        if self._busy[agent] >= MOST_AT_ONCE:
            raise TooManyAttemptsError(f"agent {agent}: {MOST_AT_ONCE} requests at the guard's door already: ask again")
        self._busy[agent] += 1
        try:
            return await self._carry_out(agent, request)
        finally:
            self._busy[agent] -= 1

    async def _carry_out(self, agent: str, request: Request) -> Response:
        content = await read_body(request)
        # Decoded once, here: what goes on is written anew from what was judged.
        path = unquote(request.scope["raw_path"].decode("latin-1"))
        verdict = judge(agent, request.method, path, dict(request.query_params), _json(content))
        if isinstance(verdict, Refused):
            self._refuse(agent, verdict.cause, request)
            return JSONResponse(error_body(403, verdict.text), 403)
        self.counts["passed"] += 1
        match verdict:
            case Forward():
                found = await self._send(request, verdict.service, verdict.parts, verdict.query, content)
                return _filtered(found, verdict.root) if verdict.root else _passed_on(found)
            case Register():
                return await self._register(request, agent, verdict)
            case LookUp():
                return await self._look_up(request, agent, verdict)

    def _agent(self, request: Request) -> str:
        """Return whose token a request carries.

        Raises:
            UnauthorisedError: nobody's.
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        # Every token is compared, each in constant time: the answer's timing tells nothing.
        names = [n for n, known in self._tokens.items() if hmac.compare_digest(known.encode(), token.strip().encode())]
        if kind.lower() != "bearer" or not names:
            self._refuse(NOBODY, "no agent's token", request)
            raise UnauthorisedError("the guard's door: not a token of an agent: `edgeagents credentials` makes them")
        return names[0]

    def _refuse(self, agent: str, cause: str, request: Request) -> None:
        self.counts["refused"] += 1
        if (agent, cause) in self._told:
            return
        self._told.add((agent, cause))
        asked = f"{request.method} {request.url.path[:200]}"
        who = request.client.host if request.client else ""
        log.warning("the door refused %s (%s): %s: %s", agent, who, asked, cause)
        self._audit.append("door-refused", agent=agent, cause=cause, asked=asked, address=who)

    async def _register(self, request: Request, agent: str, wanted: Register) -> Response:
        host = request.client.host if request.client else ""
        place = self._relays.enter(agent, host, wanted.port)
        own = {"host": self._service.config.text("Service/Host"), "port": place.relay_port}
        body = {"apiVersion": "v3", "registration": {**wanted.registration, **own}}
        found = await self._send(request, "core-keeper", ("api", "v3", "registry"), {}, json.dumps(body).encode())
        return _passed_on(found)

    async def _look_up(self, request: Request, agent: str, wanted: LookUp) -> Response:
        parts = ("api", "v3", "registry", "serviceId", wanted.service)
        found = await self._send(request, "core-keeper", parts, {}, b"")
        body = _json(found.content)
        if not found.is_success or not isinstance(body, dict) or not isinstance(body.get("registration"), dict):
            return _passed_on(found)
        place = self._relays.place(agent)
        at: dict[str, Any] = {"host": self._settings.host, "port": self._settings.port}
        if wanted.is_own:
            at = {"host": place.host, "port": place.port} if place is not None and place.host else {}
        return JSONResponse({**body, "registration": {**body["registration"], **at}}, found.status_code)

    async def _send(
        self, request: Request, service: Upstream, parts: tuple[str, ...], query: Mapping[str, str], content: bytes
    ) -> httpx.Response:
        """Send to EdgeX, with the guard's own token in secure mode.

        Raises:
            UnavailableError: it cannot be reached, or does not answer in time.
            UpstreamError: its answer is too long.
        """
        address, headers = self._addresses[service], dict(headers_of(request))
        tokens = self._service.security.tokens
        if tokens is not None:
            headers["Authorization"] = f"Bearer {(await tokens.bearer()).get_secret_value()}"
        url = await address.base_url() + "/" + "/".join(quote(part, safe="-_~;=.") for part in parts)
        try:
            http = self._service.http
            sent = http.build_request(
                request.method, url, params=query, content=content, headers=headers, timeout=WAIT_S
            )
            return await whole_answer(http, sent, service)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            address.forget()
            raise UnavailableError(f"{service}: {error or type(error).__name__}: is it up?") from error


def _addresses(service: EdgexService) -> dict[Upstream, Address]:
    keeper = service.keeper
    if keeper is None:
        raise ConfigurationError(f"{PREFIX}DOOR_HOST: the door needs core-keeper: set EDGEX_CONFIG_PROVIDER")
    metadata: Address = FixedAddress(client_url(service.config, "core-metadata"))
    if service.options.use_registry:
        metadata = RegistryAddress(keeper, "core-metadata", host_of_others(service.options))
    return {"core-keeper": FixedAddress(keeper.url), "core-metadata": metadata}


def _json(content: bytes) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("body: not JSON") from error


def _passed_on(found: httpx.Response) -> Response:
    return Response(found.content, found.status_code, media_type=found.headers.get("content-type"))


def _filtered(found: httpx.Response, root: str) -> Response:
    if not found.is_success:
        return _passed_on(found)
    return JSONResponse(let_pass(_json(found.content), root), found.status_code)
