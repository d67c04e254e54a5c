"""One language model, shared: requests of many clients go in from any thread, what is written comes out piece by piece.

The token loop runs in a thread of its own, since onnxruntime computes without letting anybody else in; all else (tokens
of a prompt, grammars) is prepared by the caller, in the caller's thread. Who comes next is `admission.py`'s to say.

Whatever happens, each request that was taken in is told one `Finished`.

Source: design.md section 6.
"""

import itertools
import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from edgeagents.errors import EdgeAgentsError, InvalidInputError, TooLargeError, UnavailableError
from edgeagents.inference.admission import MOST_OF_CLIENT, MOST_WAITING, Admission, Job, Speed
from edgeagents.inference.chat import Chat
from edgeagents.inference.constrain import Grammars, Held
from edgeagents.inference.folder import open_folder
from edgeagents.inference.generate import Finished, Loop, Reason, Request, Written
from edgeagents.inference.language import LanguageModel
from edgeagents.inference.prefix import Prefixes
from edgeagents.inference.sampling import Sampling
from edgeagents.memory import give_back
from edgeagents.model.answer import parse_answer
from edgeagents.model.completion import CompletionRequest

log = logging.getLogger(__name__)

Tell: TypeAlias = Callable[[Written | Finished], None]
PREFIX_BYTES: Final = 64 << 20
_IDLE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request in tokens; `requests` holds one text to write, or all those to be measured."""

    requests: tuple[Request, ...]
    prompt_tokens: int
    budget_s: float


@dataclass(slots=True)
class _Ticket:
    request: Request
    tell: Tell
    began_s: float = math.inf  # when it got a row

    def unwritten(self, reason: Reason, why: str = "") -> Finished:
        """Return the end of a text that was not begun."""
        return Finished(self.request.name, reason, "", (), 0, why, self.request.constraint is not None)


@dataclass(slots=True)
class Counts:
    """What the engine did so far."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    capped: int = 0
    endings: dict[str, int] = field(default_factory=dict)


class Engine:
    """A model that writes for many; `start`, at last `close`."""

    def __init__(
        self, model: LanguageModel, chat: Chat, grammars: Grammars, now: Callable[[], float], *,
        prefix_bytes: int = PREFIX_BYTES, most_waiting: int = MOST_WAITING, most_of_client: int = MOST_OF_CLIENT,
    ) -> None:  # fmt: skip
        """Prepare; nothing runs yet.

        Args:
            model: nobody else may use it.
            chat: its way to write conversations down.
            grammars: of its vocabulary.
            now: a monotonic clock, seconds.
            prefix_bytes: for kept beginnings of prompts.
            most_waiting: requests that wait, of all clients.
            most_of_client: of one.
        """
        self.model, self.chat, self.grammars = model, chat, grammars
        self.prefixes = Prefixes(prefix_bytes)
        self.counts, self.speed = Counts(), Speed()
        self.admission = Admission(model.decoder.rows, most_waiting, most_of_client)
        self.failure = ""  # why it stopped, if it did
        self._now = now
        self._loop = Loop(model.decoder, model.vocabulary, model.config.eos_ids, self.prefixes, now)
        self._tickets: dict[str, _Ticket] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="language model", daemon=True)

    @classmethod
    def load(
        cls, folder: Path, now: Callable[[], float], *, rows: int = 4, length: int = 2048, threads: int = 0,
        prefix_bytes: int = PREFIX_BYTES, most_waiting: int = MOST_WAITING, most_of_client: int = MOST_OF_CLIENT,
        digest: str = "",
    ) -> Self:  # fmt: skip
        """Return an engine for the model of a folder, every file of which is checked first; takes seconds.

        Raises:
            EdgeAgentsError: the folder is missing or changed, or the model cannot be loaded; see `open_folder`.
        """
        found = open_folder(folder, digest)
        model = LanguageModel.load(found, rows=rows, length=length, threads=threads, spins=False)
        chat = Chat.of(found, model.vocabulary)
        grammars = Grammars.of(model.vocabulary, model.config.eos_ids)
        return cls(
            model, chat, grammars, now, prefix_bytes=prefix_bytes, most_waiting=most_waiting,
            most_of_client=most_of_client,
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """Digest of the model's folder."""
        return self.model.folder.digest

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self, wait_s: float = 5.0) -> None:
        """Stop; what waits or runs is told that it was cancelled."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    # --- what callers do, in any thread --------------------------------------------------------------

    def prepare(
        self, request: CompletionRequest, *, tools: Sequence[tuple[str, Any]] = (), is_tool_required: bool = False,
        top_p: float = 1.0,
    ) -> Prepared:  # fmt: skip
        """Return a request in tokens, with its grammar compiled. May take a while for a long prompt.

        Args:
            request: what is wanted.
            tools: names, and schemas of arguments, of which one may be called instead of an answer.
            is_tool_required: one has to be called.
            top_p: among the likeliest tokens that together are so likely.

        Raises:
            InvalidInputError: such messages, such a schema, or a scored answer that is not legal.
            TooLargeError: it is too long for the model.
        """
        if request.constant > len(request.messages):
            raise InvalidInputError(f"{request.constant} of {len(request.messages)} messages cannot be constant")
        prompt, kept = self.chat.prompt(request.messages, request.constant)
        if not prompt:
            raise InvalidInputError("the model's chat template writes nothing of these messages: is a text in them?")
        most = min(request.most_tokens, self.model.decoder.length - len(prompt))
        if most < 1:
            raise TooLargeError(
                f"a prompt of {len(prompt)} tokens is longer than the {self.model.decoder.length} that fit: shorten it"
            )
        sampling = Sampling(temperature=request.temperature, seed=request.seed, top_p=top_p)
        if request.scored:
            return Prepared(tuple(self._spelled(request, prompt)), len(prompt), request.budget_s)
        rule: Held | None = None
        if request.options is not None:
            rule = self.grammars.for_options(request.options)
        elif request.json_schema is not None:
            rule = self.grammars.for_schema(request.json_schema)
        elif tools:
            rule = self.grammars.for_tools(tools, is_required=is_tool_required)
        wanted = Request("", tuple(prompt), most, sampling, request.stop, kept=kept, constraint=rule)
        return Prepared((wanted,), len(prompt), request.budget_s)

    def _spelled(self, request: CompletionRequest, prompt: Sequence[int]) -> list[Request]:
        found = []
        for text in request.scored:
            if request.options is not None:
                parse_answer(text, request.options)
            tokens = self.model.vocabulary.encode(text)
            if not tokens:
                raise InvalidInputError("an empty answer cannot be scored")
            if len(prompt) + len(tokens) > self.model.decoder.length:
                raise TooLargeError(f"prompt and answer of {len(prompt) + len(tokens)} tokens do not fit")
            # All but the last token of the prompt is computed once for all of them.
            found.append(Request("", tuple(prompt), len(tokens), kept=len(prompt) - 1, spelled=tuple(tokens)))
        return found

    def submit(self, client: str, prepared: Prepared, tell: Sequence[Tell]) -> tuple[str, ...]:
        """Take a request in, for `tell` to hear of, one for each text; return the names to cancel them by.

        `tell` is called in the engine's thread and must not wait.

        Raises:
            TooManyAttemptsError: refused, see `Admission.submit`; none of its texts was taken in.
            UnavailableError: the engine has stopped.
        """
        now_s = self._now()
        with self._changed:
            if self.failure or self._is_closing:
                raise UnavailableError(f"the language model has stopped{': ' if self.failure else ''}{self.failure}")
            names, is_busy = list[str](), not self.admission.is_idle
            try:
                for request, own in zip(prepared.requests, tell, strict=True):
                    name = f"r{next(self._numbers)}"
                    end_s = now_s + prepared.budget_s
                    work_s = self.speed.work_s(len(request.prompt) - request.kept, request.most_tokens)
                    self.admission.submit(Job(name, client, work_s, end_s), now_s, is_estimated=is_busy)
                    names.append(name)
                    self._tickets[name] = _Ticket(_named(request, name, end_s), own)
            except BaseException:
                for name in names:
                    self.admission.withdraw(name)
                    del self._tickets[name]
                raise
            self.counts.requests += 1
            self.counts.prompt_tokens += prepared.prompt_tokens
            self._changed.notify()
        return tuple(names)

    def cancel(self, names: Sequence[str]) -> None:
        """Have requests end at the next token; what is finished or unknown is left alone."""
        with self._changed:
            for name in names:
                if self.admission.withdraw(name):
                    if (ticket := self._tickets.get(name)) is not None:
                        self._tell(ticket.unwritten("cancelled"))
                else:
                    self._loop.cancel(name)
            self._changed.notify()

    # --- the engine's own thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take_in():
                began_s = self._now()
                found = self._loop.step()
                self._measure(found, began_s, self._now())
        except BaseException as error:  # whatever it was, a panic too: those who wait must hear of it
            log.exception("the language model has stopped")
            self.failure = f"{type(error).__name__}: {error}"[:300]
        with self._changed:
            self._is_closing = True
            for name in list(self._tickets):
                ticket = self._tickets[name]
                if not self.admission.withdraw(name):
                    self.admission.done(name, 0.0)
                self._tell(ticket.unwritten("failed", self.failure) if self.failure else ticket.unwritten("cancelled"))

    def _take_in(self) -> bool:
        """Hand requests to the token loop, as many as have rows; wait if there are none. False: it is to end."""
        with self._changed:
            is_rested = False
            while not self._is_closing and self._loop.is_idle and not self.admission.waiting:
                if not self._changed.wait(_IDLE_S) and not is_rested:
                    self._loop.rest()
                    give_back()
                    is_rested = True
            if self._is_closing:
                return False
            now_s = self._now()
            for job in self.admission.overdue(now_s):
                self._tell(self._tickets[job.name].unwritten("budget"))
            while self._loop.room > 0 and (job_next := self.admission.next()) is not None:
                ticket = self._tickets[job_next.name]
                ticket.began_s = now_s
                try:
                    self._loop.submit(ticket.request)
                except EdgeAgentsError as error:  # the fault of one request is no end for the others
                    self.admission.done(job_next.name, 0.0)
                    self._tell(ticket.unwritten("failed", str(error)))
        return True

    def _measure(self, found: Sequence[Written | Finished], began_s: float, ended_s: float) -> None:
        """Tell what was written, and learn from each step how quick the model is: of a text that is cut off too."""
        took_s, loop = ended_s - began_s, self._loop
        with self._changed:
            if loop.prefilled:
                self.speed.saw_prefill(loop.prefilled, took_s - (self.speed.step_s if loop.decoded else 0.0))
            if loop.decoded and (not loop.prefilled or took_s < self.speed.step_s):  # alone it takes less
                self.speed.saw_step(took_s)
            for item in found:
                ticket = self._tickets.get(item.name)
                if ticket is None:
                    continue
                if isinstance(item, Finished):
                    self.counts.cached_tokens += item.cached
                    self.counts.tokens += len(item.tokens)
                    self.speed.saw_answer(len(item.tokens))
                    self.admission.done(item.name, ended_s - ticket.began_s)
                self._tell(item)

    def _tell(self, item: Written | Finished) -> None:
        ticket = self._tickets.get(item.name)
        if ticket is None:
            return
        if isinstance(item, Finished):
            del self._tickets[item.name]
            is_capped = item.is_capped or (ticket.request.constraint is not None and item.reason != "stop")
            self.counts.capped += is_capped
            self.counts.endings[item.reason] = self.counts.endings.get(item.reason, 0) + 1
        ticket.tell(item)


def _named(request: Request, name: str, end_s: float) -> Request:
    return Request(
        name, request.prompt, request.most_tokens, request.sampling, request.stop, end_s, request.kept,
        request.constraint, request.spelled,
    )  # fmt: skip
