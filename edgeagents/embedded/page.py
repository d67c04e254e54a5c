"""The demo's live terminal page: rooms, setpoints, who decided what and why, what the guard refused; or lines.

Pure: values in, a renderable or a line out. `demo.py` gathers the values.

Source: rich 15.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgeagents.subjects import COORDINATOR

DECISION_LINES = 12
COLOURS = {"comfort": "yellow", "energy": "green", "air": "cyan", "guard": "magenta"}
MARKS = {
    "proven": ("✔", "green"), "refused": ("✘", "red"), "failed": ("✘", "red"), "expired": ("⏱", "red"),
    "uncertain": ("?", "red"), "unproven": ("·", "yellow"),
}  # fmt: skip


NOTHING: Mapping[str, Any] = {}


@dataclass(slots=True)
class Story:
    """What happened lately, newest first, and the totals."""

    decisions: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=24))
    outcomes: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=8))
    refusals: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=4))
    conflicts: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=4))
    decided: int = 0

    def take(self, kind: str, body: Mapping[str, Any], writer: str = "") -> None:
        """Take in an audit record; how a conflict was settled counts from the coordinator alone, its `writer`."""
        if kind == "decision":
            self.decided += 1
            self.decisions.appendleft(body)
        elif kind == "conflict" and writer == COORDINATOR:
            self.conflicts.appendleft(body)
        elif kind == "command":
            (self.refusals if body["status"] == "refused" else self.outcomes).appendleft(body)


def render(
    world: Mapping[str, Any], guard: Mapping[str, Any], story: Story, footer: str, tasks: Mapping[str, Any] = NOTHING
) -> RenderableType:
    """Return the whole page; `tasks` are the newest ones as the coordinator lists them."""
    return Group(
        _header(world, guard),
        *_owners_word(guard),
        _rooms(world, guard),
        Panel(_decisions(story), title="who decided what, and why", title_align="left", border_style="dim"),
        Panel(_outcomes(story), title="what the guard did", title_align="left", border_style="dim"),
        *_conflicts(story),
        *_tasks(tasks),
        Text(footer, style="dim"),
    )


def told(kind: str, body: Mapping[str, Any], writer: str = "") -> str:
    """Return an audit record as a line for who has no terminal to show the page on; "" where it has nothing to show."""
    if kind == "command":
        what = f"{body['device']}/{body['resource']} = {_value(body['value'])}"
        reason = f": {body['reason']}" if body["reason"] else ""
        return f"{MARKS.get(str(body['status']), ('·', ''))[0]} {body['status']}  {body['agent']}  {what}{reason}"
    if kind == "conflict" and writer == COORDINATOR:
        what = f"{body['device']}/{body['resource']}"
        return f"⚖ {body['rung']}  {what}  {_ways(body)}: {_how_settled(body)}, {_why_settled(body)}"
    return ""


def told_home(world: Mapping[str, Any]) -> str:
    """Return the home in one line: the time, the weather, every room's temperature in °C."""
    if not world:
        return "the world is away …"
    when = datetime.fromtimestamp(float(world.get("site_s", 0)), UTC)
    rooms = ", ".join(f"{room} {_number(points.get('temperature'))}" for room, points in world.get("rooms", {}).items())
    return f"{when:%a %d %b  %H:%M}  outdoors {_number(world.get('house', {}).get('outdoor'))} °C; {rooms} °C"


def _header(world: Mapping[str, Any], guard: Mapping[str, Any]) -> RenderableType:
    if not world:
        return Text("the world is away …", style="red")
    when = datetime.fromtimestamp(float(world.get("site_s", 0)), UTC)
    house, score = world.get("house", {}), world.get("score", {})
    outcomes = guard.get("outcomes", {})
    grid = Table.grid(expand=True, padding=(0, 2))
    for _ in range(4):
        grid.add_column()
    grid.add_row(
        Text(f"{when:%a %d %b  %H:%M}", style="bold"),
        f"outdoors {_number(house.get('outdoor'))} °C, sun {_number(house.get('irradiance'), 0)} W/m²",
        f"{_number(house.get('price'), 3)} EUR/kWh, house {_number(house.get('meter-power'), 0)} W",
        f"proven [green]{outcomes.get('proven', 0)}[/]  refused [red]{outcomes.get('refused', 0)}[/]",
    )
    grid.add_row(
        f"water {_number(house.get('flow-setpoint'))} °C",
        f"heat pump {_number(house.get('heat-pump-power'), 0)} W, ventilation {house.get('ventilation-level', '–')}",
        f"energy {_number(score.get('energy_kwh'), 2)} kWh",
        f"discomfort {_number(score.get('comfort_violation_degree_hours'), 2)} °C·h",
    )
    return Panel(grid, title="edgeagents: a home", title_align="left")


def _owners_word(guard: Mapping[str, Any]) -> list[RenderableType]:
    """Return a line for each pause, each agent that only observes by order, and each resource set by hand."""
    lines: list[RenderableType] = []
    for item in guard.get("paused", []):
        what = "everything" if item["scope"] == "all" else f"{item['scope']} {item['name']}"
        lines.append(Text(f"⏸ paused: {what}, by {_reasoned(item)}", style="bold red"))
    lines += [
        Text(f"◎ {item['agent']} is in mode {item['mode']}, by {_reasoned(item)}", style="yellow")
        for item in guard.get("modeOrders", [])
    ]
    for item in guard.get("overrides", []):
        until = datetime.fromtimestamp(float(item["untilSite"]), UTC)
        lines.append(
            Text(
                f"✋ {item['deviceName']}/{item['resourceName']} set by hand to {_value(item['value'])}: "
                f"agents stand back until {until:%H:%M}",
                style="bold yellow",
            )
        )
    return lines


def _reasoned(item: Mapping[str, Any]) -> str:
    return f"{item['by']}: {item['reason']}" if item.get("reason") else str(item["by"])


def _rooms(world: Mapping[str, Any], guard: Mapping[str, Any]) -> RenderableType:
    table = Table(expand=True, box=None, header_style="dim")
    for name in ("room", "°C", "setpoint", "valve", "CO₂ ppm", "", "who holds the valve"):
        table.add_column(name, justify="right" if name in ("°C", "setpoint", "valve", "CO₂ ppm") else "left")
    holders = {(lease["deviceName"], lease["resourceName"]): lease["agent"] for lease in guard.get("leases", [])}
    for room, points in world.get("rooms", {}).items():
        holder = holders.get((f"radiator-{room}", "Setpoint"), "")
        signs = ["● somebody is here"] if points.get("presence") else []
        signs += ["⧉ window open"] if points.get("window-open") else []
        signs += ["☼ light"] if points.get("light-on") else []
        table.add_row(
            room,
            _warmth(points.get("temperature")),
            _number(points.get("setpoint")),
            f"{_number(points.get('opening'), 0)} %",
            _number(points.get("co2"), 0),
            "  ".join(signs),
            Text(holder, style=COLOURS.get(holder, "")),
        )
    return table


def _decisions(story: Story) -> RenderableType:
    grid = _lines(5, 7, 33)
    for body in story.decisions:
        when = datetime.fromtimestamp(float(body.get("site_s", 0)), UTC)
        agent = str(body.get("agent"))
        held_back = {(item["device"], item["resource"]): item["held_back"] for item in body.get("given", [])}
        for intent in body.get("intents", []):
            key = (intent["device"], intent["resource"])
            if key not in held_back or grid.row_count >= DECISION_LINES:
                continue
            wish = Text(f"{key[0]}/{key[1]} → {_value(intent['value'])}")
            reason = Text(f"held back: {held_back[key]} " if held_back[key] else "", style="red")
            reason.append(f"({intent['because']})" if held_back[key] else str(intent["because"]), style="dim")
            grid.add_row(f"{when:%H:%M}", Text(agent, style=COLOURS.get(agent, "")), wish, reason)
    return grid if grid.row_count else Text("nobody has decided anything yet", style="dim")


def _outcomes(story: Story) -> RenderableType:
    grid = _lines(11, 7, 33)
    for body in [*list(story.refusals)[:3], *story.outcomes]:
        mark, colour = MARKS.get(str(body["status"]), ("·", ""))
        agent = str(body["agent"])
        grid.add_row(
            Text(f"{mark} {body['status']}", style=colour),
            Text(agent, style=COLOURS.get(agent, "")),
            f"{body['device']}/{body['resource']} = {_value(body['value'])}",
            Text(str(body["reason"]), style="dim"),
        )
    return grid if grid.row_count else Text("no command yet", style="dim")


def _conflicts(story: Story) -> list[RenderableType]:
    """Return a panel with the newest conflicts, how they were settled and why; nothing while there are none."""
    if not story.conflicts:
        return []
    grid = _lines(8, 25, 33, 16)
    for body in story.conflicts:
        grid.add_row(
            Text(str(body["rung"]), style="magenta"),
            Text(f"{body['device']}/{body['resource']}"),
            Text(_ways(body)),
            Text(_how_settled(body), style=COLOURS.get(str(body["winner"]), "")),
            Text(_why_settled(body), style="dim"),
        )
    return [Panel(grid, title="conflicts, and how they were settled", title_align="left", border_style="dim")]


def _ways(body: Mapping[str, Any]) -> str:
    return ", ".join(f"{party['agent']} {_value(party.get('way', party['said']))}" for party in body["parties"])


def _how_settled(body: Mapping[str, Any]) -> str:
    return f"{_value(body['value'])} by {body['winner']}" if body["winner"] else "as it was"


def _why_settled(body: Mapping[str, Any]) -> str:
    return "; ".join(str(words) for words in (body["because"], *body["reasons"][-1:]) if words)


def _tasks(tasks: Mapping[str, Any]) -> list[RenderableType]:
    """Return a panel with the newest tasks, who has them and why; nothing while there are none."""
    if not tasks.get("tasks"):
        return []
    grid = _lines(11, 9, 33)
    for item in tasks["tasks"]:
        wanted = item["task"]
        what = f"{wanted.get('deviceName', '')}/{wanted.get('resourceName', '')} = {_value(wanted.get('value', ''))}"
        award = item["awards"][-1]["bids"] if item["awards"] else {}
        bids = ", ".join(f"{agent} {cost:.2f}" for agent, cost in sorted(award.items(), key=lambda pair: pair[1]))
        winner = str(item["winner"])
        grid.add_row(
            Text(str(item["state"]), style="green" if item["state"] == "done" else "yellow"),
            Text(winner, style=COLOURS.get(winner, "")),
            Text(what if wanted.get("deviceName") else str(wanted["skill"])),
            Text(f"bids: {bids or 'none yet'}; {item['reason']}".rstrip("; "), style="dim"),
        )
    return [Panel(grid, title="tasks, and who does them", title_align="left", border_style="dim")]


def _lines(*widths: int) -> Table:
    """Return a grid whose rows stay on one line each; the last column takes what room is left."""
    grid = Table.grid(padding=(0, 1), expand=True)
    for width in widths:
        grid.add_column(no_wrap=True, overflow="ellipsis", width=width)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    return grid


def _number(value: object, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "–"


def _value(value: object) -> str:
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def _warmth(value: object) -> Text:
    if not isinstance(value, (int, float)):
        return Text("–")
    style = "blue" if value < 18 else "green" if value < 24 else "red"
    return Text(f"{value:.1f}", style=style)
