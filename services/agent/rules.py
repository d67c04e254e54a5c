"""The owner's rules, compiled once, evaluated on each observation. CEL, typed where types are known.

A rule whose readings are not there yet is silent. A rule that fails at run time is silent too, counted, and logged
once. Numbers are always doubles: an owner writes `21.0`, and is told so when the file is read, not at night.

Source: Common Expression Language; cel-expr-python 0.1 (CEL's C++ runtime).
"""

import itertools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import is_
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_math

from edgeagents.errors import ConfigurationError, InvalidInputError
from edgeagents.model.agent import AgentDefinition, Intent, Recent, Rule, Sample
from edgeagents.model.values import Value
from edgeagents.protocol.gate import Key
from services.agent.view import View

log = logging.getLogger(__name__)

_TIME: Final = {"time.hour": cel.Type.DOUBLE, "time.weekday": cel.Type.DOUBLE}


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that holds: what it wants, and what it rests on."""

    intent: Intent
    confidence: float
    inputs: Mapping[str, Value]
    data_origin_ns: int
    dead_band: float = 0.0


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule for one combination of its `for_each` words."""

    name: str
    given: Mapping[str, Key | Recent]
    when: Any
    key: Key
    literal: Value
    expression: Any
    because: str
    confidence: float
    dead_band: float
    uses_time: bool


class RuleBook:
    """All rules of an agent. Where two rules want different values for one resource, the earlier one counts."""

    def __init__(self, agent: AgentDefinition, source: str) -> None:
        """Compile the rules; `source` names the file in errors.

        Raises:
            ConfigurationError: an expression is wrong; rule, field, position and reason are named.
        """
        self._goals = {f"goals.{name}": _cel_value(value) for name, value in agent.goals.items()}
        statistics: dict[Recent, Recent] = {}  # one for all rules that ask the same: found sooner where it is a key
        self._rules = [
            _compile(rule, index, words, agent, source, statistics)
            for index, rule in enumerate(agent.rules)
            for words in _combinations(rule.for_each)
        ]
        self.failures: Counter[str] = Counter()
        self._told: set[str] = set()  # rules whose failure was logged
        # By the rule itself: those of one `for_each` may have one name.
        self._last: dict[int, tuple[tuple[tuple[type, str], ...], Value]] = {}  # by rule: inputs, what it wanted
        self._same: dict[int, tuple[list[Sample], Fired | None]] = {}  # by rule: the very samples, what came of them

    @property
    def names(self) -> list[str]:
        """Return every rule's name, one for each combination of its `for_each` words."""
        return [rule.name for rule in self._rules]

    @property
    def compiled(self) -> tuple[CompiledRule, ...]:
        """Return the rules, one for each combination of `for_each` words, in the order they count."""
        return tuple(self._rules)

    @property
    def keys(self) -> frozenset[Key]:
        """Return every device resource that some rule reads or sets."""
        read = {source for rule in self._rules for source in map(key_of, rule.given.values())}
        return frozenset(read | {rule.key for rule in self._rules})

    @property
    def longest_s(self) -> float:
        """Return how far back the rules look at single readings, in site seconds; `usual` keeps days in its own way."""
        return max((item.over for item in self._statistics if item.take != "usual"), default=0.0)

    @property
    def usual(self) -> dict[Key, float]:
        """Return the resources whose habits some rule asks for, and how far back, in site seconds."""
        found: dict[Key, float] = {}
        for item in self._statistics:
            if item.take == "usual":
                found[key_of(item)] = max(item.over, found.get(key_of(item), 0.0))
        return found

    @property
    def looked_back(self) -> frozenset[Key]:
        """Return the resources of which some rule looks at single readings of the past."""
        return frozenset(key_of(item) for item in self._statistics if item.take != "usual")

    @property
    def _statistics(self) -> list[Recent]:
        return [item for rule in self._rules for item in rule.given.values() if isinstance(item, Recent)]

    def evaluate(self, view: View, site_s: float) -> list[Fired]:
        """Return what the rules want now, at most one wish for each resource.

        Args:
            view: the agent's picture of its devices.
            site_s: site time of the decision.
        """
        found: dict[Key, Fired] = {}
        for rule in self._rules:
            if rule.key in found:
                continue
            fired = self._evaluate(rule, view, site_s)
            if fired is not None:
                found[rule.key] = fired
        return list(found.values())

    def tried(self, rule: CompiledRule, view: View, site_s: float) -> tuple[Fired | None, bool]:
        """Return what one rule wants now, and whether it failed; a failure is left for `evaluate` to count."""
        failed = self.failures[rule.name]
        fired = self._evaluate(rule, view, site_s)
        if self.failures[rule.name] == failed:
            return fired, False
        self.failures[rule.name] = failed
        return None, True

    def _evaluate(self, rule: CompiledRule, view: View, site_s: float) -> Fired | None:
        samples: list[Sample] = []
        for source in rule.given.values():
            found = view.recent(source, site_s) if isinstance(source, Recent) else view.latest(source)
            if found is None or found.value is None or isinstance(found.value, (bytes, list, dict)):
                return None
            samples.append(found)
        # Most events bring a new sample to few rules; where none is new, nothing else can be.
        same = self._same.get(id(rule))
        if same is not None and all(map(is_, same[0], samples)):
            return same[1]
        failed = self.failures[rule.name]
        fired = self._fired(rule, samples, site_s)
        if not rule.uses_time and self.failures[rule.name] == failed:  # each failure counts
            self._same[id(rule)] = (samples, fired)
        return fired

    def _fired(self, rule: CompiledRule, samples: Sequence[Sample], site_s: float) -> Fired | None:
        inputs = {name: sample.value for name, sample in zip(rule.given, samples, strict=True)}
        value = self._wanted(rule, inputs, site_s)
        if value is None:
            return None
        intent = Intent(*rule.key, value, _fill(rule.because, {**inputs, "value": value}), rule.name)
        oldest_ns = min((sample.origin_ns for sample in samples), default=0)
        return Fired(intent, rule.confidence, inputs, oldest_ns, rule.dead_band)

    def _wanted(self, rule: CompiledRule, inputs: Mapping[str, Value], site_s: float) -> Value:
        """Return the value a rule wants for these inputs, None when it is silent."""
        if rule.uses_time:
            return self._computed(rule, inputs, site_s)
        # Nothing but its inputs decides, and most events change those of few rules.
        # By text: 0.0 and -0.0 are equal, and what a rule makes of them may not be.
        seen = tuple((type(value), repr(value)) for value in inputs.values())
        last = self._last.get(id(rule))
        if last is not None and last[0] == seen:
            return last[1]
        failed = self.failures[rule.name]
        value = self._computed(rule, inputs, site_s)
        if self.failures[rule.name] == failed:  # each failure counts
            self._last[id(rule)] = (seen, value)
        return value

    def _computed(self, rule: CompiledRule, inputs: Mapping[str, Value], site_s: float) -> Value:
        now = datetime.fromtimestamp(site_s, UTC)
        hour, weekday = now.hour + now.minute / 60 + now.second / 3600, float(now.weekday())
        try:
            known = {name: _cel_value(value) for name, value in inputs.items()}
            data = {**self._goals, "time.hour": hour, "time.weekday": weekday, **known}
        except InvalidInputError as error:
            self._failed(rule, str(error))
            return None
        if not self._is_true(rule, data):
            return None
        return rule.literal if rule.expression is None else self._value(rule, data)

    def _is_true(self, rule: CompiledRule, data: Mapping[str, Any]) -> bool:
        result = rule.when.eval(data=data)
        if result.type() == cel.Type.BOOL:
            return bool(result.plain_value())
        self._failed(rule, str(result.plain_value()))
        return False

    def _value(self, rule: CompiledRule, data: Mapping[str, Any]) -> Value:
        result = rule.expression.eval(data=data)
        value = result.plain_value()
        if result.type() != cel.Type.ERROR and isinstance(value, (bool, int, float, str)):
            return value
        self._failed(rule, str(value))
        return None

    def _failed(self, rule: CompiledRule, text: str) -> None:
        self.failures[rule.name] += 1
        if rule.name not in self._told:
            self._told.add(rule.name)
            log.warning("rule %r stays silent: %s (further failures are only counted)", rule.name, text)


def _combinations(for_each: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    names = list(for_each)
    return [dict(zip(names, words, strict=True)) for words in itertools.product(*for_each.values())]


def _compile(
    rule: Rule, index: int, words: Mapping[str, str], agent: AgentDefinition, source: str,
    statistics: dict[Recent, Recent],
) -> CompiledRule:  # fmt: skip
    given: dict[str, Key | Recent] = {}
    for name, item in rule.given.items():
        found = _source(item, words)
        given[name] = statistics.setdefault(found, found) if isinstance(found, Recent) else found
    variables = {
        **_TIME,
        **{f"goals.{name}": _type_of(value) for name, value in agent.goals.items()},
        **{name: cel.Type.DOUBLE if isinstance(item, Recent) else cel.Type.DYN for name, item in given.items()},
    }
    environment = cel.NewEnv(variables=variables, extensions=[ext_math.ExtMath()])
    where = f"{source}: rules[{index}] {rule.name!r}"
    when_text = _words(rule.when, words)
    when = _expression(environment, when_text, f"{where}: when")
    if when.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ConfigurationError(f"{where}: when: is {when.return_type().name()}, must be true or false")
    value = rule.set.value
    text = _words(value, words) if isinstance(value, str) else ""
    is_expression = text.startswith("=")
    return CompiledRule(
        name=_words(rule.name, words),
        given=given,
        when=when,
        key=(_words(rule.set.device, words), _words(rule.set.resource, words)),
        literal=None if is_expression else (text if isinstance(value, str) else value),
        expression=_expression(environment, text[1:], f"{where}: set.value") if is_expression else None,
        because=_words(rule.because, words),
        confidence=rule.confidence,
        dead_band=rule.set.dead_band,
        uses_time=_uses_time(variables, when_text, text[1:] if is_expression else ""),
    )


def _expression(environment: Any, text: str, where: str) -> Any:
    try:
        return environment.compile(text)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()]
        told = "; ".join(line.removeprefix("ERROR: <input>:").strip() for line in lines if line.startswith("ERROR"))
        hint = ": numbers are written 21.0, not 21" if "(double, int)" in told or "(int, double)" in told else ""
        raise ConfigurationError(f"{where}: {text!r}: {told or error}{hint}") from error


def _source(item: str | Recent, words: Mapping[str, str]) -> Key | Recent:
    if isinstance(item, Recent):
        return item.model_copy(update={"of": _words(item.of, words)})
    device, _, resource = _words(item, words).partition("/")
    return device, resource


def _uses_time(variables: Mapping[str, Any], *expressions: str) -> bool:
    """Say whether what compiled with the time among its variables does not without it."""
    timeless = cel.NewEnv(
        variables={name: kind for name, kind in variables.items() if name not in _TIME}, extensions=[ext_math.ExtMath()]
    )  # fmt: skip
    try:
        for text in filter(None, expressions):
            _expression(timeless, text, "")
    except ConfigurationError:
        return True
    return False


def key_of(item: Key | Recent) -> Key:
    """Return the device resource that a rule's reading, or the statistic of one, is about."""
    return item.key if isinstance(item, Recent) else item


def _words(text: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text


def _fill(text: str, values: Mapping[str, Value]) -> str:
    for name, value in values.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        text = text.replace("{" + name + "}", shown)
    return text


def _type_of(value: object) -> Any:
    return cel.Type.BOOL if isinstance(value, bool) else cel.Type.STRING if isinstance(value, str) else cel.Type.DOUBLE


def _cel_value(value: Value) -> Any:
    """Return a value as CEL takes it: numbers are doubles.

    Raises:
        InvalidInputError: an integer beyond any double, or a text that CEL would cut off or choke on.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise InvalidInputError(f"an integer of {value.bit_length()} bits is no reading") from error
    if isinstance(value, str) and not _is_text(value):
        raise InvalidInputError(f"{value[:40]!r} is no text that can be compared")
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in value
