"""Ten agents on one language model: throughput, waits of each, fairness, and the memory of a whole gateway.

    make bench-inference ARGS="--questions 20"

Needs the model (`make model`). A gateway of processes as in `make demo`, with ten agents; their questions are asked
over NATS by their own users, so with their own rights. All ask at once, each its next question once the last is
answered; one asks four at a time, and must not delay the others. Waits are from question to answer. Memory is
that of the demo's gateway, whose services are forked from one process, which counts; with `--programs` each imports for
itself, as in a container. The last line is JSON.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console
from rich.table import Table

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.inference_client import NatsInference
from edgeagents.embedded.gateway import GATEWAY, Gateway, Plan
from edgeagents.errors import TooManyAttemptsError
from edgeagents.model.answer import parse_answer
from edgeagents.model.completion import ChatMessage, CompletionRequest
from edgeagents.model.options import Options, Slot
from edgeagents.permissions import agent_user, inbox
from edgeagents.settings import BusSettings

ROOT: Final = Path(__file__).resolve().parents[2]
MODEL: Final = ROOT / "models" / "smollm2-135m-instruct"
AGENTS: Final = 10
GREEDY: Final = 4  # questions at a time of the one greedy agent
PSS_GOAL_MIB, FAIR_GOAL = 900.0, 2.0
REST_S: Final = 4.0  # after which a model that nobody asks has given its rows back
START: Final = datetime(2026, 1, 14, 6, 0, tzinfo=UTC).timestamp()
ROOMS: Final = ("living", "bedroom", "kitchen", "office")
OPTIONS: Final = Options(
    slots=tuple(
        Slot(device=f"radiator-{room}", resource="Setpoint", kind="Float32", lowest=140, highest=230, decimals=1)
        for room in ROOMS
    ),
    most_text=60,
)  # fmt: skip
ROLE: Final = "You run the heating of a house. Answer with one command, a question, or nothing and why. " * 6


def profiles(folder: Path) -> Path:
    """Return a scenario's folder with ten agents: the home's own, and others that only watch."""
    shutil.copytree(ROOT / "edgex-profiles" / "home", folder)
    own = sorted((folder / "agents").glob("*.y*ml"))
    first = yaml.safe_load(own[0].read_text())
    watching = {key: value for key, value in first.items() if key != "negotiates"}  # preferences name one agent
    for number in range(AGENTS - len(own)):
        more = {**watching, "name": f"extra-{number}", "mode": "observe"}
        (folder / "agents" / f"extra-{number}.yaml").write_text(yaml.safe_dump(more))
    return folder


async def ask_on(client: NatsInference, name: str, questions: int, waits: list[float]) -> tuple[int, int]:
    """Ask one question after the other; return tokens written and how often it was told to come again."""
    tokens = refused = 0
    for number in range(questions):
        text = f"The {ROOMS[number % len(ROOMS)]} has {15 + number % 9} degrees. ({name})"
        request = CompletionRequest(
            messages=(ChatMessage(role="system", content=ROLE), ChatMessage(role="user", content=text)), constant=1,
            options=OPTIONS, temperature=1.0, seed=number, budget_s=300, most_tokens=120,
        )  # fmt: skip
        began = time.monotonic()
        while True:
            try:
                done = await client.complete(request)
                break
            except TooManyAttemptsError as error:
                refused += 1
                await asyncio.sleep(min(1.0, error.retry_after_s))
        waits.append(time.monotonic() - began)
        tokens += done.tokens
        if not done.is_capped:
            parse_answer(done.text, OPTIONS)
    return tokens, refused


async def asked(gateway: Gateway, questions: int) -> dict[str, Any]:
    """Have all agents ask; return figures."""
    names = sorted(gateway.agents)
    waits: dict[str, list[float]] = {name: [] for name in names}
    buses = {name: await _connect(gateway, name) for name in names}
    began = time.monotonic()
    jobs = [
        ask_on(NatsInference(buses[name], name), name, questions, waits[name])
        for name in names
        for _ in range(GREEDY if name == names[0] else 1)
    ]
    try:
        done = await asyncio.gather(*jobs)
    finally:
        for bus in buses.values():
            await bus.close()
    took_s = time.monotonic() - began
    means = {name: statistics.fmean(found) for name, found in waits.items() if name != names[0]}
    mean = statistics.fmean(means.values())
    return {
        "took_s": took_s, "answers_per_s": sum(map(len, waits.values())) / took_s,
        "tokens_per_s": sum(tokens for tokens, _ in done) / took_s, "refused": sum(refused for _, refused in done),
        "agents": {name: _of(found) for name, found in waits.items()}, "mean_s": mean, "greedy": names[0],
        "longest_mean_over_mean": max(means.values()) / mean,
    }  # fmt: skip


def _of(waits: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(waits, n=100, method="inclusive")
    return {"mean_s": statistics.fmean(waits), "p50_s": cuts[49], "p99_s": cuts[98]}


async def _connect(gateway: Gateway, agent: str) -> Bus:
    user = agent_user(agent)
    settings = BusSettings(
        gateway=GATEWAY, nats_url=f"nats://127.0.0.1:{gateway.ports['nats']}", nats_user=user,
        nats_password_file=gateway.passwords[user],
    )  # fmt: skip
    return await Bus.connect(settings, f"bench {agent}", inbox=inbox(user))


def memory_mib(gateway: Gateway) -> dict[str, dict[str, float]]:
    """Return PSS and RSS of each process of a gateway."""
    found = {}
    for name, pid in gateway.supervisor.pids.items():
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        found[name] = {word.lower(): int(lines[word].split()[0]) / 1024 for word in ("Pss", "Rss")}
    return found


async def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the gateway and return all figures."""
    plan = Plan(
        folder / "state", profiles(folder / "home"), 60.0, START, model=arguments.model, forks=not arguments.programs
    )
    plan.folder.mkdir()
    gateway = Gateway(plan)
    gateway.start()
    try:
        await gateway.ready(timeout_s=arguments.wait)
        gateway.start_model()
        until_s = time.monotonic() + arguments.wait
        while not (await gateway.state("inference", "/api/v3/inference")).get("ready"):
            if time.monotonic() > until_s:
                raise SystemExit(f"no model in {arguments.wait:g} s:\n{gateway.supervisor.log_tail('inference', 20)}")
            await asyncio.sleep(0.2)
        found = await asked(gateway, arguments.questions)
        found["service"] = await gateway.state("inference", "/api/v3/inference")
        found["memory_mib"] = memory_mib(gateway)  # the model's rows still hold the last texts
        await asyncio.sleep(REST_S)
        found["memory_at_rest_mib"] = memory_mib(gateway)
        return found
    finally:
        await gateway.stop()


def main() -> None:
    """Measure and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=20, help="of each agent")
    parser.add_argument("--programs", action="store_true", help="fork nothing: each service imports for itself")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--wait", type=float, default=120.0, help="seconds for gateway and model to be up")
    arguments = parser.parse_args()
    if not (arguments.model / "manifest.json").exists():
        raise SystemExit(f"no model in {arguments.model}: make model")
    with tempfile.TemporaryDirectory(prefix="bench-inference-") as folder:
        found = asyncio.run(run(arguments, Path(folder)))
    pss, rss = (_sum(found["memory_mib"], word) for word in ("pss", "rss"))
    _show(Console(stderr=True), found, pss, rss)
    goals = {
        "longest_mean_wait_over_mean": _most(found["longest_mean_over_mean"], FAIR_GOAL),
        "pss_of_agents_guard_inference_broker_mib": _most(pss, PSS_GOAL_MIB),
    }
    rest = _sum(found["memory_at_rest_mib"], "pss")
    print(json.dumps({"bench": "inference", "goals": goals, "rss_mib": rss, "pss_at_rest_mib": rest, **found}))


def _sum(memory: Mapping[str, Mapping[str, float]], word: str) -> float:
    return sum(one[word] for name, one in memory.items() if name not in ("core", "world"))


def _show(console: Console, found: Mapping[str, Any], pss: float, rss: float) -> None:
    rest = _sum(found["memory_at_rest_mib"], "pss")
    title = f"{found['answers_per_s']:.2f} answers/s, {found['tokens_per_s']:.0f} tokens/s"
    title += f"; PSS {pss:.0f} MiB, at rest {rest:.0f}; RSS {rss:.0f} MiB"
    table = Table("agent", "mean s", "p50 s", "p99 s", title=title)
    for name, figures in found["agents"].items():
        word = f"{name} ({GREEDY} at a time)" if name == found["greedy"] else name
        table.add_row(word, *(f"{figures[key]:.2f}" for key in ("mean_s", "p50_s", "p99_s")))
    console.print(table)


def _most(value: float, goal: float) -> dict[str, Any]:
    return {"value": round(value, 3), "goal": goal, "met": value <= goal}


if __name__ == "__main__":
    main()
