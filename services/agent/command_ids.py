"""Names of commands: the same cause makes the same command, however often it is decided on.

Source: design.md section 3.3.
"""

import json
import uuid
from typing import Final

from edgeagents.model.agent import PERSON
from edgeagents.model.message import Cause, CommandId

_COMMANDS: Final = uuid.UUID("b8a6a7a8-40a3-4d5c-8f2e-4f9fd1f0f9c6")


def command_id(agent: str, generation: int, cause: Cause, ordinal: int) -> CommandId:
    """Return the id of a command: a redelivered message makes the same command, not a second one."""
    return CommandId(str(uuid.uuid5(_COMMANDS, f"{agent}/{generation}/{cause.stream}/{cause.sequence}/{ordinal}")))


def asked_command_id(agent: str, generation: int, question: str, device: str, resource: str) -> CommandId:
    """Return the id of a command that answers a question: asked again, however often stored, it is the same command.

    It hangs on the resource, not on the place among the wishes: what is so by now is no wish any more when a question
    is understood again after a crash, and the others must not take its id. Nor on the value: "warmer" once is one step.

    Args:
        agent: who commands.
        generation: of the guard's state.
        question: `question_name` of what was said.
        device: its name.
        resource: its name.
    """
    source = json.dumps([PERSON, question, device, resource])
    return CommandId(str(uuid.uuid5(_COMMANDS, f"{agent}/{generation}/{source}")))
