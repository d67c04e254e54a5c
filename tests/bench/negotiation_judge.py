"""The judge of `make bench-negotiation`: runs in an environment of its own, with negmas, and imports nothing of ours.

It makes domains and negotiates with negmas's negotiators, among themselves and against a party that answers over this
process's standard input. One JSON object a line, both ways.
"""

import json
import random
import sys
import time
from typing import Any

from negmas import (
    BoulwareTBNegotiator,
    ConcederTBNegotiator,
    MiCRONegotiator,
    ResponseType,
    SAOMechanism,
    SAONegotiator,
)
from negmas.preferences import MappingUtilityFunction
from negmas.preferences.generators import generate_utility_values

NEGOTIATORS = {"boulware": BoulwareTBNegotiator, "conceder": ConcederTBNegotiator, "micro": MiCRONegotiator}
SHAPES = ("piecewise_linear", "curve")


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Foreign(SAONegotiator):
    """A party that lives in the process that started this one."""

    def _ask(self, offer: Any) -> Any:
        say(ask=self.name, offer=None if offer is None else offer[0])
        return json.loads(sys.stdin.readline())

    def respond(self, state: Any, source: str | None = None) -> Any:
        self.answer = self._ask(state.current_offer)
        return ResponseType.ACCEPT_OFFER if self.answer["accept"] else ResponseType.REJECT_OFFER

    def propose(self, state: Any, dest: str | None = None) -> Any:
        answer = getattr(self, "answer", None) or self._ask(None)
        self.answer = None
        return (answer["outcome"],)


def domains(count: int, size: int) -> list[dict[str, Any]]:
    """Return random domains (utilities drawn alone) and classical ones (negmas's Pareto frontiers of two shapes)."""
    found = []
    for seed in range(count):
        random_ = random.Random(seed)
        kind = ("random", *SHAPES)[seed % 3]
        if kind == "random":
            rows = [(random_.random(), random_.random()) for _ in range(size)]
        else:
            random.seed(seed)
            rows = [
                tuple(map(float, row)) for row in generate_utility_values(size // 4, size, 2, pareto_generator=kind)
            ]
        best = [max(row[party] for row in rows) for party in (0, 1)]
        scaled = [[row[party] / best[party] for party in (0, 1)] for row in rows]
        found.append({"kind": kind, "rows": scaled, "least": [random_.uniform(0, 0.3) for _ in range(2)]})
    return found


def negotiate(domain: dict[str, Any], names: list[str], steps: int) -> None:
    """Run one negotiation and say how it ended; `ours` is the party at the other end of the pipe."""
    places = range(len(domain["rows"]))
    mechanism = SAOMechanism(outcomes=[(place,) for place in places], n_steps=steps)
    for party, name in enumerate(names):
        table = {(place,): domain["rows"][place][party] for place in places}
        ufun = MappingUtilityFunction(
            table, reserved_value=domain["least"][party], outcome_space=mechanism.outcome_space
        )
        make = Foreign if name == "ours" else NEGOTIATORS[name]
        mechanism.add(make(name=f"{party}"), ufun=ufun)
    begun = time.perf_counter()
    state = mechanism.run()
    agreed = None if state.agreement is None else state.agreement[0]
    say(agreed=agreed, rounds=state.step, took_s=time.perf_counter() - begun)


def main() -> None:
    """Answer requests until standard input ends."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "count" in request:
            say(domains=domains(request["count"], request["size"]))
        else:
            negotiate(request["domain"], request["names"], request["steps"])


if __name__ == "__main__":
    main()
