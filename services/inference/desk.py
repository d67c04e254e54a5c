"""Answers agents over NATS: who asks is a token of the subject, and the answer goes to that agent's own inbox alone.

Source: `model/completion.py` for what is asked and answered; design.md section 4.
"""

import asyncio
import logging
from collections import Counter, defaultdict

from pydantic import ValidationError

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.inference_local import LocalInference
from edgeagents.adapters.model_shelf import Shelf
from edgeagents.errors import (
    UNEXPECTED,
    EdgeAgentsError,
    InvalidInputError,
    TooLargeError,
    TooManyAttemptsError,
    meaning_of,
)
from edgeagents.model.completion import MOST_REQUEST_BYTES, CompletionFailure, CompletionRequest
from edgeagents.permissions import agent_user, inbox

log = logging.getLogger(__name__)

MOST_AT_ONCE = 32  # questions of one agent that are worked on; more are refused before they are read


class Desk:
    """Takes questions in and answers each once."""

    def __init__(self, bus: Bus, shelf: Shelf, tasks: asyncio.TaskGroup) -> None:
        """Prepare; `open` begins to listen."""
        self._bus, self._shelf, self._tasks = bus, shelf, tasks
        self._working: Counter[str] = Counter()
        self._clients: dict[str, LocalInference] = {}  # by agent
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by agent
        self.requests = 0
        self.refused: Counter[int] = Counter()  # by status

    async def open(self) -> None:
        """Listen from now on.

        Raises:
            UnavailableError: the connection is closed.
        """
        await self._bus.subscribe(subjects.inferences(self._bus.settings.gateway), self._take)

    async def _take(self, message: BusMessage) -> None:
        try:
            agent = subjects.sender(message.subject)
        except InvalidInputError as error:
            log.warning("%s", error)
            return
        # Whoever asks chooses where the answer goes: never to somebody else.
        if not message.reply.startswith(f"{inbox(agent_user(agent))}."):
            self.refused[403] += 1
            return
        self.requests += 1
        if self._working[agent] >= MOST_AT_ONCE:
            text = f"{MOST_AT_ONCE} questions of agent {agent} are worked on: wait for their answers"
            await self._bus.respond(message, self._failure(TooManyAttemptsError(text)))
            return
        self._working[agent] += 1
        self._tasks.create_task(self._answer(message, agent), name=f"completion for {agent}")

    async def _answer(self, message: BusMessage, agent: str) -> None:
        try:
            body = await self._body(message, agent)
            await self._bus.respond(message, body)
        except EdgeAgentsError as error:
            log.warning("agent %s gets no answer: %s", agent, error)
        except Exception:  # it must not end the service for the others either
            log.exception("agent %s gets no answer", agent)
        finally:
            self._working[agent] -= 1

    async def _body(self, message: BusMessage, agent: str) -> bytes:
        try:
            request = await self._read(message.data, agent)
            done = await self._client(agent).complete(request)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:100]
            return self._failure(InvalidInputError(f"{where}: {first['msg']}" if where else first["msg"]))
        except EdgeAgentsError as error:
            return self._failure(error)
        except Exception:  # one agent's question must not end the service for the others
            log.exception("a question of agent %s", agent)
            return self._failure(EdgeAgentsError(UNEXPECTED))
        return done.model_dump_json().encode()

    async def _read(self, data: bytes, agent: str) -> CompletionRequest:
        """Return what is asked, read beside the loop; of one agent one at a time, so that a flood delays itself."""
        if len(data) > MOST_REQUEST_BYTES:
            raise TooLargeError(f"a question of {len(data)} bytes: at most {MOST_REQUEST_BYTES}: shorten it")
        async with self._reading[agent]:
            return await asyncio.to_thread(CompletionRequest.model_validate_json, data)

    def _client(self, agent: str) -> LocalInference:
        if agent not in self._clients:
            self._clients[agent] = LocalInference(self._shelf.engine, f"agent {agent}")
        return self._clients[agent]

    def _failure(self, error: EdgeAgentsError) -> bytes:
        status = meaning_of(error).status
        self.refused[status] += 1
        wait_s = error.retry_after_s if isinstance(error, TooManyAttemptsError) else None
        told = CompletionFailure(status=status, error=str(error)[:1000], retry_after_s=wait_s)
        return told.model_dump_json().encode()
