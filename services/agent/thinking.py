"""The language stage: asks a model beside the loop and stores its answer, on which the loop decides as on a reading.

Never waited for: a question that no template fits, or news on which all rules are silent, is handed over and the loop
goes on. Within its budget an answer comes back as a stored message of its own, so it has a place, comes again after a
crash, and stands in the record; without one a message says why, and nothing is done.

Source: design.md section 3.3; docs/ask.md.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeagents.adapters.bus import StoredMessage
from edgeagents.adapters.inference_client import LanguageClient
from edgeagents.errors import EdgeAgentsError, InvalidInputError, TheirError, TooManyAttemptsError, UnavailableError
from edgeagents.model.agent import Intent, Observation, Thinks
from edgeagents.model.answer import MOST_CHARS as MOST_ANSWER_CHARS
from edgeagents.model.answer import Answer, CommandAnswer, NothingAnswer, QuestionAnswer, parse_answer
from edgeagents.model.completion import Completion, CompletionRequest
from edgeagents.model.options import Options
from services.agent.house import House
from services.agent.prompts import question_prompt, situation_prompt
from services.agent.questions import Question, Why
from services.agent.view import View

log = logging.getLogger(__name__)

KIND: Final = "Trigger-Kind"
THOUGHT: Final = "thought"
MOST_AT_ONCE: Final = 4
LEEWAY_S: Final = 0.5  # the client's own word, which says more, comes before ours
Store: TypeAlias = Callable[[bytes, dict[str, str]], Awaitable[object]]
Spawn: TypeAlias = Callable[[Coroutine[None, None, None]], object]
GiveUp: TypeAlias = Callable[[str, Why], None]
Trouble: TypeAlias = Literal["", "away", "busy", "late", "capped", "illegal", "failed"]
TROUBLES: Final[dict[Trouble, tuple[str, str]]] = {  # in English and Chinese
    "away": ("the language model is away", "语言模型不在"), "busy": ("the language model is busy", "语言模型正忙"),
    "late": ("the language model was not ready in time", "语言模型没有及时回答"),
    "capped": ("the language model did not come to an end", "语言模型没有说完"),
    "illegal": ("the language model said what is not possible here", "语言模型说的在这里做不到"),
    "failed": ("the language model failed", "语言模型出错"),
}  # fmt: skip
NOT_STORED: Final = ("what the model answered could not be stored", "语言模型的回答没能存下来")


class Thought(BaseModel):
    """What came of asking a model; `question` is empty when nobody asked."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    question: str = Field("", max_length=64)
    said: str = Field("", max_length=8192)
    answer: str = Field("", max_length=MOST_ANSWER_CHARS)
    confidence: float = Field(0.0, ge=0, le=1)
    model: str = Field("", max_length=256)
    trouble: Trouble = ""


def thought_of(data: bytes) -> Thought:
    """Return a stored thought.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return Thought.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidInputError(f"no thought: {first['msg']}") from error


def stored_thought(message: StoredMessage) -> Thought | None:
    """Return the thought that a stored message holds, None when it holds something else; raises as `thought_of`."""
    return thought_of(message.data) if message.headers.get(KIND) == THOUGHT else None


def read_thought(thought: Thought, options: Options) -> Answer | None:
    """Return what a model answered, None when that cannot be used: trouble, or not among what is possible now."""
    if thought.trouble:
        return None
    try:
        return parse_answer(thought.answer, options)
    except InvalidInputError:
        return None


def intent_of(answer: CommandAnswer, thought: Thought) -> Intent:
    """Return what a model wants to be set, with why."""
    because = f"somebody said: {thought.said}"[:500] if thought.question else "the rules were silent"
    return Intent(answer.device, answer.resource, answer.value, because, "language-model")


def words_of(answer: Answer) -> str:
    """Return what a model says to the person, empty for a command."""
    match answer:
        case QuestionAnswer(text):
            return text
        case NothingAnswer(because):
            return because
    return ""


class Thinker:
    """Asks a model for one agent; see the module."""

    def __init__(
        self, settings: Thinks, client: LanguageClient, options: Callable[[], Options], store: Store, spawn: Spawn,
        monotonic: Callable[[], float], give_up: GiveUp,
    ) -> None:  # fmt: skip
        """Wire the parts.

        Args:
            settings: the agent file's `thinks`.
            client: whoever writes.
            options: what the agent may answer now.
            store: stores a message on the agent's trigger subject.
            spawn: starts a task that somebody looks after.
            monotonic: seconds.
            give_up: answers a question, by its id, with why nothing follows from it.
        """
        self._settings, self._client, self._options = settings, client, options
        self._store, self._spawn, self._monotonic, self._give_up = store, spawn, monotonic, give_up
        self._at_once = 0
        self._looked_s = -math.inf
        self._is_looking = False
        self.counts: Counter[str] = Counter()  # asked, answered, and each trouble

    def begin(self, question: Question, house: House, view: View) -> bool:
        """Have a model asked what is meant; False when none may be asked now."""
        if "asked" not in self._settings.when:
            return False
        if self._at_once >= MOST_AT_ONCE:
            self.counts["busy"] += 1
            return False
        options = self._options()
        request = question_prompt(question.text, house, options, view, self._settings.budget)
        self._spawn(self._think(request, options, question.id, question.text))
        return True

    def look(self, observation: Observation, house: House, view: View) -> bool:
        """Have a model asked about news on which the rules are silent, now and then, one at a time."""
        now_s = self._monotonic()
        is_due = now_s - self._looked_s >= self._settings.every
        if "silent" not in self._settings.when or self._is_looking or not is_due:
            return False
        self._looked_s = now_s
        options = self._options().model_copy(update={"may_ask": False})  # nobody is there to be asked
        request = situation_prompt(
            observation.device, observation.changed, house, options, view, self._settings.budget
        )  # fmt: skip
        self._is_looking = True
        self._spawn(self._think(request, options, "", ""))
        return True

    async def _think(self, request: CompletionRequest, options: Options, question: str, said: str) -> None:
        self._at_once += 1
        self.counts["asked"] += 1
        try:
            thought = await self._ask(request, options, question, said)
        finally:
            self._at_once -= 1
            self._is_looking = self._is_looking and bool(question)
        self.counts[thought.trouble or "answered"] += 1
        try:
            await self._store(thought.model_dump_json().encode(), {KIND: THOUGHT})
        except TheirError as error:
            log.warning("what a model answered is not stored, so nothing follows from it: %s", error)
            self._give_up(question, NOT_STORED)

    async def _ask(self, request: CompletionRequest, options: Options, question: str, said: str) -> Thought:
        def thought(trouble: Trouble = "", done: Completion | None = None) -> Thought:
            if done is None:
                return Thought(question=question, said=said, trouble=trouble)
            return Thought(
                question=question, said=said, answer=done.text[:MOST_ANSWER_CHARS], trouble=trouble,
                confidence=min(1.0, max(0.0, done.confidence)), model=done.model[:256],
            )  # fmt: skip

        try:
            async with asyncio.timeout(self._settings.budget + LEEWAY_S):
                done = await self._client.complete(request)
            return thought(_trouble_of(done, options), done)
        except TimeoutError:
            return thought("late")
        except TooManyAttemptsError:
            return thought("busy")
        except UnavailableError as error:
            log.info("no model answered: %s", error)
            return thought("away")
        except EdgeAgentsError as error:
            log.warning("a model could not be asked: %s", error)
            return thought("failed")
        except Exception:  # a server may answer anything, and no answer may end the agent
            log.exception("a model's answer cannot be worked out")
            return thought("failed")


def _trouble_of(done: Completion, options: Options) -> Trouble:
    """Return why a model's answer counts for nothing; empty: it counts."""
    if done.ending in ("failed", "cancelled") or not math.isfinite(done.log_probability):
        return "failed"
    if done.is_capped or done.ending in ("length", "budget"):
        return "capped"
    try:
        parse_answer(done.text, options)
    except InvalidInputError as error:
        log.info("a model's answer counts for nothing: %s", error)
        return "illegal"
    return ""
