"""The token loop: requests wait, are taken in, and are written together, a token each at a time.

    submit -> waiting -> prefilled piece by piece -> written with up to `rows` others -> finished, once

`step` is one token boundary: requests join and leave only there, so cancelling one or running out of time costs the
others nothing. While a prompt is computed, or the many tokens that a constraint put behind a choice, a piece and a
token of each running text take turns; a step computes one piece, of whoever waited longest for it. What has to end
before it is done says why; whatever happens, each request finishes exactly once.

The loop keeps no clock and no thread: it is told the time, and runs in its caller's thread. Only `submit` and `cancel`
may be called from others.

Source: Yu et al. 2022, Orca (continuous batching); design.md section 6.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from tokenizers.decoders import DecodeStream

from edgeagents.errors import EdgeAgentsError, InvalidInputError, TooLargeError, UnavailableError
from edgeagents.inference.language import Floats, Vocabulary
from edgeagents.inference.places import Places, Rows
from edgeagents.inference.prefix import PIECE_TOKENS, Piece, Prefixes, pieces
from edgeagents.inference.request import Constraint, Finished, Reason, Request, Written
from edgeagents.inference.sampling import choose, log_probability
from edgeagents.inference.stops import StopWords

MOST_WAITING: Final = 1024
__all__ = ["MOST_WAITING", "Constraint", "Finished", "Loop", "Reason", "Request", "Rows", "Written"]


@dataclass(slots=True, eq=False)
class _Text:
    """A request in a row."""

    request: Request
    left: deque[Piece]  # to be computed before it runs: of its prompt, later of what was forced
    done: list[Piece]  # of its prompt
    stops: StopWords
    stream: Any
    chance: np.random.Generator
    opening: list[int]  # what the answer begins with in any case: computed with the prompt
    turn: int = 0  # when a piece of it was computed, or it came: who has the smallest is next
    length: int = 0  # tokens in its row
    cached: int = 0
    tokens: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)  # the last of `tokens`, not in its row yet
    is_cut: bool = False  # more was forced than may be written
    parts: list[str] = field(default_factory=list)

    @property
    def is_joining(self) -> bool:
        """Whether nothing of its answer is written: what is left to be computed is its prompt."""
        return not self.tokens

    @property
    def question(self) -> int | None:
        """What tells which texts are measured behind one prompt; none: it is not one of those."""
        return hash(self.request.prompt) if self.request.spelled else None


class Loop:
    """Writes texts with one model."""

    def __init__(
        self, rows: Rows, vocabulary: Vocabulary, ends: Sequence[int], prefixes: Prefixes, now: Callable[[], float],
        piece_tokens: int = PIECE_TOKENS,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            rows: computes; nobody else may use it meanwhile.
            vocabulary: turns tokens into text.
            ends: tokens that end an answer.
            prefixes: where beginnings of prompts are kept.
            now: a monotonic clock, seconds.
            piece_tokens: a prompt, and a long run of forced tokens, is computed in pieces of so many; shorter ones hold
                running texts up less.
        """
        self._rows, self._vocabulary, self._ends = rows, vocabulary, frozenset(ends)
        self._prefixes, self._now, self._piece_tokens = prefixes, now, piece_tokens
        self._waiting: deque[Request] = deque()
        self._names: set[str] = set()
        self._cancelled: set[str] = set()
        self._places: Places[_Text] = Places(rows, piece_tokens)
        self._turns = itertools.count()
        # What all running texts catch up with within one step is a piece at most.
        self._most_forced = max(1, piece_tokens // rows.rows)
        self.prefilled = self.decoded = 0  # in the last step: tokens of a piece, rows

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._names

    @property
    def waiting(self) -> int:
        """How many requests wait for a row."""
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many more requests would have a row at once."""
        return self._rows.rows - len(self._places.all) - len(self._waiting)

    def submit(self, request: Request) -> None:
        """Have a request written.

        Raises:
            InvalidInputError: its name is in use, or the prompt is empty or nothing is to be written.
            TooLargeError: prompt and answer do not fit into a row.
            UnavailableError: too many wait.
        """
        if request.name in self._names:
            raise InvalidInputError(f"request {request.name!r} is being written already")
        if not request.prompt or request.most_tokens < 1:
            raise InvalidInputError("a prompt has at least one token, and an answer too")
        if len(request.prompt) + request.most_tokens > self._rows.length:
            raise TooLargeError(
                f"a prompt of {len(request.prompt)} tokens and an answer of up to {request.most_tokens} are longer "
                f"than the {self._rows.length} that fit: shorten the prompt, or ask for less"
            )
        if len(self._waiting) >= MOST_WAITING:
            raise UnavailableError(f"{MOST_WAITING} requests wait already: try again later")
        self._cancelled.discard(request.name)
        self._names.add(request.name)
        self._waiting.append(request)

    def cancel(self, name: str) -> None:
        """Have a request end at the next token boundary; one that is finished or unknown is left alone."""
        if name in self._names:
            self._cancelled.add(name)

    def rest(self) -> None:
        """Give the memory of the rows back, unless something is written; what is kept of prompts stays."""
        if self.is_idle:
            self._rows.release()

    def step(self) -> list[Written | Finished]:
        """Go to the next token boundary; return what was written and what ended."""
        found: list[Written | Finished] = []
        self.prefilled = self.decoded = 0
        self._drop(found)
        self._join(found)
        self._compute(found)
        self._decode(found)
        return found

    # --- who leaves and who joins --------------------------------------------------------------------

    def _drop(self, found: list[Written | Finished]) -> None:
        """End what was cancelled or is out of time."""
        now_s = self._now()
        for text in list(self._places.all):
            if reason := self._why_not(text.request, now_s):
                self._finish(text, reason, found)
        if any(self._why_not(request, now_s) for request in self._waiting):
            for request in [self._waiting.popleft() for _ in range(len(self._waiting))]:
                if reason := self._why_not(request, now_s):
                    is_capped = request.constraint is not None
                    self._end(Finished(request.name, reason, "", (), 0, is_capped=is_capped), found)
                else:
                    self._waiting.append(request)

    def _why_not(self, request: Request, now_s: float) -> Reason | None:
        if request.name in self._cancelled:
            return "cancelled"
        return "budget" if now_s >= request.end_s else None

    def _join(self, found: list[Written | Finished]) -> None:
        """Give the first free row to whoever waits longest, with what is kept of its prompt; one prompt at a time."""
        places = self._places
        if not self._waiting or len(places.all) >= self._rows.rows or any(text.is_joining for text in places.behind):
            return
        request = self._waiting.popleft()
        try:
            opening = request.constraint.begin() if request.constraint is not None else []
        except EdgeAgentsError as error:
            self._end(Finished(request.name, "failed", "", (), 0, str(error), is_capped=True), found)
            return
        whole = (*request.prompt, *opening[: request.most_tokens])
        text = _Text(
            request, deque(pieces(whole, request.kept, self._piece_tokens)), [],
            StopWords(request.stop), DecodeStream(skip_special_tokens=True),
            np.random.default_rng(request.sampling.seed), opening, next(self._turns),
        )  # fmt: skip
        places.add(text)
        # The last piece is always computed: what follows it is the answer's first token.
        for block in self._prefixes.find(list(text.left)[:-1], question=text.question):
            self._rows.write(places.row(text), text.length, block)
            text.done.append(text.left.popleft())
            text.length += block.shape[3]
        text.cached = text.length

    def _finish(self, text: _Text, reason: Reason, found: list[Written | Finished], error: str = "") -> None:
        """End a text, and close the gap its row leaves."""
        rest = text.stops.end() if not text.stops.is_met else ""
        self._places.remove(text)
        whole = "".join([*text.parts, rest])
        if rest:
            found.append(Written(text.request.name, rest, -1, 0.0, True))
        rule = text.request.constraint
        is_whole = rule is None or (reason == "stop" and rule.can_end and not text.stops.is_met and not text.is_cut)
        cached = min(text.cached, len(text.request.prompt))
        self._end(Finished(text.request.name, reason, whole, tuple(text.tokens), cached, error, not is_whole), found)

    def _end(self, finished: Finished, found: list[Written | Finished]) -> None:
        self._names.discard(finished.name)
        self._cancelled.discard(finished.name)
        found.append(finished)

    # --- computing -----------------------------------------------------------------------------------

    def _compute(self, found: list[Written | Finished]) -> None:
        """Compute a piece of the text behind the running ones whose turn it is; after its last piece it runs."""
        text = min(self._places.behind, key=lambda text: text.turn, default=None)
        if text is None:
            return
        row, piece = self._places.row(text), text.left.popleft()
        try:
            logits = self._rows.prefill(row, piece, text.length)
        except EdgeAgentsError as error:
            self._finish(text, "failed", found, str(error))
            return
        self.prefilled, text.turn = len(piece), next(self._turns)
        text.length += len(piece)
        if text.is_joining:
            text.done.append(piece)
            if text.length <= text.request.kept:
                block = self._rows.read(row, text.length - len(piece), text.length)
                self._prefixes.keep(text.done, block, question=text.question)
        if not text.left:
            self._places.run(text)
            if text.is_joining:
                self._begin(text, logits, found)

    def _begin(self, text: _Text, logits: Floats, found: list[Written | Finished]) -> None:
        """Write the first tokens of a text whose prompt is computed."""
        if self._take(text, text.opening, None, found):
            text.pending = []  # they were computed with the prompt
            self._write(text, logits, found)

    def _decode(self, found: list[Written | Finished]) -> None:
        """Compute a token of each running text; what was forced before it is computed first."""
        for text in self._places.running:
            self._catch_up(text, found)
        running = self._places.running
        if not running:
            return
        try:
            logits = self._rows.decode([text.tokens[-1] for text in running], [text.length for text in running])
        except EdgeAgentsError as error:
            for text in running:
                self._finish(text, "failed", found, str(error))
            return
        self.decoded = len(running)
        for text in running:  # all of them first: who ends moves others' rows
            text.length += 1
            text.pending = []
        for text, following in zip(running, logits, strict=True):
            self._write(text, following, found)

    def _catch_up(self, text: _Text, found: list[Written | Finished]) -> None:
        """Compute all tokens of a text but its last: that one is computed with everybody's, so texts stay steady.

        Few are computed at once. With many the text goes behind the running ones until it has caught up, in pieces
        whose bounds follow from the text alone.
        """
        behind, text.pending = text.pending[:-1], text.pending[-1:]
        if len(behind) > self._most_forced:
            text.left.extend(pieces(behind, 0, self._piece_tokens))
            text.turn = next(self._turns)
            self._places.hold(text)
        elif behind:
            try:
                self._rows.prefill(self._places.row(text), behind, text.length)
            except EdgeAgentsError as error:
                self._finish(text, "failed", found, str(error))
                return
            text.length += len(behind)

    def _write(self, text: _Text, logits: Floats, found: list[Written | Finished]) -> None:
        """Choose the token that follows; with it comes what follows it in any case."""
        request, rule = text.request, text.request.constraint
        if not np.isfinite(logits.max()):
            self._finish(text, "failed", found, "what the model gives are no numbers: its weights are damaged")
            return
        if request.spelled:
            token = request.spelled[len(text.tokens)]
            self._take(text, [token], log_probability(logits, token), found)
            return
        try:
            if rule is not None:
                rule.mask(logits)
            token, chance = choose(logits, request.sampling, text.chance, text.tokens)
            forced = rule.accept(token) if rule is not None and token not in self._ends else []
        except EdgeAgentsError as error:
            self._finish(text, "failed", found, str(error))
            return
        if token in self._ends:
            self._finish(text, "stop", found)
        else:
            self._take(text, [token, *forced], chance, found)

    def _take(self, text: _Text, tokens: Sequence[int], chance: float | None, found: list[Written | Finished]) -> bool:
        """Append tokens to a text and see whether it ends; return whether it goes on.

        Args:
            text: one that runs.
            tokens: at most the first of them was chosen, all others are forced.
            chance: log-probability of the chosen one; none: all are forced.
            found: what happened.
        """
        request, rule = text.request, text.request.constraint
        for place, token in enumerate(tokens):
            if len(text.tokens) >= request.most_tokens:
                text.is_cut = True
                break
            text.tokens.append(token)
            text.pending.append(token)
            part = text.stops.push(text.stream.step(self._vocabulary.tokenizer, token) or "")
            text.parts.append(part)
            is_chosen = place == 0 and chance is not None
            found.append(Written(request.name, part, token, chance if is_chosen and chance else 0.0, not is_chosen))
            if text.stops.is_met:
                break
        if text.stops.is_met or (rule is not None and rule.is_over and not text.is_cut):
            self._finish(text, "stop", found)
        elif len(text.tokens) >= (len(request.spelled) or request.most_tokens):
            self._finish(text, "length" if not request.spelled else "stop", found)
        else:
            return True
        return False
