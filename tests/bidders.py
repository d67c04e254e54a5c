"""Agents that take part in tasks as the real ones do on the wire, played within one process: many, cheap, naughty.

They speak through the participant's own protocol; what is played is the bid, the work, and how they misbehave.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import TheirError
from edgeagents.model.cooperation import Act, Announcement, Award, LedgerAsk, LedgerTold
from edgeagents.protocol import contract_net_participant as participant
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import Heard, Recovered, Tell, Tick
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.task_ledger import CloseTask, Entry, LedgerAnswer, LedgerRequest, TakeTask


@dataclass
class Bidder:
    """One agent: bids `cost` for everything, works for `work_s`, and ends as `ends` says."""

    bus: Bus
    name: str
    cost: float = 1.0
    work_s: float = 0.0
    ends: str = "done"
    is_silent: bool = False
    is_dead: bool = False
    takes: bool = True
    incarnation: str = "run-1"
    skills: tuple[str, ...] = ("set",)
    states: dict[str, participant.State] = field(default_factory=dict)
    performed: Counter[tuple[str, int]] = field(default_factory=Counter)
    awarded_s: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    coordinator: bytes = b""

    async def start(self) -> "Bidder":
        """Hear calls and say that we are there."""
        self.subscription = await self.bus.subscribe(subjects.act("gw", self.name, subjects.COORDINATOR), self._on_act)
        self.beats = await self.bus.subscribe(subjects.coordinator("gw"), self._on_beat)
        self._begin(self._announce())
        return self

    async def die(self) -> None:
        """Be gone at once: nothing is heard, said or done any more."""
        if self.is_dead:
            return
        self.is_dead = True
        await self.subscription.unsubscribe()
        await self.beats.unsubscribe()
        for task in list(self.tasks):
            task.cancel()
        self.states.clear()

    def _begin(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def announce(self) -> None:
        """Say once that we are there."""
        said = Announcement(incarnation=self.incarnation, skills=self.skills)
        await self.bus.publish(subjects.announcement("gw", self.name), wire.encode(said), wire.AS_PROTOBUF)

    async def _on_beat(self, message: BusMessage) -> None:
        """Say at once to a new coordinator that we are there, as an agent does."""
        if message.data != self.coordinator:
            self.coordinator = message.data
            await self.announce()

    async def _announce(self) -> None:
        while True:
            await self.announce()
            await asyncio.sleep(1.0)

    async def say(self, act: Act, *, as_who: str = "") -> None:
        """Say something to the coordinator."""
        await self.bus.publish(
            subjects.act("gw", subjects.COORDINATOR, as_who or self.name), wire.encode(act), wire.AS_PROTOBUF
        )

    async def _on_act(self, message: BusMessage) -> None:
        said = wire.decode(Act, message.data)
        self.counts[said.performative] += 1
        self.counts["bytes"] += len(message.data)
        if self.is_silent:
            return
        if said.performative == "accept-proposal":
            self.awarded_s.setdefault(said.conversation, time.monotonic())
            if not self.takes:
                return
        if said.conversation not in self.states:
            if said.call is None:
                return
            deadline_s = time.monotonic() + (said.call.left_s or 60.0)
            self.states[said.conversation] = participant.Listening(
                participant.Setting(self.name, subjects.COORDINATOR, said.conversation, deadline_s, self.incarnation)
            )
            await self._step(said.conversation, Recovered(time.monotonic()))
        await self._step(said.conversation, Heard(subjects.COORDINATOR, said, time.monotonic()))

    async def _step(self, task: str, event: participant.Event) -> None:
        if task not in self.states:
            return
        self.states[task], effects = participant.step(self.states[task], event)
        for effect in effects:
            match effect:
                case Tell(_, act):
                    self.counts["acts"] += 1
                    await self.say(act)
                case participant.Estimate():
                    await self._step(task, participant.Estimated(self.cost, time.monotonic()))
                case participant.Perform(award):
                    self._begin(self._perform(task, award))
                case AskLedger(request):
                    self._begin(self._ask(task, request))
                case StartTimer(after_s):
                    asyncio.get_running_loop().call_later(after_s, self._tick, task)
        if isinstance(self.states.get(task), participant.Ended):
            del self.states[task]

    def _tick(self, task: str) -> None:
        if task in self.states:
            self._begin(self._step(task, Tick(time.monotonic())))

    async def _perform(self, task: str, award: Award) -> None:
        self.performed[task, award.epoch] += 1
        await asyncio.sleep(self.work_s)
        await self._step(task, participant.Performed("done" if self.ends == "done" else "failed", time.monotonic()))

    async def ask(self, asked: LedgerAsk, *, as_who: str = "") -> LedgerTold:
        """Ask the ledger."""
        answer = await self.bus.request(
            subjects.task_ledger("gw", as_who or self.name), wire.encode(asked), wire.AS_PROTOBUF, timeout_s=20.0
        )
        return wire.decode(LedgerTold, answer.data)

    async def _ask(self, task: str, request: LedgerRequest) -> None:
        match request:
            case TakeTask(_, epoch, incarnation):
                asked = LedgerAsk(verb="take", task=task, epoch=epoch, incarnation=incarnation)
            case CloseTask(_, epoch, _, status):
                asked = LedgerAsk(verb="close", task=task, epoch=epoch, status=status, reason="played")
            case _:
                asked = LedgerAsk(verb="read", task=task)
        try:
            told = await self.ask(asked)
        except TheirError:
            return  # the protocol asks again
        entry = Entry(
            told.task,
            told.epoch,
            told.status or "failed",
            told.winner,
            incarnation=told.incarnation,  # type: ignore[arg-type]
        )
        await self._step(task, LedgerSaid(LedgerAnswer(entry, told.problem), time.monotonic()))
