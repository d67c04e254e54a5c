"""Labelled situations: what the rules of the home's agents, its templates and a model make of each.

A situation is played to the agent's own picture of its devices, minute by minute, by the code that an agent runs; then
its event comes, or its sentence. What is done is compared with what should be.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import yaml

from edgeagents.adapters.files import load_agents
from edgeagents.adapters.inference_local import LocalInference
from edgeagents.errors import EdgeAgentsError, InvalidInputError
from edgeagents.model.agent import AgentDefinition, Observation, Thinks
from edgeagents.model.answer import CommandAnswer, parse_answer
from edgeagents.model.device import Event, Reading, make_reading
from edgeagents.model.message import Cause
from edgeagents.model.options import Options, options_of
from edgeagents.model.values import Value
from edgeagents.settings import SiteTime
from services.agent.decision import RuleStage, decide
from services.agent.perception import Twin
from services.agent.phrases import Phrasebook, language_of
from services.agent.prompts import question_prompt, situation_prompt
from services.agent.rules import RuleBook
from services.agent.understanding import Act, understand
from tests.bench.ask_set import FOLDER, HOME, Verdict, devices, home, profiles, text_of

BUDGET_S: Final = 120.0  # the score is of the answers, not of this machine's speed
WALL_S: Final = 1_700_000_000.0
NOON_S: Final = 1_768_478_400.0  # a winter's day, 12:00 UTC
SHOWN_S: Final = 300.0  # so often a device reports
DAY_S: Final = 86_400.0
HABIT_DAYS: Final = 14
TOLD_S: Final = 900.0  # so often within those


@dataclass(frozen=True, slots=True)
class Situation:
    """One situation and what should come of it."""

    name: str
    kind: str
    agent: str
    want: str
    past: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    habits: Mapping[str, bool] = field(default_factory=dict)
    event: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""
    late: int = 0
    twice: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """A situation as its agent sees it; `observation` is None where the event is none to look at."""

    agent: AgentDefinition
    rules: RuleBook
    twin: Twin
    observation: Observation | None


@cache
def situations() -> tuple[Situation, ...]:
    """Return all labelled situations."""
    return tuple(Situation(**item) for item in _file()["situations"])


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "situations.yaml").read_text())
    return found


@cache
def _agents() -> dict[str, AgentDefinition]:
    return load_agents(HOME / "agents")


def play(situation: Situation) -> Played:
    """Return a situation as its agent sees it when its event has come."""
    agent = _agents()[situation.agent]
    rules, time = RuleBook(agent, agent.name), SiteTime(NOON_S, WALL_S, 1.0)
    matters = rules.keys if rules.keys else {(device, name) for device in devices() for name in ("Switch", "Level")}
    twin = Twin(time, matters, max(rules.longest_s, 3600.0), rules.usual)
    for key, value in situation.habits.items():
        _live(twin, key, value)
    values = {f"{device}/{name}": value for device, items in _file()["base"].items() for name, value in items.items()}
    for minute in sorted({*range(60, 0, -int(SHOWN_S / 60)), *situation.past}, reverse=True):
        values |= situation.past.get(minute, {})
        for key, value in values.items():
            if _is_watched(agent, key):
                twin.remember(_event(key, value, -60.0 * minute), round((WALL_S - 60.0 * minute) * 1e9))
    return Played(agent, rules, twin, _observed(situation, twin, agent))


def _live(twin: Twin, key: str, value: bool) -> None:
    """Have a presence be as it is said for two weeks, around the clock."""
    for number in range(round(HABIT_DAYS * DAY_S / TOLD_S), round(2 * 3600 / TOLD_S), -1):
        twin.remember(_event(key, value, -TOLD_S * number), round((WALL_S - TOLD_S * number) * 1e9))


def _observed(situation: Situation, twin: Twin, agent: AgentDefinition) -> Observation | None:
    found = None
    for key, value in situation.event.items():
        if not _is_watched(agent, key):
            continue
        event = _event(key, value, -60.0 * situation.late)
        cause = Cause(stream="edgex-events", sequence=1, event_id=event.id, origin_ns=event.origin)
        if situation.twice:
            twin.observe(event, cause, NOON_S - 1)
            _settle(situation, twin)
        found = twin.observe(event, cause, NOON_S)
    return found


def _settle(situation: Situation, twin: Twin) -> None:
    """Have what an event's first copy led to be so: it was acted on."""
    first = Played(_agents()[situation.agent], RuleBook(_agents()[situation.agent], ""), twin, None)
    for fired in first.rules.evaluate(twin, NOON_S - 1):
        key = (fired.intent.device, fired.intent.resource)
        twin.set_value(key, fired.intent.value, round(WALL_S * 1e9), NOON_S)


def _is_watched(agent: AgentDefinition, key: str) -> bool:
    device, _, resource = key.partition("/")
    return any(
        watch.fits(devices()[device]) and (not watch.resources or resource in watch.resources)
        for watch in agent.watches
    )


def _event(key: str, value: Any, at_s: float) -> Event:
    name, _, resource = key.partition("/")
    device, origin_ns = devices()[name], round((WALL_S + at_s) * 1e9)
    found = profiles()[device.profile_name].resource(resource)
    assert found is not None, key
    event_id = f"{key}/{at_s}"
    reading = _reading(name, device.profile_name, resource, found.properties.value_type, value, origin_ns, event_id)
    return Event(
        id=event_id, device_name=name, profile_name=device.profile_name, source_name=resource, origin=origin_ns,
        readings=(reading,),
    )  # fmt: skip


def _reading(
    device: str, profile: str, resource: str, kind: str, value: Any, origin_ns: int, name: str
) -> Reading:  # fmt: skip
    if isinstance(value, str) or (isinstance(value, float) and not math.isfinite(value)):  # as a broken device has it
        return Reading(
            id=name, origin=origin_ns, device_name=device, profile_name=profile, resource_name=resource,
            value_type=kind, value=str(value),
        )  # fmt: skip
    number: Value = float(value) if "Float" in kind else value
    return make_reading(device, profile, resource, kind, number, origin_ns, reading_id=name)


# --- what is made of it ----------------------------------------------------------------------------


def by_rules(situation: Situation) -> frozenset[str]:
    """Return what rules, or templates where something is said, have done: device/resource=value."""
    played = play(situation)
    if situation.said:
        phrase = Phrasebook(home(), language_of(situation.said)).match(situation.said)
        found = understand(phrase, home(), played.twin) if phrase is not None else None
        intents = found.intents if isinstance(found, Act) else ()
    else:
        stages = (RuleStage(played.agent.name, played.rules),)
        decision = decide(played.observation, played.twin, stages) if played.observation is not None else None
        intents = decision.intents if decision is not None else ()
    return frozenset(f"{item.device}/{item.resource}={text_of(item.value)}" for item in intents)


async def by_model(situation: Situation, client: LocalInference) -> tuple[frozenset[str], float] | None:
    """Return what a model has done, and how sure it was; None where nobody asks it: there is nothing to look at."""
    played = play(situation)
    if not situation.said and played.observation is None:
        return None
    options = options_for(played, may_ask=bool(situation.said))
    if situation.said:
        request = question_prompt(situation.said, home(), options, played.twin, BUDGET_S)
    else:
        seen = played.observation
        assert seen is not None
        request = situation_prompt(seen.device, seen.changed, home(), options, played.twin, BUDGET_S)
    try:
        done = await client.complete(request)
        answer = parse_answer(done.text, options)
    except (EdgeAgentsError, InvalidInputError):
        return frozenset(), 0.0
    if not isinstance(answer, CommandAnswer):
        return frozenset(), done.confidence
    now = played.twin.latest((answer.device, answer.resource))
    is_so = now is not None and now.value == answer.value
    return frozenset(() if is_so else (f"{answer.device}/{answer.resource}={text_of(answer.value)}",)), done.confidence


def options_for(played: Played, *, may_ask: bool) -> Options:
    """Return what a model may answer in a situation."""
    present = {key: sample.value for key, sample in played.twin.readings.items()}
    found = options_of(played.agent, devices(), profiles(), present)
    return found.model_copy(update={"may_ask": may_ask})


def sure_of(situation: Situation) -> float:
    """Return how sure a model must be for its answer to be acted on."""
    return (_agents()[situation.agent].thinks or Thinks()).sure


def judged(done: frozenset[str], situation: Situation) -> Verdict:
    """Return how what was done compares with what should have been."""
    want = [] if situation.want == "nothing" else situation.want.split()
    met = {one for one in done if any(_is_meant(one, label) for label in want)}
    if met == done and len(met) == len(want):
        return "right"
    if not done:
        return "silent"
    return "harmful" if done - met else "wrong"


def _is_meant(one: str, label: str) -> bool:
    """Say whether what was done is what a label means: `a/b=36~2` is 36, give or take 2."""
    meant, _, tolerance = label.partition("~")
    if not tolerance:
        return one == meant
    (place, _, value), (wanted, _, number) = one.partition("="), meant.partition("=")
    try:
        return place == wanted and abs(float(value) - float(number)) <= float(tolerance)
    except ValueError:
        return False
