"""Who leads the tasks that an agent takes part in, and how each is spoken to: the coordinator, or another agent.

The protocol is the same (`contract_net_participant`); what differs is where words go, how the ledger is asked, what a
command names as its cause, and what is not done for whom. An agent leads only while no coordinator is there, and only
what needs nobody's consent and does no harm twice (`protocol/led_commands.py`); its ledger is its memory.

Source: docs/tasks.md; docs/decisions/0026.
"""

from typing import Final, Protocol

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.model.cooperation import Act, LedgerAsk, LedgerTold
from edgeagents.model.message import Cause
from edgeagents.model.skill import Aim
from edgeagents.model.task import LedRef, TaskRef, cause_of, led_cause_of
from edgeagents.protocol.led_commands import MOST_LED_S, told_problem
from edgeagents.protocol.limits import DAY_S
from services.agent.commands import Commander
from services.agent.presence import CoordinatorWatch

LEDGER_S: Final = 2.0


class Initiator(Protocol):
    """Who leads a conversation; `longest_s` bounds how long one may be remembered."""

    @property
    def name(self) -> str:
        """Its name among agents."""

    @property
    def longest_s(self) -> float:
        """The longest deadline that it may set, seconds."""

    async def tell(self, said: Act) -> None:
        """Say something to it.

        Raises:
            UnavailableError: the link is down.
        """

    async def ask(self, asked: LedgerAsk) -> LedgerTold | None:
        """Ask its ledger; None: the answer comes by itself.

        Raises:
            TheirError: there is none.
        """

    def cause(self, task: str, accepted_unix_ns: int, epoch: int) -> Cause:
        """Return the cause of the command by which a task is done."""

    def objection(self, aim: Aim) -> str:
        """Return why nothing is done for it now, or not this; empty when it is."""


class Coordinator:
    """The gateway's coordinator: its ledger is on disk, and the guard reads it."""

    name = subjects.COORDINATOR
    longest_s = DAY_S

    def __init__(self, bus: Bus, agent: str) -> None:
        """Speak as `agent`."""
        self._bus = bus
        self._to = subjects.act(bus.settings.gateway, subjects.COORDINATOR, agent)
        self._ledger = subjects.task_ledger(bus.settings.gateway, agent)

    async def tell(self, said: Act) -> None:
        """Say something to it."""
        await self._bus.publish(self._to, wire.encode(said), wire.AS_PROTOBUF)

    async def ask(self, asked: LedgerAsk) -> LedgerTold:
        """Return what its ledger says."""
        answer = await self._bus.request(self._ledger, wire.encode(asked), wire.AS_PROTOBUF, timeout_s=LEDGER_S)
        return wire.decode(LedgerTold, answer.data)

    def cause(self, task: str, accepted_unix_ns: int, epoch: int) -> Cause:
        """Return the cause by which the guard finds the award in the ledger."""
        return cause_of(TaskRef(task, accepted_unix_ns, epoch))

    def objection(self, aim: Aim) -> str:
        """Return nothing: what the owner's files allow is done for it."""
        return ""


class Peer:
    """Another agent, or this one, that leads while no coordinator is there."""

    longest_s = MOST_LED_S

    def __init__(self, bus: Bus, agent: str, leader: str, watch: CoordinatorWatch, commander: Commander) -> None:
        """Speak as `agent` to `leader`."""
        self._bus = bus
        self.name = leader
        self._watch = watch
        self._commander = commander
        self._to = subjects.peer(bus.settings.gateway, "peer-answers", leader, agent)
        self._ledger = subjects.peer(bus.settings.gateway, "peer-ledger", leader, agent)

    async def tell(self, said: Act) -> None:
        """Say something to it."""
        await self._bus.publish(self._to, wire.encode(said), wire.AS_PROTOBUF)

    async def ask(self, asked: LedgerAsk) -> None:
        """Ask what it has in memory; it answers on a subject of ours, as no agent may write on another's inbox."""
        await self._bus.publish(self._ledger, wire.encode(asked), wire.AS_PROTOBUF)

    def cause(self, task: str, accepted_unix_ns: int, epoch: int) -> Cause:
        """Return a cause that names leader and task: no ledger on disk has it."""
        return led_cause_of(LedRef(self.name, task, accepted_unix_ns, epoch))

    def objection(self, aim: Aim) -> str:
        """Return why we bid for nothing that it leads now, or not for this."""
        welcome = self._commander.session.welcome
        return self._watch.problem or (
            told_problem(welcome.site, aim.device, aim.resource, is_own=True) if welcome is not None else ""
        )
