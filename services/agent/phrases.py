"""Plain sentences in English and Chinese -> what is meant, by templates and without a model.

Two sets of templates: those of Home Assistant (package `home-assistant-intents`) as far as they speak of what a house
of EdgeX devices has, and our own (`sentences/`): problems such as "it is stuffy", and wordings that the others leave
out. Names of rooms and devices are slots, so no name can become a word of a template. Pure; templates are read when a
language is first spoken, and never looked at for a text that is too long for a plain sentence.

Source: hassil 3; home-assistant-intents 2026.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

import yaml

from edgeagents.model.words import Kind, Language
from services.agent.house import House

if TYPE_CHECKING:  # imported when somebody talks: most agents never need it
    from hassil.intents import Intents, SlotList
    from hassil.recognize import RecognizeResult

Action: TypeAlias = Literal[
    "on", "off", "open", "close", "temperature", "brightness", "position", "level",
    "fresher", "warmer", "cooler", "brighter", "darker", "leaving", "query", "help",
]  # fmt: skip
ACTIONS: Final = frozenset(get_args(Action))
MOST_CHARS: Final = 160  # a plain sentence is shorter; matching time grows with the length
_MOST_MATCHES: Final = 40
_DOMAINS: Final[Mapping[Kind, str]] = {
    "light": "light", "blind": "cover", "heating": "climate", "ventilation": "fan", "switch": "switch",
    "sensor": "sensor",
}  # fmt: skip
_KINDS: Final = {domain: kind for kind, domain in _DOMAINS.items()}
_COVERS: Final = frozenset(("blind", "curtain", "shade", "shutter", "awning"))  # doors and gates are none of ours
_SPOKEN: Final = {
    "HassTurnOn": "on", "HassTurnOff": "off", "HassLightSet": "brightness", "HassClimateSetTemperature": "temperature",
    "HassClimateGetTemperature": "query", "HassSetPosition": "position", "HassFanSetSpeed": "level",
    "HassGetState": "query",
}  # fmt: skip
# "Put the blind to 30 percent" fits templates of both.
_OTHERWISE: Final = {
    ("brightness", "blind"): "position", ("position", "light"): "brightness", ("brightness", "ventilation"): "level",
    ("position", "ventilation"): "level",
}  # fmt: skip
_LEFT_OUT: Final = ("floor", "color", "scene", "script", "button", "media", "vacuum", "lawn", "lock", "person")
_FILES: Final[Mapping[Language, str]] = {"en": "en.json", "zh": "zh-CN.json"}
_ANSWERED: Final[frozenset[Action]] = frozenset(("query", "help"))  # what a question may mean without being a request
# "It is too cold?" asks; "could you turn it on?" and "turn it on?" ask for something to be done.
_REQUESTS: Final[Mapping[Language, re.Pattern[str]]] = {
    "en": re.compile(
        r"\b(?:can|could|would|will) you\b|\bplease\b|\bi(?:'d| would) like\b"
        r"|^(?:(?:hey|hello|assistant|just|thanks|thank you) )*"
        r"(?:activate|adjust|air|change|close|cut|deactivate|decrease|dim|disable|enable|get|give|heat|increase|kill|let|"
        r"lift|lower|make|move|open|pull|put|raise|set|shut|start|stop|switch|turn|ventilate|warm)\b",
        re.IGNORECASE,
    ),
    "zh": re.compile(
        r"请(?!问)|帮|替我|给我|麻烦|拜托|能不能|能否|可不可以|可以|调到"
        r"|(?:打开|关掉|关上|拉开|拉上|[开关]一下)$"
        r"|^(?:把|将|让|给|打开|开|启动|点亮|关|熄灭|停|拉开|升起|拉上|放下|设|调)"
    ),
}


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a sentence says, in its own terms.

    Args:
        action: what is meant.
        quantity: of a query: the role it asks for.
        room: label of the room that is named; empty: none is.
        devices: the devices that are named, all that the name may mean; empty: none is.
        kind: what kind of thing is named.
        number: a temperature in °C, a level, or percent.
        is_share: the number is percent of the range.
        is_everywhere: all of them are meant.
        literals: how much of the template was literal text: more is a better match.
    """

    action: Action
    quantity: str = ""
    room: str = ""
    devices: frozenset[str] = frozenset()
    kind: Kind | None = None
    number: float | None = None
    is_share: bool = False
    is_everywhere: bool = False
    literals: int = 0

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """How good a match is: who names a room and a thing comes first."""
        return bool(self.room), bool(self.devices or self.kind), self.literals


def is_installed() -> bool:
    """Say whether what matches sentences is installed: the extra `ask`."""
    return all(find_spec(name) is not None for name in ("hassil", "home_assistant_intents"))


def language_of(text: str) -> Language:
    """Return the language of a text: Chinese when it holds a Chinese character."""
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in text) else "en"


def plain(text: str) -> str:
    """Return a text as it is matched: full-width letters and digits as usual ones, no end marks, single blanks.

    No number becomes another: "10,000" is written "10'000" and "2²" keeps its square, and no template has either.
    """
    degrees = "度" if language_of(text) == "zh" else "°c"
    usual = _usual(text.replace("℃", degrees)).replace("’", "'")
    marks = {ord(mark): " " for mark in '!?.,;:"。，！？；、'}
    # A point between digits stays: 21.5 degrees. A comma before three digits parts thousands: it is no point.
    grouped = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "'", usual)
    kept = re.sub(r"(?<=\d)[.,](?=\d)", "\ue000", grouped)
    return " ".join(kept.translate(marks).replace("\ue000", ".").split())


def _usual(text: str) -> str:
    """Return a text in the form NFKC, but for what would become digits of another number there."""
    runs = groupby(range(len(text)), key=lambda at: _is_apart(text, at))
    parts = ((is_apart, "".join(text[at] for at in run)) for is_apart, run in runs)
    return "".join(part if is_apart else unicodedata.normalize("NFKC", part) for is_apart, part in parts)


def _is_apart(text: str, at: int) -> bool:
    """Say whether a letter is a number that may not run into what is beside it: the square in "2²", no 2 of CO₂."""
    if unicodedata.category(text[at]) != "No":
        return False
    before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
    is_raised = unicodedata.decomposition(text[at]).startswith(("<super>", "<sub>"))
    is_in_number = any(unicodedata.category(letter) in ("Nd", "No") for letter in before + after)
    return is_in_number or (is_raised and not (before.isascii() and before.isalpha()))


def _is_question(text: str, asked: str) -> bool:
    """Say whether a text, of which `asked` is the plain form, asks: with a question mark or 吗 nothing is stated."""
    usual = unicodedata.normalize("NFKC", text)  # of ？ and ⁉, too
    return any(mark in usual for mark in "?؟") or asked.endswith("吗")


class Phrasebook:
    """Matches sentences against the names of one house."""

    def __init__(self, house: House, language: Language) -> None:
        """Prepare the names; templates are shared by all houses."""
        from hassil.intents import TextSlotList

        self._language = language
        self._devices = _by_name(house, language)
        rooms = [(name, label) for label, names in house.rooms.items() for name in names[language]]
        self._lists: dict[str, SlotList] = {
            "area": TextSlotList.from_tuples(_longest_first(rooms), name="area", allow_template=False),
            "name": TextSlotList.from_tuples(
                [(name, name, {"domain": _DOMAINS[kind]}) for name, kind in sorted(
                    self._devices, key=lambda item: (-len(item[0]), item))],
                name="name", allow_template=False,
            ),
        }  # fmt: skip

    def match(self, text: str) -> Phrase | None:
        """Return what a sentence means, None when no template fits it, or when it only asks whether something is so."""
        asked = plain(text)
        if not asked or len(asked) > MOST_CHARS:
            return None
        found = list(islice(self._phrases(asked), _MOST_MATCHES))
        if _is_question(text, asked) and not _REQUESTS[self._language].search(asked):
            found = [item for item in found if item.action in _ANSWERED]
        return max(found, key=lambda item: item.rank) if found else None

    def _phrases(self, text: str) -> Iterator[Phrase]:
        from hassil.recognize import recognize_all

        for templates in _templates(self._language):
            for result in recognize_all(text, templates, slot_lists=self._lists, language=templates.language):
                phrase = self._phrase(result)
                if phrase is not None:
                    yield phrase

    def _phrase(self, result: "RecognizeResult") -> Phrase | None:
        slots: dict[str, Any] = {name: item.value for name, item in result.entities.items()}
        action = slots.get("action") or _SPOKEN.get(result.intent.name)
        domain = slots.get("domain") or result.context.get("domain")
        kind = _KINDS.get(str(domain)) if domain else None
        if slots.get("device_class", "blind") not in _COVERS:
            return None
        name = slots.get("name")
        devices = frozenset(self._devices.get((str(name), kind), ())) if name is not None and kind is not None else ()
        quantity = slots.get("quantity", "")
        if result.intent.name == "HassClimateGetTemperature":
            quantity, kind, devices = "temperature", None, ()
        elif result.intent.name == "HassGetState":
            quantity = "switch" if kind in ("light", "ventilation") else "closed"
        if action in ("on", "off") and kind == "blind":
            action = "open" if action == "on" else "close"
        action = _OTHERWISE.get((str(action), str(kind)), action)
        number, is_share = _number(slots)
        if action not in ACTIONS:
            return None
        return Phrase(
            action=cast(Action, action), quantity=str(quantity), room=str(slots.get("area", "")),
            devices=frozenset(devices), kind=kind, number=number, is_share=is_share,
            is_everywhere="everywhere" in slots or _is_all(result), literals=result.text_chunks_matched,
        )  # fmt: skip


def _number(slots: Mapping[str, Any]) -> tuple[float | None, bool]:
    if "half" in slots:
        return 50.0, True
    for name in ("temperature", "level"):
        if name in slots:
            return float(slots[name]), False
    for name in ("brightness", "position", "percentage"):
        if name in slots:
            return float(slots[name]), True
    return None, False


def _is_all(result: "RecognizeResult") -> bool:
    about = result.intent_data.metadata or {}
    return about.get("slot_combination") == "domain_all" or str(result.response or "").endswith("s_all")


def _by_name(house: House, language: Language) -> dict[tuple[str, Kind], list[str]]:
    found: dict[tuple[str, Kind], list[str]] = {}
    for thing in house.things:
        for name in thing.names[language]:
            spoken = plain(name).lower()
            if spoken:
                found.setdefault((spoken, thing.kind), []).append(thing.device)
                if language == "en" and not spoken.endswith("s") and " " not in spoken:
                    found.setdefault((f"{spoken}s", thing.kind), []).append(thing.device)
    return found


def _longest_first(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted(pairs, key=lambda item: (-len(item[0]), item))


@lru_cache(maxsize=len(_FILES))
def _templates(language: Language) -> "tuple[Intents, Intents]":
    """Return our own templates and those of Home Assistant, read once."""
    from hassil.intents import Intents

    own = Path(__file__).with_name("sentences") / f"{language}.yaml"
    theirs = files("home_assistant_intents").joinpath("data", _FILES[language]).read_text(encoding="utf-8")
    return (
        Intents.from_dict(yaml.safe_load(own.read_text(encoding="utf-8"))),
        Intents.from_dict(_ours_of(json.loads(theirs))),
    )


def _ours_of(templates: dict[str, Any]) -> dict[str, Any]:
    """Return of Home Assistant's templates what a house of EdgeX devices can be asked."""
    kept: dict[str, Any] = {}
    for intent in _SPOKEN:
        blocks = (_block(intent, item) for item in templates["intents"].get(intent, {}).get("data", ()))
        data = [item for item in blocks if item is not None]
        if data:
            kept[intent] = {"data": data}
    return {**templates, "intents": kept, "responses": {}}


def _block(intent: str, block: Mapping[str, Any]) -> dict[str, Any] | None:
    combination = str((block.get("metadata") or {}).get("slot_combination", ""))
    text = json.dumps(block.get("sentences"))
    if any(word in combination for word in _LEFT_OUT) or "{color" in text or "{zone" in text or "{floor}" in text:
        return None
    if intent == "HassLightSet" and "temperature" in combination:
        return None
    context = {name: value for name, value in (block.get("requires_context") or {}).items() if name != "area"}
    domains = {str(item) for item in _as_list(context.get("domain"))} | {
        str(item) for item in _as_list((block.get("slots") or {}).get("domain"))
    }
    if domains and domains.isdisjoint(_KINDS):
        return None
    if intent == "HassGetState" and (not domains & {"light", "cover", "fan"} or block.get("response") == "all"):
        return None  # "all lights off" would be a question there
    # A name alone is no command.
    sentences = [item for item in block["sentences"] if item not in ("[<the>] {name}", "{name}")]
    return {**block, "requires_context": context, "sentences": sentences} if sentences else None


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
