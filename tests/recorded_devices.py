"""A device service that answers core-command as the recorded one must have: over HTTP and over the bus.

What core-command passed on tells what the device service had said: its status and text stand in the answer's text.
"""

import asyncio
import json
import re
from typing import Any

from nats.aio.subscription import Subscription
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.envelopes import JSON, encode_payload
from edgeagents.adapters.serving import WebServer, bind
from tests.recordings import BusLine, HttpLine

_WRAPPED = re.compile(r"request failed, status code: (\d+), err: (.*)", re.DOTALL)


class RecordedDevices:
    """Answers the next HTTP command as told, and every validation with yes unless `refusal` says why not."""

    def __init__(self, bus: Bus) -> None:
        """Use a connection to the broker; `start` begins to answer."""
        self.requests: list[dict[str, Any]] = []
        self.bus_requests: list[dict[str, Any]] = []
        self.answered_to_caller: list[bool] = []
        self.held = asyncio.Event()
        self.held.set()
        self.url = ""
        self._bus = bus
        self._bus_answers: dict[str, bytes] = {}
        self.refusal = ""  # of the next validations; empty: taken
        self._next = (200, b"", JSON)
        route = Route("/{path:path}", self._serve, methods=["GET", "PUT"])
        self._server = WebServer(Starlette(routes=[route]))
        self._serving: asyncio.Task[None] | None = None
        self._validating: Subscription | None = None

    async def start(self) -> None:
        """Listen on HTTP and on the bus."""
        sock = bind("127.0.0.1", 0, key="device-recorded")
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self._serving = asyncio.create_task(self._server.serve([sock]))
        await asyncio.wait_for(self._server.listening.wait(), 10)
        self._validating = await self._bus.subscribe("edgex.*.validate.device", self._validate)
        await self._bus.subscribe("edgex.device.command.request.>", self._command)

    async def stop(self) -> None:
        """End the HTTP server."""
        self.held.set()
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait_for(self._serving, 10)

    async def stop_validating(self) -> None:
        """Leave validations unanswered from now on."""
        assert self._validating is not None
        await self._validating.unsubscribe()

    def answer_as(self, line: HttpLine) -> None:
        """Answer the next HTTP command so that core-command's answer is the recorded one."""
        self.say(line.status, line.answer)
        if line.status < 300:
            if '"valueType":"Binary"' in line.answer:
                self._next = (line.status, *encode_payload(line.json()))
            return
        wrapped = _WRAPPED.fullmatch(line.json()["message"])
        if wrapped is not None:
            status, text = int(wrapped[1]), wrapped[2]
            body = {"apiVersion": "v3", "message": text, "statusCode": status}
            self.say(status, text if line.method == "GET" else json.dumps(body))

    def say(self, status: int, body: str) -> None:
        """Answer the next HTTP commands with this."""
        self._next = (status, body.encode(), JSON)

    def answer_bus(self, request_id: str, line: BusLine) -> None:
        """Answer the bus command of this id with what a recorded message carries."""
        self._bus_answers[request_id] = line.data

    async def _serve(self, request: Request) -> Response:
        self.requests.append(
            {
                "method": request.method,
                "path": request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else ""),
                "headers": dict(request.headers),
                "body": (await request.body()).decode(),
            }
        )
        await self.held.wait()
        self.answered_to_caller.append(not await request.is_disconnected())
        status, body, media_type = self._next
        return Response(body, status, media_type=media_type)

    async def _validate(self, message: BusMessage) -> None:
        request = json.loads(message.data)
        service = message.subject.split(".")[1]
        answer = request | {"payload": None, "receivedTopic": ""}
        if self.refusal:
            answer |= {"payload": self.refusal, "errorCode": 1, "contentType": "text/plain"}
        await self._answer(service, request, json.dumps(answer).encode())

    async def _command(self, message: BusMessage) -> None:
        request = json.loads(message.data)
        self.bus_requests.append(request)
        data = self._bus_answers.get(request["requestID"])
        if data is not None:
            await self._answer(message.subject.split(".")[4], request, data)

    async def _answer(self, service: str, request: dict[str, Any], data: bytes) -> None:
        await self._bus.publish(f"edgex.response.{service}.{request['requestID']}", data)
