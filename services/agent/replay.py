"""`python -m services.agent --replay …`: decides again what the audit says was decided, and compares bit for bit.

Each decision is made anew from its record alone: the agent file of its chain's `started` record, the view the stages
saw, the site time. Nothing is sent anywhere. Compared is the text that the audit keeps, so 0.1 and 0.10000000000000002
are two values.

Source: design.md section 3.9.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from edgeagents import __version__
from edgeagents.adapters.bus import Bus
from edgeagents.errors import EdgeAgentsError, InvalidInputError, NotFoundError
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import ChainName, Verifier
from edgeagents.settings import BusSettings
from edgeagents.trail import FileTrail, StreamTrail, Trail
from services.agent.decision import DecisionStage, decide, described, stages_of
from services.agent.record import definition_of, observation_of
from services.agent.rules import RuleBook

COMPARED: Final = ("decision", "stage", "confidence", "inputs", "intents", "data_origin_ns", "model")
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of one decision: `differences` is empty when it was made again bit for bit."""

    decision: str
    writer: str
    incarnation: str
    number: int
    differences: tuple[str, ...] = ()
    missing: str = ""  # why it could not be replayed

    @property
    def is_equal(self) -> bool:
        """Whether the same inputs gave the same decision."""
        return not self.differences and not self.missing

    def __str__(self) -> str:
        what = f"not replayed: {self.missing}" if self.missing else "; ".join(self.differences)
        return f"{self.writer} {self.incarnation} #{self.number}, decision {self.decision}: {what}"


@dataclass(slots=True)
class _Start:
    """What a chain's agent started with; `problem` says why that cannot be used."""

    stages: list[DecisionStage] = field(default_factory=list)
    problem: str = ""
    version: str = ""


class Replayer:
    """Takes records in the order of their chains; replays the decisions among them."""

    def __init__(self, only: str = "") -> None:
        """Replay one decision id, or all decisions when `only` is empty."""
        self._only = only
        self._starts: dict[ChainName, _Start] = {}

    def take(self, record: AuditRecord) -> Replayed | None:
        """Return what came of a decision's record, None for any other."""
        chain = (record.writer, record.incarnation)
        if record.kind == "started":
            self._starts[chain] = _start(record)
        if record.kind != "decision":
            return None
        body = _body(record)
        decision = str(body.get("decision") or "of an unknown id")
        if self._only and decision != self._only:
            return None
        start = self._starts.get(chain, _Start(problem="the chain's `started` record is not there"))
        try:
            differences = _differences(body, start)
        except InvalidInputError as error:
            return Replayed(decision, *chain, record.number, missing=str(error))
        except (ValueError, TypeError, ArithmeticError, OSError) as error:  # no agent of ours wrote such values
            return Replayed(decision, *chain, record.number, missing=f"its values cannot be used: {error}")
        return Replayed(decision, *chain, record.number, tuple(differences))


def _start(record: AuditRecord) -> _Start:
    body = _body(record)
    try:
        agent = definition_of(body)
        stages = stages_of(agent, RuleBook(agent, f"{agent.name} as in the audit"))
    except EdgeAgentsError as error:
        return _Start(problem=str(error))
    return _Start(stages, version=str(body.get("version", "")))


def _differences(body: Mapping[str, Any], start: _Start) -> list[str]:
    if start.problem:
        raise InvalidInputError(start.problem)
    observation, view = observation_of(body)
    try:
        decision = decide(observation, view, [stage for stage in start.stages if stage.name in list(body["stages"])])
    except KeyError as error:
        raise InvalidInputError("the record does not say which stages were asked") from error
    except NotFoundError as error:
        return [_versions(f"looks at something else now: {error}", start)]
    if decision is None:
        return [_versions("decides nothing now", start)]
    again = described(decision)
    return [
        _versions(f"{name} was {_text(body.get(name))}, is {_text(again[name])}", start)
        for name in COMPARED
        if _text(body.get(name)) != _text(again[name])
    ]


def _versions(text: str, start: _Start) -> str:
    return text if start.version == __version__ else f"{text} (decided by version {start.version}, now {__version__})"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _body(record: AuditRecord) -> dict[str, Any]:
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


async def replay(trail: Trail, only: str = "", progress: Progress | None = None) -> tuple[list[Replayed], list[str]]:
    """Return what came of each decision of a trail, and what is wrong with the trail's chains."""
    replayer, verifier, found = Replayer(only), Verifier(), []
    task = progress.add_task("replaying", total=trail.count) if progress is not None else None
    async for entry in trail.entries():
        verifier.take(entry)
        if entry.record is not None and entry.record.writer == entry.writer:
            came = replayer.take(entry.record)
            if came is not None:
                found.append(came)
        if progress is not None and task is not None:
            progress.advance(task)
    return found, [str(problem) for problem in trail.problems(verifier)]


def main(argv: Sequence[str]) -> int:
    """Replay what the command line says; return 0 when all is equal, 1 when not, 2 when nothing could be read."""
    arguments = _arguments(argv)
    try:
        found, problems = asyncio.run(_replay(arguments))
    except EdgeAgentsError as error:
        return _fail(str(error))
    return _tell(found, problems, arguments)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.agent --replay",
        description="Decide again what the audit says was decided. The broker is that of EDGEAGENTS_NATS_URL.",
    )
    parser.add_argument("--replay", metavar="DECISION", required=True, help="a decision's id, or 'all'")
    parser.add_argument("--file", type=Path, help="read this export instead of the gateway's broker")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args(argv)


async def _replay(arguments: argparse.Namespace) -> tuple[list[Replayed], list[str]]:
    only = "" if arguments.replay == "all" else arguments.replay
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        async with _trail(arguments.file) as trail:
            return await replay(trail, only, progress)


@asynccontextmanager
async def _trail(file: Path | None) -> AsyncIterator[Trail]:
    if file is not None:
        yield FileTrail(file)
        return
    bus = await Bus.connect(BusSettings(), "edgeagents-replay")
    try:
        yield await StreamTrail.open(bus)
    finally:
        await bus.close()


def _fail(text: str) -> int:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "red"), text))
    return 2


def _tell(found: Sequence[Replayed], problems: Sequence[str], arguments: argparse.Namespace) -> int:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not found:
        which = "" if arguments.replay == "all" else f" {arguments.replay}"
        return _fail(f"the audit holds no decision{which}: `edgeagents why AGENT` shows an agent's last ones")
    different = [item for item in found if not item.is_equal]
    for item in different[:SHOWN]:
        console.print(str(item), style="red")
    if len(different) > SHOWN:
        console.print(f"… and {len(different) - SHOWN} more", style="red")
    if problems:
        console.print(f"the chains are not whole ({len(problems)} problems): `edgeagents audit verify`", style="red")
    console.print(f"{len(found) - len(different)} equal of {len(found)}", style="bold")
    if arguments.json:
        result = {"decisions": len(found), "equal": len(found) - len(different), "problems": list(problems)[:SHOWN]}
        sys.stdout.write(json.dumps({**result, "different": [str(item) for item in different[:SHOWN]]}) + "\n")
    return 1 if different or problems else 0
