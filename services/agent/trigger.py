"""Events that reach an agent by EdgeX's HTTP trigger: stored before they are acted on, then like one from the bus.

With `Trigger.Type` `http` the agent takes events from its own route alone; what a rule engine posts and outcomes
of commands come as ever. An agent has no response data: the answer is always empty.

Source: edgex-wire.md sections 4 and 8; design.md section 3.5.
"""

from collections.abc import Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.bus import CONTENT_TYPE, StoredMessage
from edgeagents.adapters.http_trigger import Triggered, add_trigger, event_in
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.model.device import Event

KIND: Final = "Trigger-Kind"
EVENT: Final = "event"


def is_by_http(config: LiveConfig) -> bool:
    """Say whether events come by HTTP instead of the bus.

    Raises:
        ConfigurationError: `Trigger.Type` is a trigger this service does not have.
    """
    kind = config.text("Trigger/Type", "edgex-messagebus").strip().lower()
    if kind not in ("edgex-messagebus", "http"):
        raise ConfigurationError(
            f"configuration Trigger/Type: {kind!r}: write edgex-messagebus, or http for POST /api/v3/trigger"
        )
    return kind == "http"


def add_event_route(service: EdgexService, agent: str, on_invalid: Callable[[], None]) -> None:
    """Add `POST /api/v3/trigger`; `on_invalid` is called for each body that holds no event."""
    subject = subjects.trigger(service.settings.gateway, agent)

    async def store(came: Triggered) -> None:
        if came.event is None:
            raise InvalidInputError(
                "function error: this agent decides on events, but Writable.Pipeline.TargetType is raw: set it to event"
            )
        headers = {CONTENT_TYPE: came.content_type, KIND: EVENT, "X-Correlation-ID": came.correlation_id}
        await service.bus.store(subject, came.body, headers)

    add_trigger(service.app, store, lambda: service.config.text("Writable/Pipeline/TargetType"), on_invalid)


def stored_event(message: StoredMessage) -> Event | None:
    """Return the event that came by HTTP, None when the stored message is a rule's result.

    Raises:
        MalformedMessageError: it says that it is an event, but holds none.
    """
    if message.headers.get(KIND) != EVENT:
        return None
    return event_in(message.data, message.headers.get(CONTENT_TYPE, "application/json"))
