"""An agent leads over a network that loses, doubles and reorders, among agents that die: one winner at most.

So may the leader: it knows nothing more then, and the same names are given again, to tasks of another value.

Leader and participants are the real ones, without a bus; each word goes through the wire's own messages.
"""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.adapters import wire
from edgeagents.errors import NotFoundError
from edgeagents.model.cooperation import Act, Announcement, CallForProposals, LedgerAsk, LedgerTold
from edgeagents.model.message import Message
from edgeagents.protocol import contract_net_participant as participant
from edgeagents.protocol.contract_net import AskLedger, LedgerSaid
from edgeagents.protocol.conversation import Heard, Tell, Tick, act
from edgeagents.protocol.ledger_words import answer_of, asked_of, request_of, told_of
from tests.unit.services.agent.test_leading import WANTED, Rig

STEP_S = 0.25
DEADLINE_S = 8.0
TASKS = ("t-0", "t-1", "t-2")
NAMES = ("ada", "bob", "eve")


class Member:
    """One agent; `die` loses all that it knew, and makes the next run of it another copy."""

    def __init__(self, world: "World", name: str, cost: float) -> None:
        self.world, self.name, self.cost = world, name, cost
        self.run, self.is_up = 0, True
        self.states: dict[str, participant.State] = {}
        self.calls: dict[str, CallForProposals] = {}
        self.work: list[tuple[float, str]] = []

    @property
    def incarnation(self) -> str:
        """This run's name."""
        return f"{self.name}-{self.run}"

    def die(self) -> None:
        """Be gone at once."""
        self.is_up, self.states, self.work, self.run = False, {}, [], self.run + 1

    def hear(self, said: Message) -> None:
        """Take in a leader's word."""
        now_s = self.world.rig.now_s
        if isinstance(said, LedgerTold):
            self.step(said.task, LedgerSaid(answer_of(said, "ada"), now_s))
            return
        assert isinstance(said, Act)
        if said.call is not None:
            known = self.states.get(said.conversation)
            again = participant.called_again(known, said.call) if known is not None else "anew"
            if again == "busy":
                self.world.send(self.name, "", act("refuse", said.conversation, reason="a former one is under way"))
                return
            if again == "anew":
                setting = participant.Setting(
                    self.name, "ada", said.conversation, now_s + said.call.left_s, self.incarnation,
                    said.call.accepted_unix_ns,
                )  # fmt: skip
                self.states[said.conversation] = participant.Listening(setting)
        self.step(said.conversation, Heard("ada", said, now_s))

    def pass_time(self) -> None:
        """Let timers fire, and work that is over be reported."""
        now_s = self.world.rig.now_s
        for at_s, task in [item for item in self.work if item[0] <= now_s]:
            self.work.remove((at_s, task))
            self.step(task, participant.Performed("done", now_s))
        for task in list(self.states):
            self.step(task, Tick(now_s))

    def step(self, task: str, event: participant.Event) -> None:
        """Run one step, as the agent's shell does."""
        if task not in self.states:
            return
        self.states[task], effects = participant.step(self.states[task], event)
        for effect in effects:
            match effect:
                case Tell(_, said):
                    self.world.send(self.name, "", said)
                case participant.Estimate(call):
                    self.calls[task] = call
                    self.step(task, participant.Estimated(self.cost, self.world.rig.now_s))
                case AskLedger(request):
                    self.world.send(self.name, "", asked_of(request, "played"))
                case participant.Perform(award):
                    self.world.performed[task, self.incarnation] += 1
                    self.world.commanded.append((self.name, task, award.epoch, self.calls[task].value))
                    self.work.append((self.world.rig.now_s + self.world.chance.uniform(0.0, 2.0), task))
                case _:
                    pass
        if isinstance(self.states.get(task), participant.Ended | participant.Listening):
            del self.states[task]


class World:
    """Ada leads; all words lie on the network until they are delivered, twice, or never."""

    def __init__(self, seed: int, loss: float) -> None:
        self.chance, self.loss = random.Random(seed), loss  # a test's dice
        self.rig = Rig()
        self.rig.leading.send = lambda tell: self.send("", tell.to, tell.act)
        self.commanded: list[tuple[str, str, int, str]] = []  # who, task, epoch, value
        self.members = {name: Member(self, name, float(at)) for at, name in enumerate(NAMES)}
        self.network: list[tuple[str, str, type[Message], bytes]] = []
        self.performed: Counter[tuple[str, str]] = Counter()

    def send(self, sender: str, to: str, said: Message) -> None:
        """Put a word on its way; to the leader where nobody is named."""
        self.network.append((sender, to, type(said), wire.encode(said)))

    def deliver(self) -> None:
        """Let what is on its way arrive, in any order; some of it gets lost, comes twice, or later."""
        there, self.network = self.network, []
        self.chance.shuffle(there)
        for sender, to, kind, data in there:
            dice = self.chance.random()
            if dice < self.loss:
                continue
            if dice < 1.5 * self.loss:
                self.network.append((sender, to, kind, data))
            if dice < 2 * self.loss and dice >= 1.5 * self.loss:
                self.network.append((sender, to, kind, data))
                continue
            said = wire.decode(kind, data)
            if to:
                if self.members[to].is_up:
                    self.members[to].hear(said)
            elif isinstance(said, LedgerAsk):
                self._ask(sender, said)
            elif isinstance(said, Act):
                self.rig.leading.heard(sender, said)

    def _ask(self, sender: str, asked: LedgerAsk) -> None:
        try:
            told = told_of(self.rig.leading.asked(sender, asked.task, request_of(asked, sender), asked.reason))
        except NotFoundError as error:
            told = LedgerTold(task=asked.task, problem=str(error))
        self.send("", sender, told)

    def restart_leader(self) -> None:
        """Have the leader know nothing; a broker brings nothing to it, or of it, that is older than its connection."""
        now_s, self.rig, self.network = self.rig.now_s, Rig(), []
        self.rig.now_s = now_s
        self.rig.leading.look()  # its first look: from here on time passes for it
        self.rig.leading.send = lambda tell: self.send("", tell.to, tell.act)

    def pass_time(self) -> None:
        """Let a step of time pass: announcements, deaths and returns, timers."""
        self.rig.now_s += STEP_S
        for member in self.members.values():
            if self.chance.random() < 0.01:
                member.die()
            elif not member.is_up and self.chance.random() < 0.1:
                member.is_up = True
            if member.is_up:
                said = Announcement(incarnation=member.incarnation, skills=("set",), hears_peers=True)
                self.rig.leading.announced(member.name, said, wire.PROTOBUF)
                member.pass_time()
        self.rig.leading.look()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.floats(0.0, 0.4))
async def test_whatever_the_network_does_each_task_ends_in_its_time_and_is_done_once_at_most(
    seed: int, loss: float
) -> None:
    world = World(seed, loss)
    for task in TASKS:
        await world.rig.leading.submit(WANTED.model_copy(update={"id": task, "deadline_s": DEADLINE_S}), "http")
    for _ in range(int((DEADLINE_S + 1.0) / STEP_S)):
        world.deliver()
        world.pass_time()
    assert world.rig.leading.book.open == {}
    for task in TASKS:
        record = world.rig.leading.record(task)
        runs = {run: count for (name, run), count in world.performed.items() if name == task}
        assert len(runs) <= 1, runs
        assert set(runs.values()) <= {1}
        assert record.state in ("done", "failed")
        assert record.reason
        if record.state == "done":
            assert set(runs) == {record.entry.incarnation}
        ends = [note for note in world.rig.notes if note["kind"] == "task" and note["task"] == task]
        assert len(ends) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.floats(0.0, 0.4), lived=st.integers(0, 12))
async def test_a_leader_that_is_started_again_and_gives_the_names_anew_has_the_new_values_set(
    seed: int, loss: float, lived: int
) -> None:
    world = World(seed, loss)
    for value in ("21", "25"):
        former = len(world.commanded)
        for task in TASKS:
            wanted = WANTED.model_copy(update={"id": task, "value": value, "deadline_s": DEADLINE_S})
            await world.rig.leading.submit(wanted, "http")
        for _ in range(lived if value == "21" else int((DEADLINE_S + 1.0) / STEP_S)):
            world.deliver()
            world.pass_time()
        if value == "21":
            world.restart_leader()
    for task in TASKS:
        record = world.rig.leading.record(task)
        values = {at[3] for at in world.commanded[former:] if at[1] == task}
        assert values <= {"25"}, world.commanded
        if record.state == "done":
            assert values == {"25"}


async def test_on_a_network_that_works_all_are_done() -> None:
    world = World(1, 0.0)
    world.chance.random = lambda: 0.5  # type: ignore[method-assign]  # nobody dies, nothing is lost
    for task in TASKS:
        await world.rig.leading.submit(WANTED.model_copy(update={"id": task, "deadline_s": DEADLINE_S}), "http")
    for _ in range(int(DEADLINE_S / STEP_S)):
        world.deliver()
        world.pass_time()
    assert [world.rig.leading.record(task).state for task in TASKS] == ["done"] * 3
    assert {run for _, run in world.performed} == {"ada-0"}
