"""What the command stream still tells after the guard's ledger, or the stream, was lost or restored.

Nothing is carried out because of it. A ledger newer than the stream tells once more the outcomes that the stream
lacks. One that is older, or new, gets those commands again that guards had acknowledged already: how they ended is in
the stream, or nobody knows. So each command the stream holds has an outcome there, and none has two.

Source: docs/decisions/0008-generations-never-come-again.md.
"""

import contextlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, StoredMessage
from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError
from edgeagents.model.message import Command, Outcome
from services.guard.jobs import Means

Key: TypeAlias = tuple[str, str]  # agent, command id
CONSUMER: Final = "guard"  # the durable consumer by which guards take commands in


@dataclass(frozen=True, slots=True)
class Past:
    """What another ledger knew.

    Args:
        ended: commands (agent, id) whose outcome the stream holds.
        taken: up to which sequence guards acknowledged commands to the stream.
    """

    ended: frozenset[Key] = frozenset()
    taken: int = 0


NOTHING_LOST: Final = Past()


async def acknowledged(bus: Bus) -> int:
    """Return up to which sequence of the command stream guards acknowledged everything, 0 when none did."""
    with contextlib.suppress(NotFoundError):
        return await bus.acknowledged(subjects.COMMANDS_STREAM, CONSUMER)
    return 0


async def reconcile(bus: Bus, means: Means, last_sequence: int, floor: int, newest: int) -> Past:
    """Bring ledger and stream to terms after a loss, and return what the intake has to know.

    Args:
        bus: connected as the guard.
        means: its ledger.
        last_sequence: where the ledger says the stream ended.
        floor: up to which sequence guards acknowledged.
        newest: where the stream ends now.
    """
    unfinished = {(entry.agent, str(entry.command.id)) for entry in await means.on_disk(means.ledger.unfinished)}
    sent, ended, outcomes = await _read(bus, unfinished)
    for (agent, _), outcome in outcomes.items():
        await means.on_disk(means.ledger.finish, agent, outcome, means.clocks.wall_ns() / 1e9)
        await means.on_disk(means.ledger.told, agent, outcome.command_id)
    await means.on_disk(means.ledger.tell_again, sorted(sent - ended))
    if floor > last_sequence:
        await bus.forget_consumer(subjects.COMMANDS_STREAM, CONSUMER)
    # Last of all: until then each start finds the loss again.
    await means.on_disk(means.ledger.remember, "last_sequence", min(last_sequence, newest))
    return Past(frozenset(ended), floor if floor > last_sequence else 0)


async def _read(bus: Bus, wanted: set[Key]) -> tuple[set[Key], set[Key], dict[Key, Outcome]]:
    """Return the commands that the stream holds, those whose outcomes it holds, and the outcomes of wanted ones."""
    sent: set[Key] = set()
    ended: set[Key] = set()
    outcomes: dict[Key, Outcome] = {}
    own = subjects.outcomes(bus.settings.gateway).partition("*")[0]
    async for stored in bus.read(subjects.COMMANDS_STREAM, [], name="guard-past"):
        with contextlib.suppress(MalformedMessageError, InvalidInputError):  # set aside by whoever read it first
            if stored.subject.startswith(own):
                agent = subjects.agent_of_outcome(stored.subject)
                outcome = wire.decode(Outcome, stored.data, _type(stored))
                ended.add((agent, outcome.command_id))
                if (agent, outcome.command_id) in wanted:
                    outcomes[agent, outcome.command_id] = outcome
            else:
                _, agent = subjects.parse_command(stored.subject)
                if agent != subjects.GUARD:
                    sent.add((agent, wire.decode(Command, stored.data, _type(stored)).id))
    return sent, ended, outcomes


def _type(stored: StoredMessage) -> str:
    return stored.headers.get(CONTENT_TYPE, wire.PROTOBUF)
