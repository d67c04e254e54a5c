"""An agent that takes what people say: over HTTP and NATS, stored first, understood, decided on, answered with proof.

    POST /api/v3/ask | <gateway>.ask.<agent>  -> stored -> understood -> decision -> commands -> outcomes -> answer

The loop calls `consider` and `given`; this module never commands anything itself.

Source: docs/ask.md; design.md section 3.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastapi import FastAPI, Request

from edgeagents import subjects
from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.bus import BusMessage, StoredMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.adapters.files import load_model
from edgeagents.adapters.middleware import error_body
from edgeagents.adapters.web_pages import shows, takes
from edgeagents.errors import EdgeAgentsError, TheirError, TooManyAttemptsError, meaning_of
from edgeagents.model.agent import AgentDefinition, Asked, Observation
from edgeagents.model.answer import Answer, CommandAnswer
from edgeagents.model.message import Outcome
from edgeagents.model.options import Options, options_of
from edgeagents.model.words import Language, Words
from edgeagents.permissions import MICRO_INBOX
from services.agent.commands import Commander, Given
from services.agent.house import House, house_of
from services.agent.perception import Twin
from services.agent.phrases import Phrase, Phrasebook
from services.agent.questions import (
    ACTED_ON_WITHIN_S,
    MOST_OPEN,
    NOT_SURE,
    Conversation,
    Question,
    Questions,
    Why,
    question_of,
)
from services.agent.replies import reply_of
from services.agent.shown import AskAnswer
from services.agent.thinking import TROUBLES, Thinker, Thought, intent_of, read_thought, words_of
from services.agent.understanding import Act, Understood, understand

log = logging.getLogger(__name__)

PATH: Final = "/api/v3/ask"
KIND: Final = "Trigger-Kind"
ASK: Final = "ask"
Meant: TypeAlias = tuple[Conversation | None, Asked]
"""What is to be decided on, and whose answer it is; None: nobody asked."""


class Answers:
    """What people said to this agent, and what they are told."""

    def __init__(
        self, devices: DeviceCache, words: Words, view: Twin, commander: Commander, wall_ns: Callable[[], int],
        site_now: Callable[[], float], wall_s: Callable[[float], float], agent: AgentDefinition,
    ) -> None:  # fmt: skip
        """Wire the parts; names are taken from `devices` as they are when somebody asks."""
        self._devices, self._words, self._view = devices, words, view
        self._commander, self._agent = commander, agent
        self._wall_ns, self._site_now, self._wall_s = wall_ns, site_now, wall_s
        self._house: House | None = None
        self._books: dict[Language, tuple[House, Phrasebook]] = {}
        thinks_s = agent.thinks.budget if agent.thinks is not None else 0.0
        self.questions = Questions(time.monotonic, ACTED_ON_WITHIN_S + thinks_s + agent.ttl)
        self.thinker: Thinker | None = None

    def watch(self) -> None:
        """Have names follow the devices from now on."""
        self._devices.on_change(lambda change: self._forget())

    def _forget(self) -> None:
        self._house, self._books = None, {}

    @property
    def house(self) -> House:
        """What people can speak of now."""
        if self._house is not None:
            return self._house
        found = house_of(self._devices.all(), self._devices.profiles_by_name, self._words)
        if self._devices.is_ready:  # else more is to come, maybe without a change that would be told
            self._house = found
        return found

    def options(self) -> Options:
        """Return what a model may answer now: what the agent's file permits and `site.yaml` declares."""
        devices, welcome = self._devices, self._commander.session.welcome
        declared = {(item.device, item.resource) for item in welcome.site} if welcome is not None else set()
        present = {key: sample.value for key, sample in self._view.readings.items()}
        return options_of(
            self._agent, devices.devices_by_name, devices.profiles_by_name, present, declared=declared
        )  # fmt: skip

    @property
    def _sure(self) -> float:
        """How sure a model must be to be acted on."""
        return self._agent.thinks.sure if self._agent.thinks is not None else 1.0

    async def hear(self, question: Question) -> Phrase | None:
        """Return what a question says by templates, matched beside the loop: that takes milliseconds."""
        try:
            return await asyncio.to_thread(self._match, self.house, question.language, question.text)
        except Exception:  # whatever a sentence does to templates, the next one is to be heard
            log.exception("templates failed on question %r", question.id)
            return None

    def _match(self, house: House, language: Language, text: str) -> Phrase | None:
        found = self._books.get(language)
        if found is None or found[0] is not house:
            found = self._books[language] = (house, Phrasebook(house, language))
        return found[1].match(text)

    def consider(self, question: Question, phrase: Phrase | None, stored_ns: int) -> Meant | None:
        """Return what is to be decided on; None when a question is answered without a command, or waits for a model.

        Args:
            question: as it was stored.
            phrase: what it says by templates.
            stored_ns: when the broker got it.
        """
        conversation = self.questions.taken(question)
        if conversation is None:
            return None
        age_s = (self._wall_ns() - stored_ns) / 1e9
        if age_s > ACTED_ON_WITHIN_S:
            self.questions.decided(conversation, "phrase", problem=_too_old(age_s))
            return None
        if phrase is None:
            if self.thinker is None or not self.thinker.begin(question, self.house, self._view):
                self.questions.decided(conversation, "phrase")
            return None
        return self.understood(conversation, understand(phrase, self.house, self._view))

    def understood(self, conversation: Conversation, found: Understood) -> Meant | None:
        """Note what a question means; return what is to be decided on, None when nothing is."""
        question = conversation.question
        if not isinstance(found, Act) or not found.intents:
            settled = found.settled if isinstance(found, Act) else ()
            self.questions.decided(conversation, "phrase", found, settled=settled)
            return None
        conversation.understood = found
        because = f"somebody said: {question.text}"[:500]
        intents = tuple(replace(item, because=because) for item in found.intents)
        return conversation, Asked(question.id, question.text, "phrase", intents, 1.0, found.inputs)

    def look(self, observation: Observation) -> None:
        """Have a model asked about news on which the rules are silent, where the owner says so."""
        if self.thinker is not None:
            self.thinker.look(observation, self.house, self._view)

    def think_over(self, thought: Thought, stored_ns: int) -> Meant | None:
        """Return what is to be decided on of what a model answered; None when it leads to no command.

        Args:
            thought: as it was stored.
            stored_ns: when the broker got it.
        """
        conversation = self.questions.known(thought.question) if thought.question else None
        if thought.question and conversation is None:  # asked in a former life: nobody waits for it any more
            return None
        if conversation is not None and conversation.is_decided:  # given up meanwhile: the person was told so
            return None
        answer = read_thought(thought, self.options()) if self.thinker is not None else None
        is_late = (self._wall_ns() - stored_ns) / 1e9 > ACTED_ON_WITHIN_S
        if isinstance(answer, CommandAnswer) and thought.confidence >= self._sure and not is_late:
            intent = intent_of(answer, thought)
            found = (intent,)
            return conversation, Asked(
                thought.question, thought.said, "language-model", found, thought.confidence, {}, thought.model
            )  # fmt: skip
        if conversation is not None:
            self._told(conversation, thought, answer)
        return None

    def _told(self, conversation: Conversation, thought: Thought, answer: Answer | None) -> None:
        """Answer a question without a command: what the model says, or why it is of no use."""
        if isinstance(answer, CommandAnswer):  # not sure enough, or too late
            percent = f"{thought.confidence:.0%}"
            guess = f"{answer.device}/{answer.resource} = {answer.value!r}"
            self.questions.decided(conversation, "language-model", problem=f"{percent}: {guess}?")
            return
        words = words_of(answer) if answer is not None else ""
        trouble = TROUBLES.get(thought.trouble, TROUBLES["illegal"])
        self.questions.decided(conversation, "language-model", said=words, problem="" if words else trouble)

    def unsure(self, conversation: Conversation, asked: Asked) -> None:
        """Answer a question on which no stage is sure enough to decide: nothing is done."""
        self.questions.decided(conversation, asked.stage, problem=NOT_SURE)

    def give_up(self, question: str, problem: Why) -> None:
        """Answer the question of an id with why nothing was done, unless it is answered already."""
        self.questions.give_up(question, problem)

    def given(self, conversation: Conversation, asked: Asked, given: Sequence[Given]) -> None:
        """Note what became of a decision's wishes."""
        welcome = self._commander.session.welcome
        waits = {(item.device, item.resource): item.risk_class in "BC" for item in welcome.site} if welcome else {}
        self.questions.given(conversation, asked.stage, given, asked.intents, waits)

    def ended(self, outcome: Outcome) -> None:
        """Take in how a command ended."""
        self.questions.ended(outcome)

    def reply(self, conversation: Conversation) -> dict[str, Any]:
        """Return the answer as it is now."""
        return reply_of(conversation, self.house, self._view, self._site_now(), self._agent.name, self._wall_s)


def _too_old(age_s: float) -> Why:
    return f"it is {age_s:.0f} s old: ask again", f"这是{age_s:.0f}秒前说的，请再说一遍"


def stored_question(message: StoredMessage) -> Question | None:
    """Return the question that a stored message holds, None when it holds something else.

    Raises:
        InvalidInputError: it says that it is a question, but holds none.
    """
    return question_of(message.data) if message.headers.get(KIND) == ASK else None


class Door:
    """Where people ask: stores, waits for the proof, answers."""

    def __init__(self, service: EdgexService, agent: str, answers: Answers) -> None:
        """Prepare; `open` begins."""
        self._service, self._agent, self._answers = service, agent, answers
        self._subject = subjects.trigger(service.settings.gateway, agent)
        self._busy = 0

    async def open(self) -> None:
        """Take questions from now on, over HTTP and NATS."""

        add_route(self._service.app, self.answer)
        await self._service.bus.subscribe(
            subjects.ask(self._service.settings.gateway, self._agent), self._on_message, pending=256,
            pending_bytes=1 << 20,
        )  # fmt: skip

    async def answer(self, question: Question) -> dict[str, Any]:
        """Return the answer to a question: as soon as nothing is left to wait for, or when its wait is over.

        Raises:
            TheirError: it cannot be taken: no room, an id of another question, the broker is away.
        """
        questions = self._answers.questions
        conversation, is_new = questions.open(question)
        if is_new:
            body = {"text": question.text, "requestId": question.id, "waitSeconds": question.wait_s}
            try:
                await self._service.bus.store(self._subject, json.dumps(body).encode(), {KIND: ASK})
            except (TheirError, asyncio.CancelledError):
                questions.forget(question)
                raise
        try:
            async with asyncio.timeout(question.wait_s):
                await conversation.done.wait()
        except TimeoutError:
            questions.counts["answered_before_the_proof"] += 1
        return self._answers.reply(conversation)

    async def _on_message(self, message: BusMessage) -> None:
        # Whoever asks chooses the reply subject: it must not become a message of ours on any other subject.
        if not message.reply.startswith(f"{MICRO_INBOX}."):
            return
        if self._busy >= MOST_OPEN:
            error = TooManyAttemptsError(f"{MOST_OPEN} questions are open already: ask again", 1.0)
            await self._respond(message, _json(error_body(meaning_of(error).status, str(error))))
            return
        self._busy += 1
        self._service.tasks.create_task(self._answer_message(message), name="ask")

    async def _answer_message(self, message: BusMessage) -> None:
        try:
            body = _json({"apiVersion": "v3", "statusCode": 200, **await self.answer(question_of(message.data))})
        except EdgeAgentsError as error:
            body = _json(error_body(meaning_of(error).status, str(error)))
        except Exception:  # as a web server does: one question costs one answer
            log.exception("a question over NATS came to nothing")
            body = _json(error_body(500, f"agent {self._agent!r} failed on this question: see its log"))
        finally:
            self._busy -= 1
        await self._respond(message, body)

    async def _respond(self, message: BusMessage, body: bytes) -> None:
        try:
            await self._service.bus.respond(message, body)
        except TheirError as error:
            log.warning("an answer could not be sent: %s", error)


def add_route(app: FastAPI, answer: Callable[[Question], Awaitable[dict[str, Any]]]) -> None:
    """Add `POST /api/v3/ask`; `answer` returns what is told of a question."""

    @app.post(
        PATH, **takes(Question, example={"text": "it is stuffy in the bedroom"}), **shows(AskAnswer, "An answer.")
    )
    async def ask(request: Request) -> dict[str, Any]:
        """Take a sentence; answer what was done and proven, refused and why, or a question back.

        There only where the agent's file says `answers: true`.
        """
        question = question_of(await request.body())
        return {"apiVersion": "v3", "statusCode": 200, **await answer(question)}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


def read_words(path: Path | None, agent_file: Path) -> Words:
    """Return the owner's words: of the file that is named, else of `words.yaml` in the folder above the agent's.

    Docker makes a folder where a file that it is to mount is not there: then there are no words, and the log says so.

    Raises:
        ConfigurationError: a file is wrong.
    """
    file = path or agent_file.resolve().parent.parent / "words.yaml"
    if not file.is_file():
        if path is not None:
            log.warning("%s is no file: names, kinds and rooms come from core-metadata alone", path)
        return Words()
    return load_model(Words, file)
