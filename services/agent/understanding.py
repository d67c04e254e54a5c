"""What a sentence means for the devices of this house: commands, readings to tell, or a question back. Pure.

A phrase names rooms and things; here they become device resources and values, relative wishes ("warmer") on what was
read last. Nothing here permits anything: what is wanted goes the way of every other wish, and the guard has the word.

Source: docs/ask.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from edgeagents.model.agent import Intent
from edgeagents.model.values import Value, same_value
from edgeagents.model.words import ROLES, Kind, Role
from services.agent.house import House, Thing
from services.agent.phrases import Phrase
from services.agent.view import View

MOST_TOLD: Final = 30
Missing: TypeAlias = Literal["room", "number", "sentence", "intention"]
Problem: TypeAlias = Literal["no-such-thing", "out-of-range", "present-unknown", "model"]
_BRIGHTER_BY: Final = 30
_BY_KIND: Final[Mapping[Kind, Role]] = {
    "light": "switch", "blind": "closed", "heating": "target", "ventilation": "level", "switch": "switch",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Act:
    """These commands are wanted; `settled` is what is as wanted already. `inputs` is what was looked at for it."""

    intents: tuple[Intent, ...]
    settled: tuple[Intent, ...] = ()
    inputs: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tell:
    """These readings are asked for: a role and the things that have it; `only` keeps those with that value."""

    role: Role
    things: tuple[Thing, ...]
    only: bool | None = None


@dataclass(frozen=True, slots=True)
class AskBack:
    """Something is missing: what, and what there is to choose from (labels of rooms)."""

    missing: Missing
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cannot:
    """It was understood and cannot be done, and why; nothing is commanded."""

    problem: Problem
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Help:
    """What one may say is asked for."""


Understood: TypeAlias = Act | Tell | AskBack | Cannot | Help
_BY_ACTION: Final[Mapping[str, Role]] = {"temperature": "target", "brightness": "brightness", "level": "level"}
_Wishes: TypeAlias = list[tuple[Thing, str, Value]]  # thing, resource, value


def understand(phrase: Phrase, house: House, view: View) -> Understood:
    """Return what a phrase means.

    Args:
        phrase: what the sentence says.
        house: what there is.
        view: what was read last, for "warmer" and for what is so already.
    """
    match phrase.action:
        case "help":
            return Help()
        case "query":
            return _tell(phrase, house)
        case "leaving":
            return _leave(house, view)
        case "fresher":
            return _fresher(phrase, house, view)
        case "brighter" | "darker":
            return _light_level(phrase, house, view)
        case "warmer" | "cooler":
            return _warmth(phrase, house, view)
        case "on" | "off" | "open" | "close":
            return _switch(phrase, house, view)
    return _number(phrase, house, view)


def things_for(phrase: Phrase, house: House, role: Role) -> list[Thing] | AskBack | Cannot:
    """Return the things of a role that a phrase means; a question when it may mean several rooms."""
    found = [
        thing for thing in house.having(role, phrase.room)
        if (not phrase.devices or thing.device in phrase.devices)
        and (phrase.kind is None or thing.kind == phrase.kind or bool(phrase.devices))
    ]  # fmt: skip
    if not found and phrase.room and (phrase.kind in ("ventilation", "switch") or role == "level"):
        # One unit serves the whole house: naming the room says no more than why.
        found = [thing for thing in things_anywhere(phrase, house, role) if not thing.room]
    if not found:
        return Cannot("no-such-thing", phrase.room)
    if phrase.room or phrase.is_everywhere or len(found) == 1:
        return found
    rooms = tuple(dict.fromkeys(thing.room for thing in found if thing.room))
    return AskBack("room", rooms) if len(rooms) > 1 else found


def things_anywhere(phrase: Phrase, house: House, role: Role) -> list[Thing]:
    """Return the things of a role and of the named kind in any room."""
    return [thing for thing in house.having(role) if phrase.kind is None or thing.kind == phrase.kind]


def act(wishes: _Wishes, view: View, rule: str, because: str = "") -> Act:
    """Return the commands for wishes, without what is as wanted already."""
    intents: list[Intent] = []
    settled: list[Intent] = []
    inputs: dict[str, Value] = {}
    for thing, resource, value in wishes:
        sample = view.latest((thing.device, resource))
        intent = Intent(thing.device, resource, value, because, rule)
        if sample is not None:
            inputs[f"{thing.device}/{resource}"] = sample.value
        is_so = sample is not None and sample.value is not None and same_value(sample.value, value, 1e-6)
        (settled if is_so else intents).append(intent)
    return Act(tuple(intents), tuple(settled), inputs)


def _tell(phrase: Phrase, house: House) -> Understood:
    role = next((item for item in ROLES if item == phrase.quantity), None)
    if role is None:
        return Cannot("no-such-thing", phrase.quantity)
    if role == "switch" and phrase.kind in ("ventilation", "blind", "heating"):
        role = _BY_KIND[phrase.kind]
    found = [
        thing for thing in house.having(role, phrase.room)
        if not phrase.devices or thing.device in phrase.devices or thing.kind == phrase.kind
    ]  # fmt: skip
    if phrase.kind is not None and role in ("switch", "closed"):
        found = [thing for thing in found if thing.kind == phrase.kind]
    if role in ("temperature", "co2", "humidity", "presence", "window"):
        found = [thing for thing in found if thing.room]
    if not found:
        return Cannot("no-such-thing", phrase.room)
    if role == "switch" and not phrase.kind:
        found = [thing for thing in found if thing.kind == "light"] or found
    return Tell(role, tuple(found[:MOST_TOLD]))


def _leave(house: House, view: View) -> Understood:
    wishes: _Wishes = [(thing, thing.roles["switch"], False) for thing in house.having("switch", kind="light")]
    for thing in house.having("target"):
        sample = view.latest((thing.device, thing.roles["target"]))
        if sample is None or not isinstance(sample.value, (int, float)) or sample.value > house.away_c:
            wishes.append((thing, thing.roles["target"], house.away_c))
    return act(wishes, view, "leaving") if wishes else Cannot("no-such-thing")


def _fresher(phrase: Phrase, house: House, view: View) -> Understood:
    """One level up: the ventilation of the room, else what airs the whole house."""
    things = things_for(replace(phrase, kind="ventilation"), house, "level")
    if not isinstance(things, list):
        return things
    wishes: _Wishes = []
    for thing in things:
        resource = thing.roles["level"]
        now = _present(view, thing, resource)
        top = thing.limits[resource][1]
        wanted = max(2.0, (now if now is not None else 1.0) + 1.0)
        wishes.append((thing, resource, int(wanted if top is None else min(wanted, top))))
    return act(wishes, view, "fresher")


def _warmth(phrase: Phrase, house: House, view: View) -> Understood:
    things = things_for(phrase, house, "target")
    if not isinstance(things, list):
        return things
    step = house.step_c if phrase.action == "warmer" else -house.step_c
    wishes: _Wishes = []
    for thing in things:
        resource = thing.roles["target"]
        now = _present(view, thing, resource)
        if now is None:
            return AskBack("number", (thing.room,))
        wishes.append((thing, resource, _within(now + step, thing, resource)))
    return act(wishes, view, phrase.action)


def _light_level(phrase: Phrase, house: House, view: View) -> Understood:
    rooms = sorted({thing.room for thing in house.having("switch", kind="light")})
    room = phrase.room or (rooms[0] if len(rooms) == 1 else "")
    if not room and rooms:
        return AskBack("room", tuple(rooms))
    lights, blinds = house.having("switch", room, "light"), house.having("closed", room, "blind")
    if phrase.action == "darker":
        return _darker(lights, blinds, view)
    dark = [thing for thing in lights if (sample := view.latest((thing.device, thing.roles["switch"]))) is None
            or sample.value is not True]  # fmt: skip
    if dark:
        return act([(thing, thing.roles["switch"], True) for thing in dark], view, "brighter")
    wishes: _Wishes = []
    for thing in lights:
        resource = thing.roles.get("brightness", "")
        now = _present(view, thing, resource) if resource else None
        if now is not None and now < 100:
            wishes.append((thing, resource, int(min(100.0, now + _BRIGHTER_BY))))
    wishes = wishes or [(thing, thing.roles["closed"], 0) for thing in blinds]
    return act(wishes, view, "brighter") if wishes else Cannot("no-such-thing", room)


def _darker(lights: Sequence[Thing], blinds: Sequence[Thing], view: View) -> Understood:
    lit = [thing for thing in lights if (sample := view.latest((thing.device, thing.roles["switch"]))) is not None
           and sample.value is True]  # fmt: skip
    shut: _Wishes = [(thing, thing.roles["closed"], 100) for thing in blinds]
    wishes = shut or [(thing, thing.roles["switch"], False) for thing in lit]
    return act(wishes, view, "darker") if wishes else Cannot("no-such-thing")


def _switch(phrase: Phrase, house: House, view: View) -> Understood:
    kind, is_on = phrase.kind, phrase.action in ("on", "open")
    role = _role_of(phrase, house)
    if role is None:
        return Cannot("no-such-thing", phrase.room)
    things = things_for(phrase, house, role)
    if not isinstance(things, list):
        return things
    if role == "target" and is_on:
        return AskBack("number", tuple(thing.room for thing in things))
    value: Value = {
        "switch": is_on, "closed": 0 if is_on else 100, "open": 100 if is_on else 0,
        "level": 1 if is_on else 0, "target": house.away_c,
    }[role]  # fmt: skip
    if role == "level" and is_on and kind == "ventilation":
        # It is on already at a higher level: that is no reason to turn it down.
        things = [thing for thing in things if (_present(view, thing, thing.roles["level"]) or 0.0) < 1.0] or things
        running = [(thing, thing.roles[role], _running(view, thing)) for thing in things]
        return act(list(running), view, phrase.action)
    return act([(thing, thing.roles[role], value) for thing in things], view, phrase.action)


def _running(view: View, thing: Thing) -> Value:
    return int(max(1.0, _present(view, thing, thing.roles["level"]) or 0.0))


def _role_of(phrase: Phrase, house: House) -> Role | None:
    """Return which role is switched: that of the kind, or what the named devices have."""
    role = _BY_KIND.get(phrase.kind) if phrase.kind is not None else None
    choices: tuple[Role, ...] = ("switch", "closed", "open", "level", "target")
    named = [thing for thing in house.things if thing.device in phrase.devices] or [
        thing for thing in house.things if thing.kind == phrase.kind
    ]
    if role is not None and any(role in thing.roles for thing in named):
        return role
    return next((item for item in choices if any(item in thing.roles for thing in named)), None)


def _number(phrase: Phrase, house: House, view: View) -> Understood:
    role = _BY_ACTION.get(phrase.action) or ("closed" if house.having("closed") else "open")
    if phrase.action == "temperature" and phrase.kind in ("ventilation", "light", "blind", "switch"):
        return Cannot("no-such-thing", phrase.room)
    things = things_for(phrase, house, role)
    if not isinstance(things, list):
        return things
    if phrase.number is None:
        return AskBack("number", tuple(thing.room for thing in things))
    wishes: _Wishes = []
    for thing in things:
        resource = thing.roles[role]
        number, low, high = phrase.number, *thing.limits[resource]
        if role == "closed":
            number = 100 - number
        if role == "level" and phrase.is_share:
            number = round(number / 100 * (high or 100))
        if role == "brightness" and number == 0 and "switch" in thing.roles:
            wishes.append((thing, thing.roles["switch"], False))
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            return Cannot("out-of-range", f"{low:g}–{high:g}" if low is not None and high is not None else "")
        wishes.append((thing, resource, number if role == "target" else int(number)))
        if role == "brightness" and "switch" in thing.roles:
            wishes.append((thing, thing.roles["switch"], True))
    return act(wishes, view, phrase.action)


def _present(view: View, thing: Thing, resource: str) -> float | None:
    sample = view.latest((thing.device, resource))
    value = sample.value if sample is not None else None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


def _within(number: float, thing: Thing, resource: str) -> float:
    low, high = thing.limits[resource]
    return min(high if high is not None else number, max(low if low is not None else number, number))
