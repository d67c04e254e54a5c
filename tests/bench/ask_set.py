"""The labelled sentences, the home they are said in, and whether what came of one is what should have."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from edgeagents.adapters.files import load_model
from edgeagents.model.agent import Recent, Sample
from edgeagents.model.device import Device, Profile
from edgeagents.model.values import Value
from edgeagents.model.words import Language, Words
from services.agent.house import House, house_of
from services.agent.phrases import Phrasebook
from services.agent.understanding import Act, AskBack, Help, Tell, Understood, understand

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / "edgex-profiles" / "home"
FOLDER: Final = ROOT / "tests" / "labelled"
Half = Literal["tuned", "held-out"]
HALVES: Final[tuple[Half, ...]] = ("tuned", "held-out")
Verdict = Literal["right", "silent", "wrong", "harmful"]
"""Right; not understood; another answer without a command; or commands that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Item:
    """One sentence and what should come of it."""

    half: Half
    kind: str
    language: Language
    text: str
    want: str


class State:
    """What was read last in the labelled home, as a view."""

    def __init__(self, values: dict[tuple[str, str], Value]) -> None:
        self._values = values

    def latest(self, key: tuple[str, str]) -> Sample | None:
        return Sample(self._values[key], 1, 1.0) if key in self._values else None

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        return None


@lru_cache(maxsize=2)
def home(words: bool = True) -> House:
    """Return the home as people speak of it; without `words` by its metadata alone."""
    return house_of(devices().values(), profiles(), load_model(Words, HOME / "words.yaml") if words else Words())


@lru_cache(maxsize=1)
def profiles() -> dict[str, Profile]:
    """Return the home's profiles by name."""
    found = [Profile.model_validate(yaml.safe_load(path.read_text())) for path in (HOME / "profiles").glob("*.yaml")]
    return {item.name: item for item in found}


@lru_cache(maxsize=1)
def devices() -> dict[str, Device]:
    """Return the home's devices by name."""
    lists = [yaml.safe_load(path.read_text())["deviceList"] for path in sorted((HOME / "devices").glob("*.yaml"))]
    return {item["name"]: Device.model_validate(item) for items in lists for item in items}


@lru_cache(maxsize=1)
def state() -> State:
    """Return what was read last."""
    said: dict[str, Any] = yaml.safe_load((FOLDER / "ask-state.yaml").read_text())
    pairs = ((name.partition("/"), value) for name, value in said.items())
    return State({(device, resource): value for (device, _, resource), value in pairs})


def items(halves: Iterable[Half] = HALVES) -> Iterator[Item]:
    """Yield the labelled sentences."""
    for half in halves:
        for group in yaml.safe_load((FOLDER / f"ask-{half}.yaml").read_text())["sets"]:
            for text, want in group["items"].items():
                yield Item(half, group["kind"], group["language"], text, want)


class FastPath:
    """Understands by templates alone."""

    def __init__(self) -> None:
        self._house, self._state = home(), state()
        self._books = {language: Phrasebook(self._house, language) for language in ("en", "zh")}

    def understand(self, item: Item) -> Understood | None:
        """Return what is made of a sentence, None when no template fits."""
        phrase = self._books[item.language].match(item.text)
        return None if phrase is None else understand(phrase, self._house, self._state)


def judge(found: Understood | None, want: str) -> Verdict:
    """Return how what came of a sentence compares with what should have."""
    word, _, rest = want.partition(" ")
    sets = {f"{item.device}/{item.resource}={text_of(item.value)}" for item in found.intents} if isinstance(
        found, Act) else set()  # fmt: skip
    if sets:
        if word == "at" and rest.removeprefix("least ") in sets:
            return "right"
        return "right" if sets == {want} else "harmful"
    if want == "nothing":
        return "right"
    if found is None:
        return "silent"
    match found:
        case Tell(role, things):
            _, wanted, devices = (*want.split(" ", 2), "")[:3] if word == "tell" else ("", "", "")
            named = {thing.device for thing in things}
            return "right" if role == wanted and set(devices.split()) <= named else "wrong"
        case AskBack(missing):
            return "right" if want == f"ask {missing}" else "wrong"
        case Help():
            return "right" if want == "help" else "wrong"
        case Act(settled=settled):
            same = {f"{item.device}/{item.resource}={text_of(item.value)}" for item in settled}
            return "right" if word == "nothing-new" and rest in same else "wrong"
    return "wrong"


def text_of(value: Value) -> str:
    """Return a value as labels write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
