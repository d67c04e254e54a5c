"""An agent's options as a grammar: exactly the answers of `model/answer.py`, compact, without free white space.

Devices with the same resources and ranges share a rule, so a house of two hundred lamps is a list of names and one
menu. A number has as many decimals as its slot says, always: one text a value. Pure; `constrain.py` compiles it.

Source: llguidance's Lark dialect; RFC 8259 for how names are escaped.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from edgeagents.errors import InvalidInputError
from edgeagents.model.options import UNSHOWN, Options, Slot
from edgeagents.model.values import format_value, is_numeric, parse_value

MOST_GRAMMAR_CHARS: Final = 4 << 20
_RANGES: Final = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in UNSHOWN)
# What a text may hold, unescaped; a text does not begin with a blank.
LETTER: Final = f'[^"\\\\{_RANGES}]'
_FIRST: Final = f'[^ "\\\\{_RANGES}]'
# Parts of texts that llguidance looks up instead of walking through the vocabulary at each token.
SLICES: Final = (f"{LETTER}{{1,10}}", f"{LETTER}{{1,30}}", f"{LETTER}+")


def grammar_of(options: Options) -> str:
    """Return the grammar of all answers that options hold.

    Raises:
        InvalidInputError: it would be too large.
    """
    rules: list[str] = []
    answers = ['"\\"nothing\\":" TEXT']
    if options.may_ask:
        answers.append('"\\"ask\\":" TEXT')
    if options.skills:
        skills = _either(_literal(_json(skill)) for skill in options.skills)
        answers.append(f'"\\"skill\\":" ({skills}) ",\\"text\\":" TEXT')
    if options.slots:
        answers.append('"\\"device\\":" command')
        rules += _commands(options.slots)
    text = f'TEXT: /"{_FIRST}{LETTER}{{0,{options.most_text - 1}}}"/'
    found = "\n".join(['start: "{" answer "}"', f"answer: {_either(answers)}", *rules, text])
    if len(found) > MOST_GRAMMAR_CHARS:
        raise InvalidInputError(f"a grammar of {len(found) >> 20} MiB: narrow the agent's permissions")
    return found


def _commands(slots: Sequence[Slot]) -> list[str]:
    """Return the rules of all commands: one a group of devices with the same menu, one a range of values."""
    menus: dict[str, list[Slot]] = {}
    for slot in slots:
        menus.setdefault(slot.device, []).append(slot)
    values: dict[tuple[object, ...], str] = {}
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    rules = []
    for device, menu in menus.items():
        entries = []
        for slot in menu:
            name = values.get(slot.shape)
            if name is None:
                name = values[slot.shape] = f"v{len(values)}"
                rules.append(f"{name}: {_value(slot)}")
            entries.append((slot.resource, name))
        groups.setdefault(tuple(entries), []).append(device)
    commands = []
    for number, (entries_of, devices) in enumerate(groups.items()):
        rules.append(f"D{number}: {_either(_literal(_json(device)) for device in devices)}")
        items = ((_literal(f'{_json(resource)},"value":'), name) for resource, name in entries_of)
        menu_text = _either(f"{resource} {name}" for resource, name in items)
        rules.append(f'c{number}: D{number} ",\\"resource\\":" ({menu_text})')
        commands.append(f"c{number}")
    return [f"command: {_either(commands)}", *rules]


def _value(slot: Slot) -> str:
    """Return what the values of a slot look like, as JSON."""
    if slot.values:
        return _either(dict.fromkeys(_literal(_permitted(slot.kind, text)) for text in slot.values))
    if slot.kind == "Bool":
        return '"true" | "false"'
    if is_numeric(slot.kind):
        return f"/{number_pattern(slot.lowest, slot.highest, slot.decimals)}/"
    return f'/"({_FIRST}{LETTER}{{0,{slot.most_chars - 1}}})?"/'


def _permitted(kind: str, text: str) -> str:
    value = parse_value(kind, text)
    # EdgeX's own text of a number, 2.15e+01, is JSON too; of a Float32 it is the shortest.
    return _json(value) if isinstance(value, (str, bool)) else format_value(kind, value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def _either(parts: Iterable[str]) -> str:
    return " | ".join(parts)


@lru_cache(maxsize=4096)
def number_pattern(lowest: int, highest: int, decimals: int = 0) -> str:
    """Return a regular expression of exactly the numbers from `lowest` to `highest` in steps of 10^-decimals.

    Each has one spelling: no leading zeros, no plus, no `-0`, and always as many decimals.

    Args:
        lowest: in steps.
        highest: in steps, at least `lowest`.
        decimals: digits behind the point.
    """
    parts = []
    if highest >= 0:
        parts += _naturals(max(lowest, 0), highest, decimals)
    if lowest < 0:
        parts += [f"-({'|'.join(_naturals(max(1, -highest), -lowest, decimals))})"]
    return f"({'|'.join(parts)})"


def _naturals(low: int, high: int, decimals: int) -> list[str]:
    """Return patterns of the numbers from `low` to `high`, both at least 0, one for each number of digits."""
    found = []
    for size in range(max(len(str(low)), decimals + 1), max(len(str(high)), decimals + 1) + 1):
        first = 10 ** (size - 1) if size > decimals + 1 else 0
        start, stop = max(low, first), min(high, 10**size - 1)
        if start <= stop:
            found.append(_between(str(start).zfill(size), str(stop).zfill(size), decimals))
    return found


def _between(low: str, high: str, decimals: int) -> str:
    """Return a pattern of the digit strings from `low` to `high`, of equal length, with a point before the decimals."""
    size = len(low)
    if not size:
        return ""
    point = "\\." if size == decimals and decimals else ""
    if set(low) == {"0"} and set(high) == {"9"}:
        return _any(size, decimals)
    if low[0] == high[0]:
        return f"{point}{low[0]}{_between(low[1:], high[1:], decimals)}"
    rest = size - 1
    first, last = int(low[0]), int(high[0])
    parts = []
    if set(low[1:]) - {"0"}:
        parts.append(f"{low[0]}{_between(low[1:], '9' * rest, decimals)}")
        first += 1
    tail = ""
    if set(high[1:]) - {"9"}:
        tail = f"{high[0]}{_between('0' * rest, high[1:], decimals)}"
        last -= 1
    if first <= last:
        digit = str(first) if first == last else f"[{first}-{last}]"
        parts.append(f"{digit}{_any(rest, decimals)}")
    return f"{point}({'|'.join([*parts, *([tail] if tail else [])])})"


def _any(size: int, decimals: int) -> str:
    """Return a pattern of any `size` digits, with a point before the decimals."""
    if not decimals or size < decimals:
        return f"[0-9]{{{size}}}" if size else ""
    return (f"[0-9]{{{size - decimals}}}" if size > decimals else "") + f"\\.[0-9]{{{decimals}}}"
