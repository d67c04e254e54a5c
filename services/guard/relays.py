"""Where EdgeX reaches agents, coordinator and language model, on no network of its: a port of the guard for each.

Keeper's health check, the UI, a rule engine and the owner come by it, with the requests of `roads.py`. What somebody
said of its host does not count: requests go to the address that its registration came from. The ports are kept over a
restart, so keeper's registry stays right.

Source: design.md section 2; edgex-wire.md section 4.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeagents.adapters.middleware import error_body
from edgeagents.adapters.nats_server import write_private
from edgeagents.adapters.serving import WebServer, bind
from edgeagents.errors import ConfigurationError, TooLargeError
from services.guard.door import service_key
from services.guard.passage import Question, pass_on
from services.guard.roads import Route, road_of

log = logging.getLogger(__name__)

MOST_BYTES: Final = 1 << 20
MOST_AT_ONCE: Final = 4  # requests of EdgeX, its UI and rule engines to one agent
MOST_SLOW: Final = 16  # of those that take their time: they have places of their own
# Nobody's token: in EdgeX's secure mode it opens more than this agent, and at the door it is whose request it was.
_HEADERS: Final = ("content-type", "x-correlation-id", "accept", "traceparent")
_BACK: Final = ("content-type", "x-correlation-id")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent answers, and at which port of ours EdgeX reaches it."""

    host: str
    port: int
    relay_port: int


async def read_body(request: Request) -> bytes:
    """Return a request's body.

    Raises:
        TooLargeError: it is longer than `MOST_BYTES`.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooLargeError(f"body: more than {MOST_BYTES} bytes")
    return body


class Relays:
    """The ports of agents and services on EdgeX's network."""

    def __init__(self, file: Path, host: str, http: httpx.AsyncClient, tasks: asyncio.TaskGroup) -> None:
        """Remember places in `file`; listen on `host`; `start` opens what is remembered."""
        self._file = file
        self._host = host
        self._http = http
        self._busy: Counter[tuple[str, bool]] = Counter()  # who, and whether it is quick
        self._tasks = tasks
        self._places: dict[str, Place] = _read(file)
        self._servers: dict[str, WebServer] = {}

    def start(self) -> None:
        """Listen for all that were there before; a port that somebody else has stops neither the guard nor others."""
        for who, place in list(self._places.items()):
            try:
                self._open(who, place)
            except ConfigurationError as error:
                log.error("EdgeX does not reach %s: %s; tried again when it registers", who, error)

    def stop(self) -> None:
        """Stop listening."""
        for server in self._servers.values():
            server.should_exit = True

    def place(self, agent: str) -> Place | None:
        """Return where an agent answers, as far as is known."""
        return self._places.get(agent)

    def enter(self, agent: str, host: str, port: int) -> Place:
        """Have requests for an agent go to an address from now on; return its place.

        Raises:
            ConfigurationError: no port of ours is free for it.
        """
        known = self._places.get(agent)
        place = self._open(agent, Place(host, port, known.relay_port if known is not None else road_of(agent).port))
        # An address that another agent had is this one's now.
        gone = [other for other, at in self._places.items() if other != agent and (at.host, at.port) == (host, port)]
        for other in gone:
            self._places[other] = Place("", 0, self._places[other].relay_port)
        if place != known or gone:
            # Whole or not at all: without it all agents would get other ports after a crash.
            beside = self._file.with_suffix(".new")
            write_private(beside, json.dumps({name: asdict(at) for name, at in self._places.items()}))
            beside.replace(self._file)
        return place

    def _open(self, who: str, wanted: Place) -> Place:
        if who in self._servers:
            self._places[who] = wanted
            return wanted
        road = road_of(who)
        sock = bind(self._host, wanted.relay_port, key=service_key(who), others=road.others)
        place = Place(wanted.host, wanted.port, int(sock.getsockname()[1]))
        server = self._servers[who] = WebServer(self._app(who))
        self._tasks.create_task(server.serve([sock]), name=f"relay of {who}")
        self._places[who] = place
        return place

    def _app(self, who: str) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                answer = await self._relay(who, Request(scope, receive), send)
                if answer is not None:
                    await answer(scope, receive, send)

        return app

    async def _relay(self, who: str, request: Request, send: Send) -> Response | None:
        """Return what is answered to a request; None when it was sent already, piece by piece."""
        place = self._places[who]
        # What is looked at is what goes on, as it was sent.
        path = request.scope["raw_path"].decode("latin-1")
        route = road_of(who).route(request.method, path)
        if route is None:
            return JSONResponse(error_body(404, f"{request.method} {path[:200]}: not relayed to {who}"), 404)
        if not place.host:
            return JSONResponse(error_body(503, f"{who} has not registered again yet"), 503)
        most = MOST_AT_ONCE if route.is_quick else MOST_SLOW
        if self._busy[who, route.is_quick] >= most:
            return JSONResponse(error_body(429, f"{who}: {most} requests under way: ask again"), 429)
        self._busy[who, route.is_quick] += 1
        try:
            return await self._answered(place, path, route, request, send)
        except TooLargeError as error:
            return JSONResponse(error_body(413, str(error)), 413)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            text = f"{who} at {place.host}:{place.port}: {error or type(error).__name__}"
            return JSONResponse(error_body(503, text), 503)
        finally:
            self._busy[who, route.is_quick] -= 1

    async def _answered(self, place: Place, path: str, route: Route, request: Request, send: Send) -> Response | None:
        query = request.scope["query_string"].decode("latin-1") if route.takes_query else ""
        url = f"http://{place.host}:{place.port}{path}" + (f"?{query}" if query else "")
        async with asyncio.timeout(route.wait_s):  # all of it: a byte now and then would satisfy the client's own
            if not route.in_pieces:
                return await self._whole(route, url, request)
            body = await read_body(request)
        # Not packed: an answer of a few bytes would unpack into any number of them.
        headers = {**headers_of(request), "accept-encoding": "identity"}
        question = Question(route.method, url, body, headers, route.wait_s)
        await pass_on(self._http, question, request.receive, send)
        return None

    async def _whole(self, route: Route, url: str, request: Request) -> Response:
        """Pass a request on, and what is answered back, as long as it is no longer than it may be."""
        headers = {**headers_of(request), "accept-encoding": "identity"}
        body, found = await read_body(request), b""
        async with self._http.stream(route.method, url, content=body, headers=headers, timeout=route.wait_s) as answer:
            async for chunk in answer.aiter_raw():
                found += chunk
                if len(found) > MOST_BYTES:
                    return JSONResponse(error_body(502, f"{url}: answers with more than {MOST_BYTES} bytes"), 502)
            back = {name: answer.headers[name] for name in _BACK if name in answer.headers}
            return Response(found, answer.status_code, back)


def _read(file: Path) -> dict[str, Place]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): Place(str(at["host"]), int(at["port"]), int(at["relay_port"])) for name, at in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s: %s: agents are known again once they register", file, error)
        return {}


def headers_of(request: Request) -> Mapping[str, str]:
    """Return the headers of a request that go on with it; whose token it was does not."""
    return _kept(request, _HEADERS)


def _kept(request: Request, names: Collection[str]) -> dict[str, str]:
    # A header is ASCII: what is not would be ours to explain.
    return {name: text for name, text in request.headers.items() if name in names and text.isascii()}
