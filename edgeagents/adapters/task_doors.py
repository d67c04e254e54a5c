"""How tasks are given, looked at and cancelled, over HTTP and NATS alike, whoever leads them.

The coordinator does, or while none is there an agent whose owner lets it. `POST /api/v3/task` takes one task, or an
array of them as eKuiper's rest sink sends its results. Leaves out watching: the coordinator's routes have it.

Source: edgex-wire.md section 4; docs/tasks.md.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from edgeagents.adapters.middleware import error_body
from edgeagents.adapters.task_pages import OneTask, TaskGiven, TaskList, TaskRequest
from edgeagents.adapters.web_pages import ErrorBody, shows, takes
from edgeagents.errors import EdgeAgentsError, ForbiddenError, InvalidInputError, TooLargeError, meaning_of
from edgeagents.model.task import ENDED_STATES, MOST_TASK_BYTES, TaskWanted, read_task
from edgeagents.protocol.task_record import Record, shown

GIVER: Final = "http"
OWNER: Final = "owner"
MOST_TOGETHER: Final = 64  # tasks in one request
MOST_LISTED: Final = 1_000
STATES: Final = ("open", "awarded", "taken", *ENDED_STATES)
EXAMPLE: Final = {
    "skill": "set", "deviceName": "radiator-living", "resourceName": "Setpoint", "value": "21", "deadlineS": 60,
}  # fmt: skip


class TaskKeeper(Protocol):
    """Whoever takes tasks in and leads them; its errors are answers to whoever asked."""

    async def submit(self, wanted: TaskWanted, giver: str) -> tuple[Record, bool]:
        """Take a task in; and whether it is new."""

    async def cancel(self, task: str, by: str) -> Record:
        """End a task by somebody's word."""

    def record(self, task: str) -> Record:
        """Return where a task stands."""

    def listed(self, state: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Return tasks as clients see them, the newest first."""

    def refused(self, sender: str, cause: str, text: str) -> None:
        """Count what was not accepted."""


def add_task_routes(app: FastAPI, keeper: TaskKeeper, taken: str) -> None:
    """Add the routes by which tasks are given, listed, looked at and cancelled.

    Args:
        app: gets them.
        keeper: does what they ask.
        taken: what a 202 means, for the page.
    """
    given = shows(
        TaskGiven, taken, 202,
        also={200: (TaskGiven, "It was known."),
              207: (list[TaskGiven | ErrorBody], "An answer for each of an array.")},
    )  # fmt: skip

    @app.post("/api/v3/task", **given, **takes(TaskWanted, TaskRequest, arrays_of=TaskWanted, example=EXAMPLE))
    async def give(request: Request) -> JSONResponse:
        """Take tasks in: 202 once it is, 200 when it was known; an array gets an answer for each, 207."""
        body = await _body(keeper, request)
        if not isinstance(body, list):
            answer = await _given(keeper, body)
            return JSONResponse(answer, answer["statusCode"])
        if not 0 < len(body) <= MOST_TOGETHER:
            raise InvalidInputError(f"{len(body)} tasks in one request: 1 to {MOST_TOGETHER}")
        return JSONResponse(await asyncio.gather(*(_given(keeper, item) for item in body)), 207)

    @app.get("/api/v3/task/all", **shows(TaskList, "The tasks, the newest first."))
    async def listed(state: str = "", limit: int = 100) -> dict[str, Any]:
        """List tasks, the newest first."""
        if state and state not in STATES:
            raise InvalidInputError(f"state {state[:40]!r} is none of {', '.join(STATES)}")
        if not 0 < limit <= MOST_LISTED:
            raise InvalidInputError(f"limit {limit}: 1 to {MOST_LISTED}")
        return _list(keeper.listed(state, limit))

    @app.get("/api/v3/task/id/{task}", **shows(OneTask, "The task."))
    async def one(task: str) -> dict[str, Any]:
        """Tell where a task stands, and why."""
        return _one(keeper.record(task))

    @app.delete("/api/v3/task/id/{task}", **shows(OneTask, "The task, cancelled."))
    async def cancel(task: str) -> dict[str, Any]:
        """End a task, whoever has it."""
        return _one(await keeper.cancel(task, GIVER))


async def answer_of(keeper: TaskKeeper, verb: str, sender: str, data: bytes) -> bytes:
    """Return the answer, as JSON, to what was asked over NATS: `submit`, `get`, `list` or `cancel`.

    Args:
        keeper: does what is asked; counts what is refused.
        verb: what is asked.
        sender: who asks, by the subject.
        data: the request's JSON.
    """
    try:
        body = await _done(keeper, verb, sender, _json(data))
    except EdgeAgentsError as error:
        keeper.refused(sender, "task", f"{verb}: {error}")
        body = error_body(meaning_of(error).status, str(error))
    return json.dumps(body).encode()


async def _done(keeper: TaskKeeper, verb: str, sender: str, body: Any) -> Mapping[str, Any]:
    said = body if isinstance(body, dict) else {}
    match verb:
        case "submit":
            return _taken(*await keeper.submit(read_task(body), sender))
        case "get":
            return _one(keeper.record(str(said.get("id", ""))))
        case "list":
            return _list(keeper.listed(str(said.get("state", ""))))
        case "cancel":
            record = keeper.record(str(said.get("id", "")))
            if sender not in (record.giver, OWNER):
                raise ForbiddenError(f"task {record.task!r} is {record.giver!r}'s to cancel, or the owner's")
            return _one(await keeper.cancel(record.task, sender))
        case _:
            raise InvalidInputError(f"{verb[:40]!r} is none of submit, get, list, cancel")


def _json(data: bytes) -> Any:
    if len(data) > MOST_TASK_BYTES:
        raise TooLargeError(f"a task of {len(data)} bytes: at most {MOST_TASK_BYTES}")
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not JSON: {str(error)[:200]}") from error


async def _body(keeper: TaskKeeper, request: Request) -> Any:
    data = await request.body()
    if len(data) > MOST_TASK_BYTES * MOST_TOGETHER:
        raise TooLargeError(f"{len(data)} bytes of tasks")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        keeper.refused(GIVER, "not-json", str(error)[:200])
        raise InvalidInputError(f"body: not JSON: {str(error)[:200]}") from error


async def _given(keeper: TaskKeeper, body: Any) -> dict[str, Any]:
    request_id = body.get("requestId") if isinstance(body, Mapping) else None
    told = {"requestId": request_id} if isinstance(request_id, str) and _is_plain(request_id) else {}
    try:
        return {**_taken(*await keeper.submit(read_task(body), GIVER)), **told}
    except EdgeAgentsError as error:
        keeper.refused(GIVER, "task", str(error))
        return {**error_body(meaning_of(error).status, str(error)), **told}


def _taken(record: Record, is_new: bool) -> dict[str, Any]:
    return {"apiVersion": "v3", "statusCode": 202 if is_new else 200, "id": record.task, "state": record.state}


def _one(record: Record) -> dict[str, Any]:
    return {"apiVersion": "v3", "statusCode": 200, "task": shown(record)}


def _list(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v3", "statusCode": 200, "totalCount": len(found), "tasks": found}


def _is_plain(text: str) -> bool:
    """Say whether a client's own word can be said back: short, and of characters that every encoding writes."""
    return len(text) <= 64 and text.isprintable()
