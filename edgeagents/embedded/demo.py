"""`make demo`: a home on this machine, seen on a live terminal page, told in lines, or run headless for its figures.

    python -m edgeagents.embedded.demo [--seconds 30] [--json] [--factor 60] [--seed 10]

Source: issue "First light".
"""

import argparse
import asyncio
import contextlib
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.files import load_model, load_site
from edgeagents.embedded.evidence import collect
from edgeagents.embedded.gateway import GATEWAY, Gateway, Plan
from edgeagents.embedded.page import Story, render, told, told_home
from edgeagents.embedded.tally import summarise, tally
from edgeagents.errors import EdgeAgentsError, InvalidInputError, MalformedMessageError
from edgeagents.model.device import Device
from edgeagents.model.gateways import Gateways
from edgeagents.model.message import AuditRecord
from edgeagents.trail import StreamTrail, export

TELL_HOME_EVERY_S = 5.0
WINTER_MORNING_S = datetime(2026, 1, 14, 6, 0, tzinfo=UTC).timestamp()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.WARNING if arguments.verbose else logging.ERROR, stream=sys.stderr)
    folder = (arguments.keep or Path(tempfile.mkdtemp(prefix="edgeagents-demo-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        return asyncio.run(_run(arguments, folder))
    except EdgeAgentsError as error:
        print(f"demo: {error}", file=sys.stderr)
        print(f"logs are in {folder / 'log'}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep is None and sys.exc_info()[0] is None:
            shutil.rmtree(folder, ignore_errors=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo ARGS=…", description="A home run by agents and a guard, with an assistant."
    )
    parser.add_argument("--seconds", type=float, default=0, help="end by itself after so many seconds (0: Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="no page; one JSON object as the last line")
    parser.add_argument("--factor", type=float, default=60, help="times faster than real time (60)")
    # In this one electricity is dear in the first hour, and somebody airs the bedroom: there is something to settle.
    parser.add_argument("--seed", type=int, default=10, help="of weather, prices and people (10)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep state, logs and journals here")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the audit here at the end")
    parser.add_argument(
        "--profiles", type=Path, default=Path("edgex-profiles/home").resolve(), help="site.yaml, agents/, …"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", default=Path("models/smollm2-135m-instruct").resolve(),
        help="of the language model; taken when it is there (make model)",
    )  # fmt: skip
    parser.add_argument("--gateways", type=Path, metavar="FILE", help="gateways.yaml: other gateways to be linked to")
    parser.add_argument("--verbose", action="store_true", help="say what the supervisor does")
    return parser.parse_args(argv)


async def _run(arguments: argparse.Namespace, folder: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    model = arguments.model if (arguments.model / "manifest.json").exists() else None
    name = load_model(Gateways, arguments.gateways).gateway if arguments.gateways is not None else GATEWAY
    plan = Plan(
        folder, arguments.profiles, arguments.factor, _site_start_s(folder), seed=arguments.seed, model=model,
        coordinator=True, gateway=name, gateways_file=arguments.gateways,
    )  # fmt: skip
    gateway = Gateway(plan)
    gateway.start()
    console = Console(stderr=True)
    try:
        await _come_up(gateway, console, stop)
        if stop.is_set():
            return 130
        gateway.start_model()  # the home runs on rules meanwhile
        bus = await gateway.connect()
        try:
            if arguments.json:
                await _watch(gateway, bus, stop, arguments.seconds or 30, None)
                print(json.dumps(await figures(gateway, bus), ensure_ascii=False))
            else:
                await _watch(gateway, bus, stop, arguments.seconds, Console())
            if arguments.export is not None:
                await export(await StreamTrail.open(bus), bus.settings.gateway, arguments.export)
        finally:
            await bus.close()
    finally:
        await gateway.stop()
    return 0


def _site_start_s(folder: Path) -> float:
    """Return where site time begins: in a kept folder where the house was left, so that nothing lies in the future."""
    try:
        house = json.loads((folder / "world" / "home.json").read_bytes())
        return max(WINTER_MORNING_S, float(house["home"]["site_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return WINTER_MORNING_S


async def _come_up(gateway: Gateway, console: Console, stop: asyncio.Event) -> None:
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        progress.add_task("starting nats-server, EdgeX core, guard, world and agents …")
        ready = asyncio.create_task(gateway.ready())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ready
            return
        stopped.cancel()
        ready.result()


async def _watch(gateway: Gateway, bus: Bus, stop: asyncio.Event, seconds: float, console: Console | None) -> None:
    """Let the home run until the time is over or somebody stops it; with a console, show the page.

    Where the console is no terminal (a pipe, a log) each thing done is a line, and every few seconds the home is.
    """
    story = Story()
    has_page = console is not None and console.is_terminal
    tells = console is not None and not has_page

    async def on_record(message: BusMessage) -> None:
        with contextlib.suppress(MalformedMessageError, InvalidInputError, ValueError):
            record = wire.decode(AuditRecord, message.data)
            body, writer = json.loads(record.body), subjects.writer(message.subject)
            story.take(record.kind, body, writer)
            if tells and (line := told(record.kind, body, writer)):
                print(line, flush=True)

    subscription = await bus.subscribe(subjects.audits(bus.settings.gateway), on_record)
    until_s = time.monotonic() + seconds if seconds else float("inf")
    live = Live(console=console, screen=True, auto_refresh=False) if has_page else None
    tell_s = 0.0
    with live if live is not None else contextlib.nullcontext():
        while not stop.is_set() and time.monotonic() < until_s:
            if live is not None:
                await _show(live, gateway, story)
            elif tells and time.monotonic() >= tell_s:
                tell_s = time.monotonic() + TELL_HOME_EVERY_S
                print(told_home(await gateway.state("world", "/api/v3/world")), flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(0.5, max(0.01, until_s - time.monotonic())))
    await subscription.unsubscribe()


async def _show(live: Live, gateway: Gateway, story: Story) -> None:
    world = await gateway.state("world", "/api/v3/world")
    guard = await gateway.state("guard", "/api/v3/guard")
    model = await gateway.state("inference", "/api/v3/inference") if gateway.plan.model is not None else {}
    tasks = await gateway.state("coordinator", "/api/v3/task/all?limit=4")
    footer = (
        f"{gateway.plan.factor:g} times real time · EdgeX core-command at {gateway.url('command')} · "
        f"give a task: edgeagents task submit … --coordinator {gateway.url('coordinator')} · "
        f"language model {_model_word(model)} · state in {gateway.plan.folder} · Ctrl-C ends it"
    )
    live.update(render(world, guard, story, footer, tasks), refresh=True)


def _model_word(state: dict[str, Any]) -> str:
    """Return what is to be said of the language model."""
    return "not there" if not state else "ready" if state.get("ready") else "loading"


async def figures(gateway: Gateway, bus: Bus) -> dict[str, Any]:
    """Have the agents stop deciding, give what is under way its time, and return the figures of the run."""
    until_ns = time.time_ns()
    await gateway.stop_deciding()
    await gateway.settle(bus)
    world = await gateway.state("world", "/api/v3/world")
    plan, devices = gateway.plan, await _devices(gateway)
    site = load_site(plan.profiles / "site.yaml")
    evidence = await collect(bus, gateway.agents, devices, plan.folder / "journal", until_ns, site)
    return summarise(tally(evidence), evidence, world.get("score", {}))


async def _devices(gateway: Gateway) -> dict[str, Device]:
    body = await gateway.state("metadata", "/api/v3/device/all?limit=-1")
    return {item["name"]: Device.model_validate(item) for item in body.get("devices", [])}


if __name__ == "__main__":
    sys.exit(main())
