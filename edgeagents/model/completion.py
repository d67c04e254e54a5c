"""What is asked of a language model, and what comes back: the same values in this process, over NATS and over HTTP.

Source: design.md section 6; OpenAI's chat completions, of which this keeps what agents need.
"""

import math
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeagents.model.options import Options

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Ending: TypeAlias = Literal["stop", "length", "budget", "cancelled", "failed"]
MOST_MESSAGES: Final = 256
MOST_SCORED: Final = 64
MOST_REQUEST_BYTES: Final = 256 << 10  # over NATS; the menu of two hundred devices has about 30 KB


class ChatMessage(BaseModel):
    """What somebody said."""

    model_config = ConfigDict(frozen=True)

    role: Role
    content: str


class CompletionRequest(BaseModel):
    """A text that is wanted; with `scored`, how likely each of some texts is instead.

    Args:
        messages: the conversation.
        constant: so many of the first messages are the same each time: what is computed of them is kept.
        options: the answer must be one of these (`model/answer.py` reads it).
        json_schema: or: it must be JSON of this schema. Neither: any text.
        scored: complete answers to be compared.
        most_tokens: of the answer.
        budget_s: what is not ready by then is cut off and marked; what cannot be is refused at once.
        temperature: 0: the likeliest.
        seed: of chance.
        stop: words that end the answer.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MOST_MESSAGES)
    constant: int = Field(0, ge=0, le=MOST_MESSAGES)
    options: Options | None = None
    json_schema: dict[str, Any] | None = None
    scored: tuple[str, ...] = Field((), max_length=MOST_SCORED)
    most_tokens: int = Field(256, ge=1, le=8192)
    budget_s: float = Field(10.0, gt=0, le=600)
    temperature: float = Field(0.0, ge=0, le=10)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: tuple[str, ...] = Field((), max_length=16)

    @model_validator(mode="after")
    def _one_form(self) -> "CompletionRequest":
        if self.options is not None and self.json_schema is not None:
            raise ValueError("either options or a JSON schema, not both")
        return self


class Completion(BaseModel):
    """What was written.

    Args:
        text: all of it.
        ending: why it ended.
        is_capped: a constraint was given and the text does not fulfil it: a failure, whatever it looks like.
        log_probability: of what the model chose, forced tokens left out, under what it might have chosen instead.
        free_tokens: how many it chose.
        tokens: how many there are, forced ones included.
        prompt_tokens: of the question.
        cached_tokens: of these, those that were not computed again.
        model: digest of the model's folder; another server's name for its model.
        first_token_s: from the request on.
        total_s: from the request on.
        scores: log-probability of each of `scored`, in their order.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = ""
    ending: Ending = "stop"
    is_capped: bool = False
    log_probability: float = 0.0
    free_tokens: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    model: str = ""
    first_token_s: float = 0.0
    total_s: float = 0.0
    scores: tuple[float, ...] = ()

    @property
    def confidence(self) -> float:
        """Return how sure the model was, 0 to 1: the geometric mean of its choices; 0 if capped or not a number."""
        if self.is_capped or self.ending in ("failed", "cancelled") or math.isnan(self.log_probability):
            return 0.0
        return math.exp(min(0.0, self.log_probability / max(1, self.free_tokens)))

    def shares(self) -> tuple[float, ...]:
        """Return how probable each scored answer is among them all; they add up to 1."""
        if not self.scores:
            return ()
        top = max(self.scores)
        parts = [math.exp(score - top) for score in self.scores]
        return tuple(part / sum(parts) for part in parts)


class CompletionFailure(BaseModel):
    """Why there is no answer, over NATS: an HTTP status, for people, and when to try again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: int = Field(ge=400, le=599)
    error: str
    retry_after_s: float | None = None
