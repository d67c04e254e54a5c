"""OpenAPI 3.1 of each service, as its own FastAPI app says it.

Routes are added as the service adds them, with nothing behind them: what a route works with is looked at when somebody
calls it, and here nobody does.

Source: OpenAPI 3.1.0; FastAPI `openapi()`.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final

from fastapi import FastAPI

from edgeagents.adapters.http_trigger import add_trigger
from edgeagents.adapters.web import WebContext, make_app
from services.agent import answers
from services.agent import app as agent
from services.agent.leading_desk import add_leading_routes
from services.coordinator import app as coordinator
from services.coordinator import routes as coordinator_routes
from services.coordinator.conflict_routes import add_conflict_routes
from services.guard import app as guard
from services.inference import app as inference
from services.inference import routes as inference_routes
from services.inference.error_pages import OpenAiErrors

VERSION: Final = "4.0.0"
GATEWAY: Final = "gateway"
NOTHING: Final[Any] = None  # stands for what routes look at only when they are called
ABOUT: Final[Mapping[str, str]] = {
    "agent": "One agent: takes what rule engines and people say, tells what it does. It commands by the guard alone.",
    "guard": "The only service that may command devices. People approve, pause and change modes here, each with an "
    "approver's token; agents speak to it over NATS (messages.asyncapi.json).",
    "coordinator": "Takes tasks, finds by auction who does each, and tells how it ended.",
    "inference": "The gateway's language model, for any OpenAI client.",
}


def documents() -> dict[str, dict[str, Any]]:
    """Return the OpenAPI document of each service, by the service's name."""
    return {name: _document(name, add) for name, add in _ADDED.items()}


def _document(name: str, add: Callable[[FastAPI], None]) -> dict[str, Any]:
    app = make_app(WebContext(f"app-{name}", VERSION, dict, None))
    add(app)
    app.title, app.description = f"edgeagents {name}", ABOUT[name]
    found: dict[str, Any] = app.openapi()
    return found


def _agent(app: FastAPI) -> None:
    service: Any = SimpleNamespace(app=app, settings=SimpleNamespace(gateway=GATEWAY))
    definition: Any = SimpleNamespace(name="agent")
    agent.add_routes(service, definition, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, None)
    answers.add_route(app, NOTHING)
    add_leading_routes(app, NOTHING)
    add_trigger(app, NOTHING, NOTHING, NOTHING)


def _guard(app: FastAPI) -> None:
    parts: Any = SimpleNamespace(people=NOTHING, approvals=NOTHING)
    guard.add_routes(app, parts, {})


def _coordinator(app: FastAPI) -> None:
    service: Any = SimpleNamespace(app=app)
    coordinator_routes.add_routes(service, NOTHING)
    add_conflict_routes(service, NOTHING, NOTHING)


def _inference(app: FastAPI) -> None:
    app.add_middleware(OpenAiErrors)
    inference_routes.add_routes(app, NOTHING, 1.0)
    inference.add_state(app, NOTHING, NOTHING, NOTHING)


_ADDED: Final[Mapping[str, Callable[[FastAPI], None]]] = {
    "agent": _agent, "coordinator": _coordinator, "guard": _guard, "inference": _inference,
}  # fmt: skip
PORTS: Final[Mapping[str, int]] = {
    "agent": agent.AGENT_PORTS.start, "coordinator": coordinator.SPEC.port, "guard": guard.SPEC.port,
    "inference": inference.SPEC.port,
}  # fmt: skip
