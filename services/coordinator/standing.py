"""Which outcomes stand: until their time is over nobody but the winner may ask about the same anew. Pure.

Else whoever lost would ask until it wins. Only so many are kept, the oldest go first: then the parties alone keep it.

Source: docs/conflicts.md.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from edgeagents.protocol.gate import Key

MOST_STANDING: Final = 4_096


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was settled: in which conflict, who won, and until when it stands, monotonic seconds."""

    conflict: str
    winner: str
    until_s: float


class Standing:
    """The newest outcome on each resource, as long as it stands."""

    def __init__(self, most: int = MOST_STANDING) -> None:
        """Begin with none; keep `most`."""
        self._most = most
        self._outcomes: OrderedDict[Key, Outcome] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._outcomes)

    def settled(self, key: Key, outcome: Outcome | None) -> None:
        """Take in how a conflict over a resource ended; None: nothing stands there any more."""
        self._outcomes.pop(key, None)
        if outcome is not None:
            self._outcomes[key] = outcome
            if len(self._outcomes) > self._most:
                self._outcomes.popitem(last=False)

    def on(self, key: Key, now_s: float) -> Outcome | None:
        """Return what stands on a resource; what is over is forgotten."""
        found = self._outcomes.get(key)
        if found is not None and now_s >= found.until_s:
            del self._outcomes[key]
            return None
        return found
