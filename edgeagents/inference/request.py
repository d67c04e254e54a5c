"""What the token loop is asked for, and what it tells: plain values, for all who sit around it.

Source: `generate.py`, which carries them out.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from edgeagents.inference.language import Floats
from edgeagents.inference.sampling import Sampling

Reason: TypeAlias = Literal["stop", "length", "budget", "cancelled", "failed"]


class Constraint(Protocol):
    """What a text must be; see `constrain.py`. Each may raise an `EdgeAgentsError`: the request has failed."""

    def begin(self) -> list[int]:
        """Return, once, the tokens that a text begins with in any case."""

    def mask(self, logits: Floats) -> None:
        """Set what may not follow to -inf, in place; an end token may follow where the text can end."""

    def accept(self, token: int) -> list[int]:
        """Take a chosen token in, and those that follow it in any case; return the latter."""

    @property
    def can_end(self) -> bool:
        """Whether what was taken in is a whole text."""

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be written.

    Args:
        name: of the request, unique among those that are not finished.
        prompt: its tokens, at least one.
        most_tokens: of the answer.
        sampling: how tokens are chosen.
        stop: words that end the answer and are not part of it.
        end_s: by the loop's clock; what is written by then is the answer, marked.
        kept: so many tokens of the prompt are constant, and worth keeping.
        constraint: what the answer must be.
        spelled: tokens of an answer that is not chosen but measured: how likely is each of them?
    """

    name: str
    prompt: tuple[int, ...]
    most_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    end_s: float = math.inf
    kept: int = 0
    constraint: Constraint | None = None
    spelled: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A piece of a text; it may be empty while a character or a stop word is not whole.

    Args:
        name: of the request.
        text: what can be shown of it by now.
        token: -1: none, what was held back of earlier ones is shown.
        log_probability: of the token.
        is_forced: nothing else could have been written.
    """

    name: str
    text: str
    token: int
    log_probability: float
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a request.

    Args:
        name: of the request.
        reason: `stop` at an end token, a stop word or a complete constraint; `length`, `budget` and `cancelled`: cut
            off; `failed`: `error` says why.
        text: all of it.
        tokens: all of them, without an end token.
        cached: tokens of the prompt that were not computed.
        error: why it failed.
        is_capped: it had a constraint, and the text does not fulfil it.
    """

    name: str
    reason: Reason
    text: str
    tokens: tuple[int, ...]
    cached: int
    error: str = ""
    is_capped: bool = False
