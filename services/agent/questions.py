"""What people say to an agent: each question with its id, what became of it, and whoever waits for the answer.

A question is stored before it is acted on; asked again under its id, it is the same question: it gets the same answer,
and nothing is done twice. Bounded: so many questions are open at a time, and so many answers are remembered.

Source: docs/ask.md; design.md section 3.5.
"""

import asyncio
import json
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgeagents.errors import ConflictError, InvalidInputError, TooLargeError, TooManyAttemptsError
from edgeagents.model.agent import Intent, Stage
from edgeagents.model.message import CommandId, Outcome
from edgeagents.model.words import Language
from services.agent.commands import Given
from services.agent.phrases import language_of
from services.agent.understanding import Act, Understood

MOST_CHARS: Final = 2_000
MOST_BYTES: Final = 32_768
MOST_OPEN: Final = 32
MOST_KNOWN: Final = 512
DEFAULT_WAIT_S: Final = 10.0
LONGEST_WAIT_S: Final = 25.0
ACTED_ON_WITHIN_S: Final = 30.0  # what was said longer ago, nobody expects to happen any more

Fate: TypeAlias = Literal[
    "proven", "refused", "failed", "expired", "unproven", "uncertain",  # the guard's word
    "settled",  # it is so already
    "waits-for-approval", "under-way",
]  # fmt: skip
Waits: TypeAlias = Mapping[tuple[str, str], bool]
"""Of a device resource: whether a human has to approve its commands."""
Why: TypeAlias = str | tuple[str, str]
"""Why nothing was done: in English and Chinese; words of others as they came."""
NOT_SURE: Final = ("not sure enough", "把握不够")
SWITCHED_OFF: Final = ("deciding is switched off", "决策已关闭")
FAILED_ON_IT: Final = ("the agent failed on it", "处理时出错")


class Question(BaseModel):
    """What came: `text` in any language, `requestId` to ask again under, `waitSeconds` for the proof."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    text: str = Field(min_length=1, max_length=MOST_CHARS)
    id: Annotated[str, Field(alias="requestId", max_length=64, pattern=r"^[A-Za-z0-9._:-]*$")] = ""
    wait_s: float = Field(DEFAULT_WAIT_S, alias="waitSeconds", ge=0, le=LONGEST_WAIT_S)

    @field_validator("text")
    @classmethod
    def _said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("is empty: say what is wanted")
        return text

    @property
    def language(self) -> Language:
        """The language to answer in."""
        return language_of(self.text)


def question_of(data: bytes) -> Question:
    """Return the question in a body; one without an id gets a new one.

    Args:
        data: JSON: `{"text": "…", "requestId": "…", "waitSeconds": 10}`; only the text must be there.

    Raises:
        TooLargeError: more than `MOST_BYTES`.
        InvalidInputError: no JSON, broken UTF-8, or a field that is wrong; it is named.
    """
    if len(data) > MOST_BYTES:
        raise TooLargeError(f"a question of {len(data)} bytes: at most {MOST_BYTES}, and {MOST_CHARS} characters")
    try:
        body = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"body: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInputError('body: not JSON: write {"text": "turn on the light in the bedroom"}') from error
    try:
        found = Question.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidInputError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
    return found if found.id else found.model_copy(update={"id": str(uuid.uuid4())})


@dataclass(slots=True)
class Wanted:
    """One command of an answer, and what became of it; `fate` is None while that is not known."""

    intent: Intent
    fate: Fate | None = None
    reason: str = ""
    command_id: str = ""
    text: str = ""  # the value as the command has it
    read_back: str | None = None


@dataclass(slots=True)
class Conversation:
    """A question and all that is known of its answer."""

    question: Question
    since_s: float = 0.0  # monotonic
    stage: Stage | None = None
    understood: Understood | None = None
    said: str = ""  # what a model said to the person
    problem: Why = ""  # why it was not decided on
    wanted: list[Wanted] = field(default_factory=list)
    is_decided: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self) -> None:
        """Note whether anything is left to wait for."""
        if self.is_decided and all(item.fate is not None for item in self.wanted):
            self.done.set()


class Questions:
    """All conversations of one run of an agent."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, patience_s: float = 60.0) -> None:
        """Start without any.

        Args:
            monotonic: seconds.
            patience_s: after so long nothing follows from a question any more: it is closed with that as its answer.
        """
        self._monotonic, self._patience_s = monotonic, patience_s
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self._by_command: dict[CommandId, list[tuple[Conversation, Wanted]]] = {}
        self._early: OrderedDict[CommandId, Outcome] = OrderedDict()  # newest last: one may be quicker than we are
        self.counts: Counter[str] = Counter()

    def open(self, question: Question) -> tuple[Conversation, bool]:
        """Return the conversation of a question, and whether it is new.

        Raises:
            ConflictError: another question has that id.
            TooManyAttemptsError: too many are open already.
        """
        self._close_overdue()
        known = self._known.get(question.id)
        if known is not None:
            if known.question.text != question.text:
                raise ConflictError(f"requestId {question.id!r} belongs to another question: take a new one")
            return known, False
        if sum(not item.done.is_set() for item in self._known.values()) >= MOST_OPEN:
            self.counts["turned_away"] += 1
            raise TooManyAttemptsError(f"{MOST_OPEN} questions are open already: ask again", 1.0)
        return self._remember(question), True

    def taken(self, question: Question) -> Conversation | None:
        """Return the conversation of a stored question, None when it was decided on already."""
        known = self._known.get(question.id) or self._remember(question)
        return None if known.is_decided else known

    def known(self, name: str) -> Conversation | None:
        """Return the conversation of a question's id, None when there is none."""
        return self._known.get(name)

    def forget(self, question: Question) -> None:
        """Forget a question that could not be stored: asked again, it is new."""
        self._known.pop(question.id, None)

    def give_up(self, name: str, problem: Why) -> None:
        """Answer a question that was not decided on with why nothing was done; nothing follows from it any more."""
        conversation = self._known.get(name)
        if conversation is not None and not conversation.is_decided:
            self.decided(conversation, None, problem=problem)

    def _close_overdue(self) -> None:
        """Close what has no answer by now: a thought or an outcome got lost, and no place may be taken for ever."""
        latest_s = self._monotonic() - self._patience_s
        for name, conversation in self._known.items():
            if conversation.done.is_set() or conversation.since_s >= latest_s:
                continue
            self.counts["overdue"] += 1
            limit_s = f"{self._patience_s:g}"
            self.give_up(name, (f"it was not decided on in {limit_s} s", f"{limit_s}秒内没有作出决定"))
            for item in conversation.wanted:
                if item.fate is None:  # an outcome that comes after all still counts
                    item.fate, item.reason = "uncertain", f"no outcome came in {self._patience_s:g} s"
            conversation.look()

    def decided(
        self, conversation: Conversation, stage: Stage | None, understood: Understood | None = None, *, said: str = "",
        problem: Why = "", settled: Iterable[Intent] = (),
    ) -> None:  # fmt: skip
        """Note how a question was understood; without commands it is answered with that."""
        conversation.stage, conversation.understood = stage, understood
        conversation.said, conversation.problem = said, problem
        conversation.wanted = [Wanted(item, "settled") for item in settled]
        conversation.is_decided = True
        self.counts[type(understood).__name__.lower() if understood is not None else "not_understood"] += 1
        conversation.look()

    def given(
        self, conversation: Conversation, stage: Stage, given: Iterable[Given], wished: Iterable[Intent], waits: Waits
    ) -> None:
        """Note what became of each wish on our side; outcomes follow.

        Args:
            conversation: whose answer this is; what it was understood as is noted there.
            stage: who understood it.
            given: what the commander said of those it looked at, and the commands that want the same already.
            wished: all; of which nothing is said, that is under way already, and nobody knows how it ends.
            waits: says of a device resource whether a human has to approve.
        """
        found = conversation.understood
        settled = found.settled if isinstance(found, Act) else ()
        conversation.wanted = [Wanted(item, "settled") for item in settled]
        conversation.stage, conversation.is_decided = stage, True
        self.counts["act"] += 1
        told = {(item.intent.device, item.intent.resource): item for item in given}
        for intent in wished:
            item = told.get((intent.device, intent.resource))
            wanted = Wanted(intent)
            conversation.wanted.append(wanted)
            if item is None:
                wanted.fate = "under-way"
            elif item.command_id:
                self._follow(conversation, wanted, item, waits)
            else:
                wanted.fate, wanted.reason = "failed" if item.is_lost else "refused", item.held_back
        conversation.look()

    def _follow(self, conversation: Conversation, wanted: Wanted, given: Given, waits: Waits) -> None:
        wanted.command_id, wanted.text = given.command_id, given.text
        name = CommandId(given.command_id)
        early = self._early.get(name)
        if early is not None:  # its outcome was quicker
            _take(wanted, early)
            return
        self._by_command.setdefault(name, []).append((conversation, wanted))
        if waits.get((given.intent.device, given.intent.resource), False):
            wanted.fate = "waits-for-approval"

    def ended(self, outcome: Outcome) -> None:
        """Take in how a command ended."""
        self._early[outcome.command_id] = outcome
        if len(self._early) > MOST_KNOWN:
            self._early.popitem(last=False)
        for conversation, wanted in self._by_command.pop(outcome.command_id, ()):
            _take(wanted, outcome)
            conversation.look()

    def _remember(self, question: Question) -> Conversation:
        conversation = self._known[question.id] = Conversation(question, self._monotonic())
        while len(self._known) > MOST_KNOWN:
            _, oldest = self._known.popitem(last=False)
            oldest.done.set()
            for item in oldest.wanted:
                self._by_command.pop(CommandId(item.command_id), None)
        return conversation


def _take(wanted: Wanted, outcome: Outcome) -> None:
    """Note how a command ended; what the guard says of anything else is no proof of this wish."""
    intent = wanted.intent
    if (outcome.device, outcome.resource, outcome.value) != (intent.device, intent.resource, wanted.text):
        what = f"{outcome.device}/{outcome.resource} = {outcome.value}"
        wanted.fate, wanted.reason = "uncertain", f"the guard told of {what} instead: {outcome.status}"
        return
    wanted.fate, wanted.reason, wanted.read_back = outcome.status, outcome.reason, outcome.read_back


def described(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation's commands as JSON holds them."""
    return {
        "commands": [
            {
                "deviceName": item.intent.device, "resourceName": item.intent.resource, "value": item.intent.value,
                "status": item.fate or "pending", "reason": item.reason, "readBack": item.read_back,
                "commandId": item.command_id, "because": item.intent.because,
            }
            for item in conversation.wanted
        ]
    }  # fmt: skip
