"""The fence of tasks: a command that a task caused goes out only while the ledger has its award standing.

The record is read from the gateway's own stream `tasks` right before the SET, after the intent is on disk, and before
a command begins to wait for somebody's yes. Commands of no task cost no reading. A ledger that does not answer refuses:
a lane is held up for `LEDGER_S` at most, and no longer than the command may wait.

Source: design.md section 5; `protocol/task_award.py`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.errors import InvalidInputError, MalformedMessageError, UnavailableError
from edgeagents.model.task import TaskRef, task_of
from edgeagents.protocol.task_award import Standing, award_problem, standing_of
from services.guard.jobs import Job

log = logging.getLogger(__name__)

LEDGER_S: Final = 10.0  # a broker that is started again, or whose disk stood still, is back within that
AGAIN_S: Final = 0.1


class TaskFence:
    """Looks commands of tasks up in the ledger."""

    def __init__(self, bus: Bus, now: Callable[[], float]) -> None:
        """Use the guard's connection, and the clock of commands' deadlines."""
        self._now = now
        self._bus = bus
        self._gateway = bus.settings.gateway
        self.counts: Counter[str] = Counter()

    async def problem(self, job: Job) -> str:
        """Return why a task's command may not go out now; empty when it may, or no task caused it."""
        try:
            ref = task_of(job.command.cause)
        except InvalidInputError as error:
            self.counts["refused"] += 1
            return str(error)
        if ref is None:
            return ""
        self.counts["read"] += 1
        try:
            problem = award_problem(await self._standing(ref, job.deadline_s), ref, job.agent, job.command.incarnation)
        except UnavailableError as error:
            self.counts["silent"] += 1
            return f"the ledger of tasks does not answer, so nobody knows whose task {ref.task!r} is: {error}"
        except MalformedMessageError as error:
            log.error("record of task %s: %s", ref.task, error)
            problem = f"the ledger's record of task {ref.task!r} cannot be read"
        self.counts["refused"] += bool(problem)
        return problem

    async def _standing(self, ref: TaskRef, deadline_s: float) -> Standing | None:
        subject = subjects.task_record(self._gateway, ref.task)
        until_s = time.monotonic() + min(LEDGER_S, max(0.0, deadline_s - self._now()))
        while True:
            try:
                async with asyncio.timeout(max(0.05, until_s - time.monotonic())):
                    stored = await self._bus.last(subjects.TASKS_STREAM, subject)
                return None if stored is None else standing_of(stored.data)
            except UnavailableError:
                if time.monotonic() + AGAIN_S > until_s:
                    raise
            except TimeoutError as error:
                raise UnavailableError("no answer in time") from error
            await asyncio.sleep(AGAIN_S)
