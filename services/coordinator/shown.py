"""What the coordinator's routes answer, for their OpenAPI page; of tasks: `adapters/task_pages.py`.

Source: docs/tasks.md.
"""

from pydantic import Field

from edgeagents.adapters.web_pages import Answer, Shown


class AgentThere(Shown):
    """An agent that was heard lately."""

    agent: str
    incarnation: str = Field(description="of this run of it")
    skills: list[str]
    busy: int = Field(description="tasks under way")
    heard_ago_s: float = Field(alias="heardAgoS")


class RosterShown(Answer):
    """Who is there."""

    agents: list[AgentThere]


class CoordinatorState(Answer):
    """What the coordinator does, and how it went so far."""

    open: int = Field(description="tasks under way")
    ended: int = Field(description="ended tasks that are remembered")
    agents: int = Field(description="agents that are there")
    is_serving: bool = Field(description="false while it reads the tasks back")
    counts: dict[str, int] = Field(description="since it started, by what happened: accepted, awards, done, refused_…")
    batches: int = Field(description="writes to the stream of tasks")
    stored: int = Field(description="records in them")


class ConflictParty(Shown):
    """One who was asked."""

    agent: str
    priority: str = Field(description="the class in which it bargains, by its owner's file")
    said: str = Field(description="bargains, gives way, takes no part (by the owner's order), or not heard")
    way: str = Field("", description="the option it would have, if it bargains")
    holds: bool = Field(False, description="whether it held the lease, by the guard's word")
    disagreement: float = Field(0.0, description="what no agreement is worth to it, 0 to 1")
    worth: dict[str, float] = Field(default={}, description="by option, 0 to 1")


class ConflictShown(Shown):
    """How a conflict was settled, and why."""

    id: str
    device_name: str
    resource_name: str
    asked_by: str
    wanted: str
    because: str
    options: list[str]
    forbidden: dict[str, str] = Field(description="what no willing party may give, or interlocks forbid, and why")
    parties: list[ConflictParty]
    holder: str = Field("", description="who held the resource, by the guard's word")
    value: str = Field(description="what was settled; empty: nothing")
    winner: str = Field(description="who gives it")
    rung: str = Field(description="of the ladder: lock, lease, priority, nash, vote or fallback")
    runner_up: str
    reasons: list[str]
    stands_s: float = Field(description="how long the others leave the resource alone, wall seconds")
    released: str = Field("", description="why it binds nobody any more, before its time: who was paused, or observes")
    began: int = Field(description="unix nanoseconds")
    took_ms: float


class ConflictList(Answer):
    """Conflicts settled since the coordinator's start."""

    conflicts: list[ConflictShown]
    counts: dict[str, int] = Field(description="what was filed, settled by rung, refused by cause")


class OneConflict(Answer):
    """One conflict."""

    conflict: ConflictShown
