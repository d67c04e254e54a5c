"""What the audit keeps of an award and of a task's end: enough to say why, to a person, years later. Pure.

Source: design.md section 3.9; docs/tasks.md.
"""

import json
from collections.abc import Mapping
from typing import Any

from edgeagents.protocol.roster import Run
from edgeagents.protocol.sealed_bids import MOST_COST
from edgeagents.protocol.task_record import AwardNote, Record, reasons_of

RULE = "the lowest bid wins, the name breaks ties; it is credited the second best bid"


def award_body(record: Record, award: AwardNote, alive: Mapping[str, Run]) -> dict[str, Any]:
    """Return the record of an award: all bids, the rule, who came second, who else was there."""
    order = sorted((cost, agent) for agent, cost in award.bids.items())
    return {
        "task": record.task,
        "giver": record.giver,
        "wanted": json.loads(record.wanted),
        "epoch": award.epoch,
        "winner": award.winner,
        "bids": {agent: cost for cost, agent in order},
        "rule": RULE,
        "runner_up": next((agent for _, agent in order if agent != award.winner), ""),
        "price": award.price if award.price < MOST_COST else None,
        "reasons": list(reasons_of(record)),
        "busy": {agent: alive[agent].busy for agent in award.bids if agent in alive},
    }


def end_body(record: Record) -> dict[str, Any]:
    """Return the record of a task's end."""
    return {
        "task": record.task,
        "state": record.state,
        "winner": record.entry.winner,
        "epoch": record.entry.epoch,
        "reason": record.reason,
        "reasons": list(reasons_of(record)),
        "took_s": round((record.changed_unix_ns - record.accepted_unix_ns) / 1e9, 3),
    }
