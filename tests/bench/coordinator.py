"""`make bench-coordinator`: awards over a real broker: how many a second, how soon; and how soon conflicts are settled.

The coordinator is a process of its own, as it ships, with the stream of tasks synced at each write; the agents are
played in a second process (`--play`), each answering on the wire as a real one does. Times count from the request that
gives a task to the moment its winner has the award. One JSON line with goals last.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.settings import BusSettings
from tests.bench import coordinator_conflicts
from tests.bidders import Bidder
from tests.coordinated import Coordinated, Owner, owner_of
from tests.disputants import write_negotiators

VALVES = 9
AWARDS_PER_S, AWARD_P99_MS, CONFLICT_P99_MS, AGAIN_S = 200.0, 100.0, 50.0, 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or play agents for it; return the exit code."""
    parser = argparse.ArgumentParser(prog="make bench-coordinator ARGS=…")
    parser.add_argument("--agents", type=int, nargs="+", default=[10, 50, 200], help="how many agents, a run each")
    parser.add_argument("--tasks", type=int, default=300, help="tasks in a run")
    parser.add_argument("--conflicts", type=int, default=100, help="conflicts settled of each size, 2 to 5 agents")
    parser.add_argument("--under-way", type=int, default=64, help="tasks given and not ended at a time, for the rate")
    parser.add_argument("--play", nargs=3, metavar=("URL", "COUNT", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.play:
        url, count, file = arguments.play
        return asyncio.run(play(url, int(count), Path(file)))
    with tempfile.TemporaryDirectory(prefix="bench-coordinator-") as folder:
        asyncio.run(bench(arguments, Path(folder)))
    return 0


def names(count: int) -> list[str]:
    """Return agents' names."""
    return [f"a{number:03d}" for number in range(count)]


async def play(url: str, count: int, file: Path) -> int:
    """Play agents until standard input ends, then write down when each award came and what was said."""
    bus = await Bus.connect(BusSettings(gateway="gw", nats_url=url), "agents")
    agents = [await Bidder(bus, name, 1.0 + 0.01 * number).start() for number, name in enumerate(names(count))]
    await bus.flush()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    awarded: dict[str, float] = {}
    for agent in agents:
        awarded |= agent.awarded_s
    heard = sum(sum(n for word, n in agent.counts.items() if word not in ("acts", "bytes")) for agent in agents)
    said, size_bytes = (sum(agent.counts[word] for agent in agents) for word in ("acts", "bytes"))
    found = {"awarded": awarded, "heard": heard, "said": said, "heard_bytes": size_bytes}
    await asyncio.to_thread(file.write_text, json.dumps(found))
    for agent in agents:
        await agent.die()
    await bus.close()
    return 0


@contextlib.asynccontextmanager
async def played(gateway: Coordinated, count: int, file: Path) -> Any:
    """Have a process play so many agents inside the block; afterwards `file` says how it went."""
    command = [sys.executable, "-m", "tests.bench.coordinator", "--play", gateway.nats.url, str(count), str(file)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield
    finally:
        await asyncio.wait_for(process.communicate(b""), 60)


async def submitted(bus: Bus, task: str, number: int) -> float:
    """Give a task; return when that was begun, monotonic seconds."""
    body = {
        "skill": "set", "deviceName": f"valve-{1 + number % VALVES}", "resourceName": "Setpoint", "value": "21",
        "deadlineS": 60, "id": task,
    }  # fmt: skip
    began_s = time.monotonic()
    answer = await bus.request(subjects.task_request("gw", "submit", "owner"), json.dumps(body).encode(), timeout_s=30)
    assert json.loads(answer.data)["statusCode"] in (200, 202), answer.data
    return began_s


async def all_ended(owner: Owner, before: int, count: int) -> None:
    """Wait until so many more tasks have ended."""
    async with asyncio.timeout(120):
        while True:
            found = (await owner.http.get(f"{owner.gateway.url}/api/v3/coordinator")).json()
            if found["open"] == 0 and found["counts"].get("accepted", 0) - before >= count:
                return
            await asyncio.sleep(0.05)


async def measured(owner: Owner, agents: int, tasks: int, under_way: int, folder: Path) -> dict[str, Any]:
    """Return the figures of a run with so many agents: one after the other for the times, many at once for the rate."""
    file = folder / f"played-{agents}.json"
    began: dict[str, float] = {}
    async with played(owner.gateway, agents, file):
        await owner.up(agents)
        before = (await owner.counts()).get("accepted", 0)
        for number in range(tasks):
            task = f"one-{agents}-{number}"
            began[task] = await submitted(owner.bus, task, number)
            await asyncio.sleep(0.02)  # some 30 a second: how soon, while there is nothing to wait for
        await all_ended(owner, before, tasks)
        limit = asyncio.Semaphore(under_way)

        async def one(number: int) -> None:
            async with limit:
                await submitted(owner.bus, f"many-{agents}-{number}", number)

        start_s = time.monotonic()
        await asyncio.gather(*(one(number) for number in range(tasks)))
        await all_ended(owner, before, 2 * tasks)
    found = json.loads(file.read_text())
    took_ms = sorted(1e3 * (found["awarded"][task] - at) for task, at in began.items())
    last_s = max(at for task, at in found["awarded"].items() if task.startswith("many-"))
    return {
        "agents": agents, "tasks": tasks, "p50_ms": round(took_ms[len(took_ms) // 2], 1),
        "p99_ms": round(took_ms[int(0.99 * (len(took_ms) - 1))], 1),
        "awards_per_s": round(tasks / (last_s - start_s), 1),
        "messages_per_award": round((found["heard"] + found["said"]) / (2 * tasks), 1),
        "bytes_heard_per_award": round(found["heard_bytes"] / (2 * tasks)),
    }  # fmt: skip


async def lost(owner: Owner, folder: Path) -> float:
    """Return how many seconds after a kill -9 of the coordinator a task is given and done, with a new one started."""
    async with played(owner.gateway, 10, folder / "played-lost.json"):
        await owner.up(10)
        began_s = time.monotonic()
        owner.gateway.kill()
        owner.gateway.spawn()
        while True:
            try:
                if (await owner.give(id="after-loss")).status_code in (200, 202):
                    break
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.02)
        await owner.ended("after-loss")
        return time.monotonic() - began_s


async def bench(arguments: argparse.Namespace, folder: Path) -> None:
    """Run everything and print the figures."""
    stands = {"EDGEAGENTS_COORDINATOR_CONFLICT_STANDS_S": "0.001"}  # it is settled again and again
    gateway = Coordinated(folder, names(max(arguments.agents)), **stands)
    write_negotiators(folder / "agents", coordinator_conflicts.CLASSES)
    try:
        async with owner_of(gateway) as owner:
            gateway.spawn(EDGEAGENTS_COORDINATOR_BID_S="2", EDGEAGENTS_COORDINATOR_TAKE_S="5")
            await owner.up()
            runs = []
            for count in arguments.agents:
                runs.append(await measured(owner, count, arguments.tasks, arguments.under_way, folder))
                print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            conflicts = await coordinator_conflicts.settled(owner, arguments.conflicts)
            print(json.dumps(conflicts), file=sys.stderr, flush=True)
            again_s = await lost(owner, folder)
    finally:
        gateway.stop()
    fifty = next((run for run in runs if run["agents"] == 50), runs[-1])
    goals = {
        "awards_per_s": _goal(max(run["awards_per_s"] for run in runs), AWARDS_PER_S, is_most=False),
        "p99_ms_50_agents": _goal(fifty["p99_ms"], AWARD_P99_MS),
        "conflict_p99_ms": _goal(max(item["p99_ms"] for item in conflicts.values()), CONFLICT_P99_MS),
        "again_s": _goal(round(again_s, 2), AGAIN_S),
    }
    print(json.dumps({"bench": "coordinator", "goals": goals, "runs": runs, "conflicts": conflicts}))


def _goal(value: float, goal: float, *, is_most: bool = True) -> dict[str, Any]:
    return {"value": value, "goal": goal, "met": value <= goal if is_most else value >= goal}


if __name__ == "__main__":
    sys.exit(main())
