"""Holds a model to a grammar: which tokens may follow, which must, and whether a text is whole.

A grammar is compiled once and kept by its digest; each request gets a copy of the compiled one. Options change when
devices, profiles, permissions or present values do: then their digest is another one, and so is the grammar.

Compiling costs milliseconds, asks no clock and may be done in any thread; a constraint belongs to one request.

Source: llguidance (Earley parser over derivatives of regular expressions), MIT.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from edgeagents.errors import InvalidInputError, UnavailableError
from edgeagents.inference.grammar import SLICES, grammar_of
from edgeagents.inference.json_schema import schema_grammar, tools_grammar
from edgeagents.inference.language import Floats, Vocabulary
from edgeagents.model.options import Options

KEPT: Final = 64  # compiled grammars
_LIMITS: Final = LLParserLimits(step_lexer_fuel=1_000_000, initial_lexer_fuel=4_000_000, verbose_errors=False)


class Grammars:
    """Compiles grammars for one vocabulary and keeps the last ones."""

    def __init__(self, tokens: Any, kept: int = KEPT) -> None:
        """Prepare.

        Args:
            tokens: an `LLTokenizer`; `of` makes one.
            kept: so many compiled grammars at most.
        """
        self._tokens, self._most = tokens, kept
        self._kept: OrderedDict[str, tuple[LLMatcher, list[int]]] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @classmethod
    def of(cls, vocabulary: Vocabulary, ends: Sequence[int]) -> Self:
        """Return the grammars of a model; takes a second.

        Raises:
            InvalidInputError: its tokenizer is of a kind that cannot be held to a grammar.
        """
        try:
            tokens = LLTokenizer(vocabulary.tokenizer.to_str(), eos_token=list(ends), slices=list(SLICES))
        except (ValueError, RuntimeError) as error:
            raise InvalidInputError(f"the model's tokenizer cannot be held to a grammar: {error}") from error
        return cls(tokens)

    def spelled(self, token: int) -> bytes:
        """Return the bytes of a token, which may be a part of a character; of a special one its name."""
        return bytes(self._tokens.decode_bytes([token]))

    def for_options(self, options: Options) -> "Held":
        """Return what holds one text to an agent's options; raises like `for_schema`."""
        return self._held(f"options {options.digest}", lambda: LLMatcher.grammar_from_lark(grammar_of(options)))

    def for_schema(self, schema: Any) -> "Held":
        """Return what holds one text to compact JSON of a schema.

        Raises:
            InvalidInputError: no text fulfils it, it is too large, or it says what cannot be held to.
        """
        return self._grammar(schema_grammar(schema))

    def for_tools(self, tools: Sequence[tuple[str, Any]], *, is_required: bool) -> "Held":
        """Return what holds one text to a call of a tool, or, unless one is required, a text that is none.

        Args:
            tools: names, and the schemas of their arguments.
            is_required: whether one has to be called.

        Raises:
            InvalidInputError: as in `for_schema`.
        """
        return self._grammar(tools_grammar(tools, is_required=is_required))

    def _grammar(self, grammar: str) -> "Held":
        return self._held(hashlib.sha256(grammar.encode()).hexdigest(), lambda: grammar)

    def _held(self, key: str, make: Callable[[], str]) -> "Held":
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self.hits += 1
                return Held(found[0].deep_copy(), found[1])
        matcher, opening = self._begun(make)
        with self._lock:
            self.misses += 1
            self._kept[key] = matcher, opening
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return Held(matcher.deep_copy(), opening)

    def _begun(self, make: Callable[[], str]) -> tuple[LLMatcher, list[int]]:
        """Return a compiled grammar that stands behind what each text begins with, and that beginning.

        A grammar that compiles may still have no text: that is seen at its first step, which is made here, in the
        caller's thread, so that it is the fault of who asked and holds up nobody else's text.
        """
        try:
            matcher = LLMatcher(self._tokens, make(), log_level=0, limits=_LIMITS)
            opening = [] if matcher.is_error() else list(matcher.compute_ff_tokens())
            if opening:
                matcher.consume_tokens(opening)
            if not matcher.is_stopped():
                matcher.compute_bitmask()
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidInputError(f"not a grammar that can be fulfilled: {_first_line(str(error))}") from error
        if matcher.is_error():
            raise InvalidInputError(f"not a grammar that can be fulfilled: {_first_line(matcher.get_error())}")
        return matcher, opening


class Held:
    """One text that is held to a grammar; see `generate.Constraint`."""

    def __init__(self, matcher: LLMatcher, opening: Sequence[int]) -> None:
        """Begin a text with a matcher that has taken its opening in."""
        self._matcher, self._opening = matcher, opening

    def begin(self) -> list[int]:
        """Return the tokens that a text begins with in any case."""
        return list(self._opening)

    def mask(self, logits: Floats) -> None:
        """Set what may not follow to -inf, in place.

        Raises:
            UnavailableError: the grammar became too complex to go on with.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        np.copyto(logits, -np.inf, where=~allowed)

    def accept(self, token: int) -> list[int]:
        """Take a token in and return what follows it in any case; raises like `mask`."""
        self._matcher.consume_token(token)
        self._check()
        return self._forced()

    @property
    def can_end(self) -> bool:
        """Whether what was taken in is a whole text."""
        return bool(self._matcher.is_accepting())

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def _forced(self) -> list[int]:
        if self._matcher.is_stopped():
            return []
        tokens = list(self._matcher.compute_ff_tokens())
        if tokens:
            self._matcher.consume_tokens(tokens)
        self._check()
        return tokens

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UnavailableError(f"the grammar cannot go on: {_first_line(self._matcher.get_error())}")


def _first_line(text: str) -> str:
    return " ".join(text.split())[:300]
