"""Who is alive, in which run, with which skills, until when. Pure: values in, values out.

An agent says once a second that it is there; what was not heard for `TTL_S` is gone. Nothing of it is kept on disk: a
coordinator that begins says so, and all answer at once.

Source: design.md section 4 (roster).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edgeagents.model.cooperation import Announcement

TTL_S: Final = 3.0
GONE_S: Final = 5.0  # after that what a run had taken is ended: it will not be done
MOST_RUNS: Final = 4_096
MOST_OF_ONE: Final = 4  # runs of one agent: a supervisor that starts it again and again makes no more at a time


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one agent, as it was heard last; `heard_s` on the roster's clock."""

    agent: str
    incarnation: str
    skills: tuple[str, ...]
    busy: int
    heard_s: float
    hears_peers: bool = False


@dataclass(frozen=True, slots=True)
class Roster:
    """All runs heard lately; `since_s`: when we began to listen."""

    since_s: float
    runs: Mapping[tuple[str, str], Run] = field(default_factory=dict)

    def heard(self, agent: str, said: Announcement, now_s: float) -> "Roster":
        """Return the roster with what an agent said; of each agent the newest runs are kept, while there is room."""
        run = Run(agent, said.incarnation, said.skills, said.busy, now_s, said.hears_peers)
        runs = {**self.runs, (agent, said.incarnation): run}
        own = sorted((item.heard_s, key) for key, item in runs.items() if item.agent == agent and item != run)
        for _, key in own[: max(0, len(own) + 1 - MOST_OF_ONE)]:
            del runs[key]
        if len(runs) > MOST_RUNS or len(runs) > 2 * len(self.alive(now_s)) + 16:
            runs = {key: item for key, item in runs.items() if now_s - item.heard_s <= GONE_S}
        return replace(self, runs=runs) if len(runs) <= MOST_RUNS else self

    def anew(self, now_s: float, slept_s: float = 0.0) -> "Roster":
        """Return the roster of who begins to listen now: nobody counts as gone for not having been heard before.

        Args:
            now_s: seconds.
            slept_s: for so long nobody could be heard: who was there before is there now.
        """
        runs = {key: replace(run, heard_s=run.heard_s + slept_s) for key, run in self.runs.items()}
        return replace(self, since_s=now_s, runs=runs)

    def alive(self, now_s: float) -> dict[str, Run]:
        """Return the newest run of each agent that was heard lately, by name."""
        found: dict[str, Run] = {}
        for run in self.runs.values():
            if now_s - run.heard_s <= TTL_S and (run.agent not in found or run.heard_s > found[run.agent].heard_s):
                found[run.agent] = run
        return found

    def is_gone(self, agent: str, incarnation: str, now_s: float) -> bool:
        """Say whether a run will not come back: not heard for long, while we listened."""
        run = self.runs.get((agent, incarnation))
        return now_s - max(run.heard_s if run is not None else self.since_s, self.since_s) > GONE_S
