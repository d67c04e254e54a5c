"""The auction of a batch under any network: it ends by its deadline, each task has one owner at most."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from edgeagents.model.cooperation import Award, BundleCost, Quote
from edgeagents.protocol import auction, auction_bidder, task_ledger
from edgeagents.protocol.auction import Allotted, Lot, Planned
from edgeagents.protocol.auction_bidder import CostBundles, Costed, Ended, Member, Perform, Performed, Setting, quoted
from edgeagents.protocol.conversation import Begin, Recovered, act
from edgeagents.protocol.plans import INFEASIBLE
from tests.society import Party, Society, classes
from tests.unit.protocol.society_machine import MACHINE_SETTINGS, PATIENT, SocietyMachine

BATCH = "t-1"
AGENTS = ("anna", "bert", "carl")
DEADLINE_S = 30.0
CLASSES = classes(auction, auction_bidder, task_ledger)
Places = dict[str, float]


def line_cost(start: float, places: Places, tasks: tuple[str, ...], most: int = 99) -> float:
    """Return how far one drives along a line to see all places of some tasks; infinite for more than it can carry."""
    if len(tasks) > most:
        return INFEASIBLE
    at = [places[task] for task in tasks]
    low, high = min([start, *at]), max([start, *at])
    return (high - low) + min(start - low, high - start)


def auction_of(
    starts: Places, places: Places, objective: Any = "sum", most: int = 99, *, works: bool = True
) -> Society:
    """Return an auctioneer and its bidders on a line, started; `works`: what is taken is done at once."""

    def answer(party: Party, effect: Any, now_s: float) -> Any:
        if isinstance(effect, CostBundles):
            return Costed(quoted(effect.inquiry, lambda tasks: line_cost(starts[party.name], places, tasks, most)))
        if isinstance(effect, Perform) and works:
            return Performed(effect.award.task, "done")
        return None

    lot = Lot(BATCH, dict.fromkeys(places, 0), tuple(starts), objective, 1.0, 2.0, DEADLINE_S)
    parties = [Party("lead", Planned(lot), auction.step, CLASSES)]
    for name in starts:
        setting = Setting(name, "lead", BATCH, DEADLINE_S, f"{name}-1")
        parties.append(Party(name, Member(setting), auction_bidder.step, CLASSES, answer))
    society = Society(parties)
    for name in starts:
        society.start(name, Recovered(0.0))
    society.start("lead", Begin(0.0))
    return society


def performed(society: Society) -> set[tuple[str, str]]:
    """Return who began to do which task."""
    return {
        (name, did.award.task)
        for name, party in society.parties.items()
        for did in party.done
        if isinstance(did, Perform)
    }


pytestmark = PATIENT


class AuctionMachine(SocietyMachine):
    people = ("lead", *AGENTS)
    own = ("somebody_is_done", "a_member_lies")

    @initialize(
        places=st.lists(st.integers(0, 20), min_size=1, max_size=3),
        starts=st.lists(st.integers(0, 20), min_size=3, max_size=3),
        objective=st.sampled_from(["sum", "makespan"]),
    )
    def begin(self, places: list[int], starts: list[int], objective: str) -> None:
        names = {f"t{number}": float(place) for number, place in enumerate(places)}
        self.society = auction_of(dict(zip(AGENTS, map(float, starts), strict=True)), names, objective, works=False)

    def somebody_is_done(self, place: int) -> None:
        party = self.world.parties[AGENTS[place % 3]]
        for task in ("t0", "t1", "t2") if party.is_up else ():
            self.world.feed(party, auction_bidder.Performed(task, "done"))

    def a_member_lies(self, place: int) -> None:
        sender, task = AGENTS[place % 3], f"t{place % 2}"
        cost = BundleCost(tasks=(task,), cost=0.0)
        for said in (
            act("propose", BATCH, quote=Quote(round=1 + place % 2, costs=(cost, cost))),
            act("inform", BATCH, award=Award(task=task, epoch=1)),
            act("accept-proposal", BATCH, award=Award(task=task, epoch=1)),
        ):
            self.world.inject(sender, "lead", said)
            self.world.inject(sender, AGENTS[(place + 1) % 3], said)

    def must_hold(self, society: Society) -> None:
        tasks = [task for task, _, _, _ in society.taken]
        assert len(tasks) == len(set(tasks)), "one winner at most"
        assert all(at_s <= until_s for _, _, at_s, until_s in society.taken), "no award after its deadline"
        assert performed(society) <= {(agent, task) for task, agent, _, _ in society.taken}

    def at_the_end(self, society: Society) -> None:
        society.network = []
        society.advance(DEADLINE_S + 1.0)
        for party in society.parties.values():
            assert not party.is_up or isinstance(party.state, (Allotted, Ended)), (party.name, party.state)
        for name, party in society.parties.items():
            party.crash_after = None
            society.restart(name)
        society.calm(society.now_s + 1.0)
        lead = society.parties["lead"].state
        assert isinstance(lead, Allotted), lead
        placed = [task for tasks in lead.plan.values() for task in tasks]
        assert not set(placed) & set(lead.unplaced)
        assert set(lead.undone) <= set(placed)
        for agent, tasks in lead.plan.items():
            assert {(task, agent) for task in tasks} <= {(task, who) for task, who, _, _ in society.taken}


TestAuction = AuctionMachine.TestCase
TestAuction.settings = MACHINE_SETTINGS
