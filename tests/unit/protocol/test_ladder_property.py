"""The ladder under any network: it always ends, at one outcome, that nobody loses by, with its reasons."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from edgeagents.model.cooperation import Ballot, Offer
from edgeagents.protocol import ladder, negotiation, negotiator, voting
from edgeagents.protocol.conversation import Begin, Heard, Recovered, act
from edgeagents.protocol.ladder import Dispute, Settled
from edgeagents.protocol.ladder import Party as Side
from edgeagents.protocol.negotiator import Chair, Waiting, taste_of
from edgeagents.protocol.saved import from_bytes
from edgeagents.protocol.voting import ballot_of
from tests.society import Party, Society, classes
from tests.unit.protocol.society_machine import MACHINE_SETTINGS, PATIENT, SocietyMachine

pytestmark = PATIENT
NAME = "t-1"
AGENTS = ("anna", "bert", "carl")
OPTIONS = ("off", "low", "high")
END_S = 12.1  # offers, then the vote
CLASSES = classes(ladder, negotiation, negotiator, voting)
TACTICS: Any = ("boulware", "linear", "conceder", "micro")
LEAST = 0.3


def voter(worth: dict[str, float], tactic: Any = "micro") -> Any:
    """Return how a party answers: with ballots while it is asked for one, else at the table."""
    suits = max(worth.values()) >= LEAST
    taste = taste_of(worth if suits else {"never": 1.0}, LEAST)

    def answer(state: Any, event: Any) -> tuple[Any, list[Any]]:
        if isinstance(event, Heard) and event.act.ballot is not None:
            asked = {option: worth[option] for option in event.act.ballot.ranking}
            ballot = ballot_of(asked, LEAST, len(AGENTS))
            return state, [negotiator.Tell("lead", act("inform", NAME, ballot=ballot))]
        is_asked = isinstance(event, Heard) and event.act.performative in ("cfp", "propose")
        if not suits and is_asked:  # nothing is worth it: it leaves the table
            return negotiator.Ended("", "nothing suits"), [negotiator.Tell("lead", act("refuse", NAME))]
        return negotiator.step(state, event, taste)

    return answer


def dispute_of(
    worths: dict[str, dict[str, float]], *, is_private: bool, known: frozenset[str] = frozenset(), **others: Any
) -> Dispute:
    """Return a dispute; all keep their utilities private or none does, but for those that are known."""
    sides = tuple(
        Side(
            name, "comfort", max(worth, key=lambda option: worth[option]), None,
            None if is_private and name not in known else worth, LEAST,
        )
        for name, worth in worths.items()
    )  # fmt: skip
    return Dispute(NAME, sides, OPTIONS, **others)


def society_of(dispute: Dispute, worths: dict[str, dict[str, float]], tactics: Any = ("micro",) * 3) -> Society:
    """Return a mediator and the parties, started."""
    parties = [Party("lead", ladder.Planned(dispute), ladder.step, CLASSES)]
    for (name, worth), tactic in zip(worths.items(), tactics, strict=True):
        chair = Chair(name, "lead", NAME, tactic, dispute.most_turns, 0.0, END_S, LEAST)
        parties.append(Party(name, Waiting(chair), voter(worth), CLASSES))
    society = Society(parties)
    for name in worths:
        society.start(name, Recovered(0.0))
    society.start("lead", Begin(0.0))
    return society


class LadderMachine(SocietyMachine):
    people = ("lead", *AGENTS)
    own = ("a_member_lies",)
    worths: dict[str, dict[str, float]]
    liar: str | None = None
    outcome: tuple[str, ladder.Rung, tuple[str, ...]] | None = None
    known: frozenset[str] = frozenset()

    @initialize(
        rows=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=3, max_size=3),
        is_private=st.booleans(), known=st.frozensets(st.sampled_from(AGENTS), max_size=2),
        tactics=st.lists(st.sampled_from(TACTICS), min_size=3, max_size=3),
        liar=st.sampled_from([None, None, *AGENTS]), turns=st.sampled_from([1, 200]),
    )  # fmt: skip
    def begin(
        self, rows: list[list[int]], is_private: bool, known: frozenset[str], tactics: list[Any], liar: str | None,
        turns: int,
    ) -> None:  # fmt: skip
        self.worths = {
            name: {option: value / 5 for option, value in zip(OPTIONS, row, strict=True)}
            for name, row in zip(AGENTS, rows, strict=True)
        }
        self.liar, self.outcome, self.known = liar, None, known
        dispute = dispute_of(self.worths, is_private=is_private, known=known, most_turns=turns)
        self.society = society_of(dispute, self.worths, tactics)

    def a_member_lies(self, place: int) -> None:
        if self.liar is None:
            return
        option = OPTIONS[place % 3]
        for said in (
            act("accept-proposal", NAME, offer=Offer(round=place, outcome=option)),
            act("propose", NAME, offer=Offer(round=place // 2, outcome="nowhere" if place == 7 else option)),
            act("inform", NAME, ballot=Ballot(ranking=(option,), vetoed=(OPTIONS[(place + 1) % 3],))),
        ):
            self.world.inject(self.liar, "lead", said)

    def must_hold(self, society: Society) -> None:
        lead = society.parties["lead"]
        # One that crashed before it saved has settled nothing: nobody was told either.
        state = lead.state if lead.is_up else from_bytes(lead.disk, lead.classes)
        if isinstance(state, Settled):
            found = (state.option, state.rung, state.reasons)
            assert self.outcome in (None, found), "one outcome, ever"
            self.outcome = found
            self.nobody_loses(state)

    def nobody_loses(self, state: Settled) -> None:
        assert state.reasons
        if state.rung in ("nash", "offers"):
            for name, worth in self.worths.items():
                assert name == self.liar or worth[state.option] >= LEAST, "individually rational"
        if state.rung == "vote":  # a majority's decision, so not below what is known to be worth too little
            assert state.option in OPTIONS
            for name in self.known:
                assert self.worths[name][state.option] >= LEAST, "individually rational for whom it is known"
        if state.rung == "nash":
            chosen = [worth[state.option] for worth in self.worths.values()]
            for option in OPTIONS:
                row = [worth[option] for worth in self.worths.values()]
                assert row == chosen or any(a < b for a, b in zip(row, chosen, strict=True)), "Pareto-optimal"

    def at_the_end(self, society: Society) -> None:
        society.network = []
        society.advance(END_S)
        for name, party in society.parties.items():
            party.crash_after = None
            assert not party.is_up or isinstance(party.state, (Settled, negotiator.Ended)), name
        for name in society.parties:
            society.restart(name)
        society.advance(END_S)
        assert isinstance(society.parties["lead"].state, Settled)
        society.network = []
        told = [packet.content for packet in society.sent if packet.sender == "lead"]
        for name in AGENTS:
            society.inject(name, "lead", act("inform", NAME))
        society.calm(END_S)
        again = [packet.content for packet in society.sent if packet.sender == "lead"][len(told) :]
        option = society.parties["lead"].state.option
        assert [said.offer.outcome if said.offer else "" for said in again] == [option] * len(AGENTS), (
            "who asks is told"
        )


TestLadder = LadderMachine.TestCase
TestLadder.settings = MACHINE_SETTINGS
