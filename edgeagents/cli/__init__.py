"""The command `edgeagents`: one file a command group, imported when the command starts.

Source: cyclopts 5.
"""

import sys

from cyclopts import App
from rich.console import Console

from edgeagents import __version__
from edgeagents.cli.approvals import approvals
from edgeagents.cli.backup import backup, restore
from edgeagents.errors import EdgeAgentsError

app = App(name="edgeagents", help="Cooperating agents on an EdgeX gateway.", version=__version__)
app.command(approvals)
app.command(backup)
app.command(restore)


def main() -> None:
    """Run the command line and exit: 0 when done, 1 when it could not be, 2 for a wrong command line."""
    try:
        app()
    except EdgeAgentsError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/] {error}", highlight=False)
        sys.exit(1)
