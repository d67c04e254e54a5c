"""Tasks over HTTP, as EdgeX spells its answers: give, list, look at, cancel, watch; and who is there.

`POST /api/v3/task` takes one task, or an array of them as eKuiper's rest sink sends its results.

Source: edgex-wire.md section 4; docs/tasks.md.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.middleware import error_body
from edgeagents.adapters.web_pages import ErrorBody, shows, streams, takes
from edgeagents.errors import EdgeAgentsError, InvalidInputError, TooLargeError, meaning_of
from edgeagents.model.task import ENDED_STATES, MOST_TASK_BYTES, TaskWanted, read_task
from services.coordinator.leader import Leader
from services.coordinator.record import Record, shown
from services.coordinator.shown import (
    CoordinatorState,
    OneTask,
    RosterShown,
    TaskGiven,
    TaskList,
    TaskRequest,
)

GIVER: Final = "http"
MOST_TOGETHER: Final = 64  # tasks in one request
MOST_LISTED: Final = 1_000
ALIVE_S: Final = 10.0  # how often a watcher hears that we are there
STATES: Final = ("open", "awarded", "taken", *ENDED_STATES)
EXAMPLE: Final = {
    "skill": "set", "deviceName": "radiator-living", "resourceName": "Setpoint", "value": "21", "deadlineS": 60,
}  # fmt: skip
GIVEN: Final = shows(
    TaskGiven, "It is taken in, and on disk.", 202,
    also={200: (TaskGiven, "It was known."), 207: (list[TaskGiven | ErrorBody], "An answer for each of an array.")},
)  # fmt: skip


def add_routes(service: EdgexService, leader: Leader) -> None:
    """Add the coordinator's own routes to the common ones."""
    app = service.app

    @app.post("/api/v3/task", **GIVEN, **takes(TaskWanted, TaskRequest, arrays_of=TaskWanted, example=EXAMPLE))
    async def give(request: Request) -> JSONResponse:
        """Take tasks in: 202 once it is on disk, 200 when it was known; an array gets an answer for each, 207."""
        body = await _body(leader, request)
        if not isinstance(body, list):
            answer = await _given(leader, body)
            return JSONResponse(answer, answer["statusCode"])
        if not 0 < len(body) <= MOST_TOGETHER:
            raise InvalidInputError(f"{len(body)} tasks in one request: 1 to {MOST_TOGETHER}")
        return JSONResponse(await asyncio.gather(*(_given(leader, item) for item in body)), 207)

    @app.get("/api/v3/task/all", **shows(TaskList, "The tasks, the newest first."))
    async def listed(state: str = "", limit: int = 100) -> dict[str, Any]:
        """List tasks, the newest first."""
        if state and state not in STATES:
            raise InvalidInputError(f"state {state[:40]!r} is none of {', '.join(STATES)}")
        if not 0 < limit <= MOST_LISTED:
            raise InvalidInputError(f"limit {limit}: 1 to {MOST_LISTED}")
        found = leader.listed(state, limit)
        return {"apiVersion": "v3", "statusCode": 200, "totalCount": len(found), "tasks": found}

    @app.get("/api/v3/task/id/{task}", **shows(OneTask, "The task."))
    async def one(task: str) -> dict[str, Any]:
        """Tell where a task stands, and why."""
        return {"apiVersion": "v3", "statusCode": 200, "task": shown(leader.record(task))}

    @app.delete("/api/v3/task/id/{task}", **shows(OneTask, "The task, cancelled."))
    async def cancel(task: str) -> dict[str, Any]:
        """End a task, whoever has it."""
        return {"apiVersion": "v3", "statusCode": 200, "task": shown(await leader.cancel(task, GIVER))}

    @app.get("/api/v3/task/id/{task}/watch", **streams("Events `task`, each with the task as JSON, to its end."))
    async def watch_one(task: str) -> StreamingResponse:
        """Send a task's changes as server-sent events, from where it stands to its end."""
        record = leader.record(task)
        return StreamingResponse(_changes(leader, service.stopping, record), media_type="text/event-stream")

    @app.get("/api/v3/task/watch", **streams("Events `task`, each with a task as JSON, for ever."))
    async def watch_all() -> StreamingResponse:
        """Send the changes of all tasks as server-sent events, from now on."""
        leader.check_serving()
        return StreamingResponse(_changes(leader, service.stopping, None), media_type="text/event-stream")

    @app.get("/api/v3/roster", **shows(RosterShown, "The agents."))
    async def roster() -> dict[str, Any]:
        """List the agents that are there."""
        now_s = leader.clock.now()
        agents = [
            {
                "agent": run.agent, "incarnation": run.incarnation, "skills": list(run.skills), "busy": run.busy,
                "heardAgoS": round(now_s - run.heard_s, 3),
            }
            for run in leader.roster.alive(now_s).values()
        ]  # fmt: skip
        return {"apiVersion": "v3", "statusCode": 200, "agents": sorted(agents, key=lambda item: str(item["agent"]))}

    @app.get("/api/v3/coordinator", **shows(CoordinatorState, "What it does."))
    async def state() -> dict[str, Any]:
        """Tell what the coordinator does and how it went so far."""
        return {
            "apiVersion": "v3", "statusCode": 200, "open": len(leader.book.open), "ended": len(leader.book.ended),
            "agents": len(leader.roster.alive(leader.clock.now())), "isServing": leader.is_serving.is_set(),
            "counts": dict(leader.counts),
            "batches": leader.journal.batches, "stored": leader.journal.stored,
        }  # fmt: skip


async def _body(leader: Leader, request: Request) -> Any:
    data = await request.body()
    if len(data) > MOST_TASK_BYTES * MOST_TOGETHER:
        raise TooLargeError(f"{len(data)} bytes of tasks")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        leader.refused(GIVER, "not-json", str(error)[:200])
        raise InvalidInputError(f"body: not JSON: {str(error)[:200]}") from error


async def _given(leader: Leader, body: Any) -> dict[str, Any]:
    request_id = body.get("requestId") if isinstance(body, Mapping) else None
    told = {"requestId": request_id} if isinstance(request_id, str) and _is_plain(request_id) else {}
    try:
        record, is_new = await leader.submit(read_task(body), GIVER)
    except EdgeAgentsError as error:
        leader.refused(GIVER, "task", str(error))
        return {**error_body(meaning_of(error).status, str(error)), **told}
    return {"apiVersion": "v3", **told, "statusCode": 202 if is_new else 200, "id": record.task, "state": record.state}


async def _changes(leader: Leader, stopping: asyncio.Event, first: Record | None) -> AsyncIterator[str]:
    """Yield server-sent events; those of one task end with it."""
    queue, task = leader.watch(first.task if first is not None else ""), first.task if first is not None else ""
    try:
        if task:
            first = leader.record(task)  # it may have changed before we began to watch
            yield _event(first)
            if first.ended:
                return
        while not stopping.is_set():
            try:
                async with asyncio.timeout(ALIVE_S):
                    record = await queue.get()
            except TimeoutError:
                yield ": here\n\n"
                if not task or not (end := leader.stored.get(task)) or not end.ended:
                    continue
                record = end  # its last word did not fit into the queue
            yield _event(record)
            if task and record.ended:
                return
    finally:
        leader.unwatch(queue)


def _is_plain(text: str) -> bool:
    """Say whether a client's own word can be said back: short, and of characters that every encoding writes."""
    return len(text) <= 64 and text.isprintable()


def _event(record: Record) -> str:
    return f"event: task\nid: {record.changed_unix_ns}\ndata: {json.dumps(shown(record))}\n\n"
