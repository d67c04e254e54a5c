"""The figures of all fault runs together: a line for each fault as it comes, one JSON object at the end.

Source: issue "Nothing lost".
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.markup import escape

from edgeagents.embedded.tally import Tally, percentile, problems, promises


@dataclass
class Score:
    """What was done to gateways, and what came of it."""

    say: Callable[[str], None]
    runs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    recoveries_s: list[float] = field(default_factory=list)

    def fault(self, kind: str, where: str, recovery_s: float | None) -> None:
        """Count one fault and how long it took until a fresh command was proven; None: that is not what is looked at.

        Args:
            kind: what was done, such as `kill -9`.
            where: to which part, at which point.
            recovery_s: from the fault, or from its end where it lasts.
        """
        self.faults[kind] += 1
        if recovery_s is not None:
            self.recoveries_s.append(recovery_s)
        took = "" if recovery_s is None else f"  recovered in [bold]{recovery_s:.2f} s[/bold]"
        self.say(f"[cyan]{sum(self.faults.values()):4}[/cyan] {kind:<22} {escape(where)}{took}")

    def run(self, what: str, result: Tally) -> list[str]:
        """Count one gateway's run; return its broken promises in words."""
        self.runs += 1
        found = problems(result)
        self.broken.update(promises(result))
        self.commands.update(result.outcomes)
        ends = ", ".join(f"{count} {status}" for status, count in sorted(result.outcomes.items()))
        why = "; ".join(f"{count} × {reason[:90]}" for reason, count in result.reasons.most_common(3))
        mark = "[red]broken promises[/red]" if found else "[green]all promises kept[/green]"
        self.say(f"     [bold]{what}[/bold]: {ends or 'no command'}; {mark}")
        if why:
            self.say(f"       most often: {escape(why)}")
        for problem in found[:20]:
            self.say(f"       [red]{escape(problem)}[/red]")
        return found

    def line(self) -> str:
        """Return the closing JSON line."""
        ordered = sorted(self.recoveries_s)
        zeros = ("lost", "duplicated", "epoch_order_violations", "forbidden_effects", "disagreeing_outcomes")
        recovery = {
            "p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "max": percentile(ordered, 1.0),
        }  # fmt: skip
        return json.dumps(
            {"runs": self.runs, "faults": sum(self.faults.values()), "by_kind": dict(self.faults),
             "commands": dict(self.commands), **{name: self.broken[name] for name in zeros}, "recovery_s": recovery}
        )  # fmt: skip
