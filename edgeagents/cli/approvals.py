"""`edgeagents approvals`: what waits for a human, and the human's word.

What is shown was written by agents: none of it may look like anything else than what they wrote (`lines.clean`).

Source: design.md section 3.6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeagents.cli.guard import DEFAULT_GUARD, Guard, Reason, TokenFile, call, understood
from edgeagents.cli.lines import clean
from edgeagents.cli.service import objects, segment

approvals = App(name="approvals", help="Commands that wait for a human: list, approve, deny.")


@approvals.command(name="list")
def list_waiting(*, token_file: TokenFile, guard: Guard = DEFAULT_GUARD) -> None:
    """Show the commands that wait, oldest first."""
    body = call("GET", guard, "/api/v3/approval", token_file)
    with understood(guard):
        rows = [_cells(item) for item in objects(body, "approvals")]
    if not rows:
        Console().print("nothing waits for approval")
        return
    table = Table(box=None, header_style="bold")
    for name in ("id", "agent", "wants", "class", "because", "seconds left"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    Console().print(table)


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    wish = f"{item['deviceName']}/{item['resourceName']} = {item['value']}"
    left = f"{item['secondsLeft']:.0f}"
    return str(item["commandId"]), str(item["agent"]), wish, str(item["riskClass"]), str(item["because"]), left


@approvals.command
def approve(command_id: str, *, token_file: TokenFile, guard: Guard = DEFAULT_GUARD, reason: Reason = "") -> None:
    """Let a command pass; the gate judges it again before it goes out."""
    _decide(command_id, "approve", token_file, guard, reason)


@approvals.command
def deny(command_id: str, *, token_file: TokenFile, guard: Guard = DEFAULT_GUARD, reason: Reason = "") -> None:
    """Refuse a command."""
    _decide(command_id, "deny", token_file, guard, reason)


def _decide(command_id: str, decision: str, token_file: Path, guard: str, reason: str) -> None:
    path = f"/api/v3/approval/{segment(command_id)}"
    call("POST", guard, path, token_file, {"decision": decision, "reason": reason})
    Console().print(Text(clean(f"{'approved' if decision == 'approve' else 'denied'}: {command_id}")))
