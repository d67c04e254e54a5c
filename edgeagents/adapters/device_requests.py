"""The two doors through which core-command reaches a device service: REST and the bus; and validation by core-metadata.

Source: edgex-wire.md sections 1.3 and 5.3; http-to-device-service.jsonl and bus recordings of EdgeX 4.0.2.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from edgeagents.adapters.device_commands import Query, event_to_wire, parse_query
from edgeagents.adapters.edgex_bus import Cancel, EdgexBus
from edgeagents.adapters.envelopes import PLAIN, Encoding, encode_payload
from edgeagents.adapters.middleware import correlation_id
from edgeagents.errors import EdgeAgentsError, InvalidInputError, TheirError
from edgeagents.model.device import Device, Event
from edgeagents.model.envelope import CommandRequest, EdgexMessage, SystemEvent, ValidateDevice

log = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 256
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it becomes a level of the answer's topic


class Commands(Protocol):
    """What the doors need of a device service."""

    async def get(self, name: str, command: str, query: Query | None = None, correlation_id: str = "") -> Event:
        """Read."""

    async def set(self, name: str, command: str, settings: Mapping[str, Any], correlation_id: str) -> None:
        """Write."""

    def refusal(self, device: Device) -> str | None:
        """Return why a device cannot be taken."""


def add_routes(app: FastAPI, commands: Commands, encoding: Encoding = PLAIN) -> None:
    """Add `GET|PUT /api/v3/device/name/{device}/{command}`; errors become EdgeX's bodies by the app's handlers."""

    @app.get("/api/v3/device/name/{device}/{command}", tags=["device"])
    async def read(device: str, command: str, request: Request) -> Response:
        """Read a resource or a device command."""
        query = parse_query(request.query_params)
        event = await commands.get(device, command, query, correlation_id.get())
        if not query.return_event:
            return Response(media_type="application/json")
        answer = {"apiVersion": "v3", "statusCode": 200, "event": event_to_wire(event)}
        data, content_type = encode_payload(answer, encoding)
        return Response(data, media_type=content_type)

    @app.put("/api/v3/device/name/{device}/{command}", tags=["device"])
    async def write(device: str, command: str, request: Request) -> Response:
        """Write a resource or a device command; the body is `{"<resource>": <text or natural JSON>}`."""
        await commands.set(device, command, _settings(await request.body()), correlation_id.get())
        return JSONResponse({"apiVersion": "v3", "statusCode": 200})


def _settings(body: bytes) -> Mapping[str, Any]:
    try:
        settings = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("failed to parse request body") from error
    if not isinstance(settings, dict):
        raise InvalidInputError("failed to parse request body: an object of resource names and values is needed")
    return settings


class BusDoor:
    """Answers command requests and device validation on EdgeX's bus, each in a task of its own."""

    def __init__(
        self, key: str, edgex: EdgexBus, commands: Commands, tasks: asyncio.TaskGroup,
        on_admin_state: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Answer as the service `key`; `on_admin_state` hears `LOCKED` or `UNLOCKED` of the service itself."""
        self._key = key
        self._edgex = edgex
        self._commands = commands
        self._tasks = tasks
        self._on_admin_state = on_admin_state
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)
        self._cancels: list[Cancel] = []

    async def open(self) -> None:
        """Subscribe.

        Raises:
            UnavailableError: the bus is closed.
        """
        for topic in (
            f"device/command/request/{self._key}/#",
            f"{self._key}/validate/device",
            f"system-events/core-metadata/deviceservice/+/{self._key}",
        ):
            self._cancels.append(await self._edgex.subscribe(topic, self._on_message))

    async def close(self) -> None:
        """Take no further requests."""
        while self._cancels:
            await self._cancels.pop()()

    async def _on_message(self, message: EdgexMessage) -> None:
        match message:
            case CommandRequest() | ValidateDevice() if not _REQUEST_ID.fullmatch(message.envelope.request_id):
                log.warning("request on %s has no usable requestID: it cannot be answered", message.topic)
            case CommandRequest():
                await self._start(lambda: self._command(message))
            case ValidateDevice():
                await self._start(lambda: self._validate(message))
            case SystemEvent(type="deviceservice", action="add" | "update"):
                self._on_admin_state(str(message.details.get("adminState", "")))

    async def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        # Tasks start in the order of the messages, and a device's lock keeps that order.
        await self._room.acquire()

        async def run() -> None:
            try:
                await work()
            finally:
                self._room.release()

        self._tasks.create_task(run())

    async def _command(self, request: CommandRequest) -> None:
        envelope = request.envelope
        payload: dict[str, Any] | None = None
        try:
            if request.is_set:
                await self._commands.set(request.device, request.command, request.settings, envelope.correlation_id)
            else:
                query = parse_query(envelope.query_params)
                event = await self._commands.get(request.device, request.command, query, envelope.correlation_id)
                if query.return_event:
                    payload = {
                        "apiVersion": "v3", "requestId": envelope.request_id, "statusCode": 200,
                        "event": event_to_wire(event),
                    }  # fmt: skip
        except EdgeAgentsError as error:
            await self._answer(request, error=str(error))
        else:
            await self._answer(request, payload)

    async def _validate(self, request: ValidateDevice) -> None:
        await self._answer(request, error=self._commands.refusal(request.device))

    async def _answer(
        self, request: CommandRequest | ValidateDevice, payload: Any = None, error: str | None = None
    ) -> None:
        try:
            await self._edgex.answer(self._key, request.envelope, payload, error)
        except TheirError as failure:  # the link is down, or the answer is too large or no JSON
            log.warning("request on %s is not answered: %s", request.topic, failure)
