"""Tasks that an agent leads while no coordinator is there: asked of it over NATS, by its own subjects.

Source: docs/tasks.md.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgeagents import subjects
from edgeagents.cli.service import understood
from edgeagents.cli.source import Broker
from edgeagents.errors import UnavailableError, UpstreamError, error_for_status
from edgeagents.model.task import ENDED_STATES
from edgeagents.permissions import MICRO_INBOX

GIVER: Final = "owner"
WAIT_S: Final = 5.0
AGAIN_S: Final = 0.5


def ask(broker: Broker, leader: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an agent that leads answers to `submit`, `get`, `list` or `cancel`.

    Raises:
        UnavailableError: it does not answer, or the broker does not.
        UpstreamError: what it sent is no answer.
        EdgeAgentsError: what its error answer means.
    """
    return answer_of(asyncio.run(_asked(broker, leader, verb, body)), leader)


async def _asked(broker: Broker, leader: str, verb: str, body: Mapping[str, Any]) -> list[bytes]:
    subject = subjects.peer_task(broker.gateway, leader, verb, GIVER)
    async with broker.connected() as bus:
        return await bus.gather(subject, json.dumps(body).encode(), inbox=MICRO_INBOX, wait_s=WAIT_S, most=1)


def answer_of(answers: list[bytes], leader: str) -> dict[str, Any]:
    """Return the first answer; raises as `ask` does."""
    if not answers:
        raise UnavailableError(f"agent {leader!r} does not answer: is it up, and does its file say `leads: true`?")
    try:
        found = json.loads(answers[0])
        status = int(found["statusCode"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise UpstreamError(f"agent {leader!r} sent no answer: {error}") from error
    if status >= 400:
        raise error_for_status(status, str(found.get("message", found)))
    return dict(found)


def changes(broker: Broker, leader: str, task: str, deadline_s: float) -> Iterator[dict[str, Any]]:
    """Yield a task each time its state has changed, to its end; nobody waits longer than it may take.

    Raises:
        UnavailableError: its leader is gone, or its time is long over.
    """
    state, until_s = "", time.monotonic() + deadline_s + WAIT_S
    while time.monotonic() < until_s:
        answer = ask(broker, leader, "get", {"id": task})
        with understood(f"agent {leader!r}", "leader"):
            found, now = answer["task"], str(answer["task"]["state"])
        if now != state:
            state = now
            yield found
        if state in ENDED_STATES:
            return
        time.sleep(AGAIN_S)
    raise UnavailableError(f"task {task!r} has not ended in its time: is agent {leader!r} held up?")
