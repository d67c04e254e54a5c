"""Ends what stands by the part of one whom the owner paused, or who only observes: the others are free from then on.

Whether it is so is the guard's word alone: a party's own does not count. Who lost could say so, and ask anew. One
worker asks the guard, about one resource after the other, until it was answered or the outcome is over.

Source: docs/conflicts.md; docs/decisions/0027.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError
from edgeagents.model.cooperation import Act
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol.conversation import act
from edgeagents.protocol.gate import Key
from services.coordinator.holders import AskGuard
from services.coordinator.standing import Standing

log = logging.getLogger(__name__)

AGAIN_S: Final = 5.0  # so long after an answer the guard is not asked again because the same party says the same
RETRY_S: Final = 1.0  # after no answer
GAP_S: Final = 0.01  # between two questions: the guard hears 128 of the coordinator in half a second, of all kinds
LOOK_S: Final = 0.1


class Releases:
    """Frees the parties of outcomes that stand."""

    def __init__(
        self, standing: Standing, guard: AskGuard, audit: Audit, tasks: asyncio.TaskGroup,
        tell: Callable[[str, Act], Awaitable[None]], refused: Callable[[str, str, str], None], counts: Counter[str],
        ended: Mapping[str, dict[str, Any]],
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            standing: the outcomes that stand.
            guard: asks the guard.
            audit: where it is written down, before anybody is told.
            tasks: holds what is under way.
            tell: sends an act to a party.
            refused: counts what was not accepted, by sender, cause and text.
            counts: the mediator's.
            ended: conflicts as clients see them, by name.
        """
        self._standing = standing
        self._guard = guard
        self._audit = audit
        self._tasks = tasks
        self._tell = tell
        self._refused = refused
        self._counts = counts
        self._ended = ended
        self._waiting: dict[Key, dict[str, float]] = {}  # who says it left, and when the guard may be asked about it
        self._asked_s: dict[tuple[Key, str], float] = {}  # when the guard answered last, by who had said so
        self._worker: asyncio.Task[None] | None = None

    def ask(self, key: Key, party: str, now_s: float) -> None:
        """Have the guard asked, beside what goes on, whether a party that says so is out of what stands.

        Only a party of it is heard, and one question at a time goes to the guard, whoever says how much: it hears the
        coordinator only so often, and others have their conflicts settled meanwhile.
        """
        stands = self._standing.on(key, now_s)
        if stands is None or party not in stands.parties or party in self._waiting.get(key, ()):
            self._counts["refused_late"] += 1
            return
        self._asked_s = {item: at_s for item, at_s in self._asked_s.items() if now_s - at_s < AGAIN_S}
        at_s = self._asked_s.get((key, party))
        self._waiting.setdefault(key, {})[party] = now_s if at_s is None else at_s + AGAIN_S
        if self._worker is None or self._worker.done():
            self._worker = self._tasks.create_task(self._work(), name="who left what stands")

    def close(self) -> None:
        """Ask no more: the parties' own timers end what stands."""
        self._waiting.clear()
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        """Ask about one resource after the other, the longest due first, until nothing is left to ask."""
        while self._waiting:
            key = min(self._waiting, key=self._due_s)
            wait_s = self._due_s(key) - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, LOOK_S))  # another may be due before it
                continue
            await self._ask(key)
            await asyncio.sleep(GAP_S)

    def _due_s(self, key: Key) -> float:
        return min(self._waiting[key].values())

    async def _ask(self, key: Key) -> None:
        """Ask the guard once about a resource; its answer names all that left. Without one it is asked again."""
        sayers = tuple(self._waiting[key])
        try:
            held = await self._guard(*key, ())
        except EdgeAgentsError as error:
            self._unanswered(key, error)
            return
        now_s, waiting = time.monotonic(), self._waiting.pop(key, {})
        later = {name: at_s for name, at_s in waiting.items() if name not in sayers}  # the answer may be older
        if later:
            self._waiting[key] = later
        for name, reason in held.barred.items():
            await self.left(key, name, reason)
        for name in sayers:
            self._asked_s[key, name] = now_s
            if name not in held.barred:
                self._refused(name, "not-allowed", f"{key[0]}/{key[1]}: it leaves, and the guard bars it from nothing")

    def _unanswered(self, key: Key, error: EdgeAgentsError) -> None:
        self._counts["leaving_unknown"] += 1
        if self._counts["leaving_unknown"] == 1:
            log.warning("who left %s/%s is not known: %s: asked again (further ones are only counted)", *key, error)
        now_s = time.monotonic()
        if self._standing.on(key, now_s) is None:  # over: there is nothing left to leave
            self._waiting.pop(key, None)
        elif key in self._waiting:
            self._waiting[key] = dict.fromkeys(self._waiting[key], now_s + RETRY_S)

    async def left(self, key: Key, party: str, reason: str) -> None:
        """Take in that one may command nothing there any more: what stands by its part binds nobody from now on.

        All whom it frees are told, the one that left too: it keeps what was agreed until then, as we do.
        """
        now_s = time.monotonic()
        stands, released = self._standing.on(key, now_s), self._standing.left(key, party, now_s)
        if stands is None or not released:
            return
        is_over = self._standing.on(key, now_s) is None
        text = f"{party} takes no part any more: {reason or 'no reason'}"[:MAX_REASON_CHARS]
        self._counts["released"] += 1
        self._audit.append(
            "conflict-released", conflict=stands.conflict, device=key[0], resource=key[1], by=party,
            released=list(released), reason=text,
        )  # fmt: skip
        if is_over and stands.conflict in self._ended:
            self._ended[stands.conflict]["released"] = text
        for name in released:
            await self._tell(name, act("cancel", stands.conflict, reason=text))
