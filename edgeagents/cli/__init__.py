"""The command `edgeagents`: one file a command group, imported when the command starts.

Source: cyclopts 5.
"""

import contextlib
import os
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
    with contextlib.suppress(AttributeError):  # not open, or somebody's own
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            app(words)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what cannot be written is told here, and not by the interpreter's end
    except EdgeAgentsError as error:
        _end(str(error))
    except BrokenPipeError:  # `| head`: whoever reads has had enough; the code is rich's in that case
        _say_no_more()
        sys.exit(1)
    except OSError as error:
        if COMPLETION in words:
            remedy = "name a file of yours with --output, and another HOME if it is your shell's own file"
            _end(f"the completion script cannot be written: {error}: {remedy}")
        _say_no_more()
        _end(str(error) or type(error).__name__)


def _say_no_more() -> None:
    """Drop what stdout still holds: the interpreter would try to write it once more, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _end(text: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "red"), clean(text, LONGEST_ERROR)))
    sys.exit(1)
