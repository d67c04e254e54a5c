"""Ends what stands by the part of one whom the owner paused, or who only observes: the others are free from then on.

Whether it is so is the guard's word alone: a party's own does not count. Who lost could say so, and ask anew.

Source: docs/conflicts.md; docs/decisions/0027.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edgeagents.audit import Audit
from edgeagents.errors import EdgeAgentsError
from edgeagents.model.cooperation import Act
from edgeagents.model.message import MAX_REASON_CHARS
from edgeagents.protocol.conversation import act
from edgeagents.protocol.gate import Key
from services.coordinator.holders import AskGuard
from services.coordinator.standing import Standing

log = logging.getLogger(__name__)


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
        self._asking: set[tuple[Key, str]] = set()

    def ask(self, key: Key, party: str) -> None:
        """Have the guard asked, beside what goes on, whether a party that says so is out of what stands."""
        if (key, party) not in self._asking:
            self._asking.add((key, party))
            self._tasks.create_task(self._asked(key, party), name=f"left {key[0]}/{key[1]}")

    async def _asked(self, key: Key, party: str) -> None:
        try:
            held = await self._guard(*key, ())
            if party in held.barred:
                await self.left(key, party, held.barred[party])
            else:
                self._refused(party, "not-allowed", f"{key[0]}/{key[1]}: it leaves, and the guard bars it from nothing")
        except EdgeAgentsError as error:  # the next question about it tells
            log.warning("whether %s left %s/%s is not known: %s", party, *key, error)
        finally:
            self._asking.discard((key, party))

    async def left(self, key: Key, party: str, reason: str) -> None:
        """Take in that one may command nothing there any more: what stands by its part binds nobody from now on."""
        now_s = time.monotonic()
        stands, released = self._standing.on(key, now_s), self._standing.left(key, party, now_s)
        if stands is None or not released:
            return
        text = f"{party} takes no part any more: {reason or 'no reason'}"[:MAX_REASON_CHARS]
        self._counts["released"] += 1
        self._audit.append(
            "conflict-released", conflict=stands.conflict, device=key[0], resource=key[1], by=party,
            released=list(released), reason=text,
        )  # fmt: skip
        if stands.conflict in self._ended:
            self._ended[stands.conflict]["released"] = text
        for name in released:
            await self._tell(name, act("cancel", stands.conflict, reason=text))
