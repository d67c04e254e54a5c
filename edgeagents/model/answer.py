"""What a language model said, as a value; what is not legal is refused. Knows nothing of grammars.

    {"device":"radiator-bedroom","resource":"Setpoint","value":21.5}
    {"skill":"heating","text":"warm the bedroom by seven"}
    {"ask":"Which bedroom do you mean?"}
    {"nothing":"nobody is at home"}

Compact JSON, keys in this order, no free white space: `inference/constrain.py` has a model write exactly this. Another
server's model may write blanks or other digits: what counts is the value, and whether the options hold it.

Source: RFC 8259; design.md section 6.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

from edgeagents.errors import InvalidInputError
from edgeagents.model.options import UNSHOWN, Options, Slot
from edgeagents.model.values import Value, check_value, is_numeric, parse_value, same_value

MOST_CHARS: Final = 8_192  # of an answer as a whole
_UNSHOWN: Final = re.compile(f"[\ud800-\udfff{''.join(f'{chr(low)}-{chr(high)}' for low, high in UNSHOWN)}]")


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """One resource is to have a value."""

    device: str
    resource: str
    value: Value


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """Something others are to do."""

    skill: str
    text: str


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """The person is to be asked."""

    text: str


@dataclass(frozen=True, slots=True)
class NothingAnswer:
    """There is nothing to do, and why."""

    because: str


Answer: TypeAlias = CommandAnswer | TaskAnswer | QuestionAnswer | NothingAnswer


def format_answer(answer: Answer) -> str:
    """Return an answer's text, compact, without any check."""
    match answer:
        case CommandAnswer():
            body: dict[str, Any] = {"device": answer.device, "resource": answer.resource, "value": answer.value}
        case TaskAnswer():
            body = {"skill": answer.skill, "text": answer.text}
        case QuestionAnswer():
            body = {"ask": answer.text}
        case NothingAnswer():
            body = {"nothing": answer.because}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def parse_answer(text: str, options: Options) -> Answer:
    """Return what an answer says.

    Args:
        text: what a model wrote, all of it.
        options: what it may say.

    Raises:
        InvalidInputError: no answer, or one that the options do not hold.
    """
    if len(text) > MOST_CHARS:
        raise InvalidInputError(f"an answer of {len(text)} characters: at most {MOST_CHARS}")
    try:
        body = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not an answer: {_quoted(text)}: {str(error)[:120]}") from error
    if not isinstance(body, dict):
        raise InvalidInputError(f"not an answer: {_quoted(text)} is no JSON object")
    if any(isinstance(item, (dict, list)) for item in body.values()):
        raise InvalidInputError(f"not an answer: {_quoted(text)}: its values are texts, numbers, true or false")
    match tuple(sorted(body)):
        case ("device", "resource", "value"):
            return _command(body, options)
        case ("skill", "text"):
            if body["skill"] not in options.skills:
                raise InvalidInputError(f"no task of skill {_quoted(str(body['skill']))} may be handed on")
            return TaskAnswer(body["skill"], _text(body["text"], options.most_text))
        case ("ask",) if options.may_ask:
            return QuestionAnswer(_text(body["ask"], options.most_text))
        case ("nothing",):
            return NothingAnswer(_text(body["nothing"], options.most_text))
    raise InvalidInputError(f"not an answer that is possible here: {_quoted(text)}")


def _command(body: Mapping[str, Any], options: Options) -> CommandAnswer:
    device, resource, value = body["device"], body["resource"], body["value"]
    if not isinstance(device, str) or not isinstance(resource, str):
        raise InvalidInputError("device and resource of an answer are texts")
    slots = options.by_key.get((device, resource), ())
    if not slots:
        raise InvalidInputError(f"{_quoted(device)}/{_quoted(resource)} may not be set")
    problems = []
    for slot in slots:
        try:
            return CommandAnswer(device, resource, _value(value, slot))
        except InvalidInputError as error:
            problems.append(str(error))
    raise InvalidInputError(f"{_quoted(device)}/{_quoted(resource)}: {problems[0]}")


def _value(value: Value, slot: Slot) -> Value:
    """Return a value as the slot's type has it."""
    if slot.kind in ("Float32", "Float64") and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value)
    elif is_numeric(slot.kind) and isinstance(value, float) and value.is_integer() and slot.kind[:1] in "IU":
        value = int(value)  # 21.0 is how some write 21
    check_value(slot.kind, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInputError(f"{value} is no value to set")
    if slot.values:
        if not any(same_value(parse_value(slot.kind, text), value) for text in slot.values):
            raise InvalidInputError(f"{_quoted(str(value))} is not among {_quoted(', '.join(slot.values))}")
    elif is_numeric(slot.kind) and isinstance(value, (int, float)):
        steps = Decimal(repr(value)) * 10**slot.decimals
        if not slot.lowest <= steps <= slot.highest:
            scale = Decimal(10) ** -slot.decimals
            raise InvalidInputError(f"{value} is outside {slot.lowest * scale} to {slot.highest * scale}")
    elif isinstance(value, str):
        _text(value, slot.most_chars, least=0)
    return value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidInputError("a number beyond any float") from error


def _text(value: object, most: int, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise InvalidInputError(f"a text of {least} to {most} characters is wanted, not {_quoted(str(value))}")
    if _UNSHOWN.search(value):
        raise InvalidInputError("a text with characters that cannot be shown")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _quoted(text: str, most: int = 80) -> str:
    shown = text if len(text) <= most else f"{text[:most]}…"
    return json.dumps(shown, ensure_ascii=True)
