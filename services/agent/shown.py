"""What an agent's routes answer, for their OpenAPI page; `replies.py` makes the answers to what people say.

Source: docs/ask.md; docs/agents.md.
"""

from typing import Any, Literal

from pydantic import Field

from edgeagents.adapters.web_pages import Answer, Shown
from edgeagents.model.message import Mode
from edgeagents.model.words import Language
from services.agent.questions import Fate


class RuleResult(Shown):
    """What a rule of eKuiper's found: any object; the agent's own rules say which fields they want."""


class RuleTaken(Answer):
    """Results of a rule engine that are stored."""

    sequences: list[int] = Field(description="where they stand in the stream `triggers`")


class Deciding(Answer):
    """Whether the agent decides."""

    deciding: bool


class AgentState(Answer):
    """What the agent does, and how it went so far."""

    agent: str
    mode: Mode | Literal["no session"] = Field(description="as the guard said last")
    priority: str
    deciding: bool
    counts: dict[str, int] = Field(description="what the loop handled, since the start")
    perception: dict[str, int] = Field(description="readings taken in, repeated, late")
    commands: dict[str, int] = Field(description="published, held back, and outcomes by status")
    tasks: dict[str, int] = Field(description="calls, bids, what was won and how it ended")
    pending: int = Field(description="commands whose outcome is awaited")
    waits_for: list[str] = Field(description="devices its file names and core-metadata does not know")
    may_command: int = Field(description="resources that it may command now, as the guard said last")
    rule_failures: dict[str, int]
    rejected: dict[str, int] = Field(description="events set aside, by cause")
    questions: dict[str, int] = Field(default_factory=dict, description="of an agent that answers people")
    thinking: dict[str, int] = Field(default_factory=dict, description="of an agent with a language model")


class LeadingState(Answer):
    """What an agent leads while no coordinator is there, and how it went so far."""

    agent: str
    coordinator: Literal["there", "away", "unknown"] = Field(description="unknown: it has not listened long enough")
    open: int = Field(description="tasks under way")
    ended: int = Field(description="ended tasks that are remembered, until the agent is started again")
    agents: int = Field(description="agents that are there and bid for what agents lead")
    counts: dict[str, int] = Field(description="since it started, by what happened: accepted, awards, done, refused_…")


class CommandTold(Shown):
    """One command of an answer, and what became of it."""

    device_name: str
    resource_name: str
    value: Any
    status: Fate | Literal["pending"]
    reason: str
    read_back: str | None = Field(description="what the proof read")
    command_id: str
    because: str


class ReadingTold(Shown):
    """A reading that was asked for."""

    device_name: str
    resource_name: str
    value: bool | int | float | str | None
    units: str
    age_seconds: float


class AskAnswer(Answer):
    """What was done and proven, refused and why, or a question back."""

    request_id: str = Field(description="to ask again under: it is the same question then")
    agent: str
    language: Language
    kind: Literal[
        "done", "partly", "pending", "waits-for-approval", "refused", "expired", "failed", "uncertain", "told",
        "asked-back", "help", "not-understood",
    ]  # fmt: skip
    answer: str = Field(description="for the person, in the language of the question")
    by: str = Field(description="the stage that decided: phrase, language-model; empty: none did")
    commands: list[CommandTold]
    readings: list[ReadingTold]
    options: list[str] = Field(description="what the person may have meant, when it is asked back")
