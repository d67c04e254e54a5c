"""`edgeagents conflict`: what agents disagreed on, how it was settled, and why.

Source: docs/conflicts.md; cyclopts 5.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagents.cli.lines import clean, shown
from edgeagents.cli.service import objects, segment
from edgeagents.cli.task import DEFAULT, Coordinator, call, understood

Id = Annotated[str, Parameter(help="the conflict's id")]
conflict = App(name="conflict", help="Look at conflicts between agents, and how they were settled.")


@conflict.command(name="list")
def list_(*, limit: int = 20, coordinator: Coordinator = DEFAULT) -> None:
    """List conflicts settled since the coordinator's start, the newest first; `edgeagents why` knows older ones."""
    found = call("GET", coordinator, f"/api/v3/conflict/all?limit={limit}")
    with understood(coordinator):
        rows = [_cells(item) for item in objects(found, "conflicts")]
    table = Table("id", "about", "between", "settled by", "outcome", box=None, header_style="dim")
    for row in rows:
        table.add_row(*(Text(clean(text)) for text in row))
    Console().print(table if rows else "no conflict yet")


@conflict.command
def show(name: Id, /, *, coordinator: Coordinator = DEFAULT) -> None:
    """Show how a conflict was settled: what options were worth to whom, the runner-up, and the reasons."""
    found = call("GET", coordinator, f"/api/v3/conflict/id/{segment(name)}")
    with understood(coordinator):
        lines = list(described(found["conflict"]))
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(Text(clean(line)))


def described(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield a settled conflict in lines, as the coordinator shows it."""
    yield "  ".join(_cells(item))
    yield f"asked by {item['askedBy']}, who wanted {shown(item['wanted'])}: {item['because']}"
    for party in item["parties"]:
        yield party_line(party)
    if item["runnerUp"]:
        yield f"runner-up: {shown(item['runnerUp'])}"
    for reason in item["reasons"]:
        yield f"- {reason}"
    if item.get("released"):
        yield f"binds nobody any more: {item['released']}"


def party_line(party: Mapping[str, Any]) -> str:
    """Return what a party wanted, and what options were worth to it, the best first."""
    worth = sorted(party.get("worth", {}).items(), key=lambda pair: -float(pair[1]))
    told = ", ".join(f"{shown(option)} {float(value):.2f}" for option, value in worth)
    way = f", would have {shown(party['way'])}" if party.get("way") else ""
    holds = ", holds the lease" if party.get("holds") else ""
    return f"{party['agent']} ({party['priority']}) {party['said']}{way}{holds}{': ' if told else ''}{told}"


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    outcome = f"{shown(item['value'])} by {item['winner']}" if item["winner"] else "nothing: all goes on as it was"
    between = ", ".join(str(party["agent"]) for party in item["parties"])
    return str(item["id"]), f"{item['deviceName']}/{item['resourceName']}", between, str(item["rung"]), outcome
