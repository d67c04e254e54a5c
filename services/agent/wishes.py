"""Whether the rules want anything at all, found out from what is new alone.

Most events change nothing: no rule fires, or what it wants is so already. To learn that, only the resources are looked
at whose rules read something new; all others want what they wanted. What is wanted, and in which words, is not said
here: `RuleBook.evaluate` does that, through a view that remembers what it was asked. A rule that looks at the time of
day or at a statistic is always asked.

Source: incremental matching as in Forgy 1982, Rete.
"""

from collections import defaultdict
from collections.abc import Collection

from edgeagents.model.agent import Recent
from edgeagents.model.values import same_value
from edgeagents.protocol.gate import Key
from services.agent.rules import CompiledRule, Fired, RuleBook, key_of
from services.agent.view import View


class Wishes:
    """Which resources some rule wants to be other than they are."""

    def __init__(self, rules: RuleBook) -> None:
        """Begin with everything to be looked at."""
        self._rules = rules
        self._by_target: defaultdict[Key, list[CompiledRule]] = defaultdict(list)
        concerned: defaultdict[Key, set[Key]] = defaultdict(set)
        for rule in rules.compiled:
            self._by_target[rule.key].append(rule)
            for source in (rule.key, *map(key_of, rule.given.values())):
                concerned[source].add(rule.key)
        self._concerned = {source: frozenset(targets) for source, targets in concerned.items()}
        self._always = frozenset(rule.key for rule in rules.compiled if _looks_at_time(rule))
        self._open = set(self._by_target)

    def any(self, view: View, touched: Collection[Key], site_s: float) -> bool:
        """Say whether some resource is to be set; also where a rule failed: that is to be told.

        Args:
            view: the agent's picture of its devices.
            touched: resources with a new sample since this was asked before.
            site_s: site time now.
        """
        due = self._open.union(self._always, *(self._concerned.get(key, ()) for key in touched))
        self._open = {target for target in due if self._is_open(target, view, site_s)}
        return bool(self._open)

    def _is_open(self, target: Key, view: View, site_s: float) -> bool:
        for rule in self._by_target[target]:
            fired, has_failed = self._rules.tried(rule, view, site_s)
            if has_failed:
                return True
            if fired is not None:
                return not is_so(view, fired)  # where two rules want different values, the earlier one counts
        return False


def is_so(view: View, fired: Fired) -> bool:
    """Say whether what a rule wants is so already, within its dead band."""
    known = view.latest((fired.intent.device, fired.intent.resource))
    tolerance = max(1e-6, fired.dead_band)
    return known is not None and known.value is not None and same_value(known.value, fired.intent.value, tolerance)


def _looks_at_time(rule: CompiledRule) -> bool:
    return rule.uses_time or any(isinstance(source, Recent) for source in rule.given.values())
