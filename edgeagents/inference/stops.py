"""Where a text ends: at words its reader named, which it must not see, not even in part.

Leaves out stop rules by token: `generate.py` knows the tokens that end an answer.
"""

from collections.abc import Sequence


class StopWords:
    """Hands on text as it is written, and holds back what may become a stop word."""

    def __init__(self, words: Sequence[str]) -> None:
        """End at the first of `words`; empty ones count for nothing."""
        self._words = [word for word in words if word]
        self._held = ""
        self.is_met = False

    def push(self, text: str) -> str:
        """Return what of the text so far can be handed on; nothing more once a word was met."""
        if self.is_met:
            return ""
        held = self._held + text
        # The one that is whole first, whatever else may have begun before it: so it does not hang on how text comes.
        found = [(at + len(word), at) for word in self._words if (at := held.find(word)) >= 0]
        if found:
            self.is_met, self._held = True, ""
            return held[: min(found)[1]]
        keep = max((_begun(held, word) for word in self._words), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def end(self) -> str:
        """Return what was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, word: str) -> int:
    """Return how many characters at the end of a text are the beginning of a word, but not all of it."""
    return next((size for size in range(min(len(word) - 1, len(text)), 0, -1) if word.startswith(text[-size:])), 0)
