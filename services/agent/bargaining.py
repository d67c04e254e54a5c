"""What an agent could live with in a conflict, and what each option is worth to it: its owner's words, computed. Pure.

The agent file's `negotiates` names a preferences file and, for each resource, the options and what each would bring: a
CEL expression a quantity, over the option (`value`), readings (`given`) and goals. They are compiled and evaluated as
rules are (`rules.py`), so they are typed, bounded, and fail by name.

Source: design.md section 5; docs/conflicts.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeagents.adapters.files import load_model
from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.model.agent import MOST_OPTIONS, AgentDefinition, Recent, Rule, Sample, Set, option_word
from edgeagents.model.cooperation import Appraisal, Worth
from edgeagents.model.preferences import DAY_S, Preferences
from edgeagents.model.values import Value
from edgeagents.protocol.gate import Key
from edgeagents.protocol.limits import word_problem
from edgeagents.protocol.utility import Moment, worth
from services.agent.rules import CompiledRule, RuleBook
from services.agent.view import View

OPTION: Final[Key] = ("option", "value")  # where expressions find the option that is looked at


@dataclass(frozen=True, slots=True)
class Terms:
    """What an agent could live with on one resource, and what each option brings, by quantity."""

    options: tuple[str, ...]
    brings: Mapping[str, CompiledRule]


@dataclass(frozen=True, slots=True)
class Stance:
    """How an agent stands to a resource now.

    Args:
        wants: what its rules want there, in words; empty: nothing.
        present: how things are, in words; empty: not known.
        quiet_s: since when it holds the lease without using it, site seconds; None: it does not hold it.
    """

    wants: str = ""
    present: str = ""
    quiet_s: float | None = None


class Bargaining:
    """All that one agent bargains by."""

    def __init__(self, agent: AgentDefinition, preferences: Preferences, source: str) -> None:
        """Compile what options bring.

        Args:
            agent: with `negotiates`.
            preferences: its owner's.
            source: names the agent's file in errors.

        Raises:
            ConfigurationError: an expression is wrong, or options bring not just what the preferences look at.
        """
        assert agent.negotiates is not None
        if preferences.agent != agent.name:
            text = f"{source}: negotiates.preferences: those are of agent {preferences.agent!r}: name {agent.name!r}'s"
            raise ConfigurationError(text)
        self.preferences = preferences
        quantities: dict[str, str] = {}
        rules: list[Rule] = []
        for index, item in enumerate(agent.negotiates.over):
            _check_quantities(item.brings, preferences, f"{source}: negotiates.over[{index}].brings")
            for number, (quantity, expression) in enumerate(item.brings.items()):
                name = f"brings-{index}-{number}"
                quantities[name] = quantity
                rules.append(Rule(
                    name=name, for_each=item.for_each, given={**item.given, "value": "/".join(OPTION)}, when="true",
                    set=Set(device=item.device, resource=item.resource, value=f"={expression}"),
                ))  # fmt: skip
        self.rules = RuleBook(agent.model_copy(update={"rules": tuple(rules)}), f"{source}: negotiates.over")
        self.terms = _terms(self.rules, agent, quantities)

    def options(self, key: Key, stance: Stance) -> tuple[str, ...]:
        """Return what may come of a conflict over a resource: how things are first, then what it could live with."""
        listed = self.terms[key].options
        found = dict.fromkeys([*filter(None, [stance.present]), *filter(None, [stance.wants]), *listed])
        return tuple(found)[:MOST_OPTIONS]

    def appraisal(self, key: Key, options: Sequence[str], stance: Stance, view: View, site_s: float) -> Appraisal:
        """Return what options are worth to the agent, and how it stands to the resource.

        Raises:
            InvalidInputError: a reading is missing, or what an option brings is no number.
        """
        worths = {option: self.worth(key, option, view, site_s) for option in options}
        best = max(options, key=lambda option: worths[option])
        return Appraisal(
            way=stance.wants if stance.wants in worths else best,
            worths=tuple(Worth(option=option, utility=value) for option, value in worths.items()),
            disagreement=self.preferences.disagreement,
            holds=stance.quiet_s is not None,
            quiet_s=min(1e9, max(0.0, stance.quiet_s or 0.0)),
            present=stance.present if stance.present in worths else "",
        )

    def worth(self, key: Key, option: str, view: View, site_s: float) -> float:
        """Return what one option is worth to the agent, 0 to 1.

        Raises:
            InvalidInputError: it does not negotiate about this, a reading is missing, or there is no number.
        """
        terms = self.terms.get(key)
        if terms is None:
            raise InvalidInputError(f"{key[0]}/{key[1]} is nothing that is negotiated about here")
        seen = _WithOption(view, Sample(value_of(option), 0, site_s))
        outcome: dict[str, float] = {}
        for quantity, rule in terms.brings.items():
            fired, _ = self.rules.tried(rule, seen, site_s)
            outcome[quantity] = _number(None if fired is None else fired.intent.value, quantity, option)
        for part in self.preferences.parts:
            if part.of not in outcome:
                device, _, resource = part.of.partition("/")
                found = view.latest((device, resource))
                outcome[part.of] = _number(None if found is None else found.value, part.of, option)
        return worth(self.preferences, outcome, Moment(site_s % DAY_S)).utility


class _WithOption:
    """A view in which the option that is looked at is a reading."""

    def __init__(self, view: View, option: Sample) -> None:
        self._view = view
        self._option = option

    def latest(self, key: Key) -> Sample | None:
        return self._option if key == OPTION else self._view.latest(key)

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        return self._view.recent(recent, site_s)


def load_bargaining(agent: AgentDefinition, path: Path) -> Bargaining | None:
    """Return what an agent bargains by, None when its file says nothing of it.

    Raises:
        ConfigurationError: the preferences file is missing or wrong, or does not fit the agent's.
    """
    if agent.negotiates is None:
        return None
    return Bargaining(agent, load_model(Preferences, path.parent / agent.negotiates.preferences), str(path))


def _check_quantities(brings: Mapping[str, str], preferences: Preferences, where: str) -> None:
    asked = {part.of for part in preferences.parts}
    missing = sorted(of for of in asked - set(brings) if "/" not in of)
    if missing:
        raise ConfigurationError(f"{where}: the preferences look at {missing[0]!r}: say what an option brings of it")
    unused = sorted(set(brings) - asked)
    if unused:
        raise ConfigurationError(f"{where}: the preferences do not look at {unused[0]!r}: remove it, or add a part")


def _terms(rules: RuleBook, agent: AgentDefinition, quantities: Mapping[str, str]) -> dict[Key, Terms]:
    assert agent.negotiates is not None
    brings: dict[Key, dict[str, CompiledRule]] = {}
    options: dict[Key, tuple[str, ...]] = {}
    for rule in rules.compiled:
        index = int(rule.name.split("-")[1])
        if options.setdefault(rule.key, agent.negotiates.over[index].options) != agent.negotiates.over[index].options:
            continue  # of two that name one resource the earlier one counts, as with rules
        brings.setdefault(rule.key, {}).setdefault(quantities[rule.name], rule)
    return {key: Terms(options[key], found) for key, found in brings.items()}


def value_of(option: str) -> Value:
    """Return what an option in words stands for: a Bool, a number, else a text."""
    if option in ("true", "false"):
        return option == "true"
    try:
        return float(option)
    except ValueError:
        return option


def _number(value: Value, quantity: str, option: str) -> float:
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    raise InvalidInputError(f"{quantity} with {option!r}: {'not known yet' if value is None else 'no number'}")


def word_of(value: Value) -> str:
    """Return a value as one word of a conflict; empty where it cannot be told as one."""
    word = option_word(value) if isinstance(value, (bool, int, float, str)) else ""
    return "" if word_problem("value", [word]) else word
