"""Leads tasks in memory while no coordinator is there: for an agent whose owner's file says `leads: true`.

The same engine as the coordinator's (`edgeagents/task_engine.py`), without its disk: what was led is lost with this
process, so only what needs nobody's consent and does no harm twice is taken in (`protocol/led_commands.py`). Who is
asked comes from what agents announce; the agent itself may bid like any other, by the same subjects. Once a coordinator
is heard nothing new is taken in, and what waits for somebody to do it ends (so it is where the owner has this agent
observe, or pauses it); what was called for goes on to its end
here, and the coordinator never hears of it. Leaves out the bus's side: `leading_desk.py`.

Source: design.md section 5 ("any agent can lead a contract net for class A work"); docs/decisions/0026.
"""

import asyncio
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from edgeagents.adapters import wire
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit, Refusals
from edgeagents.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from edgeagents.model.cooperation import Act, Announcement
from edgeagents.model.skill import SET, Aim
from edgeagents.model.task import TaskWanted
from edgeagents.protocol import contract_net
from edgeagents.protocol.conversation import Tell
from edgeagents.protocol.eligibility import Site, device_problem, invited
from edgeagents.protocol.explanation import award_body, end_body
from edgeagents.protocol.led_commands import MOST_LED_S, told_problem
from edgeagents.protocol.roster import MOST_RUNS, TTL_S
from edgeagents.protocol.task_book import Book, Times, Turn
from edgeagents.protocol.task_ledger import LedgerAnswer, LedgerRequest
from edgeagents.protocol.task_record import Record, shown, wanted_of
from edgeagents.task_engine import TaskEngine
from services.agent.commands import Commander
from services.agent.presence import CoordinatorWatch

MOST_OPEN: Final = 100  # tasks under way; one giver may hold half of them
MOST_ENDED: Final = 1_000  # remembered, so that a task given again is known
MOST_INVITED: Final = 8  # asked for one task, the least busy first
LOOK_S: Final = 0.25
BACK: Final = "app-coordinator is there again: give it to it"


class Leading:
    """The tasks that this agent leads; `run` looks after their times, `send` gets what is to be said."""

    def __init__(
        self, agent: str, watch: CoordinatorWatch, commander: Commander, devices: DeviceCache, audit: Audit,
        is_connected: Callable[[], bool], now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Begin with no task.

        Args:
            agent: who leads.
            watch: whether a coordinator is there.
            commander: what the guard lets this agent do, and has told it.
            devices: of core-metadata.
            audit: for awards, ends and refusals.
            is_connected: whether the link to the broker is up: else nobody is heard, and nobody is gone for that.
            now: monotonic seconds: the ledger's clock.
        """
        self._agent = agent
        self.watch = watch
        self._commander = commander
        self._devices = devices
        self._audit = audit
        self._is_connected = is_connected
        self.book = Book(Times(), MOST_OPEN, MOST_ENDED, agent)
        self._encodings = wire.Encodings(MOST_RUNS)
        self.incarnation = ""  # this process's own, as it announces it; empty: it is not known, and no copy is seen
        self._copy_s = -math.inf  # when another copy of us was last heard
        self.send: Callable[[Tell], None] = lambda tell: None
        self.counts: Counter[str] = Counter()
        self._refusals = Refusals(audit, "task-refused", self.counts)
        self.engine = TaskEngine(self.book, self.counts, self._refusals, now, self._begin, self._carry_out)

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at each task when its time has come, and for winners that are gone, for ever."""
        while True:
            await self.engine.rest(LOOK_S)
            self.look()
            await asyncio.sleep(0)

    def look(self) -> None:
        """Do what is due by now, and end what nobody does: its winner is gone, or a coordinator is there for it."""
        if not self._is_connected():
            self.engine.deafen()
        over = BACK if self.watch.presence == "there" else self._order
        if over:
            self.engine.fail(lambda record: over if isinstance(record.net, contract_net.Planned) else "")
        self.engine.end_gone()
        self.engine.look()

    @property
    def _order(self) -> str:
        """Why the owner has nobody act for us, by the guard's welcome: a mode, or a pause; empty when they may."""
        welcome = self._commander.session.welcome
        if welcome is None:
            return ""
        if welcome.mode != "act":
            return f"agent {self._agent!r} is in mode observe: what only observes has nobody act for it"
        pause = next((item.reason for item in welcome.paused if not item.device), "")
        return f"agent {self._agent!r} is {pause}" if pause else ""

    # --- what comes in ---------------------------------------------------------------------------

    async def submit(self, wanted: TaskWanted, giver: str) -> tuple[Record, bool]:
        """Take a task in; and whether it is new.

        Raises:
            ConflictError: a coordinator is there, or the id is taken.
            ForbiddenError: we only observe, or are paused, or it is not for agents to lead.
            InvalidInputError: nobody could do it.
            TooLargeError: it is too long.
            TooManyAttemptsError: too many are under way.
            UnavailableError: nobody can say yet whether a coordinator is there, or nobody with the skill is;
                or another copy of us is up.
        """
        task = wanted.id or secrets.token_hex(8)
        if task not in self.book.open and task not in self.book.ended:
            if wanted.skill == SET:
                await self._devices.seek(wanted.device_name)  # its notice may be lost
            self._check(wanted)
        record, is_new = self.book.accept(task, wanted, giver, self.engine.now(), time.time_ns())
        self.counts["accepted" if is_new else "repeated"] += 1
        if is_new:
            self._begin(record)
        return self.book.record(task), is_new

    def _check(self, wanted: TaskWanted) -> None:
        match self.watch.presence:
            case "there":
                raise ConflictError(self.watch.problem)
            case "unknown":
                raise UnavailableError(self.watch.problem)
        if self.engine.now() - self._copy_s < TTL_S:
            raise UnavailableError(
                f"another copy of agent {self._agent!r} is up, and knows nothing of our tasks: stop one"
            )
        welcome = self._commander.session.welcome
        if welcome is None:
            raise UnavailableError(f"agent {self._agent!r} has no session with the guard: is it up?")
        if self._order:
            raise ForbiddenError(self._order)
        if wanted.deadline_s > MOST_LED_S:
            raise InvalidInputError(f"a deadline of {wanted.deadline_s:g} s: agents lead for {MOST_LED_S:g} s at most")
        if not self._devices.is_ready:
            raise UnavailableError("core-metadata has not told its devices yet: is it up?")
        if wanted.skill == SET:
            devices = Site({}, self._devices.devices_by_name, self._devices.profiles_by_name)
            aim = Aim(wanted.device_name, wanted.resource_name, wanted.value)
            if problem := device_problem(aim, devices):
                raise InvalidInputError(problem)
            if problem := told_problem(welcome.site, aim.device, aim.resource, is_own=False):
                raise ForbiddenError(problem)
        if not self._skilled(wanted.skill):
            raise UnavailableError(
                f"no agent with skill {wanted.skill!r} that bids for agents was heard in {TTL_S:g} s: is one up?"
            )

    def _skilled(self, skill: str) -> list[str]:
        """Return the agents that are there and say that they can do something, and that agents may ask them."""
        alive = self.engine.alive()
        return sorted(run.agent for run in alive.values() if run.hears_peers and skill in run.skills)

    async def cancel(self, task: str, by: str) -> Record:
        """End a task by somebody's word.

        Raises:
            NotFoundError: no such task is known.
            ConflictError: it has ended already.
        """
        self.record(task)
        self.engine.cancel(task, f"cancelled by {by}")
        return self.book.record(task)

    def record(self, task: str) -> Record:
        """Return where a task stands.

        Raises:
            NotFoundError: it is not one of ours, or ended long ago.
        """
        try:
            return self.book.record(task)
        except NotFoundError as error:
            text = f"{error}; what agent {self._agent!r} led before its last start is in the audit alone"
            raise NotFoundError(text) from error

    def listed(self, state: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Return tasks as clients see them, the newest first; those of one state if given."""
        found = [item for item in self.book.all() if not state or item.state == state]
        found.sort(key=lambda item: item.accepted_unix_ns, reverse=True)
        return [shown(item) for item in found[:limit]]

    def state(self) -> dict[str, Any]:
        """Return what is led now, and how it went, as clients see it."""
        there = [run for run in self.engine.alive().values() if run.hears_peers]
        return {
            "agent": self._agent, "coordinator": self.watch.presence, "open": len(self.book.open),
            "ended": len(self.book.ended), "agents": len(there), "counts": dict(self.counts),
        }  # fmt: skip

    def heard(self, sender: str, said: Act) -> None:
        """Take in what an agent said in a task's conversation."""
        self.engine.heard(sender, said)

    def asked(self, sender: str, task: str, request: LedgerRequest, reason: str) -> LedgerAnswer:
        """Return what our ledger says to an agent.

        Raises:
            NotFoundError: no such task is known.
        """
        turn = self.engine.asked(sender, task, request, reason)
        if turn.answer is None:
            raise NotFoundError(f"task {task!r}: the ledger has no answer to {type(request).__name__}")
        if turn.answer.problem:
            self.refused(sender, "ledger", turn.answer.problem)
        return turn.answer

    def announced(self, agent: str, said: Announcement, content_type: str) -> None:
        """Note that an agent is there, and what it reads: acts for it are written in that."""
        self.engine.announced(agent, said)
        if agent == self._agent and self.incarnation and said.incarnation != self.incarnation:
            self._copy_s = self.engine.now()
        self._encodings.heard(agent, content_type)

    def reads(self, agent: str) -> str:
        """Return the content type in which an agent is written to: the one of its announcements."""
        return self._encodings.of(agent)

    def refused(self, sender: str, cause: str, text: str) -> None:
        """Count what was not accepted, and write the first ones of each minute down."""
        self._refusals.add(sender, cause, text)

    # --- what follows ----------------------------------------------------------------------------

    def _begin(self, record: Record) -> None:
        now_s = self.engine.now()
        names = [name for name in self._skilled(wanted_of(record).skill) if name not in record.asked]
        whom = invited(names, self.engine.alive(), MOST_INVITED, record.task)
        self._carry_out(self.book.begin(record, whom, now_s, time.time_ns()))

    def _carry_out(self, turn: Turn) -> None:
        """Have said, counted and written down what a turn has made."""
        record = turn.record
        self.engine.taken_in(turn)
        self.book.evicted.clear()  # what is forgotten here is nowhere else
        led = {"leader": self._agent}
        if turn.awarded is not None:
            self.counts["awards"] += 1
            self._audit.append("award", **award_body(record, turn.awarded, self.engine.alive()), **led)
        if turn.has_ended:
            self.counts[record.state] += 1
            self._audit.append("task", **end_body(record), **led)
        for tell in turn.tells:
            self.counts["acts_sent"] += 1
            self.send(tell)
