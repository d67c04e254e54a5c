"""Commands that waited in the ledger when the guard was stopped: which of them still go out, and how the others end.

None of them had been begun with. Those that go on pass the gate anew; all else here is about being sure that none is
late, and that none has been carried out after all.

Source: design.md section 3.5; docs/decisions/0030-commands-that-wait-over-a-restart.md.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus
from edgeagents.errors import InvalidInputError, MalformedMessageError, UnavailableError
from edgeagents.model.message import Outcome
from services.guard.actuator import recovered
from services.guard.jobs import Job, Means, end
from services.guard.ledger import Entry

log = logging.getLogger(__name__)

MOST_S: Final = 30.0  # from receipt until it goes out; who wanted it longer ago decides anew, on what is so now


async def forget_unsure(bus: Bus, means: Means, *, is_lost: bool) -> None:
    """Have nothing that waits go out if the ledger may be older than the stream: it may have gone out already.

    To be called before anything is told, which makes an old ledger look new; for the same reason it is on disk then.

    Args:
        bus: connected as the guard; its command stream tells what ended last.
        means: the guard's.
        is_lost: whether state was found lost or restored.
    """
    if not any(entry.phase in ("received", "waiting") for entry in await means.on_disk(means.ledger.unfinished)):
        return
    try:
        if not is_lost and await _knows_newest(bus, means):
            return
    except (UnavailableError, MalformedMessageError, InvalidInputError) as error:
        log.warning("commands that waited when the guard was stopped expire: %s", error)
        await means.on_disk(means.ledger.forget_deadlines)
        return
    log.warning("commands that waited when the guard was stopped may have gone out: its state is older than the stream")
    await means.on_disk(lambda: means.ledger.forget_deadlines(may_be_out=True))


async def still_due(means: Means, waited: Sequence[Entry]) -> list[Job]:
    """Return the commands that still may go out, in their order; the others have ended then.

    Args:
        means: the guard's, its clock caught up.
        waited: commands of the ledger without an intent, in stream order.
    """
    resumed_at = await means.on_disk(means.ledger.number, "given_before_resume")
    due: list[Job] = []
    for entry in waited:
        job = recovered(entry)
        received_s = job.deadline_s - entry.command.ttl_s
        job = replace(job, deadline_s=min(job.deadline_s, received_s + MOST_S))
        if entry.may_be_out:
            await end(
                means, job, "uncertain", "taken in before state was lost or restored: nobody knows whether it went out"
            )
        elif problem := _late(entry, job, means.clocks.now()):
            await end(means, job, "expired", problem, "late")
        elif entry.sequence <= resumed_at:
            await end(means, job, "refused", "given before a pause was lifted, and the guard was restarted", "order")
        elif problem := means.desk.table.problem(job.key, job.session, entry.command.epoch, None):
            await end(means, job, "refused", problem, "lease")
        else:
            due.append(job)
    return due


def _late(entry: Entry, job: Job, now_s: float) -> str:
    if entry.phase == "waiting":
        return "waited for somebody's consent while the guard was restarted"
    if not entry.intent.deadline_s:
        return "waited while the guard was restarted: age unknown"
    if entry.intent.deadline_s < now_s:
        return "deadline passed while the guard was restarted"
    return f"received more than {MOST_S:g} s before the guard was started again" if job.deadline_s < now_s else ""


async def _knows_newest(bus: Bus, means: Means) -> bool:
    """Say whether the ledger knows the newest outcome of the stream, so that it is no older copy.

    Raises:
        UnavailableError: the broker does not tell.
        MalformedMessageError: what it tells is none.
        InvalidInputError: nor its subject.
    """
    last = await bus.newest(subjects.COMMANDS_STREAM, subjects.outcomes(bus.settings.gateway))
    if last is None:
        return True
    outcome = wire.decode(Outcome, last.data, last.headers.get(CONTENT_TYPE, wire.PROTOBUF))
    entry = await means.on_disk(means.ledger.entry, subjects.agent_of_outcome(last.subject), outcome.command_id)
    return entry is not None and entry.phase == "done"
