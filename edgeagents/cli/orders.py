"""`edgeagents pause`, `resume`, `mode`, `orders`: the owner's word while everything runs.

Source: design.md section 3.8.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from edgeagents.cli.guard import DEFAULT_GUARD, Guard, Reason, TokenFile, call, understood
from edgeagents.cli.lines import clean
from edgeagents.cli.service import objects

Scope = Annotated[Literal["agent", "device", "all"], Parameter(help="an agent, a device, or everything")]
Name = Annotated[str, Parameter(help="of the agent or device")]


def pause(
    scope: Scope, name: Name = "", *, token_file: TokenFile, guard: Guard = DEFAULT_GUARD, reason: Reason = ""
) -> None:  # fmt: skip
    """Stop actuation at once; what waits is refused. Holds over restarts, until it is resumed."""
    _place("pause", scope, name, token_file, guard, reason)


def resume(
    scope: Scope, name: Name = "", *, token_file: TokenFile, guard: Guard = DEFAULT_GUARD, reason: Reason = ""
) -> None:  # fmt: skip
    """End a pause; what was given before stays refused, and other pauses hold on."""
    _place("resume", scope, name, token_file, guard, reason)


def mode(
    agent: Annotated[str, Parameter(help="name of the agent")],
    mode: Annotated[Literal["observe", "act"], Parameter(help="observe: decide and write down, command nothing")],
    *,
    token_file: TokenFile,
    guard: Guard = DEFAULT_GUARD,
    reason: Reason = "",
) -> None:
    """Let an agent act, or only observe, whatever its file says; until its file is changed."""
    body = {"name": agent, "mode": mode, "reason": reason}
    _show(guard, call("POST", guard, "/api/v3/mode", token_file, body))


def orders(*, guard: Guard = DEFAULT_GUARD) -> None:
    """Show what is paused, and each agent's mode."""
    _show(guard, call("GET", guard, "/api/v3/guard"))


def add_orders(app: App) -> None:
    """Add the commands to the command line."""
    for command in (pause, resume, mode, orders):
        app.command(command)


def _place(verb: str, scope: str, name: str, token_file: Path, guard: str, reason: str) -> None:
    body = call("POST", guard, f"/api/v3/{verb}", token_file, {"scope": scope, "name": name, "reason": reason})
    _show(guard, body)


def _show(guard: str, body: Mapping[str, Any]) -> None:
    with understood(guard):
        lines = [*_paused(body), *_modes(body), *_overrides(body)]
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        console.print(Text(clean(line)))


def _paused(body: Mapping[str, Any]) -> list[str]:
    lines = []
    for item in objects(body, "paused"):
        what = "everything" if item["scope"] == "all" else f"{item['scope']} {item['name']}"
        lines.append(f"paused: {what}, {_by(item)}")
    return lines or ["nothing is paused"]


def _modes(body: Mapping[str, Any]) -> list[str]:
    ordered = {item["agent"]: item for item in (objects(body, "modeOrders") if "modeOrders" in body else ())}
    return [
        f"{name}: {now}" + (f", {_by(ordered[name])}" if name in ordered else "") for name, now in body["modes"].items()
    ]


def _overrides(body: Mapping[str, Any]) -> list[str]:
    lines = []
    for item in objects(body, "overrides") if "overrides" in body else ():
        until = datetime.fromtimestamp(item["untilSite"], UTC)
        what = f"{item['deviceName']}/{item['resourceName']} was set by hand to {item['value']}"
        lines.append(f"{what}: agents stand back until {until:%Y-%m-%d %H:%M} (site time)")
    return lines


def _by(item: Mapping[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(item["sinceUnixNs"] / 1e9))
    return f"by {item['by']} since {since}" + (f": {item['reason']}" if item["reason"] else "")
