"""A task as somebody gives it, and where it stands.

A task names a skill and, where a device is meant, what it shall become. Its id is the giver's (given twice it is one
task) or is made by whoever takes it in. JSON as EdgeX writes it: `deviceName`, `deadlineS`.

Source: design.md sections 1 and 5; docs/tasks.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import Priority
from edgeagents.model.message import Cause, Word
from edgeagents.model.skill import MOST_VALUE_CHARS, SET, as_text

MOST_TASK_BYTES: Final = 16_384
MOST_PARAMS: Final = 32
TaskState: TypeAlias = Literal["open", "awarded", "taken", "done", "failed", "cancelled"]
ENDED_STATES: Final = ("done", "failed", "cancelled")
Text: TypeAlias = Annotated[str, Field(max_length=MOST_VALUE_CHARS)]  # a length is counted of valid Unicode alone
_PARAM = re.compile(r"[a-z][a-z0-9_]{0,63}")
TASK_CAUSES: Final = "tasks/"  # how the stream of a cause begins that is a task
LED_CAUSES: Final = "led/"  # the same of a task that an agent led, while no coordinator was there
_DIGITS = re.compile(r"[0-9]{1,20}")


class TaskWanted(BaseModel):
    """What somebody wants done, and by when.

    Args:
        id: given twice it is one task; None: one is made.
        skill: what whoever does it must be able to do.
        device_name: what it is about, where the skill does not say so; with `resource_name` and `value`.
        params: for the templates of named skills.
        deadline_s: seconds from when it is taken in; then it has failed unless it is done.
        priority: class of whoever gives it, for people and for conflicts.
        reserve: the most that it may cost, in the unit of bids (seconds).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )

    id: Word | None = None
    skill: Word
    device_name: str = Field("", max_length=512)
    resource_name: str = Field("", max_length=512)
    value: str = Field("", max_length=MOST_VALUE_CHARS)
    params: Mapping[str, Text] = Field(default_factory=dict, max_length=MOST_PARAMS)
    deadline_s: float = Field(30.0, le=86_400)
    priority: Priority = "comfort"
    reserve: float = Field(1e9, ge=0, le=1e9)

    _text = field_validator("value", mode="before")(as_text)  # a rule engine writes numbers and booleans as such

    @field_validator("params", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name, item in value.items():
            if not isinstance(name, str) or not _PARAM.fullmatch(name):
                raise ValueError(f"{str(name)[:40]!r} is no name: small letters, digits, _")
            if not isinstance(item, (str, int, float)) or len(str(item)) > MOST_VALUE_CHARS:
                raise ValueError(f"{name}: a text or a number, at most {MOST_VALUE_CHARS} characters")
        return {name: as_text(item) for name, item in value.items()}

    @field_validator("deadline_s")
    @classmethod
    def _ahead(cls, value: float) -> float:
        if not value > 0:
            raise ValueError(f"the deadline is {-value:g} s in the past: give the seconds from now on, above 0")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "TaskWanted":
        if self.skill == SET and not (self.device_name and self.resource_name and self.value):
            raise ValueError("skill 'set' needs deviceName, resourceName and value")
        return self


def read_task(body: Any) -> TaskWanted:
    """Return the task that a JSON value describes, bare or wrapped as in EdgeX: `{"apiVersion": "v3", "task": {…}}`.

    Raises:
        InvalidInputError: it describes none; the text says which field is wrong.
    """
    if isinstance(body, Mapping) and isinstance(body.get("task"), Mapping):
        body = body["task"]
    if not isinstance(body, Mapping):
        raise InvalidInputError("a task is a JSON object: write at least its skill")
    plain = {name: item for name, item in body.items() if name not in ("apiVersion", "requestId")}
    try:
        return TaskWanted.model_validate(plain)
    except RecursionError as error:
        raise InvalidInputError("task: nested too deeply") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "task"
        text = f"task: {where[:100]}: {first['msg'].removeprefix('Value error, ')}"
        # A name of a field may be what no encoding writes: half a surrogate pair.
        raise InvalidInputError(text.encode(errors="backslashreplace").decode()) from error


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Which award of which task a command carries out.

    Args:
        task: its id.
        accepted_unix_ns: when the task was taken in: a name that is used again is another task.
        epoch: of the award.
    """

    task: str
    accepted_unix_ns: int
    epoch: int


def cause_of(ref: TaskRef) -> Cause:
    """Return the cause of a command that carries out an award."""
    return Cause(stream=f"{TASK_CAUSES}{ref.task}/{ref.accepted_unix_ns}", sequence=ref.epoch, event_id=ref.task)


def task_of(cause: Cause) -> TaskRef | None:
    """Return the award that a command carries out, None when no task caused it; the inverse of `cause_of`.

    Raises:
        InvalidInputError: it names a task in a way that `cause_of` does not write.
    """
    if not cause.stream.startswith(TASK_CAUSES):
        return None
    task, _, accepted = cause.stream.removeprefix(TASK_CAUSES).partition("/")
    if not task or not _DIGITS.fullmatch(accepted):
        raise InvalidInputError(f"cause {cause.stream[:80]!r} names no task: tasks/<id>/<accepted, unix ns>")
    return TaskRef(task, int(accepted), cause.sequence)


@dataclass(frozen=True, slots=True)
class LedRef:
    """Which award a command carries out of a task that an agent led.

    Args:
        leader: the agent that led it, in memory: no ledger on disk knows of it.
        task: its id.
        accepted_unix_ns: when the leader took it in: a name that is used again is another task.
        epoch: of the award.
    """

    leader: str
    task: str
    accepted_unix_ns: int
    epoch: int


def led_cause_of(ref: LedRef) -> Cause:
    """Return the cause of a command that carries out an award of a task that an agent led."""
    stream = f"{LED_CAUSES}{ref.leader}/{ref.task}/{ref.accepted_unix_ns}"
    return Cause(stream=stream, sequence=ref.epoch, event_id=ref.task)


def led_of(cause: Cause) -> LedRef | None:
    """Return the award of a led task that a command carries out, None when none caused it; inverse of `led_cause_of`.

    Raises:
        InvalidInputError: it names one in a way that `led_cause_of` does not write.
    """
    if not cause.stream.startswith(LED_CAUSES):
        return None
    leader, _, rest = cause.stream.removeprefix(LED_CAUSES).partition("/")
    task, _, accepted = rest.partition("/")
    if not leader or not task or not _DIGITS.fullmatch(accepted):
        raise InvalidInputError(f"cause {cause.stream[:80]!r} names no task: led/<leader>/<id>/<accepted, unix ns>")
    return LedRef(leader, task, int(accepted), cause.sequence)
