"""Peers without a coordinator under any network: two never own one task, and each ends by its own deadline."""

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from edgeagents.model.cooperation import Claim, Claims, PeerVote
from edgeagents.protocol import bundles
from edgeagents.protocol.bundles import Batch, Ended, Planned, Score, with_score
from edgeagents.protocol.conversation import Begin, act
from tests.society import Party, Society, classes
from tests.unit.protocol.society_machine import MACHINE_SETTINGS, PATIENT, SocietyMachine

BATCH = "t-1"
PEERS = ("anna", "bert", "carl")
TASKS = ("t0", "t1", "t2")
END_S = 9.0
CLASSES = classes(bundles)


def peers_with(scores: dict[str, Score], tasks: tuple[str, ...] = TASKS, capacity: int = 2) -> Society:
    """Return peers that share tasks out, started."""
    parties = []
    for name, score in scores.items():
        batch = Batch(BATCH, name, tuple(scores), tasks, capacity, 1.0, 4.0, 6.0, END_S)
        parties.append(Party(name, Planned(batch), with_score(score), CLASSES))
    society = Society(parties)
    for name in scores:
        society.start(name, Begin(0.0))
    return society


def owners(society: Society) -> list[tuple[str, str]]:
    """Return which peer has which task in the end."""
    return [(task, p.name) for p in society.parties.values() if isinstance(p.state, Ended) for task in p.state.mine]


pytestmark = PATIENT


class BundlesMachine(SocietyMachine):
    people = PEERS
    own = ("a_member_lies",)
    liar: str | None = None

    @initialize(
        scores=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=3, max_size=3),
        liar=st.sampled_from([None, None, *PEERS]),
    )
    def begin(self, scores: list[list[int]], liar: str | None) -> None:
        self.liar = liar
        tables = {peer: dict(zip(TASKS, map(float, row), strict=True)) for peer, row in zip(PEERS, scores, strict=True)}
        self.society = peers_with({peer: lambda own, task, t=table: t[task] for peer, table in tables.items()})

    def a_member_lies(self, place: int) -> None:
        """One peer says to everybody what suits it, out of turn, again and again; it tells all the same."""
        if self.liar is None:
            return
        claims = Claims(
            number=place + 1, phase=("bidding", "final", "voting")[place % 3],
            claims=(Claim(task=TASKS[place % 3], score=1e9),),
            votes=tuple(PeerVote(task=task, peer=PEERS[place % 3]) for task in TASKS),
        )  # fmt: skip
        said = act("inform", BATCH, claims=claims)
        for peer in PEERS:
            self.world.inject(self.liar, peer, said)

    def must_hold(self, society: Society) -> None:
        honest = [task for task, peer in owners(society) if peer != self.liar]
        assert len(honest) == len(set(honest)), "one owner at most"

    def at_the_end(self, society: Society) -> None:
        for party in society.parties.values():
            party.crash_after = None
        society.advance(END_S + 1.0)
        for party in society.parties.values():
            assert not party.is_up or isinstance(party.state, Ended), (party.name, party.state)
        for name in society.parties:
            society.restart(name)
        assert all(isinstance(party.state, Ended) for party in society.parties.values())


TestBundles = BundlesMachine.TestCase
TestBundles.settings = MACHINE_SETTINGS
