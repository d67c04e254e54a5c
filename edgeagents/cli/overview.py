"""`edgeagents status`, `agents`, `devices`: how a gateway stands, who runs on it, and what may be commanded by whom.

What devices, agents and people wrote moves no cursor (`lines.clean`).

Source: issue 6, "Operations".
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cyclopts import App
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagents.cli.doctor import Json
from edgeagents.cli.lines import STATUS_STYLES, clean, shown, when
from edgeagents.cli.place import DEFAULT_PLACE, Place
from edgeagents.cli.survey import device_rows, read_devices, read_status

SHARED_STYLES: Final = {"up": "", "none": "dim", "waits": "yellow"}


def status(*, place: Place = DEFAULT_PLACE, json_: Json = False) -> None:
    """Show on one screen how a gateway stands: broker, links, EdgeX, tasks, model, guard, agents, commands, pauses."""
    body = asyncio.run(read_status(place.resolved()))
    if json_:
        _print(body)
        return
    console = Console(highlight=False)
    console.print(_parts(body))
    console.print(_agents(body["agents"]))
    for line in _orders(body["guard"]):
        console.print(Text(clean(line), style="yellow"))


def agents(*, place: Place = DEFAULT_PLACE, json_: Json = False) -> None:
    """Show each agent: mode, session, what it decided and commanded, what it waits for."""
    body = asyncio.run(read_status(place.resolved()))
    _print({"agents": body["agents"]}) if json_ else Console(highlight=False).print(_agents(body["agents"]))


def devices(*, place: Place = DEFAULT_PLACE, json_: Json = False) -> None:
    """Show each device resource: who may command it, its last reading, and who holds its lease."""
    rows = device_rows(asyncio.run(read_devices(place.resolved())))
    if json_:
        _print({"devices": rows})
        return
    columns = ("device", "resource", "last reading", "at (UTC)", "may command", "class", "lease of")
    cells = (
        (
            row["device"], row["resource"], _value(row), when(row["originNs"]) if row["originNs"] else "",
            ", ".join(row["mayCommand"]), row["riskClass"], row["lease"],
        )
        for row in rows
    )  # fmt: skip
    Console(highlight=False).print(_table(columns, cells))


def add_overview(app: App) -> None:
    """Add the commands to the command line."""
    for command in (status, agents, devices):
        app.command(command)


def _print(body: Mapping[str, Any]) -> None:
    print(json.dumps(body))


def _value(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return ""
    return f"{shown(row['value'])} {row['units']}".strip()


def _parts(body: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("gateway", Text(clean(body["gateway"])))
    for name in ("broker", "edgex"):
        is_up = body[name]["state"] == "up"
        table.add_row(name, Text(clean(body[name]["text"]), style="" if is_up else "bold red"))
    for link in body["links"]:
        style = "" if link["state"] == "up" else "yellow"
        table.add_row(Text(clean(link["link"])), Text(clean(link["text"]), style=style))
    for name, word in (("coordinator", "tasks"), ("model", "model")):
        table.add_row(word, Text(clean(body[name]["text"]), style=SHARED_STYLES.get(body[name]["state"], "bold red")))
    guard = body["guard"]
    if guard["problem"]:
        table.add_row("guard", Text(clean(guard["problem"]), style="bold red"))
        return table
    words = f"{guard['url']}, generation {guard['generation']}, {guard['waiting']} commands wait"
    table.add_row("guard", Text(clean(words)))
    outcomes = Text()
    for name, count in sorted(guard["outcomes"].items()):
        outcomes.append(clean(f"{name} {count}  "), style=STATUS_STYLES.get(name, ""))
    table.add_row("commands", outcomes if outcomes.plain else Text("none ended since the guard started"))
    return table


def _orders(guard: Mapping[str, Any]) -> list[str]:
    lines = ["the guard's volume is full: only safety commands are taken"] if guard["volume_full"] else []
    for item in guard["paused"]:
        what = "everything" if item.get("scope") == "all" else f"{item.get('scope')} {item.get('name')}"
        lines.append(f"paused: {what}, by {item.get('by')}")
    lines += [f"blocked: {name}: {why}" for name, why in guard["blocked"].items()]
    lines += [
        f"set by hand: {item.get('deviceName')}/{item.get('resourceName')} = {item.get('value')}"
        for item in guard["overrides"]
    ]
    return lines


def _agents(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("agent", "mode", "session", "decisions", "commands", "held back", "pending", "note")
    cells = (
        (
            row["name"], row["mode"], "yes" if row["session"] else "no", row["decisions"], row["commands"],
            row["heldBack"], row["pending"],
            row["problem"] or (f"waits for {', '.join(row['waitsFor'])}" if row["waitsFor"] else ""),
        )
        for row in rows
    )  # fmt: skip
    return _table(columns, cells)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(str(cell))) for cell in row))
    return table
