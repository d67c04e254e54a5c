"""Contract net under any network: each ends by its own deadline, one winner at most, no award after its deadline."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from edgeagents.model.cooperation import Award, Bid, CallForProposals
from edgeagents.protocol import contract_net, contract_net_participant, task_ledger
from edgeagents.protocol.contract_net import Begin, Closed, Planned, Terms
from edgeagents.protocol.contract_net_participant import Ended, Estimate, Estimated, Listening, Perform, Setting
from edgeagents.protocol.conversation import Recovered, act
from tests.society import Party, Society, classes
from tests.unit.protocol.society_machine import MACHINE_SETTINGS, PATIENT, SocietyMachine

TASK = "t-1"
AGENTS = ("anna", "bert", "carl")
DEADLINE_S = 20.0


CLASSES = classes(contract_net, contract_net_participant, task_ledger)


def answers(costs: dict[str, float | None]) -> Any:
    """Return what agents do about effects: estimate at once, work until told otherwise."""

    def answer(party: Party, effect: Any, now_s: float) -> Any:
        if isinstance(effect, Estimate):
            return Estimated(costs[party.name], now_s, "" if costs[party.name] is not None else "battery low")
        return None

    return answer


def net(costs: dict[str, float | None], leads_s: dict[str, float] | None = None, **kwargs: Any) -> Society:
    """Return an initiator and its participants, started."""
    leads_s = leads_s or {}
    call = CallForProposals(task=TASK, skill="carry")
    ahead_s = leads_s.get("lead", 0.0)
    terms = Terms(call, tuple(costs), bid_s=1.0, take_s=2.0, deadline_s=DEADLINE_S + ahead_s, reserve=100.0)
    parties = [Party("lead", Planned(terms), contract_net.step, CLASSES, lead_s=ahead_s)]
    for name in costs:
        lead_s = leads_s.get(name, 0.0)
        setting = Setting(name, "lead", TASK, DEADLINE_S + lead_s, f"{name}-1")
        state = Listening(setting)
        parties.append(Party(name, state, contract_net_participant.step, CLASSES, answers(costs), lead_s))
    society = Society(parties, **kwargs)
    for name in costs:
        society.start(name, Recovered(leads_s.get(name, 0.0)))
    society.start("lead", Begin(ahead_s))
    return society


def performers(society: Society) -> set[str]:
    return {name for name, party in society.parties.items() if any(isinstance(did, Perform) for did in party.done)}


pytestmark = PATIENT


class ContractNetMachine(SocietyMachine):
    people = ("lead", *AGENTS)
    own = ("somebody_is_done", "a_member_lies")

    @initialize(
        costs=st.lists(st.sampled_from([None, 1.0, 1.0, 2.5, 99.0, 1000.0]), min_size=3, max_size=3),
        leads_s=st.lists(st.sampled_from([0.0, -1000.0, 5e5]), min_size=4, max_size=4),
    )
    def begin(self, costs: list[float | None], leads_s: list[float]) -> None:
        self.society = net(dict(zip(AGENTS, costs, strict=True)), dict(zip(self.people, leads_s, strict=True)))

    def somebody_is_done(self, place: int) -> None:
        party = self.world.parties[AGENTS[place % 3]]
        if party.is_up and isinstance(party.state, contract_net_participant.Performing):
            self.world.feed(party, contract_net_participant.Performed("done", self.world.now_s + party.lead_s))

    def a_member_lies(self, place: int) -> None:
        sender, epoch = AGENTS[place % 3], place // 3
        for said in (
            act("propose", TASK, bid=Bid(cost=float(place), epoch=epoch)),
            act("inform", TASK, award=Award(task=TASK, epoch=epoch)),
            act("accept-proposal", TASK, award=Award(task=TASK, epoch=epoch)),
        ):
            self.world.inject(sender, "lead", said)
            self.world.inject(sender, AGENTS[(place + 1) % 3], said)

    def must_hold(self, society: Society) -> None:
        assert len(society.taken) <= 1, "one winner at most"
        assert all(at_s <= until_s for _, _, at_s, until_s in society.taken), "no award after its deadline"
        assert performers(society) <= {agent for _, agent, _, _ in society.taken}

    def at_the_end(self, society: Society) -> None:
        # Those that live end by their own timers, without a word from anybody.
        society.network = []
        society.advance(DEADLINE_S + 1.0)
        for party in society.parties.values():
            assert not party.is_up or isinstance(party.state, (Closed, Ended)), (party.name, party.state)
        for name, party in society.parties.items():
            party.crash_after = None
            society.restart(name)
        society.calm(society.now_s + 1.0)
        assert all(isinstance(party.state, (Closed, Ended)) for party in society.parties.values())
        lead, entry = society.parties["lead"].state, society.ledger.of(TASK)
        assert isinstance(lead, Closed)
        assert lead.reasons
        if lead.status in ("done", "failed"):
            assert (lead.status, lead.winner) == (entry.status, entry.winner), "an end is the ledger's end"
        elif lead.status == "unplaced" and lead.asked is None:
            assert (entry.status, entry.winner) == ("failed", "")
        # A winner that lives says at its end what the ledger says, unless it never heard its answer.
        for party in society.parties.values():
            if isinstance(party.state, Ended) and any("the ledger has it" in text for text in party.state.reasons):
                assert party.state.status == entry.status


TestContractNet = ContractNetMachine.TestCase
TestContractNet.settings = MACHINE_SETTINGS
