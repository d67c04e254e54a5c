"""A batch of tasks to be auctioned, and whether it makes sense.

Source: design.md section 5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from pydantic import TypeAdapter, ValidationError

from edgeagents.model.message import Word
from edgeagents.protocol.plans import Objective

MOST_LOT: Final = 256  # tasks of one lot, and agents: their names fit into one act, whatever they are
LONGEST_S: Final = 86_400.0  # of what an act can carry
WORDS: Final = TypeAdapter(tuple[Word, ...])


@dataclass(frozen=True, slots=True)
class Lot:
    """A batch to be shared out.

    Args:
        conversation: names the batch.
        tasks: their names, with the epoch each has in the ledger.
        agents: who may bid.
        objective: what shall be least: the sum of all costs, or the largest one.
        answer_s: how long one answer may take.
        take_s: how long a winner may take to take its task.
        deadline_s: when all is over, done or not, on the auctioneer's clock.
        most_moves: transfers and swaps of the re-auction.
    """

    conversation: str
    tasks: Mapping[str, int]
    agents: tuple[str, ...]
    objective: Objective
    answer_s: float
    take_s: float
    deadline_s: float
    most_moves: int = 30

    @property
    def ask_until_s(self) -> float:
        """When no more is asked: what was decided until then can still be awarded, taken and read in the ledger."""
        return self.deadline_s - self.take_s - self.answer_s

    def take_until_s(self, now_s: float) -> float:
        """Return until when what is awarded now may be taken; after that the ledger is read a last time."""
        return min(now_s + self.take_s, self.deadline_s - self.answer_s)


def lot_problem(lot: Lot, now_s: float) -> str | None:
    """Return why a lot cannot be auctioned, None when it can."""
    if not lot.tasks or not lot.agents:
        return "no tasks" if not lot.tasks else "no agents"
    if not now_s < lot.deadline_s < math.inf:
        return "the deadline had passed before"
    if len(lot.tasks) > MOST_LOT or len(lot.agents) > MOST_LOT:
        return f"{len(lot.tasks)} tasks for {len(lot.agents)} agents in one lot: at most {MOST_LOT} of each, split it"
    if not (0 < lot.answer_s <= LONGEST_S and 0 < lot.take_s <= LONGEST_S):
        return f"answers in {lot.answer_s:g} s, {lot.take_s:g} s to take a task: both above 0, at most {LONGEST_S:g}"
    if not now_s < lot.ask_until_s:
        return f"the deadline leaves no time to ask: {lot.take_s:g} s to take and {lot.answer_s:g} s to read are kept"
    if lot.objective not in get_args(Objective) or lot.most_moves < 0 or min(lot.tasks.values()) < 0:
        return f"objective {lot.objective!r}, {lot.most_moves} moves, or an epoch below 0 means nothing here"
    names = (lot.conversation, *lot.agents, *lot.tasks)
    try:
        WORDS.validate_python(names)
    except ValidationError as error:
        return f"{names[int(error.errors()[0]['loc'][0])]!r} is no name that an act can carry"
    return None
