"""What a conversation is asked before it begins: are its times times, and can its names be told?

A time that is no number would never come, and a name that no act can hold could not be told: both are answers, given
at the start. Leaves out what an act itself cannot hold: that is the contract's (`model/cooperation.py`).

Source: style.md section 6; issue 9 ("bad input").
"""

import math
from collections.abc import Iterable
from typing import Final

from pydantic import TypeAdapter, ValidationError

from edgeagents.model.message import MAX_TTL_S, Word
from edgeagents.protocol.conversation import is_duration

DAY_S: Final = MAX_TTL_S  # no act can ask for an answer later than that
REPEATS: Final = 8  # acts a turn that an honest party may need at a table: its word, and that word again
_WORD: Final[TypeAdapter[str]] = TypeAdapter(Word)


def is_number(value: object) -> bool:
    """Say whether a value is a finite number; an integer beyond any float is none."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def duration_problem(**durations_s: object) -> str:
    """Return which duration cannot be waited for, by its name; empty when all can."""
    for name, seconds in durations_s.items():
        if not is_duration(seconds):
            return f"{name}: a duration is above 0 and at most {DAY_S:g} s, not {seconds!r:.40}"
    return ""


def deadline_problem(deadline_s: object, now_s: float) -> str:
    """Return why a deadline cannot be met; empty when it can."""
    if not is_number(deadline_s):
        return f"the deadline is no number, but {deadline_s!r:.40}"
    left_s = float(deadline_s) - now_s  # type: ignore[arg-type]  # a number by then
    if not left_s > 0:
        return "the deadline had passed before"
    return "" if left_s <= DAY_S else f"the deadline is {left_s:g} s away: at most {DAY_S:g} s can be waited for"


def word_problem(what: str, words: Iterable[object]) -> str:
    """Return which of some names no act can hold; empty when all fit."""
    for word in words:
        try:
            _WORD.validate_python(word, strict=True)
        except ValidationError:
            return f"{what}: {word!r:.80} is no word that can be told: 1 to 64 letters, digits and . _ : -"
    return ""
