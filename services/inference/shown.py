"""What the routes of the language model's service answer, for their OpenAPI page; OpenAI's words where they are theirs.

Source: OpenAI API reference; docs/inference.md.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeagents.adapters.web_pages import Answer


class _Theirs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class ModelShown(_Theirs):
    """The model of this gateway."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    digest: str = Field(description="ours: of the model's folder")
    context_length: int = Field(description="ours: tokens of a prompt and its answer together")


class ModelList(_Theirs):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelShown]


class Usage(_Theirs):
    """How many tokens there were."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] = Field(description="`cached_tokens`: those that were not computed again")


class Message(_Theirs):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)


class Choice(_Theirs):
    """The one answer."""

    index: Literal[0]
    message: Message
    finish_reason: Literal["stop", "length", "tool_calls"] = Field(description="what was cut off is `length`")
    logprobs: dict[str, Any] | None


class ChatCompletion(_Theirs):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage


class OpenAiError(_Theirs):
    """Why there is no answer, as OpenAI's clients read it."""

    error: dict[str, Any] = Field(description="message, type, param, code")


class Ready(Answer):
    """Whether the model is there."""

    message: str = Field(description="`ready`, or why not")


class InferenceState(Answer):
    """What the model does, and how it went so far."""

    model: str
    ready: bool
    why: str = Field(description="why it is not there")
    asked: int = Field(description="questions of agents, over NATS")
    refused_by_status: dict[str, int]
    digest: str = ""
    waiting: int = 0
    refused: dict[str, int] = Field(default_factory=dict, description="by cause")
    counts: dict[str, Any] = Field(default_factory=dict, description="requests, tokens, and endings by reason")
    speed: dict[str, float] = Field(default_factory=dict, description="tokens a second")
    prefixes: dict[str, int] = Field(default_factory=dict, description="kept beginnings of prompts")
    grammars: dict[str, int] = Field(default_factory=dict)
