"""The clock of a book of tasks: who is there, when to look at which task, and pauses of the process itself.

One engine for whoever leads tasks: the coordinator, which has a disk between a turn and its telling, and an agent that
leads in memory. Both say what a turn leads to (`carry_out`), and whom to ask for a task (`begin`).

Source: design.md section 5; docs/tasks.md, docs/leading.md.
"""

import asyncio
import heapq
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from edgeagents.audit import Refusals
from edgeagents.model.cooperation import Act, Announcement
from edgeagents.protocol import contract_net
from edgeagents.protocol.conversation import Heard, Refuse
from edgeagents.protocol.roster import Roster, Run
from edgeagents.protocol.task_book import Book, Turn
from edgeagents.protocol.task_ledger import LedgerRequest
from edgeagents.protocol.task_record import Record

log = logging.getLogger(__name__)

STALL_S: Final = 2.0  # not run for so long: what others said meanwhile waits to be heard, so nobody's silence counts
MOST_AT_ONCE: Final = 256  # tasks that are looked at before others have their turn
MOST_TIMERS: Final = 4_096  # kept before those are looked for that wake nobody any more


class TaskEngine:
    """Has the tasks of a book looked at in time; every event of theirs passes through here."""

    def __init__(
        self, book: Book, counts: Counter[str], refusals: Refusals, clock: Callable[[], float],
        begin: Callable[[Record], None], carry_out: Callable[[Turn], None],
    ) -> None:  # fmt: skip
        """Begin with nobody there.

        Args:
            book: the tasks.
            counts: of their leader.
            refusals: what is not listened to.
            clock: the ledger's, seconds.
            begin: asks agents for a task that waits for one.
            carry_out: what a turn leads to; `taken_in` is part of it.
        """
        self.book, self.counts, self.refusals = book, counts, refusals
        self._clock, self._begin, self._carry_out = clock, begin, carry_out
        self._timers: list[tuple[float, str]] = []
        self._most_timers = MOST_TIMERS
        self._has_due = asyncio.Event()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Begin to run, on the clock as it is now: nobody was heard yet, and time before this held nobody up."""
        self._ran_s = self._clock()
        self.roster = Roster(self._ran_s)

    # --- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the ledger's time, having seen to it that a time in which we were paused is held against nobody.

        All that decides by the clock asks here, so whatever comes first after a pause finds it noticed; it is to be
        asked more often than every `STALL_S`.
        """
        now_s = self._clock()
        slept_s, self._ran_s = now_s - self._ran_s, now_s
        if slept_s > STALL_S:
            self.counts["stalls"] += 1
            log.warning("we were held up for %.1f s: calls, awards and agents get that time again", slept_s)
            self.roster = self.roster.anew(now_s, slept_s)
            for task in list(self.book.open):
                self._carry_out(self.book.overslept(task, slept_s, now_s, time.time_ns()))
        return now_s

    async def rest(self, longest_s: float) -> None:
        """Wait until a task is due, so long at most."""
        wait_s = min(self._timers[0][0] - self.now(), longest_s) if self._timers else longest_s
        if wait_s > 0:
            self._has_due.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._has_due.wait()
            except TimeoutError:
                pass

    def look(self) -> None:
        """Look at the tasks that are due by now, the longest due first; at most `MOST_AT_ONCE` of them."""
        now_s = self.now()
        due: dict[str, None] = {}
        while self._timers and self._timers[0][0] <= now_s and len(due) < MOST_AT_ONCE:
            due[heapq.heappop(self._timers)[1]] = None
        for task in due:
            record = self.book.open.get(task)
            if record is None:
                continue
            if isinstance(record.net, contract_net.Planned):
                self._begin(record)
            else:
                self._carry_out(self.book.look(task, self.now(), time.time_ns()))

    def _wake(self, task: str, due_s: Iterable[float]) -> None:
        for at_s in due_s:
            heapq.heappush(self._timers, (at_s, task))
            self._has_due.set()
        if len(self._timers) > self._most_timers:
            # Of what has ended, and those that say the same; a sorted list is a heap.
            self._timers = sorted({item for item in self._timers if item[1] in self.book.open})
            self._most_timers = max(MOST_TIMERS, 2 * len(self._timers))

    # --- who is there ----------------------------------------------------------------------------

    def announced(self, agent: str, said: Announcement) -> None:
        """Note that an agent is there."""
        self.roster = self.roster.heard(agent, said, self.now())

    def deafen(self) -> None:
        """Note that nobody can be heard: nobody is there, and nobody is gone for that."""
        self.roster = Roster(self.now())

    def alive(self) -> dict[str, Run]:
        """Return the agents that are there, by name; a pause that was not noticed yet makes nobody absent."""
        return self.roster.alive(min(self._clock(), self._ran_s + STALL_S))

    def end_gone(self) -> None:
        """End what was taken by who is gone."""
        now_s = self.now()

        def gone(record: Record) -> str:
            entry = record.entry
            if entry.status != "taken" or not self.roster.is_gone(entry.winner, entry.incarnation, now_s):
                return ""
            self.counts["winners_gone"] += 1
            return f"{entry.winner} went away after it had taken it: whether its command took effect the guard knows"

        self.fail(gone)

    # --- tasks -----------------------------------------------------------------------------------

    def heard(self, sender: str, said: Act) -> None:
        """Take in what an agent said in a task's conversation."""
        if said.conversation not in self.book.open:
            self.counts["refused_late" if said.conversation in self.book.ended else "refused_other-conversation"] += 1
            return
        now_s = self.now()
        self._carry_out(self.book.handle(said.conversation, Heard(sender, said, now_s), now_s, time.time_ns()))

    def asked(self, sender: str, task: str, request: LedgerRequest, reason: str) -> Turn:
        """Return what the ledger says to an agent.

        Raises:
            NotFoundError: no such task is known.
        """
        turn = self.book.ask(task, request, self.now(), sender, time.time_ns(), reason)
        self._carry_out(turn)
        return turn

    def cancel(self, task: str, reason: str) -> None:
        """End a task by somebody's word.

        Raises:
            NotFoundError: no such task is known.
            ConflictError: it has ended already.
        """
        self._carry_out(self.book.cancel(task, reason, self.now(), time.time_ns()))

    def fail(self, why: Callable[[Record], str]) -> None:
        """End the tasks under way of which something says why they cannot go on; empty: they can."""
        now_s = self.now()  # asked once: a pause that is noticed may end tasks itself
        for record in list(self.book.open.values()):
            reason = why(record)
            if reason:
                self._carry_out(self.book.cancel(record.task, reason, now_s, time.time_ns(), "failed"))

    def taken_in(self, turn: Turn) -> None:
        """Count what a turn refuses, and look at its task when the time has come."""
        for refusal in turn.refusals:
            self._refused(refusal)
        if not turn.record.ended:
            self._wake(turn.record.task, turn.due_s)

    def _refused(self, refusal: Refuse) -> None:
        if refusal.cause in ("repeated", "late"):  # usual: answers that crossed
            self.counts[f"refused_{refusal.cause}"] += 1
        else:
            self.refusals.add(refusal.sender, refusal.cause, refusal.text)
