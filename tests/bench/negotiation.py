"""How good negotiations are: mediated and private, ours beside negmas's, with one party lying, too.

    make bench-negotiation ARGS="--domains 30"

negmas (AGPL) is a judge in a process and an environment of its own, made by `uv` under `var/` at the first run; it
makes the domains and brings its own Boulware, Conceder and MiCRO. The last line is JSON.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from edgeagents.model.cooperation import Offer
from edgeagents.protocol import negotiator
from edgeagents.protocol.conversation import Heard, Tell, act
from edgeagents.protocol.nash import nash
from edgeagents.protocol.negotiator import DEFAULT_TACTIC, Chair, Tactic, Taste, Waiting, taste_of

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = ROOT / "var" / "negmas"
NEGMAS: Final = "negmas==0.16.0"
NASH_GOAL_MS: Final = 20.0
THEIRS: Final = ("boulware", "conceder", "micro")
OURS: Final[tuple[Tactic, ...]] = ("boulware", "linear", "conceder", "micro")
PROPOSE: Final = "propose"


class Judge:
    """The process with negmas."""

    def __init__(self, console: Console) -> None:
        python = ENVIRONMENT / "bin" / "python"
        if not (ENVIRONMENT / ".ready").exists():
            console.print(f"making an environment with {NEGMAS} …")
            uv = Path(sys.executable).with_name("uv")
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, NEGMAS], check=True)
            (ENVIRONMENT / ".ready").touch()
        script = Path(__file__).with_name("negotiation_judge.py")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([python, script], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def ask(self, **what: Any) -> dict[str, Any]:
        """Return the judge's next word after a request, or after an answer of ours."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the judge has ended: does {ENVIRONMENT}/bin/python import negmas? Remove {ENVIRONMENT}")
        found: dict[str, Any] = json.loads(line)
        return found


class Side:
    """One of our parties: the protocol's own code, asked turn by turn."""

    def __init__(self, domain: dict[str, Any], party: int, tactic: Tactic, steps: int) -> None:
        worth = {f"o{place}": row[party] for place, row in enumerate(domain["rows"])}
        least = domain["least"][party]
        self.taste: Taste = taste_of(worth, least)
        chair = Chair(f"{party}", "table", "n", tactic, 2 * steps, 0.0, 1e9, least)
        self.state: negotiator.State = Waiting(chair)
        self.turn = party - 2

    def answer(self, offered: int | None) -> tuple[bool, int]:
        """Return whether we accept what stands, and what we would have."""
        self.turn += 2
        if offered is None:
            said = act("cfp", "n")
            self.state = Waiting(self.state.chair) if isinstance(self.state, Waiting) else self.state
        else:
            said = act("propose", "n", offer=Offer(round=max(1, self.turn), outcome=f"o{offered}"))
        self.state, effects = negotiator.step(self.state, Heard("table", said, 0.0), self.taste)
        (told,) = [effect.act for effect in effects if isinstance(effect, Tell)]
        assert told.offer is not None
        return told.performative == "accept-proposal", int(told.offer.outcome[1:])


def play(domain: dict[str, Any], tactics: tuple[Tactic, Tactic], steps: int) -> dict[str, Any]:
    """Return how two of ours end."""
    begun = time.perf_counter()
    sides = [Side(domain, party, tactic, steps) for party, tactic in enumerate(tactics)]
    offered: int | None = None
    for turn in range(2 * steps):
        accepts, place = sides[turn % 2].answer(offered)
        if accepts:
            return {"agreed": offered, "rounds": turn // 2 + 1, "took_s": time.perf_counter() - begun}
        offered = place
    return {"agreed": None, "rounds": steps, "took_s": time.perf_counter() - begun}


def cross(judge: Judge, domain: dict[str, Any], names: list[str], tactic: Tactic, steps: int) -> dict[str, Any]:
    """Return how one of ours ends with one of theirs."""
    side = Side(domain, names.index("ours"), tactic, steps)
    word = judge.ask(domain=domain, names=names, steps=steps)
    while "ask" in word:
        accepts, place = side.answer(word["offer"])
        word = judge.ask(accept=accepts, outcome=place)
    return word


def scored(domain: dict[str, Any], result: dict[str, Any]) -> dict[str, float]:
    """Return an outcome's shares of the best Nash product and welfare, its distance to the Pareto front, its cost."""
    rows, least = domain["rows"], domain["least"]

    def product(row: Sequence[float]) -> float:
        return math.prod(max(0.0, u - d) for u, d in zip(row, least, strict=True))

    chosen = least if result["agreed"] is None else rows[result["agreed"]]
    front = [row for row in rows if not any(a[0] >= row[0] and a[1] >= row[1] and a != row for a in rows)]
    return {
        "nash": product(chosen) / max(map(product, rows)),
        "welfare": sum(chosen) / max(map(sum, rows)),
        "pareto_distance": min(math.dist(chosen, row) for row in front),
        "agreed": float(result["agreed"] is not None),
        "rounds": float(result["rounds"]),
        "ms": 1000 * result["took_s"],
    }


def mediated(domain: dict[str, Any], told: Sequence[Sequence[float]] | None = None) -> dict[str, Any]:
    """Return the mediator's outcome, of what parties told it."""
    begun = time.perf_counter()
    found = nash(told or domain["rows"], domain["least"])
    return {"agreed": found.place, "rounds": 1, "took_s": time.perf_counter() - begun}


def lied(domain: dict[str, Any]) -> dict[str, float]:
    """Return what a party gains by telling the mediator that all but its best is hardly worth it, and the other."""
    rows, least = domain["rows"], domain["least"]
    told = [[max(0.0, row[0] ** 3) if row[0] >= least[0] else 0.0, row[1]] for row in rows]
    honest, false = mediated(domain)["agreed"], mediated(domain, told)["agreed"]
    before = rows[honest] if honest is not None else least
    after = rows[false] if false is not None else least
    return {
        "liar_gain": after[0] - before[0], "other_gain": after[1] - before[1],
        "other_over_disagreement": after[1] - least[1],
    }  # fmt: skip


def nash_ms(outcomes: int = 10_000, parties: int = 3) -> float:
    """Return how much of a processor's time the exact Nash point of so many outcomes takes, ms: the median of 15."""
    random_, times = random.Random(1), []
    rows = [tuple(random_.random() for _ in range(parties)) for _ in range(outcomes)]
    for _ in range(15):
        begun = time.process_time()
        nash(rows, (0.1,) * parties)
        times.append(1000 * (time.process_time() - begun))
    return round(statistics.median(times), 2)


def measure(
    judge: Judge, options: argparse.Namespace, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return the scores of every pairing, domain by domain, and what lying did."""
    domains = judge.ask(count=options.domains, size=options.outcomes)["domains"]
    scores: dict[str, list[dict[str, float]]] = {}
    lies = []
    steps = options.steps
    for domain in progress.track(domains, description="domains"):
        results = {"mediated": mediated(domain)}
        for name in THEIRS:
            results[f"negmas {name}"] = judge.ask(domain=domain, names=[name, name], steps=steps)
            results[f"our micro, negmas {name}"] = cross(judge, domain, ["ours", name], "micro", steps)
            results[f"negmas {name}, our micro"] = cross(judge, domain, [name, "ours"], "micro", steps)
        for tactic in OURS:
            results[f"our {tactic}"] = play(domain, (tactic, tactic), steps)
        for name, result in results.items():
            scores.setdefault(name, []).append(scored(domain, result))
        lies.append(lied(domain))
    return scores, lies


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each figure."""
    return {key: round(statistics.fmean(row[key] for row in rows), 4) for key in rows[0]}


def goals(found: dict[str, dict[str, float]], took_ms: float) -> dict[str, dict[str, Any]]:
    """Return the goals with what was reached."""
    ours, theirs = found[f"our {DEFAULT_TACTIC}"]["nash"], found["negmas micro"]["nash"]
    share = found["mediated"]["nash"]
    return {
        "mediated_nash_share": {"value": share, "goal": 1.0, "met": share >= 1.0 - 1e-9},
        "private_nash_share": {"value": ours, "goal": theirs, "met": ours >= theirs},
        "nash_10000_ms": {"value": took_ms, "goal": NASH_GOAL_MS, "met": took_ms < NASH_GOAL_MS},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show a table, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-negotiation", description=__doc__.splitlines()[0])
    parser.add_argument("--domains", type=int, default=30, help="a third each random, piecewise linear, curved")
    parser.add_argument("--outcomes", type=int, default=100, help="of each domain")
    parser.add_argument("--steps", type=int, default=200, help="longest negotiation, rounds")
    options, begun = parser.parse_args(argv), time.monotonic()
    console = Console(stderr=True, width=120)
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    judge = Judge(console)
    with Progress(*columns, console=console) as progress:
        scores, lies = measure(judge, options, progress)
    judge.process.stdin.close()  # type: ignore[union-attr]
    judge.process.wait(10)
    found = {name: means(rows) for name, rows in scores.items()}
    table = RichTable("means", *found["mediated"])
    for name, row in found.items():
        table.add_row(name, *(f"{value:.3f}" for value in row.values()))
    console.print(table)
    took_ms = nash_ms()
    report = {
        "bench": "negotiation", "goals": goals(found, took_ms), "domains": options.domains,
        "outcomes": options.outcomes, "figures": found, "one_lies_mediated": means(lies),
        "took_s": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
