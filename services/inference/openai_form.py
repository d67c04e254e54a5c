"""OpenAI's chat completions as values: what a request asks for, and what answers look like. Pure.

What would change the answer and is not supported is refused, what would not is ignored, so that no client gets
something else than it asked for.

Source: OpenAI API reference, chat completions, as of 2026.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from edgeagents.errors import InvalidInputError
from edgeagents.inference.generate import Written
from edgeagents.model.completion import MOST_MESSAGES, ChatMessage, Completion, CompletionRequest

DEFAULT_TOKENS: Final = 512
EXAMPLE: Final = {
    "model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "What is a gateway?"}], "max_tokens": 40,
}  # fmt: skip
_KINDS: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
    413: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip
_CODES: Final = {404: "model_not_found", 413: "context_length_exceeded", 429: "rate_limit_exceeded"}
UNKNOWN_ADDRESS: Final = "unknown_url"
_LEAST_TOP_P: Final = 1e-9  # the likeliest token alone
_BLANKS: Final = re.compile(r'("(?:[^"\\]|\\.)*")|\s+')  # outside of strings


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Part(_Form):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class CalledFunction(_Form):
    """Which function was called, with what."""

    name: str
    arguments: str = ""


class Call(_Form):
    """A call that the assistant made before."""

    function: CalledFunction


class AskedMessage(_Form):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[Part, ...] | None = None
    tool_calls: tuple[Call, ...] | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, value: object) -> object:
        for part in value if isinstance(value, (list, tuple)) else ():
            if isinstance(part, Mapping) and (kind := part.get("type")) != "text":
                told = "only parts of type text are understood, not {kind}"
                raise PydanticCustomError("part", told, {"kind": f"{kind!r:.40}"})
        return value

    def as_message(self) -> ChatMessage:
        """Return it as the model's template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        for call in self.tool_calls or ():
            text += f'{{"name":{json.dumps(call.function.name)},"arguments":{call.function.arguments or "{}"}}}'
        return ChatMessage(role="system" if self.role == "developer" else self.role, content=text)


class Function(_Form):
    """A function that may be called."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    description: str = ""
    parameters: dict[str, Any] | None = None


class Tool(_Form):
    """A tool; only functions are understood."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Form):
    """The name of a function."""

    name: str


class NamedTool(_Form):
    """The one tool to call."""

    type: Literal["function"]
    function: NamedFunction


class SchemaFormat(_Form):
    """A JSON schema with a name."""

    name: str = ""
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(_Form):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(_Form):
    """What a stream tells besides."""

    include_usage: bool = False


class ChatRequest(_Form):
    """`POST /v1/chat/completions`."""

    model: str
    messages: tuple[AskedMessage, ...] = Field(min_length=1, max_length=MOST_MESSAGES)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: dict[str, Literal[0]] | None = None
    functions: tuple[()] | None = Field(None, description="what `tools` was once called: only empty")
    function_call: Literal["none"] | None = None
    modalities: tuple[Literal["text"], ...] | None = None
    audio: None = None
    web_search_options: None = None
    budget_s: float | None = Field(None, gt=0, le=600, description="ours: refuse or cut off what takes longer")

    @field_validator("tools", mode="before")
    @classmethod
    def _null_is_none(cls, value: object) -> object:
        return () if value is None else value

    @property
    def called(self) -> tuple[Tool, ...]:
        """Return the tools that may be called."""
        if self.tool_choice == "none":
            return ()
        if isinstance(self.tool_choice, NamedTool):
            return tuple(tool for tool in self.tools if tool.function.name == self.tool_choice.function.name)
        return self.tools

    @property
    def is_tool_required(self) -> bool:
        """Return whether a tool has to be called."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)

    @property
    def least_share(self) -> float:
        """Return `top_p` as `Sampling` takes it."""
        return 1.0 if self.top_p is None else max(self.top_p, _LEAST_TOP_P)

    def wanted(self, longest_s: float) -> CompletionRequest:
        """Return what is to be written.

        Args:
            longest_s: where the request names no budget.

        Raises:
            InvalidInputError: it contradicts itself.
        """
        tools = self.called
        if self.is_tool_required and not tools:
            raise InvalidInputError("tool_choice asks for a tool that `tools` does not hold")
        form = self.response_format.type if self.response_format is not None else "text"
        if tools and form != "text":
            raise InvalidInputError("tools and response_format cannot both shape the answer: leave one out")
        schema: dict[str, Any] | None = {"type": "object"} if form == "json_object" else None
        if form == "json_schema" and self.response_format is not None:
            if self.response_format.json_schema is None:
                raise InvalidInputError("response_format of type json_schema needs json_schema.schema")
            schema = self.response_format.json_schema.schema_
        messages = [message.as_message() for message in self.messages]
        constant = 1 if messages[0].role == "system" else 0
        if tools:
            messages.insert(0, ChatMessage(role="system", content=described(tools)))
            constant += 1
        try:
            return CompletionRequest(
                messages=tuple(messages), constant=constant, json_schema=schema,
                most_tokens=min(self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS, 8192),
                budget_s=min(self.budget_s or longest_s, 600),
                temperature=1.0 if self.temperature is None else self.temperature,
                seed=None if self.seed is None else self.seed & ((1 << 62) - 1),
                stop=(self.stop,) if isinstance(self.stop, str) else self.stop or (),
            )  # fmt: skip
        except ValidationError as error:
            raise InvalidInputError(first_problem(error)) from error


def first_problem(error: ValidationError) -> str:
    """Return what is wrong first, without what was sent."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def described(tools: Sequence[Tool]) -> str:
    """Return tools in words, for a model whose template knows none."""
    lines = [json.dumps(tool.function.model_dump(exclude_none=True), ensure_ascii=False) for tool in tools]
    return 'To use a tool, answer with {"name":…,"arguments":{…}} alone. Tools:\n' + "\n".join(lines)


def call_of(text: str, names: Collection[str]) -> tuple[str, str] | None:
    """Return name and arguments (JSON, as written but for blanks) of a call of one of the tools; None: it is none."""
    if not names:
        return None
    try:
        body = _read(text)
        name = body["name"]
        if name not in names:
            return None
        begin, end = f'{{"name":{json.dumps(name)},"arguments":', "}"
        if text.startswith(begin) and text.endswith(end):  # as grammars have it
            written = text[len(begin) : -len(end)]
            with suppress(ValueError):
                _read(written)
                return name, _BLANKS.sub(r"\1", written)
        arguments = json.loads(text)["arguments"]
        return name, json.dumps(arguments, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(text: str) -> Any:
    """Return JSON with its numbers as they are written: 1e999 is no number of ours, and others would lose digits."""
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_json)


def _no_json(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def finish_reason(done: Completion, *, is_call: bool = False, is_free: bool = False) -> str:
    """Return OpenAI's word for how a text ended; what was cut off for any reason is `length`.

    Args:
        done: the text.
        is_call: it calls a tool.
        is_free: it might have called one and did not: no grammar says how such a text ends.
    """
    if done.ending != "stop" or (done.is_capped and not is_free):
        return "length"
    return "tool_calls" if is_call else "stop"


def usage(done: Completion) -> dict[str, Any]:
    """Return how many tokens there were."""
    return {
        "prompt_tokens": done.prompt_tokens, "completion_tokens": done.tokens,
        "total_tokens": done.prompt_tokens + done.tokens,
        "prompt_tokens_details": {"cached_tokens": done.cached_tokens},
    }  # fmt: skip


def tool_calls(name: str, arguments: str, number: str) -> list[dict[str, Any]]:
    """Return a call as an answer holds it."""
    return [{"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}]


def log_probabilities(items: Sequence[Written], spelled: Callable[[int], bytes]) -> dict[str, Any]:
    """Return how likely each token was; bytes of one that is a part of a character only make sense with the others'.

    Args:
        items: what was written.
        spelled: returns the bytes of a token.
    """
    content = []
    for item in items:
        if item.token >= 0:
            part = spelled(item.token)
            content.append(
                {"token": part.decode(errors="replace"), "logprob": item.log_probability, "bytes": list(part),
                 "top_logprobs": []}
            )  # fmt: skip
    return {"content": content, "refusal": None}


def error_form(status: int, text: str, code: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it.

    Args:
        status: of HTTP.
        text: what failed.
        code: what programs look for; without it the usual one of the status.
    """
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": text, "type": kind, "param": None, "code": code or _CODES.get(status)}}
