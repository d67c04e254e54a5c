"""`edgeagents approvals`: what waits for a human, and the human's word.

Source: design.md section 3.6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from edgeagents.errors import UnavailableError, UpstreamError, error_for_status
from edgeagents.settings import read_secret

approvals = App(name="approvals", help="Commands that wait for a human: list, approve, deny.")

Guard = Annotated[str, Parameter(name="--guard", env_var="EDGEAGENTS_GUARD_URL", help="address of the guard")]
TokenFile = Annotated[
    Path, Parameter(name="--token-file", env_var="EDGEAGENTS_TOKEN_FILE", help="file with your approver's token")
]
Reason = Annotated[str, Parameter(name="--reason", help="kept in the audit")]
DEFAULT_GUARD = "http://127.0.0.1:59740"


@approvals.command(name="list")
def list_waiting(*, token_file: TokenFile, guard: Guard = DEFAULT_GUARD) -> None:
    """Show the commands that wait, oldest first."""
    body = _call("GET", guard, "/api/v3/approval", token_file)
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
    _call("POST", guard, path, token_file, {"decision": decision, "reason": reason})
    Console().print(f"{decision}d: {command_id}" if decision == "approve" else f"denied: {command_id}")


def _call(
    method: str, guard: str, path: str, token_file: Path, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {read_secret(token_file).get_secret_value()}"}
    try:
        answer = httpx.request(method, f"{guard.rstrip('/')}{path}", headers=headers, json=body, timeout=10.0)
    except httpx.HTTPError as error:
        raise UnavailableError(f"guard {guard}: {error}: is it up, is --guard right?") from error
    try:
        content = answer.json()
    except ValueError as error:
        raise UpstreamError(f"guard {guard}: answered {answer.status_code} without JSON: is it a guard?") from error
    if answer.is_error:
        raise error_for_status(answer.status_code, str(content.get("message", content)))
    return dict(content)
