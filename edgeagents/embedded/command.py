"""core-command: passes reads and writes on to the device service, over HTTP for HTTP callers, over the bus for others.

Like the real one it has no fence and no memory: a command that comes twice is carried out twice, and a call to a
device service goes on after its caller has been told that time is up.

Source: edgex-wire.md sections 5.3 and 5.4; recordings of EdgeX 4.0.2.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

import httpx

from edgeagents.adapters import cbor, telemetry
from edgeagents.embedded.common_config import Addresses
from edgeagents.embedded.http import StatusError, answer, page
from edgeagents.embedded.link import Link, error_envelope, raw_envelope
from edgeagents.embedded.metadata import Metadata
from edgeagents.embedded.profiles import core_commands, path_level
from edgeagents.embedded.storage import Row
from edgeagents.embedded.validation import load_json
from edgeagents.errors import (
    EdgeAgentsError,
    InvalidInputError,
    MalformedMessageError,
    NotFoundError,
    UnavailableError,
)
from edgeagents.model.envelope import Envelope

log = logging.getLogger(__name__)

KEY: Final = "core-command"
_REQUESTS: Final = "core/command/request/#"
_QUERIES: Final = "core/commandquery/request/#"
_FLAGS: Final = ("ds-returnevent", "ds-pushevent")
_KNOWN_STATUSES: Final = (400, 401, 403, 404, 405, 409, 413, 416, 423, 501, 502, 503)


class Commands:
    """What core-command knows and does."""

    def __init__(
        self,
        metadata: Metadata,
        http: httpx.AsyncClient,
        addresses: Addresses,
        link: Link,
        *,
        timeout_s: float,
        device_timeout_s: float,
    ) -> None:
        """Look devices up in `metadata` and call their services.

        Args:
            metadata: devices, services and profiles.
            http: reaches device services.
            addresses: where this core-command answers.
            link: the bus.
            timeout_s: how long a caller waits.
            device_timeout_s: when a call to a device service is given up.
        """
        self._metadata = metadata
        self._http = http
        self._url = addresses.url("command")
        self._link = link
        self._timeout_s = timeout_s
        self._device_timeout_s = device_timeout_s
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Answer on the bus, each request in a task of `group`; before the link connects."""
        self._group = group
        self._link.on(_REQUESTS, self._on_request)
        self._link.on(_QUERIES, self._on_query)

    def stop(self) -> None:
        """End the calls that are still under way."""
        for task in self._running:
            task.cancel()

    # --- what can be commanded ---------------------------------------------------------------

    def commands_of(self, name: str) -> Row:
        """Return the commands of a device.

        Raises:
            NotFoundError: there is no such device, or no profile of it.
        """
        device = self._looked_up(lambda: self._metadata.device(name))
        profile = self._looked_up(lambda: self._metadata.profiles.get(device.get("profileName", "")))
        return core_commands(device, profile, self._url)

    def all_commands(self, offset: int, limit: int) -> tuple[int, list[Row]]:
        """Return the count of all devices and the commands of some.

        Raises:
            RangeError: the offset lies beyond the end.
        """
        devices = list(self._metadata.devices.values())
        rows = [row for row in page(devices, offset, limit) if row.get("profileName")]
        found = [core_commands(row, self._metadata.profiles.get(row["profileName"]), self._url) for row in rows]
        return len(devices), found

    def _looked_up(self, look: Callable[[], Row]) -> Row:
        try:
            return look()
        except NotFoundError as error:
            raise NotFoundError(f"request failed, status code: 404, err: {error}") from error

    # --- over HTTP ---------------------------------------------------------------------------

    async def get(self, device: str, command: str, query: str, correlation: str) -> Row | None:
        """Return a device service's answer to a read; None when it sends none.

        Raises:
            InvalidInputError: a flag is neither true nor false.
            NotFoundError: there is no such device.
            UnavailableError: its service cannot be reached, or took too long.
            StatusError: what the device service refuses, with its status and text.
        """
        response = await self._call("GET", device, command, query, correlation)
        if response.status_code > 207:
            raise _refused(response, response.text.rstrip("\n"))
        return _object(response) if response.content else None

    async def set(self, device: str, command: str, query: str, settings: Any, correlation: str) -> Row:
        """Return a device service's answer to a write.

        Raises:
            NotFoundError: there is no such device.
            UnavailableError: its service cannot be reached, or took too long: the value may still be set later.
            StatusError: what the device service refuses, with its status and text.
        """
        body = json.dumps(settings, ensure_ascii=False, separators=(",", ":")).encode()
        response = await self._call("PUT", device, command, query, correlation, body)
        if response.status_code > 207:
            raise _refused(response, _message(response))
        return _object(response) if response.content else answer(200)

    async def _call(
        self, method: str, device: str, command: str, query: str, correlation: str, body: bytes | None = None
    ) -> httpx.Response:
        row = self._looked_up(lambda: self._metadata.device(device))
        service = self._looked_up(lambda: self._metadata.service(row["serviceName"]))
        path = f"/api/v3/device/name/{path_level(device)}/{path_level(command)}"
        log.debug("%s %s of %s, correlation id %s", method, path, row["serviceName"], correlation)
        url = service["baseAddress"].rstrip("/") + path + (f"?{query}" if query else "")
        call = self._spawn(self._send(method, url, correlation, body))
        # The call is not cancelled with its caller: once a device service has the request it may carry it out.
        done, _ = await asyncio.wait((call,), timeout=self._timeout_s)
        if not done:
            raise UnavailableError(f"HTTP request timeout: {row['serviceName']} did not answer {path} in time")
        if call.cancelled():
            raise UnavailableError("core-command is ending: the value may still be set")
        outcome: httpx.Response | EdgeAgentsError = call.result()
        if isinstance(outcome, EdgeAgentsError):
            raise outcome
        return outcome

    async def _send(
        self, method: str, url: str, correlation: str, body: bytes | None
    ) -> httpx.Response | EdgeAgentsError:
        headers = {"X-Correlation-Id": correlation, **telemetry.carried()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return await self._http.request(method, url, content=body, headers=headers, timeout=self._device_timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("%s %s: %s", method, url, str(error) or type(error).__name__)
            return UnavailableError("failed to send a http request")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        if self._group is None:
            raise RuntimeError("Commands.start comes first")
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    # --- over the bus ------------------------------------------------------------------------

    async def _on_request(self, topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        request = self._envelope(topic, data, headers)
        if request is not None:
            with telemetry.carry(headers):
                self._spawn(self._command(topic, request))

    async def _on_query(self, topic: str, data: bytes, headers: Mapping[str, str]) -> None:
        request = self._envelope(topic, data, headers)
        if request is None:
            return
        try:
            payload = self._queried(unquote(topic.rsplit("/", 1)[1]), request)
        except EdgeAgentsError as error:
            await self._reply(error_envelope(request.request_id, str(error)))
        else:
            await self._reply(Envelope(payload, request.correlation_id, request.request_id))

    def _envelope(self, topic: str, data: bytes, headers: Mapping[str, str]) -> Envelope | None:
        """Return a request's envelope; None, logged, for what cannot be answered: EdgeX stays silent then."""
        try:
            envelope = raw_envelope(data, headers)
        except MalformedMessageError as error:
            log.warning("message on %s: %s", topic, error)
            return None
        if not envelope.request_id.strip():
            log.warning("message on %s has no request id: nobody can be answered", topic)
            return None
        return envelope

    async def _command(self, topic: str, request: Envelope) -> None:
        try:
            to, answer_topic = self._target(topic, request)
        except EdgeAgentsError as error:
            await self._reply(error_envelope(request.request_id, str(error)))
            return
        try:
            reply = await self._link.relay(replace(request, received_topic=topic), to, answer_topic, self._timeout_s)
        except (UnavailableError, InvalidInputError) as error:
            log.warning("command on %s: %s", topic, error)  # and no answer, as EdgeX does
            return
        await self._reply(replace(reply, received_topic=answer_topic, request_id=request.request_id))

    def _target(self, topic: str, request: Envelope) -> tuple[str, str]:
        """Return where a request goes on to and where its answer will come from."""
        levels = topic[len(self._link.base) + 1 :].split("/")
        if len(levels) != 6:
            raise InvalidInputError(f"invalid internal command request topic scheme: {topic}")
        device, method = unquote(levels[3]), levels[5]
        if method.lower() not in ("get", "set"):
            raise InvalidInputError(f"unknown request method: {method}, only 'get' or 'set' is allowed")
        try:
            row = self._looked_up(lambda: self._metadata.device(device))
        except NotFoundError as error:
            raise NotFoundError(f"invalid request topic: failed to get Device by name {device}: {error}") from error
        for name in _FLAGS:
            if request.query_params.get(name, "true") not in ("true", "false"):
                raise InvalidInputError(f"invalid query parameter, {name} has to be 'true' or 'false'")
        service, base = row["serviceName"], self._link.base
        # Device and command as the caller wrote them: a name that no topic can carry stays escaped.
        to = f"{base}/device/command/request/{service}/{'/'.join(levels[3:])}"
        return to, f"{base}/response/{service}/{request.request_id}"

    def _queried(self, name: str, request: Envelope) -> Row:
        if name.lower() != "all":
            try:
                return answer(200, request_id=request.request_id, deviceCoreCommand=self.commands_of(name))
            except NotFoundError as error:
                raise NotFoundError(f"failed to get commands by device name '{name}': {error}") from error
        try:
            offset = int(request.query_params.get("offset", "0"))
            limit = int(request.query_params.get("limit", "20"))
        except ValueError as error:
            raise InvalidInputError(f"failed to convert query parameter to integer: {error}") from error
        total, found = self.all_commands(max(0, offset), limit if limit >= 0 else 1024)
        return answer(200, request_id=request.request_id, totalCount=total, deviceCoreCommands=found)

    async def _reply(self, envelope: Envelope) -> None:
        await self._link.send(f"{self._link.base}/response/{KEY}/{envelope.request_id}", envelope)


def check_flags(query: Mapping[str, str]) -> None:
    """Refuse a read whose flags are neither true nor false.

    Raises:
        InvalidInputError: one is not.
    """
    for name in _FLAGS:
        if query.get(name, "true") not in ("true", "false"):
            raise InvalidInputError(f"invalid query parameter, {query[name]} has to be true or false")


def _refused(response: httpx.Response, text: str) -> StatusError:
    status = response.status_code if response.status_code in _KNOWN_STATUSES else 500
    return StatusError(status, f"request failed, status code: {response.status_code}, err: {text}")


def _message(response: httpx.Response) -> str:
    try:
        body = load_json(response.content)
    except (ValueError, RecursionError):
        return response.text
    message = body.get("message", "") if isinstance(body, dict) else None
    return message if isinstance(message, str) else response.text


def _object(response: httpx.Response) -> Row:
    """Return the decoded body of a device service's answer; binary values in CBOR become base64, as in EdgeX."""
    try:
        is_cbor = "cbor" in response.headers.get("content-type", "").lower()
        body = cbor.loads(response.content) if is_cbor else load_json(response.content)
    except MalformedMessageError as error:
        raise InvalidInputError(f"failed to decode the cbor response: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("failed to decode the json response") from error
    if not isinstance(body, dict):
        raise InvalidInputError("failed to decode the json response")
    return body
