"""Commands that waited in the ledger when the guard was stopped: which of them still go out, and how the others end.

None of them had been begun with. Those that go on pass the gate anew; all else here is about being sure that none is
late, that none has been carried out after all, and that nothing which came later was.

Source: design.md section 3.5; docs/decisions/0030-commands-that-wait-over-a-restart.md.
"""

from collections.abc import Sequence
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus
from edgeagents.errors import MalformedMessageError, UnavailableError
from edgeagents.model.message import Outcome
from services.guard.actuator import recovered
from services.guard.jobs import Job, Means, end
from services.guard.ledger import ALL, Entry

MOST_S: Final = 30.0  # since it was received; who wanted it longer ago decides anew, on what is so now
_UNKNOWN: Final = "waited while the guard was restarted: age unknown"


async def still_due(bus: Bus, means: Means, waited: Sequence[Entry]) -> list[Job]:
    """Return the commands that still may go out, in stream order; the others have ended then.

    Args:
        bus: connected as the guard; its command stream tells what has ended.
        means: the guard's, its clock caught up.
        waited: commands of the ledger without an intent, in stream order.
    """
    resumed_at = await means.on_disk(means.ledger.number, "given_before_resume")
    due: list[Job] = []
    for entry in waited:
        job = recovered(entry)
        if problem := _late(entry, means.clocks.now()):
            await end(means, job, "expired", problem, "late")
        elif entry.sequence <= resumed_at:
            await end(means, job, "refused", "given before a pause was lifted, and the guard was restarted", "order")
        else:
            due += await _looked_up(bus, means, entry, job)
    if resumed_at == ALL:  # killed while a pause was being lifted: what is taken in from now on was not given before
        await means.on_disk(means.ledger.resumed, max((entry.sequence for entry in waited), default=0))
    return due


def _late(entry: Entry, now_s: float) -> str:
    if entry.phase == "waiting":
        return "waited for somebody's consent while the guard was restarted"
    deadline_s = entry.intent.deadline_s
    if not deadline_s:
        return _UNKNOWN
    if deadline_s < now_s:
        return "deadline passed while the guard was restarted"
    waited_s = now_s - (deadline_s - entry.command.ttl_s)
    return f"waited {waited_s:.0f} s until the guard was started again" if waited_s > MOST_S else ""


async def _looked_up(bus: Bus, means: Means, entry: Entry, job: Job) -> list[Job]:
    """Return a command unless the stream says that it has ended, or a later one for its device; that ends it here."""
    try:
        newest = await _newest(bus, entry)
    except (UnavailableError, MalformedMessageError) as error:
        await end(
            means, job, "expired", f"waited while the guard was restarted, and who knows how it ended: {error}", "late"
        )
        return []
    if newest is None or newest.sequence < entry.sequence:
        return [job]
    if newest.command_id == entry.command.id:  # the ledger is older than the stream
        await means.on_disk(means.ledger.finish, entry.agent, newest, means.clocks.wall_ns() / 1e9)
        await means.on_disk(means.ledger.told, entry.agent, entry.command.id)
    else:
        await end(
            means, job, "expired", "a later command for its device had ended when the guard was restarted", "late"
        )
    return []


async def _newest(bus: Bus, entry: Entry) -> Outcome | None:
    """Return the newest outcome of an agent's commands for a device."""
    subject = subjects.outcome(bus.settings.gateway, entry.agent, entry.command.device)
    last = await bus.last(subjects.COMMANDS_STREAM, subject)
    return None if last is None else wire.decode(Outcome, last.data, last.headers.get(CONTENT_TYPE, wire.PROTOBUF))
