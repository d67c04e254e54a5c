"""`edgeagents approvals`: what waits for a human, and the human's word.

Source: design.md section 3.6.
"""

from pathlib import Path
from urllib.parse import quote

from cyclopts import App
from rich.console import Console
from rich.table import Table

from edgeagents.cli.guard import DEFAULT_GUARD, Guard, Reason, TokenFile, call

approvals = App(name="approvals", help="Commands that wait for a human: list, approve, deny.")


@approvals.command(name="list")
def list_waiting(*, token_file: TokenFile, guard: Guard = DEFAULT_GUARD) -> None:
    """Show the commands that wait, oldest first."""
    body = call("GET", guard, "/api/v3/approval", token_file)
    if not body["approvals"]:
        Console().print("nothing waits for approval")
        return
    table = Table(box=None, header_style="bold")
    for name in ("id", "agent", "wants", "class", "because", "seconds left"):
        table.add_column(name, overflow="fold")
    for item in body["approvals"]:
        wish = f"{item['deviceName']}/{item['resourceName']} = {item['value']}"
        table.add_row(
            item["commandId"], item["agent"], wish, item["riskClass"], item["because"], f"{item['secondsLeft']:.0f}"
        )
    Console().print(table)


@approvals.command
def approve(command_id: str, *, token_file: TokenFile, guard: Guard = DEFAULT_GUARD, reason: Reason = "") -> None:
    """Let a command pass; the gate judges it again before it goes out."""
    _decide(command_id, "approve", token_file, guard, reason)


@approvals.command
def deny(command_id: str, *, token_file: TokenFile, guard: Guard = DEFAULT_GUARD, reason: Reason = "") -> None:
    """Refuse a command."""
    _decide(command_id, "deny", token_file, guard, reason)


def _decide(command_id: str, decision: str, token_file: Path, guard: str, reason: str) -> None:
    path = f"/api/v3/approval/{quote(command_id, safe='')}"
    call("POST", guard, path, token_file, {"decision": decision, "reason": reason})
    Console().print(f"{decision}d: {command_id}" if decision == "approve" else f"denied: {command_id}")
