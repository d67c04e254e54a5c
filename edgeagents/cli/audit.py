"""`edgeagents audit`: whether the records are whole, what is written now, and a copy for elsewhere.

Source: design.md section 3.9, docs/audit.md.
"""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edgeagents import subjects
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.cli.following import run_until_interrupted
from edgeagents.cli.lines import body_of, clean, line_of, when
from edgeagents.cli.source import DEFAULT, Broker, File, trail_of
from edgeagents.errors import UnavailableError
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import Problem, Verifier, compare
from edgeagents.trail import FileTrail, StreamTrail, Trail
from edgeagents.trail import export as write_export

audit = App(name="audit", help="The hash-chained records of agents and guard: verify, follow, export.")

Against = Annotated[Path | None, Parameter(name="--against", help="an earlier export: what was dropped since?")]
Kinds = Annotated[
    tuple[str, ...], Parameter(name="--kind", negative="", help="only records of this kind; may be given again")
]
Agents = Annotated[
    tuple[str, ...], Parameter(name="--agent", negative="", help="only what concerns this agent; may be given again")
]
Last = Annotated[int, Parameter(name="--last", help="begin with so many of the newest records")]


@audit.command
def verify(*, broker: Broker = DEFAULT, file: File = None, against: Against = None) -> None:
    """Name every record that was edited, dropped or reordered; exit code 1 when there is one.

    The newest records of a chain, and a log written anew, are vouched for by an earlier export alone: keep one
    elsewhere and give it with --against.
    """
    verifier, problems = asyncio.run(_verify(broker, file, against))
    console = Console(soft_wrap=True)
    console.print(_chains(verifier))
    for note in verifier.notes:
        console.print(Text(clean(str(note)), style="yellow"))
    for problem in problems:
        console.print(Text(clean(str(problem)), style="red"))
    counts = f"{len(verifier.chains)} chains, {verifier.count} records"
    if problems:
        console.print(Text(f"{counts}: {len(problems)} problems", style="bold red"))
        sys.exit(1)
    console.print(Text(f"{counts}: whole", style="bold green"))


@audit.command
def tail(*, broker: Broker = DEFAULT, kind: Kinds = (), agent: Agents = (), last: Last = 10) -> None:
    """Follow what agents and guard write down, one line a record, until Ctrl-C."""
    run_until_interrupted(_tail(broker, kind, agent, last))


@audit.command
def export(path: Path, /, *, broker: Broker = DEFAULT) -> None:
    """Write all records to PATH as JSON lines, with the heads of all chains as the last line; verified on the way.

    Args:
        path: the file; replaced when it is there.
    """
    count, problems = asyncio.run(_export(broker, path))
    Console().print(Text(clean(f"{count} records written to {path}")), soft_wrap=True)
    if problems:
        for problem in problems:
            Console(stderr=True, soft_wrap=True).print(Text(clean(str(problem)), style="red"))
        sys.exit(1)


async def _verify(broker: Broker, file: Path | None, against: Path | None) -> tuple[Verifier, list[Problem]]:
    with _progress() as progress:
        async with trail_of(broker, file) as trail:
            verifier = await _taken(trail, progress, "verifying")
            problems = trail.problems(verifier)
        if against is None:
            return verifier, problems
        witness = FileTrail(against)
        earlier = await _taken(witness, progress, f"reading {against.name}")
        since = compare(earlier, verifier, oldest_may_be_gone=trail.oldest_may_be_gone())
        return verifier, [*problems, *witness.problems(earlier), *since]


async def _taken(trail: Trail, progress: Progress, what: str) -> Verifier:
    verifier, task = Verifier(), progress.add_task(what, total=trail.count)
    async for entry in trail.entries():
        verifier.take(entry)
        progress.advance(task)
    return verifier


def _chains(verifier: Verifier) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("writer", "incarnation", "records", "newest", "head"):
        table.add_column(name, justify="right" if name == "records" else "left", overflow="fold")
    for head in verifier.heads:
        chain = verifier.chains[head.writer, head.incarnation]
        cells = (clean(head.writer), clean(head.incarnation), str(len(chain.records)), when(chain.newest_ns))
        table.add_row(*map(Text, cells), Text(head.digest[:12]))
    return table


async def _export(broker: Broker, path: Path) -> tuple[int, list[Problem]]:
    with _progress() as progress:
        async with broker.stream() as (_, trail):
            task = progress.add_task("exporting", total=trail.count)
            return await write_export(trail, broker.gateway, path, lambda: progress.advance(task))


async def _tail(broker: Broker, kinds: Sequence[str], agents: Sequence[str], last: int) -> None:
    console = Console(soft_wrap=True)
    async with broker.stream() as (bus, trail):
        news, next_place = asyncio.Event(), max(1, trail.last_place - max(0, last) + 1)

        async def on_record(message: BusMessage) -> None:
            news.set()

        await bus.subscribe(subjects.audits(broker.gateway), on_record)
        bus.on_reconnect(news.set)
        while True:
            next_place = await _print_from(trail, next_place, console, kinds, agents)
            await _wait(bus, news)


async def _print_from(
    trail: StreamTrail, place: int, console: Console, kinds: Sequence[str], agents: Sequence[str]
) -> int:
    """Print what the stream holds from a place on, and return the place behind it. A broker that is away is waited for.

    The stream is read, not what is published: a record that came while the link was down is not missed.
    """
    with contextlib.suppress(UnavailableError):
        async for entry in trail.entries(place):
            place = entry.place + 1
            if entry.record is None or entry.record.writer != entry.writer:
                console.print(Text(f"place {entry.place}: no audit record of {clean(entry.writer)}", style="red"))
            elif is_wanted(entry.record, kinds, agents):
                console.print(line_of(entry.record))
    return place


async def _wait(bus: Bus, news: asyncio.Event) -> None:
    """Wait until something was published; say so when the connection is gone for good.

    Raises:
        UnavailableError: the broker closed it.
    """
    waiting = [asyncio.ensure_future(news.wait()), asyncio.ensure_future(bus.closed.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    if bus.closed.is_set():
        raise UnavailableError(f"nats {bus.settings.nats_url} closed the connection")
    news.clear()


def is_wanted(record: AuditRecord, kinds: Sequence[str], agents: Sequence[str]) -> bool:
    """Say whether a record is of one of these kinds, and concerns one of these agents; empty: all."""
    if kinds and record.kind not in kinds:
        return False
    return not agents or record.writer in agents or str(body_of(record).get("agent")) in agents


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
