"""The command `edgeagents`: one file a command group, imported when the command starts.

Source: cyclopts 5.
"""

import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from cyclopts import App
from rich.console import Console
from rich.text import Text

from edgeagents import __version__
from edgeagents.cli.approvals import approvals
from edgeagents.cli.ask import ask
from edgeagents.cli.audit import audit
from edgeagents.cli.backup import backup, restore
from edgeagents.cli.conflict import conflict
from edgeagents.cli.credentials import credentials
from edgeagents.cli.doctor import doctor
from edgeagents.cli.events import events
from edgeagents.cli.lines import LONGEST_ERROR, clean
from edgeagents.cli.orders import add_orders
from edgeagents.cli.overview import add_overview
from edgeagents.cli.preferences import explain_preferences
from edgeagents.cli.replay import replay
from edgeagents.cli.task import task
from edgeagents.cli.why import why
from edgeagents.errors import EdgeAgentsError

COMPLETION: Final = "--install-completion"
app = App(name="edgeagents", help="Cooperating agents on an EdgeX gateway.", version=__version__)
app.command(approvals)
app.command(backup)
app.command(restore)
app.command(doctor)
add_overview(app)
app.command(events)
app.command(credentials)
add_orders(app)
app.command(audit)
app.command(why)
app.command(ask)
app.command(task)
app.command(conflict)
app.command(replay)
app.command(explain_preferences)
app.register_install_completion_command(name=COMPLETION)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line, the process's own when None, and exit: 0 when done, else 1 with a word on stderr."""
    words = sys.argv[1:] if argv is None else argv
    try:
        app(words)
    except EdgeAgentsError as error:
        _end(str(error))
    except OSError as error:
        if COMPLETION not in words:
            raise
        _end(f"the completion script cannot be written: {error}: name a file of yours with --output, or another HOME")


def _end(text: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "red"), clean(text, LONGEST_ERROR)))
    sys.exit(1)
