"""Agents that take part in conflicts as the real ones do on the wire, played within one process: also naughty ones."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.model.cooperation import Act, Appraisal, Dispute, DisputeTold, Settlement, Worth
from edgeagents.model.message import LeaseReply
from edgeagents.protocol.conversation import act
from edgeagents.protocol.voting import ballot_of
from tests.guarded import agent_file

OPTIONS = ("19", "20", "21", "22")
VALVE = ("valve-1", "Setpoint")


def write_negotiators(folder: Path, names: Mapping[str, str]) -> None:
    """Write agent files that negotiate about each valve's set-point; `names` are agents with their classes."""
    over = [{"for_each": {"n": [str(n) for n in range(1, 10)]}, "device": "valve-{n}", "resource": "Setpoint",
             "minimum": 19, "maximum": 22, "step": 1, "brings": {"warmth": "value"}}]  # fmt: skip
    for name, priority in names.items():
        written = agent_file(name, priority=priority, negotiates={"preferences": "none.yaml", "over": over})
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(written))


@dataclass
class PlayedGuard:
    """Says to the coordinator which of the agents holds what is asked about, as the guard does; `word` it adds."""

    bus: Bus
    agents: "list[Disputant]" = field(default_factory=list)
    word: str = ""

    async def start(self) -> "PlayedGuard":
        """Hear the coordinator."""
        self.subscription = await self.bus.subscribe(subjects.lease("gw", subjects.COORDINATOR), self._on_asked)
        return self

    async def die(self) -> None:
        """Hear nothing any more."""
        await self.subscription.unsubscribe()

    async def _on_asked(self, message: BusMessage) -> None:
        holder = next((agent.name for agent in self.agents if agent.holds), "")
        told = LeaseReply(granted=False, holder=holder, quiet_s=1_000.0 if holder else 0.0, reason=self.word)
        await self.bus.respond(message, wire.encode(told), wire.AS_PROTOBUF)


@dataclass
class Disputant:
    """One agent: what options are worth to it, what it would have, how it answers.

    `answers`: well, silent, nan (as JSON), partly (says nothing of some options), twice, yields.
    """

    bus: Bus
    name: str
    worth: Mapping[str, float]
    way: str
    holds: bool = False
    says_holds: bool = False  # and does not
    answers: str = "well"
    settled: dict[str, Settlement] = field(default_factory=dict)
    settled_s: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> "Disputant":
        """Hear the mediator."""
        subject = subjects.act("gw", self.name, subjects.COORDINATOR)
        self.subscription = await self.bus.subscribe(subject, self._on_act)
        return self

    async def die(self) -> None:
        """Hear nothing any more."""
        await self.subscription.unsubscribe()

    async def file(self, *others: str, key: tuple[str, str] = VALVE, **changes: Any) -> DisputeTold:
        """Ask for a settlement."""
        wanted = {"wanted": self.way, "options": OPTIONS, "others": others, "because": "played", **changes}
        asked = Dispute(device=key[0], resource=key[1], **wanted)
        answer = await self.bus.request(
            subjects.conflict("gw", self.name), wire.encode(asked), wire.AS_PROTOBUF, timeout_s=30.0
        )  # fmt: skip
        return wire.decode(DisputeTold, answer.data)

    async def end_of(self, conflict: str, timeout_s: float = 60.0) -> Settlement:
        """Return how a conflict ended, once it has."""
        async with asyncio.timeout(timeout_s):
            while conflict not in self.settled:
                self.changed.clear()
                await self.changed.wait()
        return self.settled[conflict]

    async def say(self, said: Act, *, as_who: str = "") -> None:
        """Say something to the coordinator."""
        subject = subjects.act("gw", subjects.COORDINATOR, as_who or self.name)
        await self.bus.publish(subject, wire.encode(said), wire.AS_PROTOBUF)

    async def _on_act(self, message: BusMessage) -> None:
        said = wire.decode(Act, message.data)
        if said.settlement is not None:
            self.settled[said.conversation] = said.settlement
            self.settled_s[said.conversation] = time.monotonic()
            self.reasons[said.conversation] = said.reason
            self.changed.set()
        elif said.dispute is not None:
            self.counts["asked"] += 1
            await self._appraise(said.conversation, said.dispute)
        elif said.ballot is not None:
            ballot = ballot_of({option: self.worth[option] for option in said.ballot.ranking}, 0.2, 2)
            await self.say(act("inform", said.conversation, ballot=ballot))
        elif said.performative in ("cfp", "propose"):
            await self.say(act("refuse", said.conversation))

    def _said(self, conflict: str, dispute: Dispute) -> Act:
        worths = [Worth(option=option, utility=self.worth[option]) for option in dispute.options]
        if self.answers == "partly":
            worths = worths[:1]
        return act("inform", conflict, appraisal=Appraisal(
            way=self.way, worths=tuple(worths), disagreement=0.2, holds=self.holds or self.says_holds,
            quiet_s=1_000.0 if self.holds else 0.0, present=self.way if self.holds or self.says_holds else "",
        ))  # fmt: skip

    async def _appraise(self, conflict: str, dispute: Dispute) -> None:
        if self.answers == "silent":
            return
        if self.answers == "yields":
            await self.say(act("refuse", conflict, reason="wants nothing there now"))
            return
        said = self._said(conflict, dispute)
        if self.answers == "nan":
            written = json.loads(wire.encode(said, wire.JSON))
            written["appraisal"]["worths"][0]["utility"] = "NaN"
            subject = subjects.act("gw", subjects.COORDINATOR, self.name)
            await self.bus.publish(subject, json.dumps(written).encode(), {CONTENT_TYPE: wire.JSON})
            return
        await self.say(said)
        if self.answers == "twice":
            await self.say(said)
