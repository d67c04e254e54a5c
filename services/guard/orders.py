"""What the owner ordered while the guard runs: pauses, and agents' modes. They survive a restart.

A pause holds from the moment it is asked for, a resume from the moment it is on disk. What was given before a
resume is never carried out after it: a resume remembers up to which place in the command stream it was paused.
A mode by order counts until another one, or until the agent's file says something else than when it was given.
Left out on purpose: who may order (`people.py`), and what happens to commands that wait (`lanes.py`, `people.py`).

Source: design.md section 3.8, "the owner wins".
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from edgeagents.errors import NotFoundError, StoreError
from edgeagents.model.message import Mode
from services.guard.ledger import Ledger
from services.guard.owner import Owner

log = logging.getLogger(__name__)

Scope: TypeAlias = Literal["all", "agent", "device"]
Place: TypeAlias = tuple[Scope, str]  # scope and name; the name of `all` is empty


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is actuated in a scope: not by this agent, not at this device, or not at all."""

    scope: Scope
    name: str
    approver: str
    reason: str
    since_ns: int  # wall time

    @property
    def place(self) -> Place:
        """What is paused."""
        return self.scope, self.name

    def covers(self, agent: str, device: str) -> bool:
        """Say whether a command of this agent for this device is paused."""
        return self.scope == "all" or self.name == (agent if self.scope == "agent" else device)

    def __str__(self) -> str:
        """Return why a command does not go out."""
        return f"paused by {self.approver}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, slots=True)
class ModeOrder:
    """An agent's mode in an approver's name; `written` is what its file said then."""

    agent: str
    mode: Mode
    written: Mode
    approver: str
    reason: str
    since_ns: int  # wall time


def place_text(place: Place) -> str:
    """Return what is paused, in words."""
    scope, name = place
    return "everything" if scope == "all" else f"{scope} {name!r}"


class Orders:
    """The orders in force. Changes of one guard come one after the other; questions are answered from memory."""

    def __init__(self, ledger: Ledger, executor: Executor, owner: Owner) -> None:
        """Take in what the ledger holds; modes by order are put into `owner`, by which the gate judges."""
        self._ledger = ledger
        self._executor = executor
        self._owner = owner
        self._turn = asyncio.Lock()
        self._written: dict[str, Mode] = {name: agent.mode for name, agent in owner.agents.items()}
        self._paused: dict[Place, Pause] = {}
        self._lifted: dict[Place, tuple[Pause, int]] = {}
        self._modes: dict[str, ModeOrder] = {}
        ledger.end_resume()
        for scope, name, approver, reason, since_ns in ledger.pauses():
            pause = Pause(cast(Scope, scope), name, approver, reason, since_ns)
            self._paused[pause.place] = pause
        for agent, mode, written, approver, reason, since_ns in ledger.modes():
            self._restore(ModeOrder(agent, cast(Mode, mode), cast(Mode, written), approver, reason, since_ns))

    def _restore(self, order: ModeOrder) -> None:
        written = self._written.get(order.agent)
        if written == order.written:
            self._apply(order)
            return
        if self._owner.may_have_file(order.agent):
            self._modes[order.agent] = order  # what its file says is not known now; the order counts again once it is
            return
        # The file was changed since, so it is the owner's later word; it may well be `observe`.
        log.warning("mode %s of agent %r by %s is over: its file says %s now", order.mode, order.agent,
                    order.approver, written or "nothing")  # fmt: skip
        self._ledger.drop_mode(order.agent)

    # --- questions -------------------------------------------------------------------------------

    def problem(self, agent: str, device: str, sequence: int | None = None) -> str:
        """Return why nothing of this agent may go out to this device; empty when it may.

        Args:
            agent: who wants it.
            device: what it is for.
            sequence: place of the command in the stream; None asks about what is yet to come.
        """
        for pause in self._paused.values():
            if pause.covers(agent, device):
                return str(pause)
        for pause, last in self._lifted.values():
            if sequence is not None and sequence <= last and pause.covers(agent, device):
                return f"{pause} (resumed since, but it was given before)"
        return ""

    def concerning(self, agent: str, devices: Collection[str]) -> tuple[Pause, ...]:
        """Return the pauses that keep an agent from commanding any of these devices, oldest first."""
        return tuple(
            pause for pause in self._paused.values()
            if (pause.name in devices if pause.scope == "device" else pause.covers(agent, ""))
        )  # fmt: skip

    @property
    def paused(self) -> tuple[Pause, ...]:
        """What is paused, oldest first."""
        return tuple(self._paused.values())

    @property
    def modes(self) -> dict[str, Mode]:
        """The mode of each agent as it counts now."""
        return {name: agent.mode for name, agent in sorted(self._owner.agents.items())}

    @property
    def ordered(self) -> tuple[ModeOrder, ...]:
        """The modes that are not their file's."""
        return tuple(order for order in self._modes.values() if order.mode != order.written)

    # --- changes ---------------------------------------------------------------------------------

    async def pause(self, pause: Pause) -> None:
        """Pause at once; on disk when this returns.

        Raises:
            StoreError: it is not on disk; it holds all the same, until the guard is restarted.
        """
        self._paused[pause.place] = pause
        async with self._turn:
            await self._on_disk(
                self._ledger.pause, pause.scope, pause.name, pause.approver, pause.reason, pause.since_ns
            )

    def paused_at(self, place: Place) -> Pause:
        """Return the pause of a scope.

        Raises:
            NotFoundError: it is not paused; says what is.
        """
        if place not in self._paused:
            others = ", ".join(place_text(other) for other in self._paused) or "nothing"
            raise NotFoundError(f"{place_text(place)} is not paused: paused is {others}")
        return self._paused[place]

    async def resume(self, pause: Pause, last: Callable[[], Awaitable[int]]) -> None:
        """End a pause; what stands in the command stream by then, up to `last`, stays refused.

        Raises:
            UnavailableError: the broker does not tell where the stream ends; then the pause holds on.
            StoreError: it is not on disk; then the pause holds on.
        """
        async with self._turn:
            if self._paused.get(pause.place) is not pause:
                return  # paused again meanwhile, or resumed by somebody else
            await last()  # nothing is lifted, on disk or not, while the broker does not tell
            await self._on_disk(self._ledger.resume, *pause.place)
            until = await last()
            if self._paused.get(pause.place) is pause:
                self._lifted[pause.place] = pause, until
                del self._paused[pause.place]
            with contextlib.suppress(StoreError):  # then nothing that waits now goes out after a restart
                await self._on_disk(self._ledger.resumed, until)

    async def order_mode(self, agent: str, mode: Mode, approver: str, reason: str, since_ns: int) -> None:
        """Put an agent into a mode: `observe` at once, `act` as soon as it is on disk.

        `observe` is also taken for an agent of which only a remembered order is known: it counts with its file.

        Raises:
            NotFoundError: no agent file declares it.
            StoreError: it is not on disk; `observe` holds all the same, until the guard is restarted.
        """
        before = self._modes.get(agent)
        if agent not in self._written and before is not None and mode == "observe":
            written = before.written
        else:
            self.check_agent(agent)
            written = self._written[agent]
        order = ModeOrder(agent, mode, written, approver, reason, since_ns)
        if mode == "observe":
            self._apply(order)
            before = order
        async with self._turn:
            if mode == order.written:
                await self._on_disk(self._ledger.drop_mode, agent)
            else:
                await self._on_disk(
                    self._ledger.order_mode, agent, mode, order.written, approver, reason, since_ns
                )  # fmt: skip
            if self._modes.get(agent) is before:
                self._apply(order)

    async def take_over(self) -> None:
        """Take in that `owner` has other agents' files now: orders given on what one says no more are over.

        Raises:
            StoreError: that is not on disk; they are over all the same, until the guard is restarted.
        """
        self._written = {name: agent.mode for name, agent in self._owner.agents.items()}
        over = []
        for order in list(self._modes.values()):
            written = self._written.get(order.agent)
            if written == order.written:
                self._apply(order)
            elif not self._owner.may_have_file(order.agent):
                del self._modes[order.agent]
                over.append(order)
                log.warning("mode %s of agent %r by %s is over: its file says %s now", order.mode, order.agent,
                            order.approver, written or "nothing")  # fmt: skip
        async with self._turn:
            for order in over:
                if order.agent not in self._modes:  # nor ordered anew meanwhile
                    await self._on_disk(self._ledger.drop_mode, order.agent)

    def check_agent(self, name: str) -> None:
        """Refuse a name that no agent file declares.

        Raises:
            NotFoundError: says which names there are.
        """
        if name not in self._written:
            raise NotFoundError(f"no agent file declares {name!r}: there are {', '.join(sorted(self._written))}")

    def _apply(self, order: ModeOrder) -> None:
        self._modes[order.agent] = order
        definition = self._owner.agents.get(order.agent)
        if definition is not None:  # else it is remembered, until its file can be read
            self._owner.agents[order.agent] = definition.model_copy(update={"mode": order.mode})

    async def _on_disk(self, function: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*arguments))
