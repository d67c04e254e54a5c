"""`edgeagents replay`: decides again what agents have decided, bit for bit, by the agent service's own replay.

The library knows no rules: it starts `python -m services.agent --replay`, which must be installed here.

Source: design.md section 3.9.
"""

import importlib.util
import os
import subprocess
import sys
from typing import Annotated

from cyclopts import Parameter

from edgeagents.cli.source import DEFAULT, Broker, File
from edgeagents.errors import ConfigurationError, InvalidInputError

All = Annotated[bool, Parameter(name="--all", negative="", help="every decision of every agent")]


def replay(decision_id: str = "", /, *, all_: All = False, broker: Broker = DEFAULT, file: File = None) -> None:
    """Decide again what an agent decided, from the audit alone, and say whether it comes out the same.

    Exit code 0: equal, bit for bit; 1: not, the differences are named; 2: there is nothing to replay.

    Args:
        decision_id: as `edgeagents why` shows it.
    """
    if bool(decision_id) == all_:
        raise InvalidInputError("name one decision, or give --all: `edgeagents why AGENT` shows an agent's last ones")
    command = _command(decision_id or "all", file)
    sys.exit(subprocess.run(command, env=_environment(broker), check=False).returncode)  # noqa: S603  # our own service


def _command(which: str, file: File) -> list[str]:
    if importlib.util.find_spec("services") is None or importlib.util.find_spec("services.agent") is None:
        raise ConfigurationError("the agent service is not installed here: run this where `services/agent` lies")
    options = ["--file", str(file)] if file is not None else []
    return [sys.executable, "-m", "services.agent", f"--replay={which}", *options]


def _environment(broker: Broker) -> dict[str, str]:
    return {**os.environ, **broker.environment}
