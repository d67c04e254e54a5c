"""Which outcomes stand: until their time is over nobody but the winner may ask about the same anew. Pure.

Else whoever lost would ask until it wins. Only so many are kept, the oldest go first: then the parties alone keep it.

Source: docs/conflicts.md.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from edgeagents.protocol.gate import Key

MOST_STANDING: Final = 4_096


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was settled: in which conflict, who won, until when it stands (monotonic seconds), whom it binds."""

    conflict: str
    winner: str
    until_s: float
    parties: tuple[str, ...] = ()


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

    def named(self, conflict: str, now_s: float) -> Key | None:
        """Return on which resource the outcome of a conflict stands; None: it does not, or no longer."""
        key = next((key for key, item in self._outcomes.items() if item.conflict == conflict), None)
        return key if key is not None and self.on(key, now_s) is not None else None

    def left(self, key: Key, party: str, now_s: float) -> tuple[str, ...]:
        """Take in that one of its parties may command nothing there any more; return whom it binds no longer by that.

        Without its winner, or with one party alone, an outcome is over; else it stands among those that are left.
        """
        found = self.on(key, now_s)
        if found is None or party not in found.parties:
            return ()
        rest = tuple(name for name in found.parties if name != party)
        if party != found.winner and len(rest) > 1:
            self._outcomes[key] = replace(found, parties=rest)
            return (party,)
        del self._outcomes[key]
        return found.parties
