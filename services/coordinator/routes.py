"""Tasks over HTTP, as EdgeX spells its answers: what `adapters/task_doors.py` has, watch; and who is there.

Source: edgex-wire.md section 4; docs/tasks.md.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi.responses import StreamingResponse

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.task_doors import add_task_routes
from edgeagents.adapters.web_pages import shows, streams
from edgeagents.protocol.task_record import Record, shown
from services.coordinator.leader import Leader
from services.coordinator.shown import CoordinatorState, RosterShown

ALIVE_S: Final = 10.0  # how often a watcher hears that we are there


def add_routes(service: EdgexService, leader: Leader) -> None:
    """Add the coordinator's own routes to the common ones."""
    app = service.app

    add_task_routes(app, leader, "It is taken in, and on disk.")

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
            for run in leader.engine.alive().values()
        ]  # fmt: skip
        return {"apiVersion": "v3", "statusCode": 200, "agents": sorted(agents, key=lambda item: str(item["agent"]))}

    @app.get("/api/v3/coordinator", **shows(CoordinatorState, "What it does."))
    async def state() -> dict[str, Any]:
        """Tell what the coordinator does and how it went so far."""
        return {
            "apiVersion": "v3", "statusCode": 200, "open": len(leader.book.open), "ended": len(leader.book.ended),
            "agents": len(leader.engine.alive()), "isServing": leader.is_serving.is_set(),
            "counts": dict(leader.counts),
            "batches": leader.journal.batches, "stored": leader.journal.stored,
        }  # fmt: skip


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


def _event(record: Record) -> str:
    return f"event: task\nid: {record.changed_unix_ns}\ndata: {json.dumps(shown(record))}\n\n"
