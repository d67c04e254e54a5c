"""State diagrams of the protocols, drawn from the code: what it was seen to do in thousands of seeded histories.

    make diagrams                      writes them into docs/protocols.md
    python -m tests.diagrams --check   says whether they are current

A transition stands in a diagram because the code made it, with the event that caused it.
"""

import argparse
import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from edgeagents.model.cooperation import CallForProposals
from edgeagents.protocol import auction, bundles, contract_net, ladder, negotiation, task_ledger, voting
from edgeagents.protocol.conversation import Begin, Recovered, Tell
from edgeagents.protocol.negotiation import Table
from edgeagents.protocol.saved import to_bytes
from tests.society import Packet, Society
from tests.unit.protocol.society_machine import SocietyMachine
from tests.unit.protocol.test_auction_property import AuctionMachine, auction_of
from tests.unit.protocol.test_bundles_property import PEERS, TASKS, BundlesMachine, peers_with
from tests.unit.protocol.test_contract_net_property import AGENTS, ContractNetMachine, net
from tests.unit.protocol.test_ladder_property import OPTIONS, LadderMachine, dispute_of, society_of

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "protocols.md"
HISTORIES: Final = 200
MOVES: Final = 60
Edges = dict[tuple[str, str], set[str]]
Seen = Callable[[str, Any, Any, Any, Any], None]


def _protocol(module: str) -> str:
    """Return the protocol that a module's states belong to: its own, but for the second half of the auction."""
    return "auction" if module == "auction_awards" else module


class Watcher:
    """Notes every transition of every protocol, by the module of the state."""

    def __init__(self) -> None:
        self.edges: dict[str, Edges] = defaultdict(lambda: defaultdict(set))

    def note(self, before: Any, event: Any, after: Any) -> None:
        """Note one transition, and those of protocols within."""
        self._note(before, event, after)
        for name in ("table", "poll"):
            inner, later = getattr(before, name, None), getattr(after, name, None)
            if inner is not None and later is not None:
                self._note(inner, event, later)

    def _note(self, before: Any, event: Any, after: Any) -> None:
        module, later = (_protocol(type(state).__module__.rpartition(".")[2]) for state in (before, after))
        if module == later and type(before) is not type(after):
            word = getattr(getattr(event, "act", None), "performative", None)
            self.edges[module][type(before).__name__, type(after).__name__].add(word or type(event).__name__)

    def seen(self, name: str, before: Any, event: Any, after: Any, effects: Any) -> None:
        """Note what a party of a society did."""
        self.note(before, event, after)


def histories(watcher: Watcher) -> None:
    """Let societies live through many random histories, the same ones every time."""
    for seed in range(HISTORIES):
        random_ = random.Random(seed)
        for machine, society in worlds(random_):
            society.seen = watcher.seen
            for _ in range(MOVES):
                kinds = (*machine.kinds, *machine.own * 3)
                getattr(machine, random_.choice(kinds))(random_.randrange(8))
            society.advance(40.0)


def worlds(random_: random.Random) -> Iterable[tuple[SocietyMachine, Society]]:
    """Yield a machine with its society for each protocol."""
    costs = {name: random_.choice([None, 1.0, 2.0, 1000.0]) for name in AGENTS}
    contract = ContractNetMachine()
    contract.society = net(costs)
    yield contract, contract.society
    batch = AuctionMachine()
    starts = {name: float(random_.randrange(20)) for name in AGENTS}
    batch.society = auction_of(starts, {"t0": 3.0, "t1": 15.0}, random_.choice(["sum", "makespan"]))
    yield batch, batch.society
    peers = BundlesMachine()
    tables = {peer: {task: float(random_.randrange(5)) for task in TASKS} for peer in PEERS}
    peers.society = peers_with({peer: (lambda own, task, t=t: t[task]) for peer, t in tables.items()})  # type: ignore[misc]
    yield peers, peers.society
    rungs = LadderMachine()
    rungs.worths = {name: {option: random_.randrange(6) / 5 for option in OPTIONS} for name in AGENTS}
    rungs.society = society_of(dispute_of(rungs.worths, is_private=True), rungs.worths)
    yield rungs, rungs.society
    alone = LadderMachine()
    alone.worths, options = rungs.worths, frozenset(OPTIONS)
    alone.society = society_of(dispute_of(rungs.worths, is_private=True), rungs.worths)
    lead = alone.society.parties["lead"]
    if random_.random() < 0.5:
        table = Table("t-1", AGENTS, options, 1.0, 20, 20.0)
        lead.state, lead.step = (
            negotiation.step(negotiation.Planned(table), Begin(0.0))[0],
            negotiation.step,
        )
    else:
        poll = voting.Poll("t-1", OPTIONS, AGENTS, 20.0)
        lead.state, effects = voting.step(voting.Planned(poll), Begin(0.0))
        lead.step = voting.step
        alone.society.network = [Packet("lead", tell.to, tell.act) for tell in effects if isinstance(tell, Tell)]
    lead.disk = to_bytes(lead.state)
    yield alone, alone.society
    able = ContractNetMachine()  # all could do it: so one that bid is called again when another lets it pass
    able.society = net({name: 1.0 + place for place, name in enumerate(AGENTS)})
    yield able, able.society


def ledger_edges(watcher: Watcher) -> None:
    """Note what the ledger of tasks does: its states are words, its events requests."""
    requests = [
        ("lead", task_ledger.AwardTask("t", 0, "anna", 5.0)), ("lead", task_ledger.AwardTask("t", 1, "bert", 20.0)),
        ("anna", task_ledger.TakeTask("t", 1, "i-1")), ("bert", task_ledger.TakeTask("t", 2, "i-2")),
        ("lead", task_ledger.ReopenTask("t", 1)), ("anna", task_ledger.CloseTask("t", 1, "anna", "done")),
        ("lead", task_ledger.CloseTask("t", 1, "", "failed")), ("lead", task_ledger.AwardTask("t", 2, "bert", 20.0)),
        ("anna", task_ledger.CloseTask("t", 1, "anna", "failed")), (task_ledger.OWNER, task_ledger.CancelTask("t")),
        ("lead", task_ledger.CloseTask("t", 0, "", "failed")),
    ]  # fmt: skip
    for seed in range(HISTORIES):
        random_, now_s = random.Random(seed), 0.0
        ledger, _ = task_ledger.step(task_ledger.TaskLedger(), task_ledger.AcceptTask("t", 1000.0), now_s, "lead")
        for _ in range(12):
            now_s += random_.choice([0.0, 1.0, 6.0])
            sender, request = random_.choice(requests)
            before = ledger.of("t").status
            ledger, _ = task_ledger.step(ledger, request, now_s, sender)
            if ledger.of("t").status != before:
                watcher.edges["task_ledger"][before, ledger.of("t").status].add(type(request).__name__)


def begin_edges(watcher: Watcher) -> None:
    """Note the first steps, which a society has taken before it is watched."""
    call = CallForProposals(task="t", skill="s")
    for now_s in (0.0, 99.0):  # in time, and too late
        for module, first in (
            (contract_net, contract_net.Planned(contract_net.Terms(call, ("a",), 1.0, 1.0, 9.0))),
            (auction, auction.Planned(auction.Lot("t", {"t": 0}, ("a",), "sum", 1.0, 1.0, 9.0))),
            (negotiation, negotiation.Planned(Table("t", ("a", "b"), frozenset("o"), 1.0, 9, 9.0))),
            (voting, voting.Planned(voting.Poll("t", ("o",), ("a",), 9.0))),
        ):
            for begin in (module.Begin(now_s), Recovered(now_s)):  # type: ignore[attr-defined]
                watcher.note(first, begin, module.step(first, begin)[0])  # type: ignore[attr-defined]
        peers = bundles.Planned(bundles.Batch("t", "a", ("a",), ("t",), 1, 1.0, 4.0, 6.0, 9.0))
        watcher.note(peers, Begin(now_s), bundles.step(peers, Begin(now_s), lambda own, task: 1.0)[0])
    worths = {"a": {"off": 1.0, "low": 0.0, "high": 0.0}, "b": {"off": 0.0, "low": 1.0, "high": 0.0}}
    for is_private in (False, True):
        dispute = ladder.Planned(dispute_of(worths, is_private=is_private))
        watcher.note(dispute, Begin(0.0), ladder.step(dispute, Begin(0.0))[0])


def drawn() -> dict[str, str]:
    """Return a mermaid diagram for each protocol."""
    watcher = Watcher()
    histories(watcher)
    ledger_edges(watcher)
    begin_edges(watcher)
    return {module: mermaid(edges) for module, edges in sorted(watcher.edges.items())}


def mermaid(edges: Edges) -> str:
    """Return one diagram."""
    lines = ["stateDiagram-v2"]
    targets = {after for _, after in edges}
    sources = {before for before, _ in edges}
    lines += [f"    [*] --> {name}" for name in sorted(sources - targets)]
    for (before, after), events in sorted(edges.items()):
        lines.append(f"    {before} --> {after}: {', '.join(sorted(events))}")
    lines += [f"    {name} --> [*]" for name in sorted(targets - sources)]
    return "\n".join(lines)


def replaced(page: str, diagrams: dict[str, str]) -> str:
    """Return the page with its diagrams as they should be; each stands behind a comment with its module's name."""
    for module, diagram in diagrams.items():
        pattern = re.compile(rf"(<!-- {module} -->\n```mermaid\n).*?(```)", re.DOTALL)
        if not pattern.search(page):
            raise SystemExit(
                f"docs/protocols.md has no place for {module}: add `<!-- {module} -->` and a mermaid block"
            )
        page = pattern.sub(lambda match, text=diagram: f"{match[1]}{text}\n{match[2]}", page)  # type: ignore[misc]
    return page


def main(argv: list[str] | None = None) -> int:
    """Write the diagrams into the page, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether docs/protocols.md is current")
    options = parser.parse_args(argv)
    page = PAGE.read_text(encoding="utf-8")
    fresh = replaced(page, drawn())
    if options.check:
        print("docs/protocols.md is current" if fresh == page else "docs/protocols.md is stale: run `make diagrams`")
        return int(fresh != page)
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
