"""Which token comes next: the likeliest, or one by chance. Chance is an argument.

Source: Holtzman et al. 2020 (nucleus sampling, arXiv:1904.09751); min-p, arXiv:2407.01082; repetition penalty,
Keskar et al. 2019 (arXiv:1909.05858).
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """How tokens are chosen; the defaults choose the likeliest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(0.0, ge=0, le=10, allow_inf_nan=False, description="0: the likeliest, always")
    top_k: int = Field(0, ge=0, description="among so many of the likeliest; 0: all")
    top_p: float = Field(1.0, gt=0, le=1, description="among the likeliest that together are so likely")
    min_p: float = Field(0.0, ge=0, le=1, description="none that is less likely than this part of the likeliest")
    repetition_penalty: float = Field(1.0, ge=1, le=10, description="1: none")
    seed: int | None = Field(None, ge=0, lt=1 << 63)


def choose(
    logits: npt.NDArray[np.float32], how: Sampling, chance: np.random.Generator, seen: Collection[int] = ()
) -> tuple[int, float]:
    """Return the next token and its log-probability under the model as it is, before any of `how` but its penalty.

    Args:
        logits: shape (vocab,); -inf is never chosen. At least one is finite.
        how: the rules.
        chance: used only above temperature 0.
        seen: tokens written so far, for the penalty.
    """
    values = logits.astype(np.float32, copy=True)
    if how.repetition_penalty > 1.0 and seen:
        places = np.fromiter(set(seen), np.int64)
        found = values[places]
        values[places] = np.where(found > 0, found / how.repetition_penalty, found * how.repetition_penalty)
    top = float(values.max())
    total = float(np.exp(values - top).sum())
    token = int(values.argmax()) if how.temperature == 0 else _by_chance(values, how, chance)
    return token, float(values[token]) - top - float(np.log(total))


def log_probability(logits: npt.NDArray[np.float32], token: int) -> float:
    """Return how likely a token is to come next, whatever is chosen: the logarithm of its probability."""
    top = float(logits.max())
    return float(logits[token]) - top - float(np.log(np.exp(logits - top).sum()))


def _by_chance(values: npt.NDArray[np.float32], how: Sampling, chance: np.random.Generator) -> int:
    order = np.arange(len(values))
    if 0 < how.top_k < len(values):
        order = np.argpartition(values, -how.top_k)[-how.top_k :]
    # In double precision: at temperature 10 the tail of a vocabulary matters.
    scaled = (values[order].astype(np.float64) - float(values.max())) / how.temperature
    likely = np.exp(scaled)
    likely /= likely.sum()
    if how.min_p > 0:
        likely[likely < how.min_p * likely.max()] = 0.0
    if how.top_p < 1:
        falling = np.argsort(-likely, kind="stable")
        before = np.cumsum(likely[falling]) - likely[falling]
        likely[falling[1:][before[1:] >= how.top_p * likely.sum()]] = 0.0  # never the first: one must be left
    return int(order[chance.choice(len(order), p=likely / likely.sum())])
