"""What routes that take tasks answer, for their OpenAPI pages: the coordinator's, and those of agents that may lead.

`protocol/task_record.shown` makes the values. Source: docs/tasks.md.
"""

from typing import Any

from pydantic import Field

from edgeagents.adapters.web_pages import Answer, Shown
from edgeagents.model.task import TaskState, TaskWanted


class TaskRequest(Shown):
    """A task as EdgeX wraps what it adds; the wrapping may be left out."""

    api_version: str = "v3"
    request_id: str = Field("", description="said back in the answer")
    task: TaskWanted


class TaskGiven(Answer):
    """That a task was taken in: by a coordinator, it is on disk."""

    id: str = Field(description="by which it is asked for")
    state: TaskState
    request_id: str = ""


class AwardShown(Shown):
    """One award of a task."""

    epoch: int = Field(description="of the ledger's entry; the winner's command counts only under it")
    winner: str
    price: float = Field(description="what the winner is credited: the second best bid, seconds")
    bids: dict[str, float] = Field(description="by agent, seconds until it would be done")


class TaskShown(Shown):
    """Where a task stands, and why."""

    id: str
    state: TaskState
    task: dict[str, Any] = Field(description="what was asked, as it was given")
    giver: str = Field(description="who gave it; `http` for a web client")
    winner: str
    epoch: int
    reason: str = Field(description="why it ended so")
    reasons: list[str] = Field(description="what happened so far, the newest last")
    awards: list[AwardShown]
    accepted_unix_ns: int
    changed_unix_ns: int


class OneTask(Answer):
    """One task."""

    task: TaskShown


class TaskList(Answer):
    """Tasks, the newest first."""

    total_count: int = Field(description="of the tasks in this answer")
    tasks: list[TaskShown]
