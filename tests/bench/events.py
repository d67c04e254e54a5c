"""How many device events an agent takes, and how soon its command is out and the device set; beside a peer if wanted.

    make bench-events ARGS="--passes 7 --peer-topic edgex/rules-events --peer-command ./start-peer"

A black box: a gateway as in `make demo` with machines for a house, events published on its broker, commands seen on
NATS and SETs stamped by the machines' device service. A peer is any service that publishes what it made of an event:
it hears its own events on the same broker, in turn with the agent, and is started with the broker's and keeper's ports
in `BENCH_MQTT_PORT` and `BENCH_KEEPER_PORT`. The last line is JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgeagents.errors import UnavailableError
from tests.bench.events_devices import names
from tests.bench.events_gateway import AGENT as AGENT_NAME
from tests.bench.events_gateway import BenchGateway, PeerOptions, plan_of, usage
from tests.bench.events_report import AGENT, PEER, figures_of, goals, medians, tables, traced_parts
from tests.bench.events_traffic import SHARE, AgentSubject, Pass, PeerSubject, Traffic, marked_by, trace_id
from tests.collector import Collector, collecting

RATES: Final = (100, 1000)
HIGHEST: Final = 0.9  # of what it took at most, so that nothing piles up
FSYNCS: Final = 200
WARM_UP_RATE: Final = 250.0
PEER_START_S: Final = 30.0
QUIET_S: Final = 1.0  # without a SET for so long: nothing is under way any more
DRAIN_LOOKS: Final = 60
SPANS_S: Final = 3.0  # they are sent every second
Who = AgentSubject | PeerSubject


class Bench:
    """One gateway under measurement."""

    def __init__(self, gateway: BenchGateway, traffic: Traffic, subjects: Mapping[str, Who], options: Any) -> None:
        """Measure `subjects`, the agent first, on a gateway that runs."""
        self._gateway, self._traffic, self._options = gateway, traffic, options
        self.subjects = subjects
        self.most: dict[str, list[float]] = {who: [] for who in subjects}
        self.rows: dict[str, dict[str, list[dict[str, Any]]]] = {who: {} for who in subjects}

    async def one_pass(self, who: str, progress: Progress) -> None:
        """Measure one subject: as many events as it takes, then at each rate."""
        found = await self._traffic.at_most(self.subjects[who], self._options.seconds)
        # What was not answered was not consumed.
        self.most[who].append((found.sent - SHARE * found.missed) / found.took_s)
        highest = HIGHEST * statistics.median(self.most[who])
        for name, rate in [*((str(rate), float(rate)) for rate in RATES), ("highest", highest)]:
            row, _ = await self.at_rate(who, rate)
            self.rows[who].setdefault(name, []).append(row)
            decision = row["decision"]
            progress.console.print(
                f"{who} {name}/s: {row['events_per_s']}/s, decision p50 {decision['p50_ms']} p99 {decision['p99_ms']} "
                f"ms, SET p99 {row.get('set', {}).get('p99_ms')} ms, {row['missed']} missed; "
                f"at most {self.most[who][-1]:.0f}/s"
            )

    async def at_rate(self, who: str, rate: float) -> tuple[dict[str, Any], Pass]:
        """Return figures and stamps of one pass at one rate, with what each process used meanwhile."""
        await self._drained()
        processes = {name: self._gateway.supervisor.pid(name) for name in self._measured(who)}
        pids = {name: pid for name, pid in processes.items() if pid is not None}
        before = {name: usage(pid)[0] for name, pid in pids.items()}
        began_s = time.monotonic()
        found = await self._traffic.at_rate(self.subjects[who], rate, self._options.seconds)
        took_s = time.monotonic() - began_s
        after = {name: usage(pid) for name, pid in pids.items()}
        if who == AGENT:
            await self._stamp_sets(found)
        row = figures_of(found)
        row["cost"] = {
            name: {
                "cpu_percent": round(100 * (cpu_s - before[name]) / took_s, 1),
                "rss_mb": round(rss / 1e6, 1),
                "private_mb": round(private / 1e6, 1),
            }
            for name, (cpu_s, rss, private) in after.items()
        }
        return row, found

    async def _drained(self) -> None:
        """Wait until no more SET comes of what the pass before left behind: sent as fast as could be, it piles up."""
        for _ in range(DRAIN_LOOKS):
            await asyncio.sleep(QUIET_S)
            if not await self._gateway.sets():
                return

    def _measured(self, who: str) -> dict[str, str]:
        own = {f"agent-{AGENT_NAME}": "", "guard": "", "core": ""} if who == AGENT else {PEER: ""}
        return {**own, "nats": ""}

    async def _stamp_sets(self, found: Pass) -> None:
        """Note when each marked event's value arrived at its device, waiting a little for the last."""
        give_up_s = time.monotonic() + 5.0
        while any(mark.decided_ns and not mark.set_ns for mark in found.marks.values()):
            for value, at_ns in await self._gateway.sets():
                mark = found.marks.get(marked_by(value))
                if mark is not None and not mark.set_ns:
                    mark.set_ns = at_ns
            if time.monotonic() > give_up_s:
                return
            await asyncio.sleep(0.05)

    def figures(self, who: str) -> dict[str, Any]:
        """Return the medians of one subject."""
        return {
            "events_per_s": round(statistics.median(self.most[who]), 1),
            "rates": {name: medians(rows) for name, rows in self.rows[who].items()},
        }


@contextlib.asynccontextmanager
async def running(options: argparse.Namespace, environ: dict[str, str]) -> AsyncIterator[BenchGateway]:
    """Have a gateway run inside the block, in a folder of its own that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="edgeagents-bench-", dir=options.store))
    gateway = BenchGateway(
        plan_of(folder, options.devices, environ, time.time(), options.mqtt_port),
        keeper=options.keeper,
        count=options.devices,
    )
    gateway.start()
    try:
        await gateway.come_up(options.devices)
        yield gateway
    finally:
        await gateway.stop()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


async def measure(options: argparse.Namespace, progress: Progress) -> tuple[Bench, dict[str, Any]]:
    """Return all passes, subjects in turn, and where the time goes at each rate."""
    peer = PeerSubject(options.peer_topic, options.peer_events) if options.peer_topic else None
    bar = progress.add_task("passes", total=options.passes * (1 + bool(peer)))
    async with running(options, {}) as gateway:
        bus = await gateway.connect()
        traffic = Traffic(bus, names(options.devices))
        bench = Bench(gateway, traffic, {AGENT: AgentSubject(), **({PEER: peer} if peer else {})}, options)
        for subject in bench.subjects.values():
            await traffic.listen(subject)
        if peer is not None:
            await _start_peer(gateway, traffic, peer, options)
        await warm_up(traffic, bench.subjects[AGENT], options.devices)
        for number in range(options.passes):
            turn = list(bench.subjects) if number % 2 == 0 else list(bench.subjects)[::-1]
            for who in turn:
                await bench.one_pass(who, progress)
                progress.advance(bar)
        await bus.close()
    highest = HIGHEST * statistics.median(bench.most[AGENT])
    rates = [*((str(rate), float(rate)) for rate in RATES), ("highest", highest)]
    return bench, await parts(options, rates, progress)


async def warm_up(traffic: Traffic, agent: Who, devices: int) -> None:
    """Have the rule fire on every machine before anything counts: leases are asked for once, then kept."""
    await traffic.at_rate(agent, WARM_UP_RATE, (devices + 1) * SHARE / WARM_UP_RATE)


async def _start_peer(gateway: BenchGateway, traffic: Traffic, peer: PeerSubject, options: Any) -> None:
    """Start the peer, if we are to, and wait until it answers to its own events, and to none of the agent's.

    Raises:
        TimeoutError: nothing of it arrived on its topic.
        RuntimeError: it hears the agent's events, too: it would work in the agent's turn.
    """
    if options.peer_command:
        gateway.start_peer(PeerOptions(options.peer_topic, options.peer_events, options.peer_command))
    give_up_s = time.monotonic() + PEER_START_S
    while (await traffic.at_rate(peer, 100, 0.2)).missed:
        if time.monotonic() > give_up_s:
            text = gateway.supervisor.log_tail(PEER)
            raise TimeoutError(f"nothing on {options.peer_topic} in {PEER_START_S:g} s: does the peer hear us? {text}")
    await asyncio.sleep(QUIET_S)
    before = traffic.heard[peer.pattern]
    await traffic.at_rate(AgentSubject(), 100, QUIET_S)
    await asyncio.sleep(QUIET_S)
    if traffic.heard[peer.pattern] != before:
        raise RuntimeError(
            f"the peer answers to the agent's events, too, and would work in its turn: have it subscribe to "
            f"{options.peer_events}/# alone"
        )


async def parts(
    options: argparse.Namespace, rates: Sequence[tuple[str, float]], progress: Progress
) -> dict[str, dict[str, Any]]:
    """Return where the time goes at each rate, from traces of marked events alone, in a run of its own."""
    bar = progress.add_task("traced", total=len(rates))
    found: dict[str, dict[str, Any]] = {}
    with collecting() as collector:
        environ = {"EDGEAGENTS_OTEL_ENDPOINT": collector.url, "EDGEAGENTS_OTEL_SAMPLE_RATIO": "0"}
        async with running(options, environ) as gateway:
            bus = await gateway.connect()
            traffic, agent = Traffic(bus, names(options.devices), traced=True), AgentSubject()
            bench = Bench(gateway, traffic, {AGENT: agent}, options)
            await traffic.listen(agent)
            await warm_up(traffic, agent, options.devices)
            for name, rate in rates:
                _, seen = await bench.at_rate(AGENT, rate)
                await asyncio.sleep(SPANS_S)
                found[name] = traced_parts(seen.marks, _begins(collector, seen))
                progress.advance(bar)
            await bus.close()
    return found


def _begins(collector: Collector, seen: Pass) -> dict[int, dict[str, int]]:
    traces = collector.traces()
    return {
        number: {span.name: span.began_ns for span in reversed(traces.get(trace_id(number), []))}
        for number in seen.marks
    }


def fsyncs_per_s(folder: Path) -> float:
    """Return how many small writes a second reach a folder's disk, one after the other: what a broker waits for."""
    path = folder / f"edgeagents-fsync-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    began_s = time.monotonic()
    try:
        for _ in range(FSYNCS):
            os.write(descriptor, bytes(700))
            os.fsync(descriptor)
        return round(FSYNCS / (time.monotonic() - began_s), 1)
    finally:
        os.close(descriptor)
        path.unlink()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a call."""
    parser = argparse.ArgumentParser(prog="make bench-events", description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=7, help="of each subject, in turn; figures are their medians")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each pass at each rate")
    parser.add_argument("--devices", type=int, default=10, help="machines that events come from and commands go to")
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()), help="on whose disk all state lies")
    parser.add_argument("--peer-topic", default="", help="measure the service that publishes here too")
    parser.add_argument("--peer-events", default="events/bench", help="where the peer hears events, below the base")
    parser.add_argument("--peer-command", default="", help="starts the peer; without it the peer is waited for")
    parser.add_argument("--keeper", default="", help="an EdgeX in place of the embedded core: http://host:59890")
    parser.add_argument("--mqtt-port", type=int, default=1883, help="of our broker, which is that EdgeX's bus")
    parser.add_argument("--keep", action="store_true", help="keep state and logs")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show tables, print one line of JSON."""
    options, begun = parse(argv), time.monotonic()
    console = Console(stderr=True, width=128)
    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    before = fsyncs_per_s(options.store)
    with Progress(*columns, console=console) as progress:
        try:
            bench, where = uvloop.run(measure(options, progress))
        except UnavailableError as error:
            raise SystemExit(f"make bench-events: {error}") from error
    figures = {who: bench.figures(who) if who in bench.subjects else None for who in (AGENT, PEER)}
    shown = {"agent": figures[AGENT], "peer": figures[PEER]}
    for table in tables(shown, where):
        console.print(table)
    report = {
        "bench": "events",
        "goals": goals(figures[AGENT] or {}, figures[PEER]),
        "passes": options.passes,
        "figures": shown,
        "parts": where,
        "store": {"folder": str(options.store), "fsyncs_per_s": [before, fsyncs_per_s(options.store)]},
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()},
        "took_s": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
