"""What EdgeX, its UI, rule engines and the owner may ask of who is behind the guard, and for how long. Pure.

Agents, coordinator and language model are on no network of EdgeX; the guard has a port there for each of them, and
passes these requests on (`relays.py`). All else of theirs stays behind it.

Source: design.md section 2; docs/tasks.md, docs/inference.md, docs/ask.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeagents.permissions import INFERENCE_USER
from edgeagents.subjects import COORDINATOR

AGENT_PORTS: Final = range(59750, 59800)
WAIT_S: Final = 5.0
ASK_S: Final = 35.0  # who asks an agent waits for the proof, 25 s at most
WATCH_S: Final = 30.0  # who watches tasks hears every ten seconds that the coordinator is there
ANSWER_S: Final = 660.0  # longer than the language model may take for an answer
TEXT_S: Final = 60.0  # between two pieces of a text that has begun
_ID: Final = r"(?!\.+(?:/|$))[A-Za-z0-9_~.%-]{1,400}"
_TASK: Final = f"/api/v3/task/id/{_ID}"


@dataclass(frozen=True, slots=True)
class Route:
    """One request that is passed on.

    Args:
        method: GET, POST, ...
        path: all of it, a regular expression on what was sent.
        wait_s: longest wait for the whole answer; of one that comes in pieces, for the first of them.
        piece_s: then for each further piece.
        in_pieces: whether what is answered goes back as it comes, however long it is; else it is read whole first.
        takes_query: whether parameters go on with it.
    """

    method: str
    path: str
    wait_s: float = WAIT_S
    piece_s: float = WATCH_S
    in_pieces: bool = False
    takes_query: bool = False

    @property
    def is_quick(self) -> bool:
        """Say whether it ends soon: slow ones have places of their own, else keeper's health check would find none."""
        return not self.in_pieces


_COMMON: Final = (
    Route("GET", "/api/v3/ping"), Route("GET", "/api/v3/version"), Route("GET", "/api/v3/config"),
    Route("POST", "/api/v3/secret"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Road:
    """How somebody is reached: at which port of the guard, or at any of some, and with which requests."""

    port: int
    others: range | None
    routes: tuple[Route, ...]

    def route(self, method: str, path: str) -> Route | None:
        """Return the route that a request takes, None when it is not passed on; `path` as it was sent."""
        fitting = (item for item in self.routes if item.method == method and re.fullmatch(item.path, path))
        return next(fitting, None)


AGENTS_ROAD: Final = Road(
    AGENT_PORTS.start, AGENT_PORTS,
    (
        *_COMMON, Route("GET", "/api/v3/agent"), Route("POST", "/api/v3/rule"), Route("POST", "/api/v3/trigger"),
        Route("POST", "/api/v3/ask", ASK_S, in_pieces=True),
        # Of those that may lead tasks while no coordinator is there.
        Route("GET", "/api/v3/leading"), Route("POST", "/api/v3/task"),
        Route("GET", "/api/v3/task/all", in_pieces=True, takes_query=True), Route("GET", _TASK, in_pieces=True),
        Route("DELETE", _TASK, in_pieces=True),
    ),
)  # fmt: skip
SERVICES_ROADS: Final[Mapping[str, Road]] = {
    COORDINATOR: Road(
        59741, None,
        (
            *_COMMON, Route("GET", "/api/v3/coordinator"), Route("GET", "/api/v3/roster"),
            Route("POST", "/api/v3/task"), Route("GET", "/api/v3/task/all", in_pieces=True, takes_query=True),
            Route("GET", "/api/v3/task/watch", WATCH_S, in_pieces=True),
            Route("GET", _TASK, in_pieces=True), Route("DELETE", _TASK, in_pieces=True),
            Route("GET", f"{_TASK}/watch", WATCH_S, in_pieces=True),
            Route("GET", "/api/v3/conflict/all", in_pieces=True, takes_query=True),
            Route("GET", f"/api/v3/conflict/id/{_ID}", in_pieces=True),
        ),
    ),
    INFERENCE_USER: Road(
        59743, None,
        (
            *_COMMON, Route("GET", "/api/v3/inference"), Route("GET", "/api/v3/ready"),
            Route("GET", f"/v1/models(?:/{_ID})?"),
            Route("POST", "/v1/chat/completions", ANSWER_S, TEXT_S, in_pieces=True),
        ),
    ),
}  # fmt: skip


def road_of(who: str) -> Road:
    """Return how an agent, or a service that is none, is reached; `who` as the door's tokens name it."""
    return SERVICES_ROADS.get(who, AGENTS_ROAD)
