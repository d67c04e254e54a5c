"""A society of parties under any network: acts are lost, doubled, reordered and late; parties crash and come back.

Every state goes through bytes after every step. What a party has on disk is what it saved last; a crash may come
between any two effects of a step. The ledger is one that is only reached over the same network.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeagents.adapters import wire
from edgeagents.model import cooperation
from edgeagents.model.cooperation import Act
from edgeagents.protocol import task_ledger
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import Heard, Recovered, Refuse, Save, Tell, Tick
from edgeagents.protocol.effects import StartTimer
from edgeagents.protocol.saved import by_name, from_bytes, to_bytes
from edgeagents.protocol.task_ledger import AcceptTask

MESSAGES = [cls for cls in vars(cooperation).values() if isinstance(cls, type) and issubclass(cls, cooperation.Message)]
LEDGER = "ledger"
LEADER = "lead"  # who leads all tasks
ACCEPTED_S = 3600.0
Answers = Callable[["Party", Any, float], Any]


def classes(*modules: Any) -> dict[str, type]:
    """Return every class that a state of these modules may hold, by name."""
    found = [cls for module in modules for cls in vars(module).values() if isinstance(cls, type)]
    return by_name([*found, *MESSAGES])


@dataclass
class Party:
    """One agent: its protocol, its state, what it has on disk, and its clock's lead over the ledger's."""

    name: str
    state: Any
    step: Callable[[Any, Any], tuple[Any, Sequence[Any]]]
    classes: dict[str, type]
    answers: Answers = lambda party, effect, now_s: None
    lead_s: float = 0.0
    is_up: bool = True
    crash_after: int | None = None  # so many effects of the next step
    disk: bytes = b""
    timers: list[float] = field(default_factory=list)
    done: list[Any] = field(default_factory=list)  # effects that touch the world

    def __post_init__(self) -> None:
        self.disk = to_bytes(self.state)


@dataclass
class Packet:
    """What is on its way."""

    sender: str
    to: str
    content: Any


class Society:
    """All parties, the network and the ledger; moves are made one at a time."""

    def __init__(
        self, parties: Iterable[Party], seen: Callable[[str, Any, Any, Any, Sequence[Any]], None] | None = None
    ):
        self.parties = {party.name: party for party in parties}
        self.network: list[Packet] = []
        self.now_s = 0.0
        self.ledger = task_ledger.TaskLedger()
        self.taken: list[tuple[str, str, float, float]] = []  # task, agent, when, until
        self.refusals: Counter[str] = Counter()
        self.sent: list[Packet] = []
        self.seen = seen

    # --- moves -------------------------------------------------------------------------------------

    def start(self, name: str, event: Any) -> None:
        self.feed(self.parties[name], event)

    def deliver(self, place: int, *, keep: bool = False) -> None:
        """Let what is on its way at a place arrive; `keep` leaves a copy behind."""
        if not self.network:
            return
        place %= len(self.network)
        packet = self.network[place]
        if not keep:
            del self.network[place]
        if packet.to == LEDGER:
            self._ask(packet)
        elif packet.to in self.parties and self.parties[packet.to].is_up:
            party = self.parties[packet.to]
            now_s = self.now_s + party.lead_s
            if isinstance(packet.content, Act):
                # Over the wire and back, as it would be.
                said = wire.decode(Act, wire.encode(packet.content))
                self.feed(party, Heard(packet.sender, said, now_s))
            else:
                self.feed(party, LedgerSaid(packet.content, now_s))

    def drop(self, place: int) -> None:
        if self.network:
            del self.network[place % len(self.network)]

    def advance(self, by_s: float) -> None:
        """Let time pass, timer by timer."""
        end_s = self.now_s + by_s
        while True:
            due = [
                (at, name) for name, party in self.parties.items() if party.is_up for at in party.timers if at <= end_s
            ]
            if not due:
                break
            at, name = min(due)
            self.now_s = max(self.now_s, at)
            self.parties[name].timers.remove(at)
            self.feed(self.parties[name], Tick(self.now_s + self.parties[name].lead_s))
        self.now_s = end_s

    def crash(self, name: str) -> None:
        party = self.parties[name]
        party.is_up, party.timers, party.crash_after = False, [], None

    def restart(self, name: str) -> None:
        """Start a party again, from its disk alone."""
        party = self.parties[name]
        if not party.is_up:
            party.is_up, party.state = True, from_bytes(party.disk, party.classes)
            self.feed(party, Recovered(self.now_s + party.lead_s))

    def inject(self, sender: str, to: str, said: Act) -> None:
        """Put an act on its way: the bus has proven who sends it."""
        self.network.append(Packet(sender, to, said))

    def calm(self, until_s: float, most: int = 20_000) -> None:
        """Let the network work, everything in order, until a time; then all timers have run out."""
        for _ in range(most):
            if self.network:
                self.deliver(0)
                continue
            due = [at for party in self.parties.values() if party.is_up for at in party.timers]
            if not due or min(due) > until_s:
                break
            self.advance(max(0.0, min(due) - self.now_s))
        else:
            raise AssertionError("it goes on and on")
        self.advance(max(0.0, until_s - self.now_s))

    # --- inside --------------------------------------------------------------------------------------

    def feed(self, party: Party, event: Any) -> None:
        """Run one step of a party, and carry its effects out."""
        events = [event]
        while events and party.is_up:
            event = events.pop(0)
            before = party.state
            state, effects = party.step(before, event)
            if state is not before:
                party.state = from_bytes(to_bytes(state), party.classes)
                assert party.state == state, "a state must survive being written down"
            if self.seen is not None:
                self.seen(party.name, before, event, state, effects)
            for count, effect in enumerate(effects):
                if party.crash_after is not None and count >= party.crash_after:
                    self.crash(party.name)
                    return
                following = self._carry_out(party, effect)
                if following is not None:
                    events.append(following)
            if party.crash_after is not None:
                self.crash(party.name)

    def _carry_out(self, party: Party, effect: Any) -> Any:
        match effect:
            case Save():
                party.disk = to_bytes(party.state)
            case Tell(to, said):
                packet = Packet(party.name, to, said)
                self.network.append(packet)
                self.sent.append(packet)
            case AskLedger(request):
                self.network.append(Packet(party.name, LEDGER, request))
            case StartTimer(after_s):
                party.timers.append(self.now_s + max(0.0, after_s))
            case Refuse(cause=cause):
                self.refusals[cause] += 1
            case _:
                party.done.append(effect)
                return party.answers(party, effect, self.now_s + party.lead_s)
        return None

    def _ask(self, packet: Packet) -> None:
        task = packet.content.task
        if task not in self.ledger.entries:
            # Its gateway took it in before anybody was asked.
            self.ledger, _ = task_ledger.step(self.ledger, AcceptTask(task, ACCEPTED_S), self.now_s, LEADER)
        before = self.ledger.of(task)
        self.ledger, answer = task_ledger.step(self.ledger, packet.content, self.now_s, packet.sender)
        if answer.entry.status == "taken" and before.status != "taken":
            self.taken.append((before.task, answer.entry.winner, self.now_s, answer.entry.until_s))
        self.network.append(Packet(LEDGER, packet.sender, answer))
